//! Batch normalisation: statistics of a batch, the normalisation itself (also a folded one), and the gradients.
//!
//! Ioffe and Szegedy, *Batch Normalization*, ICML 2015, <https://arxiv.org/abs/1502.03167>.

use crate::parallel;
use crate::reduce::plane_len;
use crate::simd::Isa;
use crate::vectorized::vectorized;

/// Mean and variance (the biased one, over `batch · pixels` numbers) of each channel of `x` `[batch, channels, …]`, in two
/// passes, so that a large mean costs no precision. An empty channel has mean and variance 0.
///
/// ```
/// let (mut mean, mut variance) = ([0.0], [0.0]);
/// fireproof_kernels::batch_norm::statistics(&[1.0, 3.0], 2, &mut mean, &mut variance);
/// assert_eq!((mean, variance), ([2.0], [1.0]));
/// ```
///
/// # Panics
/// If lengths disagree.
pub fn statistics(x: &[f32], batch: usize, mean: &mut [f32], variance: &mut [f32]) {
    let channels = mean.len();
    assert_eq!(variance.len(), channels, "means and variances");
    let plane = plane_len(x.len(), batch, channels);
    let isa = Isa::current();
    let count = (batch * plane).max(1) as f64;
    let mut jobs: Vec<_> = mean.iter_mut().zip(variance).collect();
    parallel::for_each_plane(&mut jobs, 1, batch * plane, |channel, job| {
        let planes = || (0..batch).map(move |n| &x[(n * channels + channel) * plane..][..plane]);
        for (mean, variance) in job {
            let middle = planes().map(|x| deviation(isa, x, 0.0)).sum::<f64>() / count;
            **mean = middle as f32;
            // The mean as it is rounded, corrected for the rounding.
            let off = middle - f64::from(**mean);
            let squares = planes().map(|x| squared_deviation(isa, x, **mean)).sum::<f64>() / count;
            **variance = (squares - off * off).max(0.0) as f32;
        }
    });
}

/// `out = relu?(scale · x + shift + residual?)` per channel: normalisation with known statistics, as a frozen network's is,
/// where [`Normalisation::factors`] are scale and shift, and what follows it. The input gradient of the first two terms is the
/// same with `shift` 0.
///
/// # Panics
/// If lengths disagree.
pub fn scale_shift(
    x: &[f32],
    batch: usize,
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    out: &mut [f32],
) {
    let channels = scale.len();
    assert_eq!(shift.len(), channels, "scales and shifts");
    assert_eq!(x.len(), out.len(), "input and output");
    assert!(residual.is_none_or(|residual| residual.len() == x.len()), "a residual of the input's length");
    let plane = plane_len(x.len(), batch, channels).max(1);
    let isa = Isa::current();
    parallel::for_each_plane(out, plane, plane, |i, out| {
        let (c, at) = (i % channels, i * plane..(i + 1) * plane);
        let residual = residual.map(|residual| &residual[at.clone()]);
        affine(isa, &x[at], scale[c], shift[c], residual, relu, out);
    });
}

/// `y = γ (x − μ) / √(σ² + ε) + β`, one number a channel.
#[derive(Clone, Copy, Debug)]
pub struct Normalisation<'a> {
    /// μ.
    pub mean: &'a [f32],
    /// σ².
    pub variance: &'a [f32],
    /// ε.
    pub epsilon: f64,
    /// γ.
    pub gamma: &'a [f32],
    /// β.
    pub beta: &'a [f32],
}

impl Normalisation<'_> {
    /// `γ / √(σ² + ε)` and `β − μ γ / √(σ² + ε)`.
    pub fn factors(&self) -> (Vec<f32>, Vec<f32>) {
        let one = |c: usize| {
            let scale = f64::from(self.gamma[c]) * self.inverse(c);
            (scale as f32, (f64::from(self.beta[c]) - f64::from(self.mean[c]) * scale) as f32)
        };
        (0..self.gamma.len()).map(one).unzip()
    }

    /// `1 / √(σ² + ε)`.
    fn inverse(&self, channel: usize) -> f64 {
        1.0 / (f64::from(self.variance[channel]) + self.epsilon).sqrt()
    }
}

/// The gradients of a [`Normalisation`] whose mean and variance are the [`statistics`] of `x` itself.
pub struct Gradients<'a> {
    /// At `x`; overwritten.
    pub x: &'a mut [f32],
    /// At `γ`; overwritten.
    pub gamma: &'a mut [f32],
    /// At `β`; overwritten.
    pub beta: &'a mut [f32],
}

/// Computes the [`Gradients`] of a batch normalisation in training for the gradient `grad_out` at `y`, or at `max(0, y)`.
///
/// # Panics
/// If lengths disagree.
pub fn backward(x: &[f32], batch: usize, norm: Normalisation, relu: bool, grad_out: &[f32], grads: Gradients<'_>) {
    let Normalisation { mean, variance, gamma, beta, .. } = norm;
    let channels = mean.len();
    for len in [variance.len(), gamma.len(), beta.len(), grads.gamma.len(), grads.beta.len()] {
        assert_eq!(len, channels, "one number per channel");
    }
    assert_eq!((x.len(), x.len()), (grad_out.len(), grads.x.len()), "inputs and gradients");
    let plane = plane_len(x.len(), batch, channels);
    let isa = Isa::current();
    let count = (batch * plane).max(1) as f64;
    // The result is computed again, with the bits of the forward pass, rather than read.
    let (scales, shifts) = norm.factors();
    let result = |c: usize| relu.then(|| (scales[c], shifts[c]));
    let mut jobs: Vec<_> = grads.gamma.iter_mut().zip(grads.beta.iter_mut()).collect();
    parallel::for_each_plane(&mut jobs, 1, batch * plane, |channel, job| {
        let inverse = norm.inverse(channel);
        for (gamma, beta) in job {
            let (mut dot, mut sum) = (0.0, 0.0);
            for n in 0..batch {
                let at = (n * channels + channel) * plane;
                let (x, grad_out) = (&x[at..][..plane], &grad_out[at..][..plane]);
                let (d, s) = products(isa, x, mean[channel], result(channel), grad_out);
                (dot, sum) = (dot + d, sum + s);
            }
            **gamma = (dot * inverse) as f32;
            **beta = sum as f32;
        }
    });
    let (grad_gamma, grad_beta) = (&*grads.gamma, &*grads.beta);
    parallel::for_each_plane(grads.x, plane.max(1), plane, |i, grad| {
        let c = i % channels;
        let inverse = norm.inverse(c);
        let scale = f64::from(gamma[c]) * inverse;
        let slope = -scale * inverse * f64::from(grad_gamma[c]) / count;
        let offset = -scale * f64::from(grad_beta[c]) / count;
        let (x, grad_out) = (&x[i * plane..][..plane], &grad_out[i * plane..][..plane]);
        combine(isa, x, mean[c], result(c), grad_out, [scale as f32, slope as f32, offset as f32], grad);
    });
}

vectorized! {
    fn affine<'a>(
        x: &'a [f32],
        scale: f32,
        shift: f32,
        residual: Option<&'a [f32]>,
        relu: bool,
        out: &'a mut [f32],
    ) {
        let rectified = |y: f32| if y < 0.0 { 0.0 } else { y };
        let pairs = x.iter().zip(out);
        match (residual, relu) {
            (None, false) => pairs.for_each(|(x, out)| *out = scale * *x + shift),
            (None, true) => pairs.for_each(|(x, out)| *out = rectified(scale * *x + shift)),
            (Some(r), false) => pairs.zip(r).for_each(|((x, out), r)| *out = scale * *x + shift + *r),
            (Some(r), true) => pairs.zip(r).for_each(|((x, out), r)| *out = rectified(scale * *x + shift + *r)),
        }
    }
}

/// The gradient behind a ReLU of `scale · x + shift`; a NaN lets it pass, so that it is not hidden.
#[inline(always)]
fn through(result: (f32, f32), x: f32, grad: f32) -> f32 {
    if result.0 * x + result.1 <= 0.0 { 0.0 } else { grad }
}

vectorized! {
    /// `scale · g + slope · (x − mean) + offset`.
    fn combine<'a>(
        x: &'a [f32],
        mean: f32,
        result: Option<(f32, f32)>,
        grad_out: &'a [f32],
        factors: [f32; 3],
        grad: &'a mut [f32],
    ) {
        let [scale, slope, offset] = factors;
        let all = x.iter().zip(grad_out).zip(grad);
        match result {
            None => all.for_each(|((x, g), grad)| *grad = scale * *g + (slope * (*x - mean) + offset)),
            Some(result) => all.for_each(|((x, g), grad)| {
                *grad = scale * through(result, *x, *g) + (slope * (*x - mean) + offset);
            }),
        }
    }
}

/// A sum over a slice in a fixed order: sixteen lanes in single precision over 4096 numbers, then double precision.
macro_rules! lane_sum {
    ($x:expr, |$v:ident| $term:expr) => {{
        let mut total = 0.0f64;
        for run in $x.chunks(4096) {
            let mut lanes = [0.0f32; 16];
            for row in run.chunks(16) {
                for (&$v, lane) in row.iter().zip(&mut lanes) {
                    *lane += $term;
                }
            }
            for lane in lanes {
                total += f64::from(lane);
            }
        }
        total
    }};
}

vectorized! {
    fn deviation<'a>(x: &'a [f32], from: f32) -> f64 {
        lane_sum!(x, |v| v - from)
    }
}

vectorized! {
    fn squared_deviation<'a>(x: &'a [f32], from: f32) -> f64 {
        lane_sum!(x, |v| (v - from) * (v - from))
    }
}

vectorized! {
    /// Sums of `(x − mean) · g` and of `g`.
    fn products<'a>(x: &'a [f32], mean: f32, result: Option<(f32, f32)>, grad_out: &'a [f32]) -> (f64, f64) {
        match result {
            None => sum_products(x, mean, grad_out, |_, g| g),
            Some(result) => sum_products(x, mean, grad_out, |x, g| through(result, x, g)),
        }
    }
}

#[inline(always)]
fn sum_products(x: &[f32], mean: f32, grad_out: &[f32], through: impl Fn(f32, f32) -> f32) -> (f64, f64) {
    let mut totals = (0.0f64, 0.0f64);
    for (x, g) in x.chunks(4096).zip(grad_out.chunks(4096)) {
        let mut lanes = [[0.0f32; 16]; 2];
        let [dots, sums] = &mut lanes;
        for (x, g) in x.chunks(16).zip(g.chunks(16)) {
            for (((x, g), dot), sum) in x.iter().zip(g).zip(&mut *dots).zip(&mut *sums) {
                let g = through(*x, *g);
                *dot += (*x - mean) * g;
                *sum += g;
            }
        }
        for i in 0..16 {
            totals.0 += f64::from(lanes[0][i]);
            totals.1 += f64::from(lanes[1][i]);
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{difference, numbers, relative_error};
    use proptest::prelude::*;

    fn close(a: &[f32], b: &[f64]) {
        let error = relative_error(a, b);
        assert!(error < 2e-5, "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn training_agrees_with_plain_loops(batch in 1..4usize, channels in 1..5usize, plane in 2..300usize, mean in -9f32..9.0) {
            let len = batch * channels * plane;
            let x: Vec<f32> = numbers(1, len).iter().map(|v| v + mean).collect();
            let (grad_out, gamma, beta, epsilon) = (numbers(2, len), numbers(3, channels), numbers(4, channels), 1e-3);
            let of = |i: usize| i / plane % channels;
            let count = (batch * plane) as f64;
            let sums = |f: &dyn Fn(usize) -> f64| {
                let mut s = vec![0.0f64; channels];
                (0..len).for_each(|i| s[of(i)] += f(i));
                s
            };
            let means: Vec<f64> = sums(&|i| f64::from(x[i])).iter().map(|s| s / count).collect();
            let centred = |i: usize| f64::from(x[i]) - means[of(i)];
            let variances: Vec<f64> = sums(&|i| centred(i).powi(2)).iter().map(|s| s / count).collect();
            let inverse = |c: usize| 1.0 / (variances[c] + epsilon).sqrt();
            let g = |i: usize| f64::from(grad_out[i]);
            let want_beta = sums(&g);
            let want_gamma = sums(&|i| g(i) * centred(i) * inverse(of(i)));
            let want_x: Vec<f64> = (0..len)
                .map(|i| {
                    let c = of(i);
                    f64::from(gamma[c]) * inverse(c)
                        * (g(i) - want_beta[c] / count - centred(i) * inverse(c) * want_gamma[c] / count)
                })
                .collect();
            for isa in Isa::available() {
                isa.force(|| {
                    let (mut m, mut v) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
                    statistics(&x, batch, &mut m, &mut v);
                    // The values themselves reach 10, their mean may be anything.
                    prop_assert!(difference(&m, &means) < 2e-6);
                    close(&v, &variances);
                    let (mut dx, mut dg, mut db) = (vec![f32::NAN; len], vec![f32::NAN; channels], vec![f32::NAN; channels]);
                    let grads = Gradients { x: &mut dx, gamma: &mut dg, beta: &mut db };
                    let norm = Normalisation { mean: &m, variance: &v, epsilon, gamma: &gamma, beta: &beta };
                    backward(&x, batch, norm, false, &grad_out, grads);
                    // Where the two means cancel the gradient, its error is relative to what was cancelled.
                    let scale = (0..len).map(|i| (f64::from(gamma[of(i)]) * inverse(of(i)) * g(i)).abs()).fold(0.0, f64::max);
                    prop_assert!(dx.iter().zip(&want_x).all(|(a, b)| (f64::from(*a) - b).abs() < 2e-5 * scale));
                    let size = (0..len).map(|i| (g(i) * centred(i) * inverse(of(i))).abs()).fold(0.0, f64::max);
                    prop_assert!(dg.iter().zip(&want_gamma).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5 * size * count.sqrt()));
                    prop_assert!(db.iter().zip(&want_beta).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5 * count.sqrt()));
                    Ok(())
                })?;
            }
        }
    }

    #[test]
    fn scale_and_shift_apply_per_channel_and_rectify() {
        let (batch, scale, shift) = (2, [2.0, -1.0], [0.5, 0.25]);
        let x = numbers(1, batch * 2 * 33);
        let residual = numbers(2, x.len());
        for isa in Isa::available() {
            for (relu, residual) in [(false, None), (true, None), (false, Some(&residual)), (true, Some(&residual))] {
                let mut out = vec![f32::NAN; x.len()];
                isa.force(|| scale_shift(&x, batch, &scale, &shift, residual.map(|r| &r[..]), relu, &mut out));
                for i in 0..x.len() {
                    let y = scale[i / 33 % 2] * x[i] + shift[i / 33 % 2] + residual.map_or(0.0, |r| r[i]);
                    assert_eq!(out[i], if relu { y.max(0.0) } else { y });
                }
            }
        }
    }

    #[test]
    fn the_gradient_through_a_relu_is_that_of_the_masked_gradient() {
        let (batch, channels, plane) = (2, 3, 4100);
        let x = numbers(1, batch * channels * plane);
        let (gamma, mut beta) = (numbers(3, channels), numbers(4, channels));
        beta[2] = f32::NAN;
        for isa in Isa::available() {
            isa.force(|| {
                let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
                statistics(&x, batch, &mut mean, &mut variance);
                let norm =
                    Normalisation { mean: &mean, variance: &variance, epsilon: 1e-5, gamma: &gamma, beta: &beta };
                let (scale, shift) = norm.factors();
                let mut y = vec![f32::NAN; x.len()];
                scale_shift(&x, batch, &scale, &shift, None, true, &mut y);
                let grad = numbers(2, x.len());
                let mut masked = grad.clone();
                crate::activation::relu_backward(&y, &mut masked);
                let gradients = |relu: bool, grad: &[f32]| {
                    let (mut dx, mut gamma, mut beta) = (y.clone(), vec![0.0; channels], vec![0.0; channels]);
                    let grads = Gradients { x: &mut dx, gamma: &mut gamma, beta: &mut beta };
                    backward(&x, batch, norm, relu, grad, grads);
                    [dx, gamma, beta].map(|v| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
                };
                assert!(masked != grad && masked[2 * plane..][..plane] == grad[2 * plane..][..plane]);
                assert!(gradients(true, &grad) == gradients(false, &masked), "{isa:?}");
            });
        }
    }
}
