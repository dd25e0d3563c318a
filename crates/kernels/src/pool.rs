//! Max and average pooling of NCHW images, forward and backward.

use crate::conv2d::copy_strided;
use crate::parallel;
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd};
use crate::vectorized::vectorized;

/// The shape of a pooling: input `[planes, height, width]` with `planes = batch · channels`, output
/// `[planes, out_height, out_width]`. Pairs are `[vertical, horizontal]`, padding is the same on opposite sides, and the
/// output's size is rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Images times channels.
    pub planes: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Distance of neighbouring windows.
    pub stride: [usize; 2],
    /// Rows and columns around the input: zeros for the average, left out of the maximum.
    pub padding: [usize; 2],
}

impl PoolShape {
    /// Rows of the output.
    pub fn out_height(&self) -> usize {
        self.out(0)
    }

    /// Columns of the output.
    pub fn out_width(&self) -> usize {
        self.out(1)
    }

    /// Numbers in the input.
    pub fn input_len(&self) -> usize {
        self.planes * self.height * self.width
    }

    /// Numbers in the output.
    pub fn output_len(&self) -> usize {
        self.planes * self.out_height() * self.out_width()
    }

    fn out(&self, axis: usize) -> usize {
        ([self.height, self.width][axis] + 2 * self.padding[axis] - self.kernel[axis]) / self.stride[axis] + 1
    }

    fn check(&self, input: usize, output: usize) {
        for (axis, size) in [self.height, self.width].into_iter().enumerate() {
            let (kernel, stride, padding) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
            let fits = kernel > 0 && stride > 0 && 2 * padding <= kernel && size + 2 * padding >= kernel && size > 0;
            assert!(
                fits,
                "pooling needs a window inside the padded input, a stride, and at most half a window of padding: {self:?}"
            );
        }
        assert_eq!(input, self.input_len(), "numbers on the input side of {self:?}");
        assert_eq!(output, self.output_len(), "numbers on the output side of {self:?}");
        assert!(u32::try_from(self.height * self.width).is_ok(), "more pixels than an index can count: {self:?}");
    }

    /// Outputs `first..last` whose tap `tap` of an axis lies inside the input.
    fn inside(&self, axis: usize, tap: usize) -> [usize; 2] {
        let (size, stride, padding) = ([self.height, self.width][axis], self.stride[axis], self.padding[axis]);
        let first = padding.saturating_sub(tap).div_ceil(stride);
        let last = (size + padding).saturating_sub(tap).div_ceil(stride).min(self.out(axis));
        [first, last.max(first)]
    }
}

/// The largest number of each window (the first of equal ones; NaN where there is one), and its place in its plane,
/// `row · width + column`.
///
/// ```
/// use fireproof_kernels::pool::{self, PoolShape};
///
/// let shape = PoolShape { planes: 1, height: 2, width: 2, kernel: [2; 2], stride: [2; 2], padding: [0; 2] };
/// let (mut out, mut places) = ([0.0], [0]);
/// pool::max(&shape, &[1.0, 5.0, 2.0, 3.0], &mut out, &mut places);
/// assert_eq!((out, places), ([5.0], [1]));
/// ```
///
/// # Panics
/// If a window is empty or larger than the padded input, padding exceeds half a window, or lengths disagree.
pub fn max(shape: &PoolShape, x: &[f32], out: &mut [f32], places: &mut [u32]) {
    shape.check(x.len(), out.len());
    assert_eq!(places.len(), out.len(), "outputs and their places");
    let isa = Isa::current();
    let (plane, out_plane) = (shape.height * shape.width, shape.out_height() * shape.out_width());
    let mut jobs: Vec<_> = out.chunks_mut(out_plane).zip(places.chunks_mut(out_plane)).collect();
    parallel::for_each_plane(&mut jobs, 1, plane, |i, job| {
        for (out, places) in job {
            isa.dispatch(MaxPlane { shape, x: &x[i * plane..][..plane], out, places });
        }
    });
}

/// The gradient through [`max`] at its input: each output's goes to the place of its maximum. `grad` is overwritten.
///
/// # Panics
/// As [`max`], or if a place lies outside the plane.
pub fn max_backward(shape: &PoolShape, grad_out: &[f32], places: &[u32], grad: &mut [f32]) {
    shape.check(grad.len(), grad_out.len());
    assert_eq!(places.len(), grad_out.len(), "outputs and their places");
    let (plane, out_plane) = (shape.height * shape.width, shape.out_height() * shape.out_width());
    parallel::for_each_plane(grad, plane, plane, |i, grad| {
        grad.fill(0.0);
        let at = i * out_plane;
        for (g, &place) in grad_out[at..][..out_plane].iter().zip(&places[at..][..out_plane]) {
            grad[place as usize] += *g;
        }
    });
}

/// The average of each window; padding counts as zeros (PyTorch's default).
///
/// # Panics
/// As [`max`].
pub fn average(shape: &PoolShape, x: &[f32], out: &mut [f32]) {
    shape.check(x.len(), out.len());
    let isa = Isa::current();
    let (plane, out_plane) = (shape.height * shape.width, shape.out_height() * shape.out_width());
    parallel::for_each_plane(out, out_plane, plane, |i, out| average_plane(isa, shape, &x[i * plane..][..plane], out));
}

/// The gradient through [`average`] at its input; `grad` is overwritten.
///
/// # Panics
/// As [`max`].
pub fn average_backward(shape: &PoolShape, grad_out: &[f32], grad: &mut [f32]) {
    shape.check(grad.len(), grad_out.len());
    let isa = Isa::current();
    let (plane, out_plane) = (shape.height * shape.width, shape.out_height() * shape.out_width());
    parallel::for_each_plane(grad, plane, plane, |i, grad| {
        spread_plane(isa, shape, &grad_out[i * out_plane..][..out_plane], grad);
    });
}

/// The maxima of one plane.
struct MaxPlane<'a> {
    shape: &'a PoolShape,
    x: &'a [f32],
    out: &'a mut [f32],
    places: &'a mut [u32],
}

impl Kernel for MaxPlane<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let MaxPlane { shape, x, out, places } = self;
        let out_width = shape.out_width();
        let [stride_y, stride_x] = shape.stride;
        // What one tap reads for a row of windows, side by side.
        let mut read = Scratch::new(out_width);
        for (row, (out, places)) in out.chunks_exact_mut(out_width).zip(places.chunks_exact_mut(out_width)).enumerate()
        {
            let top = (row * stride_y).saturating_sub(shape.padding[0]);
            out.fill(f32::NEG_INFINITY);
            for (column, place) in places.iter_mut().enumerate() {
                *place = (top * shape.width + (column * stride_x).saturating_sub(shape.padding[1])) as u32;
            }
            for tap_y in 0..shape.kernel[0] {
                let y = (row * stride_y + tap_y).wrapping_sub(shape.padding[0]);
                if y >= shape.height {
                    continue;
                }
                for tap_x in 0..shape.kernel[1] {
                    let [first, last] = shape.inside(1, tap_x);
                    if first == last {
                        continue;
                    }
                    let from = y * shape.width + first * stride_x + tap_x - shape.padding[1];
                    let (line, read) = (&x[from..(y + 1) * shape.width], &mut read[..last - first]);
                    assert!((read.len() - 1) * stride_x < line.len(), "windows inside the row");
                    // SAFETY: as asserted.
                    unsafe { copy_strided(s, line.as_ptr(), stride_x, read.as_mut_ptr(), read.len()) };
                    larger(read, from as u32, stride_x as u32, &mut out[first..last], &mut places[first..last]);
                }
            }
        }
    }
}

/// Replaces what is smaller than the numbers read, which lie `stride` apart from `start` on.
#[inline(always)]
fn larger(read: &[f32], start: u32, stride: u32, out: &mut [f32], places: &mut [u32]) {
    for (i, ((v, out), place)) in (0u32..).zip(read.iter().zip(out).zip(places)) {
        let wins = *v > *out || v.is_nan();
        *out = if wins { *v } else { *out };
        *place = if wins { start + i * stride } else { *place };
    }
}

vectorized! {
    fn average_plane<'a>(shape: &'a PoolShape, x: &'a [f32], out: &'a mut [f32]) {
        let out_width = shape.out_width();
        let factor = 1.0 / (shape.kernel[0] * shape.kernel[1]) as f32;
        for (row, out) in out.chunks_exact_mut(out_width).enumerate() {
            out.fill(0.0);
            for tap_y in 0..shape.kernel[0] {
                let y = (row * shape.stride[0] + tap_y).wrapping_sub(shape.padding[0]);
                if y >= shape.height {
                    continue;
                }
                for tap_x in 0..shape.kernel[1] {
                    let [first, last] = shape.inside(1, tap_x);
                    let line = &x[y * shape.width..][..shape.width];
                    for (i, out) in out[first..last].iter_mut().enumerate() {
                        *out += line[(first + i) * shape.stride[1] + tap_x - shape.padding[1]];
                    }
                }
            }
            for out in out {
                *out *= factor;
            }
        }
    }
}

vectorized! {
    fn spread_plane<'a>(shape: &'a PoolShape, grad_out: &'a [f32], grad: &'a mut [f32]) {
        let factor = 1.0 / (shape.kernel[0] * shape.kernel[1]) as f32;
        grad.fill(0.0);
        for (row, grad_out) in grad_out.chunks_exact(shape.out_width()).enumerate() {
            for tap_y in 0..shape.kernel[0] {
                let y = (row * shape.stride[0] + tap_y).wrapping_sub(shape.padding[0]);
                if y >= shape.height {
                    continue;
                }
                let line = &mut grad[y * shape.width..][..shape.width];
                for tap_x in 0..shape.kernel[1] {
                    let [first, last] = shape.inside(1, tap_x);
                    for (i, g) in grad_out[first..last].iter().enumerate() {
                        line[(first + i) * shape.stride[1] + tap_x - shape.padding[1]] += factor * *g;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Sums, difference, numbers};
    use proptest::prelude::*;

    fn shapes() -> impl Strategy<Value = PoolShape> {
        ((1..4usize, 1..20usize, 1..40usize), (1..5usize, 1..5usize), (1..4usize, 1..4usize), (0..3usize, 0..3usize))
            .prop_filter_map("no window fits", |((planes, height, width), kernel, stride, padding)| {
                let shape = PoolShape {
                    planes,
                    height,
                    width,
                    kernel: kernel.into(),
                    stride: stride.into(),
                    padding: padding.into(),
                };
                let fits = |a: usize, size: usize| {
                    2 * shape.padding[a] <= shape.kernel[a] && size + 2 * shape.padding[a] >= shape.kernel[a]
                };
                (fits(0, height) && fits(1, width)).then_some(shape)
            })
    }

    /// Calls `visit(output, inputs of its window)`.
    fn windows(shape: &PoolShape, mut visit: impl FnMut(usize, &[usize])) {
        let mut output = 0;
        for plane in 0..shape.planes {
            for (oy, ox) in (0..shape.out_height()).flat_map(|y| (0..shape.out_width()).map(move |x| (y, x))) {
                let mut inputs = Vec::new();
                for (ky, kx) in (0..shape.kernel[0]).flat_map(|y| (0..shape.kernel[1]).map(move |x| (y, x))) {
                    let y = (oy * shape.stride[0] + ky).wrapping_sub(shape.padding[0]);
                    let x = (ox * shape.stride[1] + kx).wrapping_sub(shape.padding[1]);
                    if y < shape.height && x < shape.width {
                        inputs.push((plane * shape.height + y) * shape.width + x);
                    }
                }
                visit(output, &inputs);
                output += 1;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pooling_and_its_gradients_agree_with_plain_loops(shape in shapes()) {
            // Few different values, so that windows have ties.
            let x: Vec<f32> = numbers(1, shape.input_len()).iter().map(|v| (v * 4.0).round()).collect();
            let grad_out = numbers(2, shape.output_len());
            let mut want_max = vec![(0.0f32, 0u32); grad_out.len()];
            let mut want_max_grad = Sums::new(x.len());
            let mut want_average = vec![0.0f64; grad_out.len()];
            let mut want_average_grad = Sums::new(x.len());
            let area = (shape.kernel[0] * shape.kernel[1]) as f64;
            let plane = shape.height * shape.width;
            windows(&shape, |o, inputs| {
                let mut best = inputs[0];
                for &i in inputs {
                    if x[i] > x[best] {
                        best = i;
                    }
                    want_average[o] += f64::from(x[i]) / area;
                    want_average_grad.add(i, grad_out[o], 1.0 / area);
                }
                want_max[o] = (x[best], (best % plane) as u32);
                want_max_grad.add(best, grad_out[o], 1.0);
            });
            for isa in Isa::available() {
                let (mut out, mut places) = (vec![f32::NAN; grad_out.len()], vec![0; grad_out.len()]);
                let (mut grad, mut average_out, mut average_grad) = (vec![f32::NAN; x.len()], out.clone(), vec![f32::NAN; x.len()]);
                isa.force(|| {
                    max(&shape, &x, &mut out, &mut places);
                    max_backward(&shape, &grad_out, &places, &mut grad);
                    average(&shape, &x, &mut average_out);
                    average_backward(&shape, &grad_out, &mut average_grad);
                });
                prop_assert_eq!(out.into_iter().zip(places).collect::<Vec<_>>(), want_max.clone());
                prop_assert!(want_max_grad.error(&grad) < 1e-6);
                prop_assert!(difference(&average_out, &want_average) < 1e-5);
                prop_assert!(want_average_grad.error(&average_grad) < 1e-5);
            }
        }
    }

    #[test]
    fn a_nan_wins_its_window_and_a_window_of_minus_infinities_has_a_place() {
        let shape = PoolShape { planes: 1, height: 2, width: 4, kernel: [2; 2], stride: [2; 2], padding: [0; 2] };
        let low = f32::NEG_INFINITY;
        let (mut out, mut places) = ([0.0; 2], [9; 2]);
        max(&shape, &[9.0, 1.0, low, low, f32::NAN, 2.0, low, low], &mut out, &mut places);
        assert!(out[0].is_nan() && out[1] == low);
        assert_eq!(places, [4, 2]);
    }
}
