//! Two-dimensional convolution: forward, input gradient, weight gradient, bias gradient.
//!
//! Layers with 3×3 kernels and stride 1 use [`winograd`](crate::winograd) where a fixed table says so and the weights'
//! [`Winograd`] limit allows it, dilated ones as interleaved dense images; everything else is summed directly by register
//! tiles over a zero-padded copy of a part of the input.

mod algorithm;
mod direct;
mod gemm;
mod interleave;
mod register_tile;
mod shape;
mod stencil;
mod tile;
mod weight_gradient;
mod weights;
mod write;

#[cfg(test)]
mod tests;

pub use algorithm::{WINOGRAD_VARIABLE, Winograd};
pub use shape::Conv2dShape;
pub(crate) use tile::copy_strided;
pub use weights::PackedWeights;

use crate::scratch::Scratch;
use crate::{Epilogue, winograd};
use algorithm::Algorithm;
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
    match Algorithm::new(shape, weights.winograd(), shape.in_channels, shape.out_channels, size) {
        Algorithm::Winograd(tile) => winograd::forward(shape, x, weights.filters(tile), epilogue, out),
        Algorithm::Interleaved(tile, parts) => {
            let input = split(&parts, [shape.height, shape.width], shape.in_channels, x);
            let residual = epilogue.residual.map(|residual| split(&parts, size, shape.out_channels, residual));
            let epilogue = Epilogue { residual: residual.as_deref(), ..epilogue };
            let mut output = Scratch::new(parts.len(size, shape.out_channels));
            winograd::forward(&parts.dense, &input, weights.filters(tile), epilogue, &mut output);
            parts.join(size, shape.out_channels, &output, out);
        }
        Algorithm::Taps => sum_taps(&Stencil::forward(shape), x, weights, false, epilogue, out),
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
    match Algorithm::new(shape, weights.winograd(), shape.out_channels, shape.in_channels, size) {
        Algorithm::Winograd(tile) => {
            winograd::input_gradient(shape, grad_out, weights.filters(tile), grad_in);
        }
        Algorithm::Interleaved(tile, parts) => {
            let input = split(&parts, [shape.out_height(), shape.out_width()], shape.out_channels, grad_out);
            let mut output = Scratch::new(parts.len(size, shape.in_channels));
            winograd::input_gradient(&parts.dense, &input, weights.filters(tile), &mut output);
            parts.join(size, shape.in_channels, &output, grad_in);
        }
        Algorithm::Taps => {
            sum_taps(&Stencil::input_gradient(shape), grad_out, weights, true, Epilogue::default(), grad_in);
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
    sum_taps(&Stencil::input_gradient(shape), x, weights, true, epilogue, out);
}

/// The gradient at the weights, `[out_channels, in_channels / groups, kernel[0], kernel[1]]`, summed over the batch;
/// overwritten. Sums are added in an order that depends on the shape (with its batch) alone.
///
/// # Panics
/// As [`forward`].
pub fn weight_gradient(shape: &Conv2dShape, x: &[f32], grad_out: &[f32], grad_weights: &mut [f32]) {
    weight_gradient_within(Winograd::current(), shape, x, grad_out, grad_weights);
}

/// [`weight_gradient`] with another limit on Winograd tiles than [`Winograd::current`], as
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
    match Algorithm::new(shape, limit, shape.in_channels, shape.out_channels, size) {
        Algorithm::Winograd(tile) => winograd::weight_gradient(shape, tile, x, grad_out, grad_weights),
        Algorithm::Interleaved(tile, parts) => {
            let x = split(&parts, [shape.height, shape.width], shape.in_channels, x);
            let grad_out = split(&parts, size, shape.out_channels, grad_out);
            winograd::weight_gradient(&parts.dense, tile, &x, &grad_out, grad_weights);
        }
        Algorithm::Taps => weight_gradient::run(&Stencil::forward(shape), x, grad_out, grad_weights),
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

/// The sum over taps of a forward pass or, `transposed`, of the input gradient.
fn sum_taps(
    stencil: &Stencil,
    source: &[f32],
    weights: &PackedWeights,
    transposed: bool,
    epilogue: Epilogue<'_>,
    target: &mut [f32],
) {
    if gemm::suits(stencil) {
        gemm::run(stencil, source, weights.forward(), transposed, epilogue, target);
    } else {
        let weights = if transposed { weights.gradient() } else { weights.forward() };
        direct::run(stencil, source, weights, epilogue, target);
    }
}

fn split(parts: &interleave::Interleave, size: [usize; 2], channels: usize, whole: &[f32]) -> Scratch {
    let mut split = Scratch::new(parts.len(size, channels));
    parts.split(size, channels, whole, &mut split);
    split
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
