//! Adversarial logit pairing.
//!
//! Kannan, Kurakin, Goodfellow. *Adversarial Logit Pairing*, 2018. <https://arxiv.org/abs/1803.06373>
//!
//! `λ` times the mean squared distance of the logits of each image and its adversarial one, beside the cross-entropy. `λ = 0.5`
//! (remembered from the paper, not read again). Later attacks broke the published models: as a defense of its own it is history,
//! as a term it is what others are compared with.

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

/// Squared distance of the logits of pairs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alp {
    /// View of the clean images.
    pub clean: String,
    /// View of their adversarial ones.
    pub adversarial: String,
    /// What the mean over pixels and classes is multiplied by.
    pub lambda: f64,
}

impl Default for Alp {
    fn default() -> Self {
        Self { clean: BATCH.into(), adversarial: ADVERSARIAL.into(), lambda: 0.5 }
    }
}

inventory::submit! {
    StageEntry { name: "alp", about: "squared distance of clean and adversarial logits", build: |given| {
        let stage: Alp = parse(given)?;
        positive("lambda", stage.lambda)?;
        Ok(Stage::Term(Box::new(stage)))
    } }
}

impl Describe for Alp {
    fn explain(&self) -> String {
        let Self { clean, adversarial, lambda } = self;
        format!("{lambda} x mean squared distance of the logits of '{adversarial}' from those of '{clean}'")
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

impl Term for Alp {
    fn loss(&mut self, passes: &[Pass], _: &Moment<'_>) -> Result<Tensor<1>> {
        let (pair, targets) = Pair::of(passes, &self.clean, &self.adversarial)?;
        let [n, _, height, width] = pair.clean.dims();
        let distance = (pair.clean - pair.adversarial).square().mean_dim(1).reshape([n, height, width]);
        Ok(mean_over_valid(distance, targets) * self.lambda)
    }
}
