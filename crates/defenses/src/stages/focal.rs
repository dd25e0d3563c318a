//! Focal loss: a pixel counts the less the surer it is right.
//!
//! Lin, Goyal, Girshick, He, Dollár. *Focal loss for dense object detection*, ICCV 2017.
//! <https://arxiv.org/abs/1708.02002>
//!
//! `(1 − p_y)^γ · (−log p_y)`, averaged over valid pixels. MONAI averages over classes too, so its value is smaller by
//! their number.

use burn::tensor::Tensor;
use fireproof_tensor::{Targets, ops};
use serde::{Deserialize, Serialize};

use super::region::{Region, not_negative, positive};
use crate::{
    Result,
    stage::{BATCH, Describe, Moment, Options, Pass, Stage, StageEntry, Term, options, parse, pass},
};

/// The focal loss with hard labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Focal {
    /// The view it reads.
    pub view: String,
    /// What the term is multiplied by.
    pub weight: f64,
    /// γ, 2 in the paper; 0 is cross-entropy.
    pub gamma: f64,
    /// Whether coarser heads have the same loss.
    pub deep_supervision: bool,
}

impl Default for Focal {
    fn default() -> Self {
        Self { view: BATCH.into(), weight: 1.0, gamma: 2.0, deep_supervision: true }
    }
}

inventory::submit! {
    StageEntry { name: "focal", about: "cross-entropy that turns from easy pixels", build: |given| {
        let stage: Focal = parse(given)?;
        positive("weight", stage.weight)?;
        not_negative("gamma", stage.gamma)?;
        Ok(Stage::Term(Box::new(stage)))
    } }
}

impl Focal {
    fn head(&self, logits: &Tensor<4>, targets: &Targets) -> Tensor<1> {
        let [n, _, _] = targets.dims();
        let entropy = ops::cross_entropy(logits.clone(), targets);
        // 1 - p without cancellation would be expm1; where p is 1 to rounding the pixel counts nothing anyway. The floor
        // keeps the power's gradient finite there.
        let doubt = (entropy.clone() * -1.0).exp() * -1.0 + 1.0;
        let loss = doubt.clamp_min(1e-7).powf_scalar(self.gamma as f32) * entropy;
        let weight = targets.weight().cloned().unwrap_or_else(|| Tensor::ones([n], &targets.valid().device()));
        let mass = targets.valid().clone() * weight.reshape([n, 1, 1]);
        let total = mass.clone().sum().clamp_min(1e-12);
        (loss * Tensor::from_inner(mass)).sum() / Tensor::from_inner(total)
    }
}

impl Describe for Focal {
    fn explain(&self) -> String {
        let Self { view, weight, gamma, .. } = self;
        format!("{weight} x mean focal loss (gamma {gamma}) of '{view}' over valid pixels")
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.view.clone()]
    }
}

impl Term for Focal {
    fn loss(&mut self, passes: &[Pass], _moment: &Moment<'_>) -> Result<Tensor<1>> {
        let Pass { view, output } = pass(passes, &self.view)?;
        let heads = Region { weight: self.weight, deep_supervision: self.deep_supervision, ..Region::default() };
        Ok(heads.over_heads(output, &view.batch.targets, |logits, targets| self.head(logits, targets)))
    }
}
