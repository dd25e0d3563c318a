//! The direct algorithm: copy a zero-padded tile of the input, run register tiles over it, write with the epilogue.

use super::register_tile::{BLOCK, Sum, TapOffset, block};
use super::stencil::{Stencil, Tap, meets};
use super::tile::Tile;
use super::write::Write;
use crate::epilogue::Epilogue;
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd};

/// Bytes of input that one register tile may read, so that the vectors which all output channels share stay in L1.
const INPUT_BYTES: usize = 32 << 10;
/// Vectors that a register tile of eight channels takes.
const TOGETHER: usize = 3;
/// Sums of one job, so that they stay in L2 while the input channels pass by.
const SUMS: usize = 64 << 10;
/// Operations below which a job is not worth being cut further, for the sake of a second core.
const SMALL_JOB: usize = 1 << 20;

/// How a stencil is cut into jobs: by the shape of one image alone.
#[derive(Clone, Debug)]
struct Plan {
    /// Grid rows and columns of a job, and how many jobs that makes.
    tile: [usize; 2],
    tiles: [usize; 2],
    /// Output channels of a job, a multiple of `BLOCK`, and chunks per group.
    out_chunk: usize,
    out_chunks: usize,
    /// Input channels of one pass over the output.
    in_chunk: usize,
    /// Whether the tile of the input is expanded.
    expanded: bool,
}

impl Plan {
    fn new(stencil: &Stencil, lanes: usize) -> Self {
        let taps = stencil.phases.iter().map(Vec::len).max().unwrap_or(0);
        let [grid_rows, grid_columns] = stencil.grid;
        let phases = stencil.phases.len();
        let all_outputs = stencil.out_channels.next_multiple_of(BLOCK);
        // A pointwise convolution copies the input for few products, so each copy must serve many channels.
        let mut out_chunk = all_outputs.min(if taps > 1 { 64 } else { 256 });
        out_chunk = all_outputs.div_ceil(BLOCK).div_ceil(all_outputs.div_ceil(out_chunk)) * BLOCK;
        let points = (SUMS / (out_chunk * phases)).max(TOGETHER * lanes);
        let mut tile = [(points / grid_columns).clamp(1, grid_rows.max(1)), grid_columns];
        if grid_columns > 2 * points {
            // Whole groups of three vectors.
            tile[1] = (points / (TOGETHER * lanes)) * TOGETHER * lanes;
        }
        let count = |tile: [usize; 2], out_chunk: usize| {
            grid_rows.div_ceil(tile[0])
                * grid_columns.div_ceil(tile[1])
                * all_outputs.div_ceil(out_chunk)
                * stencil.groups
        };
        let work = |tile: [usize; 2], out_chunk: usize| {
            2 * tile[0] * tile[1] * out_chunk * stencil.in_channels * stencil.phases.iter().map(Vec::len).sum::<usize>()
        };
        while count(tile, out_chunk) < 4 && work(tile, out_chunk) > SMALL_JOB {
            if tile[0] * tile[1] > 16 * lanes && tile[0] > 1 {
                tile[0] = tile[0].div_ceil(2);
            } else if out_chunk > BLOCK {
                out_chunk = (out_chunk / BLOCK).div_ceil(2) * BLOCK;
            } else {
                break;
            }
        }
        // Equal parts instead of a small rest.
        tile[0] = grid_rows.div_ceil(grid_rows.div_ceil(tile[0]));
        let [rows, columns] = [0, 1].map(|axis| {
            let mut offsets: Vec<_> = stencil.phases.iter().flatten().map(|t| t.offset[axis]).collect();
            offsets.sort_unstable();
            offsets.dedup();
            offsets
        });
        let reach = columns.last().map_or(0, |last| (last - columns[0]) as usize) / stencil.in_stride[1];
        let vectors_by_row = tile[1].div_ceil(lanes) * lanes;
        // More copies of the input are worth it where a fifth of the lanes would idle.
        let expanded = 5 * tile[1] < 4 * vectors_by_row.min(tile[1] + reach);
        let vectors = if expanded { TOGETHER * columns.len() } else { TOGETHER };
        let per_channel = rows.len().max(1) * (vectors * lanes * size_of::<f32>() + if taps > 1 { 64 } else { 0 });
        let chunks = stencil.in_channels.div_ceil((INPUT_BYTES / per_channel).max(8));
        Plan {
            tile,
            tiles: [grid_rows.div_ceil(tile[0]), grid_columns.div_ceil(tile[1])],
            out_chunk,
            out_chunks: all_outputs.div_ceil(out_chunk),
            in_chunk: stencil.in_channels.div_ceil(chunks),
            expanded,
        }
    }
}

/// Runs the stencil; every number of `target` is written.
pub(super) fn run(stencil: &Stencil, source: &[f32], weights: &[f32], epilogue: Epilogue<'_>, target: &mut [f32]) {
    let isa = Isa::current();
    let target = Shared::new(target);
    isa.dispatch(Start { isa, stencil, source, weights, epilogue, target });
}

/// Makes the plan, which depends on the number of lanes, and runs its jobs.
struct Start<'a> {
    isa: Isa,
    stencil: &'a Stencil,
    source: &'a [f32],
    weights: &'a [f32],
    epilogue: Epilogue<'a>,
    target: Shared<'a, f32>,
}

impl Kernel for Start<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Start { isa, stencil, source, weights, epilogue, target } = self;
        let plan = Plan::new(stencil, S::LANES);
        let taps = stencil.phases.iter().flatten().copied();
        let layout = Tile::new(plan.tile, stencil.in_stride, taps, S::LANES, plan.expanded);
        let jobs = stencil.batch * stencil.groups * plan.out_chunks * plan.tiles[0] * plan.tiles[1];
        parallel::for_each(jobs, |index| {
            isa.dispatch(Job { stencil, plan: &plan, layout: &layout, source, weights, epilogue, target, index });
        });
    }
}

struct Job<'a> {
    stencil: &'a Stencil,
    plan: &'a Plan,
    layout: &'a Tile,
    source: &'a [f32],
    weights: &'a [f32],
    epilogue: Epilogue<'a>,
    target: Shared<'a, f32>,
    index: usize,
}

impl Kernel for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Job { stencil, plan, layout, source, weights, epilogue, target, index } = self;
        let (index, column) = (index / plan.tiles[1], index % plan.tiles[1]);
        let (index, row) = (index / plan.tiles[0], index % plan.tiles[0]);
        let (index, out_chunk) = (index / plan.out_chunks, index % plan.out_chunks);
        let (image, group) = (index / stencil.groups, index % stencil.groups);
        let start = [row * plan.tile[0], column * plan.tile[1]];
        let size = [0, 1].map(|a| plan.tile[a].min(stencil.grid[a] - start[a]));
        let first_out = out_chunk * plan.out_chunk;
        let outputs = plan.out_chunk.min(stencil.out_channels - first_out);

        // Taps that meet only padding in these rows cost nothing: large dilations on small maps have many.
        let phases: Vec<Vec<Tap>> = stencil
            .phases
            .iter()
            .map(|taps| {
                let (from, to) = (start[0], start[0] + size[0]);
                let reads = |tap: &&Tap| meets(tap.offset[0], from, to, stencil.in_stride[0], stencil.in_size[0]);
                taps.iter().filter(reads).copied().collect()
            })
            .collect();
        let tap_weights = stencil.in_channels * BLOCK;
        let offsets: Vec<Vec<TapOffset>> = phases
            .iter()
            .map(|taps| {
                taps.iter().map(|&t| TapOffset { input: layout.offset(t), weight: t.weight * tap_weights }).collect()
            })
            .collect();
        let rows_read = layout.rows_read(size[0], phases.iter().flatten().copied());

        // Vectors either start anew in every row, or run on over the columns between the rows: whichever needs fewer.
        let by_row = size[1].div_ceil(S::LANES);
        let flat = ((size[0] - 1) * layout.row_stride + size[1]).div_ceil(S::LANES);
        let (vectors, sum_stride) =
            if flat < size[0] * by_row { (flat, layout.row_stride) } else { (size[0] * by_row, by_row * S::LANES) };
        let starts: Vec<usize> = if flat < size[0] * by_row {
            (0..flat).map(|v| v * S::LANES).collect()
        } else {
            (0..size[0] * by_row).map(|v| v / by_row * layout.row_stride + v % by_row * S::LANES).collect()
        };
        // An odd number of cache lines, as in the tile. Rows that run on end anywhere, and the last pass reads whole vectors.
        let sum_plane = (((vectors + 1) * S::LANES).div_ceil(16) | 1) * 16;

        let blocks = outputs.div_ceil(BLOCK);
        let mut tile = Scratch::new(plan.in_chunk * layout.plane + 2 * S::LANES);
        let mut sums = Scratch::new(blocks * offsets.len() * BLOCK * sum_plane);
        let block_weights = stencil.kernel_taps * tap_weights;
        let all_blocks = stencil.out_channels.div_ceil(BLOCK);
        let in_plane = stencil.in_size[0] * stencil.in_size[1];
        for channel in (0..stencil.in_channels).step_by(plan.in_chunk) {
            let channels = plan.in_chunk.min(stencil.in_channels - channel);
            let from = ((image * stencil.groups + group) * stencil.in_channels + channel) * in_plane;
            let source = &source[from..from + channels * in_plane];
            // SAFETY: `source` holds the planes and `tile` was made for `in_chunk` planes of the layout.
            unsafe {
                let (source, tile) = (source.as_ptr(), tile.as_mut_ptr());
                layout.fill(s, source, stencil.in_size, channels, start, &rows_read, tile);
            }
            for (phase, taps) in offsets.iter().enumerate() {
                let sum = Sum { channels, plane: layout.plane, weight_plane: BLOCK, taps };
                // Groups of vectors outside, output channels inside: the input stays in L1 and the weights stream.
                // With one block of channels nothing is read twice, and wider register tiles serve its few channels.
                let together = if blocks > 1 { TOGETHER } else { vectors.max(1) };
                for first in (0..vectors).step_by(together) {
                    let starts = &starts[first..vectors.min(first + together)];
                    for b in 0..blocks {
                        let w = (group * all_blocks + first_out / BLOCK + b) * block_weights;
                        let weights = &weights[w..w + block_weights][channel * BLOCK..];
                        let to = (b * offsets.len() + phase) * BLOCK * sum_plane + first * S::LANES;
                        let sums = &mut sums[to..];
                        // SAFETY: every start is a grid point of the tile or a place between its rows, to which the
                        // layout lets vectors and taps be added; weights and sums were just cut to what is needed.
                        unsafe {
                            block(
                                s,
                                sum,
                                outputs - b * BLOCK,
                                tile.as_ptr(),
                                starts,
                                weights.as_ptr(),
                                sums.as_mut_ptr(),
                                sum_plane,
                                channel > 0,
                            );
                        }
                    }
                }
            }
        }

        let write = Write { stencil, epilogue, target, image, start, size, sum_plane, sum_stride };
        for channel in 0..outputs {
            let first = (channel / BLOCK * offsets.len() * BLOCK + channel % BLOCK) * sum_plane;
            write.channel(s, group * stencil.out_channels + first_out + channel, &sums[first..]);
        }
    }
}
