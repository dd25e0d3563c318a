//! Dice plus cross-entropy, the loss of nnU-Net.
//!
//! Isensee, Jaeger, Kohl, Petersen, Maier-Hein. *nnU-Net*, Nature Methods 18, 2021.
//! <https://doi.org/10.1038/s41592-020-01008-z>
//!
//! `CE − mean_c (2 I_c + s) / (P_c + G_c + s)` with the sums `I = Σ p t`, `P = Σ p`, `G = Σ t` over pixels and, in 2-D,
//! over the batch. The Dice part is a negative number, so the loss ends near −1.

use burn::tensor::Tensor;
use fireproof_tensor::Targets;
use serde::{Deserialize, Serialize};

use super::CrossEntropy;
use super::region::{Region, filled, not_negative};
use crate::{
    Result,
    stage::{Describe, Moment, Options, Pass, Stage, StageEntry, Term, options, pass},
};

/// Cross-entropy over valid pixels minus the mean soft Dice over classes, at every head of a network with deep
/// supervision. Void pixels are in none of the sums.
///
/// `batch_dice = false` gives each image a loss of its own: IMA and AMAT train with it, since their attack needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiceCe {
    /// What the overlap losses share.
    #[serde(flatten)]
    pub region: Region,
    /// What the cross-entropy counts.
    pub cross_entropy: f64,
    /// What the Dice counts.
    pub dice: f64,
}

impl Default for DiceCe {
    fn default() -> Self {
        Self { region: Region::default(), cross_entropy: 1.0, dice: 1.0 }
    }
}

inventory::submit! {
    StageEntry { name: "dice-ce", about: "Dice plus cross-entropy, as nnU-Net's", build: |given| {
        let stage: DiceCe = filled(given)?;
        stage.region.check()?;
        not_negative("cross_entropy", stage.cross_entropy)?;
        not_negative("dice", stage.dice)?;
        match stage.cross_entropy + stage.dice > 0.0 {
            true => Ok(Stage::Term(Box::new(stage))),
            false => Err("cross_entropy and dice are both zero".into()),
        }
    } }
}

impl DiceCe {
    fn head(&self, logits: &Tensor<4>, targets: &Targets) -> Tensor<1> {
        let sums = self.region.sums(logits, targets);
        let smooth = self.region.smooth;
        let size = sums.predicted.clone() + sums.labels();
        let dice = (sums.both.clone() * 2.0 + smooth) / (size + smooth).clamp_min(1e-8);
        let dice = sums.mean(dice.mean_dim(1)) * self.dice;
        if self.cross_entropy == 0.0 {
            return -dice;
        }
        CrossEntropy::over(self.region.mean_over).mean(logits, targets) * self.cross_entropy - dice
    }
}

impl Describe for DiceCe {
    fn explain(&self) -> String {
        let Self { region, cross_entropy, dice } = self;
        format!("{} x ({cross_entropy} x cross-entropy - {dice} x soft Dice) {}", region.weight, region.explain())
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.region.view.clone()]
    }
}

impl Term for DiceCe {
    fn loss(&mut self, passes: &[Pass], _moment: &Moment<'_>) -> Result<Tensor<1>> {
        let Pass { view, output } = pass(passes, &self.region.view)?;
        Ok(self.region.over_heads(output, &view.batch.targets, |logits, targets| self.head(logits, targets)))
    }
}
