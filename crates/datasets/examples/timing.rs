//! Times what stands between a disk and a training step: reading a sample.
//!
//! ```text
//! cargo run --release -p fireproof-datasets --no-default-features --example timing -- camvid train 60 DIR
//! ```

use std::{error::Error, path::Path, time::Instant};

use fireproof_datasets::{Options, Split, open};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, split, count, root @ ..] = arguments.as_slice() else {
        return Err("expected NAME SPLIT COUNT [ROOT]".into());
    };
    let split: Split = split.parse()?;
    let data = open(name, root.first().map(Path::new), split, Options::default())?;
    let count = count.parse::<usize>()?.min(data.len());
    let mut best = f64::INFINITY;
    let mut total = 0.0;
    let mut labels = vec![0u64; 256];
    for index in 0..count {
        let start = Instant::now();
        let sample = data.get(index)?;
        let seconds = start.elapsed().as_secs_f64();
        best = best.min(seconds);
        total += seconds;
        sample.mask.data.iter().for_each(|&label| labels[usize::from(label)] += 1);
    }
    println!(
        "{} {}: {count} samples, fastest {:.2} ms, mean {:.2} ms",
        data.name(),
        data.split(),
        best * 1e3,
        total / count as f64 * 1e3
    );
    let pixels: u64 = labels[..255].iter().sum();
    for (class, count) in data.classes().iter().zip(&labels) {
        println!("  {:<12} {:6.2} %", class.name, 100.0 * *count as f64 / pixels as f64);
    }
    println!("  {:<12} {:6.2} % of all pixels", "void", 100.0 * labels[255] as f64 / (pixels + labels[255]) as f64);
    Ok(())
}
