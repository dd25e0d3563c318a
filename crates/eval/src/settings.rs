//! What a user asks for.

use std::path::PathBuf;

use fireproof_attacks::AttackConfig;
use fireproof_datasets::{Dataset, Options, Split, Subset, open};
use fireproof_report::Shard;
use fireproof_tensor::Precision;

use crate::{Checks, Error, Result, Weights};

/// Everything that an evaluation's numbers depend on, and nothing else.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The images.
    pub data: DataSettings,
    /// The models.
    pub weights: Vec<Weights>,
    /// What is done to the images of each model, one row each.
    pub trials: Vec<Trial>,
    /// Devices by name; each runs the whole plan.
    pub devices: Vec<String>,
    /// In which precisions the models compute; each runs the whole plan on each device.
    pub precisions: Vec<Precision>,
    /// All randomness derives from them; every attack is run with each.
    pub seeds: Vec<u64>,
    /// The sanity checks that take runs of their own.
    pub checks: Checks,
    /// The part of the images that this process evaluates; `None` for all.
    pub shard: Option<Shard>,
}

/// What a row does to the images.
#[derive(Clone, Debug, PartialEq)]
pub enum Trial {
    /// Nothing.
    Clean,
    /// An attack.
    Attack(AttackConfig),
    /// Takes images that somebody else made.
    Given {
        /// A safetensors file, see [`adversarial`](crate::adversarial).
        file: PathBuf,
        /// Which of the file's image lists.
        set: String,
    },
}

impl Trial {
    /// The attack's settings, if it is one.
    pub fn config(&self) -> Option<&AttackConfig> {
        match self {
            Self::Attack(config) => Some(config),
            Self::Clean | Self::Given { .. } => None,
        }
    }
}

/// Which images are attacked.
#[derive(Clone, Debug)]
pub struct DataSettings {
    /// Name of a data set, or path of a manifest.
    pub name: String,
    /// The data set's folder.
    pub root: Option<PathBuf>,
    /// The split.
    pub split: Split,
    /// Height and width to resize to.
    pub size: Option<(usize, usize)>,
    /// Which of them.
    pub selection: Selection,
}

/// Which images of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// The first so many in list order.
    First(usize),
    /// Likewise, or all where there are fewer.
    AtMost(usize),
    /// Those named in a file, one a line, in its order.
    Named(PathBuf),
}

impl DataSettings {
    /// Opens the images.
    ///
    /// # Errors
    /// Those of the data set, and for a selection that it cannot give.
    pub fn open(&self) -> Result<Box<dyn Dataset>> {
        let options = Options { size: self.size, ..Options::default() };
        let whole = open(&self.name, self.root.as_deref(), self.split.clone(), options)?;
        Ok(match &self.selection {
            Selection::All => whole,
            Selection::First(count) if *count > whole.len() => {
                let expected =
                    format!("at most {}, the size of {} split `{}`", whole.len(), whole.name(), whole.split());
                return Err(Error::setting("--images", count, expected));
            }
            Selection::First(0) | Selection::AtMost(0) => return Err(Error::setting("--images", 0, "at least 1")),
            Selection::First(count) | Selection::AtMost(count) => Box::new(Subset::first(whole, *count)?),
            Selection::Named(file) => {
                let unread = |error| Error::file(file, format!("found {error}, expected one image's name a line"));
                let text = std::fs::read_to_string(file).map_err(unread)?;
                let names: Vec<String> =
                    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
                if names.is_empty() {
                    return Err(Error::file(file, "found no names, expected one image a line"));
                }
                Box::new(Subset::named(whole, &names)?)
            }
        })
    }
}

/// The numbers of steps that an attack is run with: a single-step attack stays one, and without any number an attack takes its
/// own.
pub(crate) fn steps_of(default: &AttackConfig, wanted: &[usize]) -> Vec<usize> {
    if default.steps == 1 || wanted.is_empty() { vec![default.steps] } else { wanted.to_vec() }
}

/// Expands attacks by numbers of steps, one configuration a row: `adjust` sets what the user said.
///
/// # Errors
/// If a name is unknown or an attack refuses its settings.
pub fn expand(
    names: &[String],
    steps: &[usize],
    adjust: impl Fn(&mut AttackConfig) -> Result<()>,
) -> Result<Vec<AttackConfig>> {
    let mut configs = Vec::new();
    for name in names {
        let default = AttackConfig::new(name)?;
        for steps in steps_of(&default, steps) {
            let mut config = AttackConfig { steps, ..default.clone() };
            adjust(&mut config)?;
            configs.extend(variants(config)?);
        }
    }
    Ok(configs)
}

/// An attack's rows: itself, or what it consists of.
///
/// # Errors
/// If the attack refuses its settings.
pub(crate) fn variants(config: AttackConfig) -> Result<Vec<AttackConfig>> {
    let variants = fireproof_attacks::build(&config)?.variants();
    Ok(if variants.is_empty() { vec![config] } else { variants })
}

/// Refuses two equal rows.
///
/// # Errors
/// Names the attack.
pub(crate) fn each_once(trials: &[Trial]) -> Result<()> {
    let twice = trials.iter().enumerate().find(|(index, trial)| trials[..*index].contains(trial));
    match twice.and_then(|(_, trial)| trial.config()) {
        Some(config) => {
            Err(Error::setting("--attacks", format!("{} with {} steps twice", config.name, config.steps), "each once"))
        }
        None => Ok(()),
    }
}
