//! `attack`: one image, one model, one attack.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use burn::tensor::Tensor;
use clap::Args;
use fireproof_attacks::{AttackConfig, Context, build};
use fireproof_datasets::read::{Limits, mask::LabelCode};
use fireproof_datasets::{Manifest, VOID};
use fireproof_metrics::ClassCounts;
use fireproof_report::{Panel, labels, panels};
use fireproof_tensor::{Batch, Victim};
use serde_json::json;

use crate::options::{AttackOptions, ModelOptions, folder};
use crate::picture;

/// Attack one image.
///
/// Writes NAME-adversarial.png (rounded to 8 bits), NAME-adversarial.safetensors (exact: 'images' F32 [1, C, H, W]) and
/// NAME-panels.png (image, perturbation, prediction before and after, errors), and prints the scores of both.
#[derive(Debug, Args)]
pub struct Attack {
    #[command(flatten)]
    model: ModelOptions,
    /// The weights file (.safetensors, .pth)
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The image (PNG, JPEG)
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// Its labels: a PNG of class indices, 255 is void
    #[arg(long, value_name = "FILE")]
    mask: PathBuf,
    /// The data set whose manifest says what the mask's values mean
    #[arg(long, value_name = "NAME")]
    data: Option<String>,
    /// The attack by name, see bench --list
    #[arg(long, default_value = "segpgd", value_name = "NAME")]
    attack: String,
    /// Gradient steps [default: the attack's]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    #[command(flatten)]
    settings: AttackOptions,
    /// The random start derives from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The output folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Device by name
    #[arg(long, default_value = "flex", value_name = "NAME")]
    device: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Attack {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let mut config = AttackConfig::new(&self.attack)?;
        config.steps = self.steps.unwrap_or(config.steps);
        self.settings.check(std::slice::from_ref(&self.attack))?;
        self.settings.adjust(&mut config);
        let attack = build(&config)?;
        let device = fireproof_tensor::device::open(&self.device)?;
        let network = picture::network(&self.weights, &self.model, &device)?;
        let image = picture::read(&self.image, &*network)?;
        let classes = picture::classes(&*network);
        if let Some(target) = &config.target {
            target.check(classes.len())?;
        }
        let mask = fireproof_datasets::read::mask::read(&self.mask, &self.code(classes.len())?, &Limits::default())?;
        ensure!(
            mask.size() == image.size(),
            "{}: found {}x{} pixels, expected {}x{} like the image",
            self.mask.display(),
            mask.width,
            mask.height,
            image.width,
            image.height
        );
        let dims = [1, image.channels, image.height, image.width];
        let batch = Batch::from_host(image.data.clone(), &mask.data, dims, vec![0], &device)?;
        let victim = network.victim();
        let source = match attack.source() {
            None => None,
            Some("") => bail!("--attack-option {}.source: found none, expected a weights file", config.name),
            Some(path) => Some(picture::network(Path::new(path), &self.model, &device)?.victim()),
        };
        let source = source.as_deref().map(|source| source as &dyn Victim);
        let adversarial = attack.run(&victim, &batch, &Context { source, ..Context::new(self.seed) })?;
        let pixels: Vec<f32> =
            adversarial.images.to_data().convert::<f32>().try_to_vec().expect("floats convert to f32");

        let before = predict(&*victim, batch.images.clone())?;
        let after = predict(&*victim, adversarial.images.clone())?;
        // What is left of the attack once the picture was saved with 8 bits.
        let rounded = predict(&*victim, (adversarial.images.clone() * 255.0).round() / 255.0)?;
        let score = |predicted: &[i32]| ClassCounts::count(classes.len(), &mask.data, predicted);
        let norm: f32 = config.norm.of(adversarial.images - batch.images).into_scalar();
        let scores = [("clean", score(&before)?), ("attacked", score(&after)?), ("attacked, 8 bits", score(&rounded)?)];

        folder(&self.out)?;
        let stem = picture::stem(&self.image);
        let path = |name: &str| self.out.join(format!("{stem}-{name}"));
        picture::write_png(&path("adversarial.png"), image.channels, image.height, image.width, &pixels)?;
        fireproof_eval::adversarial::save(&path("adversarial.safetensors"), &[("images", &dims, &pixels)])?;
        let bytes = |classes: &[i32]| classes.iter().map(|&class| u8::try_from(class).unwrap_or(254)).collect();
        let panel = Panel {
            caption: format!(
                "{}, {} steps, ε = {}, image {stem}",
                config.name,
                config.steps,
                labels::fraction(config.epsilon.into())
            ),
            height: image.height,
            width: image.width,
            range: [0.0, 1.0],
            image: image.data.clone(),
            adversarial: pixels,
            labels: mask.data.clone(),
            before: bytes(&before),
            after: bytes(&after),
        };
        let sheet = panels::sheet("panels.png", &[panel], &classes)?;
        crate::options::write(&path("panels.png"), &sheet.png)?;
        let files = ["adversarial.png", "adversarial.safetensors", "panels.png"].map(path);
        let mut out = std::io::stdout();
        if self.json {
            let scores: serde_json::Map<_, _> = scores
                .iter()
                .map(|(name, counts)| {
                    let score = json!({ "miou": counts.miou(), "pixel_accuracy": counts.pixel_accuracy() });
                    ((*name).to_owned(), score)
                })
                .collect();
            let passes = json!({ "forward": adversarial.passes.forward, "backward": adversarial.passes.backward });
            let all = json!({ "norm": config.norm.to_string(), "perturbation": norm, "scores": scores, "passes": passes, "files": files });
            return Ok(writeln!(out, "{all}")?);
        }
        writeln!(out, "{:18} {:>8} {:>15}", "", "mIoU %", "pixels right %")?;
        for (name, counts) in &scores {
            let (miou, accuracy) = (labels::percent(counts.miou()), labels::percent(counts.pixel_accuracy()));
            writeln!(out, "{name:18} {miou:>8} {accuracy:>15}")?;
        }
        writeln!(out, "largest change: {} ({})", labels::fraction(norm.into()), config.norm)?;
        for file in files {
            writeln!(out, "{}", file.display())?;
        }
        Ok(())
    }

    /// What the mask's values mean.
    fn code(&self, classes: usize) -> Result<LabelCode> {
        let index = |class: usize| u8::try_from(class).unwrap_or(VOID);
        let mut codes: BTreeMap<u16, u8> = (0..classes.min(255)).map(|class| (class as u16, index(class))).collect();
        codes.insert(u16::from(VOID), VOID);
        if let Some(name) = &self.data {
            let manifest = Manifest::find(name)?;
            ensure!(
                manifest.classes.len() <= classes,
                "--data: found the {} classes of {name}, expected at most {classes}, the model's",
                manifest.classes.len()
            );
            codes = manifest.void.iter().map(|&value| (value, VOID)).collect();
            for (class, entry) in manifest.classes.iter().enumerate() {
                let own = [class as u16];
                codes.extend(entry.values.as_deref().unwrap_or(&own).iter().map(|&value| (value, index(class))));
            }
        }
        Ok(LabelCode::Index(codes))
    }
}

fn predict(victim: &dyn Victim, images: Tensor<4>) -> Result<Vec<i32>> {
    Ok(victim.logits(images)?.argmax(1).into_data().convert::<i32>().try_to_vec().expect("integers convert to i32"))
}
