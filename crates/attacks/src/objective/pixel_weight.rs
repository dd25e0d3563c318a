//! Losses that weigh the cross-entropy of each pixel: the one-page form of nearly every segmentation attack.

use burn::tensor::Tensor;
use fireproof_tensor::ops::{cross_entropy, weighted_cross_entropy};

use super::{Evaluation, Objective, ObjectiveRun, per_image};
use crate::{Goal, Result, Scene, Step};

/// A weight for every pixel, recomputed from the current logits at every step.
///
/// The loss of an image is `Σ weight · cross-entropy` over its valid pixels, with the weights constant for the gradient.
pub trait PixelWeight: Send + Sync {
    /// `logits [N, K, H, W]` → weights `[N, H, W]`, or `None` for one everywhere. Void pixels are masked afterwards.
    fn weights(&self, step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>>;

    /// True if the weights at a step depend on how many steps there will be.
    fn depends_on_total(&self) -> bool {
        true
    }
}

/// The [`Objective`] of a [`PixelWeight`]. Its tracked loss is the plain cross-entropy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weighted<W>(pub W);

impl<W: PixelWeight> Objective for Weighted<W> {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn ObjectiveRun + 'a>> {
        let goal = scene.goal;
        Ok(weighted_by(goal, |step, logits| self.0.weights(step, logits, goal)))
    }

    fn depends_on_total(&self) -> bool {
        self.0.depends_on_total()
    }
}

/// The run of an objective whose weight map needs a memory: what a [`PixelWeight`] would compute, as a closure that may
/// keep what [`Objective::begin`] found out or what earlier steps have shown.
pub fn weighted_by<'a>(
    goal: &'a Goal,
    weigh: impl FnMut(Step, &Tensor<4>) -> Option<Tensor<3>> + 'a,
) -> Box<dyn ObjectiveRun + 'a> {
    Box::new(Run { weigh, goal })
}

struct Run<'a, F> {
    weigh: F,
    goal: &'a Goal,
}

impl<F: FnMut(Step, &Tensor<4>) -> Option<Tensor<3>>> ObjectiveRun for Run<'_, F> {
    fn loss(&mut self, step: Step, logits: Tensor<4>) -> Tensor<1> {
        let weights = (self.weigh)(step, &logits.clone().inner());
        let loss = cross_entropy(logits, &self.goal.targets);
        per_image(match weights {
            Some(weights) => loss * Tensor::from_inner(weights),
            None => loss,
        })
    }

    fn evaluate(&mut self, step: Step, logits: &Tensor<4>) -> Evaluation {
        let weights = (self.weigh)(step, logits);
        let entropy = weighted_cross_entropy(logits, &self.goal.targets, weights.as_ref());
        Evaluation { loss: entropy.loss, tracked: entropy.plain, cotangent: entropy.gradient }
    }
}
