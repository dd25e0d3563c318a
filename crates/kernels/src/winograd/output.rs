//! The inverse transform: products per frequency to output pixels, with bias, residual and activation on the way.

use super::staging::{packed_row, staging_len, to_chunks};
use super::tiling::{Block, Tiling};
use super::transform::{self, points};
use crate::epilogue::{Activation, Epilogue};
use crate::parallel::Shared;
use crate::simd::Simd;
use std::ops::Range;

/// Transforms the products of a block back and writes the pixels of the channels. `products` holds
/// `[frequency][channel][tile]`, frequencies `stride` numbers apart, from the first of the channels on.
///
/// # Safety
/// `products` is readable for all channels, and no other job writes these channels' pixels of the block's tiles.
#[inline(always)]
pub(super) unsafe fn transform_output<S: Simd, const M: usize>(
    s: S,
    tiling: &Tiling,
    block: &Block,
    products: *const f32,
    stride: usize,
    channels: Range<usize>,
    epilogue: &Epilogue,
    staging: &mut [f32],
    out: Shared<f32>,
) {
    let planes = &tiling.planes;
    let [height, width] = planes.output;
    let (alpha, tiles) = (points(M), block.groups * S::LANES);
    let row = packed_row(tiling, block.groups);
    assert!(staging.len() >= staging_len(tiling, block.groups));
    for (index, channel) in channels.enumerate() {
        let finish = Finish::new(s, epilogue, channel);
        for group in 0..block.groups {
            let mut rows = [[s.zero(); 4]; 6];
            for (i, row) in rows.iter_mut().enumerate().take(alpha) {
                let mut m = [s.zero(); 6];
                for (j, m) in m.iter_mut().enumerate().take(alpha) {
                    let offset = (i * alpha + j) * stride + index * tiles + group * S::LANES;
                    // SAFETY: the caller's promise.
                    *m = unsafe { s.load(products.add(offset)) };
                }
                *row = transform::output::<S, M>(s, m);
            }
            let mut pixels = [[s.zero(); 4]; 4];
            for j in 0..M {
                let column = transform::output::<S, M>(s, rows.map(|row| row[j]));
                for r in 0..M {
                    pixels[r][j] = column[r];
                }
            }
            for (r, &columns) in pixels.iter().enumerate().take(M) {
                let chunks = to_chunks::<S, M>(s, columns);
                for (q, &v) in chunks.iter().enumerate().take(M) {
                    let index = group * M + q;
                    if tiling.packed {
                        // SAFETY: inside row `r` of the staging memory, whose length is asserted above.
                        unsafe { s.store(staging.as_mut_ptr().add(r * row + index * S::LANES), v) };
                    } else {
                        let chunk = &block.chunks[index];
                        if r < chunk.rows {
                            let plane = (chunk.image * planes.output_channels + channel) * height * width;
                            // SAFETY: the chunk's rows and columns lie in the plane, and belong to this job.
                            unsafe { finish.write(s, v, plane + chunk.target + r * width, chunk.columns, out) };
                        }
                    }
                }
            }
        }
        if !tiling.packed {
            continue;
        }
        for run in &block.runs {
            let plane = (run.image * planes.output_channels + channel) * height * width;
            let columns = (run.tiles * M).min(width - run.column * M);
            for r in 0..M.min(height - run.row * M) {
                for x in (0..columns).step_by(S::LANES) {
                    // SAFETY: the run's pixels lie in the staging row and, cut to the image, in the plane.
                    unsafe {
                        let v = s.load(staging.as_ptr().add(r * row + run.before * M + x));
                        let target = plane + (run.row * M + r) * width + run.column * M + x;
                        finish.write(s, v, target, S::LANES.min(columns - x), out);
                    }
                }
            }
        }
    }
}

/// The epilogue of one channel.
struct Finish<'a, S: Simd> {
    bias: S::V,
    residual: Option<&'a [f32]>,
    /// The slope of negative numbers where there is an activation.
    slope: Option<S::V>,
    relu: bool,
}

impl<'a, S: Simd> Finish<'a, S> {
    #[inline(always)]
    fn new(s: S, epilogue: &Epilogue<'a>, channel: usize) -> Self {
        Finish {
            bias: s.splat(epilogue.bias.map_or(0.0, |bias| bias[channel])),
            residual: epilogue.residual,
            slope: if let Activation::PRelu(slopes) = epilogue.activation {
                Some(s.splat(slopes[channel]))
            } else {
                None
            },
            relu: epilogue.activation == Activation::Relu,
        }
    }

    /// # Safety
    /// `count <= LANES` numbers from `offset` on lie in the output, whose shape the residual has, and belong to this job.
    #[inline(always)]
    unsafe fn write(&self, s: S, v: S::V, offset: usize, count: usize, out: Shared<f32>) {
        let mut v = s.add(v, self.bias);
        if let Some(residual) = self.residual {
            // SAFETY: the caller's promise.
            v = s.add(v, unsafe { s.load_partial(residual[offset..].as_ptr(), count) });
        }
        if self.relu {
            v = s.relu(v);
        } else if let Some(slope) = self.slope {
            // min takes its second argument where one is NaN, so NaN passes.
            v = s.fma(slope, s.min(s.zero(), v), s.max(s.zero(), v));
        }
        let target = out.pointer(offset);
        // SAFETY: the caller's promise.
        unsafe { if count == S::LANES { s.store(target, v) } else { s.store_partial(target, count, v) } }
    }
}
