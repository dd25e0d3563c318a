//! SegPGD: weight pixels that are still classified correctly against those already fooled.
//!
//! Gu, Zhao, Tresp, Torr. *SegPGD: An Effective and Efficient Adversarial Attack for Evaluating and Boosting
//! Segmentation Robustness*, ECCV 2022. <https://arxiv.org/abs/2207.12391>, Algorithm 1.
//!
//! At step `t` of `T` the cross-entropy of a pixel counts `1 − λ` while it is correct and `λ` once it is wrong,
//! `λ = t / 2T`: first every effort goes into flipping pixels, later into keeping them flipped. A targeted run swaps the
//! two: pixels that do not show the target yet count `1 − λ`.
//!
//! Defaults: ε = 8/255 (the paper: 0.03), α = 0.01, random start, last iterate. Take the best iterate to evaluate.

use std::str::FromStr;

use burn::tensor::Tensor;

use crate::{
    AttackConfig, Goal, GradientAttack, OptionSpec, Registration, Result, Step,
    objective::{NamedObjective, Objective, PixelWeight, Weighted},
};

/// The weight map of SegPGD.
#[derive(Clone, Copy, Debug, Default)]
pub struct SegPgd {
    /// How λ grows.
    pub schedule: LambdaSchedule,
}

impl PixelWeight for SegPgd {
    fn weights(&self, step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
        let lambda = self.schedule.at(step);
        Some(goal.open(logits) * (1.0 - 2.0 * lambda) + lambda)
    }

    fn depends_on_total(&self) -> bool {
        !matches!(self.schedule, LambdaSchedule::Fixed(_))
    }
}

/// λ along a run, with `s = t / T` for `t` steps done: 0 at the first step, below ½ at the last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum LambdaSchedule {
    /// `s / 2`.
    #[default]
    Linear,
    /// `(2^s − 1) / 2`.
    Exponential,
    /// `log2(1 + s) / 2`.
    Logarithmic,
    /// The same at every step.
    Fixed(f32),
}

impl LambdaSchedule {
    /// λ at a step.
    pub fn at(self, step: Step) -> f32 {
        let s = step.fraction();
        match self {
            Self::Linear => 0.5 * s,
            Self::Exponential => 0.5 * (s.exp2() - 1.0),
            Self::Logarithmic => 0.5 * s.ln_1p() / std::f32::consts::LN_2,
            Self::Fixed(lambda) => lambda,
        }
    }
}

const VALUES: &str = "linear, exponential, logarithmic or a number in 0..=1";

impl FromStr for LambdaSchedule {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "linear" => Ok(Self::Linear),
            "exponential" => Ok(Self::Exponential),
            "logarithmic" => Ok(Self::Logarithmic),
            number => number.parse().ok().filter(|l| (0.0..=1.0).contains(l)).map(Self::Fixed).ok_or(VALUES),
        }
    }
}

const OPTIONS: &[OptionSpec] = &[OptionSpec { name: "lambda", values: VALUES }];

fn objective(config: &AttackConfig) -> Result<Box<dyn Objective>> {
    let schedule = config.option("lambda", LambdaSchedule::default(), VALUES)?;
    Ok(Box::new(Weighted(SegPgd { schedule })))
}

inventory::submit! {
    NamedObjective { name: "segpgd", options: OPTIONS, build: objective }
}

inventory::submit! {
    Registration {
        name: "segpgd",
        about: "PGD that first flips correct pixels, then keeps them flipped",
        paper: "https://arxiv.org/abs/2207.12391",
        options: OPTIONS,
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, objective(config)?)?)),
    }
}
