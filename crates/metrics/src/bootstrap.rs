//! Percentile bootstrap over images.
//!
//! Efron. *Bootstrap Methods: Another Look at the Jackknife*, Annals of Statistics 7 (1979). Images, not pixels, are drawn
//! with replacement: pixels of one image are anything but independent, and an interval over pixels would be far too narrow.

use serde::{Deserialize, Serialize};

use crate::ClassCounts;

/// A confidence interval, in the score's own unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The `confidence` (for example 0.95) interval of `score` over `resamples` draws of as many images as there are.
///
/// The draws depend on `seed` and on the order of `images` alone: pass them sorted by id. `None` when there are no images
/// or no draw has a score.
///
/// # Panics
/// When `confidence` is not within 0..1, or the images differ in their number of classes.
///
/// ```
/// use fireproof_metrics::{ClassCounts, bootstrap};
///
/// let images = [
///     ClassCounts::count(1, &[0u8; 4], &[0u8; 4])?,
///     ClassCounts::count(1, &[0u8; 4], &[9u8; 4])?,
/// ];
/// let interval = bootstrap::interval(&images, ClassCounts::pixel_accuracy, 1000, 0.95, 7).unwrap();
/// assert_eq!((interval.low, interval.high), (0.0, 1.0));
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
pub fn interval(
    images: &[ClassCounts],
    score: impl Fn(&ClassCounts) -> Option<f64>,
    resamples: usize,
    confidence: f64,
    seed: u64,
) -> Option<Interval> {
    assert!((0.0..1.0).contains(&confidence), "confidence {confidence} is not within 0..1");
    let empty = ClassCounts::new(images.first()?.classes()).expect("an image's class count is valid");
    let count = images.len() as u64;
    let draw = |resample: u64| {
        let mut pooled = empty.clone();
        for position in 0..count {
            let image = below(count, hash(hash(hash(seed) ^ resample) ^ position));
            pooled.merge(&images[image as usize]).expect("images of one data set have the same classes");
        }
        score(&pooled)
    };
    let mut scores: Vec<f64> = (0..resamples as u64).filter_map(draw).collect();
    scores.sort_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval { low: quantile(&scores, tail)?, high: quantile(&scores, 1.0 - tail)? })
}

/// Linear interpolation between order statistics.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let position = q * (sorted.len().checked_sub(1)?) as f64;
    let (floor, ceil) = (position.floor() as usize, position.ceil() as usize);
    Some(sorted[floor] + (sorted[ceil] - sorted[floor]) * (position - floor as f64))
}

/// A number in `0..count` from 64 random bits, without the bias of a remainder.
fn below(count: u64, bits: u64) -> u64 {
    ((u128::from(bits) * u128::from(count)) >> 64) as u64
}

/// The mixing function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a counter in, 64 random bits out.
fn hash(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
