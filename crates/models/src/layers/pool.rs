//! Pooling and padding; no parameters.

use burn::tensor::{FloatDType, Tensor};
use fireproof_tensor::ops;

/// Maximum over `kernel × kernel` windows, padded by `−∞`: `[N, C, H, W]` → `[N, C, (H + 2p − k) / s + 1, …]`.
pub fn max_pool(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    ops::max_pool2d(x, kernel, stride, padding)
}

/// Mean over `kernel × kernel` windows; padded zeros count in the divisor.
pub fn average_pool(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    ops::avg_pool2d(x, kernel, stride, padding)
}

/// Mean over a grid of `bins × bins` windows that cover the map: `[N, C, H, W]` → `[N, C, bins, bins]`.
pub fn adaptive_average_pool(x: Tensor<4>, bins: usize) -> Tensor<4> {
    ops::adaptive_avg_pool2d(x, bins)
}

/// Appends zeros at the bottom and right until height and width are multiples of `multiple`.
pub fn pad_to_multiple(mut x: Tensor<4>, multiple: usize) -> Tensor<4> {
    for axis in [2, 3] {
        let mut dims = x.dims();
        let missing = dims[axis].next_multiple_of(multiple) - dims[axis];
        if missing > 0 {
            dims[axis] = missing;
            let zeros = Tensor::<4>::zeros(dims, &x.device()).cast(FloatDType::from(x.dtype()));
            x = Tensor::cat(vec![x, zeros], axis);
        }
    }
    x
}
