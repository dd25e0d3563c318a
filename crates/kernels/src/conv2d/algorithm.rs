//! Which algorithm computes which layer: a fixed table over the shape of one image.

use super::Conv2dShape;
use crate::winograd::{self, Tile};

/// The largest Winograd tile that may be used. Larger tiles need fewer products and round more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Winograd {
    /// Direct sums alone: relative error about 10⁻⁶.
    Never,
    /// Up to F(2×2, 3×3): 2.25 times fewer products, relative error about 10⁻⁶.
    F2,
    /// Up to F(4×4, 3×3): 4 times fewer products, relative error about 3·10⁻⁶.
    #[default]
    F4,
}

/// The tile for a pass that sums over `inputs` channels and writes `outputs` channels of `size` pixels; `None` for the
/// direct algorithm.
pub(super) fn winograd_tile(
    shape: &Conv2dShape,
    limit: Winograd,
    inputs: usize,
    outputs: usize,
    size: [usize; 2],
) -> Option<Tile> {
    // With fewer channels the transforms cost what the products save; with fewer pixels the transformed weights, four times
    // the memory of the weights with F(4×4), are read for too few tiles. Measured by `benches/winograd.rs`.
    let pixels = size[0] * size[1];
    let pays = inputs.min(outputs) >= 16 && pixels >= 25;
    if !pays || !winograd::serves(shape) {
        return None;
    }
    match limit {
        Winograd::Never => None,
        Winograd::F4 if pixels >= 144 => Some(Tile::F4),
        Winograd::F2 | Winograd::F4 => Some(Tile::F2),
    }
}
