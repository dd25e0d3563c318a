//! Stops an attack whose loss or gradient is not finite.

use burn::tensor::Tensor;

use crate::{Error, Result, Scene, Step, host::floats};

/// Watches losses and gradients without making every step wait for the host.
///
/// A sum is finite exactly if all of its terms are (short of gradients beyond 1e30), so one number an image and step
/// is kept on the device and read every [`PERIOD`] steps: late by a few steps, but naming the right one.
pub(crate) struct Guard<'a> {
    attack: &'a str,
    scene: Scene<'a>,
    pending: Vec<(Step, Tensor<1>, Tensor<1>)>,
}

const PERIOD: usize = 10;

impl<'a> Guard<'a> {
    pub(crate) fn new(attack: &'a str, scene: Scene<'a>) -> Self {
        Self { attack, scene, pending: Vec::with_capacity(PERIOD) }
    }

    /// Notes the loss `[N]` and the gradient `[N, C, H, W]` of a step.
    pub(crate) fn check(&mut self, step: Step, loss: &Tensor<1>, gradient: &Tensor<4>) -> Result<()> {
        let [n, c, h, w] = gradient.dims();
        self.pending.push((step, loss.clone(), gradient.clone().reshape([n, c * h * w]).sum_dim(1).reshape([n])));
        if self.pending.len() < PERIOD { Ok(()) } else { self.read() }
    }

    /// Reads what is pending.
    pub(crate) fn read(&mut self) -> Result<()> {
        for (step, loss, gradient) in self.pending.drain(..) {
            for (what, values) in [("the loss", loss), ("the gradient", gradient)] {
                let device = values.device();
                let values = floats(values);
                if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                    return Err(Error::NotFinite {
                        attack: self.attack.to_string(),
                        what,
                        sample: self.scene.batch.ids[i],
                        step: step.index,
                        steps: step.total,
                        device: format!("{device:?}"),
                    });
                }
            }
        }
        Ok(())
    }
}
