//! Percentile bootstrap over images.
//!
//! Efron. *Bootstrap Methods: Another Look at the Jackknife*, Annals of Statistics 7 (1979). Images, not pixels, are drawn
//! with replacement: pixels of one image are anything but independent, and an interval over pixels would be far too narrow.

use serde::{Deserialize, Serialize};

use crate::ClassCounts;
use crate::random::{below, hash};

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
    let empty = ClassCounts::new(images.first()?.classes()).expect("an image's class count is valid");
    let draw = |chosen: &mut dyn Iterator<Item = usize>| {
        let mut pooled = empty.clone();
        chosen.for_each(|image| pooled.merge(&images[image]).expect("images of one data set have the same classes"));
        score(&pooled)
    };
    percentiles(images.len(), draw, resamples, confidence, seed)
}

/// Likewise for a mean of per-image scores, such as the image mean of pixel accuracy; `scores` are those of the images that
/// have one, sorted by id.
///
/// # Panics
/// When `confidence` is not within 0..1.
pub fn mean_interval(scores: &[f64], resamples: usize, confidence: f64, seed: u64) -> Option<Interval> {
    let draw = |chosen: &mut dyn Iterator<Item = usize>| {
        Some(chosen.map(|image| scores[image]).sum::<f64>() / scores.len() as f64)
    };
    percentiles(scores.len(), draw, resamples, confidence, seed)
}

/// `draw` scores one resample, given the images in it.
fn percentiles(
    images: usize,
    draw: impl Fn(&mut dyn Iterator<Item = usize>) -> Option<f64>,
    resamples: usize,
    confidence: f64,
    seed: u64,
) -> Option<Interval> {
    assert!((0.0..1.0).contains(&confidence), "confidence {confidence} is not within 0..1");
    if images == 0 {
        return None;
    }
    let count = images as u64;
    let one = |resample: u64| {
        let key = hash(hash(seed) ^ resample);
        draw(&mut (0..count).map(|position| below(count, hash(key ^ position)) as usize))
    };
    let mut scores: Vec<f64> = (0..resamples as u64).filter_map(one).collect();
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
