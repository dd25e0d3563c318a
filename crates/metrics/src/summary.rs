//! From scores of cases to one number per class and one for all.

use serde::{Deserialize, Serialize};

use crate::MetricError;

/// Means over cases (slices or volumes), class by class.
///
/// A case without a score of a class (`None`) does not count for that class, as in nnU-Net's evaluation: first the mean over
/// cases, then the mean over classes. An infinite distance, of a case where only labels or only predictions hold the class,
/// would swallow the mean; it is counted in [`infinite`](Self::infinite) instead, which belongs beside the mean in any table.
///
/// ```
/// use fireproof_metrics::Summary;
///
/// let summary = Summary::of([[Some(1.0), Some(0.5), None], [Some(0.5), None, None]])?;
/// assert_eq!(summary.classes, [Some(0.75), Some(0.5), None]);
/// assert_eq!(summary.cases, [2, 1, 0]);
/// assert_eq!((summary.mean(), summary.foreground()), (Some(0.625), Some(0.5)));
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean over the finite scores of each class, `[K]`; `None` without any.
    pub classes: Vec<Option<f64>>,
    /// How many finite scores each class has, `[K]`.
    pub cases: Vec<usize>,
    /// How many infinite scores each class has, `[K]`.
    pub infinite: Vec<usize>,
}

impl Summary {
    /// The summary of cases, each with a score per class.
    ///
    /// # Errors
    /// [`MetricError::Merge`] when a case has another number of classes than the first.
    pub fn of<R: AsRef<[Option<f64>]>>(cases: impl IntoIterator<Item = R>) -> Result<Self, MetricError> {
        let mut summary = Self { classes: Vec::new(), cases: Vec::new(), infinite: Vec::new() };
        let mut sums: Option<Vec<f64>> = None;
        for case in cases {
            let scores = case.as_ref();
            let sums = sums.get_or_insert_with(|| vec![0.0; scores.len()]);
            if scores.len() != sums.len() {
                return Err(MetricError::Merge { what: "classes", found: scores.len(), expected: sums.len() });
            }
            summary.cases.resize(sums.len(), 0);
            summary.infinite.resize(sums.len(), 0);
            for (class, score) in scores.iter().enumerate() {
                match score {
                    Some(score) if score.is_infinite() => summary.infinite[class] += 1,
                    Some(score) => {
                        sums[class] += score;
                        summary.cases[class] += 1;
                    }
                    None => {}
                }
            }
        }
        let mean = |(sum, &count): (&f64, &usize)| (count > 0).then(|| sum / count as f64);
        summary.classes = sums.unwrap_or_default().iter().zip(&summary.cases).map(mean).collect();
        Ok(summary)
    }

    /// Mean over the classes that have a score.
    pub fn mean(&self) -> Option<f64> {
        mean(&self.classes)
    }

    /// Mean over the classes that have a score, without the first, which is the background.
    pub fn foreground(&self) -> Option<f64> {
        mean(self.classes.get(1..)?)
    }
}

fn mean(scores: &[Option<f64>]) -> Option<f64> {
    let present: Vec<f64> = scores.iter().copied().flatten().collect();
    (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64)
}
