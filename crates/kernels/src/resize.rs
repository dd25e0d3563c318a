//! Bilinear interpolation of NCHW images with PyTorch's two conventions, forward and backward.

use crate::parallel;
use crate::scratch::Scratch;
use crate::simd::Isa;
use crate::vectorized::vectorized;

/// Interpolates each plane of `x`, `[planes, size[0], size[1]]`, to `out`, `[planes, out_size[0], out_size[1]]`.
///
/// With `align_corners` the centres of the corner pixels stay in place: output `i` reads at `i (in − 1) / (out − 1)`.
/// Without, the borders do: it reads at `(i + ½) in / out − ½`, not below 0 (`torch.nn.functional.interpolate`'s
/// formulas, in single precision as there).
///
/// ```
/// use fireproof_kernels::resize;
///
/// let mut out = [0.0; 4];
/// resize::bilinear(&[0.0, 3.0], 1, [1, 2], [1, 4], true, &mut out);
/// assert_eq!(out, [0.0, 1.0, 2.0, 3.0]);
/// resize::bilinear(&[0.0, 4.0], 1, [1, 2], [1, 4], false, &mut out);
/// assert_eq!(out, [0.0, 1.0, 3.0, 4.0]);
/// ```
///
/// # Panics
/// If a size is zero or lengths disagree.
pub fn bilinear(
    x: &[f32],
    planes: usize,
    size: [usize; 2],
    out_size: [usize; 2],
    align_corners: bool,
    out: &mut [f32],
) {
    check(x.len(), out.len(), planes, size, out_size);
    let [rows, columns] = [0, 1].map(|a| Axis::new(size[a], out_size[a], align_corners));
    let isa = Isa::current();
    let (plane, out_plane) = (size[0] * size[1], out_size[0] * out_size[1]);
    parallel::for_each_plane(out, out_plane, out_plane, |i, out| {
        let mut blended = Scratch::new(size[1]);
        interpolate(isa, &x[i * plane..][..plane], &rows, &columns, &mut blended, out);
    });
}

/// The gradient through [`bilinear`] at its input: `grad_out` is `[planes, out_size[0], out_size[1]]`, `grad`
/// `[planes, size[0], size[1]]` and overwritten.
///
/// # Panics
/// As [`bilinear`].
pub fn bilinear_backward(
    grad_out: &[f32],
    planes: usize,
    size: [usize; 2],
    out_size: [usize; 2],
    align_corners: bool,
    grad: &mut [f32],
) {
    check(grad.len(), grad_out.len(), planes, size, out_size);
    let [rows, columns] = [0, 1].map(|a| Axis::new(size[a], out_size[a], align_corners));
    // Which output rows an input row reaches, and with what weight.
    let mut reached = vec![Vec::new(); size[0]];
    for (out, point) in rows.points.iter().enumerate() {
        reached[point.low].push((out, 1.0 - point.fraction));
        reached[point.high].push((out, point.fraction));
    }
    let isa = Isa::current();
    let (plane, out_plane) = (size[0] * size[1], out_size[0] * out_size[1]);
    parallel::for_each_plane(grad, plane, out_plane, |i, grad| {
        let mut gathered = Scratch::new(out_size[1]);
        distribute(isa, &grad_out[i * out_plane..][..out_plane], &reached, &columns, &mut gathered, grad);
    });
}

fn check(input: usize, output: usize, planes: usize, size: [usize; 2], out_size: [usize; 2]) {
    assert!(size.iter().chain(&out_size).all(|&s| s > 0), "resize from {size:?} to {out_size:?}: a size is 0");
    assert_eq!(input, planes * size[0] * size[1], "numbers of {planes} planes of {size:?}");
    assert_eq!(output, planes * out_size[0] * out_size[1], "numbers of {planes} planes of {out_size:?}");
}

/// Where the outputs of one axis read.
struct Axis {
    points: Vec<Point>,
}

/// `(1 − fraction) · x[low] + fraction · x[high]`.
#[derive(Clone, Copy)]
struct Point {
    low: usize,
    high: usize,
    fraction: f32,
}

impl Axis {
    fn new(size: usize, out: usize, align_corners: bool) -> Self {
        let scale = match align_corners {
            true if out > 1 => (size - 1) as f32 / (out - 1) as f32,
            true => 0.0,
            false => size as f32 / out as f32,
        };
        let points = (0..out)
            .map(|i| {
                let at = if align_corners { scale * i as f32 } else { (scale * (i as f32 + 0.5) - 0.5).max(0.0) };
                let low = (at as usize).min(size - 1);
                Point { low, high: (low + 1).min(size - 1), fraction: (at - low as f32).clamp(0.0, 1.0) }
            })
            .collect();
        Axis { points }
    }
}

vectorized! {
    fn interpolate<'a>(x: &'a [f32], rows: &'a Axis, columns: &'a Axis, blended: &'a mut [f32], out: &'a mut [f32]) {
        let width = blended.len();
        for (row, out) in rows.points.iter().zip(out.chunks_exact_mut(columns.points.len())) {
            let (low, high) = (&x[row.low * width..][..width], &x[row.high * width..][..width]);
            for ((blended, low), high) in blended.iter_mut().zip(low).zip(high) {
                *blended = (1.0 - row.fraction) * *low + row.fraction * *high;
            }
            for (out, column) in out.iter_mut().zip(&columns.points) {
                *out = (1.0 - column.fraction) * blended[column.low] + column.fraction * blended[column.high];
            }
        }
    }
}

vectorized! {
    fn distribute<'a>(
        grad_out: &'a [f32],
        reached: &'a [Vec<(usize, f32)>],
        columns: &'a Axis,
        gathered: &'a mut [f32],
        grad: &'a mut [f32],
    ) {
        let width = grad.len() / reached.len();
        for (reached, grad) in reached.iter().zip(grad.chunks_exact_mut(width)) {
            gathered.fill(0.0);
            for &(row, weight) in reached {
                for (gathered, g) in gathered.iter_mut().zip(&grad_out[row * columns.points.len()..]) {
                    *gathered += weight * *g;
                }
            }
            grad.fill(0.0);
            for (g, column) in gathered.iter().zip(&columns.points) {
                grad[column.low] += (1.0 - column.fraction) * *g;
                grad[column.high] += column.fraction * *g;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Sums, difference, numbers};
    use proptest::prelude::*;

    /// The two inputs of an output and the second one's weight, in double precision.
    fn reads(i: usize, size: usize, out: usize, align_corners: bool) -> [(usize, f64); 2] {
        let at = if align_corners {
            if out > 1 { i as f64 * (size - 1) as f64 / (out - 1) as f64 } else { 0.0 }
        } else {
            ((i as f64 + 0.5) * size as f64 / out as f64 - 0.5).max(0.0)
        };
        let low = (at.floor() as usize).min(size - 1);
        let fraction = at - low as f64;
        [(low, 1.0 - fraction), ((low + 1).min(size - 1), fraction)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn interpolation_and_its_gradient_agree_with_plain_loops(
            planes in 1..4usize,
            size in (1..20usize, 1..40usize),
            out in (1..40usize, 1..80usize),
            align_corners: bool,
        ) {
            let (size, out): ([usize; 2], [usize; 2]) = (size.into(), out.into());
            let x = numbers(1, planes * size[0] * size[1]);
            let grad_out = numbers(2, planes * out[0] * out[1]);
            let (mut want, mut want_grad) = (Sums::new(grad_out.len()), Sums::new(x.len()));
            for o in 0..grad_out.len() {
                let (plane, y, column) = (o / (out[0] * out[1]), o / out[1] % out[0], o % out[1]);
                for (iy, wy) in reads(y, size[0], out[0], align_corners) {
                    for (ix, wx) in reads(column, size[1], out[1], align_corners) {
                        let i = (plane * size[0] + iy) * size[1] + ix;
                        want.add(o, wy * wx, x[i]);
                        want_grad.add(i, wy * wx, grad_out[o]);
                    }
                }
            }
            for isa in Isa::available() {
                let (mut got, mut grad) = (vec![f32::NAN; grad_out.len()], vec![f32::NAN; x.len()]);
                isa.force(|| {
                    bilinear(&x, planes, size, out, align_corners, &mut got);
                    bilinear_backward(&grad_out, planes, size, out, align_corners, &mut grad);
                });
                prop_assert!(want.error(&got) < 2e-5);
                // Single-precision positions err by 1e-6 of the size, and an input sums many outputs.
                prop_assert!(difference(&grad, &want_grad.values) < 1e-4);
            }
        }
    }
}
