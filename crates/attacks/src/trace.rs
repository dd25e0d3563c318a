//! Loss and accuracy along a run.

use burn::tensor::Tensor;
use fireproof_tensor::Targets;

use crate::host::floats;

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
        let [n, height, width] = labels.dims();
        let correct = labels.correct(logits).reshape([n, height * width]).sum_dim(1).reshape([n]);
        self.rows.push((restart, step, loss.clone(), correct / labels.valid_pixels().clamp_min(1.0)));
    }

    pub(crate) fn finish(self) -> Trace {
        let row = |(restart, step, loss, accuracy)| TraceRow {
            restart,
            step,
            loss: floats(loss),
            accuracy: floats(accuracy),
        };
        Trace { rows: self.rows.into_iter().map(row).collect() }
    }
}
