//! Several models, whose probabilities are averaged.

use burn::tensor::{Tensor, activation::softmax};
use fireproof_tensor::{Error, Result, Victim};

use super::adjoint;

/// The mean of the models' softmax; its logarithm is what stands for logits.
///
/// Memory and time are those of one model after the other: two forward passes and one backward pass each.
pub struct Ensemble<V> {
    models: Vec<V>,
}

/// Below the smallest probability that a softmax in `f32` gives before it is zero.
const FLOOR: f32 = 1e-30;

impl<V: Victim> Ensemble<V> {
    /// Joins models of the same classes.
    ///
    /// # Errors
    /// If there are none.
    pub fn new(models: Vec<V>) -> Result<Self> {
        if models.is_empty() {
            return Err(Error::Victim("ensemble: found no model, expected at least one".into()));
        }
        Ok(Self { models })
    }

    fn mean(&self, images: &Tensor<4>) -> Result<Tensor<4>> {
        let mut sum: Option<Tensor<4>> = None;
        for model in &self.models {
            let part = softmax(model.logits(images.clone())?, 1);
            sum = Some(match sum {
                Some(sum) if sum.dims() != part.dims() => {
                    let (found, expected) = (part.dims(), sum.dims());
                    return Err(Error::Victim(format!(
                        "ensemble: found logits {found:?}, expected {expected:?} as of its first model"
                    )));
                }
                Some(sum) => sum + part,
                None => part,
            });
        }
        Ok(sum.expect("there is a model") / self.models.len() as f32)
    }
}

fn log(mean: Tensor<4>) -> Tensor<4> {
    mean.clamp_min(FLOOR).log()
}

impl<V: Victim> Victim for Ensemble<V> {
    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        Ok(log(self.mean(&images)?))
    }

    fn pull_back(
        &self,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let mean = self.mean(&images)?;
        let logits = log(mean.clone());
        let given = adjoint(mean, cotangent(logits.clone())?, log) / self.models.len() as f32;
        let mut sum = images.zeros_like();
        for model in &self.models {
            let (_, gradient) =
                model.pull_back(images.clone(), &mut |z| Ok(adjoint(z, given.clone(), |z| softmax(z, 1))))?;
            sum = sum + gradient;
        }
        Ok((logits, sum))
    }
}
