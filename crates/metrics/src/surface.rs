//! How far the surface of a prediction lies from that of the labels, in mm: Hausdorff distance, average surface distance,
//! normalised surface Dice.
//!
//! A surface is what MONAI takes for one: the pixels or voxels of a class that have a neighbour along an axis outside the
//! class or outside the image. (Implementations that weight surface elements by their area give somewhat other numbers.)

use crate::{Grid, MetricError, VOID, distance_transform};

/// Distances between the surfaces of two sets, in mm.
///
/// All scores are `None` when both sets are empty. When one is empty, distances are infinite and the surface Dice is 0: a model
/// that is made to miss a structure must not look better for it; see [`Summary`](crate::Summary) for the mean over cases.
///
/// ```
/// use fireproof_metrics::{Grid, SurfaceDistances};
///
/// let grid = Grid::image([1, 6], [1.0, 0.5])?;
/// let labels = [0u8, 1, 1, 0, 0, 0];
/// let predictions = [0u8, 1, 1, 0, 0, 1];
/// let distances = SurfaceDistances::of_class(&grid, 1, &labels, &predictions)?;
/// assert_eq!(distances.hausdorff(100.0), Some(1.5));
/// assert_eq!(distances.average_symmetric(), Some(1.5 / 5.0));
/// assert_eq!(distances.surface_dice(1.0), Some(4.0 / 5.0));
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SurfaceDistances {
    /// From each surface element of the prediction to the labels' surface, ascending.
    to_labels: Vec<f64>,
    /// From each surface element of the labels to the prediction's surface, ascending.
    to_predictions: Vec<f64>,
}

impl SurfaceDistances {
    /// The distances between two sets.
    ///
    /// # Errors
    /// [`MetricError::Extent`] when a set does not have one value for each of the grid's.
    pub fn between(grid: &Grid, labels: &[bool], predictions: &[bool]) -> Result<Self, MetricError> {
        grid.check_length("labels", labels.len())?;
        grid.check_length("predictions", predictions.len())?;
        // Nothing outside the sets' common box is a surface or lies between them.
        let Some((part, indices)) = grid.crop(|index| labels[index] || predictions[index]) else {
            return Ok(Self { to_labels: Vec::new(), to_predictions: Vec::new() });
        };
        let surface = |set: &[bool]| surface(&part, &indices.iter().map(|&index| set[index]).collect::<Vec<bool>>());
        let (labels, predictions) = (surface(labels), surface(predictions));
        let distances = |from: &[bool], to: &[bool]| -> Result<Vec<f64>, MetricError> {
            let all = distance_transform(&part, to)?;
            let mut own: Vec<f64> = all.into_iter().zip(from).filter_map(|(mm, &here)| here.then_some(mm)).collect();
            own.sort_unstable_by(f64::total_cmp);
            Ok(own)
        };
        Ok(Self { to_labels: distances(&predictions, &labels)?, to_predictions: distances(&labels, &predictions)? })
    }

    /// The distances of one class between two label maps. Where a label is [`VOID`], neither set has anything.
    ///
    /// # Errors
    /// As [`between`](Self::between).
    pub fn of_class<L, P>(grid: &Grid, class: u8, labels: &[L], predictions: &[P]) -> Result<Self, MetricError>
    where
        L: Copy + Into<i64>,
        P: Copy + Into<i64>,
    {
        grid.check_length("labels", labels.len())?;
        grid.check_length("predictions", predictions.len())?;
        let class = i64::from(class);
        let labelled: Vec<bool> = labels.iter().map(|&label| label.into() == class).collect();
        let predicted = labels.iter().zip(predictions);
        let predicted: Vec<bool> = predicted
            .map(|(&label, &prediction)| label.into() != i64::from(VOID) && prediction.into() == class)
            .collect();
        Self::between(grid, &labelled, &predicted)
    }

    /// The larger of the two directed distances' percentiles (0 to 100, interpolated linearly); 100 is the Hausdorff
    /// distance.
    ///
    /// # Panics
    /// When `percentile` is not within 0..=100.
    pub fn hausdorff(&self, percentile: f64) -> Option<f64> {
        assert!((0.0..=100.0).contains(&percentile), "a percentile of {percentile}, expected 0 to 100");
        self.unless_empty(|| at(&self.to_labels, percentile).max(at(&self.to_predictions, percentile)))
    }

    /// [`hausdorff`](Self::hausdorff) at 95.
    pub fn hd95(&self) -> Option<f64> {
        self.hausdorff(95.0)
    }

    /// Mean distance from the prediction's surface to the labels': MONAI's average surface distance with
    /// `symmetric = False`, its default. It does not see what the prediction misses.
    pub fn average(&self) -> Option<f64> {
        self.unless_empty(|| self.to_labels.iter().sum::<f64>() / self.to_labels.len() as f64)
    }

    /// Mean over the distances of both surfaces' elements to the other surface (ASSD).
    pub fn average_symmetric(&self) -> Option<f64> {
        self.unless_empty(|| {
            let sum = self.to_labels.iter().sum::<f64>() + self.to_predictions.iter().sum::<f64>();
            sum / self.elements() as f64
        })
    }

    /// Share of both surfaces' elements that lie within `tolerance` mm of the other surface, in 0..=1.
    ///
    /// Nikolov et al. *Clinically Applicable Segmentation of Head and Neck Anatomy for Radiotherapy*, JMIR 23 (2021), with
    /// elements counted instead of weighted by area.
    pub fn surface_dice(&self, tolerance: f64) -> Option<f64> {
        let within = |distances: &[f64]| distances.partition_point(|&mm| mm <= tolerance);
        let close = within(&self.to_labels) + within(&self.to_predictions);
        (self.elements() > 0).then(|| close as f64 / self.elements() as f64)
    }

    fn elements(&self) -> usize {
        self.to_labels.len() + self.to_predictions.len()
    }

    fn unless_empty(&self, score: impl Fn() -> f64) -> Option<f64> {
        match (self.to_labels.is_empty(), self.to_predictions.is_empty()) {
            (true, true) => None,
            (false, false) => Some(score()),
            _ => Some(f64::INFINITY),
        }
    }
}

/// The elements of a set that have a neighbour outside it.
fn surface(grid: &Grid, set: &[bool]) -> Vec<bool> {
    let inner = |index: usize| {
        grid.axes().all(|(stride, extent, _)| {
            let place = index / stride % extent;
            place > 0 && place + 1 < extent && set[index - stride] && set[index + stride]
        })
    };
    (0..set.len()).map(|index| set[index] && !inner(index)).collect()
}

/// A percentile of ascending numbers, of which there is at least one.
fn at(sorted: &[f64], percentile: f64) -> f64 {
    let place = percentile / 100.0 * (sorted.len() - 1) as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * part
}
