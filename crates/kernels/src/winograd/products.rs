//! The products per frequency: small dense matrices, one register tile after the other.

use crate::panel::{Weights, panels};
use crate::simd::Simd;
use std::ops::Range;

pub(super) use crate::panel::{CHANNELS, PANEL};

/// Input channels that are summed in registers before they are added to the products: a panel of so many stays in the first
/// cache beside two blocks of filters. A multiple of [`CHANNELS`].
pub(super) const SUMMED: usize = 128;

/// Blocks of filters that serve one panel after the other from the second cache: 256 KB.
const BLOCKS: usize = 64;

/// `products[o][t] = Σ_c weights[o][c] · input[c][t]` for one frequency, `blocks` blocks of [`CHANNELS`] output channels and
/// the input channels of a slice that starts at a multiple of [`SUMMED`]; the first slice sets the products, later ones add
/// to them. Every [`SUMMED`] channels are summed in order and their sums added in order, wherever slices are cut. `input` is
/// the slice laid out in panels ([`Spectrum`](super::input::Spectrum)), `weights` begin with the slice, and `products`
/// has rows of `groups · LANES` numbers.
///
/// # Safety
/// The pointers are valid for these numbers.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd>(
    s: S,
    input: *const f32,
    groups: usize,
    slice: &Range<usize>,
    weights: Weights,
    blocks: usize,
    products: *mut f32,
) {
    debug_assert!(slice.start.is_multiple_of(SUMMED));
    let tiles = groups * S::LANES;
    for outer in (0..blocks).step_by(BLOCKS) {
        let some = BLOCKS.min(blocks - outer);
        for start in slice.clone().step_by(SUMMED) {
            let (channels, add, start) = (SUMMED.min(slice.end - start), start > 0, start - slice.start);
            // SAFETY: the caller's promise.
            let weights = unsafe { weights.from(outer, start) };
            for (first, width) in panels(groups, PANEL) {
                for block in 0..some {
                    // SAFETY: the caller's promise.
                    unsafe {
                        let input = input.add((first * slice.len() + start * width) * S::LANES);
                        let products = products.add((outer + block) * CHANNELS * tiles + first * S::LANES);
                        weights.product(s, block, width, input, channels, products, tiles, add);
                    }
                }
            }
        }
    }
}
