//! How the margins of a run's samples grew.
//!
//! ```text
//! cargo run --release -p fireproof-defenses --example margins -- runs/ima/checkpoint.safetensors runs/amat/checkpoint.safetensors
//! ```
//!
//! Prints one JSON line for each checkpoint: of every epoch the mean, the quantiles (smallest, 10 %, 25 %, median, 75 %, 90 %,
//! largest), and how many samples expanded, were refined, were wrong without an attack.

use std::{error::Error, path::Path};

use fireproof_defenses::{Checkpoint, margin::Snapshot};

fn main() -> Result<(), Box<dyn Error>> {
    for file in std::env::args().skip(1) {
        let path = Path::new(&file);
        let epochs = Snapshot::history(&Checkpoint::read(path)?, path)?;
        println!("{}", serde_json::json!({ "weights": file, "epochs": epochs }));
    }
    Ok(())
}
