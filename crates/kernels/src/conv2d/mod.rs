//! Two-dimensional convolution: forward, input gradient, weight gradient, bias gradient.
//!
//! Layers with 3×3 kernels and stride 1 use [`winograd`](crate::winograd) where a fixed table says so and the weights'
//! [`Winograd`] limit allows it; everything else is summed directly by register tiles over a zero-padded copy of a part
//! of the input.

mod algorithm;
mod direct;
mod register_tile;
mod shape;
mod stencil;
mod tile;
mod weight_gradient;
mod weights;

#[cfg(test)]
mod tests;

pub use algorithm::Winograd;
pub use shape::Conv2dShape;
pub use weights::PackedWeights;

use crate::{Epilogue, winograd};
use algorithm::winograd_tile;
use stencil::Stencil;

/// `out = activation(x ∗ weights + bias + residual)`: `x` is `[batch, in_channels, height, width]`, `out`
/// `[batch, out_channels, out_height, out_width]`.
///
/// ```
/// use fireproof_kernels::{Activation, Epilogue, conv2d::{Conv2dShape, PackedWeights, forward}};
///
/// let shape = Conv2dShape::new(1, 1, 1, [2, 2], [3, 3]).with_padding(1).checked()?;
/// let weights = PackedWeights::new(&shape, &[1.0; 9]);
/// let mut out = [0.0; 4];
/// let epilogue = Epilogue { bias: Some(&[-5.0]), activation: Activation::Relu, ..Epilogue::default() };
/// forward(&shape, &[1.0, 2.0, 3.0, 4.0], &weights, epilogue, &mut out);
/// assert_eq!(out, [5.0; 4]);
/// # Ok::<(), fireproof_kernels::Error>(())
/// ```
///
/// # Panics
/// If the shape is not [`checked`](Conv2dShape::checked) or a slice has not the length that it implies.
pub fn forward(shape: &Conv2dShape, x: &[f32], weights: &PackedWeights, epilogue: Epilogue<'_>, out: &mut [f32]) {
    check(shape, x, out);
    weights.check(shape);
    check_epilogue(&epilogue, shape.out_channels, out.len());
    let size = [shape.out_height(), shape.out_width()];
    match winograd_tile(shape, weights.winograd(), shape.in_channels, shape.out_channels, size) {
        Some(tile) => winograd::forward(shape, x, weights.forward_frequencies(tile), epilogue, out),
        None => direct::run(&Stencil::forward(shape), x, weights.forward(), epilogue, out),
    }
}

/// The gradient at the input: `grad_out` is `[batch, out_channels, out_height, out_width]`, `grad_in`
/// `[batch, in_channels, height, width]` and overwritten.
///
/// # Panics
/// As [`forward`].
pub fn input_gradient(shape: &Conv2dShape, grad_out: &[f32], weights: &PackedWeights, grad_in: &mut [f32]) {
    check(shape, grad_in, grad_out);
    weights.check(shape);
    let size = [shape.height, shape.width];
    match winograd_tile(shape, weights.winograd(), shape.out_channels, shape.in_channels, size) {
        Some(tile) => winograd::input_gradient(shape, grad_out, weights.gradient_frequencies(tile), grad_in),
        None => {
            let stencil = Stencil::input_gradient(shape);
            direct::run(&stencil, grad_out, weights.gradient(), Epilogue::default(), grad_in);
        }
    }
}

/// The transposed convolution, the input gradient of `shape` read as a forward pass: `x` is
/// `[batch, out_channels, out_height, out_width]` **of the shape**, `out` `[batch, in_channels, height, width]`, and the
/// epilogue has one number per `in_channels`. Its own input gradient is [`forward`] with the same shape and weights.
///
/// ```
/// use fireproof_kernels::{Epilogue, conv2d::{Conv2dShape, PackedWeights, transposed}};
///
/// // 2×2 with stride 2 doubles the resolution: from 1 channel at 1×1 to 1 channel at 2×2.
/// let shape = Conv2dShape { stride: [2, 2], ..Conv2dShape::new(1, 1, 1, [2, 2], [2, 2]) }.checked()?;
/// let weights = PackedWeights::new(&shape, &[1.0, 2.0, 3.0, 4.0]);
/// let mut out = [0.0; 4];
/// transposed(&shape, &[10.0], &weights, Epilogue::default(), &mut out);
/// assert_eq!(out, [10.0, 20.0, 30.0, 40.0]);
/// # Ok::<(), fireproof_kernels::Error>(())
/// ```
///
/// # Panics
/// As [`forward`].
pub fn transposed(shape: &Conv2dShape, x: &[f32], weights: &PackedWeights, epilogue: Epilogue<'_>, out: &mut [f32]) {
    check(shape, out, x);
    weights.check(shape);
    check_epilogue(&epilogue, shape.in_channels, out.len());
    direct::run(&Stencil::input_gradient(shape), x, weights.gradient(), epilogue, out);
}

/// The gradient at the weights, `[out_channels, in_channels / groups, kernel[0], kernel[1]]`, summed over the batch;
/// overwritten. Sums are added in an order that depends on the shape (with its batch) alone.
///
/// # Panics
/// As [`forward`].
pub fn weight_gradient(shape: &Conv2dShape, x: &[f32], grad_out: &[f32], grad_weights: &mut [f32]) {
    weight_gradient_within(Winograd::default(), shape, x, grad_out, grad_weights);
}

/// [`weight_gradient`] with another limit on Winograd tiles than the default [`Winograd::F4`], as
/// [`PackedWeights::with_winograd`] for the other passes.
///
/// # Panics
/// As [`forward`].
pub fn weight_gradient_within(
    limit: Winograd,
    shape: &Conv2dShape,
    x: &[f32],
    grad_out: &[f32],
    grad_weights: &mut [f32],
) {
    check(shape, x, grad_out);
    assert_eq!(grad_weights.len(), shape.weights_len(), "weight gradient of {shape:?}");
    let size = [shape.out_height(), shape.out_width()];
    match winograd_tile(shape, limit, shape.in_channels, shape.out_channels, size) {
        Some(tile) => winograd::weight_gradient(shape, tile, x, grad_out, grad_weights),
        None => weight_gradient::run(&Stencil::forward(shape), x, grad_out, grad_weights),
    }
}

/// The gradient at the bias: the sum of `grad_out` `[batch, out_channels, out_height, out_width]` over images and
/// pixels. For a transposed convolution pass its own output's gradient and channels to [`channel_sums`].
///
/// # Panics
/// As [`forward`].
///
/// [`channel_sums`]: crate::reduce::channel_sums
pub fn bias_gradient(shape: &Conv2dShape, grad_out: &[f32], grad_bias: &mut [f32]) {
    assert_eq!(grad_out.len(), shape.output_len(), "numbers on the output side of {shape:?}");
    crate::reduce::channel_sums(grad_out, shape.batch, shape.out_channels, grad_bias);
}

fn check(shape: &Conv2dShape, input: &[f32], output: &[f32]) {
    if let Err(error) = shape.checked() {
        panic!("{error}");
    }
    assert_eq!(input.len(), shape.input_len(), "numbers on the input side of {shape:?}");
    assert_eq!(output.len(), shape.output_len(), "numbers on the output side of {shape:?}");
}

fn check_epilogue(epilogue: &Epilogue<'_>, channels: usize, len: usize) {
    if let Some(bias) = epilogue.bias {
        assert_eq!(bias.len(), channels, "one bias per channel");
    }
    if let Some(residual) = epilogue.residual {
        assert_eq!(residual.len(), len, "a residual of the output's shape");
    }
    if let crate::Activation::PRelu(slopes) = epilogue.activation {
        assert_eq!(slopes.len(), channels, "one slope per channel");
    }
}
