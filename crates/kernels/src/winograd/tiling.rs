//! Which tiles a vector holds, and where their pixels lie.
//!
//! Tiles are numbered over the whole batch: image by image, row by row. A *group* is as many consecutive tiles as a vector
//! has lanes: it covers `M` *chunks* of one vector of columns each, and `transpose4` or `unzip4` turn the `M` vectors of
//! pixels into `M` vectors with a tile per lane. A *block* is a run of groups whose transformed pixels stay in the cache.
//!
//! No chunk spans two rows of tiles, as long as rows are rounded up to whole chunks. Where that wastes much (narrow
//! images, wide vectors) the tiling is *packed*: rows keep their own number of tiles and pixels are moved together in a
//! staging buffer first.

use super::transform::points;

/// The sizes of a convolution with stride 1 and a 3×3 filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planes {
    pub images: usize,
    pub input_channels: usize,
    pub output_channels: usize,
    pub input: [usize; 2],
    pub output: [usize; 2],
    /// Zero rows above and zero columns left of the input.
    pub padding: [usize; 2],
}

/// How a batch is cut into tiles of `m × m` outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    pub planes: Planes,
    pub m: usize,
    pub lanes: usize,
    pub packed: bool,
    pub tiles_per_row: usize,
    rows: usize,
    pub groups: usize,
}

/// Consecutive tiles of one row of tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub image: usize,
    /// The row of tiles, and the first tile in it.
    pub row: usize,
    pub column: usize,
    pub tiles: usize,
    /// The number of tiles of the block before this run.
    pub before: usize,
    /// The input rows and whole vectors of input columns that the run reads; what lies outside is zero.
    pub top: isize,
    pub vectors: [usize; 2],
    /// Where the strip holds the first of these vectors, and the leftmost pixel of the first tile.
    pub strip: usize,
    pub pixels: usize,
}

/// One vector of columns of a group in aligned tilings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunk {
    /// Where the strip holds its leftmost input pixel.
    pub strip: usize,
    /// Where its first output pixel lies in channel 0 of its image, its rows and columns inside the output.
    pub image: usize,
    pub target: usize,
    pub rows: usize,
    pub columns: usize,
}

/// Some consecutive groups.
#[derive(Debug)]
pub(super) struct Block {
    pub groups: usize,
    pub runs: Vec<Run>,
    /// `m` per group; empty in packed tilings.
    pub chunks: Vec<Chunk>,
    /// Numbers in a row of the strip; the last `2 · lanes` stay zero.
    pub pitch: usize,
}

impl Tiling {
    pub fn new(planes: Planes, m: usize, lanes: usize) -> Self {
        let per_chunk = lanes / m;
        let exact = planes.output[1].div_ceil(m);
        let rounded = exact.next_multiple_of(per_chunk);
        // Packing moves every pixel once more, which costs about as much as a tenth of the tiles.
        let packed = rounded * 10 > exact * 11;
        let tiles_per_row = if packed { exact } else { rounded };
        let rows = planes.output[0].div_ceil(m);
        let groups = (planes.images * rows * tiles_per_row).div_ceil(lanes);
        Tiling { planes, m, lanes, packed, tiles_per_row, rows, groups }
    }

    /// The block of `count` groups from `first` on (fewer at the end of the batch).
    pub fn block(&self, first: usize, count: usize) -> Block {
        let groups = count.min(self.groups - first);
        let (m, lanes, planes) = (self.m, self.lanes, &self.planes);
        let end = ((first + groups) * lanes).min(planes.images * self.rows * self.tiles_per_row);
        let mut block = Block { groups, runs: Vec::new(), chunks: Vec::new(), pitch: 0 };
        let mut tile = first * lanes;
        while tile < end {
            let (line, column) = (tile / self.tiles_per_row, tile % self.tiles_per_row);
            let tiles = (self.tiles_per_row - column).min(end - tile);
            // The run reads the input columns from `left` to `right`, negative where they lie in the padding.
            let left = (column * m) as isize - planes.padding[1] as isize;
            let right = left + (tiles * m + 2) as isize;
            let last = planes.input[1].div_ceil(lanes) as isize;
            let vector = |x: isize| x.div_euclid(lanes as isize);
            let (from, to) = (vector(left), vector(right - 1) + 1);
            let (vectors, strip) = ([from.clamp(0, last) as usize, to.clamp(0, last) as usize], block.pitch);
            block.runs.push(Run {
                image: line / self.rows,
                row: line % self.rows,
                column,
                tiles,
                before: tile - first * lanes,
                top: (line % self.rows * m) as isize - planes.padding[0] as isize,
                vectors,
                strip: strip + (from.clamp(0, last) - from) as usize * lanes,
                pixels: strip + left.rem_euclid(lanes as isize) as usize,
            });
            block.pitch += (to - from) as usize * lanes;
            tile += tiles;
        }
        let zeros = block.pitch;
        block.pitch += 2 * lanes;
        if !self.packed {
            for run in &block.runs {
                for i in 0..run.tiles * m / lanes {
                    let x = run.column * m + i * lanes;
                    block.chunks.push(Chunk {
                        strip: run.pixels + i * lanes,
                        image: run.image,
                        target: run.row * m * planes.output[1] + x,
                        rows: m.min(planes.output[0] - run.row * m),
                        columns: lanes.min(planes.output[1].saturating_sub(x)),
                    });
                }
            }
            block.chunks.resize(groups * m, Chunk { strip: zeros, ..Chunk::default() });
        }
        block
    }

    /// The largest strip of a block of `groups` groups: numbers in a row.
    pub fn strip_row(&self, groups: usize) -> usize {
        let tiles = groups * self.lanes;
        let runs = tiles.div_ceil(self.tiles_per_row) + 1;
        // Each run adds to its own columns the overlap of neighbouring tiles, on both sides up to a vector.
        tiles * self.m + runs * 3 * self.lanes + 2 * self.lanes
    }

    /// Frequencies of a tile.
    pub fn frequencies(&self) -> usize {
        points(self.m) * points(self.m)
    }
}

/// The distance in numbers between arrays of `len` numbers that are walked side by side. Distances that are multiples of
/// a large power of two would map them all to the same few cache sets.
pub(super) fn spread(len: usize) -> usize {
    len.saturating_sub(48).next_multiple_of(1024) + 48
}
