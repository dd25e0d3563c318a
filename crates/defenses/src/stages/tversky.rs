//! Tversky: an overlap that prices false alarms and misses apart.
//!
//! Salehi, Erdogmus, Gholipour. *Tversky loss function for image segmentation using 3D fully convolutional deep
//! networks*, MLMI 2017. <https://arxiv.org/abs/1706.05721>
//!
//! `1 − mean_c (I + s) / (I + α FP + β FN + s)`, with `FP = P − I` and `FN = G − I`. With α = β = 0.5 it is Dice; a larger β
//! costs what is overlooked more.

use burn::tensor::Tensor;
use fireproof_tensor::Targets;
use serde::{Deserialize, Serialize};

use super::region::{Region, filled, not_negative};
use crate::{
    Result,
    stage::{Describe, Moment, Options, Pass, Stage, StageEntry, Term, options, pass},
};

/// The Tversky loss. The paper's best setting is α = 0.3, β = 0.7; the default is the neutral one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tversky {
    /// What the overlap losses share.
    #[serde(flatten)]
    pub region: Region,
    /// Price of a false alarm.
    pub alpha: f64,
    /// Price of a miss.
    pub beta: f64,
}

impl Default for Tversky {
    fn default() -> Self {
        Self { region: Region::default(), alpha: 0.5, beta: 0.5 }
    }
}

inventory::submit! {
    StageEntry { name: "tversky", about: "overlap with prices for false alarms and misses", build: |given| {
        let stage: Tversky = filled(given)?;
        stage.region.check()?;
        not_negative("alpha", stage.alpha)?;
        not_negative("beta", stage.beta)?;
        Ok(Stage::Term(Box::new(stage)))
    } }
}

impl Tversky {
    fn head(&self, logits: &Tensor<4>, targets: &Targets) -> Tensor<1> {
        let sums = self.region.sums(logits, targets);
        let smooth = self.region.smooth;
        let alarms = sums.predicted.clone() - sums.both.clone();
        let misses = sums.labels() - sums.both.clone();
        let all = sums.both.clone() + alarms * self.alpha + misses * self.beta + smooth;
        let index = (sums.both.clone() + smooth) / all.clamp_min(1e-8);
        sums.mean(index.mean_dim(1) * -1.0 + 1.0)
    }
}

impl Describe for Tversky {
    fn explain(&self) -> String {
        let Self { region, alpha, beta } = self;
        format!("{} x Tversky loss (false alarms {alpha}, misses {beta}) {}", region.weight, region.explain())
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.region.view.clone()]
    }
}

impl Term for Tversky {
    fn loss(&mut self, passes: &[Pass], _moment: &Moment<'_>) -> Result<Tensor<1>> {
        let Pass { view, output } = pass(passes, &self.region.view)?;
        Ok(self.region.over_heads(output, &view.batch.targets, |logits, targets| self.head(logits, targets)))
    }
}
