//! Random numbers of the distributions that augmentation draws from.

use fireproof_tensor::random::Stream;

/// Gamma(`shape`, 1), `shape > 0`. Marsaglia, Tsang, *A Simple Method for Generating Gamma Variables*, ACM TOMS 2000.
pub(crate) fn gamma(stream: &Stream, shape: f64) -> f64 {
    if shape < 1.0 {
        // Gamma(a) = Gamma(a + 1) · U^(1/a).
        let uniform = f64::from(stream.child("boost").uniform(0)).max(f64::MIN_POSITIVE);
        return gamma(&stream.child("above"), shape + 1.0) * uniform.powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    let (normals, uniforms) = (stream.child("normal"), stream.child("uniform"));
    for attempt in 0.. {
        let x = f64::from(normals.normal(attempt));
        let v = (1.0 + c * x).powi(3);
        let u = f64::from(uniforms.uniform(attempt)).max(f64::MIN_POSITIVE);
        if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
    unreachable!("more than nine of ten attempts are accepted")
}

/// Beta(`a`, `a`), in 0 to 1.
pub(crate) fn beta(stream: &Stream, a: f64) -> f64 {
    let (x, y) = (gamma(&stream.child("first"), a), gamma(&stream.child("second"), a));
    // Both can underflow where `a` is tiny; the distribution is then a coin.
    if x + y > 0.0 { x / (x + y) } else { f64::from(u8::from(stream.uniform(0) < 0.5)) }
}

/// Dirichlet(1, …, 1) of `n` shares: uniform over all that sum to one.
pub(crate) fn shares(stream: &Stream, n: usize) -> Vec<f64> {
    let parts: Vec<f64> = (0..n as u64).map(|i| -(1.0 - f64::from(stream.uniform(i))).ln()).collect();
    let sum: f64 = parts.iter().sum();
    if sum > 0.0 { parts.iter().map(|part| part / sum).collect() } else { vec![1.0 / n as f64; n] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_has_its_mean_and_variance() {
        for a in [0.2, 1.0, 3.0] {
            let n = 20_000;
            let values: Vec<f64> = (0..n).map(|i| beta(&Stream::new(&[4, i]), a)).collect();
            let mean = values.iter().sum::<f64>() / n as f64;
            let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
            let expected = 1.0 / (4.0 * (2.0 * a + 1.0));
            assert!((mean - 0.5).abs() < 0.01, "{a}: {mean}");
            assert!((variance - expected).abs() < 0.05 * expected, "{a}: {variance} instead of {expected}");
        }
    }

    #[test]
    fn shares_sum_to_one_and_favour_none() {
        let n = 4000;
        let mut means = [0.0; 3];
        for i in 0..n {
            let drawn = shares(&Stream::new(&[i]), 3);
            assert!((drawn.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            means.iter_mut().zip(drawn).for_each(|(mean, share)| *mean += share / n as f64);
        }
        assert!(means.iter().all(|mean| (mean - 1.0 / 3.0).abs() < 0.02), "{means:?}");
    }
}
