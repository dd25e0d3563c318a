//! Tsallis: a family of losses from "confident pixels first" to cross-entropy, walked through during the run.
//!
//! Matyasko et al. *TsallisPGD*, IJCNN 2026. <https://arxiv.org/abs/2605.03405>; formula and schedule as in the authors'
//! code.
//!
//! `(1 − p^{1−q}) / (1 − q)` of the label's probability `p`; `q → 1` is cross-entropy. Against cross-entropy a pixel weighs
//! `p^{1−q}`: with `q = −2` only pixels still held with confidence count, later every pixel. `q` goes linearly from −2
//! towards 1, `q = −2 + 3 t / T` with `t` of `T` steps done. With radius reduction `t` counts through all stages.

use std::str::FromStr;

use burn::tensor::Tensor;

use crate::{
    AttackConfig, GradientAttack, OptionSpec, Registration, Result, Step,
    objective::{LabelLoss, NamedObjective, Objective, OfLabel},
};

/// The Tsallis cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tsallis {
    /// `q` at the first step.
    pub from: f32,
    /// `q` after the last.
    pub to: f32,
}

impl Default for Tsallis {
    fn default() -> Self {
        Self { from: -2.0, to: 1.0 }
    }
}

impl Tsallis {
    /// `q` at a step.
    pub fn q(self, step: Step) -> f32 {
        self.from + (self.to - self.from) * step.fraction()
    }
}

impl LabelLoss for Tsallis {
    fn value(&self, step: Step, entropy: Tensor<3>) -> Tensor<3> {
        let a = 1.0 - self.q(step);
        if a < 1e-6 {
            return entropy;
        }
        // 1 − e^{−ac} without cancellation where ac is small: 2t / (1 + t) with t = tanh(ac / 2).
        let t = (entropy * (0.5 * a)).tanh();
        t.clone() * (2.0 / a) / (t + 1.0)
    }

    fn slope(&self, step: Step, entropy: Tensor<3>) -> Tensor<3> {
        (entropy * (self.q(step) - 1.0)).exp()
    }

    fn depends_on_total(&self) -> bool {
        self.from != self.to
    }
}

const VALUES: &str = "-2..1, another FROM..TO, or a single number; none above 1";

impl FromStr for Tsallis {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let number = |text: &str| text.trim().parse().ok().filter(|q: &f32| q.is_finite() && *q <= 1.0);
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        Ok(Self { from: number(from).ok_or(VALUES)?, to: number(to).ok_or(VALUES)? })
    }
}

const OPTIONS: &[OptionSpec] = &[OptionSpec { name: "q", values: VALUES }];

fn objective(config: &AttackConfig) -> Result<Box<dyn Objective>> {
    Ok(Box::new(OfLabel(config.option("q", Tsallis::default(), VALUES)?)))
}

inventory::submit! {
    NamedObjective { name: "tsallis", options: OPTIONS, build: objective }
}

inventory::submit! {
    Registration {
        name: "tsallis",
        about: "PGD from confident pixels first to plain cross-entropy",
        paper: "https://arxiv.org/abs/2605.03405",
        options: OPTIONS,
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, objective(config)?)?)),
    }
}
