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

/// `out = relu?(scale · x + shift)` per channel: normalisation with known statistics, as a frozen network's is, where
/// `scale = γ / √(σ² + ε)` and `shift = β − μ · scale`. Its input gradient is the same with `shift` 0.
///
/// # Panics
/// If lengths disagree.
pub fn scale_shift(x: &[f32], batch: usize, scale: &[f32], shift: &[f32], relu: bool, out: &mut [f32]) {
    let channels = scale.len();
    assert_eq!(shift.len(), channels, "scales and shifts");
    assert_eq!(x.len(), out.len(), "input and output");
    let plane = plane_len(x.len(), batch, channels).max(1);
    let isa = Isa::current();
    parallel::for_each_plane(out, plane, plane, |i, out| {
        let c = i % channels;
        affine(isa, &x[i * plane..][..plane], scale[c], shift[c], relu, out);
    });
}

/// The gradients of `y = γ (x − μ) / √(σ² + ε) + β` where `mean` and `variance` are the [`statistics`] of `x` itself.
pub struct Gradients<'a> {
    /// At `x`; overwritten.
    pub x: &'a mut [f32],
    /// At `γ`; overwritten.
    pub gamma: &'a mut [f32],
    /// At `β`; overwritten.
    pub beta: &'a mut [f32],
}

/// Computes the [`Gradients`] of a batch normalisation in training for the gradient `grad_out` at `y`.
///
/// # Panics
/// If lengths disagree.
pub fn backward(
    x: &[f32],
    batch: usize,
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
    gamma: &[f32],
    grad_out: &[f32],
    grads: Gradients<'_>,
) {
    let channels = mean.len();
    for len in [variance.len(), gamma.len(), grads.gamma.len(), grads.beta.len()] {
        assert_eq!(len, channels, "one number per channel");
    }
    assert_eq!((x.len(), x.len()), (grad_out.len(), grads.x.len()), "inputs and gradients");
    let plane = plane_len(x.len(), batch, channels);
    let isa = Isa::current();
    let count = (batch * plane).max(1) as f64;
    let mut jobs: Vec<_> = grads.gamma.iter_mut().zip(grads.beta.iter_mut()).collect();
    parallel::for_each_plane(&mut jobs, 1, batch * plane, |channel, job| {
        let inverse = 1.0 / (f64::from(variance[channel]) + f64::from(epsilon)).sqrt();
        for (gamma, beta) in job {
            let (mut dot, mut sum) = (0.0, 0.0);
            for n in 0..batch {
                let at = (n * channels + channel) * plane;
                let (d, s) = products(isa, &x[at..][..plane], mean[channel], &grad_out[at..][..plane]);
                (dot, sum) = (dot + d, sum + s);
            }
            **gamma = (dot * inverse) as f32;
            **beta = sum as f32;
        }
    });
    let (grad_gamma, grad_beta) = (&*grads.gamma, &*grads.beta);
    parallel::for_each_plane(grads.x, plane.max(1), plane, |i, grad| {
        let c = i % channels;
        let inverse = 1.0 / (f64::from(variance[c]) + f64::from(epsilon)).sqrt();
        let scale = f64::from(gamma[c]) * inverse;
        let slope = -scale * inverse * f64::from(grad_gamma[c]) / count;
        let offset = -scale * f64::from(grad_beta[c]) / count;
        let (x, grad_out) = (&x[i * plane..][..plane], &grad_out[i * plane..][..plane]);
        combine(isa, x, mean[c], grad_out, [scale as f32, slope as f32, offset as f32], grad);
    });
}

vectorized! {
    fn affine<'a>(x: &'a [f32], scale: f32, shift: f32, relu: bool, out: &'a mut [f32]) {
        if relu {
            for (x, out) in x.iter().zip(out) {
                let y = scale * *x + shift;
                *out = if y < 0.0 { 0.0 } else { y };
            }
        } else {
            for (x, out) in x.iter().zip(out) {
                *out = scale * *x + shift;
            }
        }
    }
}

vectorized! {
    /// `scale · g + slope · (x − mean) + offset`.
    fn combine<'a>(x: &'a [f32], mean: f32, grad_out: &'a [f32], factors: [f32; 3], grad: &'a mut [f32]) {
        let [scale, slope, offset] = factors;
        for ((x, g), grad) in x.iter().zip(grad_out).zip(grad) {
            *grad = scale * *g + (slope * (*x - mean) + offset);
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
    fn products<'a>(x: &'a [f32], mean: f32, grad_out: &'a [f32]) -> (f64, f64) {
        let mut totals = (0.0f64, 0.0f64);
        for (x, g) in x.chunks(4096).zip(grad_out.chunks(4096)) {
            let mut lanes = [[0.0f32; 16]; 2];
            let [dots, sums] = &mut lanes;
            for (x, g) in x.chunks(16).zip(g.chunks(16)) {
                for (((x, g), dot), sum) in x.iter().zip(g).zip(&mut *dots).zip(&mut *sums) {
                    *dot += (*x - mean) * *g;
                    *sum += *g;
                }
            }
            for i in 0..16 {
                totals.0 += f64::from(lanes[0][i]);
                totals.1 += f64::from(lanes[1][i]);
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, relative_error};
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
            let (grad_out, gamma, epsilon) = (numbers(2, len), numbers(3, channels), 1e-3f32);
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
            let inverse = |c: usize| 1.0 / (variances[c] + f64::from(epsilon)).sqrt();
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
                    close(&m, &means);
                    close(&v, &variances);
                    let (mut dx, mut dg, mut db) = (vec![f32::NAN; len], vec![f32::NAN; channels], vec![f32::NAN; channels]);
                    let grads = Gradients { x: &mut dx, gamma: &mut dg, beta: &mut db };
                    backward(&x, batch, &m, &v, epsilon, &gamma, &grad_out, grads);
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
        for isa in Isa::available() {
            for relu in [false, true] {
                let mut out = vec![f32::NAN; x.len()];
                isa.force(|| scale_shift(&x, batch, &scale, &shift, relu, &mut out));
                for i in 0..x.len() {
                    let y = scale[i / 33 % 2] * x[i] + shift[i / 33 % 2];
                    assert_eq!(out[i], if relu { y.max(0.0) } else { y });
                }
            }
        }
    }
}
