//! The step of MI-FGSM.

use burn::tensor::Tensor;

use super::{Update, UpdateRun, Visit, step_sizes};
use crate::{Result, Scene, Step, Variables, threat::Space};

/// Steepest ascent along a decaying sum of gradients, each divided by its mean magnitude.
///
/// Dong, Liao, Pang, Su, Zhu, Hu, Li. *Boosting Adversarial Attacks with Momentum*, CVPR 2018.
/// <https://arxiv.org/abs/1710.06081>
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    /// Length of a step, in the units of the images.
    pub step_size: f32,
    /// What remains of the sum at each step, `μ`; the paper takes 1.
    pub decay: f32,
}

impl Update for Momentum {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn UpdateRun + 'a>> {
        Ok(Box::new(Run { decay: self.decay, step_size: step_sizes(scene, self.step_size)?, sums: Vec::new() }))
    }

    fn step_size(&self) -> Option<f32> {
        Some(self.step_size)
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

struct Run {
    decay: f32,
    step_size: Tensor<1>,
    sums: Variables,
}

impl UpdateRun for Run {
    fn advance(&mut self, _step: Step, visit: Visit, space: &dyn Space) -> Variables {
        let unit = visit.gradients.into_iter().map(|g| {
            let [n, c, h, w] = g.dims();
            let magnitude = g.clone().abs().reshape([n, c * h * w]).mean_dim(1).clamp_min(1e-12);
            g / magnitude.reshape([n, 1, 1, 1])
        });
        let before = std::mem::take(&mut self.sums);
        self.sums = match before.is_empty() {
            true => unit.collect(),
            false => before.into_iter().zip(unit).map(|(sum, g)| sum * self.decay + g).collect(),
        };
        space.ascend(visit.variables, self.sums.clone(), &self.step_size)
    }
}
