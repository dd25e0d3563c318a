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

use crate::{
    Goal, GradientAttack, OptionSpec, Registration, Step,
    objective::{PixelWeight, Weighted},
};

/// The weight map of CosPGD.
#[derive(Clone, Copy, Debug, Default)]
pub struct CosPgd {
    /// What turns logits into a prediction.
    pub activation: Activation,
}

impl PixelWeight for CosPgd {
    fn weights(&self, _step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
        let [n, k, height, width] = logits.dims();
        let prediction = match self.activation {
            Activation::Softmax => softmax(logits.clone(), 1),
            Activation::Sigmoid => sigmoid(logits.clone()),
        };
        let length = prediction.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
        let aligned = (prediction * goal.targets.one_hot(k)).sum_dim(1);
        let cosine = (aligned / length).reshape([n, height, width]);
        Some(if goal.targeted { cosine * -1.0 + 1.0 } else { cosine })
    }

    fn depends_on_total(&self) -> bool {
        false
    }
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

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "softmax" => Ok(Self::Softmax),
            "sigmoid" => Ok(Self::Sigmoid),
            _ => Err(VALUES),
        }
    }
}

inventory::submit! {
    Registration {
        name: "cospgd",
        about: "PGD that weighs pixels by the cosine of prediction and label",
        paper: "https://arxiv.org/abs/2302.02213",
        options: &[OptionSpec { name: "activation", values: VALUES }],
        defaults: |_| {},
        build: |config| {
            let activation = config.option("activation", Activation::default(), VALUES)?;
            Ok(Box::new(GradientAttack::new(config, Weighted(CosPgd { activation }))?))
        },
    }
}
