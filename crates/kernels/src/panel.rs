//! The product at the heart of Winograd's frequencies and of the taps of a convolution: eight output channels times a panel
//! of up to three vectors, summed over the input channels in registers.

use crate::simd::Simd;

/// Output channels whose weights lie side by side: `[channels / 8][input channel][8]`.
pub(crate) const CHANNELS: usize = 8;

/// Vectors in a panel: as many as the accumulators of a register tile leave room for.
pub(crate) const PANEL: usize = 3;

/// Weights of blocks of [`CHANNELS`] output channels.
#[derive(Clone, Copy)]
pub(crate) struct Weights {
    pub start: *const f32,
    /// Numbers between blocks.
    pub block: usize,
    /// `None` where each block is `[input channel][8]`. Where the roles of the channels are exchanged, in the input gradient, it is
    /// `[channels / 8][8][8]` with the channels that are summed over outermost and innermost: numbers between eight of those.
    pub transposed: Option<usize>,
}

impl Weights {
    /// Those of the blocks from `block` on and of the channels that are summed over from `channel` on, a multiple of eight.
    ///
    /// # Safety
    /// There are such weights.
    pub unsafe fn from(self, block: usize, channel: usize) -> Self {
        let channel = self.transposed.map_or(channel * CHANNELS, |stride| channel / CHANNELS * stride);
        // SAFETY: the caller's promise.
        Weights { start: unsafe { self.start.add(block * self.block + channel) }, ..self }
    }

    /// Numbers of work memory that [`Weights::ready`] needs for `blocks` blocks of `channels` channels.
    pub fn memory<S: Simd>(self, blocks: usize, channels: usize) -> usize {
        if self.turns::<S>() { blocks * channels.next_multiple_of(CHANNELS) * CHANNELS } else { 0 }
    }

    /// With 16 registers the compiler moves sums of the transposed product to the stack and back.
    fn turns<S: Simd>(self) -> bool {
        self.transposed.is_some() && S::REGISTERS < 32
    }

    /// The same as [`Weights::product`] reads them fastest, where so many panels need them that copying them pays.
    ///
    /// # Safety
    /// There are `blocks` blocks of `channels` channels, and `memory` holds as many numbers as [`Weights::memory`] says.
    #[inline(always)]
    pub unsafe fn ready<S: Simd>(self, s: S, blocks: usize, channels: usize, memory: &mut [f32]) -> Self {
        let Some(stride) = self.transposed.filter(|_| self.turns::<S>()) else { return self };
        assert!(S::LANES == CHANNELS && memory.len() >= self.memory::<S>(blocks, channels));
        let eights = channels.div_ceil(CHANNELS);
        for (block, eight) in (0..blocks).flat_map(|block| (0..eights).map(move |eight| (block, eight))) {
            // SAFETY: the caller's promise.
            unsafe {
                let source = self.start.add(block * self.block + eight * stride);
                let target = memory.as_mut_ptr().add((block * eights + eight) * CHANNELS * CHANNELS);
                s.transpose(source, CHANNELS, CHANNELS, CHANNELS, target, CHANNELS);
            }
        }
        Weights { start: memory.as_ptr(), block: eights * CHANNELS * CHANNELS, transposed: None }
    }

    /// `products[o][v] = Σ_c weights[c][o] · input[c][v]` for the channels of a block and `width` vectors, summed over `c` in order,
    /// or added to what is there. `input` has rows of `width` vectors, `products` rows `stride` numbers apart.
    ///
    /// # Safety
    /// `width` is 1 to [`PANEL`], and the pointers are valid for these numbers.
    #[inline(always)]
    pub unsafe fn product<S: Simd>(
        self,
        s: S,
        block: usize,
        width: usize,
        input: *const f32,
        channels: usize,
        products: *mut f32,
        stride: usize,
        add: bool,
    ) {
        // SAFETY: the caller's promise; what lies `ahead`, needed next, is only prefetched.
        unsafe {
            let weights = self.start.add(block * self.block);
            let ahead = weights.wrapping_add(self.block);
            match self.transposed {
                None => panel(s, width, input, channels, weights, ahead, products, stride, add),
                Some(eight) => {
                    transposed_panel(s, width, input, channels, weights, ahead, eight, products, stride, add)
                }
            }
        }
    }
}

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

/// The product of weights `[input channel][8]`.
///
/// # Safety
/// As for [`Weights::product`].
#[inline(always)]
unsafe fn panel<S: Simd>(
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

/// The product of weights `weights[(c / 8) · block + o · 8 + c % 8]`.
///
/// # Safety
/// As for [`Weights::product`].
#[inline(always)]
unsafe fn transposed_panel<S: Simd>(
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
