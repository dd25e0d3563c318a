//! The schedule of a convolution: which job transforms and multiplies what.

use super::input::{Spectrum, transform_input};
use super::output::transform_output;
use super::products::{CHANNELS, PANEL, SUMMED, multiply};
use super::staging::staging_len;
use super::tiling::{Planes, Tiling, spread};
use super::weights::{Filters, TransformedWeights};
use super::{Lanes, Tile};
use crate::epilogue::Epilogue;
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd};
use std::ops::Range;

/// Tiles in a block: enough to amortise reading the weights, and three vectors of AVX-512, as wide as a register tile.
const BLOCK_TILES: usize = 48;
/// Numbers of a block's transformed input, at most: 1.8 MB, for a second-level cache of 2 MB.
const BLOCK_NUMBERS: usize = 450_000;
/// Output channels whose products are transformed back at once.
const BLOCK_CHANNELS: usize = 64;
/// A batch of fewer blocks than this, or of larger ones, is cut along channels and frequencies instead.
const FEW_BLOCKS: usize = 8;
/// Numbers of transformed input and products that are cut this way at once: 32 MB.
const SHARED_NUMBERS: usize = 8_000_000;
/// Jobs that the channels of such a batch are cut into.
const CHANNEL_JOBS: usize = 8;

/// A convolution by tiles, with the filters as they are or, for the input gradient, `flipped`. `x` and `out` have the numbers
/// of the planes.
pub(super) fn convolve(
    planes: Planes,
    x: &[f32],
    weights: &TransformedWeights,
    flipped: bool,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    let found = if flipped {
        (weights.output_channels, weights.input_channels)
    } else {
        (weights.input_channels, weights.output_channels)
    };
    let expected = (planes.input_channels, planes.output_channels);
    assert_eq!(found, expected, "channels of the transformed weights");
    assert_eq!(out.len(), planes.images * planes.output_channels * planes.output[0] * planes.output[1], "output");
    assert!(epilogue.residual.is_none_or(|residual| residual.len() == out.len()), "residual as large as the output");
    let isa = Isa::current();
    let tiling = Tiling::new(planes, weights.tile.outputs(), isa.dispatch(Lanes));
    let pass = Pass { isa, tiling, x, weights, flipped, epilogue, out: Shared::new(out) };
    match weights.tile {
        Tile::F2 => pass.run::<2>(),
        Tile::F4 => pass.run::<4>(),
    }
}

#[derive(Clone, Copy)]
struct Pass<'a> {
    isa: Isa,
    tiling: Tiling,
    x: &'a [f32],
    weights: &'a TransformedWeights,
    flipped: bool,
    epilogue: Epilogue<'a>,
    out: Shared<'a, f32>,
}

impl Pass<'_> {
    /// One frequency's weights for the channels of the result from `first` on.
    fn filters(&self, frequency: usize, first: usize) -> Filters {
        if self.flipped { self.weights.flipped(frequency, first) } else { self.weights.forward(frequency, first) }
    }

    fn run<const M: usize>(self) {
        let tiling = &self.tiling;
        let per_group = tiling.frequencies() * tiling.lanes;
        let count = BLOCK_TILES / tiling.lanes;
        let blocks = tiling.groups.div_ceil(count);
        if blocks >= FEW_BLOCKS && count * per_group * tiling.planes.input_channels <= BLOCK_NUMBERS {
            parallel::for_each(blocks, |i| self.isa.dispatch(WholeBlock::<M> { pass: self, first: i * count, count }));
        } else {
            let cut = Cut::new(tiling);
            (0..tiling.groups).step_by(cut.groups).for_each(|first| self.shared_groups::<M>(first, cut));
        }
    }

    /// Some groups whose work is shared by all threads: for each slice of the output channels and each of the input channels
    /// first the input channels, then the frequencies, and in the end the output channels.
    fn shared_groups<const M: usize>(self, first: usize, cut: Cut) {
        let (planes, frequencies, lanes) = (&self.tiling.planes, self.tiling.frequencies(), self.tiling.lanes);
        let slices = |all: usize, size: usize| (0..all).step_by(size).map(move |c| c..all.min(c + size));
        let products_stride = spread(cut.outputs.next_multiple_of(CHANNELS) * cut.groups * lanes);
        let mut input = Scratch::new(frequencies * Spectrum::new(&(0..cut.inputs), cut.groups, lanes, PANEL).stride);
        let mut products = Scratch::new(frequencies * products_stride);
        let (input, products) = (Shared::new(&mut input), Shared::new(&mut products));
        for outputs in &slices(planes.output_channels, cut.outputs).collect::<Vec<_>>() {
            for inputs in &slices(planes.input_channels, cut.inputs).collect::<Vec<_>>() {
                let run = |jobs, work: fn(usize) -> Work| {
                    parallel::for_each(jobs, |job| {
                        let (count, work) = (cut.groups, work(job));
                        let step = Step::<M> {
                            pass: self,
                            first,
                            count,
                            inputs,
                            outputs,
                            products_stride,
                            input,
                            products,
                            work,
                        };
                        self.isa.dispatch(step);
                    });
                };
                // One slice of all input channels is still there.
                if outputs.start == 0 || inputs.len() < planes.input_channels {
                    run(CHANNEL_JOBS, Work::Input);
                }
                run(frequencies, Work::Products);
                if inputs.end == planes.input_channels {
                    run(CHANNEL_JOBS, Work::Output);
                }
            }
        }
    }
}

/// How a batch is cut whose work is shared by all threads.
#[derive(Clone, Copy)]
struct Cut {
    groups: usize,
    inputs: usize,
    outputs: usize,
}

impl Cut {
    /// Rather all tiles of slices of the channels than all channels of some tiles: then the weights are read once. Slices
    /// start at multiples of [`SUMMED`].
    fn new(tiling: &Tiling) -> Self {
        let per_group = tiling.frequencies() * tiling.lanes;
        let all = [tiling.planes.input_channels, tiling.planes.output_channels];
        let least: usize = all.iter().map(|&channels| channels.min(2 * SUMMED)).sum();
        let groups = (SHARED_NUMBERS / (per_group * least)).clamp(1, tiling.groups);
        let room = (SHARED_NUMBERS / (per_group * groups)).max(least);
        let slice = |all: usize, room: usize| if all <= room { all } else { (room / SUMMED).max(1) * SUMMED };
        let smaller = slice(all[0].min(all[1]), room / 2);
        let larger = slice(all[0].max(all[1]), room - smaller);
        let [inputs, outputs] = if all[0] <= all[1] { [smaller, larger] } else { [larger, smaller] };
        Cut { groups, inputs, outputs }
    }
}

/// All the work of one block.
struct WholeBlock<'a, const M: usize> {
    pass: Pass<'a>,
    first: usize,
    count: usize,
}

impl<const M: usize> Kernel for WholeBlock<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pass { tiling, x, epilogue, out, .. } = &self.pass;
        let block = tiling.block(self.first, self.count);
        let planes = &tiling.planes;
        let all = 0..planes.input_channels;
        let spectrum = Spectrum::new(&all, block.groups, S::LANES, PANEL);
        let tiles = block.groups * S::LANES;
        let stride = spread(BLOCK_CHANNELS * tiles);
        let mut staging = Scratch::new(staging_len(tiling, self.count));
        let mut input = Scratch::new(tiling.frequencies() * spectrum.stride);
        let mut products = Scratch::new(tiling.frequencies() * stride);
        let (input, products) = (input.as_mut_ptr(), products.as_mut_ptr());
        // SAFETY: the buffers have the sizes that the layouts say; this job alone writes the pixels of its tiles.
        unsafe {
            transform_input::<S, M>(s, tiling, &block, x, all.clone(), &mut staging, &spectrum, input);
            for first in (0..planes.output_channels).step_by(BLOCK_CHANNELS) {
                let channels = first..planes.output_channels.min(first + BLOCK_CHANNELS);
                for f in 0..tiling.frequencies() {
                    multiply(
                        s,
                        input.add(f * spectrum.stride),
                        block.groups,
                        &all,
                        self.pass.filters(f, first),
                        channels.len().div_ceil(CHANNELS),
                        products.add(f * stride),
                    );
                }
                transform_output::<S, M>(s, tiling, &block, products, stride, channels, epilogue, &mut staging, *out);
            }
        }
    }
}

/// A part of the work of some groups.
struct Step<'a, const M: usize> {
    pass: Pass<'a>,
    first: usize,
    count: usize,
    inputs: &'a Range<usize>,
    outputs: &'a Range<usize>,
    products_stride: usize,
    input: Shared<'a, f32>,
    products: Shared<'a, f32>,
    work: Work,
}

enum Work {
    /// The transform of a share of the input channels.
    Input(usize),
    /// All products of one frequency.
    Products(usize),
    /// The inverse transform of a share of the output channels.
    Output(usize),
}

/// The share of some channels that one of [`CHANNEL_JOBS`] jobs has.
fn share(channels: &Range<usize>, job: usize) -> Range<usize> {
    let size = channels.len().div_ceil(CHANNEL_JOBS);
    let at = |job: usize| channels.end.min(channels.start + job * size);
    at(job)..at(job + 1)
}

impl<const M: usize> Kernel for Step<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Step { inputs, outputs, .. } = self;
        let Pass { tiling, x, epilogue, out, .. } = &self.pass;
        let block = tiling.block(self.first, self.count);
        let spectrum = Spectrum::new(inputs, block.groups, S::LANES, PANEL);
        let tiles = block.groups * S::LANES;
        match self.work {
            Work::Input(job) => {
                let mut staging = Scratch::new(staging_len(tiling, self.count));
                // SAFETY: the buffer has the spectrum's size, and this job alone writes these channels.
                unsafe {
                    let (channels, input) = (share(inputs, job), self.input.pointer(0));
                    transform_input::<S, M>(s, tiling, &block, x, channels, &mut staging, &spectrum, input);
                }
            }
            Work::Products(f) => {
                let weights = self.pass.filters(f, outputs.start);
                let blocks = outputs.len().div_ceil(CHANNELS);
                // SAFETY: the buffers have the sizes that the strides say, and this job alone writes this frequency.
                unsafe {
                    let input = self.input.pointer(f * spectrum.stride);
                    let products = self.products.pointer(f * self.products_stride);
                    multiply(s, input, block.groups, inputs, weights, blocks, products);
                }
            }
            Work::Output(job) => {
                let channels = share(outputs, job);
                let mut staging = Scratch::new(staging_len(tiling, self.count));
                // SAFETY: the products were all written before; this job alone writes the pixels of these channels.
                unsafe {
                    let products = self.products.pointer((channels.start - outputs.start) * tiles);
                    let stride = self.products_stride;
                    let (staging, out) = (&mut staging, *out);
                    transform_output::<S, M>(s, tiling, &block, products, stride, channels, epilogue, staging, out);
                }
            }
        }
    }
}
