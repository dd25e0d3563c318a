//! Losses of whole images that are no weighted cross-entropy: margins, Dice, cosine.

use burn::tensor::Tensor;

use super::{Objective, ObjectiveRun};
use crate::{Goal, Result, Scene, Step};

/// A differentiable loss without memory.
pub trait ImageLoss: Send + Sync {
    /// `logits [N, K, H, W]` on an autodiff graph → loss of each image, `[N]`.
    ///
    /// Put constants on the graph with `Tensor::from_inner`; leave void pixels out.
    fn loss(&self, step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1>;

    /// True if the loss at a step depends on how many steps there will be.
    fn depends_on_total(&self) -> bool {
        true
    }
}

/// The [`Objective`] of an [`ImageLoss`].
#[derive(Clone, Copy, Debug, Default)]
pub struct PerImage<L>(pub L);

impl<L: ImageLoss> Objective for PerImage<L> {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn ObjectiveRun + 'a>> {
        Ok(Box::new(Run { loss: &self.0, goal: scene.goal }))
    }

    fn depends_on_total(&self) -> bool {
        self.0.depends_on_total()
    }
}

struct Run<'a, L> {
    loss: &'a L,
    goal: &'a Goal,
}

impl<L: ImageLoss> ObjectiveRun for Run<'_, L> {
    fn loss(&mut self, step: Step, logits: Tensor<4>) -> Tensor<1> {
        self.loss.loss(step, logits, self.goal)
    }
}
