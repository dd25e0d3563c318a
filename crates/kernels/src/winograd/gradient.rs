//! The transform of the output's gradient: pixels to frequencies with a channel per lane.

use super::staging::{load_columns, packed_row};
use super::tiling::{Block, Tiling};
use super::transform::{self, points};
use crate::scratch::Scratch;
use crate::simd::Simd;
use std::ops::Range;

/// Vectors of output channels in a block of the weight gradient.
pub(super) const VECTORS: usize = 2;

/// Numbers of work memory that [`transform_gradient`] needs.
pub(super) fn gradient_staging_len(tiling: &Tiling, groups: usize) -> usize {
    let packed = if tiling.packed { tiling.m * packed_row(tiling, groups) } else { 0 };
    (tiling.frequencies() * tiling.lanes + packed) * tiling.lanes
}

/// Transforms the tiles of a block for some vectors of output channels, to `[frequency][channels / (2 · LANES)][tile]
/// [2 · LANES]`, zeros behind the last channel; frequencies are `stride` numbers apart.
///
/// # Safety
/// The target is writable for these vectors.
#[inline(always)]
pub(super) unsafe fn transform_gradient<S: Simd, const M: usize>(
    s: S,
    tiling: &Tiling,
    block: &Block,
    grad_out: &[f32],
    vectors: Range<usize>,
    target: *mut f32,
    stride: usize,
) {
    let planes = &tiling.planes;
    let (all, [height, width]) = (planes.output_channels, planes.output);
    assert_eq!(grad_out.len(), planes.images * all * height * width);
    let (alpha, lanes) = (points(M), S::LANES);
    let (tiles, row) = (block.groups * lanes, packed_row(tiling, block.groups));
    let mut staging = Scratch::new(gradient_staging_len(tiling, block.groups));
    let (frequencies, packed) = staging.split_at_mut(alpha * alpha * lanes * lanes);
    // Pixels outside the image stay zero for all channels.
    packed.fill(0.0);
    let (frequencies, packed) = (frequencies.as_mut_ptr(), packed.as_mut_ptr());
    for vector in vectors {
        let first = vector * lanes;
        let channels = lanes.min(all.saturating_sub(first));
        if tiling.packed {
            for channel in 0..channels {
                // SAFETY: there are `M` packed rows for every channel.
                unsafe {
                    pack::<S, M>(s, tiling, block, grad_out, first + channel, packed.add(channel * M * row), row);
                }
            }
        }
        for group in 0..block.groups {
            for channel in 0..channels {
                let mut columns = [[s.zero(); 4]; 4];
                for (r, columns) in columns.iter_mut().enumerate().take(M) {
                    if tiling.packed {
                        let start = packed.wrapping_add((channel * M + r) * row + group * M * lanes).cast_const();
                        let chunks = [0, 1, 2, 3].map(|q| start.wrapping_add(q * lanes));
                        // SAFETY: the `M` chunks lie in the channel's packed row `r`.
                        *columns = unsafe { load_columns::<S, M>(s, chunks) };
                    } else {
                        let mut chunks = [s.zero(); 4];
                        for (q, v) in chunks.iter_mut().enumerate().take(M) {
                            let chunk = &block.chunks[group * M + q];
                            if r < chunk.rows {
                                let plane = (chunk.image * all + first + channel) * height * width;
                                let pixels = &grad_out[plane + chunk.target + r * width..][..chunk.columns];
                                // SAFETY: `columns <= LANES` numbers.
                                *v = unsafe {
                                    if chunk.columns == lanes {
                                        s.load(pixels.as_ptr())
                                    } else {
                                        s.load_partial(pixels.as_ptr(), chunk.columns)
                                    }
                                };
                            }
                        }
                        *columns = super::staging::to_columns::<S, M>(s, chunks);
                    }
                }
                let mut rows = [[s.zero(); 4]; 6];
                for j in 0..M {
                    let mut y = [s.zero(); 4];
                    for r in 0..M {
                        y[r] = columns[r][j];
                    }
                    let column = transform::output_gradient::<S, M>(s, y);
                    for i in 0..alpha {
                        rows[i][j] = column[i];
                    }
                }
                for i in 0..alpha {
                    let row = transform::output_gradient::<S, M>(s, rows[i]);
                    for j in 0..alpha {
                        // SAFETY: one vector for each frequency and channel.
                        unsafe { s.store(frequencies.add(((i * alpha + j) * lanes + channel) * lanes), row[j]) };
                    }
                }
            }
            let (outer, inner) = (vector / VECTORS, vector % VECTORS);
            let start = ((outer * tiles + group * lanes) * VECTORS + inner) * lanes;
            for f in 0..alpha * alpha {
                // SAFETY: `channels` rows of a vector; the target is the caller's promise.
                unsafe {
                    let source = frequencies.add(f * lanes * lanes);
                    let target = target.add(f * stride + start);
                    s.transpose(source, lanes, channels, lanes, target, VECTORS * lanes);
                }
            }
        }
    }
}

/// Moves one channel's pixels of a block together, `M` rows `row` numbers apart.
///
/// # Safety
/// `packed` is writable for them.
#[inline(always)]
unsafe fn pack<S: Simd, const M: usize>(
    s: S,
    tiling: &Tiling,
    block: &Block,
    grad_out: &[f32],
    channel: usize,
    packed: *mut f32,
    row: usize,
) {
    let (planes, [height, width]) = (&tiling.planes, tiling.planes.output);
    for run in &block.runs {
        let plane = (run.image * planes.output_channels + channel) * height * width;
        let columns = (run.tiles * M).min(width - run.column * M);
        for r in 0..M.min(height - run.row * M) {
            let source = &grad_out[plane + (run.row * M + r) * width + run.column * M..][..columns];
            for x in (0..columns).step_by(S::LANES) {
                let count = S::LANES.min(columns - x);
                // SAFETY: `count` numbers from `x` on lie in the source and in the packed row.
                unsafe {
                    let v = s.load_partial(source.as_ptr().add(x), count);
                    s.store_partial(packed.add(r * row + run.before * M + x), count, v);
                }
            }
        }
    }
}
