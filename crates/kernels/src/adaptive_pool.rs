//! The mean over a grid of windows that cover an image, forward and backward: the pyramid of PSPNet, the image's mean of
//! DeepLabv3.

use crate::parallel;
use crate::simd::Isa;
use crate::vectorized::vectorized;
use std::ops::Range;

/// The mean of each of `bins` windows an axis: `x` is `[planes, size]`, `out` `[planes, bins]`. Window `i` of an axis
/// reaches from `⌊i · size / bins⌋` to `⌈(i + 1) · size / bins⌉`, as in PyTorch, so windows may overlap by a pixel.
///
/// ```
/// use fireproof_kernels::adaptive_pool::average;
///
/// let mut out = [0.0; 2];
/// average(&[1.0, 2.0, 3.0], [1, 3], [1, 2], &mut out);
/// assert_eq!(out, [1.5, 2.5]);
/// ```
///
/// # Panics
/// If an extent is zero or the lengths are not those of a number of planes.
pub fn average(x: &[f32], size: [usize; 2], bins: [usize; 2], out: &mut [f32]) {
    check(x.len(), size, bins, out.len());
    let (isa, plane) = (Isa::current(), size[0] * size[1]);
    parallel::for_each_plane(out, bins[0] * bins[1], plane, |i, out| {
        average_plane(isa, size, bins, &x[i * plane..][..plane], out);
    });
}

/// The gradient through [`average`] at its input; `grad` is overwritten.
///
/// # Panics
/// As [`average`].
pub fn average_backward(grad_out: &[f32], size: [usize; 2], bins: [usize; 2], grad: &mut [f32]) {
    check(grad.len(), size, bins, grad_out.len());
    let (isa, windows) = (Isa::current(), bins[0] * bins[1]);
    parallel::for_each_plane(grad, size[0] * size[1], size[0] * size[1], |i, grad| {
        spread_plane(isa, size, bins, &grad_out[i * windows..][..windows], grad);
    });
}

fn check(input: usize, size: [usize; 2], bins: [usize; 2], output: usize) {
    assert!(size[0] * size[1] > 0 && bins[0] * bins[1] > 0, "pooling of {size:?} pixels to {bins:?} windows");
    let planes = input / (size[0] * size[1]);
    assert_eq!(input, planes * size[0] * size[1], "numbers in planes of {size:?}");
    assert_eq!(output, planes * bins[0] * bins[1], "numbers in {planes} planes of {bins:?} windows");
}

#[inline(always)]
fn window(i: usize, size: usize, bins: usize) -> Range<usize> {
    i * size / bins..((i + 1) * size).div_ceil(bins)
}

vectorized! {
    fn average_plane<'a>(size: [usize; 2], bins: [usize; 2], x: &'a [f32], out: &'a mut [f32]) {
        for (row, out) in out.chunks_exact_mut(bins[1]).enumerate() {
            let rows = window(row, size[0], bins[0]);
            for (column, out) in out.iter_mut().enumerate() {
                let columns = window(column, size[1], bins[1]);
                // Sums side by side, in a fixed order, which the compiler can keep in a vector.
                let mut sums = [0.0f32; 16];
                for y in rows.clone() {
                    for x in x[y * size[1]..][columns.clone()].chunks(16) {
                        for (sum, x) in sums.iter_mut().zip(x) {
                            *sum += *x;
                        }
                    }
                }
                *out = sums.iter().sum::<f32>() / (rows.len() * columns.len()) as f32;
            }
        }
    }
}

vectorized! {
    fn spread_plane<'a>(size: [usize; 2], bins: [usize; 2], grad_out: &'a [f32], grad: &'a mut [f32]) {
        grad.fill(0.0);
        for (row, grad_out) in grad_out.chunks_exact(bins[1]).enumerate() {
            let rows = window(row, size[0], bins[0]);
            for (column, g) in grad_out.iter().enumerate() {
                let columns = window(column, size[1], bins[1]);
                let share = *g / (rows.len() * columns.len()) as f32;
                for y in rows.clone() {
                    for grad in &mut grad[y * size[1]..][columns.clone()] {
                        *grad += share;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Sums, numbers};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_mean_of_each_window_and_its_gradient_agree_with_plain_loops(
            planes in 1..4usize, height in 1..20usize, width in 1..40usize, bins in (1..8usize, 1..8usize),
        ) {
            let (size, bins): ([usize; 2], [usize; 2]) = ([height, width], bins.into());
            let x = numbers(1, planes * height * width);
            let grad_out = numbers(2, planes * bins[0] * bins[1]);
            let (mut want, mut want_grad) = (Sums::new(grad_out.len()), Sums::new(x.len()));
            for o in 0..grad_out.len() {
                let (plane, row, column) = (o / bins[1] / bins[0], o / bins[1] % bins[0], o % bins[1]);
                let (rows, columns) = (window(row, height, bins[0]), window(column, width, bins[1]));
                let share = 1.0 / (rows.len() * columns.len()) as f64;
                for (y, c) in rows.flat_map(|y| columns.clone().map(move |c| (y, c))) {
                    let i = (plane * height + y) * width + c;
                    want.add(o, x[i], share);
                    want_grad.add(i, grad_out[o], share);
                }
            }
            for isa in Isa::available() {
                let (mut out, mut grad) = (vec![f32::NAN; grad_out.len()], vec![f32::NAN; x.len()]);
                isa.force(|| {
                    average(&x, size, bins, &mut out);
                    average_backward(&grad_out, size, bins, &mut grad);
                });
                prop_assert!(want.error(&out) < 1e-5);
                prop_assert!(want_grad.error(&grad) < 1e-5);
            }
        }
    }

    #[test]
    fn windows_cover_the_image_as_in_pytorch() {
        let windows = |size, bins| (0..bins).map(|i| window(i, size, bins)).collect::<Vec<_>>();
        assert_eq!(windows(22, 6), [0..4, 3..8, 7..11, 11..15, 14..19, 18..22]);
        assert_eq!(windows(2, 3), [0..1, 0..2, 1..2]);
    }
}
