//! Noise.

use fireproof_tensor::random::Stream;

use super::picture::Picture;

pub(super) fn gaussian(picture: Picture, level: usize, stream: &Stream) -> Picture {
    let deviation = [0.08, 0.12, 0.18, 0.26, 0.38][level];
    picture.each(|i, v| v + deviation * stream.normal(i as u64)).clipped()
}

/// Photons: a Poisson number of `photons` times the value, on average.
pub(super) fn shot(picture: Picture, level: usize, stream: &Stream) -> Picture {
    let photons = [60.0, 25.0, 12.0, 5.0, 3.0][level];
    picture.each(|i, v| (poisson(f64::from(v) * photons, stream.bits(i as u64)) / photons) as f32).clipped()
}

/// Black and white values, as many of each.
pub(super) fn impulse(picture: Picture, level: usize, stream: &Stream) -> Picture {
    let share = [0.03, 0.06, 0.09, 0.17, 0.27][level];
    picture.each(|i, v| match (stream.uniform(2 * i as u64) < share, stream.below(2 * i as u64 + 1, 2)) {
        (false, _) => v,
        (true, 0) => 0.0,
        (true, _) => 1.0,
    })
}

/// The Poisson number with mean `mean` at which the distribution passes a uniform number.
fn poisson(mean: f64, bits: u64) -> f64 {
    let uniform = (bits >> 11) as f64 / (1u64 << 53) as f64;
    let (mut number, mut probability) = (0.0, (-mean).exp());
    let mut passed = probability;
    // The sum may end below a uniform number close to one by rounding.
    while passed < uniform && number < mean + 40.0 * (mean + 1.0).sqrt() {
        number += 1.0;
        probability *= mean / number;
        passed += probability;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(picture: &Picture) -> (f64, f64) {
        let n = picture.values.len() as f64;
        let mean = picture.values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        (mean, picture.values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n)
    }

    #[test]
    fn noise_has_the_published_moments() {
        let flat = || Picture::new([3, 100, 100], vec![0.5; 30_000]);
        let stream = Stream::new(&[1]);
        // Clipping is far away at the lowest severity.
        let (mean, variance) = moments(&gaussian(flat(), 0, &stream));
        assert!((mean - 0.5).abs() < 2e-3 && (variance.sqrt() - 0.08).abs() < 1e-3, "{mean} {variance}");
        // Var = mean / photons.
        let (mean, variance) = moments(&shot(flat(), 0, &stream));
        assert!((mean - 0.5).abs() < 2e-3 && (variance - 0.5 / 60.0).abs() < 3e-4, "{mean} {variance}");
        for (level, share) in [0.03, 0.06, 0.09, 0.17, 0.27].into_iter().enumerate() {
            let noisy = impulse(flat(), level, &stream);
            let count = |value: f32| noisy.values.iter().filter(|v| **v == value).count() as f64 / 30_000.0;
            assert!((count(0.0) - share / 2.0).abs() < 0.01 && (count(1.0) - share / 2.0).abs() < 0.01);
        }
    }

    #[test]
    fn poisson_numbers_are_its_quantiles() {
        let at = |uniform: f64| poisson(3.0, (uniform * (1u64 << 53) as f64) as u64 * 2048);
        // P(0) = 0.0498, P(≤ 1) = 0.1991, P(≤ 2) = 0.4232, P(≤ 3) = 0.6472.
        assert_eq!([0.04, 0.06, 0.19, 0.21, 0.42, 0.43, 0.64, 0.66].map(at), [0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0]);
        assert_eq!(poisson(0.0, u64::MAX), 0.0);
    }
}
