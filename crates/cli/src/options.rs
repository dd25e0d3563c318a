//! Options that several commands share.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Args;
use fireproof_attacks::{AttackConfig, Iterate, Start, Target};
use fireproof_datasets::Split;
use fireproof_eval::{DataSettings, Selection, Weights};
use fireproof_models::inference::{
    Inference, MultiScale, Preprocessed, Preprocessor, SlidingWindow, Smoothed, Weights as WindowWeights,
};
use fireproof_models::{Network, Overrides};
use fireproof_tensor::{Norm, Unit};

use crate::values::{Assignment, Fraction, Size};

/// Which images.
#[derive(Clone, Debug, Args)]
pub struct DataOptions {
    /// A data set by name (see `data list`), or the path of a manifest of your own
    #[arg(long, default_value = "scenes", value_name = "NAME")]
    pub data: String,
    /// The data set's folder
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Resize images and masks
    #[arg(long, value_name = "WxH")]
    pub size: Option<Size>,
}

impl DataOptions {
    /// The images of a split.
    pub fn settings(&self, split: Split, selection: Selection) -> DataSettings {
        let size = self.size.map(|size| (size.height, size.width));
        DataSettings { name: self.data.clone(), root: self.root.clone(), split, size, selection }
    }
}

/// What a weights file without metadata cannot say itself.
#[derive(Clone, Debug, Default, Args)]
pub struct ModelOptions {
    /// The network: unet, pspnet-resnet18, … Files that fireproof wrote name theirs
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// A setting of the network, for instance base=16
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<Assignment<usize>>,
    /// Mean of each channel, instead of the file's or the network's own
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, likewise
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
}

impl ModelOptions {
    /// The file with what was said about it.
    pub fn weights(&self, path: &Path, inference: Inference) -> Weights {
        Weights { path: path.to_path_buf(), overrides: self.overrides(), inference, joined: Vec::new() }
    }

    /// The network of a weights file; tensors that it has no use for are told.
    pub fn load(&self, path: &Path, device: &Device) -> Result<Box<dyn Network>> {
        let loaded = fireproof_models::load(path, &self.overrides(), device)?;
        if !loaded.report.described {
            tell_unused(path, &loaded.report.unused);
        }
        Ok(loaded.network)
    }

    /// What was said.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            name: self.model.clone(),
            options: self.set.iter().map(|option| (option.name.clone(), option.value)).collect(),
            classes: None,
            mean: self.mean.clone(),
            std: self.std.clone(),
        }
    }
}

/// Says on standard error which tensors of a weights file without metadata nothing was read from: a head that only training
/// needs, or a sign that the file is not what it was taken for.
pub fn tell_unused(file: &Path, unused: &[String]) {
    if !unused.is_empty() {
        eprintln!("{}: not used: {}", file.display(), unused_in_words(unused));
    }
}

/// Every name; batch norm's counters, which say nothing, as a number.
fn unused_in_words(unused: &[String]) -> String {
    let (counters, named): (Vec<&String>, Vec<&String>) =
        unused.iter().partition(|name| name.ends_with("num_batches_tracked"));
    // Names come from the file: nothing in them may reach a terminal as a command.
    let mut parts: Vec<String> = named.iter().map(|name| name.escape_debug().to_string()).collect();
    match counters[..] {
        [] => {}
        [one] => parts.push(one.escape_debug().to_string()),
        _ => parts.push(format!("{} of …num_batches_tracked", counters.len())),
    }
    parts.join(", ")
}

/// How a model looks at an image; an attack goes through all of it.
#[derive(Clone, Debug, Default, Args)]
pub struct InferenceOptions {
    /// Look at overlapping windows of this size and stitch their logits
    #[arg(long, value_name = "WxH")]
    pub window: Option<Size>,
    /// From one window to the next [default: half a window]
    #[arg(long, value_name = "WxH", requires = "window")]
    pub stride: Option<Size>,
    /// How overlapping windows are averaged: gaussian, as nnU-Net does, or uniform
    #[arg(long, default_value = "gaussian", value_name = "WEIGHTS", requires = "window")]
    pub window_weights: WindowWeights,
    /// Look at the image at these sizes, in units of its own, and average the logits
    #[arg(long, value_name = "0.75,1,…", value_delimiter = ',')]
    pub scales: Vec<f32>,
    /// Look at the mirrored image too
    #[arg(long)]
    pub mirror: bool,
    /// Average the logits under Gaussian noise of this standard deviation, pixels being 0 to 1
    #[arg(long, value_name = "SIGMA")]
    pub smooth: Option<f32>,
    /// How many draws of the noise
    #[arg(long, default_value_t = 8, value_name = "N", requires = "smooth")]
    pub smooth_draws: usize,
    /// Change the image first: blur=SIGMA in pixels, or bits=N a channel
    #[arg(long, value_name = "NAME=VALUE")]
    pub preprocess: Option<Preprocessor>,
    /// Let the gradient pass --preprocess unchanged
    #[arg(long, requires = "preprocess")]
    pub straight_through: bool,
}

impl InferenceOptions {
    /// What was said; the noise derives from `seed`.
    pub fn settings(&self, seed: u64) -> Inference {
        let sides = |size: Size| [size.height, size.width];
        Inference {
            window: self.window.map(|size| {
                let window = sides(size);
                let stride = self.stride.map_or(window.map(|side| side.div_ceil(2)), sides);
                SlidingWindow { window, stride, weights: self.window_weights }
            }),
            scales: (!self.scales.is_empty() || self.mirror).then(|| MultiScale {
                scales: if self.scales.is_empty() { vec![1.0] } else { self.scales.clone() },
                mirrored: self.mirror,
            }),
            smoothed: self.smooth.map(|sigma| Smoothed { sigma, draws: self.smooth_draws, seed }),
            preprocessed: self
                .preprocess
                .map(|preprocessor| Preprocessed { preprocessor, straight_through: self.straight_through }),
        }
    }
}

/// How an attack is to differ from its defaults.
#[derive(Clone, Debug, Default, Args)]
pub struct AttackOptions {
    /// Radius of the perturbation for pixels in 0..1 [default: 8/255; in bench, the preset's]
    #[arg(long, value_name = "8/255")]
    pub eps: Option<Fraction>,
    /// What radius and step size count: pixel, or normalised, standard deviations of the volume that a slice belongs to
    /// [default: pixel; in bench, the preset's]
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<Unit>,
    /// Step size [default: the attack's; 0.01, at most the radius, for PGD and its kin]
    #[arg(long, value_name = "0.01")]
    pub alpha: Option<Fraction>,
    /// Norm of the perturbation: linf or l2
    #[arg(long, value_name = "NORM")]
    pub norm: Option<Norm>,
    /// The first iterate: random or zero [default: the attack's]
    #[arg(long, value_name = "START")]
    pub start: Option<Start>,
    /// Independent random starts, of which each image keeps the best
    #[arg(long, value_name = "N")]
    pub restarts: Option<usize>,
    /// Which iterate is scored: last, best-accuracy or best-loss
    #[arg(long)]
    pub iterate: Option<Iterate>,
    /// Reach a map instead of leaving the labels: class=K (K everywhere), remove=K (K becomes its nearest neighbour), or
    /// permute=K0,K1,… (class i becomes Ki)
    #[arg(long, value_name = "MAP")]
    pub target: Option<Target>,
    /// A setting that only one attack has, for instance cospgd.activation=sigmoid
    #[arg(long = "attack-option", value_name = "ATTACK.NAME=VALUE")]
    pub attack_options: Vec<Assignment<String>>,
}

impl AttackOptions {
    /// Refuses settings of attacks that are not run.
    pub fn check(&self, attacks: &[String]) -> Result<()> {
        for option in &self.attack_options {
            let attack = option.name.split_once('.').map(|(attack, _)| attack);
            anyhow::ensure!(
                attack.is_some_and(|attack| attacks.iter().any(|name| name == attack)),
                "--attack-option: found '{}', expected ATTACK.NAME of one of {}",
                option.name,
                attacks.join(", ")
            );
        }
        Ok(())
    }

    /// Whether this setting of an attack's own was given.
    pub fn gives(&self, attack: &str, name: &str) -> bool {
        self.attack_options.iter().any(|option| option.name.split_once('.') == Some((attack, name)))
    }

    /// Changes the settings that were given.
    pub fn adjust(&self, config: &mut AttackConfig) {
        config.epsilon = self.eps.map_or(config.epsilon, |epsilon| epsilon.0);
        config.norm = self.norm.unwrap_or(config.norm);
        config.unit = self.unit.unwrap_or(config.unit);
        config.iterate = self.iterate.unwrap_or(config.iterate);
        config.target = self.target.clone().or_else(|| config.target.take());
        // One step has the radius' length; from one point there is nothing to repeat.
        if config.steps > 1 {
            config.step_size = self.alpha.map(|alpha| alpha.0).or(config.step_size);
        }
        if config.steps > 1 || config.start == Start::Random {
            config.restarts = self.restarts.unwrap_or(config.restarts);
            config.start = self.start.unwrap_or(config.start);
        }
        for option in &self.attack_options {
            if let Some((_, name)) = option.name.split_once('.').filter(|(attack, _)| *attack == config.name) {
                config.options.insert(name.to_owned(), option.value.clone());
            }
        }
    }
}

/// Creates a folder that may be there already.
pub fn folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("{}: cannot create the folder", path.display()))
}

/// Writes a file under a temporary name, then renames it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().with_context(|| format!("{}: found no file name", path.display()))?;
    let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("{}: cannot write", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_names_are_listed_counters_counted_and_control_characters_shown() {
        let names = |names: &[&str]| unused_in_words(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            names(&["bn1.num_batches_tracked", "aux.0.weight", "bn2.num_batches_tracked", "e\u{1b}[2J"]),
            "aux.0.weight, e\\u{1b}[2J, 2 of …num_batches_tracked"
        );
        assert_eq!(names(&["bn1.num_batches_tracked"]), "bn1.num_batches_tracked");
    }
}
