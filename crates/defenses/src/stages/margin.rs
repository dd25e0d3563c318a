//! Adversarial training with a radius of its own for each sample, which follows the sample's margin.
//!
//! Increasing-margin adversarial training (IMA): Ma, Liang. *Increasing-Margin Adversarial (IMA) training to Improve
//! Adversarial Robustness of Neural Networks*, Computer Methods and Programs in Biomedicine 2023,
//! <https://arxiv.org/abs/2005.09147>. Adaptive-margin adversarial training (AMAT), for segmentation:
//! <https://arxiv.org/abs/2206.01736>. AME, IAAT, SAT with a fixed radius, FAT and GAIRAT are settings of the same stage;
//! `docs/recipes/margin.md` has them all, with what was decided differently from the released code.
//!
//! The attacked images are a view of their own beside the untouched batch. Whether a sample counts in that view is only
//! known after the forward pass on the clean batch, which is the one that training makes anyway: a step of IMA costs what
//! its paper's does.

use std::{collections::BTreeMap, path::PathBuf};

use burn::tensor::TensorData;
use fireproof_attacks::{AttackConfig, objective};
use fireproof_datasets::{Dataset, Sample, batch};
use fireproof_models::{BatchNormMode, Network};
use fireproof_tensor::{Batch, Norm, Victim};
use serde::{Deserialize, Serialize};

use crate::{
    EpochRecord, Error, Result,
    margin::{Bracket, Budget, Criterion, Found, Keep, Search, Store, Update, Visit},
    stage::{BATCH, Cost, Describe, Moment, Options, Pass, Prepare, Stage, StageEntry, View, options, parse, pass},
};

/// The unit of radii and margins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// That of the images: pixels, or standard deviations of a case where the network is fed z-scores.
    #[default]
    Image,
    /// The same per root of the number of values of an image: an ℓ2 radius that means the same at every size. ℓ2 only.
    Rms,
}

/// Where PGD starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartRadius {
    /// At a random point of the whole ball.
    #[default]
    Full,
    /// At a random point of the ball of radius `max(E − delta, delta)`, as IMA's segmentation does.
    Inner,
    /// At the clean image.
    Clean,
}

/// Which clean samples count as right, so that their margin is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clean {
    /// Those that the criterion calls right, in the pass that training makes.
    #[default]
    Criterion,
    /// All of them: what IMA's segmentation and AMAT do.
    Always,
}

/// What a sample counts in the adversarial view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Active {
    /// One if it is right without and fooled with the attack (IMA's classification).
    #[default]
    Fooled,
    /// One if it is right without the attack (IMA's segmentation).
    Right,
    /// One.
    All,
    /// GAIRAT's `(1 + tanh(λ + 5 (1 − 2 κ / K))) / 2`, scaled to a mean of one, where `κ` of the `K` steps were needed to fool it:
    /// samples near the boundary count more.
    Geometry {
        /// `λ`: the larger, the more even.
        lambda: f64,
    },
}

/// What a sample counts in the untouched batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CleanActive {
    /// One.
    #[default]
    All,
    /// One if the network gets it wrong: MMA pushes only those by the clean loss.
    Wrong,
}

/// The settings of the stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Margin {
    /// The view that the adversarial images make.
    pub into: String,
    /// Norm of the margins.
    pub norm: Norm,
    /// Their unit, and that of `delta`, `initial`, `cap` and `gamma`.
    pub unit: Unit,
    /// By how much a margin grows in an epoch, at most.
    pub delta: f64,
    /// The margin of every sample at the start; `delta` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<f64>,
    /// The largest margin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap: Option<f64>,
    /// Gradient steps of PGD.
    pub steps: usize,
    /// A step is `step_factor · E / steps` long.
    pub step_factor: f64,
    /// Where PGD starts.
    pub start: StartRadius,
    /// Steps that a sample is attacked further after its first wrong iterate; without, all are taken. FAT's τ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<usize>,
    /// The loss that PGD ascends, by the name that `apgd.objective` knows.
    pub objective: String,
    /// Options of that loss.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub objective_options: BTreeMap<String, String>,
    /// When an image is right.
    pub criterion: Criterion,
    /// Which clean samples count as right.
    pub clean: Clean,
    /// Between which points the boundary is sought.
    pub bracket: Bracket,
    /// Halvings of the bracket.
    pub halvings: usize,
    /// A bracket no longer than this share of `delta` is not halved further.
    pub tolerance: f64,
    /// Which end of the bracket is kept.
    pub keep: Keep,
    /// What a sample counts in the adversarial view.
    pub active: Active,
    /// What a sample counts in the untouched batch.
    pub clean_active: CleanActive,
    /// How margins change.
    pub update: Update,
    /// Batch norm of the attacked network: `eval`, the frozen one, or `train-without-update`.
    pub batch_norm: BatchNormMode,
    /// Lowest and highest valid value of a pixel.
    pub range: [f32; 2],
    /// Checkpoint of another run on the same data whose margins are the first ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margins: Option<PathBuf>,
}

/// Attacks each sample within its own margin, and keeps the margins.
pub struct MarginTraining {
    settings: Margin,
    run: Option<Run>,
}

/// What the stage knows once training has begun.
struct Run {
    store: Store,
    objective: Box<dyn objective::Objective>,
    /// The criterion's threshold, where it had to be measured.
    threshold: Option<f64>,
    /// Epochs in a row without an expansion.
    idle: usize,
    epochs: usize,
    /// What the step's search has found, until the clean pass says which samples count.
    found: Option<Found>,
}

impl Default for Margin {
    fn default() -> Self {
        Self {
            into: "adversarial".into(),
            norm: Norm::L2,
            unit: Unit::Image,
            delta: 0.03,
            initial: None,
            cap: None,
            steps: 20,
            step_factor: 4.0,
            start: StartRadius::Full,
            stop_after: None,
            objective: "ce".into(),
            objective_options: BTreeMap::new(),
            criterion: Criterion::Label,
            clean: Clean::Criterion,
            bracket: Bracket::Segment,
            halvings: 10,
            tolerance: 0.0,
            keep: Keep::Boundary,
            active: Active::Fooled,
            clean_active: CleanActive::All,
            update: Update::Grow {
                expand: Default::default(),
                refine: Default::default(),
                freeze_after: None,
                patience: None,
            },
            batch_norm: BatchNormMode::Eval,
            range: [0.0, 1.0],
            margins: None,
        }
    }
}

inventory::submit! {
    StageEntry { name: "margin", about: "attacks each sample within its own margin, and keeps the margins", build: |given| {
        let settings: Margin = parse(given)?;
        settings.check()?;
        Ok(Stage::Prepare(Box::new(MarginTraining::new(settings))))
    } }
}

impl Margin {
    fn check(&self) -> Result<(), String> {
        let positive = |what: &str, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(format!("{what} is {value}, expected a positive number")),
        };
        positive("delta", self.delta)?;
        positive("step_factor", self.step_factor)?;
        self.initial.map_or(Ok(()), |initial| positive("initial", initial))?;
        self.cap.map_or(Ok(()), |cap| positive("cap", cap))?;
        if self.steps == 0 {
            return Err("steps is 0, expected at least 1".into());
        }
        if self.unit == Unit::Rms && self.norm != Norm::L2 {
            return Err(format!(
                "unit is rms with the norm {}, expected l2: others do not grow with the size",
                self.norm
            ));
        }
        let [low, high] = self.range;
        if !(low.is_finite() && high.is_finite() && low < high) {
            return Err(format!("range is {:?}, expected lowest and highest pixel value", self.range));
        }
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(format!("tolerance is {}, expected zero or more", self.tolerance));
        }
        if self.batch_norm == BatchNormMode::Train {
            return Err(
                "batch_norm is train, expected eval or train-without-update: an attack teaches no statistics".into()
            );
        }
        self.criterion.check()?;
        self.update.check()?;
        self.objective().map(drop)
    }

    fn objective(&self) -> Result<Box<dyn objective::Objective>, String> {
        let mut config = AttackConfig::new("pgd").map_err(|error| error.to_string())?;
        config.options = self.objective_options.clone();
        config.options.insert("objective".into(), self.objective.clone());
        objective::chosen(&config).map_err(|error| error.to_string())
    }

    /// Steps of two attacks that the update makes beside the one that is trained on.
    fn probes(&self) -> usize {
        match self.update {
            Update::Probe { .. } => 2,
            _ => 0,
        }
    }

    /// What a margin of one is in the units of `batch`'s images.
    fn scale(&self, batch: &Batch) -> f32 {
        let [_, c, height, width] = batch.dims();
        match self.unit {
            Unit::Image => 1.0,
            Unit::Rms => ((c * height * width) as f32).sqrt(),
        }
    }

    fn search<'a>(&'a self, run: &'a Run, scale: f32, bracket: Bracket) -> Search<'a> {
        Search {
            objective: &*run.objective,
            criterion: &self.criterion,
            threshold: run.threshold,
            norm: self.norm,
            range: self.range,
            steps: self.steps,
            stop_after: self.stop_after,
            bracket,
            halvings: self.halvings,
            tolerance: (self.tolerance * self.delta) as f32 * scale,
            keep: self.keep,
        }
    }

    /// Radii in the images' units, and what follows from them.
    fn budget(&self, margins: &[f32], scale: f32) -> Budget {
        let delta = self.delta as f32;
        let start = |margin: f32| match self.start {
            StartRadius::Full => margin,
            StartRadius::Inner => (margin - delta).max(delta).min(margin),
            StartRadius::Clean => 0.0,
        };
        let step = self.step_factor as f32 / self.steps as f32;
        Budget {
            radius: margins.iter().map(|margin| margin * scale).collect(),
            step: margins.iter().map(|margin| margin * step * scale).collect(),
            start: margins.iter().map(|&margin| start(margin) * scale).collect(),
        }
    }
}

impl MarginTraining {
    /// The stage, before a run.
    pub fn new(settings: Margin) -> Self {
        Self { settings, run: None }
    }

    fn run(&mut self) -> &mut Run {
        self.run.as_mut().expect("a stage begins before its first step")
    }

    /// The margins, once training has begun.
    pub fn store(&self) -> Option<&Store> {
        self.run.as_ref().map(|run| &run.store)
    }

    /// Moves the margins of a batch by attacks at `E + gamma` and `E`, and gives the new ones.
    fn probe(&mut self, victim: &dyn Victim, batch: &Batch, moment: &Moment<'_>) -> Result<()> {
        let Update::Probe { gamma, smooth } = self.settings.update else { return Ok(()) };
        let (gamma, smooth) = (gamma as f32, smooth as f32);
        let scale = self.settings.scale(batch);
        let run = self.run.as_ref().expect("begun");
        let margins: Vec<f32> = batch.ids.iter().map(|&id| run.store.margin(id)).collect::<Result<_>>()?;
        let search = self.settings.search(run, scale, Bracket::None);
        let wider: Vec<f32> = margins.iter().map(|margin| margin + gamma).collect();
        let beyond = search.run(victim, batch, &self.settings.budget(&wider, scale), moment.seed)?;
        let fooled: Vec<usize> = (0..batch.len()).filter(|&i| beyond.ends_wrong[i]).collect();
        let mut next: Vec<f32> =
            (0..batch.len()).map(|i| if beyond.ends_wrong[i] { margins[i] } else { wider[i] }).collect();
        if !fooled.is_empty() {
            let own: Vec<f32> = fooled.iter().map(|&i| margins[i]).collect();
            let at = search.run(victim, &batch.select(&fooled), &self.settings.budget(&own, scale), moment.seed)?;
            for (place, &i) in fooled.iter().enumerate().filter(|(place, _)| at.ends_wrong[*place]) {
                next[i] = own[place] - gamma;
            }
        }
        let defined = beyond.defined;
        let run = self.run();
        for (i, &id) in batch.ids.iter().enumerate().filter(|(i, _)| defined[*i]) {
            run.store.set(id, (1.0 - smooth) * margins[i] + smooth * next[i])?;
        }
        Ok(())
    }

    /// The mean criterion score of a network over the data, in evaluation mode.
    fn measure(&self, network: &dyn Network, data: &dyn Dataset) -> Result<f64> {
        let victim = network.victim();
        let (mut sum, mut count) = (0.0, 0usize);
        let mut pending: Vec<Sample> = Vec::new();
        for index in 0..=data.len() {
            let next = if index < data.len() { Some(data.get(index)?) } else { None };
            let size = |sample: &Sample| sample.image.size();
            let ends = next.as_ref().is_none_or(|next| pending.first().is_some_and(|first| size(first) != size(next)));
            if !pending.is_empty() && (ends || pending.len() == 16) {
                let unit = network.architecture().normalisation.unit;
                let batch = batch(&pending, &network.device())?.in_unit(unit)?;
                let logits = victim.logits(batch.images.clone())?;
                let scores: Vec<f64> =
                    self.settings.criterion.scores(&logits, &batch.targets).into_iter().flatten().collect();
                sum += scores.iter().sum::<f64>();
                count += scores.len();
                pending.clear();
            }
            pending.extend(next);
        }
        match count {
            0 => Err(Error::Setting {
                what: "criterion",
                found: format!("no image of {} with a foreground class", data.name()),
                expected: "some, or a threshold".into(),
            }),
            _ => Ok(sum / count as f64),
        }
    }
}

impl Describe for MarginTraining {
    fn explain(&self) -> String {
        let cap = self.settings.cap.map_or("without a largest one".into(), |cap| format!("at most {cap}"));
        let boundary = match self.settings.bracket {
            Bracket::None => "the last iterate".to_string(),
            _ => format!("brought to the boundary by {} halvings", self.settings.halvings),
        };
        format!(
            "each sample attacked within its own {} margin ({cap}, first {}) by {} steps on '{}', {boundary}, as the view '{}'; \
             right if {}; {}",
            self.settings.norm,
            self.settings.initial.unwrap_or(self.settings.delta),
            self.settings.steps,
            self.settings.objective,
            self.settings.into,
            self.settings.criterion.explain(),
            self.settings.update.explain()
        )
    }

    fn options(&self) -> Options {
        options(&self.settings)
    }

    /// If every sample is fooled in each of its attacks; samples that are not cost no bisection.
    fn cost(&self) -> Cost {
        let halvings = if self.settings.bracket == Bracket::None { 0 } else { self.settings.halvings };
        let attacks = 1 + self.settings.probes();
        Cost {
            forward: (attacks * (self.settings.steps + 1) + halvings + 1) as f64,
            input_backward: (attacks * self.settings.steps) as f64,
            full_backward: 1.0,
        }
    }

    fn makes(&self) -> Vec<String> {
        vec![self.settings.into.clone()]
    }

    fn reads(&self) -> Vec<String> {
        vec![BATCH.into()]
    }

    fn begin(&mut self, network: &dyn Network, train: &dyn Dataset) -> Result<()> {
        let initial = self.settings.initial.unwrap_or(self.settings.delta) as f32;
        let mut store =
            Store::new(train, initial, self.settings.delta as f32, self.settings.cap.map(|cap| cap as f32))?;
        if let Some(path) = &self.settings.margins {
            store.take_over(path, train)?;
        }
        let threshold = if self.settings.criterion.is_open() { Some(self.measure(network, train)?) } else { None };
        let objective = self.settings.objective().map_err(|found| Error::Setting {
            what: "objective",
            found,
            expected: "its name".into(),
        })?;
        self.run = Some(Run { store, objective, threshold, idle: 0, epochs: 0, found: None });
        Ok(())
    }

    fn state(&self) -> Vec<(String, TensorData)> {
        let Some(run) = &self.run else { return Vec::new() };
        let mut state = run.store.state();
        let numbers = vec![run.threshold.unwrap_or(-1.0), run.idle as f64, run.epochs as f64];
        state.push(("run".into(), TensorData::new(numbers, [3])));
        state
    }

    fn restore(&mut self, mut state: BTreeMap<String, TensorData>) -> Result<(), String> {
        let run = self.run();
        run.store.restore(&mut state)?;
        let numbers = state.remove("run").and_then(|data| data.try_to_vec::<f64>().ok());
        let Some([threshold, idle, epochs]) = numbers.as_deref() else { return Err("has no 'run'".into()) };
        run.threshold = (*threshold >= 0.0).then_some(*threshold);
        (run.idle, run.epochs) = (*idle as usize, *epochs as usize);
        match state.keys().next() {
            Some(name) => Err(format!("holds '{name}', which the stage does not keep")),
            None => Ok(()),
        }
    }

    fn after_epoch(&mut self, _record: &EpochRecord) -> Result<()> {
        let Update::Grow { freeze_after, .. } = self.settings.update else {
            let run = self.run();
            run.epochs += 1;
            return Ok(());
        };
        let run = self.run();
        run.epochs += 1;
        let frozen = freeze_after.is_some_and(|epochs| run.epochs > epochs);
        let snapshot = run.store.end_epoch(frozen);
        run.idle = if snapshot.expanded == 0 { run.idle + 1 } else { 0 };
        Ok(())
    }

    fn enough(&self) -> Option<String> {
        let Update::Grow { patience: Some(patience), .. } = self.settings.update else { return None };
        let idle = self.run.as_ref()?.idle;
        (idle >= patience).then(|| format!("no margin has grown in {idle} epochs"))
    }
}

impl Prepare for MarginTraining {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()> {
        let batch = views[0].batch.clone();
        let scale = self.settings.scale(&batch);
        let found = moment.attack_in(self.settings.batch_norm, |victim| {
            self.probe(victim, &batch, moment)?;
            let run = self.run.as_ref().expect("begun");
            let margins: Vec<f32> = batch.ids.iter().map(|&id| run.store.margin(id)).collect::<Result<_>>()?;
            self.settings.search(run, scale, self.settings.bracket).run(
                victim,
                &batch,
                &self.settings.budget(&margins, scale),
                moment.seed,
            )
        })?;
        views.push(View::new(&*self.settings.into, batch.with_images(found.images.clone())));
        self.run().found = Some(found);
        Ok(())
    }

    fn observe(&mut self, passes: &mut [Pass], _moment: &Moment<'_>) -> Result<()> {
        let found = self.run().found.take().expect("an attack before each pass");
        let clean = pass(passes, BATCH)?;
        let n = clean.view.batch.len();
        let scale = self.settings.scale(&clean.view.batch);
        let ids = clean.view.batch.ids.clone();
        let threshold = self.run().threshold;
        let judged = match self.settings.clean {
            Clean::Always => vec![Some(true); n],
            Clean::Criterion => self.settings.criterion.judge(
                &clean.output.logits.clone().inner(),
                &clean.view.batch.targets,
                threshold,
            ),
        };
        // An image of which the criterion says nothing is trained on, but its margin is left alone.
        let right: Vec<bool> = judged.iter().map(|judged| *judged != Some(false)).collect();
        let fooled: Vec<bool> = found.first.iter().map(Option::is_some).collect();
        if let Update::Grow { expand, refine, .. } = self.settings.update {
            let run = self.run();
            for i in (0..n).filter(|&i| judged[i].is_some() && found.defined[i]) {
                let (distance, slope) = (found.distance[i] / scale, found.slope[i]);
                let visit = Visit { right: right[i], fooled: fooled[i], distance, slope };
                run.store.note(ids[i], visit, expand, refine)?;
            }
        }
        let one = |yes: bool| f32::from(u8::from(yes));
        let weights: Option<Vec<f32>> = match self.settings.active {
            Active::All => None,
            Active::Right => Some(right.iter().map(|&right| one(right)).collect()),
            Active::Fooled => Some((0..n).map(|i| one(right[i] && fooled[i])).collect()),
            Active::Geometry { lambda } => {
                let steps = self.settings.steps as f64;
                let weight = |first: &Option<usize>| {
                    let kappa = first.map_or(steps, |first| first.min(self.settings.steps) as f64);
                    0.5 * (1.0 + (lambda + 5.0 * (1.0 - 2.0 * kappa / steps)).tanh())
                };
                let weights: Vec<f64> = found.first.iter().map(weight).collect();
                let mean = (weights.iter().sum::<f64>() / n as f64).max(1e-12);
                Some(weights.into_iter().map(|weight| (weight / mean) as f32).collect())
            }
        };
        for pass in passes {
            if let Some(weights) = weights.as_ref().filter(|_| pass.view.name == self.settings.into) {
                pass.weigh(weights);
            }
            if self.settings.clean_active == CleanActive::Wrong && pass.view.name == BATCH {
                pass.weigh(&right.iter().map(|&right| one(!right)).collect::<Vec<_>>());
            }
        }
        Ok(())
    }
}
