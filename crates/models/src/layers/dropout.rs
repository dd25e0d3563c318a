//! Dropout whose masks come from the pass, not from a global generator: a resumed run draws the same ones.

use burn::tensor::{Tensor, TensorData};

use crate::Taps;

/// Sets a share of the values to zero and scales the rest to keep the mean, if the pass has dropout on.
pub fn dropout(x: Tensor<4>, probability: f32, taps: &mut Taps) -> Tensor<4> {
    let dims = x.dims();
    masked(x, dims, probability, taps)
}

/// Sets whole channels of an image to zero.
pub fn dropout_channels(x: Tensor<4>, probability: f32, taps: &mut Taps) -> Tensor<4> {
    let [n, channels, _, _] = x.dims();
    masked(x, [n, channels, 1, 1], probability, taps)
}

fn masked(x: Tensor<4>, mask: [usize; 4], probability: f32, taps: &mut Taps) -> Tensor<4> {
    let Some(stream) = taps.next_dropout() else { return x };
    let keep = 1.0 / (1.0 - probability);
    let count = mask.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..count).map(|i| if stream.uniform(i) < probability { 0.0 } else { keep }).collect();
    let device = x.device().inner();
    x * Tensor::from_data(TensorData::new(values, mask), &device)
}
