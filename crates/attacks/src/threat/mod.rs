//! What an attacker may change, and how far.

mod pixel_ball;

use burn::tensor::Tensor;
use fireproof_tensor::ops::backward;

pub use pixel_ball::PixelBall;

use crate::{Result, Scene, Start, Variables, start::Seeds};

/// A threat model.
pub trait Threat: Send + Sync {
    /// The threat model around the clean images of a batch.
    ///
    /// # Errors
    /// If radii, mask or start in the context do not fit the batch, or the clean images are not valid.
    fn bind<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn Space + 'a>>;
}

/// The perturbations that a threat model allows for one batch.
pub trait Space {
    /// The variables to begin with.
    ///
    /// # Errors
    /// If given images do not fit the batch.
    fn start(&self, start: Start, seeds: &Seeds) -> Result<Variables>;

    /// The images `[N, C, H, W]` that the variables stand for; differentiable if the variables are on a graph.
    fn apply(&self, variables: &[Tensor<4>]) -> Tensor<4>;

    /// The gradient at the variables, given the one at the images `[N, C, H, W]`; by default autodiff of [`apply`](Space::apply).
    fn pull_back(&self, variables: &[Tensor<4>], gradient: Tensor<4>) -> Variables {
        let leaves: Variables = variables.iter().map(|v| v.clone().autodiff().require_grad()).collect();
        let mut gradients = backward(self.apply(&leaves), gradient);
        let zip = leaves.iter().zip(variables);
        zip.map(|(leaf, v)| leaf.grad_remove(&mut gradients).unwrap_or_else(|| v.zeros_like())).collect()
    }

    /// A step of length `step_size` `[N]` along the steepest direction of `gradients` (or momenta), projected.
    fn ascend(&self, variables: Variables, gradients: Variables, step_size: &Tensor<1>) -> Variables;

    /// The gradients without what may not change (a mask); for updates that measure them before [`ascend`](Space::ascend).
    fn restrict(&self, gradients: Variables) -> Variables {
        gradients
    }

    /// The nearest allowed variables.
    fn project(&self, variables: Variables) -> Variables;

    /// The radius of each sample, `[N]`.
    fn epsilon(&self) -> &Tensor<1>;
}
