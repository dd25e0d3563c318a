//! The schedule of the weight gradient: `dg = Gᵀ [ Σ (A dy) ⊙ (Bᵀ d) ]`, summed over all tiles of the batch.
//!
//! Of three schedules the shape alone selects one:
//! - Where the sums fit into the cache, [`PARTS`] jobs each transform and sum a fixed part of the tiles, and their sums are
//!   added in order.
//! - For few tiles, all are transformed first; then each job sums all frequencies of a block of channels and transforms
//!   the sums back at once.
//! - Else a slice of the input channels is taken after the other, whose sums are few enough for the cache at one frequency:
//!   some megabytes of tiles are transformed at a time, and each job adds one frequency of them to the slice's sums.

use super::gradient::{VECTORS, transform_gradient};
use super::input::{Spectrum, transform_input};
use super::products::PANEL;
use super::staging::staging_len;
use super::tiling::{Planes, Tiling, spread};
use super::transform::{self, points};
use super::{Lanes, Tile};
use crate::panel::panels;
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};
use std::ops::Range;

/// Input channels of a block of sums.
const CHANNELS: usize = 16;
/// Jobs that sum a part of the tiles each.
const PARTS: usize = 8;
/// Numbers in the sums of a part, at most: 1.3 MB.
const PART_NUMBERS: usize = 330_000;
/// Tiles in a block of a part, and numbers in its frequencies, at most: 1.2 MB.
const BLOCK_TILES: usize = 48;
const BLOCK_NUMBERS: usize = 300_000;
/// Tiles that are few: reading them for every block of channels costs less than moving the sums through memory.
const FEW_TILES: usize = 64;
/// Numbers of frequencies that are transformed at a time: 32 MB.
const SHARED_NUMBERS: usize = 8_000_000;
/// Numbers in the sums of a slice at one frequency, at most: 0.8 MB.
const SLICE_NUMBERS: usize = 200_000;
/// Input channels of a slice for which room is kept, at least.
const SLICE: usize = 256;
/// Panels of tiles whose gradients stay in the first cache.
const PANELS: usize = 3;
/// Jobs that the transforms of these are cut into.
const TRANSFORM_JOBS: usize = 8;

/// The gradient at the weights, `[output channel, input channel, 3, 3]`.
pub(super) fn weight_gradient(planes: Planes, tile: Tile, x: &[f32], grad_out: &[f32], grad_weights: &mut [f32]) {
    assert_eq!(grad_weights.len(), planes.output_channels * planes.input_channels * 9, "gradient of the weights");
    let isa = Isa::current();
    let tiling = Tiling::new(planes, tile.outputs(), isa.dispatch(Lanes));
    let pass = Pass { isa, tiling, x, grad_out, grad_weights: Shared::new(grad_weights) };
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
    grad_out: &'a [f32],
    grad_weights: Shared<'a, f32>,
}

impl Pass<'_> {
    fn run<const M: usize>(self) {
        let tiling = &self.tiling;
        let [inputs, outputs] = [tiling.planes.input_channels, tiling.planes.output_channels];
        let sums = Sums::new(tiling, 0..inputs);
        let numbers = tiling.frequencies() * tiling.lanes;
        let most = BLOCK_NUMBERS / ((sums.channels() + sums.outputs()) * numbers);
        let most = most.clamp(1, BLOCK_TILES / tiling.lanes);
        if sums.len() <= PART_NUMBERS && tiling.groups >= PARTS * most {
            let mut parts = Scratch::new(PARTS * sums.len());
            let parts = Shared::new(&mut parts);
            parallel::for_each(PARTS, |part| {
                self.isa.dispatch(Part::<M> { pass: self, sums, part, groups: most, parts });
            });
            parallel::for_each(sums.blocks(), |block| {
                self.isa.dispatch(Finish::<M> { pass: self, sums, block, sources: parts, count: PARTS });
            });
            return;
        }
        let room = |groups: usize| SHARED_NUMBERS / (numbers * groups);
        let few = tiling.groups * tiling.lanes <= FEW_TILES && inputs + outputs <= room(tiling.groups);
        let most = room(inputs.min(SLICE) + sums.outputs()).clamp(1, tiling.groups);
        let slice = if few {
            inputs
        } else {
            let slice = room(most).saturating_sub(sums.outputs()).min(SLICE_NUMBERS / outputs).max(CHANNELS);
            inputs.div_ceil(inputs.div_ceil(slice)).next_multiple_of(CHANNELS)
        };
        let largest = Sums::new(tiling, 0..slice.min(inputs));
        let input_stride = |sums: &Sums, count| Spectrum::new(&sums.slice(), count, tiling.lanes, PANEL).stride;
        let gradient_stride = spread(sums.outputs() * most * tiling.lanes);
        let mut input = Scratch::new(tiling.frequencies() * input_stride(&largest, most));
        let mut gradient = Scratch::new(tiling.frequencies() * gradient_stride);
        let mut all = Scratch::new(if few { 0 } else { largest.len() });
        let (input, gradient, all) = (Shared::new(&mut input), Shared::new(&mut gradient), Shared::new(&mut all));
        for start in (0..inputs).step_by(slice) {
            let sums = Sums::new(tiling, start..inputs.min(start + slice));
            for first in (0..tiling.groups).step_by(most) {
                let count = most.min(tiling.groups - first);
                let input_stride = input_stride(&sums, count);
                let frequencies = Frequencies { first, count, input_stride, gradient_stride, input, gradient };
                // The gradient of all tiles serves the next slices too.
                let transforms = if start > 0 && count == tiling.groups { 1 } else { 2 };
                parallel::for_each(transforms * TRANSFORM_JOBS, |job| {
                    self.isa.dispatch(Transform::<M> { pass: self, sums, frequencies, job });
                });
                if few {
                    parallel::for_each(sums.blocks(), |block| {
                        self.isa.dispatch(WholeBlock::<M> { pass: self, sums, frequencies, block });
                    });
                    return;
                }
                parallel::for_each(tiling.frequencies(), |f| {
                    self.isa.dispatch(Frequency { sums, frequencies, f, all });
                });
            }
            parallel::for_each(sums.blocks(), |block| {
                self.isa.dispatch(Finish::<M> { pass: self, sums, block, sources: all, count: 1 });
            });
        }
    }
}

/// Where the sums of a slice of the input channels lie:
/// `[block][frequency][input channel of the block][2 · LANES output channels]`.
#[derive(Clone, Copy)]
struct Sums {
    /// The first input channel, and how many.
    start: usize,
    input_channels: usize,
    input_blocks: usize,
    output_blocks: usize,
    /// Numbers in a block's row of output channels, frequency, and all.
    row: usize,
    frequency: usize,
    block: usize,
}

impl Sums {
    fn new(tiling: &Tiling, inputs: Range<usize>) -> Self {
        let row = VECTORS * tiling.lanes;
        // One cache line more keeps frequencies from sharing the same few cache sets.
        let frequency = CHANNELS * row + 16;
        Sums {
            start: inputs.start,
            input_channels: inputs.len(),
            input_blocks: inputs.len().div_ceil(CHANNELS),
            output_blocks: tiling.planes.output_channels.div_ceil(row),
            row,
            frequency,
            block: tiling.frequencies() * frequency,
        }
    }

    fn blocks(&self) -> usize {
        self.input_blocks * self.output_blocks
    }

    fn len(&self) -> usize {
        self.blocks() * self.block
    }

    /// Input channels with those that fill the last register tile.
    fn channels(&self) -> usize {
        self.input_channels.next_multiple_of(8)
    }

    fn outputs(&self) -> usize {
        self.output_blocks * self.row
    }

    /// The slice with the channels that fill its last register tile.
    fn slice(&self) -> Range<usize> {
        self.start..self.start + self.channels()
    }

    /// The block of output channels, and the first input channel of the slice.
    fn place(&self, block: usize) -> (usize, usize) {
        (block / self.input_blocks, block % self.input_blocks * CHANNELS)
    }
}

/// The frequencies of some groups of tiles, for all channels.
#[derive(Clone, Copy)]
struct Frequencies<'a> {
    first: usize,
    count: usize,
    input_stride: usize,
    gradient_stride: usize,
    input: Shared<'a, f32>,
    gradient: Shared<'a, f32>,
}

/// Sums a part of the tiles for all channels.
struct Part<'a, const M: usize> {
    pass: Pass<'a>,
    sums: Sums,
    part: usize,
    groups: usize,
    parts: Shared<'a, f32>,
}

impl<const M: usize> Kernel for Part<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (Pass { tiling, x, grad_out, .. }, sums) = (&self.pass, &self.sums);
        let cut = |part: usize| part * tiling.groups / PARTS;
        let (start, end) = (cut(self.part), cut(self.part + 1));
        let target = self.parts.pointer(self.part * sums.len());
        let gradient_stride = spread(sums.outputs() * self.groups * S::LANES);
        let input_stride = Spectrum::new(&sums.slice(), self.groups, S::LANES, PANEL).stride;
        let mut staging = Scratch::new(staging_len(tiling, self.groups));
        let mut input = Scratch::new(tiling.frequencies() * input_stride);
        let mut gradient = Scratch::new(tiling.frequencies() * gradient_stride);
        let (input, gradient) = (input.as_mut_ptr(), gradient.as_mut_ptr());
        for first in (start..end).step_by(self.groups) {
            let block = tiling.block(first, self.groups.min(end - first));
            let spectrum = Spectrum::new(&sums.slice(), block.groups, S::LANES, PANEL);
            let panels: Vec<_> = panels(block.groups, PANEL).collect();
            let (channels, outputs) = (0..tiling.planes.input_channels, 0..sums.outputs() / S::LANES);
            // SAFETY: the buffers have the sizes that the layouts say; this job alone writes its part of the sums.
            unsafe {
                transform_input::<S, M>(s, tiling, &block, x, channels, &mut staging, &spectrum, input);
                transform_gradient::<S, M>(s, tiling, &block, grad_out, outputs, gradient, gradient_stride);
                for f in 0..tiling.frequencies() {
                    for index in 0..sums.blocks() {
                        let input = input.add(f * spectrum.stride);
                        let gradient = gradient.add(f * gradient_stride);
                        let target = target.add(index * sums.block + f * sums.frequency);
                        add_products(s, sums, index, input, gradient, (&panels, block.groups), target, first == start);
                    }
                }
            }
        }
    }
}

/// Adds `count` sums of one block of channels and transforms them.
struct Finish<'a, const M: usize> {
    pass: Pass<'a>,
    sums: Sums,
    block: usize,
    sources: Shared<'a, f32>,
    count: usize,
}

impl<const M: usize> Kernel for Finish<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let source = self.sources.pointer(self.block * self.sums.block);
        // SAFETY: all parts were written before; blocks have their own gradients.
        unsafe { transform_sums::<S, M>(s, &self.pass, &self.sums, self.block, source, self.count) }
    }
}

/// Transforms a share of the input's or the gradient's channels.
struct Transform<'a, const M: usize> {
    pass: Pass<'a>,
    sums: Sums,
    frequencies: Frequencies<'a>,
    job: usize,
}

impl<const M: usize> Kernel for Transform<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (Pass { tiling, x, grad_out, .. }, frequencies) = (&self.pass, &self.frequencies);
        let block = tiling.block(frequencies.first, frequencies.count);
        let cut = |count: usize| {
            let (job, size) = (self.job % TRANSFORM_JOBS, count.div_ceil(TRANSFORM_JOBS));
            (job * size).min(count)..((job + 1) * size).min(count)
        };
        // SAFETY: the buffers have the sizes that the layouts say, and every job writes other channels.
        unsafe {
            if self.job < TRANSFORM_JOBS {
                let spectrum = Spectrum::new(&self.sums.slice(), block.groups, S::LANES, PANEL);
                let mut staging = Scratch::new(staging_len(tiling, block.groups));
                let (start, share) = (self.sums.start, cut(self.sums.input_channels));
                let (channels, target) = (start + share.start..start + share.end, frequencies.input.pointer(0));
                transform_input::<S, M>(s, tiling, &block, x, channels, &mut staging, &spectrum, target);
            } else {
                let (vectors, target) = (cut(self.sums.outputs() / S::LANES), frequencies.gradient.pointer(0));
                transform_gradient::<S, M>(s, tiling, &block, grad_out, vectors, target, frequencies.gradient_stride);
            }
        }
    }
}

/// Sums one frequency of all channels.
struct Frequency<'a> {
    sums: Sums,
    frequencies: Frequencies<'a>,
    f: usize,
    all: Shared<'a, f32>,
}

impl Kernel for Frequency<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Frequency { sums, frequencies, f, all } = &self;
        let count = frequencies.count;
        let input = frequencies.input.pointer(f * frequencies.input_stride);
        let gradient = frequencies.gradient.pointer(f * frequencies.gradient_stride);
        let panels: Vec<_> = panels(count, PANEL).collect();
        for (index, panels) in panels.chunks(PANELS).enumerate() {
            let begin = frequencies.first == 0 && index == 0;
            for block in 0..sums.blocks() {
                let target = all.pointer(block * sums.block + f * sums.frequency);
                // SAFETY: the frequencies were written before; this job alone writes the sums of this one.
                unsafe { add_products(s, sums, block, input, gradient, (panels, count), target, begin) };
            }
        }
    }
}

/// Sums all frequencies of one block of channels, and transforms them while they are in the cache.
struct WholeBlock<'a, const M: usize> {
    pass: Pass<'a>,
    sums: Sums,
    frequencies: Frequencies<'a>,
    block: usize,
}

impl<const M: usize> Kernel for WholeBlock<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (sums, frequencies) = (&self.sums, &self.frequencies);
        let mut target = Scratch::new(sums.block);
        let target = target.as_mut_ptr();
        let panels: Vec<_> = panels(frequencies.count, PANEL).collect();
        // SAFETY: the frequencies were written before; this job alone writes the gradients of this block.
        unsafe {
            for f in 0..self.pass.tiling.frequencies() {
                let input = frequencies.input.pointer(f * frequencies.input_stride);
                let gradient = frequencies.gradient.pointer(f * frequencies.gradient_stride);
                let target = target.add(f * sums.frequency);
                add_products(s, sums, self.block, input, gradient, (&panels, frequencies.count), target, true);
            }
            transform_sums::<S, M>(s, &self.pass, sums, self.block, target, 1);
        }
    }
}

/// The products of one frequency for one block of channels, summed over some panels of all `groups` groups in order.
///
/// # Safety
/// The pointers are valid for the frequency of all channels, the target for the frequency of the block's sums.
#[inline(always)]
unsafe fn add_products<S: Simd>(
    s: S,
    sums: &Sums,
    block: usize,
    input: *const f32,
    gradient: *const f32,
    (panels, groups): (&[(usize, usize)], usize),
    target: *mut f32,
    begin: bool,
) {
    let (outer, first) = sums.place(block);
    let rows = CHANNELS.min(sums.channels() - first);
    // SAFETY: the caller's promise.
    unsafe {
        let gradient = gradient.add(outer * groups * S::LANES * sums.row);
        let mut row = 0;
        while row < rows {
            let target = target.add(row * sums.row);
            if S::REGISTERS >= 32 {
                register_tile::<S, 8>(s, sums.channels(), first + row, input, gradient, panels, target, begin);
                row += 8;
            } else {
                register_tile::<S, 4>(s, sums.channels(), first + row, input, gradient, panels, target, begin);
                row += 4;
            }
        }
    }
}

/// # Safety
/// As for [`add_products`], of `R` channels from `first` on.
#[inline(always)]
unsafe fn register_tile<S: Simd, const R: usize>(
    s: S,
    channels: usize,
    first: usize,
    input: *const f32,
    gradient: *const f32,
    panels: &[(usize, usize)],
    target: *mut f32,
    begin: bool,
) {
    let mut sums = [[s.zero(); VECTORS]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for &(start, width) in panels {
            let tiles = width * S::LANES;
            let mut gradient = gradient.add(start * S::LANES * VECTORS * S::LANES);
            let input = input.add(start * channels * S::LANES + first * tiles);
            for tile in 0..tiles {
                let mut y = [s.zero(); VECTORS];
                for v in 0..VECTORS {
                    y[v] = s.load(gradient.add(v * S::LANES));
                }
                for r in 0..R {
                    let x = s.splat(*input.add(r * tiles + tile));
                    for v in 0..VECTORS {
                        sums[r][v] = s.fma(x, y[v], sums[r][v]);
                    }
                }
                gradient = gradient.add(VECTORS * S::LANES);
            }
        }
        for r in 0..R {
            for v in 0..VECTORS {
                let target = target.add((r * VECTORS + v) * S::LANES);
                s.store(target, if begin { sums[r][v] } else { s.add(s.load(target), sums[r][v]) });
            }
        }
    }
}

/// Adds the sums of `count` parts for one block of channels, transforms them, and writes the gradient of the filters.
///
/// # Safety
/// `source` is the block's place in the first part; no other job writes these filters.
#[inline(always)]
unsafe fn transform_sums<S: Simd, const M: usize>(
    s: S,
    pass: &Pass,
    sums: &Sums,
    block: usize,
    source: *const f32,
    count: usize,
) {
    let planes = &pass.tiling.planes;
    let (alpha, lanes) = (points(M), S::LANES);
    let (outer, first) = sums.place(block);
    let channels = CHANNELS.min(sums.input_channels - first);
    // The taps of the block's filters: a row of output channels for every tap of every input channel.
    let mut taps = [0.0f32; CHANNELS * 9 * VECTORS * MAX_LANES];
    for channel in 0..channels {
        for vector in 0..VECTORS {
            let mut rows = [[s.zero(); 3]; 6];
            for i in 0..alpha {
                let mut u = [s.zero(); 6];
                for j in 0..alpha {
                    let offset = (i * alpha + j) * sums.frequency + channel * sums.row + vector * lanes;
                    for part in 0..count {
                        // SAFETY: the caller's promise.
                        u[j] = s.add(u[j], unsafe { s.load(source.add(part * sums.len() + offset)) });
                    }
                }
                rows[i] = transform::filter_gradient::<S, M>(s, u);
            }
            for x in 0..3 {
                let mut column = [s.zero(); 6];
                for i in 0..alpha {
                    column[i] = rows[i][x];
                }
                let gradient = transform::filter_gradient::<S, M>(s, column);
                for y in 0..3 {
                    let row = &mut taps[((channel * 9 + y * 3 + x) * VECTORS + vector) * lanes..][..lanes];
                    // SAFETY: a whole vector.
                    unsafe { s.store(row.as_mut_ptr(), gradient[y]) };
                }
            }
        }
    }
    for vector in 0..VECTORS {
        let output = (outer * VECTORS + vector) * lanes;
        let outputs = lanes.min(planes.output_channels.saturating_sub(output));
        if outputs == 0 {
            break;
        }
        for row in (0..channels * 9).step_by(lanes) {
            let rows = lanes.min(channels * 9 - row);
            let mut filters = [0.0f32; MAX_LANES * MAX_LANES];
            // SAFETY: `rows` rows of taps, `outputs` rows of filters; the target is inside these filters.
            unsafe {
                let source = taps[(row * VECTORS + vector) * lanes..].as_ptr();
                s.transpose(source, sums.row, rows, outputs, filters.as_mut_ptr(), MAX_LANES);
                for o in 0..outputs {
                    let target = ((output + o) * planes.input_channels + sums.start + first) * 9 + row;
                    let v = s.load(filters.as_ptr().add(o * MAX_LANES));
                    s.store_partial(pass.grad_weights.pointer(target), rows, v);
                }
            }
        }
    }
}
