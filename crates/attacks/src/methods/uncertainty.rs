//! Uncertainty-weighted attack: uncertain pixels, which fall first, count more.
//!
//! Maag, Fischer. *Uncertainty-weighted Loss Functions for Improved Adversarial Attacks on Semantic Segmentation*,
//! WACV 2024; weights as in the authors' code.
//!
//! `Σ exp(U) · CE` with an uncertainty `U` in `[0, 1]` of the prediction `p`, constant for the gradient. `p₁ ≥ p₂ ≥ …` are
//! the sorted probabilities:
//!
//! | `measure` | `U` |
//! |---|---|
//! | `entropy` | `−Σ p log p / log K` |
//! | `margin` | `1 − p₁ + p₂` |
//! | `range` | `1 − p₁ + p_K` |
//! | `spread` | `1 − Σ_k (p₁ − p_k) / (K − 1)` |
//! | `skip` | none: weight 1, but 0 on pixels already fooled with `p₁ > 0.75` |
//!
//! Defaults: from the clean image with α = 1/255, as the authors; they take `min(ε + 4, ⌊1.25 ε⌋)` steps for an ε in units
//! of 1/255, which is the default of 10 at ε = 8/255.

use std::str::FromStr;

use burn::tensor::{
    Tensor,
    activation::{log_softmax, softmax},
};

use crate::{
    AttackConfig, Goal, GradientAttack, OptionSpec, Registration, Result, Start, Step,
    objective::{NamedObjective, Objective, PixelWeight, Weighted, classes},
};

/// How sure of its fooled pixels the victim must be for [`Measure::Skip`] to leave them.
const SURE: f32 = 0.75;

/// The weight map.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uncertainty {
    /// What is called uncertain.
    pub measure: Measure,
}

/// What is called uncertain; the formulas are at the top of this file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// Entropy over its maximum.
    #[default]
    Entropy,
    /// The lead of the best class over the second.
    Margin,
    /// The lead of the best class over the last.
    Range,
    /// The mean lead of the best class over the others.
    Spread,
    /// Leaves pixels that are fooled with confidence.
    Skip,
}

impl PixelWeight for Uncertainty {
    fn weights(&self, _step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
        let [n, k, height, width] = logits.dims();
        let p = softmax(logits.clone(), 1);
        let first = p.clone().max_dim(1);
        let others = (k as f32 - 1.0).max(1.0);
        let uncertainty = match self.measure {
            Measure::Entropy => {
                let bits = -(p * log_softmax(logits.clone(), 1)).sum_dim(1);
                bits / (k as f32).ln().max(f32::MIN_POSITIVE)
            }
            Measure::Margin => {
                let rest = p.mask_fill(classes::highest(logits).equal_elem(1.0), 0.0);
                rest.max_dim(1) - first + 1.0
            }
            Measure::Range => p.min_dim(1) - first + 1.0,
            // The probabilities sum to one: Σ (p₁ − p_k) = K p₁ − 1.
            Measure::Spread => (first * k as f32 - 1.0) * (-1.0 / others) + 1.0,
            Measure::Skip => {
                let fooled = goal.targets.valid().clone() - goal.open(logits);
                let sure = first.greater_elem(SURE).float().reshape([n, height, width]);
                return Some(fooled * sure * -1.0 + 1.0);
            }
        };
        Some(uncertainty.exp().reshape([n, height, width]))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

const VALUES: &str = "entropy, margin, range, spread or skip";

impl FromStr for Measure {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "entropy" => Ok(Self::Entropy),
            "margin" => Ok(Self::Margin),
            "range" => Ok(Self::Range),
            "spread" => Ok(Self::Spread),
            "skip" => Ok(Self::Skip),
            _ => Err(VALUES),
        }
    }
}

const OPTIONS: &[OptionSpec] = &[OptionSpec { name: "measure", values: VALUES }];

fn objective(config: &AttackConfig) -> Result<Box<dyn Objective>> {
    let measure = config.option("measure", Measure::default(), VALUES)?;
    Ok(Box::new(Weighted(Uncertainty { measure })))
}

inventory::submit! {
    NamedObjective { name: "uncertainty", options: OPTIONS, build: objective }
}

inventory::submit! {
    Registration {
        name: "uncertainty",
        about: "PGD from the clean image that weighs pixels by their uncertainty",
        paper: "Maag, Fischer, WACV 2024",
        options: OPTIONS,
        defaults: |config| {
            config.start = Start::Zero;
            config.step_size = Some(1.0 / 255.0);
        },
        build: |config| Ok(Box::new(GradientAttack::new(config, objective(config)?)?)),
    }
}
