//! Generalised Dice: a class counts by the inverse of its squared size.
//!
//! Sudre, Li, Vercauteren, Ourselin, Cardoso. *Generalised Dice overlap as a deep learning loss function for highly
//! unbalanced segmentations*, DLMIA 2017. <https://arxiv.org/abs/1707.03237>
//!
//! `1 − (2 Σ_c w_c I_c + s) / (Σ_c w_c (P_c + G_c) + s)` with `w = 1 / G²`: classes are summed before the division. A class
//! that the labels do not have would weigh infinitely; it gets the largest weight among the others, as in MONAI.

use burn::tensor::Tensor;
use fireproof_tensor::Targets;
use serde::{Deserialize, Serialize};

use super::region::{Region, Sums, filled, plain};
use crate::{
    Result,
    stage::{Describe, Moment, Options, Pass, Stage, StageEntry, Term, options, pass},
};

/// Generalised Dice. MONAI's defaults: with the background, every image for itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GeneralisedDice {
    /// What the overlap losses share.
    pub region: Region,
}

impl Default for GeneralisedDice {
    fn default() -> Self {
        Self { region: Region { batch_dice: false, background: true, ..Region::default() } }
    }
}

inventory::submit! {
    StageEntry { name: "generalised-dice", about: "Dice with classes weighted by 1 / size²", build: |given| {
        let stage: GeneralisedDice = filled(given)?;
        stage.region.check()?;
        Ok(Stage::Term(Box::new(stage)))
    } }
}

impl GeneralisedDice {
    fn head(&self, logits: &Tensor<4>, targets: &Targets) -> Tensor<1> {
        let sums = self.region.sums(logits, targets);
        let weights = Tensor::from_inner(weights(&sums));
        let smooth = self.region.smooth;
        let overlap = (sums.both.clone() * weights.clone()).sum_dim(1) * 2.0 + smooth;
        let size = ((sums.predicted.clone() + sums.labels()) * weights).sum_dim(1) + smooth;
        sums.mean(overlap / size * -1.0 + 1.0)
    }
}

fn weights(sums: &Sums) -> Tensor<2> {
    let [_, classes] = sums.labelled.dims();
    let sizes: Vec<f32> = sums.labelled.to_data().convert::<f32>().try_to_vec().expect("floats convert to f32");
    let weigh = |row: &[f32]| {
        let own = |size: f32| if size > 0.0 { 1.0 / (size * size) } else { 0.0 };
        let largest = row.iter().map(|&size| own(size)).fold(0.0, f32::max);
        row.iter().map(|&size| if size > 0.0 { own(size) } else { largest }).collect::<Vec<_>>()
    };
    plain(sizes.chunks(classes).flat_map(weigh).collect(), &sums.labelled)
}

impl Describe for GeneralisedDice {
    fn explain(&self) -> String {
        format!("{} x generalised Dice {}", self.region.weight, self.region.explain())
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.region.view.clone()]
    }
}

impl Term for GeneralisedDice {
    fn loss(&mut self, passes: &[Pass], _moment: &Moment<'_>) -> Result<Tensor<1>> {
        let Pass { view, output } = pass(passes, &self.region.view)?;
        Ok(self.region.over_heads(output, &view.batch.targets, |logits, targets| self.head(logits, targets)))
    }
}
