//! The step of FGSM, BIM and PGD.

use burn::tensor::Tensor;

use super::{Update, UpdateRun, Visit, step_sizes};
use crate::{Result, Scene, Step, Variables, threat::Space};

/// Moves by `step_size` along the direction of steepest ascent in the threat's norm: the gradient's sign (ℓ∞), or the
/// gradient at unit length (ℓ2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steepest {
    /// Length of a step, in the units of the images.
    pub step_size: f32,
}

impl Update for Steepest {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn UpdateRun + 'a>> {
        Ok(Box::new(Run { step_size: step_sizes(scene, self.step_size)? }))
    }

    fn step_size(&self) -> Option<f32> {
        Some(self.step_size)
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

struct Run {
    step_size: Tensor<1>,
}

impl UpdateRun for Run {
    fn advance(&mut self, _step: Step, visit: Visit, space: &dyn Space) -> Variables {
        space.ascend(visit.variables, visit.gradients, &self.step_size)
    }
}
