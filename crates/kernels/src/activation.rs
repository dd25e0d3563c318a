//! ReLU and PReLU, forward and backward.

use crate::parallel;
use crate::reduce::plane_len;
use crate::simd::Isa;
use crate::vectorized::{CHUNK, vectorized};

/// `y = max(0, x)`; NaN stays NaN.
///
/// ```
/// let mut y = [f32::NAN; 2];
/// fireproof_kernels::activation::relu(&[-1.0, 2.0], &mut y);
/// assert_eq!(y, [0.0, 2.0]);
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn relu(x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "inputs and outputs");
    let isa = Isa::current();
    parallel::for_each_chunk(y, CHUNK, |i, y| rectify(isa, &x[i * CHUNK..][..y.len()], y));
}

/// The gradient through [`relu`], in place: zero where the output `y` (or the input, which has the same sign) is not
/// positive.
///
/// # Panics
/// If the lengths differ.
pub fn relu_backward(y: &[f32], grad: &mut [f32]) {
    assert_eq!(y.len(), grad.len(), "outputs and gradients");
    let isa = Isa::current();
    parallel::for_each_chunk(grad, CHUNK, |i, grad| mask(isa, &y[i * CHUNK..][..grad.len()], grad));
}

/// `y` is `x` where that is positive, else the channel's slope times `x`. `x` is `[batch, channels, …]` with one slope per
/// channel. He et al., *Delving Deep into Rectifiers*, ICCV 2015, <https://arxiv.org/abs/1502.01852>.
///
/// # Panics
/// If the lengths differ or are no multiple of `batch · slopes.len()`.
pub fn prelu(x: &[f32], batch: usize, slopes: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "inputs and outputs");
    let plane = plane_len(x.len(), batch, slopes.len()).max(1);
    let isa = Isa::current();
    parallel::for_each_plane(y, plane, plane, |i, y| leak(isa, &x[i * plane..][..plane], slopes[i % slopes.len()], y));
}

/// The gradient through [`prelu`] at its input `x`: `grad` is overwritten with it, and `grad_slopes` with the slopes'.
///
/// # Panics
/// If lengths disagree.
pub fn prelu_backward(x: &[f32], batch: usize, slopes: &[f32], grad: &mut [f32], grad_slopes: &mut [f32]) {
    assert_eq!(x.len(), grad.len(), "inputs and gradients");
    assert_eq!(slopes.len(), grad_slopes.len(), "slopes and their gradients");
    let channels = slopes.len();
    let plane = plane_len(x.len(), batch, channels).max(1);
    let isa = Isa::current();
    let mut sums = vec![0.0f64; x.len() / plane];
    let mut planes: Vec<_> = grad.chunks_mut(plane).zip(&mut sums).collect();
    parallel::for_each_plane(&mut planes, 1, plane, |i, job| {
        for (grad, sum) in job {
            **sum = unleak(isa, &x[i * plane..][..plane], grad, slopes[i % channels]);
        }
    });
    for (channel, grad) in grad_slopes.iter_mut().enumerate() {
        *grad = sums.iter().skip(channel).step_by(channels).sum::<f64>() as f32;
    }
}

vectorized! {
    fn rectify<'a>(x: &'a [f32], y: &'a mut [f32]) {
        for (x, y) in x.iter().zip(y) {
            *y = if *x < 0.0 { 0.0 } else { *x };
        }
    }
}

vectorized! {
    fn mask<'a>(y: &'a [f32], grad: &'a mut [f32]) {
        for (y, g) in y.iter().zip(grad) {
            // A NaN output lets the gradient pass, so that it is not hidden.
            *g = if *y <= 0.0 { 0.0 } else { *g };
        }
    }
}

vectorized! {
    fn leak<'a>(x: &'a [f32], slope: f32, y: &'a mut [f32]) {
        for (x, y) in x.iter().zip(y) {
            *y = if *x > 0.0 { *x } else { slope * *x };
        }
    }
}

vectorized! {
    /// Returns the sum of `grad · x` where `x` is not positive.
    fn unleak<'a>(x: &'a [f32], grad: &'a mut [f32], slope: f32) -> f64 {
        let mut total = 0.0f64;
        for (x, grad) in x.chunks(4096).zip(grad.chunks_mut(4096)) {
            let mut lanes = [0.0f32; 16];
            for (x, grad) in x.chunks(16).zip(grad.chunks_mut(16)) {
                for ((x, g), lane) in x.iter().zip(grad).zip(&mut lanes) {
                    let positive = *x > 0.0;
                    *lane += if positive { 0.0 } else { *g * *x };
                    *g = if positive { *g } else { slope * *g };
                }
            }
            for lane in lanes {
                total += f64::from(lane);
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, relative_error};

    #[test]
    fn relu_and_its_mask_agree_with_their_definition() {
        for len in [0, 1, 17, 3 * CHUNK + 5] {
            let x = numbers(1, len);
            for isa in Isa::available() {
                let (mut y, mut grad) = (vec![f32::NAN; len], numbers(2, len));
                let given = grad.clone();
                isa.force(|| relu(&x, &mut y));
                isa.force(|| relu_backward(&y, &mut grad));
                for i in 0..len {
                    assert_eq!(y[i], x[i].max(0.0));
                    assert_eq!(grad[i], if x[i] > 0.0 { given[i] } else { 0.0 });
                }
            }
        }
        let mut y = [1.0; 2];
        relu(&[f32::NAN, -1.0], &mut y);
        assert!(y[0].is_nan() && y[1] == 0.0);
    }

    #[test]
    fn prelu_and_its_gradients_agree_with_their_definition() {
        let (batch, channels, plane) = (2, 3, 4100);
        let (x, slopes) = (numbers(1, batch * channels * plane), [0.25, -0.5, 2.0]);
        for isa in Isa::available() {
            let (mut y, mut grad, mut grad_slopes) = (vec![f32::NAN; x.len()], numbers(2, x.len()), [f32::NAN; 3]);
            let given = grad.clone();
            isa.force(|| prelu(&x, batch, &slopes, &mut y));
            isa.force(|| prelu_backward(&x, batch, &slopes, &mut grad, &mut grad_slopes));
            let mut want = [0.0f64; 3];
            for (i, &x) in x.iter().enumerate() {
                let c = i / plane % channels;
                assert_eq!(y[i], if x > 0.0 { x } else { slopes[c] * x });
                assert_eq!(grad[i], if x > 0.0 { given[i] } else { slopes[c] * given[i] });
                want[c] += f64::from(given[i]) * f64::from(x.min(0.0));
            }
            assert!(relative_error(&grad_slopes, &want) < 1e-5);
        }
    }
}
