//! Losses that see nothing of a pixel but the probability of its label: Jensen–Shannon, Tsallis.

use burn::tensor::Tensor;
use fireproof_tensor::ops::{cross_entropy, weighted_cross_entropy};

use super::{Evaluation, Objective, ObjectiveRun, per_image};
use crate::{Goal, Result, Scene, Step};

/// A loss of each pixel's cross-entropy `c = −log p_y`, and with it of the label's probability.
///
/// Since it is a function of `c` alone, its gradient at the logits is that of the cross-entropy times the slope `dL/dc`:
/// such a loss is a weight map too, but its value is not the weighted cross-entropy. Cross-entropy comes from
/// `log_softmax`, so nothing is lost where the probability underflows. Both functions must be finite for every `c ≥ 0`,
/// and the value zero at `c = 0`.
pub trait LabelLoss: Send + Sync {
    /// `c` `[N, H, W]` → the loss of each pixel, `[N, H, W]`.
    fn value(&self, step: Step, entropy: Tensor<3>) -> Tensor<3>;

    /// `c` `[N, H, W]` → its derivative `dL/dc`, `[N, H, W]`: what a pixel weighs against plain cross-entropy.
    fn slope(&self, step: Step, entropy: Tensor<3>) -> Tensor<3>;

    /// True if the loss at a step depends on how many steps there will be.
    fn depends_on_total(&self) -> bool {
        true
    }
}

/// The [`Objective`] of a [`LabelLoss`]. Its tracked loss is the plain cross-entropy.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfLabel<L>(pub L);

impl<L: LabelLoss> Objective for OfLabel<L> {
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

impl<L: LabelLoss> ObjectiveRun for Run<'_, L> {
    fn loss(&mut self, step: Step, logits: Tensor<4>) -> Tensor<1> {
        let entropy = cross_entropy(logits, &self.goal.targets);
        let valid = Tensor::from_inner(self.goal.targets.valid().clone());
        per_image(self.loss.value(step, entropy) * valid)
    }

    fn evaluate(&mut self, step: Step, logits: &Tensor<4>) -> Evaluation {
        let targets = &self.goal.targets;
        let entropy = cross_entropy(logits.clone(), targets);
        let slope = self.loss.slope(step, entropy.clone());
        let loss = per_image(self.loss.value(step, entropy) * targets.valid().clone());
        let weighted = weighted_cross_entropy(logits, targets, Some(&slope));
        Evaluation { loss, tracked: weighted.plain, cotangent: weighted.gradient }
    }
}
