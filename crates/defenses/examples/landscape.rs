//! How flat the adversarial loss is around the weights of trained networks, as AWP's paper draws it.
//!
//! ```text
//! cargo run --release -p fireproof-defenses --example landscape -- fashion-mnist /usr/share/datasets/fashion-mnist test-2000 \
//!     runs/pgd10-at-full/checkpoint.safetensors runs/awp-at/checkpoint.safetensors
//! ```
//!
//! Prints one JSON line for each file of weights: the mean cross-entropy of 200 images under PGD-10 at 8/255, attacked anew at
//! every place, and the highest of ten filter-normalised directions at each radius.

use std::path::Path;

use anyhow::{Result, bail};
use burn::tensor::Device;
use fireproof_attacks::{AttackConfig, Context};
use fireproof_datasets::{Options, batch, open};
use fireproof_defenses::stages::landscape;
use fireproof_models::{Network, Overrides, load};
use fireproof_tensor::{Batch, host, ops::cross_entropy};

const IMAGES: usize = 200;
const DIRECTIONS: usize = 10;
const RADII: [f64; 9] = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, root, split, files @ ..] = &arguments[..] else {
        bail!("found {} arguments, expected DATA ROOT SPLIT WEIGHTS...", arguments.len());
    };
    let device = Device::flex();
    let data = open(data, Some(Path::new(root)), split.parse()?, Options::default())?;
    let count = data.len().min(IMAGES);
    let samples = (0..count).map(|i| data.get(i * data.len() / count)).collect::<Result<Vec<_>, _>>()?;
    let clean = batch(&samples, &device)?;
    let pgd = AttackConfig::new("pgd")?;
    let pgd = fireproof_attacks::build(&AttackConfig { steps: 10, step_size: Some(2.0 / 255.0), ..pgd })?;
    for file in files {
        let network = load(file, &Overrides::default(), &device)?.network;
        let clean: Batch = clean.in_unit(network.architecture().normalisation.unit)?;
        let pixels = sum(&host::floats(clean.targets.valid_pixels()));
        let mut look = |network: &dyn Network| {
            let victim = network.victim();
            let attacked = pgd.run(&*victim, &clean, &Context::new(0))?.images;
            let losses = host::floats(cross_entropy(victim.logits(attacked)?, &clean.targets));
            Ok(sum(&losses) / pixels)
        };
        let loss = landscape(&*network, &RADII, DIRECTIONS, 0, &mut look)?;
        let line = serde_json::json!({ "weights": file, "images": count, "directions": DIRECTIONS, "radii": RADII, "loss": loss });
        println!("{line}");
    }
    Ok(())
}

fn sum(values: &[f32]) -> f64 {
    values.iter().copied().map(f64::from).sum()
}
