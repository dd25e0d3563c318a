//! The products per frequency: small dense matrices, one register tile after the other.

use super::tiling::panels;
use crate::simd::Simd;

/// Output channels whose weights lie side by side: `[channels / 8][input channel][8]`.
pub(super) const CHANNELS: usize = 8;

/// Vectors in a panel: as many as the accumulators of a register tile leave room for.
pub(super) const PANEL: usize = 3;

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
    weights: *const f32,
    blocks: usize,
    products: *mut f32,
) {
    let tiles = groups * S::LANES;
    for (first, width) in panels(groups, PANEL) {
        for block in 0..blocks {
            // SAFETY: the caller's promise.
            unsafe {
                let input = input.add(first * channels * S::LANES);
                let weights = weights.add(block * channels * CHANNELS);
                let products = products.add(block * CHANNELS * tiles + first * S::LANES);
                match width {
                    1 => panel::<S, 1>(s, input, channels, weights, products, tiles),
                    2 => panel::<S, 2>(s, input, channels, weights, products, tiles),
                    _ => panel::<S, 3>(s, input, channels, weights, products, tiles),
                }
            }
        }
    }
}

/// One panel: eight channels at once where 32 registers hold the accumulators, else two times four.
#[inline(always)]
unsafe fn panel<S: Simd, const V: usize>(
    s: S,
    input: *const f32,
    channels: usize,
    weights: *const f32,
    products: *mut f32,
    tiles: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if S::REGISTERS >= 32 {
            register_tile::<S, 8, V>(s, input, channels, weights, products, tiles);
        } else {
            register_tile::<S, 4, V>(s, input, channels, weights, products, tiles);
            register_tile::<S, 4, V>(s, input, channels, weights.add(4), products.add(4 * tiles), tiles);
        }
    }
}

#[inline(always)]
unsafe fn register_tile<S: Simd, const R: usize, const V: usize>(
    s: S,
    mut input: *const f32,
    channels: usize,
    mut weights: *const f32,
    products: *mut f32,
    tiles: usize,
) {
    let mut sums = [[s.zero(); V]; R];
    for _ in 0..channels {
        // SAFETY: the caller's promise.
        unsafe {
            let mut x = [s.zero(); V];
            for (v, x) in x.iter_mut().enumerate() {
                *x = s.load(input.add(v * S::LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let weight = s.splat(*weights.add(r));
                for (sum, &x) in sums.iter_mut().zip(&x) {
                    *sum = s.fma(weight, x, *sum);
                }
            }
            input = input.add(V * S::LANES);
            weights = weights.add(CHANNELS);
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { s.store(products.add(r * tiles + v * S::LANES), sum) };
        }
    }
}
