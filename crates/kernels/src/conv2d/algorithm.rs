//! Which algorithm computes which layer: a fixed table over the shape of one image.

use super::Conv2dShape;
use super::interleave::Interleave;
use crate::winograd::{self, Tile};
use std::sync::OnceLock;

/// The largest Winograd tile that may be used. Larger tiles need fewer products and round more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Winograd {
    /// Direct sums alone: relative error about 10⁻⁶.
    Never,
    /// Up to F(2×2, 3×3): 2.25 times fewer products, relative error about 10⁻⁶.
    F2,
    /// Up to F(4×4, 3×3): 4 times fewer products, relative error about 3·10⁻⁶.
    #[default]
    F4,
}

/// The environment variable that sets [`Winograd::current`]: `never`, `f2` or `f4`.
pub const WINOGRAD_VARIABLE: &str = "FIREPROOF_WINOGRAD";

impl Winograd {
    /// The limit for all layers that are not given one: what the environment variable [`WINOGRAD_VARIABLE`] says, else
    /// [`Winograd::F4`].
    ///
    /// # Panics
    /// If the variable has another value than its three.
    pub fn current() -> Self {
        static CURRENT: OnceLock<Winograd> = OnceLock::new();
        *CURRENT.get_or_init(|| match std::env::var(WINOGRAD_VARIABLE).as_deref() {
            Ok("never") => Winograd::Never,
            Ok("f2") => Winograd::F2,
            Ok("f4") | Err(_) => Winograd::F4,
            Ok(other) => panic!("{WINOGRAD_VARIABLE}={other:?}: expected \"never\", \"f2\" or \"f4\""),
        })
    }
}

/// How a pass is computed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Algorithm {
    /// The sum over taps.
    Taps,
    /// Winograd's minimal filtering.
    Winograd(Tile),
    /// The same of the interleaved images of a dilated layer.
    Interleaved(Tile, Interleave),
}

impl Algorithm {
    /// For a pass that sums over `inputs` channels and writes `outputs` channels of `size` pixels.
    pub fn new(shape: &Conv2dShape, limit: Winograd, inputs: usize, outputs: usize, size: [usize; 2]) -> Self {
        // With fewer channels the transforms cost what the products save.
        if limit == Winograd::Never || inputs.min(outputs) < 16 {
            return Algorithm::Taps;
        }
        if winograd::serves(shape) {
            return tile(limit, 1, size).map_or(Algorithm::Taps, Algorithm::Winograd);
        }
        let Some(interleave) = Interleave::new(shape).filter(|i| winograd::serves(&i.dense)) else {
            return Algorithm::Taps;
        };
        let [rows, columns] = shape.dilation;
        let part = [size[0].div_ceil(rows), size[1].div_ceil(columns)];
        match tile(limit, rows * columns, part) {
            // Large dilations cut an image into so small parts that most taps meet padding, which the direct sum leaves out.
            // A product in the frequencies costs half as much again, for transforms and copies, and four times the memory.
            Some(tile) if 2 * products(tile, rows * columns, part) < products_inside(shape) => {
                Algorithm::Interleaved(tile, interleave)
            }
            _ => Algorithm::Taps,
        }
    }
}

/// The better tile for `parts` images of `size` pixels. With few pixels the transformed weights, four times the memory of
/// the weights with F(4×4), are read for too few tiles. Measured by `benches/winograd.rs`.
fn tile(limit: Winograd, parts: usize, size: [usize; 2]) -> Option<Tile> {
    let pixels = parts * size[0] * size[1];
    // Where the image does not fill its tiles, small ones may need no more products than large ones.
    let filled = products(Tile::F4, parts, size) <= products(Tile::F2, parts, size);
    match limit {
        Winograd::Never => None,
        _ if pixels < 25 => None,
        Winograd::F4 if pixels >= 144 && filled => Some(Tile::F4),
        Winograd::F2 | Winograd::F4 => Some(Tile::F2),
    }
}

/// Products per pair of channels in the frequencies.
fn products(tile: Tile, parts: usize, size: [usize; 2]) -> usize {
    let m = tile.outputs();
    parts * size[0].div_ceil(m) * size[1].div_ceil(m) * (m + 2) * (m + 2)
}

/// Products per pair of channels of the direct sum, without those of padding.
fn products_inside(shape: &Conv2dShape) -> usize {
    let along = |axis: usize| -> usize {
        let (size, padding) = ([shape.height, shape.width][axis], shape.padding[axis][0]);
        let outputs = [shape.out_height(), shape.out_width()][axis];
        // Tap `t` of output `y` reads input `y · stride + t · dilation − padding`.
        let outputs_before = |end: usize, tap: usize| {
            (end + padding).saturating_sub(tap * shape.dilation[axis]).div_ceil(shape.stride[axis]).min(outputs)
        };
        (0..shape.kernel[axis]).map(|tap| outputs_before(size, tap) - outputs_before(0, tap)).sum()
    };
    along(0) * along(1)
}
