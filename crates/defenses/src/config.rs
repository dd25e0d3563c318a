//! Everything that decides what a run computes.

use fireproof_datasets::{Augment, Dataset};
use serde::{Deserialize, Serialize};

use crate::{Error, OptimizerConfig, Recipe, Result, Schedule};

/// Everything that decides what a run computes: two runs with equal settings, data and start end in the same weights.
///
/// ```
/// use fireproof_defenses::{Recipe, TrainConfig};
///
/// let config = TrainConfig { epochs: 20, batch_size: 8, ..TrainConfig::new(Recipe::preset("segpgd3-at")?) };
/// config.check()?;
/// # Ok::<(), fireproof_defenses::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The stages of a step.
    pub recipe: Recipe,
    /// Epochs over the training data.
    pub epochs: usize,
    /// Images in a step; a last, smaller batch of an epoch is left out.
    pub batch_size: usize,
    /// Optimizer, rates and decay.
    pub optimizer: OptimizerConfig,
    /// How the rate changes.
    pub schedule: Schedule,
    /// What happens to training images before the first stage.
    pub augment: Augment,
    /// What selects the best weights.
    pub validation: Validation,
    /// Order, augmentation, dropout and attacks derive from this.
    pub seed: u64,
    /// What the weights were before the first step, in words; only compared when a run is resumed.
    pub start: String,
}

/// How the best weights are selected, on held-out data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Validation {
    /// Images, spread evenly over the list; without it all of them.
    pub images: Option<usize>,
    /// Images in a pass.
    pub batch_size: usize,
    /// Epochs between validations; the last epoch always has one.
    pub every: usize,
    /// Validations without a better score after which the run stops; without it all epochs are made.
    pub patience: Option<usize>,
}

impl Default for Validation {
    fn default() -> Self {
        Self { images: None, batch_size: 8, every: 1, patience: None }
    }
}

impl TrainConfig {
    /// The setting of DDC-AT for Pascal VOC without its augmentation: 50 epochs of batches of 16, SGD at 0.01 with poly
    /// decay.
    pub fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            epochs: 50,
            batch_size: 16,
            optimizer: OptimizerConfig::default(),
            schedule: Schedule::Poly { power: 0.9 },
            augment: Augment::default(),
            validation: Validation::default(),
            seed: 0,
            start: "initial values".into(),
        }
    }

    /// Refuses settings that cannot train.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first one, the errors of [`Recipe::resolved`] and of the augmentation.
    pub fn check(&self) -> Result<()> {
        self.recipe.resolved()?;
        self.optimizer.check()?;
        self.augment.validate()?;
        let validation = &self.validation;
        for (what, found) in [
            ("epochs", Some(self.epochs)),
            ("batch size", Some(self.batch_size)),
            ("validation images", validation.images),
            ("validation batch size", Some(validation.batch_size)),
            ("epochs between validations", Some(validation.every)),
            ("patience", validation.patience),
        ] {
            if found == Some(0) {
                return Err(Error::Setting { what, found: "0".into(), expected: "at least 1".into() });
            }
        }
        match self.schedule.problem() {
            Some((what, found, expected)) => Err(Error::Setting { what, found, expected: expected.into() }),
            None => Ok(()),
        }
    }
}

/// What a data set was when a run began, so that another one is noticed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSummary {
    /// Name of the data set.
    pub name: String,
    /// Name of the split.
    pub split: String,
    /// Number of samples.
    pub samples: usize,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Channels, height and width of the first image.
    pub first_image: [usize; 3],
    /// Hash of all ids and names in their order.
    pub list: String,
}

impl DataSummary {
    /// Describes a data set; reads its first sample.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn of(data: &dyn Dataset) -> Result<Self> {
        let image = data.get(0)?.image;
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        for index in 0..data.len() {
            data.id(index).to_le_bytes().into_iter().for_each(&mut add);
            data.sample_name(index).bytes().chain([0]).for_each(&mut add);
        }
        Ok(Self {
            name: data.name().into(),
            split: data.split().into(),
            samples: data.len(),
            classes: data.classes().iter().map(|class| class.name.clone()).collect(),
            first_image: [image.channels, image.height, image.width],
            list: format!("{hash:016x}"),
        })
    }
}
