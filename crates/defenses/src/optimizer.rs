//! Optimizers with PyTorch's conventions, on top of burn-optim.

use burn::optim::{AdamWConfig, ModuleOptimizer, SgdConfig, decay::WeightDecayConfig, momentum::MomentumConfig};
use fireproof_models::LearningRates;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The rule by which gradients become updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Method {
    /// `v ← momentum · v + g + decay · w`, `w ← w − rate · v`, without dampening (Burn's default has 0.1).
    Sgd {
        /// Momentum, 0.9 in segmentation.
        momentum: f64,
    },
    /// Adam with decoupled weight decay; its ε is PyTorch's `1e-8`.
    AdamW {
        /// Decay rates of the first and the second moment, usually 0.9 and 0.999.
        betas: [f64; 2],
    },
}

/// Optimizer, rates and decay.
///
/// The default is the setting of DDC-AT, which the SegPGD paper trains with: SGD with momentum 0.9, weight decay 1e-4,
/// rate 0.01, ten times as much in the head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The rule.
    pub method: Method,
    /// Rate of the backbone at the first step.
    pub learning_rate: f64,
    /// What the head's rate is multiplied by.
    pub head_factor: f64,
    /// Weight decay, on every parameter as in PyTorch.
    pub weight_decay: f64,
    /// Nesterov's momentum: `w ← w − rate · (g + momentum · v)`; SGD only.
    pub nesterov: bool,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            method: Method::Sgd { momentum: 0.9 },
            learning_rate: 0.01,
            head_factor: 10.0,
            weight_decay: 1e-4,
            nesterov: false,
        }
    }
}

impl OptimizerConfig {
    /// Refuses rates and decays that cannot train.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first one.
    pub fn check(&self) -> Result<()> {
        let setting = |what, found: f64, expected: &str, good: bool| match good && found.is_finite() {
            true => Ok(()),
            false => Err(Error::Setting { what, found: found.to_string(), expected: expected.into() }),
        };
        setting("learning rate", self.learning_rate, "a positive number", self.learning_rate > 0.0)?;
        setting("head factor", self.head_factor, "a positive number", self.head_factor > 0.0)?;
        setting("weight decay", self.weight_decay, "zero or more", self.weight_decay >= 0.0)?;
        let below_one = |value: f64| (0.0..1.0).contains(&value);
        match self.method {
            Method::Sgd { momentum } => setting("momentum", momentum, "from 0 to below 1", below_one(momentum)),
            Method::AdamW { betas } => {
                betas.iter().try_for_each(|&beta| setting("beta", beta, "from 0 to below 1", below_one(beta)))
            }
        }
    }

    /// The optimizer, without state.
    pub fn build(&self) -> ModuleOptimizer {
        match self.method {
            Method::Sgd { momentum } => {
                let momentum = MomentumConfig { momentum, dampening: 0.0, nesterov: self.nesterov };
                let decay =
                    (self.weight_decay > 0.0).then_some(WeightDecayConfig { penalty: self.weight_decay as f32 });
                SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(decay).init()
            }
            Method::AdamW { betas: [first, second] } => AdamWConfig::new()
                .with_beta_1(first as f32)
                .with_beta_2(second as f32)
                .with_epsilon(1e-8)
                .with_weight_decay(self.weight_decay as f32)
                .init(),
        }
    }

    /// The rates of both parameter groups when the schedule stands at `factor`.
    pub fn rates(&self, factor: f64) -> LearningRates {
        let backbone = self.learning_rate * factor;
        LearningRates { backbone, head: backbone * self.head_factor }
    }
}

impl std::fmt::Display for OptimizerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.method {
            Method::Sgd { momentum } if self.nesterov => write!(f, "SGD with Nesterov's momentum {momentum}")?,
            Method::Sgd { momentum } => write!(f, "SGD with momentum {momentum}")?,
            Method::AdamW { betas: [first, second] } => write!(f, "AdamW with betas {first}, {second}")?,
        }
        let Self { learning_rate, head_factor, weight_decay, .. } = self;
        write!(f, ", rate {learning_rate} ({head_factor}x in the head), weight decay {weight_decay}")
    }
}
