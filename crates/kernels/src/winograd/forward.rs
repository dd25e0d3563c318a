//! The schedule of a convolution: which job transforms and multiplies what.

use super::input::{Spectrum, transform_input};
use super::output::transform_output;
use super::products::{CHANNELS, PANEL, SUMMED, multiply};
use super::staging::staging_len;
use super::tiling::{Block, Planes, Tiling, spread};
use super::weights::{TransformedWeights, Weights};
use super::{Lanes, Tile};
use crate::epilogue::Epilogue;
use crate::panel;
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
/// Numbers of weights that a pass transforms at once: 8 MB, which the next part finds in the cache to write to.
const WEIGHT_NUMBERS: usize = 1 << 21;
/// Jobs that the channels of such a batch are cut into.
const CHANNEL_JOBS: usize = 8;

/// A convolution by tiles, with the filters as they are or, for the input gradient, `flipped`. `x` and `out` have the numbers
/// of the planes.
pub(super) fn convolve(
    planes: Planes,
    x: &[f32],
    weights: Weights,
    flipped: bool,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    let (tile, [outputs, inputs]) = match weights {
        Weights::Transformed(weights) => (weights.tile, weights.channels()),
        Weights::Plain(filters) => (filters.tile, filters.channels()),
    };
    let found = if flipped { (outputs, inputs) } else { (inputs, outputs) };
    assert_eq!(found, (planes.input_channels, planes.output_channels), "channels of the weights");
    assert_eq!(out.len(), planes.images * planes.output_channels * planes.output[0] * planes.output[1], "output");
    assert!(epilogue.residual.is_none_or(|residual| residual.len() == out.len()), "residual as large as the output");
    let isa = Isa::current();
    let tiling = Tiling::new(planes, tile.outputs(), isa.dispatch(Lanes));
    let pass = Pass { isa, tiling, x, weights, flipped, epilogue, out: Shared::new(out) };
    match tile {
        Tile::F2 => pass.run::<2>(),
        Tile::F4 => pass.run::<4>(),
    }
}

#[derive(Clone, Copy)]
struct Pass<'a> {
    isa: Isa,
    tiling: Tiling,
    x: &'a [f32],
    weights: Weights<'a>,
    flipped: bool,
    epilogue: Epilogue<'a>,
    out: Shared<'a, f32>,
}

impl Pass<'_> {
    /// One frequency's weights for the channels of the result from `first` on, and those summed over from `summed` on.
    fn frequency(&self, weights: &TransformedWeights, frequency: usize, first: usize, summed: usize) -> panel::Weights {
        if self.flipped { weights.flipped(frequency, first, summed) } else { weights.forward(frequency, first, summed) }
    }

    /// Calls `work` with the weights for some channels of the result and some that are summed over, or with one part of the
    /// former after the other where they must be transformed first.
    fn with_weights(
        &self,
        outputs: &Range<usize>,
        inputs: &Range<usize>,
        mut work: impl FnMut(&TransformedWeights, &Range<usize>),
    ) {
        match self.weights {
            Weights::Transformed(weights) => work(weights, outputs),
            Weights::Plain(filters) => {
                let parts = (self.tiling.frequencies() * inputs.len() * outputs.len()).div_ceil(WEIGHT_NUMBERS);
                let size = outputs.len().div_ceil(parts).next_multiple_of(CHANNELS);
                for start in outputs.clone().step_by(size) {
                    let part = start..outputs.end.min(start + size);
                    let [outputs, inputs] = if self.flipped { [inputs, &part] } else { [&part, inputs] };
                    work(&filters.transform(outputs.clone(), inputs.clone()), &part);
                }
            }
        }
    }

    fn run<const M: usize>(self) {
        let tiling = &self.tiling;
        let per_group = tiling.frequencies() * tiling.lanes;
        let count = BLOCK_TILES / tiling.lanes;
        let blocks = tiling.groups.div_ceil(count);
        let whole = blocks >= FEW_BLOCKS && count * per_group * tiling.planes.input_channels <= BLOCK_NUMBERS;
        let cut = Cut::new(tiling);
        let made = match self.weights {
            // More than one block or cut would transform the same filters again.
            Weights::Plain(filters) if whole || cut.groups < tiling.groups => {
                let [outputs, inputs] = filters.channels();
                Some(filters.transform(0..outputs, 0..inputs))
            }
            _ => None,
        };
        let pass = Pass { weights: made.as_ref().map_or(self.weights, Weights::Transformed), ..self };
        match pass.weights {
            Weights::Transformed(weights) if whole => parallel::for_each(blocks, |i| {
                self.isa.dispatch(WholeBlock::<M> { pass, weights, first: i * count, count });
            }),
            _ => (0..tiling.groups).step_by(cut.groups).for_each(|first| pass.shared_groups::<M>(first, cut)),
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
                let count = cut.groups;
                let step = Step { pass: self, first, count, inputs, outputs, products_stride, input, products };
                // One slice of all input channels is still there.
                if outputs.start == 0 || inputs.len() < planes.input_channels {
                    parallel::for_each(CHANNEL_JOBS, |job| self.isa.dispatch(InputStep::<M> { step, job }));
                }
                self.with_weights(outputs, inputs, |weights, part| {
                    parallel::for_each(frequencies, |frequency| {
                        self.isa.dispatch(ProductStep { step, weights, part, frequency });
                    });
                });
                if inputs.end == planes.input_channels {
                    parallel::for_each(CHANNEL_JOBS, |job| self.isa.dispatch(OutputStep::<M> { step, job }));
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
    weights: &'a TransformedWeights,
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
                        self.pass.frequency(self.weights, f, first, 0),
                        channels.len().div_ceil(CHANNELS),
                        products.add(f * stride),
                    );
                }
                transform_output::<S, M>(s, tiling, &block, products, stride, channels, epilogue, &mut staging, *out);
            }
        }
    }
}

/// The work on some groups: a slice of the input channels for one of the output channels.
#[derive(Clone, Copy)]
struct Step<'a> {
    pass: Pass<'a>,
    first: usize,
    count: usize,
    inputs: &'a Range<usize>,
    outputs: &'a Range<usize>,
    products_stride: usize,
    input: Shared<'a, f32>,
    products: Shared<'a, f32>,
}

impl Step<'_> {
    fn spectrum(&self, block: &Block) -> Spectrum {
        Spectrum::new(self.inputs, block.groups, self.pass.tiling.lanes, PANEL)
    }
}

/// The transform of a share of the input channels.
struct InputStep<'a, const M: usize> {
    step: Step<'a>,
    job: usize,
}

impl<const M: usize> Kernel for InputStep<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Step { pass: Pass { tiling, x, .. }, first, count, inputs, input, .. } = &self.step;
        let block = tiling.block(*first, *count);
        let mut staging = Scratch::new(staging_len(tiling, *count));
        let (channels, spectrum) = (share(inputs, self.job), self.step.spectrum(&block));
        // SAFETY: the buffer has the spectrum's size, and this job alone writes these channels.
        unsafe {
            transform_input::<S, M>(s, tiling, &block, x, channels, &mut staging, &spectrum, input.pointer(0));
        }
    }
}

/// All products of a frequency with the weights of a part of the output channels.
struct ProductStep<'a> {
    step: Step<'a>,
    weights: &'a TransformedWeights,
    part: &'a Range<usize>,
    frequency: usize,
}

impl Kernel for ProductStep<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ProductStep { step, weights, part, frequency } = self;
        let Step { pass, inputs, outputs, input, products, .. } = &step;
        let block = pass.tiling.block(step.first, step.count);
        let weights = pass.frequency(weights, frequency, part.start, inputs.start);
        let place = (part.start - outputs.start) * block.groups * S::LANES;
        // SAFETY: the buffers have the sizes that the strides say, and this job alone writes these channels of the frequency.
        unsafe {
            let input = input.pointer(frequency * step.spectrum(&block).stride);
            let products = products.pointer(frequency * step.products_stride + place);
            multiply(s, input, block.groups, inputs, weights, part.len().div_ceil(CHANNELS), products);
        }
    }
}

/// The transform of a share of the output channels.
struct OutputStep<'a, const M: usize> {
    step: Step<'a>,
    job: usize,
}

impl<const M: usize> Kernel for OutputStep<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Step { pass: Pass { tiling, epilogue, out, .. }, first, count, outputs, products, .. } = &self.step;
        let block = tiling.block(*first, *count);
        let (channels, stride) = (share(outputs, self.job), self.step.products_stride);
        let mut staging = Scratch::new(staging_len(tiling, *count));
        // SAFETY: the products were all written before; this job alone writes the pixels of these channels.
        unsafe {
            let products = products.pointer((channels.start - outputs.start) * block.groups * S::LANES);
            transform_output::<S, M>(s, tiling, &block, products, stride, channels, epilogue, &mut staging, *out);
        }
    }
}
/// The share of some channels that one of [`CHANNEL_JOBS`] jobs has.
fn share(channels: &Range<usize>, job: usize) -> Range<usize> {
    let size = channels.len().div_ceil(CHANNEL_JOBS);
    let at = |job: usize| channels.end.min(channels.start + job * size);
    at(job)..at(job + 1)
}
