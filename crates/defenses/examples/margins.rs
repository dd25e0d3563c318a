//! How the margins of a run's samples grew.
//!
//! ```text
//! cargo run --release -p fireproof-defenses --example margins -- runs/ima/checkpoint.safetensors runs/amat/checkpoint.safetensors
//! ```
//!
//! Prints one JSON line for each checkpoint: of every epoch the mean, the quantiles (smallest, 10 %, 25 %, median, 75 %, 90 %,
//! largest), and how many samples expanded, were refined, were wrong without an attack.

use std::path::Path;

use anyhow::{Result, ensure};
use fireproof_defenses::{Checkpoint, margin::Snapshot};

fn main() -> Result<()> {
    ensure!(std::env::args().len() > 1, "found no arguments, expected checkpoints of runs with a stage 'margin'");
    for file in std::env::args().skip(1) {
        let path = Path::new(&file);
        let epochs = Snapshot::history(&Checkpoint::read(path)?, path)?;
        ensure!(!epochs.is_empty(), "{file}: found no margins, expected a run with a stage 'margin' and a whole epoch");
        println!("{}", serde_json::json!({ "weights": file, "epochs": epochs }));
    }
    Ok(())
}
