//! The transform of the weights, done once for weights that do not change.

use super::Tile;
use super::products::CHANNELS;
use super::tiling::spread;
use super::transform::{self, points};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};
use std::ops::Range;

/// Jobs that the input channels are cut into.
const JOBS: usize = 4;

/// The frequencies of a 3×3 convolution's weights: `(m + 2)² / 9` times their memory for tiles of `m × m` outputs.
///
/// Attacks keep them over their steps; training makes them anew for every step.
pub struct TransformedWeights {
    pub(super) tile: Tile,
    pub(super) input_channels: usize,
    pub(super) output_channels: usize,
    /// `[frequency][output channels / 8][input channel][8]`, zeros behind the last output channel.
    pub(super) data: Scratch,
    /// Numbers between frequencies.
    pub(super) stride: usize,
}

impl TransformedWeights {
    /// For the forward pass. `weights` are `[output_channels, input_channels, 3, 3]`.
    ///
    /// # Panics
    /// If `weights` has another length.
    pub fn forward(tile: Tile, weights: &[f32], output_channels: usize, input_channels: usize) -> Self {
        let filters = Filters { weights, output_stride: input_channels * 9, input_stride: 9, flip: false };
        Self::new(tile, filters, output_channels, input_channels)
    }

    /// For the input gradient of the same weights `[output_channels, input_channels, 3, 3]`: flipped, and with the roles of
    /// the channels exchanged.
    ///
    /// # Panics
    /// If `weights` has another length.
    pub fn input_gradient(tile: Tile, weights: &[f32], output_channels: usize, input_channels: usize) -> Self {
        let filters = Filters { weights, output_stride: 9, input_stride: input_channels * 9, flip: true };
        Self::new(tile, filters, input_channels, output_channels)
    }

    /// The tile that the weights were transformed for.
    pub fn tile(&self) -> Tile {
        self.tile
    }

    /// The memory they occupy.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }

    fn new(tile: Tile, filters: Filters, output_channels: usize, input_channels: usize) -> Self {
        let found = filters.weights.len();
        let expected = output_channels * input_channels * 9;
        assert_eq!(found, expected, "weights of {output_channels} × {input_channels} filters of 3×3");
        let blocks = output_channels.div_ceil(CHANNELS);
        let (m, stride) = (tile.outputs(), spread(blocks * input_channels * CHANNELS));
        let mut data = Scratch::new(points(m) * points(m) * stride);
        let (isa, target) = (Isa::current(), Shared::new(&mut data));
        let size = input_channels.div_ceil(JOBS);
        parallel::for_each(input_channels.div_ceil(size), |job| {
            let inputs = job * size..input_channels.min((job + 1) * size);
            match tile {
                Tile::F2 => isa.dispatch(Job::<2> { filters, output_channels, input_channels, inputs, stride, target }),
                Tile::F4 => isa.dispatch(Job::<4> { filters, output_channels, input_channels, inputs, stride, target }),
            }
        });
        TransformedWeights { tile, input_channels, output_channels, data, stride }
    }
}

/// The 3×3 filters in one of two orders.
#[derive(Clone, Copy)]
struct Filters<'a> {
    weights: &'a [f32],
    output_stride: usize,
    input_stride: usize,
    flip: bool,
}

/// Transforms the filters of some input channels. Reading them for all output channels at once keeps to the order of the
/// weights in memory, whichever of the two it is.
struct Job<'a, const M: usize> {
    filters: Filters<'a>,
    output_channels: usize,
    input_channels: usize,
    inputs: Range<usize>,
    stride: usize,
    target: Shared<'a, f32>,
}

impl<const M: usize> Kernel for Job<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Filters { weights, output_stride, input_stride, flip } = self.filters;
        let alpha = points(M);
        for block in 0..self.output_channels.div_ceil(CHANNELS) {
            let target = self.target.pointer(block * self.input_channels * CHANNELS);
            let end = self.inputs.end * CHANNELS;
            for start in (self.inputs.start * CHANNELS..end).step_by(S::LANES) {
                let count = S::LANES.min(end - start);
                let mut taps = [[0.0f32; MAX_LANES]; 9];
                for lane in 0..count {
                    let (input, output) = ((start + lane) / CHANNELS, block * CHANNELS + (start + lane) % CHANNELS);
                    if output < self.output_channels {
                        let filter = &weights[output * output_stride + input * input_stride..][..9];
                        for t in 0..9 {
                            taps[t][lane] = filter[if flip { 8 - t } else { t }];
                        }
                    }
                }
                let mut rows = [[s.zero(); 3]; 6];
                for x in 0..3 {
                    // SAFETY: `MAX_LANES` numbers each.
                    let (top, middle, bottom) = unsafe {
                        (s.load(taps[x].as_ptr()), s.load(taps[3 + x].as_ptr()), s.load(taps[6 + x].as_ptr()))
                    };
                    let column = transform::filter::<S, M>(s, [top, middle, bottom]);
                    for i in 0..alpha {
                        rows[i][x] = column[i];
                    }
                }
                for i in 0..alpha {
                    let frequencies = transform::filter::<S, M>(s, rows[i]);
                    for j in 0..alpha {
                        // SAFETY: these input channels' numbers of the block and frequency, which no other job writes.
                        unsafe {
                            let target = target.add((i * alpha + j) * self.stride + start);
                            if count == S::LANES {
                                s.store(target, frequencies[j]);
                            } else {
                                s.store_partial(target, count, frequencies[j]);
                            }
                        }
                    }
                }
            }
        }
    }
}
