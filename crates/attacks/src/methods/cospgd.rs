//! CosPGD: weight each pixel by how well its prediction aligns with the label.
//!
//! Agnihotri, Jung, Keuper. *CosPGD: an efficient white-box adversarial attack for pixel-wise prediction tasks*,
//! ICML 2024. <https://arxiv.org/abs/2302.02213>
//!
//! The weight is the cosine of the prediction `ψ(z)` and the one-hot label, `ψ(z)_y / ‖ψ(z)‖₂`: smooth where SegPGD's
//! is a step, and the same whatever the number of steps. A targeted run weighs `1 − cos` with the target. The weight
//! is held constant for the gradient, as in the authors' code.
//!
//! Defaults: ψ = softmax (sigmoid is weaker), ε = 8/255 (the paper: 0.03), α = 0.01, random start, last iterate.
//! For ℓ2 the paper takes ε = 64/255 or 128/255 with α = 0.1 or 0.2.

use std::str::FromStr;

use burn::tensor::{
    Tensor,
    activation::{sigmoid, softmax},
};
use fireproof_tensor::ops;

use crate::{
    AttackConfig, Goal, GradientAttack, OptionSpec, Registration, Result, Step,
    objective::{NamedObjective, Objective, PixelWeight, Weighted},
};

/// The weight map of CosPGD.
#[derive(Clone, Copy, Debug, Default)]
pub struct CosPgd {
    /// What turns logits into a prediction.
    pub activation: Activation,
}

impl PixelWeight for CosPgd {
    fn weights(&self, _step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
        let cosine = match (self.activation, goal.targets.soft()) {
            (Activation::Softmax, None) => ops::cosine(logits, &goal.targets),
            (Activation::Softmax, Some(soft)) => cosine(softmax(logits.clone(), 1), soft.clone()),
            (Activation::Sigmoid, Some(soft)) => cosine(sigmoid(logits.clone()), soft.clone()),
            (Activation::Sigmoid, None) => cosine(sigmoid(logits.clone()), goal.targets.one_hot(logits.dims()[1])),
        };
        Some(if goal.targeted { cosine * -1.0 + 1.0 } else { cosine })
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

/// The cosine over the class axis, `[N, K, H, W]` twice → `[N, H, W]`; 0 where one of them is zero (void pixels).
fn cosine(prediction: Tensor<4>, label: Tensor<4>) -> Tensor<3> {
    let [n, _, height, width] = label.dims();
    let length = |x: &Tensor<4>| x.clone().square().sum_dim(1).sqrt();
    let lengths = (length(&prediction) * length(&label)).clamp_min(1e-12);
    ((prediction * label).sum_dim(1) / lengths).reshape([n, height, width])
}

/// The function ψ from logits to a prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Over the classes; the paper's choice.
    #[default]
    Softmax,
    /// Of each class by itself.
    Sigmoid,
}

const VALUES: &str = "softmax or sigmoid";

impl FromStr for Activation {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "softmax" => Ok(Self::Softmax),
            "sigmoid" => Ok(Self::Sigmoid),
            _ => Err(VALUES),
        }
    }
}

const OPTIONS: &[OptionSpec] = &[OptionSpec { name: "activation", values: VALUES }];

fn objective(config: &AttackConfig) -> Result<Box<dyn Objective>> {
    let activation = config.option("activation", Activation::default(), VALUES)?;
    Ok(Box::new(Weighted(CosPgd { activation })))
}

inventory::submit! {
    NamedObjective { name: "cospgd", options: OPTIONS, build: objective }
}

inventory::submit! {
    Registration {
        name: "cospgd",
        about: "PGD that weighs pixels by the cosine of prediction and label",
        paper: "https://arxiv.org/abs/2302.02213",
        options: OPTIONS,
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, objective(config)?)?)),
    }
}
