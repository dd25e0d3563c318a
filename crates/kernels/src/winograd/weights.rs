//! The transform of the weights, done once for weights that do not change.

use super::Tile;
use super::products::CHANNELS;
use super::tiling::spread;
use super::transform::{self, flipped, points};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};
use std::ops::Range;

/// Jobs that the input channels are cut into.
const JOBS: usize = 4;

/// The frequencies of a 3×3 convolution's weights: `(m + 2)² / 9` times their memory for tiles of `m × m` outputs. They
/// serve the forward pass and, read in another order, the input gradient.
///
/// Attacks keep them over their steps; training makes them anew for every step.
pub struct TransformedWeights {
    pub(super) tile: Tile,
    pub(super) input_channels: usize,
    pub(super) output_channels: usize,
    /// `[frequency][output channels / 8][input channel][8]`, both channels filled up with zeros to multiples of 8.
    pub(super) data: Scratch,
    /// Numbers between frequencies.
    pub(super) stride: usize,
}

impl TransformedWeights {
    /// Of `weights` `[output_channels, input_channels, 3, 3]`.
    ///
    /// # Panics
    /// If `weights` has another length.
    pub fn new(tile: Tile, weights: &[f32], output_channels: usize, input_channels: usize) -> Self {
        let expected = output_channels * input_channels * 9;
        assert_eq!(weights.len(), expected, "weights of {output_channels} × {input_channels} filters of 3×3");
        let (m, rows) = (tile.outputs(), rows(input_channels));
        let stride = spread(output_channels.div_ceil(CHANNELS) * rows * CHANNELS);
        let mut data = Scratch::new(points(m) * points(m) * stride);
        let (isa, target) = (Isa::current(), Shared::new(&mut data));
        let size = rows.div_ceil(JOBS);
        parallel::for_each(rows.div_ceil(size), |job| {
            let inputs = job * size..rows.min((job + 1) * size);
            match tile {
                Tile::F2 => {
                    isa.dispatch(Job::<2> { weights, output_channels, input_channels, inputs, stride, target });
                }
                Tile::F4 => {
                    isa.dispatch(Job::<4> { weights, output_channels, input_channels, inputs, stride, target });
                }
            }
        });
        TransformedWeights { tile, input_channels, output_channels, data, stride }
    }

    /// The tile that the weights were transformed for.
    pub fn tile(&self) -> Tile {
        self.tile
    }

    /// The memory they occupy.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }

    /// One frequency, for the products with the output channels (of a forward pass) from `first` on.
    pub(super) fn forward(&self, frequency: usize, first: usize) -> Filters {
        let block = rows(self.input_channels) * CHANNELS;
        let start = frequency * self.stride + first / CHANNELS * block;
        Filters { start: self.data[start..].as_ptr(), block, transposed: None }
    }

    /// The same of the flipped filters, for the products with the input channels from `first` on.
    pub(super) fn flipped(&self, frequency: usize, first: usize) -> Filters {
        let (m, alpha) = (self.tile.outputs(), points(self.tile.outputs()));
        let frequency = flipped(m, frequency / alpha) * alpha + flipped(m, frequency % alpha);
        Filters {
            start: self.data[frequency * self.stride + first * CHANNELS..].as_ptr(),
            block: CHANNELS * CHANNELS,
            transposed: Some(rows(self.input_channels) * CHANNELS),
        }
    }
}

/// Input channels with those that fill the last block.
fn rows(input_channels: usize) -> usize {
    input_channels.next_multiple_of(CHANNELS)
}

/// Weights of one frequency.
#[derive(Clone, Copy)]
pub(super) struct Filters {
    pub start: *const f32,
    /// Numbers between blocks of eight channels of the result.
    pub block: usize,
    /// Where the roles of the channels are exchanged, numbers between blocks of eight channels that are summed over.
    pub transposed: Option<usize>,
}

/// Transforms the filters of some input channels. Reading them for all output channels at once keeps to the order of the
/// weights in memory.
struct Job<'a, const M: usize> {
    weights: &'a [f32],
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
        let alpha = points(M);
        for block in 0..self.output_channels.div_ceil(CHANNELS) {
            let target = self.target.pointer(block * rows(self.input_channels) * CHANNELS);
            let end = self.inputs.end * CHANNELS;
            for start in (self.inputs.start * CHANNELS..end).step_by(S::LANES) {
                let count = S::LANES.min(end - start);
                let mut taps = [[0.0f32; MAX_LANES]; 9];
                for lane in 0..count {
                    let (input, output) = ((start + lane) / CHANNELS, block * CHANNELS + (start + lane) % CHANNELS);
                    if output < self.output_channels && input < self.input_channels {
                        let filter = &self.weights[(output * self.input_channels + input) * 9..][..9];
                        for t in 0..9 {
                            taps[t][lane] = filter[t];
                        }
                    }
                }
                let mut lines = [[s.zero(); 3]; 6];
                for x in 0..3 {
                    // SAFETY: `MAX_LANES` numbers each.
                    let (top, middle, bottom) = unsafe {
                        (s.load(taps[x].as_ptr()), s.load(taps[3 + x].as_ptr()), s.load(taps[6 + x].as_ptr()))
                    };
                    let column = transform::filter::<S, M>(s, [top, middle, bottom]);
                    for i in 0..alpha {
                        lines[i][x] = column[i];
                    }
                }
                for i in 0..alpha {
                    let frequencies = transform::filter::<S, M>(s, lines[i]);
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
