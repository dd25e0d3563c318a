//! The product at the heart of Winograd's frequencies and of the taps of a convolution: eight output channels times a panel
//! of up to three vectors, summed over the input channels in registers.

use crate::simd::Simd;

/// Output channels whose weights lie side by side: `[channels / 8][input channel][8]`.
pub(crate) const CHANNELS: usize = 8;

/// Vectors in a panel: as many as the accumulators of a register tile leave room for.
pub(crate) const PANEL: usize = 3;

/// How the vectors of a block are cut into panels of one register tile's width: `(first, width)`, widths at most `most`.
pub(crate) fn panels(vectors: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let mut first = 0;
    std::iter::from_fn(move || {
        let left = vectors - first;
        // Two panels of two beat three and one.
        let width = if left == 4 && most == 3 { 2 } else { left.min(most) };
        first += width;
        (width > 0).then_some((first - width, width))
    })
}

/// `products[o][v] = Σ_c weights[c][o] · input[c][v]` for [`CHANNELS`] output channels and `width` vectors, summed over `c`
/// in order, or added to what is there. `input` has rows of `width` vectors, `products` rows `stride` numbers apart; `ahead`
/// is where the weights lie that will be needed next.
///
/// # Safety
/// `width` is 1 to [`PANEL`], and the pointers but `ahead` are valid for these numbers.
#[inline(always)]
pub(crate) unsafe fn panel<S: Simd>(
    s: S,
    width: usize,
    input: *const f32,
    channels: usize,
    weights: *const f32,
    ahead: *const f32,
    products: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match width {
            1 => channels_of::<S, 1>(s, input, channels, weights, ahead, products, stride, add),
            2 => channels_of::<S, 2>(s, input, channels, weights, ahead, products, stride, add),
            _ => channels_of::<S, 3>(s, input, channels, weights, ahead, products, stride, add),
        }
    }
}

/// Eight channels at once where 32 registers hold the accumulators, else two times four.
#[inline(always)]
unsafe fn channels_of<S: Simd, const V: usize>(
    s: S,
    input: *const f32,
    channels: usize,
    weights: *const f32,
    ahead: *const f32,
    products: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if S::REGISTERS >= 32 {
            register_tile::<S, 8, V>(s, input, channels, weights, ahead, products, stride, add);
        } else {
            register_tile::<S, 4, V>(s, input, channels, weights, ahead, products, stride, add);
            let (weights, ahead, products) = (weights.add(4), ahead.wrapping_add(4), products.add(4 * stride));
            register_tile::<S, 4, V>(s, input, channels, weights, ahead, products, stride, add);
        }
    }
}

/// Asks for the products that a register tile will be added to: their rows lie far apart, where no hardware would look for
/// them.
#[inline(always)]
fn prefetch_rows<S: Simd, const R: usize, const V: usize>(s: S, products: *const f32, stride: usize) {
    for r in 0..R {
        for v in 0..V {
            s.prefetch(products.wrapping_add(r * stride + v * S::LANES));
        }
    }
}

#[inline(always)]
unsafe fn register_tile<S: Simd, const R: usize, const V: usize>(
    s: S,
    mut input: *const f32,
    channels: usize,
    mut weights: *const f32,
    mut ahead: *const f32,
    products: *mut f32,
    stride: usize,
    add: bool,
) {
    if add {
        prefetch_rows::<S, R, V>(s, products, stride);
    }
    let mut sums = [[s.zero(); V]; R];
    for _ in 0..channels {
        s.prefetch(ahead);
        ahead = ahead.wrapping_add(CHANNELS);
        // SAFETY: the caller's promise; `wrapping_add` since the last step leads behind the last channel.
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
            input = input.wrapping_add(V * S::LANES);
            weights = weights.wrapping_add(CHANNELS);
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let target = products.add(r * stride + v * S::LANES);
                s.store(target, if add { s.add(s.load(target), sum) } else { sum });
            }
        }
    }
}

/// [`panel`] for weights `[channels / 8][8][8]` with the channels that are summed over outermost and
/// innermost: `weights[(c / 8) · block + o · 8 + c % 8]`.
///
/// # Safety
/// As for [`panel`].
#[inline(always)]
pub(crate) unsafe fn transposed_panel<S: Simd>(
    s: S,
    width: usize,
    input: *const f32,
    channels: usize,
    weights: *const f32,
    ahead: *const f32,
    block: usize,
    products: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match width {
            1 => transposed_channels::<S, 1>(s, input, channels, weights, ahead, block, products, stride, add),
            2 => transposed_channels::<S, 2>(s, input, channels, weights, ahead, block, products, stride, add),
            _ => transposed_channels::<S, 3>(s, input, channels, weights, ahead, block, products, stride, add),
        }
    }
}

#[inline(always)]
unsafe fn transposed_channels<S: Simd, const V: usize>(
    s: S,
    input: *const f32,
    channels: usize,
    weights: *const f32,
    ahead: *const f32,
    block: usize,
    products: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if S::REGISTERS >= 32 {
            transposed_tile::<S, 8, V>(s, input, channels, weights, ahead, block, products, stride, add);
        } else {
            transposed_tile::<S, 4, V>(s, input, channels, weights, ahead, block, products, stride, add);
            let (weights, ahead) = (weights.add(4 * CHANNELS), ahead.wrapping_add(4 * CHANNELS));
            let products = products.add(4 * stride);
            transposed_tile::<S, 4, V>(s, input, channels, weights, ahead, block, products, stride, add);
        }
    }
}

#[inline(always)]
unsafe fn transposed_tile<S: Simd, const R: usize, const V: usize>(
    s: S,
    mut input: *const f32,
    channels: usize,
    mut weights: *const f32,
    mut ahead: *const f32,
    block: usize,
    products: *mut f32,
    stride: usize,
    add: bool,
) {
    if add {
        prefetch_rows::<S, R, V>(s, products, stride);
    }
    let mut sums = [[s.zero(); V]; R];
    for first in (0..channels).step_by(CHANNELS) {
        for line in 0..R * CHANNELS / 16 {
            s.prefetch(ahead.wrapping_add(line * 16));
        }
        for channel in 0..CHANNELS.min(channels - first) {
            // SAFETY: the caller's promise; `wrapping_add` since the last step leads behind the last channel.
            unsafe {
                let mut x = [s.zero(); V];
                for (v, x) in x.iter_mut().enumerate() {
                    *x = s.load(input.add(v * S::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let weight = s.splat(*weights.add(r * CHANNELS + channel));
                    for (sum, &x) in sums.iter_mut().zip(&x) {
                        *sum = s.fma(weight, x, *sum);
                    }
                }
                input = input.wrapping_add(V * S::LANES);
            }
        }
        weights = weights.wrapping_add(block);
        ahead = ahead.wrapping_add(block);
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let target = products.add(r * stride + v * S::LANES);
                s.store(target, if add { s.add(s.load(target), sum) } else { sum });
            }
        }
    }
}
