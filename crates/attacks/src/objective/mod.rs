//! What an attack maximises.

pub(crate) mod classes;
mod image_loss;
mod label_loss;
pub(crate) mod named;
mod pixel_weight;

use burn::tensor::Tensor;
use fireproof_tensor::ops::image_sums;

pub use image_loss::{ImageLoss, PerImage};
pub use label_loss::{LabelLoss, OfLabel};
pub use named::{NamedObjective, chosen};
pub use pixel_weight::{PixelWeight, Weighted, weighted_by};

use crate::{Result, Scene, Step};

/// A loss of the logits. Most objectives are a [`PixelWeight`], a [`LabelLoss`] or an [`ImageLoss`]; this is for those with
/// a memory.
pub trait Objective: Send + Sync {
    /// Begins a run; sticky regions, moving averages and clean predictions live in what is returned.
    ///
    /// # Errors
    /// If the objective does not suit the batch.
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn ObjectiveRun + 'a>>;

    /// True if the loss at a step depends on how many steps there will be (SegPGD's λ).
    fn depends_on_total(&self) -> bool {
        true
    }
}

impl Objective for Box<dyn Objective> {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn ObjectiveRun + 'a>> {
        (**self).begin(scene)
    }

    fn depends_on_total(&self) -> bool {
        (**self).depends_on_total()
    }
}

/// An objective during one run. Targeted runs minimise the same loss; the loop turns the sign.
pub trait ObjectiveRun {
    /// The loss of each image, `[N, K, H, W]` → `[N]`, differentiable in the logits.
    ///
    /// Sum over the pixels of an image, never over the batch; void pixels must not contribute.
    fn loss(&mut self, step: Step, logits: Tensor<4>) -> Tensor<1>;

    /// The loss by which iterates are compared (APGD, [`Iterate::BestLoss`](crate::Iterate::BestLoss)), `[N]`, where
    /// it is not the attacked one: a masked loss falls as pixels leave the mask.
    fn tracked(&mut self, _step: Step, _logits: &Tensor<4>) -> Option<Tensor<1>> {
        None
    }

    /// Loss and gradient at plain logits; by default through autodiff of [`loss`](ObjectiveRun::loss).
    fn evaluate(&mut self, step: Step, logits: &Tensor<4>) -> Evaluation {
        let leaf = logits.clone().autodiff().require_grad();
        let loss = self.loss(step, leaf.clone());
        let plain = loss.clone().inner();
        let mut gradients = loss.sum().backward();
        let cotangent = leaf.grad_remove(&mut gradients).unwrap_or_else(|| logits.zeros_like());
        Evaluation { tracked: self.tracked(step, logits).unwrap_or_else(|| plain.clone()), loss: plain, cotangent }
    }
}

/// An objective at one iterate, all plain tensors.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The attacked loss of each image, `[N]`.
    pub loss: Tensor<1>,
    /// The loss by which iterates are compared, `[N]`.
    pub tracked: Tensor<1>,
    /// Gradient of the summed attacked loss at the logits, `[N, K, H, W]`.
    pub cotangent: Tensor<4>,
}

impl Evaluation {
    /// The evaluation of the negated loss.
    pub(crate) fn negated(self) -> Self {
        Self { loss: -self.loss, tracked: -self.tracked, cotangent: -self.cotangent }
    }
}

/// `[N, H, W]` summed over the pixels, `[N]`.
pub(crate) fn per_image(pixels: Tensor<3>) -> Tensor<1> {
    image_sums(pixels)
}
