//! The gradient at the weights: `Σ grad_out[o, q] · x[i, q · stride + offset(tap)]` over all images and grid points `q`.
//!
//! Vectors run over output channels, so the output's gradient is transposed to `[channels / width][point][width]` first;
//! every point then adds one broadcast input per (input channel, tap) to accumulators in registers.
//!
//! Taps far apart are summed one by one where that leaves out many products with padding.

use super::gemm;
use super::stencil::{Stencil, Tap};
use super::tile::Tile;
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};
use std::ops::Range;

/// Points between two additions to the accumulators in memory: their gradients stay in L1.
const POINTS_IN_L1: usize = 128;
/// Jobs to cut a layer into where its sums over the points must be split for it.
const JOBS: usize = 32;
/// Rows (input channel, tap) of a register tile with 32 and with 16 vector registers, two vectors each.
const WIDE_ROWS: usize = 9;
const NARROW_ROWS: usize = 6;

#[inline(always)]
fn register_rows<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { WIDE_ROWS } else { NARROW_ROWS }
}

/// How the work is cut: output channels × input channels × ranges of tiles. Ranges have sums of their own, which are
/// added in order.
#[derive(Clone, Debug)]
struct Plan {
    tile: [usize; 2],
    tiles: [usize; 2],
    out_chunk: usize,
    out_chunks: usize,
    in_chunk: usize,
    in_chunks: usize,
    ranges: usize,
    /// Numbers of one job's sums: `[out_chunk / width][rows][width]`.
    sums: usize,
}

impl Plan {
    /// For one of `passes` passes.
    fn new<S: Simd>(stencil: &Stencil, taps: usize, window: &Window, passes: usize) -> Self {
        let width = 2 * S::LANES;
        let (channels, inputs, points) = if taps > 1 { (64, 32, 1024) } else { (128, 128, 512) };
        let balanced = |all: usize, part: usize| all.div_ceil(all.div_ceil(part));
        let out_chunk = balanced(stencil.out_channels.div_ceil(width), channels / width) * width;
        let in_chunk = balanced(stencil.in_channels, inputs);
        let [rows, columns] = window.size();
        let tile = [balanced(rows, (points / columns).max(1)), balanced(columns, 2 * points)];
        let tiles = [rows.div_ceil(tile[0]), columns.div_ceil(tile[1])];
        let (out_chunks, in_chunks) =
            (stencil.out_channels.div_ceil(out_chunk), stencil.in_channels.div_ceil(in_chunk));
        let parts = stencil.groups * out_chunks * in_chunks;
        let ranges = JOBS.div_ceil(parts * passes).clamp(1, (stencil.batch * tiles[0] * tiles[1]).max(1));
        let sums = out_chunk * (in_chunk * taps).next_multiple_of(register_rows::<S>());
        Plan { tile, tiles, out_chunk, out_chunks, in_chunk, in_chunks, ranges, sums }
    }
}

impl Plan {
    fn parts(&self, stencil: &Stencil) -> usize {
        stencil.groups * self.out_chunks * self.in_chunks
    }
}

/// The grid points that are summed over.
#[derive(Clone, Debug)]
struct Window([Range<usize>; 2]);

impl Window {
    fn whole(stencil: &Stencil) -> Self {
        Window(stencil.grid.map(|size| 0..size))
    }

    /// Those where a tap meets the input.
    fn of_tap(stencil: &Stencil, tap: Tap) -> Self {
        Window([0, 1].map(|a| tap.inside(stencil, a, 0..stencil.grid[a])))
    }

    fn size(&self) -> [usize; 2] {
        [self.0[0].len(), self.0[1].len()]
    }

    fn points(&self) -> usize {
        self.size().iter().product()
    }
}

/// Every number of `grad` is written.
pub(super) fn run(stencil: &Stencil, x: &[f32], grad_out: &[f32], grad: &mut [f32]) {
    let isa = Isa::current();
    let taps = || stencil.phases[0].iter().map(|&tap| (tap, Window::of_tap(stencil, tap))).filter(|t| t.1.points() > 0);
    if taps().count() < stencil.kernel_taps {
        grad.fill(0.0);
    }
    let inside: usize = taps().map(|(_, window)| window.points()).sum();
    let whole = Window::whole(stencil);
    // Each tap alone costs another copy of the input and the gradient.
    let apart = gemm::suits(stencil) && 4 * inside < 3 * stencil.phases[0].len() * whole.points();
    let passes = match inside {
        0 => return,
        _ if apart => taps().map(|(tap, window)| (vec![tap], window)).collect(),
        _ => vec![(stencil.phases[0].clone(), whole)],
    };
    isa.dispatch(Start { isa, stencil, passes, x, grad_out, grad: Shared::new(grad) });
}

struct Start<'a> {
    isa: Isa,
    stencil: &'a Stencil,
    passes: Vec<(Vec<Tap>, Window)>,
    x: &'a [f32],
    grad_out: &'a [f32],
    grad: Shared<'a, f32>,
}

/// Taps that are summed over the same points.
struct Pass {
    taps: Vec<Tap>,
    window: Window,
    plan: Plan,
    layout: Tile,
    /// The first of its jobs, of which every range of every part is one.
    first: usize,
}

impl Kernel for Start<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Start { isa, stencil, passes, x, grad_out, grad } = self;
        let count = passes.len();
        let mut jobs = 0;
        let pass = |(taps, window): (Vec<Tap>, Window)| {
            let plan = Plan::new::<S>(stencil, taps.len(), &window, count);
            let layout = Tile::new(plan.tile, stencil.in_stride, taps.iter().copied(), S::LANES, false);
            let first = jobs;
            jobs += plan.parts(stencil) * plan.ranges;
            Pass { taps, window, plan, layout, first }
        };
        let passes: Vec<Pass> = passes.into_iter().map(pass).collect();
        // All passes have as many taps, and cut the channels alike.
        let Plan { sums: len, .. } = passes[0].plan;
        let mut sums = Scratch::new(jobs * len);
        parallel::for_each_chunk(&mut sums, len, |index, sums| {
            let pass = &passes[passes.partition_point(|pass| pass.first <= index) - 1];
            isa.dispatch(Job { stencil, pass, x, grad_out, sums, index: index - pass.first });
        });
        let sums = &sums[..];
        // All taps of a part at once: an input channel's lie side by side, and memory is written once.
        parallel::for_each(passes[0].plan.parts(stencil), |index| {
            isa.dispatch(Finish { stencil, passes: &passes, sums, grad, index });
        });
    }
}

/// What part of the weights a job's index stands for.
struct Part {
    group: usize,
    first_out: usize,
    outputs: usize,
    first_in: usize,
    inputs: usize,
}

impl Part {
    fn new(stencil: &Stencil, plan: &Plan, index: usize) -> Self {
        let (index, in_chunk) = (index / plan.in_chunks, index % plan.in_chunks);
        let (group, out_chunk) = (index / plan.out_chunks, index % plan.out_chunks);
        let (first_out, first_in) = (out_chunk * plan.out_chunk, in_chunk * plan.in_chunk);
        let outputs = plan.out_chunk.min(stencil.out_channels - first_out);
        Part { group, first_out, outputs, first_in, inputs: plan.in_chunk.min(stencil.in_channels - first_in) }
    }
}

/// The sums of one part of the weights over one range of tiles.
struct Job<'a> {
    stencil: &'a Stencil,
    pass: &'a Pass,
    x: &'a [f32],
    grad_out: &'a [f32],
    sums: &'a mut [f32],
    index: usize,
}

impl Kernel for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Job { stencil, pass: Pass { taps, window, plan, layout, .. }, x, grad_out, sums, index } = self;
        let (part, range) = (Part::new(stencil, plan, index / plan.ranges), index % plan.ranges);
        let width = 2 * S::LANES;
        let step = register_rows::<S>();
        let rows = part.inputs * taps.len();
        // Rows that fill up the last register tile repeat the last one; their sums are never read.
        let offsets: Vec<usize> = (0..rows.next_multiple_of(step))
            .map(|row| row.min(rows - 1))
            .map(|row| row / taps.len() * layout.plane + layout.offset(taps[row % taps.len()]))
            .collect();
        let blocks = part.outputs.div_ceil(width);
        sums.fill(0.0);
        let mut tile = Scratch::new(plan.in_chunk * layout.plane);
        let mut gradients = Scratch::new(blocks * width * plan.tile[0] * plan.tile[1]);
        let in_plane = stencil.in_size[0] * stencil.in_size[1];
        let out_plane = stencil.grid[0] * stencil.grid[1];
        let all = stencil.batch * plan.tiles[0] * plan.tiles[1];
        for t in all * range / plan.ranges..all * (range + 1) / plan.ranges {
            let (t, column) = (t / plan.tiles[1], t % plan.tiles[1]);
            let (image, row) = (t / plan.tiles[0], t % plan.tiles[0]);
            let start = [window.0[0].start + row * plan.tile[0], window.0[1].start + column * plan.tile[1]];
            let size = [0, 1].map(|a| plan.tile[a].min(window.0[a].end - start[a]));
            let points = size[0] * size[1];

            let first = (image * stencil.groups + part.group) * stencil.in_channels + part.first_in;
            let source = &x[first * in_plane..(first + part.inputs) * in_plane];
            let rows_read = layout.rows_read(size[0], taps.iter().copied());
            // SAFETY: `source` holds the planes, and `tile` was made for `in_chunk` planes of the layout.
            unsafe {
                let (source, tile) = (source.as_ptr(), tile.as_mut_ptr());
                layout.fill(s, source, stencil.in_size, part.inputs, start, &rows_read, tile);
            }
            let first = (image * stencil.groups + part.group) * stencil.out_channels + part.first_out;
            let source = &grad_out[first * out_plane..(first + part.outputs) * out_plane];
            for row in 0..size[0] {
                let from = (start[0] + row) * stencil.grid[1] + start[1];
                for channel in (0..part.outputs.next_multiple_of(width)).step_by(S::LANES) {
                    let channels = part.outputs.saturating_sub(channel).min(S::LANES);
                    for x in (0..size[1]).step_by(S::LANES) {
                        let to = (channel / width * points + row * size[1] + x) * width + channel % width;
                        // SAFETY: the block lies inside the planes of `channels` channels (of none: nothing is read)
                        // and inside `gradients`, where each point has `width` numbers.
                        unsafe {
                            s.transpose(
                                source.as_ptr().wrapping_add(channel * out_plane + from + x),
                                out_plane,
                                channels,
                                (size[1] - x).min(S::LANES),
                                gradients[to..].as_mut_ptr(),
                                width,
                            );
                        }
                    }
                }
            }

            let rows_in_l1 = (POINTS_IN_L1 / size[1]).max(1);
            for row in (0..size[0]).step_by(rows_in_l1) {
                let count = [rows_in_l1.min(size[0] - row), size[1]];
                for block in 0..blocks {
                    // The last block may need only one of its two vectors.
                    let both = part.outputs - block * width > S::LANES;
                    let gradients = &gradients[(block * points + row * size[1]) * width..];
                    let sums = &mut sums[block * offsets.len() * width..][..offsets.len() * width];
                    for (offsets, sums) in offsets.chunks_exact(step).zip(sums.chunks_exact_mut(step * width)) {
                        let area = Area { size: count, row_stride: layout.row_stride };
                        // SAFETY: tile and gradients were filled above for these points; `sums` has `step` rows.
                        unsafe {
                            let x = tile.as_ptr().add(row * layout.row_stride);
                            let (y, sums) = (gradients.as_ptr(), sums.as_mut_ptr());
                            match (step, both) {
                                (WIDE_ROWS, true) => register_tile::<S, WIDE_ROWS, 2>(s, area, x, offsets, y, sums),
                                (WIDE_ROWS, false) => register_tile::<S, WIDE_ROWS, 1>(s, area, x, offsets, y, sums),
                                (_, true) => register_tile::<S, NARROW_ROWS, 2>(s, area, x, offsets, y, sums),
                                (_, false) => register_tile::<S, NARROW_ROWS, 1>(s, area, x, offsets, y, sums),
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The points of a register tile: rows of the grid, `row_stride` apart in the input tile.
#[derive(Clone, Copy)]
struct Area {
    size: [usize; 2],
    row_stride: usize,
}

/// Adds to `R` rows of sums, `2 · LANES` wide, the products of all points in their first `V` vectors.
///
/// # Safety
/// `offsets` has `R` entries; `x` plus each of them is readable for all points, and so is `y` for `2 · LANES` numbers per
/// point; `sums` has `R` rows.
#[inline(always)]
unsafe fn register_tile<S: Simd, const R: usize, const V: usize>(
    s: S,
    area: Area,
    x: *const f32,
    offsets: &[usize],
    y: *const f32,
    sums: *mut f32,
) {
    let width = 2 * S::LANES;
    let mut acc = [[s.zero(); V]; R];
    // SAFETY: the caller's promise.
    unsafe {
        let mut y = y;
        let mut rows = [x; R];
        for r in 0..R {
            rows[r] = x.add(offsets[r]);
        }
        for row in 0..area.size[0] {
            let first = row * area.row_stride;
            for column in first..first + area.size[1] {
                let mut g = [s.zero(); V];
                for v in 0..V {
                    g[v] = s.load(y.add(v * S::LANES));
                }
                for r in 0..R {
                    let x = s.splat(*rows[r].add(column));
                    for v in 0..V {
                        acc[r][v] = s.fma(x, g[v], acc[r][v]);
                    }
                }
                y = y.add(width);
            }
        }
        for r in 0..R {
            for v in 0..V {
                let to = sums.add(r * width + v * S::LANES);
                s.store(to, s.add(s.load(to), acc[r][v]));
            }
        }
    }
}

/// Adds the ranges of one part in order and writes it as `[output channel][input channel][tap]`.
struct Finish<'a> {
    stencil: &'a Stencil,
    passes: &'a [Pass],
    sums: &'a [f32],
    grad: Shared<'a, f32>,
    index: usize,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Finish { stencil, passes, sums, grad, index } = self;
        let part = Part::new(stencil, &passes[0].plan, index);
        let taps = passes[0].taps.len();
        let rows = part.inputs * taps;
        let width = 2 * S::LANES;
        let stride = rows.next_multiple_of(register_rows::<S>());
        // Where the rows lie among the gradients of an output channel.
        let place =
            |pass: &Pass, row: usize| (part.first_in + row / taps) * stencil.kernel_taps + pass.taps[row % taps].weight;
        let places: Vec<Vec<usize>> =
            passes.iter().map(|pass| (0..rows).map(|row| place(pass, row)).collect()).collect();
        let mut added = [0.0f32; MAX_LANES * MAX_LANES];
        let mut turned = [0.0f32; MAX_LANES * MAX_LANES];
        for channel in (0..part.outputs).step_by(S::LANES) {
            let channels = (part.outputs - channel).min(S::LANES);
            for row in (0..rows).step_by(S::LANES) {
                let count = (rows - row).min(S::LANES);
                for (Pass { plan, first, .. }, places) in passes.iter().zip(&places) {
                    let places = &places[row..][..count];
                    let sums = &sums[(first + index * plan.ranges) * plan.sums..][..plan.ranges * plan.sums];
                    for r in 0..count {
                        let at = (channel / width * stride + row + r) * width + channel % width;
                        // SAFETY: `at` plus a vector lies inside the sums of every range, row `r` inside `added`.
                        unsafe {
                            let mut sum = s.zero();
                            for range in 0..plan.ranges {
                                sum = s.add(sum, s.load(sums[range * plan.sums + at..][..S::LANES].as_ptr()));
                            }
                            s.store(added.as_mut_ptr().add(r * S::LANES), sum);
                        }
                    }
                    // SAFETY: both arrays hold `LANES` rows of `LANES` numbers.
                    unsafe { s.transpose(added.as_ptr(), S::LANES, count, channels, turned.as_mut_ptr(), S::LANES) };
                    for c in 0..channels {
                        let output = part.group * stencil.out_channels + part.first_out + channel + c;
                        let output = output * stencil.in_channels * stencil.kernel_taps;
                        let from = &turned[c * S::LANES..][..S::LANES];
                        // SAFETY: parts do not overlap, so no other job writes these numbers, which lie side by side where a
                        // kernel has one tap.
                        unsafe {
                            if stencil.kernel_taps == 1 {
                                s.store_partial(grad.pointer(output + places[0]), count, s.load(from.as_ptr()));
                            } else {
                                for (place, x) in places.iter().zip(from) {
                                    *grad.pointer(output + place) = *x;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
