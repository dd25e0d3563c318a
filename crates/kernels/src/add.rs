//! Sums of two tensors.

use crate::parallel;
use crate::simd::Isa;
use crate::vectorized::{CHUNK, vectorized};

/// `target += x`, number by number.
///
/// ```
/// let mut target = [1.0, 2.0];
/// fireproof_kernels::add::add_assign(&mut target, &[10.0, 20.0]);
/// assert_eq!(target, [11.0, 22.0]);
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn add_assign(target: &mut [f32], x: &[f32]) {
    assert_eq!(target.len(), x.len(), "the two terms of a sum");
    let isa = Isa::current();
    parallel::for_each_chunk(target, CHUNK, |i, target| accumulate(isa, &x[i * CHUNK..][..target.len()], target));
}

vectorized! {
    fn accumulate<'a>(x: &'a [f32], target: &'a mut [f32]) {
        for (x, t) in x.iter().zip(target) {
            *t += *x;
        }
    }
}

/// `out = max(0, a + b)`, number by number; NaN stays NaN. The end of a residual block.
///
/// ```
/// let mut out = [0.0; 2];
/// fireproof_kernels::add::add_relu(&[1.0, 2.0], &[3.0, -4.0], &mut out);
/// assert_eq!(out, [4.0, 0.0]);
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn add_relu(a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "the two terms of a sum and the sum");
    let isa = Isa::current();
    parallel::for_each_chunk(out, CHUNK, |i, out| {
        let part = i * CHUNK..i * CHUNK + out.len();
        rectified_sum(isa, &a[part.clone()], &b[part], out);
    });
}

vectorized! {
    fn rectified_sum<'a>(a: &'a [f32], b: &'a [f32], out: &'a mut [f32]) {
        for ((a, b), out) in a.iter().zip(b).zip(out) {
            let sum = *a + *b;
            // Not `max`, which would drop a NaN.
            *out = if sum < 0.0 { 0.0 } else { sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn a_rectified_sum_keeps_nan() {
        let mut out = [0.0; 3];
        add_relu(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY], &[1.0, f32::NEG_INFINITY, 0.0], &mut out);
        assert!(out[0].is_nan() && out[1].is_nan() && out[2] == 0.0);
    }

    #[test]
    fn a_sum_is_the_sum_of_its_terms() {
        for len in [0, 1, 2 * CHUNK + 3] {
            let (a, b) = (numbers(1, len), numbers(2, len));
            for isa in Isa::available() {
                let mut sum = a.clone();
                isa.force(|| add_assign(&mut sum, &b));
                assert!((0..len).all(|i| sum[i] == a[i] + b[i]));
                let mut rectified = vec![f32::NAN; len];
                isa.force(|| add_relu(&a, &b, &mut rectified));
                assert!((0..len).all(|i| rectified[i] == sum[i].max(0.0)));
            }
        }
    }
}
