//! From logits to counts, on the host.

use burn::tensor::{Tensor, activation::softmax};
use fireproof_datasets::Sample;
use fireproof_metrics::{Calibration, ClassCounts, SizeCounts};
use fireproof_tensor::{Result, Victim, host, ops::image_sums};

/// What a model says about one image.
pub(crate) struct Prediction {
    /// The class with the highest logit, `[H, W]`.
    pub(crate) classes: Vec<i32>,
    /// Its softmax value, `[H, W]`.
    pub(crate) confidences: Vec<f32>,
    /// Whether every logit is a number.
    pub(crate) finite: bool,
}

impl Prediction {
    /// The pixels of each class, correct and not.
    pub(crate) fn count(&self, sample: &Sample, classes: usize) -> Result<ClassCounts, fireproof_metrics::MetricError> {
        ClassCounts::count(classes, &sample.mask.data, &self.classes)
    }

    /// The same by the size of the labelled objects.
    pub(crate) fn count_sizes(
        &self,
        sample: &Sample,
        classes: usize,
    ) -> Result<SizeCounts, fireproof_metrics::MetricError> {
        SizeCounts::count(classes, &sample.mask.data, &self.classes, sample.mask.width)
    }

    /// Right and wrong pixels by the confidence of their prediction.
    pub(crate) fn calibration(&self, sample: &Sample) -> Result<Calibration, fireproof_metrics::MetricError> {
        let mut bins = Calibration::new(BINS);
        bins.add(&sample.mask.data, &self.classes, &self.confidences)?;
        Ok(bins)
    }

    /// For pictures, where classes above 255 do not occur.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.classes.iter().map(|&class| u8::try_from(class).unwrap_or(254)).collect()
    }
}

/// Bins of confidence, the literature's usual number.
const BINS: usize = 15;

/// One forward pass, image by image.
pub(crate) fn predict(victim: &dyn Victim, images: &Tensor<4>) -> Result<Vec<Prediction>> {
    let logits = victim.logits(images.clone())?;
    let [_, _, height, width] = logits.dims();
    // A sum is finite if and only if its terms are, short of logits beyond 1e30.
    let sums = host::floats(image_sums(logits.clone()));
    let confidences = host::floats(softmax(logits.clone(), 1).max_dim(1));
    let classes = host::integers(logits.argmax(1));
    let area = height * width;
    let images = classes.chunks_exact(area).zip(confidences.chunks_exact(area)).zip(sums);
    let image = |((classes, confidences), sum): ((&[i32], &[f32]), f32)| Prediction {
        classes: classes.to_vec(),
        confidences: confidences.to_vec(),
        finite: sum.is_finite(),
    };
    Ok(images.map(image).collect())
}

/// Values of each image, `[N, …]` → `N` lists.
pub(crate) fn values(images: &Tensor<4>) -> Vec<Vec<f32>> {
    let n = images.dims()[0];
    let all = host::floats(images.clone());
    all.chunks_exact((all.len() / n).max(1)).map(<[f32]>::to_vec).collect()
}
