//! How a step is taken.

mod adam;
mod apgd;
mod momentum;
mod steepest;

use burn::tensor::{Tensor, TensorData};

pub use adam::Adam;
pub use apgd::{Apgd, checkpoints};
pub use momentum::Momentum;
pub use steepest::Steepest;

use crate::{Context, Result, Scene, Step, Variables, threat::Space};

/// A rule that turns gradients into steps.
pub trait Update: Send + Sync {
    /// Begins a run; momenta, step sizes and best iterates live in what is returned.
    ///
    /// # Errors
    /// If step sizes given in the context do not fit the batch.
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn UpdateRun + 'a>>;

    /// The length of a step, where all steps have one length.
    fn step_size(&self) -> Option<f32> {
        None
    }

    /// True if a step depends on how many steps there will be (APGD's checkpoints).
    fn depends_on_total(&self) -> bool {
        true
    }
}

/// An update rule during one run.
pub trait UpdateRun {
    /// The next variables. `space` knows the geometry: steepest directions and projections.
    fn advance(&mut self, step: Step, visit: Visit, space: &dyn Space) -> Variables;
}

/// What is known at the current iterate.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The current variables.
    pub variables: Variables,
    /// Gradient of the summed loss at each of them.
    pub gradients: Variables,
    /// The tracked loss of each image, `[N]`.
    pub loss: Tensor<1>,
}

/// The step size of each sample on the batch's device, `[N]`: the context's, else `own`.
///
/// # Errors
/// If the context's do not fit the batch.
pub fn step_sizes(scene: &Scene, own: f32) -> Result<Tensor<1>> {
    let n = scene.batch.len();
    let values = Context::per_sample("step size", scene.context.step_size, own, n)?;
    Ok(Tensor::from_data(TensorData::new(values, [n]), &scene.batch.images.device()))
}
