//! The products per frequency: small dense matrices, one register tile after the other.

use super::weights::Filters;
use crate::panel::{panel, panels, transposed_panel};
use crate::simd::Simd;

pub(super) use crate::panel::{CHANNELS, PANEL};

/// `products[o][t] = Σ_c weights[o][c] · input[c][t]` for one frequency and `blocks` blocks of [`CHANNELS`] output
/// channels, summed over `c` in order. `input` is laid out in panels ([`Spectrum`](super::input::Spectrum)), `products`
/// has rows of `groups · LANES` numbers.
///
/// # Safety
/// The pointers are valid for these numbers.
#[inline(always)]
pub(super) unsafe fn multiply<S: Simd>(
    s: S,
    input: *const f32,
    groups: usize,
    channels: usize,
    weights: Filters,
    blocks: usize,
    products: *mut f32,
) {
    let tiles = groups * S::LANES;
    for (first, width) in panels(groups, PANEL) {
        for block in 0..blocks {
            // SAFETY: the caller's promise.
            unsafe {
                let input = input.add(first * channels * S::LANES);
                let start = weights.start.add(block * weights.block);
                let products = products.add(block * CHANNELS * tiles + first * S::LANES);
                match weights.transposed {
                    None => panel(s, width, input, channels, start, products, tiles, false),
                    Some(stride) => transposed_panel(s, width, input, channels, start, stride, products, tiles),
                }
            }
        }
    }
}
