//! Steps of Adam, as an attack takes them.

use burn::tensor::Tensor;

use super::{Update, UpdateRun, Visit, step_sizes};
use crate::{Result, Scene, Step, Variables, threat::Space};

/// Adam with AMSGrad on the variables, then the projection.
///
/// Reddi, Kale, Kumar. *On the Convergence of Adam and Beyond*, ICLR 2018. <https://arxiv.org/abs/1904.09237>
///
/// Every value has a step of its own: the mean gradient over the root of the largest mean square so far, both corrected
/// for their start at zero. Decays 0.9 and 0.999, floor 1e-8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Length of a value's first step, in the units of the images.
    pub step_size: f32,
    /// Steps after which a step has a tenth of its length, if any.
    pub drop_after: Option<usize>,
}

const MEAN: f32 = 0.9;
const SQUARE: f32 = 0.999;
const FLOOR: f32 = 1e-8;

impl Update for Adam {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn UpdateRun + 'a>> {
        let step_size = step_sizes(scene, self.step_size)?;
        Ok(Box::new(Run { step_size, drop_after: self.drop_after, moments: Vec::new() }))
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
    drop_after: Option<usize>,
    moments: Vec<Moments>,
}

struct Moments {
    mean: Tensor<4>,
    square: Tensor<4>,
    largest: Tensor<4>,
}

impl UpdateRun for Run {
    fn advance(&mut self, step: Step, visit: Visit, space: &dyn Space) -> Variables {
        if self.moments.is_empty() {
            let zero =
                |g: &Tensor<4>| Moments { mean: g.zeros_like(), square: g.zeros_like(), largest: g.zeros_like() };
            self.moments = visit.gradients.iter().map(zero).collect();
        }
        let count = step.index as i32 + 1;
        let (mean_bias, square_bias) = (1.0 - MEAN.powi(count), 1.0 - SQUARE.powi(count));
        let share = if self.drop_after.is_some_and(|steps| step.index >= steps) { 0.1 } else { 1.0 };
        let length = self.step_size.clone().reshape([-1, 1, 1, 1]) * (share / mean_bias);
        let moved = visit.variables.into_iter().zip(visit.gradients).zip(&mut self.moments).map(|((x, g), m)| {
            m.mean = m.mean.clone() * MEAN + g.clone() * (1.0 - MEAN);
            m.square = m.square.clone() * SQUARE + g.square() * (1.0 - SQUARE);
            m.largest = m.largest.clone().max_pair(m.square.clone());
            let scale = (m.largest.clone() / square_bias).sqrt() + FLOOR;
            x + m.mean.clone() / scale * length.clone()
        });
        let moved = moved.collect();
        space.project(moved)
    }
}
