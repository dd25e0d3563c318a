//! Sums and maxima in an order that depends on the length of the data alone.

use crate::parallel;
use crate::simd::{Isa, Kernel, Simd};

/// Numbers that one job adds.
const CHUNK: usize = 1 << 15;
/// Running sums side by side: they vectorise on every instruction set and have the same order on all.
const LANES: usize = 16;

/// The sum of all numbers: lanes in single precision over short runs, everything above in double precision.
///
/// ```
/// assert_eq!(fireproof_kernels::reduce::sum(&[1.0, 2.0, 3.5]), 6.5);
/// ```
pub fn sum(x: &[f32]) -> f64 {
    by_chunks(x, |isa, chunk| isa.dispatch(Sum(chunk))).into_iter().sum()
}

/// The largest absolute value, 0 for no numbers; NaN where one of them is NaN.
///
/// ```
/// use fireproof_kernels::reduce::max_abs;
///
/// assert_eq!(max_abs(&[1.0, -2.0]), 2.0);
/// assert!(max_abs(&[1.0, f32::NAN]).is_nan());
/// ```
pub fn max_abs(x: &[f32]) -> f32 {
    by_chunks(x, |isa, chunk| isa.dispatch(MaxAbs(chunk))).into_iter().fold(0.0, larger)
}

/// Sums of each channel over images and pixels: `x` is `[batch, channels, …]`, `sums` has `channels` numbers.
///
/// # Panics
/// If the length of `x` is not a multiple of `batch · channels`, or `sums` has not `channels` numbers.
pub fn channel_sums(x: &[f32], batch: usize, channels: usize, sums: &mut [f32]) {
    assert_eq!(sums.len(), channels, "one sum per channel");
    let plane = plane_len(x.len(), batch, channels);
    let isa = Isa::current();
    parallel::for_each_plane(sums, 1, batch * plane, |channel, sum| {
        let images = (0..batch).map(|n| &x[(n * channels + channel) * plane..][..plane]);
        sum[0] = images.map(|plane| isa.dispatch(Sum(plane))).sum::<f64>() as f32;
    });
}

/// Numbers of one channel of one image.
///
/// # Panics
/// If `len` is not a multiple of `batch · channels`.
pub(crate) fn plane_len(len: usize, batch: usize, channels: usize) -> usize {
    let plane = len.checked_div(batch * channels).unwrap_or(0);
    assert_eq!(plane * batch * channels, len, "numbers of {batch} images of {channels} channels");
    plane
}

/// The absolute value that is larger, NaN where one of them is.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

fn by_chunks<T: Send>(x: &[f32], chunk: impl Fn(Isa, &[f32]) -> T + Sync + Send) -> Vec<T> {
    let isa = Isa::current();
    parallel::map(x.len().div_ceil(CHUNK), |i| chunk(isa, &x[i * CHUNK..x.len().min((i + 1) * CHUNK)]))
}

/// Sum of a slice of any length.
pub(crate) struct Sum<'a>(pub &'a [f32]);

impl Kernel for Sum<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let mut total = 0.0;
        for run in self.0.chunks(4096) {
            let mut lanes = [0.0f32; LANES];
            let rows = run.chunks_exact(LANES);
            let mut rest = 0.0f64;
            for &x in rows.remainder() {
                rest += f64::from(x);
            }
            for row in rows {
                for (lane, x) in lanes.iter_mut().zip(row) {
                    *lane += x;
                }
            }
            for lane in lanes {
                rest += f64::from(lane);
            }
            total += rest;
        }
        total
    }
}

struct MaxAbs<'a>(&'a [f32]);

impl Kernel for MaxAbs<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let rows = self.0.chunks_exact(LANES);
        let mut most = 0.0;
        for &x in rows.remainder() {
            most = larger(x.abs(), most);
        }
        for row in rows {
            for (lane, x) in lanes.iter_mut().zip(row) {
                *lane = larger(x.abs(), *lane);
            }
        }
        for lane in lanes {
            most = larger(lane, most);
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn sums_and_maxima_agree_with_plain_loops_at_every_length() {
        for len in [0, 1, 15, 16, 17, 4097, 3 * CHUNK + 5] {
            let x = numbers(len as u64, len);
            let want: f64 = x.iter().map(|&v| f64::from(v)).sum();
            let most = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for isa in Isa::available() {
                let (got, got_most) = isa.force(|| (sum(&x), max_abs(&x)));
                assert!((got - want).abs() < 1e-6 * (len as f64).sqrt().max(1.0) * 10.0, "{len}: {got} {want}");
                assert_eq!(got_most, most);
            }
        }
    }

    #[test]
    fn one_nan_or_infinity_is_never_lost() {
        for place in [0, 20, 100, CHUNK + 3] {
            let mut x = vec![1.0; 2 * CHUNK + 3];
            x[place] = f32::INFINITY;
            assert_eq!((sum(&x), max_abs(&x)), (f64::INFINITY, f32::INFINITY));
            x[place] = f32::NAN;
            assert!(sum(&x).is_nan() && max_abs(&x).is_nan());
        }
    }

    #[test]
    fn the_order_of_a_sum_does_not_depend_on_threads_or_on_the_instruction_set() {
        let x = numbers(3, 100_000);
        let mut results = Vec::new();
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            results.extend(Isa::available().into_iter().map(|isa| pool.install(|| isa.force(|| sum(&x).to_bits()))));
        }
        results.dedup();
        assert_eq!(results.len(), 1);
    }
}
