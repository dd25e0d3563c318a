//! The transform of the input: image rows to frequencies with a tile per lane.

use super::staging::{load_columns, packed_row, staging_len};
use super::tiling::{Block, Run, Tiling, spread};
use super::transform::{self, points};
use crate::panel::panels;
use crate::simd::Simd;
use std::ops::Range;

/// Where the transformed input of a block lies: `[frequency][panel][channel][panel's tiles]`, so that a register tile of
/// the product reads one contiguous stretch.
pub(super) struct Spectrum {
    /// Numbers between frequencies.
    pub stride: usize,
    /// The first channel that it holds.
    first: usize,
    /// Per group its first number in this channel, and the numbers between channels.
    groups: Vec<(usize, usize)>,
}

impl Spectrum {
    /// Of a slice of the channels and `groups` groups of `lanes` tiles, in panels of at most `most` groups.
    pub fn new(slice: &Range<usize>, groups: usize, lanes: usize, most: usize) -> Self {
        let channels = slice.len();
        let places = panels(groups, most)
            .flat_map(|(first, width)| (0..width).map(move |v| ((first * channels + v) * lanes, width * lanes)));
        Spectrum { stride: spread(channels * groups * lanes), first: slice.start, groups: places.collect() }
    }
}

/// Transforms tiles of a block: each channel's rows vertically into a strip, straight from the image, then the strip
/// horizontally in registers. `staging` has [`staging_len`] numbers.
///
/// # Safety
/// The spectrum starts at `target` and holds the channels.
#[inline(always)]
pub(super) unsafe fn transform_input<S: Simd, const M: usize>(
    s: S,
    tiling: &Tiling,
    block: &Block,
    x: &[f32],
    channels: Range<usize>,
    staging: &mut [f32],
    spectrum: &Spectrum,
    target: *mut f32,
) {
    let planes = &tiling.planes;
    let [height, width] = planes.input;
    assert_eq!(x.len(), planes.images * planes.input_channels * height * width);
    assert!(block.pitch <= tiling.strip_row(block.groups) && staging.len() >= staging_len(tiling, block.groups));
    let alpha = points(M);
    // Columns in the padding stay zero for all channels, and lanes behind the last tile hold zeros instead of old numbers,
    // which may be NaN.
    let (strip, packed) = staging.split_at_mut(alpha * block.pitch);
    strip.fill(0.0);
    let packed = if tiling.packed { &mut packed[..2 * alpha * packed_row(tiling, block.groups)] } else { &mut [] };
    packed.fill(0.0);
    let (strip, packed) = (strip.as_mut_ptr(), packed.as_mut_ptr());

    // The pixels of tiles, and of the two columns which they share with the next tile.
    let row = packed_row(tiling, block.groups);
    let (tiles, pitch, next) = if tiling.packed { (packed, 2 * row, row) } else { (strip, block.pitch, M) };
    for channel in channels {
        for run in &block.runs {
            let plane = &x[(run.image * planes.input_channels + channel) * height * width..][..height * width];
            // SAFETY: the strip has room for all runs, the packed rows for all tiles and one vector more.
            unsafe {
                transform_rows::<S, M>(s, run, plane, planes.input, strip.add(run.strip), block.pitch);
                if tiling.packed {
                    pack::<S, M>(s, run, strip.add(run.pixels), block.pitch, packed.add(run.before * M), row);
                }
            }
        }
        for (group, &(first, stride)) in spectrum.groups.iter().enumerate() {
            let mut chunks = [tiles.cast_const(); 4];
            for (q, chunk) in chunks.iter_mut().enumerate().take(M) {
                let index = group * M + q;
                let offset = if tiling.packed { index * S::LANES } else { block.chunks[index].strip };
                // SAFETY: inside the strip or the packed rows.
                *chunk = unsafe { tiles.add(offset) };
            }
            // SAFETY: behind every chunk there are `M` more columns or, packed, a second row; the target is the
            // caller's promise.
            unsafe {
                let target = target.add(first + (channel - spectrum.first) * stride);
                for i in 0..alpha {
                    let own = load_columns::<S, M>(s, chunks.map(|p| p.wrapping_add(i * pitch)));
                    let next = load_columns::<S, M>(s, chunks.map(|p| p.wrapping_add(i * pitch + next)));
                    let d = if M == 2 {
                        [own[0], own[1], next[0], next[1], s.zero(), s.zero()]
                    } else {
                        [own[0], own[1], own[2], own[3], next[0], next[1]]
                    };
                    let frequencies = transform::input::<S, M>(s, d);
                    for (j, &v) in frequencies.iter().enumerate().take(alpha) {
                        s.store(target.add((i * alpha + j) * spectrum.stride), v);
                    }
                }
            }
        }
    }
}

/// Transforms the rows that a run reads vertically, vector by vector, into the rows of the strip.
///
/// # Safety
/// The strip has `M + 2` rows at distance `pitch` with room for the run's vectors.
#[inline(always)]
unsafe fn transform_rows<S: Simd, const M: usize>(
    s: S,
    run: &Run,
    plane: &[f32],
    [height, width]: [usize; 2],
    strip: *mut f32,
    pitch: usize,
) {
    let inside = |y: isize| y >= 0 && (y as usize) < height;
    assert!(plane.len() == height * width && run.vectors[1] <= width.div_ceil(S::LANES));
    for vector in run.vectors[0]..run.vectors[1] {
        let column = vector * S::LANES;
        let count = S::LANES.min(width - column);
        let mut d = [s.zero(); 6];
        for (i, d) in d.iter_mut().enumerate().take(points(M)) {
            let y = run.top + i as isize;
            if inside(y) {
                // SAFETY: row `y` has `count` numbers from `column` on.
                *d = unsafe {
                    let source = plane.as_ptr().add(y as usize * width + column);
                    if count == S::LANES { s.load(source) } else { s.load_partial(source, count) }
                };
            }
        }
        let frequencies = transform::input::<S, M>(s, d);
        for (i, &v) in frequencies.iter().enumerate().take(points(M)) {
            // SAFETY: the caller's promise.
            unsafe { s.store(strip.add(i * pitch + (vector - run.vectors[0]) * S::LANES), v) };
        }
    }
}

/// Copies a run from the strip to the place of its tiles in the packed rows, once as it is and once from the next tile on.
/// What it writes behind its tiles, the next run overwrites.
///
/// # Safety
/// The strip has two vectors behind the run; the packed rows (two per row of the strip) have one.
#[inline(always)]
unsafe fn pack<S: Simd, const M: usize>(
    s: S,
    run: &Run,
    strip: *const f32,
    pitch: usize,
    packed: *mut f32,
    row: usize,
) {
    for i in 0..points(M) {
        for x in (0..run.tiles * M).step_by(S::LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                let (source, target) = (strip.add(i * pitch + x), packed.add(2 * i * row + x));
                s.store(target, s.load(source));
                s.store(target.add(row), s.load(source.add(M)));
            }
        }
    }
}
