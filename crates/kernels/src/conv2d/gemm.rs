//! One matrix product per tap: output channels × input channels × the pixels where the tap meets the input.
//!
//! For pointwise layers this is the whole convolution. For dilated ones it leaves out every product with padding, at the price
//! of copying the input once per tap, which many output channels share.

use super::stencil::{Stencil, Tap};
use super::tile::copy_looking_ahead;
use super::write::Write;
use crate::epilogue::Epilogue;
use crate::panel::{CHANNELS, PANEL, Weights, panels};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd};

/// Grid points and output channels of a job: their sums take 344 KB of the second-level cache.
const POINTS: usize = 336;
const OUTPUTS: usize = 256;
/// Input channels of one pass over the sums: a panel of them stays in the first cache beside two blocks of weights, all of a
/// job's pixels and weights in the second.
const INPUTS: usize = 128;
/// Jobs that an image is cut into at least, for the sake of further cores, as long as each has so many products.
const JOBS: usize = 4;
const SMALL_JOB: usize = 1 << 19;

/// Whether this way suits the stencil: enough channels to pay for the copies, and either a single tap or taps far apart, of
/// which a copy of the input with its padding would hold much that few products read.
pub(super) fn suits(stencil: &Stencil) -> bool {
    let [taps] = stencil.phases.as_slice() else { return false };
    let dilated = taps.windows(2).any(|pair| {
        let [rows, columns] = [0, 1].map(|axis| (pair[1].offset[axis] - pair[0].offset[axis]).abs());
        columns > 1 || (columns == 0 && rows > 1)
    });
    stencil.groups == 1
        && stencil.out_stride == [1, 1]
        && stencil.in_channels >= 16
        && stencil.out_channels >= CHANNELS
        && (taps.len() == 1 || (dilated && stencil.in_stride == [1, 1]))
}

/// How a stencil is cut into jobs: by the shape of one image alone.
#[derive(Clone, Debug)]
struct Plan {
    tile: [usize; 2],
    tiles: [usize; 2],
    out_chunk: usize,
    out_chunks: usize,
    in_chunk: usize,
    /// Numbers between the channels of a job's sums.
    sum_plane: usize,
}

impl Plan {
    fn new(stencil: &Stencil, lanes: usize) -> Self {
        let [rows, columns] = stencil.grid;
        let balanced = |all: usize, most: usize| all.div_ceil(all.div_ceil(most));
        let tile = if rows == 1 || columns > 2 * POINTS {
            // Whole panels.
            let width = PANEL * lanes;
            [1, balanced(columns.div_ceil(width), POINTS / width) * width]
        } else {
            [balanced(rows, (POINTS / columns).max(1)), columns]
        };
        let tiles = [rows.div_ceil(tile[0]), columns.div_ceil(tile[1])];
        let blocks = stencil.out_channels.div_ceil(CHANNELS);
        let mut out_chunk = balanced(blocks, OUTPUTS / CHANNELS);
        let work = |out_chunk: usize| tile[0] * tile[1] * out_chunk * CHANNELS * stencil.in_channels;
        while tiles[0] * tiles[1] * blocks.div_ceil(out_chunk) < JOBS && out_chunk > 1 && work(out_chunk) > SMALL_JOB {
            out_chunk = out_chunk.div_ceil(2);
        }
        Plan {
            tile,
            tiles,
            out_chunk: out_chunk * CHANNELS,
            out_chunks: blocks.div_ceil(out_chunk),
            in_chunk: balanced(stencil.in_channels.div_ceil(CHANNELS), INPUTS / CHANNELS) * CHANNELS,
            // Whole vectors behind the last point, and an odd number of cache lines, which spreads the channels over all
            // sets of a cache.
            sum_plane: ((tile[0] * tile[1] + lanes).div_ceil(16) | 1) * 16,
        }
    }
}

/// Runs the stencil, which this way [`suits`], with the weights packed for the forward pass: `transposed` where the stencil is
/// the input gradient. Every number of `target` is written.
pub(super) fn run(
    stencil: &Stencil,
    source: &[f32],
    weights: &[f32],
    transposed: bool,
    epilogue: Epilogue<'_>,
    target: &mut [f32],
) {
    let isa = Isa::current();
    let weights = Taps::new(stencil, weights, transposed);
    isa.dispatch(Start { isa, stencil, source, weights, epilogue, target: Shared::new(target) });
}

/// Makes the plan, which depends on the number of lanes, and runs its jobs.
struct Start<'a> {
    isa: Isa,
    stencil: &'a Stencil,
    source: &'a [f32],
    weights: Taps<'a>,
    epilogue: Epilogue<'a>,
    target: Shared<'a, f32>,
}

impl Kernel for Start<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Start { isa, stencil, source, weights, epilogue, target } = self;
        let plan = Plan::new(stencil, S::LANES);
        let jobs = stencil.batch * plan.tiles[0] * plan.tiles[1] * plan.out_chunks;
        parallel::for_each(jobs, |index| {
            isa.dispatch(Job { stencil, plan: &plan, source, weights, epilogue, target, index });
        });
    }
}

struct Job<'a> {
    stencil: &'a Stencil,
    plan: &'a Plan,
    source: &'a [f32],
    weights: Taps<'a>,
    epilogue: Epilogue<'a>,
    target: Shared<'a, f32>,
    index: usize,
}

impl Kernel for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Job { stencil, plan, source, weights, epilogue, target, index } = self;
        let (index, out_chunk) = (index / plan.out_chunks, index % plan.out_chunks);
        let (index, column) = (index / plan.tiles[1], index % plan.tiles[1]);
        let (image, row) = (index / plan.tiles[0], index % plan.tiles[0]);
        let start = [row * plan.tile[0], column * plan.tile[1]];
        let size = [0, 1].map(|a| plan.tile[a].min(stencil.grid[a] - start[a]));
        let first_out = out_chunk * plan.out_chunk;
        let outputs = plan.out_chunk.min(stencil.out_channels - first_out);
        let in_plane = stencil.in_size[0] * stencil.in_size[1];
        let source = &source[image * stencil.in_channels * in_plane..][..stencil.in_channels * in_plane];

        let mut areas: Vec<Area> =
            stencil.phases[0].iter().filter_map(|&tap| Area::new(stencil, tap, start, size, S::LANES)).collect();
        // A tap that covers the tile sets the sums, which else would have to be zeroed first.
        areas.sort_by_key(|area| !area.whole);
        let mut add = !areas.first().is_some_and(|area| area.whole);
        let mut sums = Scratch::new(plan.out_chunk * plan.sum_plane);
        if add {
            sums.fill(0.0);
        }
        let mut packed = Scratch::new(plan.in_chunk * (size[0] * size[1]).next_multiple_of(S::LANES));
        // Some of the points have sums of their own, which join the others once, since their rows are short.
        let partly = areas.iter().any(|area| !area.whole);
        let mut part = Scratch::new(if partly { plan.out_chunk * plan.sum_plane } else { 0 });
        let blocks = outputs.div_ceil(CHANNELS);
        let mut turned = Scratch::new(weights.of(0).memory::<S>(blocks, plan.in_chunk));
        for area in &areas {
            for channel in (0..stencil.in_channels).step_by(plan.in_chunk) {
                let channels = plan.in_chunk.min(stencil.in_channels - channel);
                let (sums, add) = if area.whole { (&mut sums, add || channel > 0) } else { (&mut part, channel > 0) };
                // SAFETY: the area's pixels lie in each of the planes, `packed` holds all points of the tile for `in_chunk`
                // channels, and either kind of sums all of its points for `out_chunk` channels.
                unsafe {
                    let source = &source[channel * in_plane..][..channels * in_plane];
                    area.pack(s, source.as_ptr(), in_plane, stencil.in_stride[1], channels, packed.as_mut_ptr());
                    let weights = weights.of(area.weight).from(first_out / CHANNELS, channel);
                    let weights = weights.ready(s, blocks, channels, &mut turned);
                    area.multiply(s, &packed, channels, weights, blocks, sums.as_mut_ptr(), plan.sum_plane, add);
                }
            }
            if !area.whole {
                for channel in 0..outputs {
                    let at = channel * plan.sum_plane;
                    area.join(s, &part[at..], &mut sums[at..][..plan.sum_plane]);
                }
            }
            add = true;
        }
        let (sum_plane, sum_stride) = (plan.sum_plane, size[1]);
        let write = Write { stencil, epilogue, target, image, start, size, sum_plane, sum_stride };
        for channel in 0..outputs {
            write.channel(s, first_out + channel, &sums[channel * plan.sum_plane..]);
        }
    }
}

/// The weights as they are packed for the forward pass, `[output channel / 8][tap][input channel][8]`.
#[derive(Clone, Copy)]
struct Taps<'a> {
    data: &'a [f32],
    transposed: bool,
    /// Numbers of one tap's and of all taps' weights in a block of eight output channels.
    one: usize,
    all: usize,
}

impl<'a> Taps<'a> {
    fn new(stencil: &Stencil, data: &'a [f32], transposed: bool) -> Self {
        let inputs = if transposed { stencil.out_channels } else { stencil.in_channels };
        Taps { data, transposed, one: inputs * CHANNELS, all: stencil.kernel_taps * inputs * CHANNELS }
    }

    fn of(&self, tap: usize) -> Weights {
        let start = self.data[tap * self.one..].as_ptr();
        if self.transposed {
            Weights { start, block: CHANNELS * CHANNELS, transposed: Some(self.all) }
        } else {
            Weights { start, block: self.all, transposed: None }
        }
    }
}

/// The points of a tile for which a tap lies inside the input.
struct Area {
    weight: usize,
    /// All points of the tile, whose order is then the sums' own.
    whole: bool,
    panels: Vec<Panel>,
}

/// Consecutive points of an area, as many as some vectors have lanes.
struct Panel {
    /// Its first vector, and how many it has.
    first: usize,
    width: usize,
    points: usize,
    runs: Vec<Run>,
}

/// Points of a panel in one row.
#[derive(Clone, Copy)]
struct Run {
    /// Where they start in the panel, in the tile, and in a plane of the input.
    panel: usize,
    tile: usize,
    source: usize,
    len: usize,
}

impl Area {
    /// `None` where the tap meets nothing but padding.
    fn new(stencil: &Stencil, tap: Tap, start: [usize; 2], size: [usize; 2], lanes: usize) -> Option<Self> {
        let [rows, columns] = [0, 1].map(|a| tap.inside(stencil, a, start[a]..start[a] + size[a]));
        if rows.is_empty() || columns.is_empty() {
            return None;
        }
        let source = |a: usize, q: usize| (q * stencil.in_stride[a]).wrapping_add_signed(tap.offset[a]);
        let all = rows.len() * columns.len();
        let panels = panels(all.div_ceil(lanes), PANEL).map(|(first, width)| {
            let (from, to) = (first * lanes, all.min((first + width) * lanes));
            let mut runs = Vec::new();
            let mut point = from;
            while point < to {
                let (row, column) = (rows.start + point / columns.len(), columns.start + point % columns.len());
                let len = (columns.end - column).min(to - point);
                runs.push(Run {
                    panel: point - from,
                    tile: (row - start[0]) * size[1] + column - start[1],
                    source: source(0, row) * stencil.in_size[1] + source(1, column),
                    len,
                });
                point += len;
            }
            Panel { first, width, points: to - from, runs }
        });
        Some(Area { weight: tap.weight, whole: all == size[0] * size[1], panels: panels.collect() })
    }

    /// Copies what the tap reads of `channels` planes to `[panel][channel][panel's vectors]`, zeros behind the last point.
    ///
    /// # Safety
    /// `source` holds `channels` planes of the input, and `packed` has room for all panels.
    #[inline(always)]
    unsafe fn pack<S: Simd>(
        &self,
        s: S,
        source: *const f32,
        plane: usize,
        step: usize,
        channels: usize,
        packed: *mut f32,
    ) {
        // A channel's points lie side by side, so one channel after the other reads memory in its order.
        for channel in 0..channels {
            for panel in &self.panels {
                let width = panel.width * S::LANES;
                // SAFETY: the panel's row of this channel has `width` numbers, and the runs lie in the plane.
                unsafe {
                    let source = source.add(channel * plane);
                    let target = packed.add(panel.first * S::LANES * channels + channel * width);
                    if panel.points < width {
                        s.store(target.add(width - S::LANES), s.zero());
                    }
                    for run in &panel.runs {
                        copy_looking_ahead(s, source.add(run.source), step, target.add(run.panel), run.len, plane);
                    }
                }
            }
        }
    }

    /// Sets or adds to the sums of some blocks of output channels, point after point of the area, the products with the packed input.
    ///
    /// # Safety
    /// `packed` comes from [`Area::pack`], the weights are those of the blocks; `sums` has `plane` numbers for every output
    /// channel, at least a vector more than the tile has points.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        s: S,
        packed: &[f32],
        channels: usize,
        weights: Weights,
        blocks: usize,
        sums: *mut f32,
        plane: usize,
        add: bool,
    ) {
        // Each panel serves all blocks of weights while it is in the first cache.
        for p in &self.panels {
            for block in 0..blocks {
                // SAFETY: the caller's promise.
                unsafe {
                    let input = packed.as_ptr().add(p.first * S::LANES * channels);
                    let sums = sums.add(block * CHANNELS * plane + p.first * S::LANES);
                    weights.product(s, block, p.width, input, channels, sums, plane, add);
                }
            }
        }
    }

    /// Adds a channel's sums of this area to those of the tile.
    #[inline(always)]
    fn join<S: Simd>(&self, s: S, part: &[f32], sums: &mut [f32]) {
        for p in &self.panels {
            for run in &p.runs {
                let from = &part[p.first * S::LANES + run.panel..][..run.len];
                let to = &mut sums[run.tile..][..run.len];
                // SAFETY: both slices have `len` numbers.
                unsafe { add_to(s, from.as_ptr(), to.as_mut_ptr(), run.len) };
            }
        }
    }
}

/// Adds `count` numbers.
///
/// # Safety
/// Both pointers are valid for them.
#[inline(always)]
unsafe fn add_to<S: Simd>(s: S, from: *const f32, to: *mut f32, count: usize) {
    for i in (0..count).step_by(S::LANES) {
        // SAFETY: all accesses end at `count`.
        unsafe {
            let n = (count - i).min(S::LANES);
            if n == S::LANES {
                s.store(to.add(i), s.add(s.load(to.add(i)), s.load(from.add(i))));
            } else {
                let sum = s.add(s.load_partial(to.add(i), n), s.load_partial(from.add(i), n));
                s.store_partial(to.add(i), n, sum);
            }
        }
    }
}
