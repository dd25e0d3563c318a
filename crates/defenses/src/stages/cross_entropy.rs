//! Per-pixel cross-entropy with class weights and an auxiliary head.

use burn::tensor::{Tensor, TensorData};
use fireproof_datasets::Dataset;
use fireproof_models::Network;
use fireproof_tensor::{Targets, VOID, ops};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    stage::{BATCH, Describe, Moment, Options, Pass, Stage, StageEntry, Term, options, parse, pass},
};

/// What a pixel of each class counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// One for all.
    #[default]
    Uniform,
    /// `1 / ln(1.02 + share)` with the class's share of the training pixels, as ENet does (Paszke et al. 2016).
    Frequency,
    /// One number a class.
    Given(Vec<f32>),
}

/// What a sum over weighted samples is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeanOver {
    /// The weights: samples of weight zero are as if they were not in the batch.
    #[default]
    Weights,
    /// All samples: those of weight zero still make the others count less.
    Samples,
}

/// Mean cross-entropy over the valid pixels of a view, weighted by class, plus a share of the auxiliary head's.
///
/// As PyTorch's `CrossEntropyLoss(weight, ignore_index=255)`: `Σ w_y · ce / Σ w_y` over all valid pixels of the batch,
/// each sample multiplied by its weight where the targets have one. A batch that is all void has a loss of zero.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrossEntropy {
    /// The view it reads.
    pub view: String,
    /// What the term is multiplied by.
    pub weight: f64,
    /// What the auxiliary head's loss is multiplied by, where the network has one.
    pub auxiliary: f64,
    /// What a pixel of each class counts.
    pub class_weights: ClassWeights,
    /// What the sum is divided by, where samples have weights.
    pub mean_over: MeanOver,
    #[serde(skip)]
    resolved: Option<Vec<f32>>,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        Self {
            view: BATCH.into(),
            weight: 1.0,
            auxiliary: 0.4,
            class_weights: ClassWeights::Uniform,
            mean_over: MeanOver::Weights,
            resolved: None,
        }
    }
}

inventory::submit! {
    StageEntry { name: "cross-entropy", about: "per-pixel cross-entropy, void ignored", build: |given| {
        let stage: CrossEntropy = parse(given)?;
        stage.check()?;
        Ok(Stage::Term(Box::new(stage)))
    } }
}

impl CrossEntropy {
    fn check(&self) -> Result<(), String> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !positive(self.weight) {
            return Err(format!("weight is {}, expected a positive number", self.weight));
        }
        if self.auxiliary < 0.0 || !self.auxiliary.is_finite() {
            return Err(format!("auxiliary is {}, expected zero or more", self.auxiliary));
        }
        match &self.class_weights {
            ClassWeights::Given(weights) => match weights.iter().find(|&&w| w < 0.0 || !w.is_finite()) {
                Some(weight) => Err(format!("a class weight is {weight}, expected zero or more")),
                None if weights.iter().all(|&w| w == 0.0) => Err("all class weights are zero".into()),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The plain mean, with this divisor.
    pub(super) fn over(mean_over: MeanOver) -> Self {
        Self { mean_over, ..Self::default() }
    }

    pub(super) fn mean(&self, logits: &Tensor<4>, targets: &Targets) -> Tensor<1> {
        let classes = logits.dims()[1];
        let [n, height, width] = targets.dims();
        let per_pixel = |map: Tensor<4>| map.sum_dim(1).reshape([n, height, width]) * targets.valid().clone();
        let (targets, mut mass) = match (&self.resolved, targets.soft()) {
            (None, None) => (targets.clone(), targets.valid().clone()),
            (None, Some(soft)) => (targets.clone(), per_pixel(soft.clone())),
            (Some(weights), _) => {
                let device = logits.device().inner();
                let weights = Tensor::<1>::from_data(TensorData::new(padded(weights, classes), [classes]), &device);
                let map = targets.soft().cloned().unwrap_or_else(|| targets.one_hot(classes));
                let map = map * weights.reshape([1, classes, 1, 1]);
                (targets.clone().with_soft(map.clone()), per_pixel(map))
            }
        };
        let mut loss = ops::cross_entropy(logits.clone(), &targets);
        if let Some(weight) = targets.weight() {
            let weight = weight.clone().reshape([n, 1, 1]);
            loss = loss * Tensor::from_inner(weight.clone());
            if self.mean_over == MeanOver::Weights {
                mass = mass * weight;
            }
        }
        // Not below a pixel's share: an all-void batch divides by one instead of by zero.
        let total = mass.sum();
        let total = total.clone().equal_elem(0.0).float() + total;
        loss.sum() / Tensor::from_inner(total)
    }
}

/// A network may have more outputs than the data has classes; those have no label to be weighted.
fn padded(weights: &[f32], classes: usize) -> Vec<f32> {
    let mut weights = weights.to_vec();
    weights.resize(classes, 0.0);
    weights
}

impl Describe for CrossEntropy {
    fn explain(&self) -> String {
        let classes = match &self.class_weights {
            ClassWeights::Uniform => String::new(),
            ClassWeights::Frequency => ", classes weighted by 1 / ln(1.02 + share of pixels)".into(),
            ClassWeights::Given(weights) => format!(", classes weighted by {weights:?}"),
        };
        let Self { view, weight, auxiliary, .. } = self;
        format!(
            "{weight} x mean cross-entropy of '{view}' over valid pixels{classes}, {auxiliary} x that of the auxiliary head"
        )
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.view.clone()]
    }

    fn begin(&mut self, network: &dyn Network, train: &dyn Dataset) -> Result<()> {
        let classes = train.classes().len();
        self.resolved = match &self.class_weights {
            ClassWeights::Uniform => None,
            ClassWeights::Frequency => Some(enet_weights(&class_pixels(train)?)),
            ClassWeights::Given(weights) => Some(weights.clone()),
        };
        match &self.resolved {
            Some(weights) if weights.len() != classes => Err(Error::Setting {
                what: "class weights",
                found: format!("{} numbers", weights.len()),
                expected: format!(
                    "{classes}, one a class of {} (the network has {})",
                    train.name(),
                    network.architecture().classes.len()
                ),
            }),
            _ => Ok(()),
        }
    }
}

impl Term for CrossEntropy {
    fn loss(&mut self, passes: &[Pass], _moment: &Moment<'_>) -> Result<Tensor<1>> {
        let Pass { view, output } = pass(passes, &self.view)?;
        let mut loss = self.mean(&output.logits, &view.batch.targets);
        if let Some(auxiliary) = output.auxiliary.as_ref().filter(|_| self.auxiliary > 0.0) {
            loss = loss + self.mean(auxiliary, &view.batch.targets) * self.auxiliary;
        }
        Ok(loss * self.weight)
    }
}

/// Valid pixels of each class, read from every mask of the data.
fn class_pixels(data: &dyn Dataset) -> Result<Vec<u64>> {
    let mut pixels = vec![0; data.classes().len()];
    for index in 0..data.len() {
        for label in data.get(index)?.mask.data {
            if label != VOID {
                pixels[usize::from(label)] += 1;
            }
        }
    }
    Ok(pixels)
}

fn enet_weights(pixels: &[u64]) -> Vec<f32> {
    let total = pixels.iter().sum::<u64>().max(1) as f64;
    pixels.iter().map(|&count| (1.0 / (1.02 + count as f64 / total).ln()) as f32).collect()
}
