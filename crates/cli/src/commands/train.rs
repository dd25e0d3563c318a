//! `train`: a recipe on a data set.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use fireproof_datasets::{Augment, Dataset, Split, Subset};
use fireproof_defenses::{
    Control, Display, Method, OptimizerConfig, Outcome, Recipe, Schedule, Summary, TrainConfig, Validation, train,
};
use fireproof_eval::Selection;
use fireproof_models::{Architecture, Network};
use fireproof_tensor::Unit;
use serde_json::json;

use crate::options::{DataOptions, ModelOptions, tell_unused};
use crate::values::{Assignment, Fraction, Size};

/// Train a model by a recipe.
///
/// A recipe is a name (standard, pgd3-at, segpgd7-at: half of each batch is attacked; segpgd3-at-full: all of it) or a .toml
/// or .json file with stages of your own; --explain says what a step does. The best weights on the validation images go to
/// best.safetensors in the output folder. Ctrl-C finishes the step and saves; --resume goes on, bit by bit on the CPU.
#[derive(Debug, Args)]
pub struct Train {
    /// A recipe's name or file
    #[arg(long, default_value = "standard", value_name = "RECIPE")]
    recipe: String,
    /// List the recipes, then stop
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    data: DataOptions,
    #[command(flatten)]
    model: ModelOptions,
    /// Start from these weights, or from a run's checkpoint, instead of random ones
    #[arg(long, visible_alias = "from", value_name = "FILE")]
    weights: Option<PathBuf>,
    /// An option of the recipe: of every stage of that name (margin.cap=0.3, inner-max.attack.steps=3) or of the selecting attack
    /// (selection.steps=10)
    #[arg(long = "option", value_name = "STAGE.NAME=VALUE")]
    stage_options: Vec<Assignment<String>>,
    /// Start the backbone from these weights: a classifier's state dict as torchvision publishes resnet18 and resnet50
    #[arg(long, value_name = "FILE.pth", conflicts_with = "weights")]
    backbone: Option<PathBuf>,
    /// The split to train on
    #[arg(long, default_value = "train", value_name = "SPLIT")]
    train_split: String,
    /// The split that selects the best weights
    #[arg(long, default_value = "val", value_name = "SPLIT")]
    val_split: String,
    /// Take the images named in this file (one a line) out of the training split and validate on them
    #[arg(long, value_name = "FILE", conflicts_with = "val_split")]
    hold_out: Option<PathBuf>,
    /// Epochs over the training images
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// Images in a step
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// sgd or adamw
    #[arg(long, default_value = "sgd", value_parser = ["sgd", "adamw"])]
    optimizer: String,
    /// Learning rate where the schedule is highest
    #[arg(long, default_value_t = 0.01)]
    lr: f64,
    /// How the rate changes: constant, poly=0.9, piecewise=0.5,0.75 (by 0.1 there), cosine=0.025 (its rise), cyclic=0.4
    #[arg(long, default_value = "poly=0.9", value_name = "KIND=VALUES")]
    schedule: Schedule,
    /// Nesterov's momentum
    #[arg(long)]
    nesterov: bool,
    /// What the head's rate is multiplied by
    #[arg(long, default_value_t = 10.0)]
    head_factor: f64,
    /// Weight decay
    #[arg(long, default_value_t = 1e-4)]
    weight_decay: f64,
    /// Train on random crops of this size
    #[arg(long, value_name = "WxH")]
    crop: Option<Size>,
    /// Scale images randomly by factors in this range
    #[arg(long, value_name = "LOW,HIGH", value_delimiter = ',', num_args = 1)]
    scale: Vec<Fraction>,
    /// Rotate every second image by up to so many degrees
    #[arg(long, value_name = "DEGREES")]
    rotation: Option<f32>,
    /// Blur every second image with this standard deviation in pixels
    #[arg(long, value_name = "SIGMA")]
    blur: Option<f32>,
    /// Mirror every second image
    #[arg(long)]
    flip: bool,
    /// A whole set of augmentations instead of the single ones above; --crop goes with it. nnunet: rotation, scale, noise,
    /// blur, brightness, contrast, low resolution, gamma and mirroring as nnU-Net has them
    #[arg(long, value_name = "NAME", value_parser = ["nnunet"], conflicts_with_all = ["scale", "rotation", "blur", "flip"])]
    augment: Option<String>,
    /// Validation images, spread evenly over the list [default: all]
    #[arg(long, value_name = "N")]
    val_images: Option<usize>,
    /// Epochs between validations
    #[arg(long, default_value_t = 1, value_name = "N")]
    val_every: usize,
    /// Stop after so many validations without a better score
    #[arg(long, value_name = "N")]
    patience: Option<usize>,
    /// Initial values, order, augmentation and attacks derive from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device by name
    #[arg(long, default_value = "flex", value_name = "NAME")]
    device: String,
    /// The output folder [default: runs/RECIPE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on where the folder's run was interrupted
    #[arg(long)]
    resume: bool,
    /// Threads that read and augment images
    #[arg(long, default_value_t = 1, value_name = "N")]
    workers: usize,
    /// Say what a step of the recipe does, then stop; RECIPE here is as good as --recipe
    #[arg(long, value_name = "RECIPE", num_args = 0..=1)]
    explain: Option<Option<String>>,
    /// Print a JSON summary at the end, and no progress
    #[arg(long)]
    json: bool,
}

impl Train {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let mut out = std::io::stdout();
        if self.list {
            for (recipe, about) in fireproof_defenses::recipes() {
                writeln!(out, "{:24}{about}", recipe.name)?;
            }
            return Ok(writeln!(
                out,
                "{:24}any attack as training attack: pgd3-at, segpgd7-at-full\n{:24}nnU-Net's loss instead of cross-entropy: ima-dice, \
                 segpgd3-at-dice",
                "ATTACK[STEPS]-at[-full]", "RECIPE-dice"
            )?);
        }
        let explained = self.explain.as_ref().and_then(Option::as_deref);
        let mut recipe = Recipe::find(explained.unwrap_or(&self.recipe))?;
        for option in &self.stage_options {
            recipe.set(&option.name, &option.value)?;
        }
        if self.explain.is_some() {
            return Ok(write!(out, "{}", recipe.explain()?)?);
        }
        let folder = self.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(&recipe.name));
        let config = self.config(recipe)?;
        config.check()?;
        let (training, validation) = self.data()?;
        let mut network = self.network(&*training)?;
        let control = Control {
            resume: self.resume,
            display: if self.json { Display::Silent } else { Display::Auto },
            workers: self.workers,
            ..Control::default()
        };
        control.stop.on_signals()?;
        let summary = train(&config, &mut *network, training.into(), validation.into(), &folder, &control)?;
        if self.json {
            writeln!(out, "{}", to_json(&summary))?
        } else {
            write!(out, "{}", in_words(&summary))?
        }
        Ok(())
    }

    fn config(&self, recipe: Recipe) -> Result<TrainConfig> {
        let method = match self.optimizer.as_str() {
            "adamw" => Method::AdamW { betas: [0.9, 0.999] },
            _ => Method::Sgd { momentum: 0.9 },
        };
        let scale = match self.scale[..] {
            [] => None,
            [low, high] => Some((low.0, high.0)),
            _ => anyhow::bail!("--scale: found {} values, expected LOW,HIGH", self.scale.len()),
        };
        Ok(TrainConfig {
            epochs: self.epochs,
            batch_size: self.batch,
            optimizer: OptimizerConfig {
                method,
                learning_rate: self.lr,
                head_factor: self.head_factor,
                weight_decay: self.weight_decay,
                nesterov: self.nesterov,
            },
            schedule: self.schedule.clone(),
            augment: Augment {
                scale,
                rotation: self.rotation,
                blur: self.blur,
                flip: self.flip,
                crop: self.crop.map(|crop| (crop.height, crop.width)),
                nnunet: self.augment.is_some(),
                ..Augment::default()
            },
            validation: Validation {
                images: self.val_images,
                every: self.val_every,
                patience: self.patience,
                ..Validation::default()
            },
            seed: self.seed,
            start: match &self.weights {
                Some(file) => file.display().to_string(),
                None => {
                    let backbone = self.backbone.as_ref().map(|file| format!("backbone {}, ", file.display()));
                    format!("{}initial values, seed {}", backbone.unwrap_or_default(), self.seed)
                }
            },
            ..TrainConfig::new(recipe)
        })
    }

    fn data(&self) -> Result<(Box<dyn Dataset>, Box<dyn Dataset>)> {
        let open = |name: &str, selection| {
            let Ok(split) = name.parse::<Split>();
            self.data.settings(split, selection).open()
        };
        let Some(file) = &self.hold_out else {
            return Ok((open(&self.train_split, Selection::All)?, open(&self.val_split, Selection::All)?));
        };
        let held = open(&self.train_split, Selection::Named(file.clone()))?;
        let names: std::collections::HashSet<String> = (0..held.len()).map(|index| held.sample_name(index)).collect();
        let whole = open(&self.train_split, Selection::All)?;
        ensure!(
            names.len() < whole.len(),
            "{}: found all {} images of split `{}`, expected that some remain to train on",
            file.display(),
            whole.len(),
            self.train_split
        );
        Ok((Box::new(Subset::filtered(whole, |name| !names.contains(name))?), held))
    }

    fn network(&self, data: &dyn Dataset) -> Result<Box<dyn Network>> {
        let device = fireproof_tensor::device::open(&self.device)?;
        if let Some(file) = &self.weights {
            return self.model.load(file, &device);
        }
        let classes: Vec<String> = data.classes().iter().map(|class| class.name.clone()).collect();
        let name = self.model.model.as_deref().unwrap_or("unet");
        let mut architecture = Architecture::new(name, &classes)?;
        architecture.input_channels = data.channels();
        let definition = fireproof_models::definition(name)?;
        architecture.normalisation = (definition.normalisation)(data.channels());
        let first = data.get(0)?;
        if first.case.is_none() {
            // Images that belong to no case have no mean and deviation of one.
            architecture.normalisation.unit = Unit::Pixel;
        }
        if let Some(plan) = definition.plan {
            let (height, width) = self.crop.map_or(first.image.size(), |crop| (crop.height, crop.width));
            let planned = plan([height, width]).into_iter();
            architecture.options.extend(planned.map(|(name, value)| (name.to_owned(), value)));
        }
        for option in &self.model.set {
            architecture.options.insert(option.name.clone(), option.value);
        }
        if let Some(mean) = &self.model.mean {
            architecture.normalisation.mean.clone_from(mean);
        }
        if let Some(std) = &self.model.std {
            architecture.normalisation.std.clone_from(std);
        }
        let mut network = fireproof_models::build(&architecture, self.seed, &device)?;
        if let Some(file) = &self.backbone {
            let report = fireproof_models::load_backbone(&mut *network, file)?;
            tell_unused(file, &report.unused);
        }
        Ok(network)
    }
}

fn outcome(summary: &Summary) -> &'static str {
    match summary.outcome {
        Outcome::Finished => "finished",
        Outcome::StoppedEarly => "stopped early",
        Outcome::Interrupted => "interrupted",
    }
}

fn to_json(summary: &Summary) -> serde_json::Value {
    json!({
        "outcome": outcome(summary), "steps": summary.steps, "epochs": summary.epochs, "best": summary.best,
        "passes": summary.meter, "waiting": summary.waiting, "checkpoint": summary.checkpoint,
    })
}

fn in_words(summary: &Summary) -> String {
    let percent = |score: Option<f64>| score.map_or("not measured".into(), |score| format!("{:.2} %", 100.0 * score));
    let mut text = format!("{} after {} steps, {} epochs\n", outcome(summary), summary.steps, summary.epochs.len());
    if let Some(best) = &summary.best {
        let (clean, robust) = (percent(best.clean_miou), percent(best.robust_miou));
        text +=
            &format!("best: epoch {}, validation mIoU {clean} clean, {robust} under the recipe's attack\n", best.epoch);
        text += &format!("{}\n", summary.checkpoint.with_file_name(fireproof_defenses::BEST).display());
    }
    text += &format!("{:.1} % of the time was spent waiting for images\n", 100.0 * summary.waiting);
    if summary.outcome == Outcome::Interrupted {
        text += "go on with --resume\n";
    }
    text
}
