//! Between vectors of pixels and vectors with a tile per lane.

use super::tiling::Tiling;
use super::transform::points;
use crate::simd::Simd;

/// Numbers of work memory that the pixels of a block of `groups` groups pass through.
pub(super) fn staging_len(tiling: &Tiling, groups: usize) -> usize {
    let packed = if tiling.packed { 2 * packed_row(tiling, groups) } else { 0 };
    points(tiling.m) * (tiling.strip_row(groups) + packed)
}

/// A row of the packed pixels of a block. The vector behind the last tile takes what the last run writes too much.
pub(super) fn packed_row(tiling: &Tiling, groups: usize) -> usize {
    (groups * tiling.m + 1) * tiling.lanes
}

/// Loads `M` chunks with a tile per lane: entry `j` of the result is column `j` of the tiles.
///
/// # Safety
/// `LANES` numbers are readable from the first `M` pointers.
#[inline(always)]
pub(super) unsafe fn load_columns<S: Simd, const M: usize>(s: S, chunks: [*const f32; 4]) -> [S::V; 4] {
    // SAFETY: the caller's promise.
    let chunk = |i: usize| unsafe { s.load(chunks[i]) };
    to_columns::<S, M>(s, std::array::from_fn(|i| if i < M { chunk(i) } else { s.zero() }))
}

/// `M` chunks of pixels to `M` columns of tiles.
#[inline(always)]
pub(super) fn to_columns<S: Simd, const M: usize>(s: S, chunks: [S::V; 4]) -> [S::V; 4] {
    if M == 2 {
        let (even, odd) = s.unzip4(chunks[0], chunks[1]);
        [even, odd, s.zero(), s.zero()]
    } else {
        s.transpose4(chunks)
    }
}

/// The inverse of [`to_columns`].
#[inline(always)]
pub(super) fn to_chunks<S: Simd, const M: usize>(s: S, columns: [S::V; 4]) -> [S::V; 4] {
    if M == 2 {
        let (first, second) = s.zip4(columns[0], columns[1]);
        [first, second, s.zero(), s.zero()]
    } else {
        s.transpose4(columns)
    }
}
