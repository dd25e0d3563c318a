//! What a step of training is composed of, and the registry of its parts.
//!
//! A step runs through its stages in the order of the recipe:
//!
//! ```text
//! batch → Prepare, … → Weights, … → one forward pass a view → Σ Term → backward → optimizer → Hook, …
//! ```
//!
//! Between the passes and the terms, each `Prepare` stage may look at what the network said about its views and weigh
//! their samples ([`Prepare::observe`]); after an epoch every stage is told its scores ([`Describe::after_epoch`]).
//!
//! A [`Weights`] stage chooses other weights to take the gradient at. A [`Replay`] stage makes several steps of each
//! batch and perturbs it by the gradient that the steps themselves need: the second way to step.
//!
//! Mixing before an attack and mixing after it are two published methods, so the order of the [`Prepare`] stages is
//! data. A new stage is one type with one of these traits and one [`StageEntry`]:
//!
//! ```
//! use burn::tensor::Tensor;
//! use fireproof_defenses::{Error, stage::{Describe, Moment, Options, Prepare, Stage, StageEntry, View}};
//!
//! /// Turns every batch into its negative.
//! struct Negative;
//!
//! impl Describe for Negative {
//!     fn explain(&self) -> String {
//!         "images become their negatives".into()
//!     }
//!     fn options(&self) -> Options {
//!         Options::new()
//!     }
//! }
//!
//! impl Prepare for Negative {
//!     fn prepare(&mut self, views: &mut Vec<View>, _: &Moment<'_>) -> Result<(), Error> {
//!         for view in views {
//!             let images: Tensor<4> = view.batch.images.clone();
//!             view.batch.images = 1.0 - images;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! inventory::submit! {
//!     StageEntry { name: "negative", about: "photographic negatives", build: |_| Ok(Stage::Prepare(Box::new(Negative))) }
//! }
//! ```

use std::{
    cell::{Cell, OnceCell},
    collections::BTreeMap,
};

use burn::tensor::{Tensor, TensorData};
use fireproof_datasets::Dataset;
use fireproof_models::{BatchNormMode, Change, Network, Output, Parameter, Taps};
use fireproof_tensor::{Batch, Counted, Passes, Victim};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{EpochRecord, Error, Result};

/// Options of a stage: what a recipe writes beside its name.
pub type Options = serde_json::Map<String, serde_json::Value>;

/// Name of the view that every step starts with: the augmented batch.
pub const BATCH: &str = "batch";

/// A stage as a recipe writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageConfig {
    /// Registered name.
    pub stage: String,
    /// The stage's own options.
    #[serde(flatten)]
    pub options: Options,
}

/// A stage ready to run, by the place it has in a step.
pub enum Stage {
    /// Before the forward pass.
    Prepare(Box<dyn Prepare>),
    /// Instead of a single step on each batch.
    Replay(Box<dyn Replay>),
    /// A summand of the loss.
    Term(Box<dyn Term>),
    /// Between the loss and the optimizer: where the gradient is taken.
    Weights(Box<dyn Weights>),
    /// After the optimizer's step.
    Hook(Box<dyn Hook>),
}

impl Stage {
    /// The part that all stages share.
    pub fn describe(&self) -> &dyn Describe {
        match self {
            Self::Prepare(stage) => &**stage,
            Self::Replay(stage) => &**stage,
            Self::Term(stage) => &**stage,
            Self::Weights(stage) => &**stage,
            Self::Hook(stage) => &**stage,
        }
    }
}

/// A kind of stage that recipes can name. Register it with `inventory::submit!`.
pub struct StageEntry {
    /// Name in recipes.
    pub name: &'static str,
    /// What it does, in a few words, for lists.
    pub about: &'static str,
    /// Makes a stage from its options, or says what is wrong with them.
    pub build: fn(Options) -> Result<Stage, String>,
}

inventory::collect!(StageEntry);

/// Every registered kind of stage, by name.
pub fn registered() -> Vec<&'static StageEntry> {
    let mut entries: Vec<_> = inventory::iter::<StageEntry>().collect();
    entries.sort_by_key(|entry| entry.name);
    entries
}

/// Reads options into a stage's own type, for [`StageEntry::build`].
///
/// # Errors
/// What serde says: an unknown field, a missing one, a value of another type.
pub fn parse<T: DeserializeOwned>(options: Options) -> Result<T, String> {
    serde_json::from_value(options.into()).map_err(|error| error.to_string())
}

/// Writes a stage's own type as options, for [`Describe::options`].
///
/// # Panics
/// If the type does not serialize to a map.
pub fn options<T: Serialize>(stage: &T) -> Options {
    match serde_json::to_value(stage) {
        Ok(serde_json::Value::Object(map)) => map,
        other => panic!("a stage's options must be a map, found {other:?}"),
    }
}

/// Passes of a step through the network, per image of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Forward passes.
    pub forward: f64,
    /// Backward passes to the input alone.
    pub input_backward: f64,
    /// Backward passes to the parameters.
    pub full_backward: f64,
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            forward: self.forward + other.forward,
            input_backward: self.input_backward + other.input_backward,
            full_backward: self.full_backward + other.full_backward,
        }
    }
}

/// What every stage can say about itself, and the state it keeps between steps.
pub trait Describe: Send {
    /// What the stage does, in words, for `train --explain`.
    fn explain(&self) -> String;

    /// All options, the defaults filled in: what a checkpoint stores and compares.
    fn options(&self) -> Options;

    /// Passes that the stage adds to a step.
    fn cost(&self) -> Cost {
        Cost::default()
    }

    /// Names of the views that the stage adds.
    fn makes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Names of the views that must exist when the stage runs.
    fn reads(&self) -> Vec<String> {
        Vec::new()
    }

    /// Why the stage cannot follow these ones, if it cannot.
    fn contradiction(&self, _earlier: &[StageConfig]) -> Option<String> {
        None
    }

    /// Called once before the first step, with the network and the training data; not again when a run is resumed and
    /// [`restore`](Self::restore) gives the state, except that what follows from the data alone is asked for anew.
    ///
    /// # Errors
    /// Whatever keeps the stage from starting.
    fn begin(&mut self, _network: &dyn Network, _train: &dyn Dataset) -> Result<()> {
        Ok(())
    }

    /// Called before the first step of every epoch: radii that follow from scores on held-out data.
    ///
    /// Returns the passes that it made through the network. Not called again when a run is resumed within the epoch, so
    /// what it learns belongs into [`state`](Self::state).
    ///
    /// # Errors
    /// Whatever keeps the stage from going on.
    fn before_epoch(&mut self, _dawn: &Dawn<'_>) -> Result<Passes> {
        Ok(Passes::default())
    }

    /// Tensors that a checkpoint must hold so that a resumed run is the same run (averages, margins), by name.
    fn state(&self) -> Vec<(String, TensorData)> {
        Vec::new()
    }

    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// What is missing or does not fit, in words.
    fn restore(&mut self, state: BTreeMap<String, TensorData>) -> Result<(), String> {
        match state.keys().next() {
            Some(name) => Err(format!("holds '{name}', which the stage does not keep")),
            None => Ok(()),
        }
    }

    /// Called once after each epoch, with its scores where it was validated: margins grow, radii follow the clean score.
    ///
    /// # Errors
    /// Whatever keeps the stage from going on.
    fn after_epoch(&mut self, _record: &EpochRecord) -> Result<()> {
        Ok(())
    }

    /// Why training should end after this epoch, if the stage thinks so. Must follow from its options and [`state`](Self::state).
    fn enough(&self) -> Option<String> {
        None
    }

    /// Names of the network's parameters that no step may change.
    fn frozen(&self, _network: &dyn Network) -> Vec<String> {
        Vec::new()
    }
}

/// A stage before the forward pass: augmentation on the device, mixing, inner maximisation.
pub trait Prepare: Describe {
    /// Changes the views or adds some. The first one is the [`BATCH`].
    ///
    /// # Errors
    /// Whatever keeps the stage from its work.
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()>;

    /// Looks at what the network said about the views, in training mode, before the terms do. May weigh samples
    /// ([`Pass::weigh`]).
    ///
    /// # Errors
    /// Whatever keeps the stage from its work.
    fn observe(&mut self, _passes: &mut [Pass], _moment: &Moment<'_>) -> Result<()> {
        Ok(())
    }
}

/// A stage that steps on each batch several times, and perturbs it by the images' gradient of the same backward pass that
/// the weights are changed by. It sees the one view that the stages before it have made.
pub trait Replay: Describe {
    /// Optimizer steps on each batch.
    fn replays(&self) -> usize;

    /// The images of the next step, `[N, C, H, W]`, from the batch's own.
    ///
    /// # Errors
    /// Whatever keeps the stage from its work.
    fn perturb(&mut self, batch: &Batch) -> Result<Tensor<4>>;

    /// Learns the gradient of the loss at those images.
    ///
    /// # Errors
    /// Whatever keeps the stage from its work.
    fn learn(&mut self, gradient: Tensor<4>) -> Result<()>;
}

/// A stage that chooses where the gradient of the step is taken: weights beside the network's own. The optimizer's step is
/// then made from the network's own weights, which are never changed in between.
pub trait Weights: Describe {
    /// Gradients of the loss that the choice takes, each a pass and a backward pass of every view.
    fn looks(&self) -> usize {
        1
    }

    /// All parameters of the network at which the gradient is taken, in the order of its layout; `None` for its own.
    /// `look` gives the gradient of the step's loss at any weights, in the same order.
    ///
    /// # Errors
    /// Whatever keeps the stage from its work.
    fn choose(
        &mut self,
        network: &dyn Network,
        look: &mut dyn FnMut(&dyn Network) -> Result<Vec<Parameter>>,
        moment: &Moment<'_>,
    ) -> Result<Option<Vec<Parameter>>>;
}

/// A summand of the loss.
pub trait Term: Describe {
    /// The term's value `[1]`, on the autodiff graph of the passes.
    ///
    /// # Errors
    /// Whatever keeps the stage from its work.
    fn loss(&mut self, passes: &[Pass], moment: &Moment<'_>) -> Result<Tensor<1>>;
}

/// A stage after the optimizer's step: averages of weights, auxiliary networks.
pub trait Hook: Describe {
    /// Looks at the new weights.
    ///
    /// # Errors
    /// Whatever keeps the stage from its work.
    fn after_step(&mut self, network: &dyn Network) -> Result<()>;

    /// The network that is validated and kept instead of the trained one, if the stage makes one.
    ///
    /// # Errors
    /// Whatever keeps the stage from making it.
    fn evaluated(&self, _network: &dyn Network) -> Result<Option<Box<dyn Network>>> {
        Ok(None)
    }
}

/// Samples that the network sees in a forward pass of their own, so with batch statistics of their own.
#[derive(Clone, Debug)]
pub struct View {
    /// What terms call it.
    pub name: String,
    /// The samples.
    pub batch: Batch,
    /// How batch norm behaves in the view's pass.
    pub batch_norm: BatchNormMode,
    /// What happens to features in the view's pass, by site.
    pub features: Vec<(String, Change)>,
}

impl View {
    /// A view whose pass uses its own batch statistics and updates the running ones.
    pub fn new(name: impl Into<String>, batch: Batch) -> Self {
        Self { name: name.into(), batch, batch_norm: BatchNormMode::Train, features: Vec::new() }
    }

    /// The settings of the view's pass, without dropout.
    pub fn taps(&self) -> Taps {
        self.features.iter().fold(Taps::new(self.batch_norm), |taps, (site, change)| taps.change(site, change.clone()))
    }
}

/// Finds a view by name.
///
/// # Errors
/// [`Error::Setting`] listing the names there are.
pub fn view<'a>(views: &'a mut [View], name: &str) -> Result<&'a mut View> {
    let names = || views.iter().map(|view| view.name.as_str()).collect::<Vec<_>>().join(" or ");
    match views.iter().position(|view| view.name == name) {
        Some(position) => Ok(&mut views[position]),
        None => Err(Error::Setting { what: "view", found: name.into(), expected: names() }),
    }
}

/// A view with what the network says about it in training mode.
pub struct Pass {
    /// The samples.
    pub view: View,
    /// Logits `[N, K, H, W]`, and the auxiliary head's.
    pub output: Output,
}

impl Pass {
    /// Sets what each sample counts in the terms, `N` values of zero or more; multiplies what earlier stages said.
    ///
    /// # Panics
    /// If there is not one value a sample.
    pub fn weigh(&mut self, weights: &[f32]) {
        let targets = &self.view.batch.targets;
        assert_eq!(weights.len(), self.view.batch.len(), "one weight a sample");
        let own = TensorData::new(weights.to_vec(), [weights.len()]);
        let own: Tensor<1> = Tensor::from_data(own, &targets.labels().device());
        let weight = targets.weight().map_or(own.clone(), |earlier| earlier.clone() * own);
        self.view.batch.targets = targets.clone().with_weight(weight);
    }
}

/// Finds a view's pass by name.
///
/// # Errors
/// [`Error::Setting`] listing the names there are.
pub fn pass<'a>(passes: &'a [Pass], name: &str) -> Result<&'a Pass> {
    passes.iter().find(|pass| pass.view.name == name).ok_or_else(|| Error::Setting {
        what: "view",
        found: name.into(),
        expected: passes.iter().map(|pass| pass.view.name.as_str()).collect::<Vec<_>>().join(" or "),
    })
}

/// The beginning of an epoch.
pub struct Dawn<'a> {
    /// Finished epochs.
    pub epoch: usize,
    /// The network with its weights so far.
    pub network: &'a dyn Network,
    /// The data that selects the best weights, never a test split.
    pub held_out: &'a dyn Dataset,
    /// How many of its images are scored, spread evenly over the list; without it all of them.
    pub images: Option<usize>,
    /// Images in a pass.
    pub batch_size: usize,
    /// Key of all randomness of held-out scores, the same in every epoch.
    pub seed: u64,
}

/// The step that a stage runs in.
pub struct Moment<'a> {
    /// The network with the weights of this step.
    pub network: &'a dyn Network,
    /// Optimizer steps made before this one.
    pub step: u64,
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Finished epochs.
    pub epoch: usize,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// Key of all randomness of this step.
    pub seed: u64,
    victim: OnceCell<Box<dyn Victim + Send + Sync>>,
    passes: Cell<Passes>,
}

impl<'a> Moment<'a> {
    /// The moment before optimizer step `step` (from 0) of `steps`.
    pub fn new(network: &'a dyn Network, step: u64, steps: u64, epoch: usize, seed: u64) -> Self {
        Self { network, step, steps, epoch, epochs: epoch + 1, seed, victim: OnceCell::new(), passes: Cell::default() }
    }

    /// The same in a run of so many epochs.
    #[must_use]
    pub fn of(self, epochs: usize) -> Self {
        Self { epochs, ..self }
    }

    /// Runs `attack` on the frozen copy of this step's weights: evaluation mode, no parameter gradients, nothing of the
    /// network touched. The copy is made once a step.
    pub fn attack<T>(&self, attack: impl FnOnce(&dyn Victim) -> T) -> T {
        self.counted(self.victim.get_or_init(|| self.network.victim()), attack)
    }

    /// The same with batch norm in another mode. With the batch's own statistics an image's gradient depends on its
    /// neighbours; running statistics stay untouched in any mode.
    pub fn attack_in<T>(&self, mode: BatchNormMode, attack: impl FnOnce(&dyn Victim) -> T) -> T {
        if mode == BatchNormMode::Eval {
            return self.attack(attack);
        }
        let mut copy = self.network.deep_clone();
        copy.eval_mode();
        self.counted(&InTraining(copy), attack)
    }

    fn counted<T>(&self, victim: &dyn Victim, attack: impl FnOnce(&dyn Victim) -> T) -> T {
        let counted = Counted::new(victim);
        let result = attack(&counted);
        self.count(counted.passes());
        result
    }

    /// Counts passes that a stage made by itself.
    pub fn count(&self, passes: Passes) {
        self.passes.set(self.passes.get() + passes);
    }

    /// Passes that stages made in this step: forward, and backward to the input.
    pub fn passes(&self) -> Passes {
        self.passes.get()
    }
}

/// A frozen copy whose batch norm uses the statistics of the batch that it is shown.
struct InTraining(Box<dyn Network>);

impl Victim for InTraining {
    fn logits(&self, images: Tensor<4>) -> fireproof_tensor::Result<Tensor<4>> {
        Ok(self.0.forward(images, &mut Taps::train_without_update()).logits)
    }
}
