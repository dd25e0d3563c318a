//! Hours and memory of a plan, from a measured step.

use std::time::Instant;

use burn::tensor::Tensor;
use fireproof_datasets::batch;
use fireproof_tensor::{Passes, Precision, host, memory};
use serde::Serialize;

use crate::run::batch_size;
use crate::{Plan, Result};

/// What a plan is expected to cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Images that will go forward; fewer where an attack has nothing left to fool.
    pub forward_passes: u64,
    /// Images whose gradient will be taken, likewise.
    pub backward_passes: u64,
    /// Images that the sanity checks will send forward, at most.
    pub check_forward_passes: u64,
    /// Images whose gradient the sanity checks will take, at most.
    pub check_backward_passes: u64,
    /// Expected wall-clock time with the checks, from one measured step per model and device.
    pub seconds: f64,
    /// The most memory that the process held while measuring; a run needs about as much.
    pub peak_memory_bytes: Option<u64>,
}

impl Plan {
    /// Measures one attack step and one forward pass of each model on each device, on the first images of the plan.
    ///
    /// # Errors
    /// When an image cannot be read or a model fails.
    pub fn estimate(&self, batch_wanted: Option<usize>) -> Result<Estimate> {
        let Passes { forward, backward } = self.passes();
        let mut seconds = 0.0;
        let images = self.own().len() as f64;
        let mut measured: Vec<(usize, (&str, Precision), f64, f64)> = Vec::new();
        for job in &self.jobs {
            let place = (job.device.as_str(), job.precision);
            let (step, pass) = match measured.iter().find(|known| (known.0, known.1) == (job.subject, place)) {
                Some(&(_, _, step, pass)) => (step, pass),
                None => {
                    let (step, pass) = self.measure(job.subject, place, batch_wanted)?;
                    measured.push((job.subject, place, step, pass));
                    (step, pass)
                }
            };
            let alone = (job.passes.forward - job.passes.backward.min(job.passes.forward)) as f64;
            seconds += images * (job.passes.backward as f64 * step + alone * pass);
        }
        let checks = self.check_passes()?;
        let models = measured.len().max(1) as f64;
        for &(.., step, pass) in &measured {
            let alone = checks.forward.saturating_sub(checks.backward) as f64;
            seconds += (checks.backward as f64 * step + alone * pass) / models;
        }
        Ok(Estimate {
            forward_passes: forward,
            backward_passes: backward,
            check_forward_passes: checks.forward,
            check_backward_passes: checks.backward,
            seconds,
            peak_memory_bytes: memory::peak(),
        })
    }

    /// Seconds per image of a forward and backward pass, and of a forward pass.
    fn measure(
        &self,
        subject: usize,
        (device, precision): (&str, Precision),
        wanted: Option<usize>,
    ) -> Result<(f64, f64)> {
        let device = fireproof_tensor::device::open(device)?;
        let subject = &self.subjects[subject];
        let network = subject.load(&device)?;
        let (victim, unit) = (subject.victim(&*network, precision)?, network.architecture().normalisation.unit);
        let first = self.dataset.get(0)?;
        let size = first.image.size();
        let most = batch_size(wanted, &first).min(self.images.len());
        let mut samples = vec![first];
        for position in 1..most {
            samples.push(self.dataset.get(position)?);
        }
        samples.retain(|sample| sample.image.size() == size);
        let images: Tensor<4> = batch(&samples, &device)?.in_unit(unit)?.images;
        let n = samples.len() as f64;
        let time = |action: &mut dyn FnMut() -> Result<Tensor<4>>| -> Result<f64> {
            // The first pass allocates and packs weights; of two more, the faster is the less disturbed.
            host::floats(action()?);
            let mut best = f64::INFINITY;
            for _ in 0..2 {
                let started = Instant::now();
                host::floats(action()?);
                best = best.min(started.elapsed().as_secs_f64());
            }
            Ok(best / n)
        };
        let step = time(&mut || Ok(victim.pull_back(images.clone(), &mut |logits| Ok(logits.ones_like()))?.1))?;
        let pass = time(&mut || Ok(victim.logits(images.clone())?))?;
        Ok((step, pass))
    }
}
