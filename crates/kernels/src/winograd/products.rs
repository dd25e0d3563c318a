//! The products per frequency: small dense matrices, one register tile after the other.

use super::weights::Filters;
use crate::panel::{panel, panels, transposed_panel};
use crate::simd::Simd;
use std::ops::Range;

pub(super) use crate::panel::{CHANNELS, PANEL};

/// Input channels that are summed in registers before they are added to the products: what a register tile reads of them
/// and of the filters stays in the first cache, and what all tiles read of them in the second. A multiple of [`CHANNELS`].
pub(super) const SUMMED: usize = 256;

/// `products[o][t] = Σ_c weights[o][c] · input[c][t]` for one frequency, `blocks` blocks of [`CHANNELS`] output channels and
/// the input channels of a slice that starts at a multiple of [`SUMMED`]; the first slice sets the products, later ones add
/// to them. Every [`SUMMED`] channels are summed in order and their sums added in order, wherever slices are cut. `input` is
/// the slice laid out in panels ([`Spectrum`](super::input::Spectrum)), `weights` those of all input channels, and `products`
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
    weights: Filters,
    blocks: usize,
    products: *mut f32,
) {
    debug_assert!(slice.start.is_multiple_of(SUMMED));
    let tiles = groups * S::LANES;
    // Many weights come from far away: all tiles use a block of them while it is near.
    for start in slice.clone().step_by(SUMMED) {
        let (channels, add) = (SUMMED.min(slice.end - start), start > 0);
        for block in 0..blocks {
            for (first, width) in panels(groups, PANEL) {
                // SAFETY: the caller's promise.
                unsafe {
                    let input = input.add((first * slice.len() + (start - slice.start) * width) * S::LANES);
                    let weights_of_block = weights.start.add(block * weights.block);
                    let products = products.add(block * CHANNELS * tiles + first * S::LANES);
                    match weights.transposed {
                        None => {
                            let start = weights_of_block.add(start * CHANNELS);
                            panel(s, width, input, channels, start, products, tiles, add);
                        }
                        Some(stride) => {
                            let start = weights_of_block.add(start / CHANNELS * stride);
                            transposed_panel(s, width, input, channels, start, stride, products, tiles, add);
                        }
                    }
                }
            }
        }
    }
}
