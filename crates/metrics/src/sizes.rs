//! IoU by the size of objects: does an attack erase the small ones first?
//!
//! Label maps have no instances, so an object is a connected region of one class (neighbours across edges and corners, so
//! that a thin slanted pole stays one object). Its size is its share of the image's pixels, so that resizing an image moves no
//! object to another size:
//!
//! | size | area, in pixels of an image of `H·W` |
//! |---|---|
//! | small | below `H·W / 256` |
//! | medium | below `H·W / 32` |
//! | large | the rest |
//!
//! The protocol asks for a split by object size and names no rule; this one is ours. In an image of 640 × 480 the limits are
//! the areas of squares of 35 and of 98 pixels.
//!
//! Labelled pixels count for the size of their object. A wrong prediction has no object of its own, so each connected region
//! of a predicted class hands its wrong pixels to the labelled object of that class that it covers most, the first in reading
//! order where two are equal; a region that covers none goes by its own area. So every pixel counts for one size, and the
//! intersections and unions of the three sizes add up to those of [`ClassCounts`](crate::ClassCounts).

use serde::{Deserialize, Serialize};

use crate::{MetricError, VOID};

/// How large an object is, see the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectSize {
    /// Below 1/256 of the image.
    Small,
    /// Below 1/32 of the image.
    Medium,
    /// The rest.
    Large,
}

impl ObjectSize {
    /// All sizes, in the order of every list of three here.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// The size of an object of `area` pixels in an image of `pixels`.
    pub fn of(area: usize, pixels: usize) -> Self {
        let (area, pixels) = (area as u64, pixels as u64);
        match () {
            () if area * 256 < pixels => Self::Small,
            () if area * 32 < pixels => Self::Medium,
            () => Self::Large,
        }
    }

    /// `small`, `medium` or `large`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }
}

/// Pixel counts per class and object size over any set of images. Scores are fractions in 0..=1, `None` where nothing was.
///
/// ```
/// use fireproof_metrics::SizeCounts;
///
/// // A row of 40 pixels: an object of 1 pixel (medium: 1/40 of the image is below 1/32), and one of 4 (large).
/// let mut labels = [0u8; 40];
/// labels[0] = 1;
/// labels[10..14].fill(1);
/// let mut predictions = labels;
/// predictions[0] = 0; // the medium one is lost
/// let counts = SizeCounts::count(2, &labels, &predictions, 40)?;
/// assert_eq!(counts.iou()[1], [None, Some(0.0), Some(1.0)]);
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct SizeCounts {
    objects: [u64; 3],
    intersections: Vec<[u64; 3]>,
    unions: Vec<[u64; 3]>,
}

/// What a file says before anyone looked at it.
#[derive(Deserialize)]
struct Unchecked {
    objects: [u64; 3],
    intersections: Vec<[u64; 3]>,
    unions: Vec<[u64; 3]>,
}

impl TryFrom<Unchecked> for SizeCounts {
    type Error = MetricError;

    fn try_from(Unchecked { objects, intersections, unions }: Unchecked) -> Result<Self, MetricError> {
        let empty = Self::new(unions.len())?;
        if intersections.len() != empty.classes() {
            let (found, expected) = (intersections.len(), empty.classes());
            return Err(MetricError::Impossible(format!("intersections of {found} classes, unions of {expected}")));
        }
        let pairs = || intersections.iter().flatten().zip(unions.iter().flatten());
        if let Some((both, either)) = pairs().find(|(both, either)| both > either) {
            return Err(MetricError::Impossible(format!("an intersection of {both} pixels in a union of {either}")));
        }
        Ok(Self { objects, intersections, unions })
    }
}

impl SizeCounts {
    /// No pixels yet, for `classes` in 1..=255.
    ///
    /// # Errors
    /// [`MetricError::Classes`].
    pub fn new(classes: usize) -> Result<Self, MetricError> {
        if !(1..=255).contains(&classes) {
            return Err(MetricError::Classes { found: classes });
        }
        Ok(Self { objects: [0; 3], intersections: vec![[0; 3]; classes], unions: vec![[0; 3]; classes] })
    }

    /// Counts one image's maps `[H, W]`, row by row, given `width` `W`; see [`Confusion::add`](crate::Confusion::add) for
    /// what labels and predictions may be.
    ///
    /// # Errors
    /// As [`Confusion::add`](crate::Confusion::add), and [`MetricError::Width`].
    pub fn count<L, P>(classes: usize, labels: &[L], predictions: &[P], width: usize) -> Result<Self, MetricError>
    where
        L: Copy + Into<i64>,
        P: Copy + Into<i64>,
    {
        let mut counts = Self::new(classes)?;
        crate::confusion::check(classes, labels, predictions)?;
        if width == 0 || !labels.len().is_multiple_of(width) {
            return Err(MetricError::Width { width, pixels: labels.len() });
        }
        // A prediction outside the classes belongs to no class, as a void label does.
        let class = |value: i64| usize::try_from(value).ok().filter(|&class| class < classes);
        let labels: Vec<i64> = labels.iter().map(|&label| label.into()).collect();
        let truth: Vec<Option<usize>> = labels.iter().map(|&label| class(label)).collect();
        let found: Vec<Option<usize>> = predictions.iter().map(|&prediction| class(prediction.into())).collect();
        let objects = Regions::of(&truth, width);
        let regions = Regions::of(&found, width);
        let size = |area: usize| ObjectSize::of(area, labels.len()) as usize;

        objects.areas.iter().for_each(|&area| counts.objects[size(area)] += 1);
        let mut overlaps = Vec::new();
        for (pixel, (truth, found)) in truth.iter().zip(&found).enumerate() {
            let Some(class) = *truth else { continue };
            let object = objects.ids[pixel];
            let size = size(objects.areas[object]);
            counts.unions[class][size] += 1;
            if *found == Some(class) {
                counts.intersections[class][size] += 1;
                overlaps.push((regions.ids[pixel], object));
            }
        }
        let mut sizes: Vec<usize> = regions.areas.iter().map(|&area| size(area)).collect();
        let mut most = vec![0; sizes.len()];
        overlaps.sort_unstable();
        for run in overlaps.chunk_by(|a, b| a == b) {
            let (region, object) = run[0];
            if run.len() > most[region] {
                most[region] = run.len();
                sizes[region] = size(objects.areas[object]);
            }
        }
        for (pixel, (&label, found)) in labels.iter().zip(&found).enumerate() {
            if let Some(class) = found.filter(|&class| label != i64::from(VOID) && label != class as i64) {
                counts.unions[class][sizes[regions.ids[pixel]]] += 1;
            }
        }
        Ok(counts)
    }

    /// Adds the pixels of `other`. Addition of integers: the order of merging never matters.
    ///
    /// # Errors
    /// [`MetricError::Merge`] when the numbers of classes differ; `self` is then unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricError> {
        if self.classes() != other.classes() {
            return Err(MetricError::Merge { what: "classes", found: other.classes(), expected: self.classes() });
        }
        let mine = self.intersections.iter_mut().chain(&mut self.unions).chain([&mut self.objects]).flatten();
        let theirs = other.intersections.iter().chain(&other.unions).chain([&other.objects]).flatten();
        mine.zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        Ok(())
    }

    /// The number of classes `K`.
    pub fn classes(&self) -> usize {
        self.unions.len()
    }

    /// Labelled objects of each size.
    pub fn objects(&self) -> [u64; 3] {
        self.objects
    }

    /// Correct pixels per class and size, `[K]`.
    pub fn intersections(&self) -> &[[u64; 3]] {
        &self.intersections
    }

    /// Pixels labelled or predicted as the class, per class and size, `[K]`.
    pub fn unions(&self) -> &[[u64; 3]] {
        &self.unions
    }

    /// Intersection over union per class and size, `[K]`.
    pub fn iou(&self) -> Vec<[Option<f64>; 3]> {
        let quotient = |class: usize, size: usize| {
            let (both, either) = (self.intersections[class][size], self.unions[class][size]);
            (either > 0).then(|| both as f64 / either as f64)
        };
        (0..self.classes()).map(|class| [0, 1, 2].map(|size| quotient(class, size))).collect()
    }

    /// Mean IoU of each size, over the classes that have pixels of that size.
    pub fn miou(&self) -> [Option<f64>; 3] {
        let iou = self.iou();
        [0, 1, 2].map(|size| {
            let present: Vec<f64> = iou.iter().filter_map(|class| class[size]).collect();
            (!present.is_empty()).then(|| present.iter().sum::<f64>() / present.len() as f64)
        })
    }
}

/// Connected regions of equal class, numbered in reading order of their first pixels.
struct Regions {
    /// The region of each pixel; meaningless where the pixel has no class.
    ids: Vec<usize>,
    /// Pixels of each region.
    areas: Vec<usize>,
}

impl Regions {
    fn of(classes: &[Option<usize>], width: usize) -> Self {
        const NONE: usize = usize::MAX;
        let height = classes.len() / width;
        let (mut ids, mut areas) = (vec![NONE; classes.len()], Vec::new());
        let mut open = Vec::new();
        for first in 0..classes.len() {
            if classes[first].is_none() || ids[first] != NONE {
                continue;
            }
            let id = areas.len();
            let mut area = 0;
            ids[first] = id;
            open.push(first);
            while let Some(pixel) = open.pop() {
                area += 1;
                let (row, column) = (pixel / width, pixel % width);
                for row in row.saturating_sub(1)..(row + 2).min(height) {
                    for column in column.saturating_sub(1)..(column + 2).min(width) {
                        let neighbour = row * width + column;
                        if ids[neighbour] == NONE && classes[neighbour] == classes[first] {
                            ids[neighbour] = id;
                            open.push(neighbour);
                        }
                    }
                }
            }
            areas.push(area);
        }
        Self { ids, areas }
    }
}
