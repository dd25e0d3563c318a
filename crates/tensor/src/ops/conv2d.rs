//! Two-dimensional convolution and its transpose.

use burn::tensor::{
    Tensor, module,
    ops::{ConvOptions, ConvTransposeOptions},
};

/// Stride, padding, dilation and groups of a convolution; square and symmetric, which is all that our networks use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dOptions {
    /// Step between output pixels, both axes.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
    /// Step between taps.
    pub dilation: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// `x [N, Ci, H, W]`, `weight [Co, Ci / groups, Kh, Kw]`, `bias [Co]` → `[N, Co, Ho, Wo]`.
///
/// # Panics
/// If the channel counts do not fit.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: Conv2dOptions) -> Tensor<4> {
    let Conv2dOptions { stride: s, padding: p, dilation: d, groups } = options;
    module::conv2d(x, weight, bias, ConvOptions::new([s, s], [p, p], [d, d], groups))
}

/// `x [N, Ci, H, W]`, `weight [Ci, Co, K, K]` → `[N, Co, (H − 1)·stride + K, …]`: the transpose of [`conv2d`] without padding.
///
/// # Panics
/// If the channel counts do not fit.
pub fn conv_transpose2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, stride: usize) -> Tensor<4> {
    module::conv_transpose2d(
        x,
        weight,
        bias,
        ConvTransposeOptions::new([stride, stride], [0, 0], [0, 0], [1, 1], 1),
    )
}
