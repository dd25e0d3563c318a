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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn a_sum_is_the_sum_of_its_terms() {
        for len in [0, 1, 2 * CHUNK + 3] {
            let (a, b) = (numbers(1, len), numbers(2, len));
            for isa in Isa::available() {
                let mut sum = a.clone();
                isa.force(|| add_assign(&mut sum, &b));
                assert!((0..len).all(|i| sum[i] == a[i] + b[i]));
            }
        }
    }
}
