//! The confusion matrix: which class is taken for which.

use serde::{Deserialize, Serialize};

use crate::{ClassCounts, MetricError, VOID};

/// Pixel counts by label (row) and prediction (column), with one more column for predictions outside the classes.
///
/// A network may have more outputs than the data has classes (a void channel, the 21st class of a VOC head): such a
/// prediction is wrong for the pixel's class and belongs to no class's union but that one.
///
/// ```
/// use fireproof_metrics::Confusion;
///
/// let table = Confusion::count(2, &[0u8, 0, 1, 255], &[0u8, 7, 0, 1])?;
/// assert_eq!((table.get(0, 0), table.other(0), table.get(1, 0)), (1, 1, 1));
/// assert_eq!(table.class_counts().valid(), 3);
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    classes: usize,
    /// `[K, K + 1]`, row by row.
    counts: Vec<u64>,
}

impl Confusion {
    /// An empty table for `classes` in 1..=255.
    ///
    /// # Errors
    /// [`MetricError::Classes`].
    pub fn new(classes: usize) -> Result<Self, MetricError> {
        if !(1..=255).contains(&classes) {
            return Err(MetricError::Classes { found: classes });
        }
        Ok(Self { classes, counts: vec![0; classes * (classes + 1)] })
    }

    /// The table of one pair of maps.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn count<L, P>(classes: usize, labels: &[L], predictions: &[P]) -> Result<Self, MetricError>
    where
        L: Copy + Into<i64>,
        P: Copy + Into<i64>,
    {
        let mut table = Self::new(classes)?;
        table.add(labels, predictions)?;
        Ok(table)
    }

    /// Adds pixels: labels in `0..K` or [`VOID`], which is skipped; predictions of any value.
    ///
    /// # Errors
    /// [`MetricError::Length`] when the slices differ in length, [`MetricError::Label`] for a label that is no class;
    /// the table is then unchanged.
    pub fn add<L, P>(&mut self, labels: &[L], predictions: &[P]) -> Result<(), MetricError>
    where
        L: Copy + Into<i64>,
        P: Copy + Into<i64>,
    {
        check(self.classes, labels, predictions)?;
        let classes = self.classes as i64;
        for (&label, &prediction) in labels.iter().zip(predictions) {
            let (label, prediction): (i64, i64) = (label.into(), prediction.into());
            if label != i64::from(VOID) {
                let column = if (0..classes).contains(&prediction) { prediction } else { classes };
                self.counts[(label * (classes + 1) + column) as usize] += 1;
            }
        }
        Ok(())
    }

    /// Adds tables that were counted elsewhere, for instance on a GPU: `counts` are any number of `[K, K + 1]` tables, row by row,
    /// with the predictions outside the classes in the last column.
    ///
    /// ```
    /// # use fireproof_metrics::Confusion;
    /// let mut table = Confusion::new(1)?;
    /// table.add_tables(&[3, 1, 2, 0])?;
    /// assert_eq!((table.get(0, 0), table.other(0)), (5, 1));
    /// # Ok::<(), fireproof_metrics::MetricError>(())
    /// ```
    ///
    /// # Errors
    /// [`MetricError::Merge`] when these are no whole tables, [`MetricError::Impossible`] when a count is negative; the table is
    /// then unchanged.
    pub fn add_tables(&mut self, counts: &[i32]) -> Result<(), MetricError> {
        let size = self.counts.len();
        if !counts.len().is_multiple_of(size) {
            return Err(MetricError::Merge { what: "pairs of classes", found: counts.len() % size, expected: size });
        }
        if let Some(count) = counts.iter().find(|count| **count < 0) {
            return Err(MetricError::Impossible(format!("a count of {count} pixels")));
        }
        for table in counts.chunks(size) {
            self.counts.iter_mut().zip(table).for_each(|(sum, count)| *sum += u64::from(count.unsigned_abs()));
        }
        Ok(())
    }

    /// Adds the pixels of `other`. Addition of integers: the order of merging never matters.
    ///
    /// # Errors
    /// [`MetricError::Merge`] when the numbers of classes differ; `self` is then unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricError> {
        if self.classes != other.classes {
            return Err(MetricError::Merge { what: "classes", found: other.classes, expected: self.classes });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        Ok(())
    }

    /// The number of classes `K`.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Pixels of class `label` that were predicted as class `prediction`.
    ///
    /// # Panics
    /// When either is not below [`Self::classes`].
    pub fn get(&self, label: usize, prediction: usize) -> u64 {
        assert!(label < self.classes && prediction < self.classes, "class out of range");
        self.counts[label * (self.classes + 1) + prediction]
    }

    /// Pixels of class `label` whose prediction is none of the classes.
    ///
    /// # Panics
    /// When `label` is not below [`Self::classes`].
    pub fn other(&self, label: usize) -> u64 {
        assert!(label < self.classes, "class out of range");
        self.counts[label * (self.classes + 1) + self.classes]
    }

    /// The three integers per class that all scores are made of: IoU, mIoU, mean and pixel accuracy, MisRatio.
    pub fn class_counts(&self) -> ClassCounts {
        let classes = 0..self.classes;
        let labels = self.counts.chunks(self.classes + 1).map(|row| row.iter().sum()).collect();
        let predictions =
            classes.clone().map(|column| classes.clone().map(|row| self.get(row, column)).sum()).collect();
        let intersections = classes.map(|class| self.get(class, class)).collect();
        ClassCounts::from_parts(intersections, labels, predictions).expect("a table's sums are consistent")
    }
}

/// Refuses maps of different length and labels that are neither a class nor void.
pub(crate) fn check<L, P>(classes: usize, labels: &[L], predictions: &[P]) -> Result<(), MetricError>
where
    L: Copy + Into<i64>,
{
    if labels.len() != predictions.len() {
        return Err(MetricError::Length { what: "predictions", found: predictions.len(), expected: labels.len() });
    }
    let is_wrong = |label: &L| !(0..classes as i64).contains(&(*label).into()) && (*label).into() != i64::from(VOID);
    match labels.iter().position(is_wrong) {
        Some(position) => Err(MetricError::Label { label: labels[position].into(), position, classes }),
        None => Ok(()),
    }
}
