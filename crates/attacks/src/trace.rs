//! Loss and accuracy along a run.

use burn::tensor::Tensor;
use fireproof_tensor::{Targets, host::several, ops::image_sums};

/// One row a forward pass, in the order they were made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// The rows.
    pub rows: Vec<TraceRow>,
}

/// Every image's state at one forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceRow {
    /// Which restart, from 0.
    pub restart: usize,
    /// Steps done before this pass.
    pub step: usize,
    /// The loss that the attack ascends, one an image.
    pub loss: Vec<f32>,
    /// Share of valid pixels classified as the true labels say, one an image.
    pub accuracy: Vec<f32>,
}

/// Rows still on the device, so that recording makes no step wait for the host.
#[derive(Default)]
pub(crate) struct Recorder {
    rows: Vec<(usize, usize, Tensor<1>, Tensor<1>)>,
}

impl Recorder {
    pub(crate) fn record(
        &mut self,
        restart: usize,
        step: usize,
        loss: &Tensor<1>,
        logits: &Tensor<4>,
        labels: &Targets,
    ) {
        let accuracy = image_sums(labels.correct(logits)) / labels.valid_pixels().clamp_min(1.0);
        self.rows.push((restart, step, loss.clone(), accuracy));
    }

    pub(crate) fn finish(self) -> Trace {
        let values = several(self.rows.iter().flat_map(|(_, _, loss, accuracy)| [loss.clone(), accuracy.clone()]));
        let mut values = values.into_iter();
        let mut next = || values.next().expect("two tensors a row");
        let row = |(restart, step, ..): &(usize, usize, _, _)| TraceRow {
            restart: *restart,
            step: *step,
            loss: next(),
            accuracy: next(),
        };
        Trace { rows: self.rows.iter().map(row).collect() }
    }
}
