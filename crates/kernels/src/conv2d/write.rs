//! Sums to the output, with the epilogue on the way.

use super::register_tile::BLOCK;
use super::stencil::Stencil;
use crate::epilogue::{Activation, Epilogue};
use crate::parallel::Shared;
use crate::simd::Simd;

/// Writes the sums of one job to their place in the output.
pub(super) struct Write<'a> {
    pub stencil: &'a Stencil,
    pub epilogue: Epilogue<'a>,
    pub target: Shared<'a, f32>,
    pub image: usize,
    pub start: [usize; 2],
    pub size: [usize; 2],
    /// Numbers between the channels of the sums, and between their rows.
    pub sum_plane: usize,
    pub sum_stride: usize,
}

impl Write<'_> {
    /// `sums` are those of the channel in phase 0; the other phases follow in steps of `BLOCK` planes.
    #[inline(always)]
    pub fn channel<S: Simd>(&self, s: S, channel: usize, sums: &[f32]) {
        let [height, width] = self.stencil.out_size;
        let [step_y, step_x] = self.stencil.out_stride;
        let plane = (self.image * self.stencil.groups * self.stencil.out_channels + channel) * height * width;
        let finish = Finish::new(s, &self.epilogue, channel);
        for row in 0..self.size[0] {
            for phase_y in 0..step_y {
                let y = (self.start[0] + row) * step_y + phase_y;
                if y >= height {
                    break;
                }
                let x = self.start[1] * step_x;
                let count = (self.size[1] * step_x).min(width - x);
                let at = plane + y * width + x;
                let sums = &sums[phase_y * step_x * BLOCK * self.sum_plane + row * self.sum_stride..];
                let residual = self.epilogue.residual.map(|r| &r[at..at + count]);
                // SAFETY: `count` numbers of this row belong to this job alone; each phase of the sums holds `size[1]`
                // of them, rounded up to a vector.
                unsafe {
                    let to = self.target.pointer(at);
                    let sums = sums.as_ptr();
                    match step_x {
                        1 => finish.row(s, sums, residual, to, count),
                        _ => finish.phases(s, sums, BLOCK * self.sum_plane, step_x, residual, to, count),
                    }
                }
            }
        }
    }
}

/// The epilogue of one channel.
struct Finish<S: Simd> {
    bias: S::V,
    slope: S::V,
    activation: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    None,
    Relu,
    PRelu,
}

impl<S: Simd> Finish<S> {
    #[inline(always)]
    fn new(s: S, epilogue: &Epilogue<'_>, channel: usize) -> Self {
        let (activation, slope) = match epilogue.activation {
            Activation::None => (Kind::None, 0.0),
            Activation::Relu => (Kind::Relu, 0.0),
            Activation::PRelu(slopes) => (Kind::PRelu, slopes[channel]),
        };
        let bias = match epilogue.bias {
            Some(bias) => bias[channel],
            None => 0.0,
        };
        Finish { bias: s.splat(bias), slope: s.splat(slope), activation }
    }

    #[inline(always)]
    fn apply(&self, s: S, sum: S::V, residual: Option<S::V>) -> S::V {
        let mut v = s.add(sum, self.bias);
        if let Some(residual) = residual {
            v = s.add(v, residual);
        }
        match self.activation {
            Kind::None => v,
            Kind::Relu => s.relu(v),
            Kind::PRelu => s.fma(self.slope, s.min(s.zero(), v), s.relu(v)),
        }
    }

    /// # Safety
    /// `sums` holds `count` numbers rounded up to whole vectors, `to` is valid for `count`, `residual` as long.
    #[inline(always)]
    #[allow(clippy::manual_map, reason = "vectors in closures are not inlined reliably")]
    unsafe fn row(&self, s: S, sums: *const f32, residual: Option<&[f32]>, to: *mut f32, count: usize) {
        let mut i = 0;
        // SAFETY: the caller's promise; no access goes behind `count`, but for whole vectors of `sums`.
        unsafe {
            while i < count {
                let n = (count - i).min(S::LANES);
                let sum = s.load(sums.add(i));
                if n == S::LANES {
                    let residual = match residual {
                        Some(r) => Some(s.load(r.as_ptr().add(i))),
                        None => None,
                    };
                    s.store(to.add(i), self.apply(s, sum, residual));
                } else {
                    let residual = match residual {
                        Some(r) => Some(s.load_partial(r.as_ptr().add(i), n)),
                        None => None,
                    };
                    s.store_partial(to.add(i), n, self.apply(s, sum, residual));
                }
                i += n;
            }
        }
    }

    /// Writes number `q` of phase `p` to place `q · phases + p`.
    ///
    /// # Safety
    /// As for [`Finish::row`], for the sums of every phase, `phase_stride` numbers apart.
    #[inline(always)]
    unsafe fn phases(
        &self,
        s: S,
        sums: *const f32,
        phase_stride: usize,
        phases: usize,
        residual: Option<&[f32]>,
        to: *mut f32,
        count: usize,
    ) {
        let mut row = [0.0f32; 2 * crate::simd::MAX_LANES];
        let mut i = 0;
        // SAFETY: the caller's promise: `q` stays below the number of sums of a phase, rounded up to whole vectors.
        unsafe {
            if phases == 2 {
                while i < count {
                    let (a, b) = s.interleave(s.load(sums.add(i / 2)), s.load(sums.add(phase_stride + i / 2)));
                    s.store(row.as_mut_ptr(), a);
                    s.store(row.as_mut_ptr().add(S::LANES), b);
                    let n = (count - i).min(2 * S::LANES);
                    self.row(s, row.as_ptr(), residual.map(|r| &r[i..]), to.add(i), n);
                    i += n;
                }
            } else {
                while i < count {
                    let n = (count - i).min(S::LANES);
                    for (k, x) in row.iter_mut().enumerate().take(n) {
                        *x = *sums.add((i + k) % phases * phase_stride + (i + k) / phases);
                    }
                    self.row(s, row.as_ptr(), residual.map(|r| &r[i..]), to.add(i), n);
                    i += n;
                }
            }
        }
    }
}
