//! MART: care more for what the network gets wrong already.
//!
//! Wang, Zou, Yi, Bailey, Ma, Gu. *Improving Adversarial Robustness Requires Revisiting Misclassified Examples*, ICLR 2020.
//! <https://openreview.net/forum?id=rklOg6EFwS>
//!
//! `BCE(p(x'), y) + λ · KL(p(x) ‖ p(x')) · (1 − p_y(x))` of each pixel, with
//! `BCE = −log p_y(x') − log(1 − max_{k ≠ y} p_k(x'))`. It is the whole loss: there is no cross-entropy of clean images. `λ = 5`
//! (remembered from the released code, not read again).

use burn::tensor::{Tensor, activation::log_softmax};
use serde::{Deserialize, Serialize};

use super::{
    inner_max::ADVERSARIAL,
    pair::{Pair, mean_over_valid, mixed_apart, positive},
};
use crate::{
    Error, Result,
    stage::{BATCH, Describe, Moment, Options, Pass, Stage, StageConfig, StageEntry, Term, options, parse},
};

/// Boosted cross-entropy, and a divergence weighted by what the clean prediction lacks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mart {
    /// View of the clean images.
    pub clean: String,
    /// View of their adversarial ones.
    pub adversarial: String,
    /// What the divergence is multiplied by.
    pub lambda: f64,
}

impl Default for Mart {
    fn default() -> Self {
        Self { clean: BATCH.into(), adversarial: ADVERSARIAL.into(), lambda: 5.0 }
    }
}

inventory::submit! {
    StageEntry { name: "mart", about: "boosted cross-entropy and weighted divergence", build: |given| {
        let stage: Mart = parse(given)?;
        positive("lambda", stage.lambda)?;
        Ok(Stage::Term(Box::new(stage)))
    } }
}

impl Describe for Mart {
    fn explain(&self) -> String {
        let Self { clean, adversarial, lambda } = self;
        format!(
            "boosted cross-entropy of '{adversarial}', {lambda} x its divergence from '{clean}' weighted by 1 - p of the label"
        )
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.clean.clone(), self.adversarial.clone()]
    }

    fn contradiction(&self, earlier: &[StageConfig]) -> Option<String> {
        let soft = ["mixup", "random-mix", "manifold-mixup", "out-of-distribution"];
        let stage = earlier.iter().find(|stage| soft.contains(&stage.stage.as_str()));
        let softened = stage.map(|stage| {
            format!("it weighs by the probability of the label, and the targets of '{}' have no one label", stage.stage)
        });
        softened.or_else(|| mixed_apart(earlier, &self.clean, &self.adversarial))
    }
}

impl Term for Mart {
    fn loss(&mut self, passes: &[Pass], _: &Moment<'_>) -> Result<Tensor<1>> {
        let (pair, targets) = Pair::of(passes, &self.clean, &self.adversarial)?;
        if targets.soft().is_some() {
            return Err(Error::Setting {
                what: "targets of 'mart'",
                found: "a soft label map".into(),
                expected: "one label a pixel".into(),
            });
        }
        let [n, classes, height, width] = pair.clean.dims();
        let label = Tensor::from_inner(targets.one_hot(classes));
        let log_q = log_softmax(pair.adversarial.clone(), 1);
        let sum = |x: Tensor<4>| x.sum_dim(1).reshape([n, height, width]);
        let entropy = -sum(log_q.clone() * label.clone());
        // The label's own probability out of the way, the largest of the others remains.
        let others = log_q.exp() * (label.clone() * -1.0 + 1.0);
        let rival = others.max_dim(1).reshape([n, height, width]);
        // Away from zero, as the released code does by adding 1e-4: where a rival has everything, the slope stays finite.
        let boost = -((rival * -1.0 + 1.0001).log());
        let lacking = sum(log_softmax(pair.clean.clone(), 1).exp() * label) * -1.0 + 1.0;
        let loss = entropy + boost + pair.divergence() * lacking * self.lambda;
        Ok(mean_over_valid(loss, targets))
    }
}
