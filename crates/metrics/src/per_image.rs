//! Scores of single images, averaged; and an attacked score beside the clean one.
//!
//! Papers mean two different numbers by "accuracy" and by "mIoU". Pooled, a class that is rare in the data counts as much as
//! any other and a large image more than a small one. Averaged over images, every image counts the same, and a class enters
//! an image's mean only where it occurs. Both are reported; neither may be read as the other.

use crate::ClassCounts;

/// The mean of `score` over the images that have one: with [`ClassCounts::pixel_accuracy`] the image mean of aAcc, with
/// [`ClassCounts::miou`] the per-image mIoU.
///
/// A sum of floats depends on its order: pass the images sorted by id and two runs agree to the last bit.
///
/// ```
/// use fireproof_metrics::{ClassCounts, per_image};
///
/// let images = [
///     ClassCounts::count(1, &[0u8], &[0u8])?,
///     ClassCounts::count(1, &[0u8; 3], &[9u8; 3])?,
///     ClassCounts::count(1, &[255u8], &[0u8])?, // all void: no score
/// ];
/// assert_eq!(per_image::mean(&images, ClassCounts::pixel_accuracy), Some(0.5));
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
pub fn mean<'a>(
    images: impl IntoIterator<Item = &'a ClassCounts>,
    score: impl Fn(&ClassCounts) -> Option<f64>,
) -> Option<f64> {
    let (count, sum) = images.into_iter().filter_map(score).fold((0u64, 0.0), |(n, sum), one| (n + 1, sum + one));
    (count > 0).then(|| sum / count as f64)
}

/// The IoU ratio: what is left of a clean score under attack. At least 0, and above 1 where the attack helped; `None` where
/// either is missing or the clean one is 0.
pub fn ratio(attacked: Option<f64>, clean: Option<f64>) -> Option<f64> {
    Some(attacked? / clean.filter(|&clean| clean > 0.0)?)
}
