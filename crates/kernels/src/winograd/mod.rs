//! Convolution with 3×3 filters by Winograd's minimal filtering: a tile of `M × M` outputs costs `(M + 2)²` products per
//! pair of channels instead of `9 M²`, 2.25 times fewer for F(2×2, 3×3) and 4 times fewer for F(4×4, 3×3).
//!
//! # Derivation
//!
//! `M` outputs of a filter with three taps are the coefficients of a product of polynomials, transposed. A polynomial of
//! degree `M + 1` is known from its values at `M + 1` points and its leading coefficient, its "value at ∞" (Toom and Cook;
//! Winograd, *Arithmetic Complexity of Computations*, 1980; for networks Lavin and Gray, *Fast Algorithms for Convolutional
//! Neural Networks*, CVPR 2016, <https://arxiv.org/abs/1509.09308>). Evaluate, multiply pointwise, interpolate, and
//! transpose the whole scheme:
//!
//! ```text
//! y = Aᵀ [ (G g) ⊙ (Bᵀ d) ]              d: M + 2 inputs, g: 3 taps, y: M outputs
//! Aᵀ[k][i] = pᵢᵏ    G[i][k] = pᵢᵏ / Nᵢ    Nᵢ = Π_{j ≠ i} (pᵢ − pⱼ)
//! Bᵀ[i]: the coefficients of Π_{j ≠ i} (x − pⱼ), for ∞ those of Π_j (x − pⱼ)
//! ```
//!
//! In two dimensions the transforms apply to columns, then to rows. The classic points 0, ±1, ±2 of F(4×4) lose more than
//! a digit because powers up to 2³ meet fractions up to 1/24. Here they are 0, ±1/√2, ±√2, ∞: pairs of inverses keep all
//! matrices near 1 and the error near that of a direct sum (the tests ask for 2·10⁻⁵ of the largest output).
//! F(2×2) has the points 0, ±1, ∞.
//!
//! The input gradient is the same convolution with flipped filters and the channels' roles exchanged. As the points come in
//! pairs of inverses, the frequencies of a flipped filter are those of the filter in another order, so one set of
//! transformed weights serves both passes. For the weight
//! gradient the bilinear form is differentiated by `g`: `dg = Gᵀ [ (A dy) ⊙ (Bᵀ d) ]`, the products of all tiles summed
//! before the one transform by `Gᵀ`.
//!
//! # Schedule
//!
//! A block of up to 64 tiles is transformed (vertically straight from the image's rows, then horizontally in registers
//! with one tile per lane), multiplied per frequency and transformed back while it lies in a core's second-level cache.
//! Layers of few tiles or many channels are cut along channels and frequencies instead, in slices of the channels, so that
//! their weights are read once. Each output is the same sum in the same order
//! whatever the block, so an image's result depends neither on its batch nor on the number of threads.
//!
//! NaN and infinities reach every output that depends on them; they may spread over the tile.

mod forward;
mod gradient;
mod input;
mod output;
mod products;
mod staging;
#[cfg(test)]
mod tests;
mod tiling;
mod transform;
mod weight_gradient;
mod weights;

use crate::conv2d::Conv2dShape;
use crate::epilogue::Epilogue;
use crate::simd::{Kernel, Simd};
use tiling::Planes;
pub use weights::{Filters, TransformedWeights, Weights};

/// The size of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tile {
    /// F(2×2, 3×3): 2.25 times fewer products, relative error about 5·10⁻⁷.
    F2,
    /// F(4×4, 3×3): 4 times fewer products, relative error about 3·10⁻⁶.
    F4,
}

impl Tile {
    /// Outputs of a tile in one dimension.
    pub fn outputs(self) -> usize {
        match self {
            Tile::F2 => 2,
            Tile::F4 => 4,
        }
    }
}

/// Whether this module computes convolutions of that shape: 3×3, stride 1, no dilation, one group, and at most two zeros
/// on each side.
pub fn serves(shape: &Conv2dShape) -> bool {
    shape.kernel == [3, 3]
        && shape.stride == [1, 1]
        && shape.dilation == [1, 1]
        && shape.groups == 1
        && shape.padding.as_flattened().iter().all(|&p| p <= 2)
}

/// `out = epilogue(x ∗ weights)`. `x` is `[batch, in_channels, height, width]`, `out`
/// `[batch, out_channels, out_height, out_width]`.
///
/// # Panics
/// If [`serves`] refuses the shape, the weights are not those of this shape, or a slice has another length.
pub fn forward<'a>(
    shape: &Conv2dShape,
    x: &[f32],
    weights: impl Into<Weights<'a>>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    forward::convolve(planes(shape), x, weights.into(), false, epilogue, out);
}

/// The gradient at the input for a gradient `grad_out` at the output.
///
/// # Panics
/// If [`serves`] refuses the shape, the weights are not those of this shape, or a slice has another length.
pub fn input_gradient<'a>(shape: &Conv2dShape, grad_out: &[f32], weights: impl Into<Weights<'a>>, grad_x: &mut [f32]) {
    let forward = planes(shape);
    let planes = Planes {
        input_channels: forward.output_channels,
        output_channels: forward.input_channels,
        input: forward.output,
        output: forward.input,
        padding: forward.padding.map(|p| 2 - p),
        ..forward
    };
    forward::convolve(planes, grad_out, weights.into(), true, Epilogue::default(), grad_x);
}

/// The gradient at the weights, `[out_channels, in_channels, 3, 3]`, summed over the batch, for a gradient `grad_out` at the
/// output.
///
/// # Panics
/// If [`serves`] refuses the shape, or a slice has another length.
pub fn weight_gradient(shape: &Conv2dShape, tile: Tile, x: &[f32], grad_out: &[f32], grad_weights: &mut [f32]) {
    weight_gradient::weight_gradient(planes(shape), tile, x, grad_out, grad_weights);
}

fn planes(shape: &Conv2dShape) -> Planes {
    assert!(serves(shape), "not a 3×3 convolution that Winograd serves: {shape:?}");
    Planes {
        images: shape.batch,
        input_channels: shape.in_channels,
        output_channels: shape.out_channels,
        input: [shape.height, shape.width],
        output: [shape.out_height(), shape.out_width()],
        padding: [shape.padding[0][0], shape.padding[1][0]],
    }
}

/// The number of lanes of an instruction set.
struct Lanes;

impl Kernel for Lanes {
    type Output = usize;

    fn run<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}
