//! `certify`: what no perturbation can change.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Tensor, TensorData};
use clap::Args;
use fireproof_certify::{Correction, SegCertify};
use fireproof_datasets::{Dataset, Sample, Split};
use fireproof_eval::Selection;
use fireproof_metrics::{ClassCounts, per_image};
use fireproof_report::labels;
use serde::{Deserialize, Serialize};

use crate::options::{DataOptions, ModelOptions, folder, write};
use crate::workspace::free_folder;
use crate::{picture, workspace};

/// Certify predictions pixel by pixel with randomized smoothing.
///
/// An attack says what somebody could do; a certificate says what nobody can. Every certified pixel of an image keeps its class
/// for all l2 perturbations below the radius, all at once, with probability 1 - alpha over the noise. The smoothed model is
/// certified, which answers with the class that most noisy copies get: models trained without noise have little to show.
///
/// The output folder holds certificates.jsonl (counts of every image, appended as they are made), certificates.json, and a map
/// of certified radii of every image as PNG: white is the largest radius that so many copies can tell.
///
/// An image with one label is an image of one pixel: what is certified then is the classifier, as Cohen et al. do it.
#[derive(Debug, Args)]
pub struct Certify {
    #[command(flatten)]
    data: DataOptions,
    /// The split to certify
    #[arg(long, default_value = "test")]
    split: String,
    /// A weights file (.safetensors, .pth); repeat it to compare several [default: those that come with the repository]
    #[arg(long, value_name = "FILE")]
    weights: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelOptions,
    /// The first so many images in list order
    #[arg(long, default_value_t = 10, value_name = "N", conflicts_with = "frames")]
    images: usize,
    /// The images named in this file, one a line
    #[arg(long, value_name = "FILE")]
    frames: Option<PathBuf>,
    /// Standard deviation of the noise, pixels being 0 to 1
    #[arg(long, default_value_t = 0.25)]
    sigma: f32,
    /// How likely a pixel's class must be under noise; the radius is sigma times the normal quantile of it
    #[arg(long, default_value = "0.75,0.85,0.95", value_delimiter = ',', value_name = "P,…")]
    tau: Vec<f64>,
    /// Noisy copies that choose the classes
    #[arg(long, default_value_t = 10, value_name = "N")]
    n0: u64,
    /// Noisy copies that test them
    #[arg(long, default_value_t = 100, value_name = "N")]
    n: u64,
    /// The probability that any certified pixel of an image is wrong
    #[arg(long, default_value_t = 0.001)]
    alpha: f64,
    /// Correction for many pixels: holm or bonferroni
    #[arg(long, default_value = "holm")]
    correction: Correction,
    /// The noise derives from it, image by image
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Copies in a pass; no number depends on it
    #[arg(long, default_value_t = 10, value_name = "N")]
    batch: usize,
    /// Device by name
    #[arg(long, default_value = "flex", value_name = "NAME")]
    device: String,
    /// The output folder [default: runs/certify, or the first of certify-2, certify-3, … that is free]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the certificates in --out
    #[arg(long, requires = "out")]
    resume: bool,
    /// Print passes and time, then stop
    #[arg(long)]
    plan: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

const RECORDS: &str = "certificates.jsonl";
const SUMMARY: &str = "certificates.json";

/// Everything that a certificate depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
    version: String,
    data: String,
    split: String,
    size: String,
    weights: Vec<(String, String)>,
    method: SegCertify,
    taus: Vec<f64>,
    device: String,
    classes: usize,
}

/// One image of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    model: usize,
    image: u64,
    name: String,
    pixels: u64,
    /// One a `tau`.
    certified: Vec<ClassCounts>,
    /// Pixels that abstain, one a `tau`.
    abstained: Vec<u64>,
    /// See [`fireproof_certify::Certificate::median_radius`].
    median_radius: Option<f64>,
    forward_passes: u64,
    seconds: f64,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Line {
    weights: String,
    tau: f64,
    radius: f64,
    images: usize,
    /// Correct and certified, over all valid pixels.
    accuracy: Option<f64>,
    /// The same, mean over images.
    image_accuracy: Option<f64>,
    miou: Option<f64>,
    /// Over all pixels.
    abstained: f64,
    /// Mean over images.
    median_radius: Option<f64>,
}

impl Certify {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let method = self.method(self.tau.first().copied().unwrap_or(0.75));
        for &tau in &self.tau {
            self.method(tau).check()?;
        }
        ensure!(!self.tau.is_empty(), "--tau: found none, expected at least one, e.g. 0.75");
        let selection = self.frames.clone().map_or(Selection::First(self.images), Selection::Named);
        let Ok(split) = self.split.parse::<Split>();
        let data = self.data.settings(split, selection).open()?;
        let files = match self.weights.is_empty() {
            true => {
                ensure!(self.data.data == "scenes", "--weights: found none, expected at least one file");
                workspace::checkpoints()?
            }
            false => self.weights.clone(),
        };
        let header = self.header(&*data, &files, method)?;
        let out = self.out.clone().unwrap_or_else(|| free_folder(Path::new("runs/certify"), RECORDS));
        let path = out.join(RECORDS);
        let device = fireproof_tensor::device::open(&self.device)?;
        let copies = self.n0 + self.n;
        let costs = format!(
            "{} models, {} images of {}, {copies} noisy copies of each: {} forward passes",
            files.len(),
            data.len(),
            data.name(),
            files.len() as u64 * data.len() as u64 * copies
        );
        if self.plan {
            return Ok(writeln!(std::io::stdout(), "{costs}, about {}", self.estimate(&*data, &files, &device)?)?);
        }
        if !self.json {
            eprintln!("{costs}, into {}", out.display());
        }
        folder(&out)?;
        let mut records = self.begin(&path, &header)?;
        for (model, file) in files.iter().enumerate() {
            let network = self.model.load(file, &device)?;
            let victim = network.victim();
            for position in 0..data.len() {
                let sample = data.get(position)?;
                if records.iter().any(|known| known.model == model && known.image == sample.id) {
                    continue;
                }
                eprintln!("{}, image {}/{}: {}", file.display(), position + 1, data.len(), sample.name);
                let started = std::time::Instant::now();
                let shape = [1, sample.image.channels, sample.image.height, sample.image.width];
                let image = Tensor::from_data(TensorData::new(sample.image.data.clone(), shape), &device);
                let found = method.certify(&*victim, &image, sample.id)?;
                let judged = self.tau.iter().map(|&tau| self.method(tau).judge(found.top.clone(), found.hits.clone()));
                let judged: Vec<_> = judged.collect();
                let record = Record {
                    model,
                    image: sample.id,
                    name: sample.name.clone(),
                    pixels: found.top.len() as u64,
                    certified: judged
                        .iter()
                        .map(|one| Ok(one.counts(&sample.mask.data, header.classes)?))
                        .collect::<Result<_>>()?,
                    abstained: judged
                        .iter()
                        .map(|one| one.certified.iter().filter(|sure| !**sure).count() as u64)
                        .collect(),
                    median_radius: found.median_radius(&sample.mask.data),
                    forward_passes: copies,
                    seconds: started.elapsed().as_secs_f64(),
                };
                // The map first: what is recorded has one. One label an image makes no map.
                if found.top.len() == sample.image.height * sample.image.width {
                    self.map(&method, &out, model, &sample, &found.radii())?;
                }
                append(&path, &record)?;
                records.push(record);
            }
        }
        let lines = self.lines(&header, &records);
        let summary = serde_json::json!({ "run": header, "results": lines });
        let text = serde_json::to_string_pretty(&summary).expect("plain data has a JSON form") + "\n";
        write(&out.join(SUMMARY), text.as_bytes())?;
        let shown = if self.json { text } else { self.table(&header, &lines, &records, &out) };
        Ok(std::io::stdout().write_all(shown.as_bytes())?)
    }

    /// How long it will take, from one measured pass of each model.
    fn estimate(&self, data: &dyn Dataset, files: &[PathBuf], device: &burn::tensor::Device) -> Result<String> {
        let sample = data.get(0)?;
        let copies = self.batch.clamp(1, (self.n0 + self.n).max(1) as usize);
        let shape = [1, sample.image.channels, sample.image.height, sample.image.width];
        let image = Tensor::<4>::from_data(TensorData::new(sample.image.data.clone(), shape), device);
        let images = image.repeat_dim(0, copies);
        let mut seconds = 0.0;
        for file in files {
            let victim = self.model.load(file, device)?.victim();
            let mut best = f64::INFINITY;
            // The first pass packs weights.
            for _ in 0..3 {
                let started = std::time::Instant::now();
                fireproof_tensor::host::floats(victim.logits(images.clone())?);
                best = best.min(started.elapsed().as_secs_f64());
            }
            seconds += best / copies as f64 * data.len() as f64 * (self.n0 + self.n) as f64;
        }
        Ok(labels::duration(seconds))
    }

    fn method(&self, tau: f64) -> SegCertify {
        SegCertify {
            sigma: self.sigma,
            tau,
            n0: self.n0,
            n: self.n,
            alpha: self.alpha,
            correction: self.correction,
            seed: self.seed,
            batch: self.batch,
        }
    }

    fn header(&self, data: &dyn Dataset, files: &[PathBuf], method: SegCertify) -> Result<Header> {
        let weights = files.iter().map(|file| {
            let network = self.model.load(file, &burn::tensor::Device::flex())?;
            let (found, expected) = (network.architecture().classes.len(), data.classes().len());
            ensure!(
                found >= expected && network.architecture().input_channels == data.channels(),
                "{}: the model has {found} classes and {} channels, but data set {} has {expected} and {}",
                file.display(),
                network.architecture().input_channels,
                data.name(),
                data.channels()
            );
            ensure!(
                network.architecture().normalisation.unit == fireproof_tensor::Unit::Pixel,
                "{}: the model takes images in standard deviations of their case, expected one for pixels in 0..1",
                file.display()
            );
            Ok((file.display().to_string(), fireproof_eval::digest(file)?))
        });
        let size = self.data.size.map_or("as stored".into(), |size| format!("{}x{}", size.width, size.height));
        Ok(Header {
            version: env!("CARGO_PKG_VERSION").into(),
            data: data.name().into(),
            split: data.split().into(),
            size,
            weights: weights.collect::<Result<_>>()?,
            // Which copies share a pass changes nothing.
            method: SegCertify { batch: 1, ..method },
            taus: self.tau.clone(),
            device: self.device.clone(),
            classes: data.classes().len(),
        })
    }

    /// Starts the records, or reads those that are there.
    fn begin(&self, path: &Path, header: &Header) -> Result<Vec<Record>> {
        if !path.exists() {
            let line = serde_json::to_string(header).expect("plain data has a JSON form") + "\n";
            write(path, line.as_bytes())?;
            return Ok(Vec::new());
        }
        if !self.resume {
            bail!("{}: found certificates of another run, expected none, or --resume to go on", path.display());
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        if whole < text.len() {
            write(path, &text.as_bytes()[..whole])?;
        }
        let mut lines = text[..whole].lines();
        let broken = |error: serde_json::Error| anyhow::anyhow!("{}: {error}", path.display());
        let known: Header = serde_json::from_str(lines.next().unwrap_or_default()).map_err(broken)?;
        ensure!(known == *header, "{}: found another run, expected the same settings to resume it", path.display());
        lines.map(|line| serde_json::from_str(line).map_err(broken)).collect()
    }

    fn lines(&self, header: &Header, records: &[Record]) -> Vec<Line> {
        let mut lines = Vec::new();
        for (model, (weights, _)) in header.weights.iter().enumerate() {
            for (at, &tau) in self.tau.iter().enumerate() {
                let own: Vec<&Record> = records.iter().filter(|record| record.model == model).collect();
                let counts: Vec<ClassCounts> = own.iter().map(|record| record.certified[at].clone()).collect();
                let mut sum = ClassCounts::new(header.classes).expect("a data set has classes");
                counts.iter().for_each(|one| sum.merge(one).expect("as many classes"));
                let pixels: u64 = own.iter().map(|record| record.pixels).sum();
                let abstained: u64 = own.iter().map(|record| record.abstained[at]).sum();
                let medians: Vec<f64> = own.iter().filter_map(|record| record.median_radius).collect();
                lines.push(Line {
                    weights: weights.clone(),
                    tau,
                    radius: self.method(tau).radius(),
                    images: own.len(),
                    accuracy: sum.pixel_accuracy(),
                    image_accuracy: per_image::mean(&counts, ClassCounts::pixel_accuracy),
                    miou: sum.miou(),
                    abstained: abstained as f64 / pixels.max(1) as f64,
                    median_radius: (!medians.is_empty()).then(|| medians.iter().sum::<f64>() / medians.len() as f64),
                });
            }
        }
        lines
    }

    fn table(&self, header: &Header, lines: &[Line], records: &[Record], out: &Path) -> String {
        let mut text = format!(
            "**Certified (%) on {}, {}, {} images, sigma = {}**\n\n| Weights | tau | ℓ2 radius | aAcc | aAcc/image | mIoU | abstain | median radius |\n| :-- | --: | --: | --: | --: | --: | --: | --: |\n",
            header.data,
            header.split,
            lines.first().map_or(0, |line| line.images),
            self.sigma
        );
        for line in lines {
            let radius = line.median_radius.map_or("–".to_owned(), |radius| format!("{radius:.4}"));
            writeln!(
                text,
                "| {} | {} | {:.4} | {} | {} | {} | {} | {radius} |",
                line.weights,
                line.tau,
                line.radius,
                labels::percent(line.accuracy),
                labels::percent(line.image_accuracy),
                labels::percent(line.miou),
                labels::percent(Some(line.abstained))
            )
            .expect("memory");
        }
        let seconds: f64 = records.iter().map(|record| record.seconds).sum();
        writeln!(
            text,
            "\nAll certified pixels of an image hold at once with probability {} ({:?}, n0 = {}, n = {}). A pixel that abstains \
             counts as wrong; void pixels are not counted. {} forward passes an image, {} together.\n\nFolder: {}",
            1.0 - self.alpha,
            self.correction,
            self.n0,
            self.n,
            self.n0 + self.n,
            labels::duration(seconds),
            workspace::shown(out)
        )
        .expect("memory");
        text
    }

    /// A grey map: black abstains, white is the radius of a pixel on which all copies agree.
    fn map(&self, method: &SegCertify, out: &Path, model: usize, sample: &Sample, radii: &[f64]) -> Result<()> {
        let most = method.judge(vec![0; radii.len()], vec![self.n; radii.len()]).radii()[0];
        let bytes: Vec<u8> = radii.iter().map(|radius| (255.0 * radius / most.max(1e-12)).round() as u8).collect();
        let stem = picture::stem(Path::new(&sample.name));
        let path = out.join(format!("radii-{}-{stem}.png", model + 1));
        picture::write_bytes(&path, 1, sample.image.height, sample.image.width, &bytes)
    }
}

fn append(path: &Path, record: &Record) -> Result<()> {
    let line = serde_json::to_string(record).expect("plain data has a JSON form") + "\n";
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(path)
        .with_context(|| format!("{}: cannot open", path.display()))?;
    file.write_all(line.as_bytes()).with_context(|| format!("{}: cannot append", path.display()))
}
