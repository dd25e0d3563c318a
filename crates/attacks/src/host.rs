//! Reading small tensors.

use burn::tensor::{Int, Tensor};

/// The values of a float tensor, row major. Waits for the device.
pub(crate) fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("a float tensor can be read as f32")
}

/// The values of an integer tensor, row major. Waits for the device.
pub(crate) fn integers<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i32> {
    tensor.try_into_vec_as::<i32>().expect("an integer tensor can be read as i32")
}
