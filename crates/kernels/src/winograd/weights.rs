//! The transform of the weights, done once for weights that do not change.

use super::Tile;
use super::products::CHANNELS;
use super::tiling::spread;
use super::transform::{self, flipped, points};
use crate::panel;
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd};
use std::ops::Range;

/// Jobs that the output channels are cut into.
const JOBS: usize = 8;

/// What a pass reads its filters from.
#[derive(Clone, Copy)]
pub enum Weights<'a> {
    /// Transformed before, for many passes.
    Transformed(&'a TransformedWeights),
    /// For this pass alone, which then transforms them slice by slice where its work is cut along the channels.
    Plain(Filters<'a>),
}

impl<'a> From<&'a TransformedWeights> for Weights<'a> {
    fn from(weights: &'a TransformedWeights) -> Self {
        Weights::Transformed(weights)
    }
}

impl<'a> From<Filters<'a>> for Weights<'a> {
    fn from(filters: Filters<'a>) -> Self {
        Weights::Plain(filters)
    }
}

/// Filters of 3×3 as they are, and the tile to transform them for.
#[derive(Clone, Copy)]
pub struct Filters<'a> {
    pub(super) tile: Tile,
    weights: &'a [f32],
    output_channels: usize,
    input_channels: usize,
}

impl<'a> Filters<'a> {
    /// `weights` are `[output_channels, input_channels, 3, 3]`.
    ///
    /// # Panics
    /// If `weights` has another length.
    pub fn new(tile: Tile, weights: &'a [f32], output_channels: usize, input_channels: usize) -> Self {
        let expected = output_channels * input_channels * 9;
        assert_eq!(weights.len(), expected, "weights of {output_channels} × {input_channels} filters of 3×3");
        Filters { tile, weights, output_channels, input_channels }
    }

    /// Output and input channels.
    pub(super) fn channels(&self) -> [usize; 2] {
        [self.output_channels, self.input_channels]
    }

    /// Transforms all of them, for many passes.
    pub fn transform_all(&self) -> TransformedWeights {
        self.transform_into(Scratch::lasting, 0..self.output_channels, 0..self.input_channels)
    }

    /// Transforms those between some output and some input channels, for one pass.
    pub(super) fn transform(&self, outputs: Range<usize>, inputs: Range<usize>) -> TransformedWeights {
        self.transform_into(Scratch::new, outputs, inputs)
    }

    fn transform_into(
        &self,
        memory: fn(usize) -> Scratch,
        outputs: Range<usize>,
        inputs: Range<usize>,
    ) -> TransformedWeights {
        let (m, rows) = (self.tile.outputs(), rows(inputs.len()));
        let stride = spread(outputs.len().div_ceil(CHANNELS) * rows * CHANNELS);
        let mut data = memory(points(m) * points(m) * stride);
        let (isa, target) = (Isa::current(), Shared::new(&mut data));
        let blocks = outputs.len().div_ceil(CHANNELS);
        let size = blocks.div_ceil(JOBS);
        parallel::for_each(blocks.div_ceil(size), |job| {
            let blocks = job * size..blocks.min((job + 1) * size);
            let (filters, outputs, inputs) = (*self, outputs.clone(), inputs.clone());
            match self.tile {
                Tile::F2 => isa.dispatch(Job::<2> { filters, outputs, inputs, blocks, stride, target }),
                Tile::F4 => isa.dispatch(Job::<4> { filters, outputs, inputs, blocks, stride, target }),
            }
        });
        TransformedWeights { tile: self.tile, outputs, inputs, data, stride }
    }
}

/// The frequencies of a 3×3 convolution's weights: `(m + 2)² / 9` times their memory for tiles of `m × m` outputs. They
/// serve the forward pass and, read in another order, the input gradient.
///
/// Attacks keep them over their steps; in training a pass makes those that it needs.
pub struct TransformedWeights {
    pub(super) tile: Tile,
    /// The channels whose filters these are.
    outputs: Range<usize>,
    inputs: Range<usize>,
    /// `[frequency][output channels / 8][input channel][8]`, both channels filled up with zeros to multiples of 8.
    data: Scratch,
    /// Numbers between frequencies.
    stride: usize,
}

impl TransformedWeights {
    /// Of `weights` `[output_channels, input_channels, 3, 3]`.
    ///
    /// # Panics
    /// If `weights` has another length.
    pub fn new(tile: Tile, weights: &[f32], output_channels: usize, input_channels: usize) -> Self {
        Filters::new(tile, weights, output_channels, input_channels).transform_all()
    }

    /// The tile that the weights were transformed for.
    pub fn tile(&self) -> Tile {
        self.tile
    }

    /// The memory they occupy.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }

    /// Output and input channels.
    pub(super) fn channels(&self) -> [usize; 2] {
        [self.outputs.end, self.inputs.end]
    }

    /// One frequency, for the products of the input channels from `summed` on with the output channels (of a forward pass)
    /// from `first` on.
    pub(super) fn forward(&self, frequency: usize, first: usize, summed: usize) -> panel::Weights {
        let block = rows(self.inputs.len()) * CHANNELS;
        let start = (first - self.outputs.start) / CHANNELS * block + (summed - self.inputs.start) * CHANNELS;
        panel::Weights { start: self.data[frequency * self.stride + start..].as_ptr(), block, transposed: None }
    }

    /// The same of the flipped filters, for the products of the output channels from `summed` on with the input channels from
    /// `first` on.
    pub(super) fn flipped(&self, frequency: usize, first: usize, summed: usize) -> panel::Weights {
        let (m, alpha) = (self.tile.outputs(), points(self.tile.outputs()));
        let frequency = flipped(m, frequency / alpha) * alpha + flipped(m, frequency % alpha);
        let block = rows(self.inputs.len()) * CHANNELS;
        let start = (first - self.inputs.start) * CHANNELS + (summed - self.outputs.start) / CHANNELS * block;
        panel::Weights {
            start: self.data[frequency * self.stride + start..].as_ptr(),
            block: CHANNELS * CHANNELS,
            transposed: Some(block),
        }
    }
}

/// Input channels with those that fill the last block.
fn rows(input_channels: usize) -> usize {
    input_channels.next_multiple_of(CHANNELS)
}

/// Transforms the filters of some blocks of output channels.
struct Job<'a, const M: usize> {
    filters: Filters<'a>,
    outputs: Range<usize>,
    inputs: Range<usize>,
    blocks: Range<usize>,
    stride: usize,
    target: Shared<'a, f32>,
}

impl<const M: usize> Kernel for Job<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Job { filters: Filters { weights, input_channels, .. }, outputs, inputs, blocks, stride, target } = self;
        let rows = rows(inputs.len());
        for block in blocks {
            let target = target.pointer(block * rows * CHANNELS);
            let first = outputs.start + block * CHANNELS;
            let channels = CHANNELS.min(outputs.end - first);
            for row in (0..rows).step_by(CHANNELS) {
                // Input channels that fill the last block have filters of zeros.
                let count = CHANNELS.min(inputs.len().saturating_sub(row));
                let mut taps = [[0.0f32; CHANNELS * CHANNELS]; 9];
                for o in 0..channels {
                    let filters = ((first + o) * input_channels + inputs.start + row) * 9;
                    for (i, filter) in weights[filters..][..count * 9].chunks_exact(9).enumerate() {
                        for t in 0..9 {
                            taps[t][i * CHANNELS + o] = filter[t];
                        }
                    }
                }
                for lane in (0..CHANNELS * CHANNELS).step_by(S::LANES) {
                    // SAFETY: a vector of taps; the frequencies of these filters, which no other job writes.
                    unsafe {
                        let taps = taps.each_ref().map(|taps| s.load(taps.as_ptr().add(lane)));
                        transform_filters::<S, M>(s, taps, target.add(row * CHANNELS + lane), stride);
                    }
                }
            }
        }
    }
}

/// Writes a vector of each frequency, `stride` numbers apart.
///
/// # Safety
/// The target is writable for them.
#[inline(always)]
unsafe fn transform_filters<S: Simd, const M: usize>(s: S, taps: [S::V; 9], target: *mut f32, stride: usize) {
    let alpha = points(M);
    let mut lines = [[s.zero(); 3]; 6];
    for x in 0..3 {
        let column = transform::filter::<S, M>(s, [taps[x], taps[3 + x], taps[6 + x]]);
        for i in 0..alpha {
            lines[i][x] = column[i];
        }
    }
    for i in 0..alpha {
        let frequencies = transform::filter::<S, M>(s, lines[i]);
        for j in 0..alpha {
            // SAFETY: the caller's promise.
            unsafe { s.store(target.add((i * alpha + j) * stride), frequencies[j]) };
        }
    }
}
