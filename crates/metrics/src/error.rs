/// What a caller can get wrong when counting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Labels and predictions of different size.
    #[error("{what}: found {found} values, expected {expected}, one per label")]
    Length {
        /// Which argument is too long or too short.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The number of labels.
        expected: usize,
    },
    /// A label that is neither a class nor void.
    #[error("label {label} at position {position}: expected 0..{classes} or 255 for void")]
    Label {
        /// The label found.
        label: i64,
        /// Its index in the slice.
        position: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A class count outside 1..=255 (255 is void).
    #[error("found {found} classes, expected 1 to 255")]
    Classes {
        /// The number asked for.
        found: usize,
    },
    /// Counts of different kinds cannot be added.
    #[error("cannot merge counts of {found} {what} into counts of {expected}")]
    Merge {
        /// What the counts are kept for: classes or bins.
        what: &'static str,
        /// The size of the right-hand side.
        found: usize,
        /// The size of the left-hand side.
        expected: usize,
    },
    /// Values on a grid that are not as many as its pixels or voxels.
    #[error("{what}: found {found} values, expected {expected}, one for each pixel or voxel of the grid")]
    Extent {
        /// Which argument is too long or too short.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The number of pixels or voxels.
        expected: usize,
    },
    /// An argument is out of its range.
    #[error("{argument}: found {found}, expected {expected}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// What it was.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Counts that no pair of label and prediction maps can have.
    #[error("impossible counts: {0}")]
    Impossible(String),
    /// Maps that are no rectangle of the given width.
    #[error("width {width}: {pixels} pixels are no rectangle of that width")]
    Width {
        /// The width given.
        width: usize,
        /// Pixels of the map.
        pixels: usize,
    },
    /// Attacks that were not made on the same images.
    #[error("worst case: {0}")]
    Table(String),
    /// A confidence outside 0..=1, or not a number.
    #[error("confidence {confidence} at position {position}: expected 0 to 1")]
    Confidence {
        /// The value found, as text because NaN is not equal to itself.
        confidence: String,
        /// Its index in the slice.
        position: usize,
    },
}
