//! Pixels and voxels with their spacing, and the exact Euclidean distance transform on them.

use crate::MetricError;

/// Extent and spacing of an image or a volume.
///
/// Values on it lie row by row, slice by slice: index `(z · H + y) · W + x`. An image has no third axis, which is not the same
/// as a volume of one slice: every voxel of such a volume lies on a surface.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Depth, height, width.
    shape: [usize; 3],
    spacing: [f64; 3],
    /// The first axis that there is: 0 in volumes, 1 in images.
    first: usize,
}

impl Grid {
    /// An image of `[H, W]` pixels; `spacing` is the distance between the centres of neighbours along each, in mm.
    ///
    /// # Errors
    /// [`MetricError::Argument`] when there are no pixels or a spacing is not a positive number.
    pub fn image(shape: [usize; 2], spacing: [f64; 2]) -> Result<Self, MetricError> {
        Self::checked([1, shape[0], shape[1]], [1.0, spacing[0], spacing[1]], 1)
    }

    /// A volume of `[D, H, W]` voxels; `spacing` is the distance between the centres of neighbours along each, in mm.
    ///
    /// # Errors
    /// [`MetricError::Argument`] when there are no voxels or a spacing is not a positive number.
    pub fn volume(shape: [usize; 3], spacing: [f64; 3]) -> Result<Self, MetricError> {
        Self::checked(shape, spacing, 0)
    }

    fn checked(shape: [usize; 3], spacing: [f64; 3], first: usize) -> Result<Self, MetricError> {
        let wrong = |argument, found, expected| Err(MetricError::Argument { argument, found, expected });
        let length = shape.iter().try_fold(1usize, |length, &extent| length.checked_mul(extent));
        if length.is_none_or(|length| length == 0) {
            return wrong("shape", format!("{:?}", &shape[first..]), "positive extents whose product fits into memory");
        }
        // The square of a spacing is what is added up.
        if spacing.iter().any(|&step| !(step.is_finite() && step > 0.0 && (step * step).is_normal())) {
            return wrong("spacing", format!("{:?}", &spacing[first..]), "positive numbers");
        }
        Ok(Self { shape, spacing, first })
    }

    /// The number of pixels or voxels.
    #[expect(clippy::len_without_is_empty, reason = "a grid is never empty")]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The axes that there are, with the distance of neighbours in memory: `(stride, extent, spacing)`.
    pub(crate) fn axes(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        let strides = [self.shape[1] * self.shape[2], self.shape[2], 1];
        (self.first..3).map(move |axis| (strides[axis], self.shape[axis], self.spacing[axis]))
    }

    /// The smallest part that holds all values `used` is true for, and the indices of its values; `None` without any.
    pub(crate) fn crop(&self, used: impl Fn(usize) -> bool) -> Option<(Self, Vec<usize>)> {
        let [depth, height, width] = self.shape;
        let place = |index: usize| [index / (height * width), index / width % height, index % width];
        let mut range: Option<([usize; 3], [usize; 3])> = None;
        for index in (0..depth * height * width).filter(|&index| used(index)) {
            let place = place(index);
            let (low, high) = range.get_or_insert((place, place));
            for axis in 0..3 {
                low[axis] = low[axis].min(place[axis]);
                high[axis] = high[axis].max(place[axis]);
            }
        }
        let (low, high) = range?;
        let mut indices = Vec::new();
        for z in low[0]..=high[0] {
            for y in low[1]..=high[1] {
                indices.extend((low[2]..=high[2]).map(|x| (z * height + y) * width + x));
            }
        }
        let shape = std::array::from_fn(|axis| high[axis] - low[axis] + 1);
        Some((Self { shape, ..*self }, indices))
    }

    pub(crate) fn check_length(&self, what: &'static str, found: usize) -> Result<(), MetricError> {
        let expected = self.len();
        if found == expected { Ok(()) } else { Err(MetricError::Extent { what, found, expected }) }
    }
}

/// Distance in mm from every pixel or voxel to the nearest `feature`; infinite where there is none.
///
/// Felzenszwalb, Huttenlocher. *Distance Transforms of Sampled Functions*, Theory of Computing 8 (2012): the squared distance
/// is a lower envelope of parabolas, found axis by axis in linear time. Exact up to rounding, for any spacing.
///
/// ```
/// use fireproof_metrics::{Grid, distance_transform};
///
/// let grid = Grid::image([2, 3], [3.0, 1.0])?;
/// let distances = distance_transform(&grid, &[true, false, false, false, false, false])?;
/// assert_eq!(distances, [0.0, 1.0, 2.0, 3.0, 10f64.sqrt(), 13f64.sqrt()]);
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
///
/// # Errors
/// [`MetricError::Extent`] when `feature` does not have one value for each of the grid's.
pub fn distance_transform(grid: &Grid, feature: &[bool]) -> Result<Vec<f64>, MetricError> {
    grid.check_length("features", feature.len())?;
    let mut squares: Vec<f64> = feature.iter().map(|&inside| if inside { 0.0 } else { f64::INFINITY }).collect();
    let mut envelope = Envelope::default();
    for (stride, extent, spacing) in grid.axes() {
        for first in 0..grid.len() {
            // Each line is visited once, at its first value.
            if (first / stride).is_multiple_of(extent) {
                envelope.lower(&mut squares[first..], stride, extent, spacing);
            }
        }
    }
    squares.iter_mut().for_each(|square| *square = square.sqrt());
    Ok(squares)
}

/// The lower envelope of the parabolas of one line.
#[derive(Default)]
struct Envelope {
    line: Vec<f64>,
    /// Position of each parabola that is lowest somewhere, and where it begins to be.
    parabolas: Vec<(usize, f64)>,
}

impl Envelope {
    /// Replaces `line[q]` by `min over p of line[p] + (spacing · (q - p))²`.
    fn lower(&mut self, values: &mut [f64], stride: usize, extent: usize, spacing: f64) {
        self.line.clear();
        self.line.extend((0..extent).map(|place| values[place * stride]));
        self.parabolas.clear();
        let square = spacing * spacing;
        for (place, &height) in self.line.iter().enumerate() {
            if height.is_infinite() {
                continue;
            }
            let mut start = f64::NEG_INFINITY;
            while let Some(&(other, other_start)) = self.parabolas.last() {
                // Around their middle, so that large positions cancel before they are squared.
                let middle = 0.5 * (place + other) as f64;
                start = middle + (height - self.line[other]) / (2.0 * square * (place - other) as f64);
                if start > other_start {
                    break;
                }
                self.parabolas.pop();
                start = f64::NEG_INFINITY;
            }
            self.parabolas.push((place, start));
        }
        let mut lowest = 0;
        for place in 0..extent {
            while self.parabolas.get(lowest + 1).is_some_and(|&(_, start)| start < place as f64) {
                lowest += 1;
            }
            let Some(&(origin, _)) = self.parabolas.get(lowest) else { return };
            let away = place.abs_diff(origin) as f64 * spacing;
            values[place * stride] = self.line[origin] + away * away;
        }
    }
}
