//! A zero-padded copy of a part of the input, in which every tap is a constant distance.

use super::stencil::Tap;
use crate::simd::Simd;

/// The layout of a tile: `[channel][row phase][column plane][row][column]`.
///
/// With an input stride `s`, neighbouring grid points lie `s` pixels apart: rows and columns are split into their `s`
/// phases while they are copied, after which neighbours are neighbours again. Phases that no tap reads are left out.
#[derive(Clone, Debug)]
pub(super) struct Tile {
    stride: [usize; 2],
    /// Smallest offset of a tap: where the tile starts relative to its first grid point.
    origin: [isize; 2],
    /// Position of a row phase among the used ones.
    row_phases: Vec<Option<usize>>,
    /// Where each column plane starts relative to the origin: at its phase, or at its tap.
    columns: Vec<usize>,
    expanded: bool,
    /// Rows of one phase: those of the grid, and the reach of the taps.
    rows: usize,
    pub row_stride: usize,
    /// Distance of two channels.
    pub plane: usize,
}

impl Tile {
    /// A layout for up to `grid` points, read by `taps`; vectors of `lanes` numbers may start at every grid point.
    ///
    /// An `expanded` tile has one column plane per horizontal offset of a tap and no padding between the rows, so that
    /// vectors may run on from row to row: more copies, but no idle lanes.
    pub fn new(
        grid: [usize; 2],
        stride: [usize; 2],
        taps: impl Iterator<Item = Tap> + Clone,
        lanes: usize,
        expanded: bool,
    ) -> Self {
        let origin = [0, 1].map(|a| taps.clone().map(|t| t.offset[a]).min().unwrap_or(0));
        let mut row_phases = vec![None; stride[0]];
        let mut columns = Vec::new();
        let mut used = 0;
        let mut size = grid;
        for tap in taps {
            let u = [0, 1].map(|a| (tap.offset[a] - origin[a]) as usize);
            if row_phases[u[0] % stride[0]].is_none() {
                row_phases[u[0] % stride[0]] = Some(used);
                used += 1;
            }
            size[0] = size[0].max(grid[0] + u[0] / stride[0]);
            let column = if expanded { u[1] } else { u[1] % stride[1] };
            if !columns.contains(&column) {
                columns.push(column);
            }
            if !expanded {
                size[1] = size[1].max(grid[1] + u[1] / stride[1]);
            }
        }
        // An odd number of cache lines spreads the channels over all sets of a cache; the slack is for vectors that
        // start at the last grid points.
        let lines = (used * columns.len() * size[0] * size[1] + 2 * lanes).div_ceil(16) | 1;
        Tile { stride, origin, row_phases, columns, expanded, rows: size[0], row_stride: size[1], plane: lines * 16 }
    }

    /// Distance of what a tap reads from the place of its grid point in the tile.
    pub fn offset(&self, tap: Tap) -> usize {
        let u = [0, 1].map(|a| (tap.offset[a] - self.origin[a]) as usize);
        let (column, shift) = if self.expanded { (u[1], 0) } else { (u[1] % self.stride[1], u[1] / self.stride[1]) };
        let phase = self.row_phases[u[0] % self.stride[0]].expect("a tap that the tile was made for");
        let plane = self.columns.iter().position(|&c| c == column).expect("a tap that the tile was made for");
        ((phase * self.columns.len() + plane) * self.rows + u[0] / self.stride[0]) * self.row_stride + shift
    }

    /// Which rows of each row phase the taps read for `grid_rows` grid rows; [`Tile::fill`] leaves the others alone.
    pub fn rows_read(&self, grid_rows: usize, taps: impl Iterator<Item = Tap>) -> Vec<bool> {
        let mut read = vec![false; self.stride[0] * self.rows];
        for tap in taps {
            let u = (tap.offset[0] - self.origin[0]) as usize;
            let first = u % self.stride[0] * self.rows + u / self.stride[0];
            read[first..first + grid_rows].fill(true);
        }
        read
    }

    /// Copies `channels` planes of `size` pixels into the tile whose first grid point is `start`.
    ///
    /// # Safety
    /// `source` is valid for `channels` planes, `target` for `channels · self.plane` numbers; `rows_read` comes from
    /// [`Tile::rows_read`].
    #[inline(always)]
    pub unsafe fn fill<S: Simd>(
        &self,
        s: S,
        source: *const f32,
        size: [usize; 2],
        channels: usize,
        start: [usize; 2],
        rows_read: &[bool],
        target: *mut f32,
    ) {
        let first = [0, 1].map(|a| (start[a] * self.stride[a]) as isize + self.origin[a]);
        for (phase_y, used) in self.row_phases.iter().enumerate() {
            let Some(phase) = used else { continue };
            for (plane, &column) in self.columns.iter().enumerate() {
                let step = self.stride[1] as isize;
                let left = first[1] + column as isize;
                // Columns before `low` and from `high` on lie in the padding.
                let low = ((-left + step - 1).div_euclid(step)).clamp(0, self.row_stride as isize) as usize;
                let high = ((size[1] as isize - left + step - 1).div_euclid(step))
                    .clamp(low as isize, self.row_stride as isize) as usize;
                let base = (phase * self.columns.len() + plane) * self.rows * self.row_stride;
                for channel in 0..channels {
                    for row in 0..self.rows {
                        if !rows_read[phase_y * self.rows + row] {
                            continue;
                        }
                        let y = first[0] + (row * self.stride[0] + phase_y) as isize;
                        // SAFETY: the row lies inside the tile's plane of this channel, and columns `low..high` of row
                        // `y` inside the image.
                        unsafe {
                            let to = target.add(channel * self.plane + base + row * self.row_stride);
                            if y < 0 || y >= size[0] as isize || high == low {
                                zero(s, to, self.row_stride);
                                continue;
                            }
                            zero(s, to, low);
                            let from = source
                                .add((channel * size[0] + y as usize) * size[1])
                                .offset(left + low as isize * step);
                            copy_looking_ahead(s, from, self.stride[1], to.add(low), high - low, size[0] * size[1]);
                            zero(s, to.add(high), self.row_stride - high);
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// `to` is valid for `count` numbers.
#[inline(always)]
unsafe fn zero<S: Simd>(s: S, to: *mut f32, count: usize) {
    let mut i = 0;
    // SAFETY: all accesses end at `count`.
    unsafe {
        while i + S::LANES <= count {
            s.store(to.add(i), s.zero());
            i += S::LANES;
        }
        if i < count {
            s.store_partial(to.add(i), count - i, s.zero());
        }
    }
}

/// Numbers in a cache line.
const LINE: usize = 16;

/// As [`copy_strided`], and asks for the numbers `ahead` of these, the next channel's: each channel's begin where no hardware
/// would look for them.
///
/// # Safety
/// As for [`copy_strided`].
#[inline(always)]
pub(crate) unsafe fn copy_looking_ahead<S: Simd>(
    s: S,
    from: *const f32,
    step: usize,
    to: *mut f32,
    count: usize,
    ahead: usize,
) {
    for i in (0..count * step).step_by(LINE) {
        s.prefetch(from.wrapping_add(ahead + i));
    }
    // SAFETY: the caller's promise.
    unsafe { copy_strided(s, from, step, to, count) };
}

/// Copies every `step`-th number.
///
/// # Safety
/// `to` is valid for `count` numbers, `from` for `(count - 1) · step + 1`.
#[inline(always)]
pub(crate) unsafe fn copy_strided<S: Simd>(s: S, from: *const f32, step: usize, to: *mut f32, count: usize) {
    let mut i = 0;
    // SAFETY: the vector loops read up to `2 · (i + LANES) - 1 <= (count - 1) · 2 + 1` numbers and write up to `count`.
    unsafe {
        match step {
            1 => {
                while i + S::LANES <= count {
                    s.store(to.add(i), s.load(from.add(i)));
                    i += S::LANES;
                }
                if i < count && count >= S::LANES {
                    // Some numbers once more: faster than a part of a vector.
                    s.store(to.add(count - S::LANES), s.load(from.add(count - S::LANES)));
                } else if i < count {
                    s.store_partial(to.add(i), count, s.load_partial(from.add(i), count));
                }
            }
            2 => {
                while i + S::LANES < count {
                    let (even, _) = s.deinterleave(s.load(from.add(2 * i)), s.load(from.add(2 * i + S::LANES)));
                    s.store(to.add(i), even);
                    i += S::LANES;
                }
                for i in i..count {
                    *to.add(i) = *from.add(2 * i);
                }
            }
            _ => {
                for i in 0..count {
                    *to.add(i) = *from.add(i * step);
                }
            }
        }
    }
}
