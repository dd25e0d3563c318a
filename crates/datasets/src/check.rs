//! A look at every sample of a data set before hours are spent on it.

use std::{collections::BTreeMap, fmt, fs::File, io::Read, path::Path};

use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Class, Dataset, Error, Manifest, Result, Slice, VOID, read};

/// What [`check`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// The data set.
    pub dataset: String,
    /// The split.
    pub split: String,
    /// Number of samples in the list.
    pub samples: usize,
    /// The classes, with their pixels.
    pub classes: Vec<ClassCount>,
    /// Void pixels.
    pub void_pixels: u64,
    /// How many images have which size (`WIDTHxHEIGHT`).
    pub sizes: BTreeMap<String, usize>,
    /// How many samples are stored in which way.
    pub stored_as: BTreeMap<String, usize>,
    /// Mean of all images, channel by channel, in `[0, 1]`.
    pub mean: Vec<f64>,
    /// Standard deviation over all pixels of all images, channel by channel.
    pub std: Vec<f64>,
    /// Everything that is wrong, in list order.
    pub problems: Vec<Problem>,
}

/// How often a class occurs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassCount {
    /// The class.
    #[serde(flatten)]
    pub class: Class,
    /// Its pixels.
    pub pixels: u64,
    /// Samples in which it occurs.
    pub samples: usize,
}

/// Something wrong with a sample, or with all slices of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The sample's or the volume's name.
    pub sample: String,
    /// What was found and expected.
    pub message: String,
}

/// One sample's part of the report.
struct Look {
    name: String,
    slice: Option<Slice>,
    stored_as: Result<String>,
    counted: Result<Counted>,
}

struct Counted {
    size: (usize, usize),
    pixels: Vec<u64>,
    sums: Vec<(f64, f64)>,
}

/// Reads every sample, in parallel, and reports all that is wrong, not just the first.
///
/// ```
/// use fireproof_datasets::{Options, Split, check, open};
///
/// let scenes = open("scenes", None, Split::Val, Options { length: Some(20), ..Options::default() })?;
/// let report = check(scenes.as_ref());
/// assert!(report.problems.is_empty());
/// assert_eq!(report.sizes["128x96"], 20);
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
pub fn check(dataset: &dyn Dataset) -> CheckReport {
    let looks: Vec<Look> = (0..dataset.len()).into_par_iter().map(|index| look(dataset, index)).collect();
    let mut report = CheckReport {
        dataset: dataset.name().to_owned(),
        split: dataset.split().to_owned(),
        samples: dataset.len(),
        classes: dataset
            .classes()
            .iter()
            .map(|class| ClassCount { class: class.clone(), pixels: 0, samples: 0 })
            .collect(),
        void_pixels: 0,
        sizes: BTreeMap::new(),
        stored_as: BTreeMap::new(),
        mean: Vec::new(),
        std: Vec::new(),
        problems: Vec::new(),
    };
    let mut sums = vec![(0.0, 0.0); dataset.channels()];
    let mut image_pixels = 0u64;
    for look in looks {
        if let Ok(stored_as) = look.stored_as {
            *report.stored_as.entry(stored_as).or_default() += 1;
        }
        match look.counted {
            // Reading fails on whatever a header shows, so its message alone is kept.
            Err(error) => {
                let message = error.to_string();
                // A broken volume breaks all of its slices; once is enough.
                let sample = look.slice.map_or(look.name, |slice| slice.name);
                let problem = Problem { sample, message };
                if report.problems.last() != Some(&problem) {
                    report.problems.push(problem);
                }
            }
            Ok(counted) => {
                let (height, width) = counted.size;
                *report.sizes.entry(format!("{width}x{height}")).or_default() += 1;
                image_pixels += height as u64 * width as u64;
                report.void_pixels += counted.pixels[usize::from(VOID)];
                for (class, &pixels) in report.classes.iter_mut().zip(&counted.pixels) {
                    class.pixels += pixels;
                    class.samples += usize::from(pixels > 0);
                }
                for (sum, part) in sums.iter_mut().zip(counted.sums) {
                    *sum = (sum.0 + part.0, sum.1 + part.1);
                }
            }
        }
    }
    if image_pixels > 0 {
        let count = image_pixels as f64;
        report.mean = sums.iter().map(|(sum, _)| sum / count).collect();
        report.std =
            sums.iter().map(|(sum, square)| (square / count - (sum / count) * (sum / count)).max(0.0).sqrt()).collect();
    }
    report
}

fn look(dataset: &dyn Dataset, index: usize) -> Look {
    let counted = dataset.get(index).map(|sample| {
        let mut pixels = vec![0u64; 256];
        sample.mask.data.iter().for_each(|&label| pixels[usize::from(label)] += 1);
        let plane = sample.image.height * sample.image.width;
        let sums = sample.image.data.chunks_exact(plane).map(|plane| {
            plane.iter().map(|&value| f64::from(value)).fold((0.0, 0.0), |(sum, square), v| (sum + v, square + v * v))
        });
        Counted { size: sample.image.size(), pixels, sums: sums.collect() }
    });
    let slice = dataset.slice(index);
    Look { name: dataset.sample_name(index), slice, stored_as: dataset.stored_as(index), counted }
}

impl CheckReport {
    /// Pixels that have a class.
    pub fn valid_pixels(&self) -> u64 {
        self.classes.iter().map(|class| class.pixels).sum()
    }

    /// Void pixels as a fraction of all pixels.
    pub fn void_share(&self) -> f64 {
        self.void_pixels as f64 / (self.valid_pixels() + self.void_pixels).max(1) as f64
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |counts: &BTreeMap<String, usize>| {
            counts.iter().map(|(what, count)| format!("{count} x {what}")).collect::<Vec<_>>().join("; ")
        };
        let numbers = |values: &[f64]| values.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(" ");
        writeln!(
            f,
            "{}, split `{}`: {} samples, {} problems",
            self.dataset,
            self.split,
            self.samples,
            self.problems.len()
        )?;
        writeln!(f, "  sizes   {}", join(&self.sizes))?;
        writeln!(f, "  stored  {}", join(&self.stored_as))?;
        writeln!(f, "  mean {}  std {}", numbers(&self.mean), numbers(&self.std))?;
        let width = self.classes.iter().map(|class| class.class.name.chars().count()).max().unwrap_or(0).max(5);
        writeln!(f, "  {:<width$}  {:>14}  {:>8}  {:>7}", "class", "pixels", "share", "samples")?;
        let valid = self.valid_pixels().max(1) as f64;
        for class in &self.classes {
            let share = 100.0 * class.pixels as f64 / valid;
            writeln!(f, "  {:<width$}  {:>14}  {share:>6.2} %  {:>7}", class.class.name, class.pixels, class.samples)?;
        }
        writeln!(
            f,
            "  {:<width$}  {:>14}  {:>6.2} % of all pixels",
            "void",
            self.void_pixels,
            100.0 * self.void_share()
        )?;
        for problem in &self.problems {
            writeln!(f, "  {}: {}", problem.sample, problem.message)?;
        }
        Ok(())
    }
}

/// Compares the files that a manifest gives checksums for; returns everything that is missing or different.
///
/// # Errors
/// If the root folder is not there.
pub fn verify(manifest: &Manifest, root: &Path) -> Result<Vec<Error>> {
    let root = read::root(root)?;
    let wrong = |(path, expected): (&String, &String)| -> Option<Error> {
        let compare = || -> Result<()> {
            let file = read::inside(&root, path)?;
            let unreadable =
                |error: std::io::Error| Error::file(&file, error.to_string(), "a file with a known checksum");
            let mut stream = File::open(&file).map_err(unreadable)?;
            let mut hash = Sha256::new();
            let mut part = vec![0u8; 1 << 16];
            loop {
                match stream.read(&mut part).map_err(unreadable)? {
                    0 => break,
                    count => hash.update(&part[..count]),
                }
            }
            let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            if found == *expected {
                Ok(())
            } else {
                Err(Error::file(&file, format!("SHA-256 {found}"), format!("{expected} as the manifest says")))
            }
        };
        compare().err()
    };
    Ok(manifest.checksums.iter().collect::<Vec<_>>().into_par_iter().filter_map(wrong).collect())
}
