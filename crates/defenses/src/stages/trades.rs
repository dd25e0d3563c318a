//! TRADES: keep predictions together instead of attacking labels.
//!
//! Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan. *Theoretically Principled Trade-off between Robustness and Accuracy*, ICML 2019.
//! <https://arxiv.org/abs/1901.08573>
//!
//! `β · KL(p(x) ‖ p(x'))` of each pixel, beside the cross-entropy of the clean images, which is a term of its own. Both
//! predictions have gradients. `β = 6`.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    inner_max::ADVERSARIAL,
    pair::{Pair, mean_over_valid, mixed_apart, positive},
};
use crate::{
    Result,
    stage::{BATCH, Describe, Moment, Options, Pass, Stage, StageConfig, StageEntry, Term, options, parse},
};

/// Divergence of the adversarial predictions from the clean ones.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trades {
    /// View of the clean images.
    pub clean: String,
    /// View of their adversarial ones.
    pub adversarial: String,
    /// What the mean divergence is multiplied by.
    pub beta: f64,
}

impl Default for Trades {
    fn default() -> Self {
        Self { clean: BATCH.into(), adversarial: ADVERSARIAL.into(), beta: 6.0 }
    }
}

inventory::submit! {
    StageEntry { name: "trades", about: "divergence of adversarial from clean predictions", build: |given| {
        let stage: Trades = parse(given)?;
        positive("beta", stage.beta)?;
        Ok(Stage::Term(Box::new(stage)))
    } }
}

impl Describe for Trades {
    fn explain(&self) -> String {
        let Self { clean, adversarial, beta } = self;
        format!("{beta} x mean KL divergence of the predictions of '{adversarial}' from those of '{clean}'")
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.clean.clone(), self.adversarial.clone()]
    }

    fn contradiction(&self, earlier: &[StageConfig]) -> Option<String> {
        mixed_apart(earlier, &self.clean, &self.adversarial)
    }
}

impl Term for Trades {
    fn loss(&mut self, passes: &[Pass], _: &Moment<'_>) -> Result<Tensor<1>> {
        let (pair, targets) = Pair::of(passes, &self.clean, &self.adversarial)?;
        Ok(mean_over_valid(pair.divergence(), targets) * self.beta)
    }
}
