//! Three integers per class: all that the usual scores need, and small enough to keep for every image.

use serde::{Deserialize, Serialize};

use crate::{Confusion, MetricError};

/// Pixel counts per class over any set of valid pixels: one image, a data set, a shard of it.
///
/// All scores are fractions in 0..=1, and `None` where their denominator is zero: a class that is neither in the labels
/// nor predicted has no IoU, and an image that is all void has no accuracy. Such a class does not enter the mean.
///
/// ```
/// use fireproof_metrics::ClassCounts;
///
/// let mut pooled = ClassCounts::count(3, &[0u8, 1], &[0u8, 0])?;
/// pooled.merge(&ClassCounts::count(3, &[1u8, 1], &[1u8, 1])?)?;
/// assert_eq!(pooled.iou(), [Some(0.5), Some(2.0 / 3.0), None]);
/// assert_eq!(pooled.miou(), Some((0.5 + 2.0 / 3.0) / 2.0));
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct ClassCounts {
    intersections: Vec<u64>,
    labels: Vec<u64>,
    predictions: Vec<u64>,
}

/// What a file says before anyone looked at it.
#[derive(Deserialize)]
struct Unchecked {
    intersections: Vec<u64>,
    labels: Vec<u64>,
    predictions: Vec<u64>,
}

impl TryFrom<Unchecked> for ClassCounts {
    type Error = MetricError;

    fn try_from(counts: Unchecked) -> Result<Self, MetricError> {
        Self::from_parts(counts.intersections, counts.labels, counts.predictions)
    }
}

impl ClassCounts {
    /// No pixels yet, for `classes` in 1..=255.
    ///
    /// # Errors
    /// [`MetricError::Classes`].
    pub fn new(classes: usize) -> Result<Self, MetricError> {
        if !(1..=255).contains(&classes) {
            return Err(MetricError::Classes { found: classes });
        }
        Ok(Self { intersections: vec![0; classes], labels: vec![0; classes], predictions: vec![0; classes] })
    }

    /// Counts one pair of maps; see [`Confusion::add`] for what labels and predictions may be.
    ///
    /// # Errors
    /// As [`Confusion::add`].
    pub fn count<L, P>(classes: usize, labels: &[L], predictions: &[P]) -> Result<Self, MetricError>
    where
        L: Copy + Into<i64>,
        P: Copy + Into<i64>,
    {
        Ok(Confusion::count(classes, labels, predictions)?.class_counts())
    }

    /// From counts made elsewhere, `[K]` each: pixels of the class that were predicted so, pixels labelled so, valid pixels
    /// predicted so.
    ///
    /// # Errors
    /// [`MetricError::Impossible`] when the lengths differ, an intersection exceeds its class, or more pixels are predicted
    /// than there are labels.
    pub fn from_parts(intersections: Vec<u64>, labels: Vec<u64>, predictions: Vec<u64>) -> Result<Self, MetricError> {
        let classes = labels.len();
        if !(1..=255).contains(&classes) {
            return Err(MetricError::Classes { found: classes });
        }
        if intersections.len() != classes || predictions.len() != classes {
            return Err(MetricError::Impossible(format!(
                "{} intersections, {classes} labels, {} predictions, expected as many of each",
                intersections.len(),
                predictions.len()
            )));
        }
        for class in 0..classes {
            let (both, labelled, predicted) = (intersections[class], labels[class], predictions[class]);
            if both > labelled || both > predicted {
                return Err(MetricError::Impossible(format!(
                    "class {class} has {both} correct pixels of {labelled} labelled and {predicted} predicted"
                )));
            }
        }
        let total = |name: &str, counts: &[u64]| {
            let sum = counts.iter().try_fold(0u64, |sum, &count| sum.checked_add(count));
            sum.ok_or_else(|| MetricError::Impossible(format!("the {name} add up to more than 64 bits hold")))
        };
        let (labelled, predicted) = (total("labels", &labels)?, total("predictions", &predictions)?);
        if predicted > labelled {
            return Err(MetricError::Impossible(format!("{predicted} pixels predicted, but only {labelled} labelled")));
        }
        Ok(Self { intersections, labels, predictions })
    }

    /// Adds the pixels of `other`. Addition of integers: the order of merging never matters.
    ///
    /// # Errors
    /// [`MetricError::Merge`] when the numbers of classes differ; `self` is then unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricError> {
        if self.classes() != other.classes() {
            return Err(MetricError::Merge { what: "classes", found: other.classes(), expected: self.classes() });
        }
        for (mine, theirs) in [
            (&mut self.intersections, &other.intersections),
            (&mut self.labels, &other.labels),
            (&mut self.predictions, &other.predictions),
        ] {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
        Ok(())
    }

    /// The number of classes `K`.
    pub fn classes(&self) -> usize {
        self.labels.len()
    }

    /// Pixels of each class that were predicted as that class, `[K]`.
    pub fn intersections(&self) -> &[u64] {
        &self.intersections
    }

    /// Valid pixels labelled as each class, `[K]`.
    pub fn labels(&self) -> &[u64] {
        &self.labels
    }

    /// Valid pixels predicted as each class, `[K]`.
    pub fn predictions(&self) -> &[u64] {
        &self.predictions
    }

    /// Pixels labelled or predicted as `class`.
    ///
    /// # Panics
    /// When `class` is not below [`Self::classes`].
    pub fn union(&self, class: usize) -> u64 {
        self.labels[class] + (self.predictions[class] - self.intersections[class])
    }

    /// Pixels whose prediction is their label.
    pub fn correct(&self) -> u64 {
        self.intersections.iter().sum()
    }

    /// Pixels with a label other than void.
    pub fn valid(&self) -> u64 {
        self.labels.iter().sum()
    }

    /// Intersection over union of every class, `[K]`.
    pub fn iou(&self) -> Vec<Option<f64>> {
        (0..self.classes()).map(|class| quotient(self.intersections[class], self.union(class))).collect()
    }

    /// Mean IoU over the classes that are labelled or predicted somewhere.
    pub fn miou(&self) -> Option<f64> {
        mean(self.iou())
    }

    /// Share of each class's pixels that is correct (recall), `[K]`.
    pub fn class_accuracy(&self) -> Vec<Option<f64>> {
        (0..self.classes()).map(|class| quotient(self.intersections[class], self.labels[class])).collect()
    }

    /// Mean of [`Self::class_accuracy`] over the classes that are labelled somewhere (mAcc).
    pub fn mean_accuracy(&self) -> Option<f64> {
        mean(self.class_accuracy())
    }

    /// Share of valid pixels that is correct (aAcc).
    pub fn pixel_accuracy(&self) -> Option<f64> {
        quotient(self.correct(), self.valid())
    }

    /// Share of valid pixels that is wrong: the MisRatio of the SegPGD paper, `1 −` [`Self::pixel_accuracy`].
    pub fn mis_ratio(&self) -> Option<f64> {
        quotient(self.valid() - self.correct(), self.valid())
    }
}

fn quotient(numerator: u64, denominator: u64) -> Option<f64> {
    (denominator > 0).then(|| numerator as f64 / denominator as f64)
}

fn mean(values: Vec<Option<f64>>) -> Option<f64> {
    let present: Vec<f64> = values.into_iter().flatten().collect();
    (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64)
}
