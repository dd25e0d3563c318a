//! The training loop.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use burn::{
    optim::ModuleOptimizer,
    tensor::{Bytes, Device, Gradients, Tensor},
};
use fireproof_attacks::Attack;
use fireproof_datasets::{Dataset, Loader, LoaderOptions, Position, batch};
use fireproof_models::{Network, Taps};
use fireproof_tensor::{Batch, Passes, random::Stream};
use serde::{Deserialize, Serialize};

use crate::{
    Checkpoint, Control, DataSummary, Error, Identity, Result, State, TrainConfig,
    checkpoint::{tensors, write_weights},
    progress::Progress,
    recipe::{Named, Pipeline},
    stage::{BATCH, Dawn, Moment, Pass, Prepare, Term, View},
    validation::{Score, score},
};

/// Name of the run's file in its folder.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Name of the best weights in the run's folder.
pub const BEST: &str = "best.safetensors";

/// A loss above this is an explosion: a network that knows nothing starts near the logarithm of the number of classes.
const LOSS_LIMIT: f32 = 1e4;

/// Passes through the network, in images: a forward pass of a batch of 8 counts 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Forward passes of training steps, those of attacks included.
    pub forward: u64,
    /// Backward passes to the input alone.
    pub input_backward: u64,
    /// Backward passes to the parameters.
    pub full_backward: u64,
    /// Forward passes of validations.
    pub validation_forward: u64,
    /// Backward passes to the input of validations.
    pub validation_backward: u64,
}

impl Meter {
    fn add_attacks(&mut self, passes: Passes) {
        self.forward += passes.forward;
        self.input_backward += passes.backward;
    }
}

/// A finished epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// Optimizer steps made at its end.
    pub step: u64,
    /// Mean loss of its steps.
    pub loss: f64,
    /// Clean mIoU on the validation data, 0 to 1, if there was a validation.
    pub clean_miou: Option<f64>,
    /// mIoU under the recipe's selecting attack, 0 to 1, if there is one.
    pub robust_miou: Option<f64>,
    /// Seconds since the start of the run, interruptions left out.
    pub seconds: f64,
}

impl EpochRecord {
    /// What selects the best weights: the robust mIoU where there is one, else the clean one.
    pub fn score(&self) -> Option<f64> {
        self.robust_miou.or(self.clean_miou)
    }
}

/// Why a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All epochs are made.
    Finished,
    /// The score did not get better for as long as the settings allow.
    StoppedEarly,
    /// Somebody asked; the run can be resumed.
    Interrupted,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Why it came to its end.
    pub outcome: Outcome,
    /// Optimizer steps made.
    pub steps: u64,
    /// The finished epochs.
    pub epochs: Vec<EpochRecord>,
    /// The epoch whose weights [`BEST`] holds: the first one with the highest score.
    pub best: Option<EpochRecord>,
    /// Passes through the network.
    pub meter: Meter,
    /// Share of this process' time, 0 to 1, in which training waited for the loader: above a few per cent, more workers
    /// help.
    pub waiting: f64,
    /// The run's file, with the last weights.
    pub checkpoint: PathBuf,
    /// The best weights' file, after the first validation.
    pub best_weights: Option<PathBuf>,
}

/// Trains `network` by the recipe, from the weights it has, and keeps the run in the folder `out`.
///
/// `out` gets [`CHECKPOINT`], written after each epoch, every [`Control::save_every`] and when interrupted, and [`BEST`], the weights
/// with the highest score on `validation`. A run that is resumed after any interruption ends in the same weights as one
/// that was not, bit by bit on Flex. The network has the last weights afterwards, on the plain device.
///
/// # Errors
/// Settings, recipes or data that do not fit each other, an occupied or foreign folder, files, a stage's error, or
/// [`Error::Diverged`], which names step, stage and the last good checkpoint.
pub fn train(
    config: &TrainConfig,
    network: &mut dyn Network,
    train: Arc<dyn Dataset>,
    validation: Arc<dyn Dataset>,
    out: &Path,
    control: &Control,
) -> Result<Summary> {
    config.check()?;
    check_data(config, network, &*train, &*validation)?;
    std::fs::create_dir_all(out).map_err(Error::io("create the folder", out))?;
    let mut trainer = Trainer::new(config, network, train, validation, out, control)?;
    let summary = trainer.run();
    trainer.network.eval_mode();
    summary
}

/// Refuses data that the network cannot take, and held-out data that is not held out.
fn check_data(
    config: &TrainConfig,
    network: &dyn Network,
    train: &dyn Dataset,
    validation: &dyn Dataset,
) -> Result<()> {
    let setting = |what, found: String, expected: &str| Err(Error::Setting { what, found, expected: expected.into() });
    for data in [train, validation] {
        // Parts of a test split are named for it, such as `test-2000`.
        if data.split() == "test" || data.split().starts_with("test-") {
            return setting(
                "training or validation data",
                format!("the {} split of {}", data.split(), data.name()),
                "any other split: test data is read once, at the end",
            );
        }
    }
    let (outputs, classes) = (network.architecture().classes.len(), train.classes().len());
    if outputs < classes {
        return setting(
            "network",
            format!("{outputs} logits"),
            &format!("at least {classes}, one a class of {}", train.name()),
        );
    }
    let channels = network.architecture().input_channels;
    if channels != train.channels() {
        return setting(
            "network",
            format!("{channels} input channels"),
            &format!("{} as the images of {}", train.channels(), train.name()),
        );
    }
    if train.classes() != validation.classes() || train.channels() != validation.channels() {
        return setting(
            "validation data",
            format!(
                "{} with {} classes, {} channels",
                validation.name(),
                validation.classes().len(),
                validation.channels()
            ),
            &format!("the classes and channels of {}", train.name()),
        );
    }
    if (train.name(), train.split()) == (validation.name(), validation.split()) {
        let ids: std::collections::HashSet<u64> = (0..train.len()).map(|index| train.id(index)).collect();
        if let Some(index) = (0..validation.len()).find(|&index| ids.contains(&validation.id(index))) {
            return setting(
                "validation data",
                format!("'{}', which is trained on", validation.sample_name(index)),
                "held-out samples",
            );
        }
    }
    if train.len() < config.batch_size {
        return setting(
            "batch size",
            config.batch_size.to_string(),
            &format!("at most the {} training images", train.len()),
        );
    }
    Ok(())
}

struct Trainer<'a> {
    config: &'a TrainConfig,
    control: &'a Control,
    network: &'a mut dyn Network,
    train: Arc<dyn Dataset>,
    validation: Arc<dyn Dataset>,
    /// Where batches go; the loop uses the first, and nothing else stores a device.
    devices: Vec<Device>,
    pipeline: Pipeline,
    selection: Option<Box<dyn Attack>>,
    optimizer: ModuleOptimizer,
    identity: Identity,
    state: State,
    batches_per_epoch: u64,
    out: PathBuf,
    /// The last file with good weights.
    saved: Option<PathBuf>,
    last_save: Instant,
    /// When this process began, less the seconds of those before it.
    began: Instant,
    seconds_before: f64,
}

impl<'a> Trainer<'a> {
    fn new(
        config: &'a TrainConfig,
        network: &'a mut dyn Network,
        train: Arc<dyn Dataset>,
        validation: Arc<dyn Dataset>,
        out: &Path,
        control: &'a Control,
    ) -> Result<Self> {
        let mut pipeline = Pipeline::build(&config.recipe)?;
        let identity = Identity {
            architecture: network.architecture().clone(),
            train: DataSummary::of(&*train)?,
            validation: DataSummary::of(&*validation)?,
            config: TrainConfig { recipe: pipeline.recipe.clone(), ..config.clone() },
        };
        let path = out.join(CHECKPOINT);
        let checkpoint = match path.exists() {
            true => Some(Checkpoint::read(&path)?),
            false => None,
        };
        if let Some(Checkpoint { state, .. }) = checkpoint.as_ref().filter(|_| !control.resume) {
            return Err(Error::Occupied { path, epoch: state.epochs.len(), step: state.step });
        }
        network.train_mode();
        let mut frozen = Vec::new();
        for (_, stage) in pipeline.stages() {
            stage.begin(&*network, &*train)?;
            frozen.extend(stage.frozen(&*network));
        }
        network.freeze(&frozen)?;
        let mut optimizer = config.optimizer.build();
        let mut state = State::default();
        if let Some(checkpoint) = checkpoint {
            checkpoint.check(&path, &identity)?;
            let broken = |reason: String| Error::Checkpoint { path: path.clone(), reason };
            network.set_parameters(&checkpoint.parameters(&path, &*network)?)?;
            let record = Bytes::from_bytes_vec(checkpoint.optimizer);
            optimizer = optimizer.from_bytes(record).map_err(|error| broken(format!("optimizer: {error}")))?;
            let mut stages = checkpoint.stages;
            for (name, stage) in pipeline.stages() {
                let kept = stages.remove(&name).unwrap_or_default();
                stage.restore(kept).map_err(|reason| broken(format!("stage '{name}' {reason}")))?;
            }
            state = checkpoint.state;
        }
        let selection = config.recipe.selection.as_ref().map(fireproof_attacks::build).transpose()?;
        Ok(Self {
            config,
            control,
            devices: vec![network.device()],
            network,
            batches_per_epoch: (train.len() / config.batch_size) as u64,
            train,
            validation,
            pipeline,
            selection,
            optimizer,
            identity,
            saved: (state.step > 0).then(|| path.clone()),
            seconds_before: state.seconds,
            state,
            out: out.to_path_buf(),
            last_save: Instant::now(),
            began: Instant::now(),
        })
    }

    fn run(&mut self) -> Result<Summary> {
        let (epochs, steps) = (self.config.epochs, self.steps());
        let mut progress = Progress::new(self.control.display, epochs, steps, self.state.step);
        if self.control.resume && self.saved.is_none() {
            progress.note(&format!("nothing to resume in {}: starting", self.out.display()));
        }
        if self.saved.is_some() {
            let State { step, position, .. } = &self.state;
            progress.note(&format!("resumed at epoch {}, step {step} of {steps}", position.epoch + 1));
        }
        let options = LoaderOptions {
            workers: self.control.workers,
            ..LoaderOptions::training(self.config.batch_size, self.config.seed, self.config.augment.clone())
        };
        let mut loader = Loader::starting_at(self.train.clone(), options, self.state.position)?;
        let mut waited = Duration::ZERO;
        let scored = self.score_start()?;
        let outcome = loop {
            if !scored {
                break Outcome::Interrupted;
            }
            if self.state.epochs.len() == epochs {
                break Outcome::Finished;
            }
            if self.out_of_patience() {
                break Outcome::StoppedEarly;
            }
            let at_start = self.state.position.batch == 0;
            let enough = self.pipeline.stages().find_map(|(name, stage)| Some((name, stage.enough()?)));
            if let Some((name, reason)) = enough.filter(|_| at_start) {
                progress.note(&format!("stage '{name}' ends the run: {reason}"));
                break Outcome::StoppedEarly;
            }
            if self.state.position.batch == 0 {
                self.begin_epoch()?;
            }
            if self.state.position.batch < self.batches_per_epoch {
                let asked = Instant::now();
                let loaded = loader.next().expect("the training loader never ends")?;
                waited += asked.elapsed();
                let unit = self.network.architecture().normalisation.unit;
                let batch = batch(&loaded.samples, &self.devices[0])?.in_unit(unit)?;
                let (loss, rate) = self.step(batch)?;
                self.state.loss_sum += loss;
                self.state.position.batch += 1;
                progress.step(self.state.step, self.state.epochs.len(), loss, rate);
            }
            let epoch_done = self.state.position.batch == self.batches_per_epoch;
            if self.control.stop.requested() {
                break Outcome::Interrupted;
            }
            if epoch_done {
                // Validation may take longer than the epoch did; a run that is killed in it should not lose the epoch.
                self.save()?;
                let Some((record, best)) = self.finish_epoch()? else {
                    break Outcome::Interrupted;
                };
                progress.epoch(&record, best);
            }
            if epoch_done || self.last_save.elapsed() >= self.control.save_every {
                self.save()?;
            }
        };
        if outcome == Outcome::Interrupted {
            self.save()?;
            progress.note(&format!(
                "interrupted after step {} of {steps}; resume from {}",
                self.state.step,
                self.checkpoint().display()
            ));
        }
        let best = self.best().cloned();
        Ok(Summary {
            outcome,
            steps: self.state.step,
            epochs: self.state.epochs.clone(),
            waiting: waited.as_secs_f64() / self.began.elapsed().as_secs_f64(),
            best_weights: best.is_some().then(|| self.out.join(BEST)),
            best,
            meter: self.state.meter,
            checkpoint: self.checkpoint(),
        })
    }

    /// Everything that is made of one batch: a step of the optimizer, or as many as the recipe replays it. Mean loss and
    /// the backbone's rate.
    fn step(&mut self, batch: Batch) -> Result<(f64, f64)> {
        let views = self.prepare(batch)?;
        let replays = self.pipeline.replays();
        let (mut loss, mut rate) = (0.0, 0.0);
        for _ in 0..replays {
            let (found, at) = self.descend(views.clone())?;
            self.state.step += 1;
            (loss, rate) = (loss + found / replays as f64, at);
        }
        Ok((loss, rate))
    }

    fn failure(&self) -> Failure {
        Failure { step: self.state.step, epoch: self.state.epochs.len() + 1, saved: self.saved.clone() }
    }

    /// Key of the randomness of the step that comes next.
    fn step_seed(&self) -> u64 {
        Stream::new(&[self.config.seed, self.state.step]).child("step").bits(0)
    }

    fn moment<'n>(&self, network: &'n dyn Network) -> Moment<'n> {
        let epoch = self.state.epochs.len();
        Moment::new(network, self.state.step, self.steps(), epoch, self.step_seed()).of(self.config.epochs)
    }

    /// The views that the stages before the forward pass make of a batch.
    fn prepare(&mut self, batch: Batch) -> Result<Vec<View>> {
        let failed = self.failure();
        let moment = self.moment(&*self.network);
        let mut views = vec![View::new(BATCH, batch)];
        for named in &mut self.pipeline.prepare {
            named.stage.prepare(&mut views, &moment).map_err(|error| failed.of(&named.name, error))?;
            // Here the stage can be told that did it; a loss only shows that some stage did.
            let sum = |view: &View| view.batch.images.clone().sum().into_scalar::<f32>();
            if let Some(view) = views.iter().find(|view| !sum(view).is_finite()) {
                return Err(
                    failed.diverged(&named.name, format!("the images of the view '{}' are not finite", view.name))
                );
            }
        }
        self.state.meter.add_attacks(moment.passes());
        Ok(views)
    }

    /// One step of the optimizer on the views: its loss and the backbone's rate.
    fn descend(&mut self, mut views: Vec<View>) -> Result<(f64, f64)> {
        let failed = self.failure();
        let moment = self.moment(&*self.network);
        let leaf = match &mut self.pipeline.replay {
            Some(Named { name, stage }) => {
                let images = stage.perturb(&views[0].batch).map_err(|error| failed.of(name, error))?;
                let leaf = images.autodiff().require_grad();
                views[0].batch.images = leaf.clone();
                Some(leaf)
            }
            None => None,
        };

        let (terms, meter) = (&mut self.pipeline.terms, &mut self.state.meter);
        let mut observers = &mut self.pipeline.prepare[..];
        let mut elsewhere: Option<Box<dyn Network>> = None;
        for Named { name, stage } in &mut self.pipeline.weights {
            let from = elsewhere.as_deref().unwrap_or(moment.network);
            let mut look = |network: &dyn Network| {
                let passed =
                    pass_all(network, &mut views, std::mem::take(&mut observers), terms, &moment, meter, &failed)?;
                Ok(network.gradients(&passed.gradients))
            };
            let chosen = stage.choose(from, &mut look, &moment).map_err(|error| failed.of(name, error))?;
            if let Some(parameters) = chosen {
                let mut copy = from.deep_clone();
                copy.set_parameters(&parameters)?;
                elsewhere = Some(copy);
            }
        }
        let network = elsewhere.as_deref().unwrap_or(moment.network);
        let passed = pass_all(network, &mut views, observers, terms, &moment, meter, &failed)?;
        let at_images = leaf.and_then(|leaf| leaf.grad(&passed.gradients));
        let updates = network.collect(passed.gradients);
        meter.add_attacks(moment.passes());

        let (step, steps) = (self.state.step, self.steps());
        let rates = self.config.optimizer.rates(self.config.schedule.factor(step, steps));
        self.network.apply(&mut self.optimizer, rates, updates);
        for taps in &passed.taps {
            self.network.commit(taps);
        }
        if let (Some(Named { name, stage }), Some(gradient)) = (&mut self.pipeline.replay, at_images) {
            stage.learn(gradient).map_err(|error| failed.of(name, error))?;
        }
        for named in &mut self.pipeline.hooks {
            named.stage.after_step(&*self.network).map_err(|error| failed.of(&named.name, error))?;
        }
        Ok((passed.loss, rates.backbone))
    }

    /// Tells every stage that an epoch begins.
    fn begin_epoch(&mut self) -> Result<()> {
        let failed = self.failure();
        let dawn = Dawn {
            epoch: self.state.epochs.len(),
            network: &*self.network,
            held_out: &*self.validation,
            images: self.config.validation.images,
            batch_size: self.config.validation.batch_size,
            seed: self.validation_seed(),
        };
        for (name, stage) in self.pipeline.stages() {
            let passes = stage.before_epoch(&dawn).map_err(|error| failed.of(&name, error))?;
            self.state.meter.validation_forward += passes.forward;
            self.state.meter.validation_backward += passes.backward;
        }
        Ok(())
    }

    /// The same key in every epoch, so that scores differ by the weights alone.
    fn validation_seed(&self) -> u64 {
        Stream::new(&[self.config.seed]).child("validation").bits(0)
    }

    /// Scores the epoch where it is due, keeps its weights if they are the best, and turns to the next one. `None` if
    /// interrupted; the epoch is then not finished.
    fn finish_epoch(&mut self) -> Result<Option<(EpochRecord, bool)>> {
        let epoch = self.state.epochs.len() + 1;
        let every = self.config.validation.every;
        let mut record = EpochRecord {
            epoch,
            step: self.state.step,
            loss: self.state.loss_sum / self.batches_per_epoch as f64,
            clean_miou: None,
            robust_miou: None,
            seconds: 0.0,
        };
        let mut is_best = false;
        if epoch.is_multiple_of(every) || epoch == self.config.epochs {
            let Some((network, scored)) = self.validate(epoch)? else { return Ok(None) };
            record.clean_miou = Some(scored.clean);
            record.robust_miou = scored.robust;
            is_best = self.may_be_kept(&record) && self.best().and_then(EpochRecord::score) < record.score();
            if is_best {
                self.save_best(&*network, &record)?;
            }
        }
        record.seconds = self.seconds();
        let failed = Failure { step: self.state.step, epoch, saved: self.saved.clone() };
        for (name, stage) in self.pipeline.stages() {
            stage.after_epoch(&record).map_err(|error| failed.of(&name, error))?;
        }
        self.state.epochs.push(record.clone());
        self.state.position = Position { epoch: epoch as u64, batch: 0 };
        self.state.loss_sum = 0.0;
        Ok(Some((record, is_best)))
    }

    /// Scores the network that a recipe's hooks make, or else the trained one, on the validation data, and gives both.
    /// `None` if interrupted.
    fn validate(&mut self, epoch: usize) -> Result<Option<(Box<dyn Network>, Score)>> {
        let mut evaluated = None;
        for named in &self.pipeline.hooks {
            evaluated = named.stage.evaluated(&*self.network)?.or(evaluated);
        }
        let network = evaluated.unwrap_or_else(|| self.network.deep_clone());
        let attack = self.selection.as_deref().map(|attack| (attack, self.validation_seed()));
        let wanted = &self.config.validation;
        let stop = || self.control.stop.requested();
        let failed = Failure { step: self.state.step, epoch, saved: self.saved.clone() };
        let scored = score(&*network, &*self.validation, wanted.images, wanted.batch_size, attack, &stop)
            .map_err(|error| failed.of("validation", error))?;
        let Some(scored) = scored else { return Ok(None) };
        self.state.meter.validation_forward += scored.passes.forward;
        self.state.meter.validation_backward += scored.passes.backward;
        Ok(Some((network, scored)))
    }

    /// Scores the weights that the run begins with and keeps them as the best so far, if the recipe compares with them.
    /// `false` if interrupted.
    fn score_start(&mut self) -> Result<bool> {
        if self.config.recipe.guard.is_none() || self.state.start.is_some() {
            return Ok(true);
        }
        let Some((network, scored)) = self.validate(0)? else { return Ok(false) };
        let record = EpochRecord {
            epoch: 0,
            step: 0,
            loss: 0.0,
            clean_miou: Some(scored.clean),
            robust_miou: scored.robust,
            seconds: self.seconds(),
        };
        self.save_best(&*network, &record)?;
        self.state.start = Some(record);
        self.save()?;
        Ok(true)
    }

    /// Whether the recipe's guard lets these weights be the best.
    fn may_be_kept(&self, record: &EpochRecord) -> bool {
        let Some(guard) = self.config.recipe.guard else { return true };
        let start = self.state.start.as_ref().and_then(|start| start.clean_miou);
        let reference = guard.reference.or(start).unwrap_or(0.0);
        // A number that was written down with a few digits must not refuse the very weights that it came from.
        record.epoch == 0 || record.clean_miou.is_some_and(|clean| clean >= reference - guard.tolerance - 1e-9)
    }

    /// The first of the start and the epochs with the highest score, of those that may be kept.
    fn best(&self) -> Option<&EpochRecord> {
        let all = self.state.start.iter().chain(&self.state.epochs);
        let scored = all.filter(|record| record.score().is_some() && self.may_be_kept(record));
        scored.reduce(|best, record| if record.score() > best.score() { record } else { best })
    }

    fn out_of_patience(&self) -> bool {
        let (Some(patience), Some(best)) = (self.config.validation.patience, self.best()) else { return false };
        let since = self.state.epochs.iter().filter(|record| record.epoch > best.epoch && record.score().is_some());
        since.count() >= patience
    }

    fn steps(&self) -> u64 {
        self.batches_per_epoch * self.pipeline.replays() as u64 * self.config.epochs as u64
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.began.elapsed().as_secs_f64()
    }

    fn checkpoint(&self) -> PathBuf {
        self.out.join(CHECKPOINT)
    }

    fn save(&mut self) -> Result<()> {
        let parameters = self.network.parameters();
        if let Some(bad) = parameters.iter().find(|p| p.values.iter().any(|value| !value.is_finite())) {
            let failed =
                Failure { step: self.state.step, epoch: self.state.epochs.len() + 1, saved: self.saved.clone() };
            return Err(failed.diverged("step", format!("'{}' holds a value that is not finite", bad.name)));
        }
        let path = self.checkpoint();
        let broken = |reason| Error::Checkpoint { path: path.clone(), reason };
        let optimizer = self.optimizer.into_bytes().map_err(|error| broken(format!("optimizer: {error}")))?;
        self.state.seconds = self.seconds();
        let checkpoint = Checkpoint {
            written_by: env!("CARGO_PKG_VERSION").into(),
            identity: self.identity.clone(),
            state: self.state.clone(),
            parameters: tensors(parameters),
            optimizer: optimizer.to_vec(),
            stages: self.pipeline.stages().map(|(name, stage)| (name, stage.state().into_iter().collect())).collect(),
        };
        checkpoint.write(&path)?;
        self.saved = Some(path);
        self.last_save = Instant::now();
        Ok(())
    }

    /// Writes the weights with what they are.
    fn save_best(&self, network: &dyn Network, record: &EpochRecord) -> Result<()> {
        let Identity { train, config, .. } = &self.identity;
        let extra = [
            ("recipe", config.recipe.name.clone()),
            ("data", train.name.clone()),
            ("config", serde_json::json!(config).to_string()),
            ("epoch", serde_json::json!(record).to_string()),
        ];
        write_weights(&self.out.join(BEST), network, extra.map(|(key, value)| (key.to_string(), value)).into())
    }
}

/// What the passes of a step gave.
struct Passed {
    loss: f64,
    gradients: Gradients,
    taps: Vec<Taps>,
}

/// A pass of every view at the network's weights, the sum of the terms, and its gradients. Equal for equal arguments, dropout
/// included. `observers` look at the passes before the terms do. What they say that samples count is kept in the views: only the first
/// pass of a step has observers, and every pass of it has the same loss.
fn pass_all(
    network: &dyn Network,
    views: &mut [View],
    observers: &mut [Named<dyn Prepare>],
    terms: &mut [Named<dyn Term>],
    moment: &Moment<'_>,
    meter: &mut Meter,
    failed: &Failure,
) -> Result<Passed> {
    let mut passes = Vec::new();
    let mut collected = Vec::new();
    for (position, view) in views.iter().enumerate() {
        let dropout = Stream::new(&[moment.seed, position as u64]).child("dropout");
        let mut taps = view.taps().with_dropout(dropout);
        let output = network.forward(view.batch.images.clone(), &mut taps);
        meter.forward += view.batch.len() as u64;
        meter.full_backward += view.batch.len() as u64;
        passes.push(Pass { view: view.clone(), output });
        collected.push(taps);
    }
    for named in observers {
        named.stage.observe(&mut passes, moment).map_err(|error| failed.of(&named.name, error))?;
    }
    for (view, pass) in views.iter_mut().zip(&passes) {
        view.batch.targets = pass.view.batch.targets.clone();
    }
    let mut sum: Option<Tensor<1>> = None;
    for named in terms {
        let term = named.stage.loss(&passes, moment).map_err(|error| failed.of(&named.name, error))?;
        let value = term.clone().inner().into_scalar::<f32>();
        if !value.is_finite() || value > LOSS_LIMIT {
            return Err(failed.diverged(&named.name, format!("the loss is {value}")));
        }
        sum = Some(match sum {
            Some(sum) => sum + term,
            None => term,
        });
    }
    let sum = sum.expect("a recipe without a term is refused");
    let loss = f64::from(sum.clone().inner().into_scalar::<f32>());
    drop(passes);
    Ok(Passed { loss, gradients: sum.backward(), taps: collected })
}

/// What an error of a step says beside its own words.
struct Failure {
    step: u64,
    epoch: usize,
    saved: Option<PathBuf>,
}

impl Failure {
    fn diverged(&self, stage: &str, what: String) -> Error {
        let Self { step, epoch, saved } = self;
        Error::Diverged { step: *step, epoch: *epoch, stage: stage.into(), what, checkpoint: saved.clone() }
    }

    fn of(&self, stage: &str, error: Error) -> Error {
        match error {
            Error::Attack(error @ fireproof_attacks::Error::NotFinite { .. }) => {
                self.diverged(stage, error.to_string())
            }
            error @ Error::Diverged { .. } => error,
            error => Error::Stage { step: self.step, stage: stage.into(), reason: error.to_string() },
        }
    }
}
