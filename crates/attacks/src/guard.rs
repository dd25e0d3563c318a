//! Stops an attack whose loss or gradient is not finite.

use burn::tensor::Tensor;
use fireproof_tensor::ops::image_sums;

use crate::{Error, Result, Scene, Step, host::several};

/// Watches losses and gradients without making every step wait for the host.
///
/// A sum is finite exactly if all of its terms are (short of gradients beyond 1e30), so one number an image and step
/// is kept on the device. All are read together, after [`FIRST`] steps and again whenever their number has doubled: late,
/// but naming the right step, and at most as much work is lost as was done before.
pub(crate) struct Guard<'a> {
    attack: &'a str,
    scene: Scene<'a>,
    pending: Vec<(Step, Tensor<1>, Tensor<1>)>,
    /// Steps read so far.
    read: usize,
}

const FIRST: usize = 10;

impl<'a> Guard<'a> {
    pub(crate) fn new(attack: &'a str, scene: Scene<'a>) -> Self {
        Self { attack, scene, pending: Vec::with_capacity(FIRST), read: 0 }
    }

    /// Notes the loss `[N]` and the gradient `[N, C, H, W]` of a step.
    pub(crate) fn check(&mut self, step: Step, loss: &Tensor<1>, gradient: &Tensor<4>) -> Result<()> {
        self.pending.push((step, loss.clone(), image_sums(gradient.clone())));
        if self.pending.len() < self.read.max(FIRST) { Ok(()) } else { self.read() }
    }

    /// Reads what is pending.
    pub(crate) fn read(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.read += self.pending.len();
        let pending = std::mem::take(&mut self.pending);
        let device = format!("{:?}", self.scene.batch.images.device());
        let values = several(pending.iter().flat_map(|(_, loss, gradient)| [loss.clone(), gradient.clone()]));
        for ((step, ..), values) in pending.iter().zip(values.chunks(2)) {
            for (what, values) in ["the loss", "the gradient"].into_iter().zip(values) {
                if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                    return Err(Error::NotFinite {
                        attack: self.attack.to_string(),
                        what,
                        sample: self.scene.batch.ids[i],
                        step: step.index,
                        steps: step.total,
                        device,
                    });
                }
            }
        }
        Ok(())
    }
}
