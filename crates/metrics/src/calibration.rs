//! Calibration: does a confidence of 0.8 mean right in 8 of 10 pixels?
//!
//! Naeini, Cooper, Hauskrecht. *Obtaining Well Calibrated Probabilities Using Bayesian Binning*, AAAI 2015, for the
//! expected calibration error; Guo, Pleiss, Sun, Weinberger. *On Calibration of Modern Neural Networks*, ICML 2017,
//! <https://arxiv.org/abs/1706.04599>, for the binning by the confidence of the predicted class.

use serde::{Deserialize, Serialize};

use crate::{MetricError, VOID};

/// Confidences are summed in units of 2⁻²⁴, the spacing of `f32` just below 1: sums are then exact and order-free.
const UNIT: f64 = (1u64 << 24) as f64;

/// Pixels by the confidence of their prediction, in bins of equal width `(i/B, (i+1)/B]`.
///
/// ```
/// use fireproof_metrics::Calibration;
///
/// let mut bins = Calibration::new(10);
/// bins.add(&[1u8, 1, 0, 255], &[1u8, 0, 0, 0], &[0.75f32, 0.75, 1.0, 0.5])?;
/// // Two pixels at 0.75 of which half are right, one at 1.0 that is right, one void.
/// assert_eq!(bins.expected_error(), Some(2.0 / 3.0 * 0.25));
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Calibration {
    bins: Vec<Bin>,
}

/// What a file says before anyone looked at it.
#[derive(Deserialize)]
struct Unchecked {
    bins: Vec<Bin>,
}

impl TryFrom<Unchecked> for Calibration {
    type Error = MetricError;

    fn try_from(Unchecked { bins }: Unchecked) -> Result<Self, MetricError> {
        let possible = |bin: &Bin| bin.correct <= bin.pixels && bin.confidence as f64 <= bin.pixels as f64 * UNIT;
        match bins.iter().find(|bin| !possible(bin)) {
            _ if bins.is_empty() => Err(MetricError::Impossible("calibration without bins".into())),
            Some(Bin { pixels, correct, confidence }) => Err(MetricError::Impossible(format!(
                "a bin of {pixels} pixels with {correct} correct ones and a sum of confidences of {confidence}/2^24"
            ))),
            None => Ok(Self { bins }),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Bin {
    pixels: u64,
    correct: u64,
    /// Sum of confidences in units of 2⁻²⁴; room for 10¹² pixels.
    confidence: u64,
}

impl Calibration {
    /// `bins` empty bins; 15 is the literature's usual number.
    ///
    /// # Panics
    /// When `bins` is 0.
    pub fn new(bins: usize) -> Self {
        assert!(bins > 0, "calibration needs at least one bin");
        Self { bins: vec![Bin::default(); bins] }
    }

    /// Adds pixels: labels (void is skipped), predictions, and the softmax value of the prediction in 0..=1.
    ///
    /// # Errors
    /// [`MetricError::Length`], [`MetricError::Confidence`]; the bins are then unchanged.
    pub fn add<L, P>(&mut self, labels: &[L], predictions: &[P], confidences: &[f32]) -> Result<(), MetricError>
    where
        L: Copy + Into<i64>,
        P: Copy + Into<i64>,
    {
        for (what, found) in [("predictions", predictions.len()), ("confidences", confidences.len())] {
            if found != labels.len() {
                return Err(MetricError::Length { what, found, expected: labels.len() });
            }
        }
        // A softmax in f32 may end one rounding above 1.
        let is_wrong = |c: &f32| !(0.0..=1.0 + 1e-5).contains(c);
        if let Some(position) = confidences.iter().position(is_wrong) {
            return Err(MetricError::Confidence { confidence: confidences[position].to_string(), position });
        }
        let count = self.bins.len();
        for ((&label, &prediction), &confidence) in labels.iter().zip(predictions).zip(confidences) {
            let (label, prediction): (i64, i64) = (label.into(), prediction.into());
            if label == i64::from(VOID) {
                continue;
            }
            let confidence = f64::from(confidence.min(1.0));
            let index = ((confidence * count as f64).ceil() as usize).clamp(1, count) - 1;
            let bin = &mut self.bins[index];
            bin.pixels += 1;
            bin.correct += u64::from(label == prediction);
            bin.confidence += (confidence * UNIT).round() as u64;
        }
        Ok(())
    }

    /// Adds the pixels of `other`.
    ///
    /// # Errors
    /// [`MetricError::Merge`] when the numbers of bins differ; `self` is then unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricError> {
        if self.bins.len() != other.bins.len() {
            return Err(MetricError::Merge { what: "bins", found: other.bins.len(), expected: self.bins.len() });
        }
        for (mine, theirs) in self.bins.iter_mut().zip(&other.bins) {
            mine.pixels += theirs.pixels;
            mine.correct += theirs.correct;
            mine.confidence += theirs.confidence;
        }
        Ok(())
    }

    /// `(share of pixels, mean confidence, accuracy)` of each bin, for a reliability diagram; `None` where a bin is empty.
    pub fn diagram(&self) -> Vec<Option<(f64, f64, f64)>> {
        let total = self.pixels() as f64;
        let point = |bin: &Bin| {
            let pixels = bin.pixels as f64;
            (bin.pixels > 0)
                .then(|| (pixels / total, bin.confidence as f64 / UNIT / pixels, bin.correct as f64 / pixels))
        };
        self.bins.iter().map(point).collect()
    }

    /// Expected calibration error (ECE): the gap between accuracy and confidence per bin, averaged over pixels.
    pub fn expected_error(&self) -> Option<f64> {
        let gap = |(share, confidence, accuracy): (f64, f64, f64)| share * (accuracy - confidence).abs();
        (self.pixels() > 0).then(|| self.diagram().into_iter().flatten().map(gap).sum())
    }

    /// Valid pixels counted.
    pub fn pixels(&self) -> u64 {
        self.bins.iter().map(|bin| bin.pixels).sum()
    }
}
