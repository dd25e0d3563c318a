//! Segmentation metrics from integer counts, and distances between surfaces.
//!
//! Every pooled score of overlap is a quotient of integers, formed once, at the end. Integers add exactly and in any order, so a score
//! does not depend on the batch size, on the order of the images, or on how many machines counted them, and two runs can
//! be compared digit by digit.
//!
//! | type | what it keeps | for |
//! |---|---|---|
//! | [`ClassCounts`] | three integers per class | one image's record, pooled scores, worst cases, shards |
//! | [`Confusion`] | the `K × K` table and a column for predictions outside the classes | who is mistaken for whom |
//! | [`SizeCounts`] | two integers per class and object size | IoU of small, medium and large objects |
//! | [`Calibration`] | three integers per confidence bin | expected calibration error |
//! | [`per_image`] | | scores of single images, averaged; the IoU ratio |
//! | [`worst_case`] | | what is left when every image gets the attack that hurts most |
//! | [`Overlap`] | | Dice and IoU under a named rule for absent classes ([`EmptyClass`]) |
//! | [`ByVolume`] | counts per volume | scores per volume from slices |
//! | [`SurfaceDistances`] | sorted distances in mm | HD95, average surface distance, surface Dice, in 2-D and 3-D |
//! | [`Summary`] | means over cases | one number per class, and one for all |
//! | [`bootstrap`] | | confidence interval of any pooled score over images |
//! | [`binomial`] | | exact p-values and bounds, for certificates |
//! | [`Spread`] | | mean, deviation and range over seeds |
//!
//! ```
//! use fireproof_metrics::{ClassCounts, VOID};
//!
//! let labels = [0u8, 0, 1, 1, VOID];
//! let predictions = [0u8, 1, 1, 1, 0];
//! let counts = ClassCounts::count(2, &labels, &predictions)?;
//! assert_eq!(counts.iou(), [Some(1.0 / 2.0), Some(2.0 / 3.0)]);
//! assert_eq!(counts.pixel_accuracy(), Some(0.75));
//! # Ok::<(), fireproof_metrics::MetricError>(())
//! ```

pub mod binomial;
pub mod bootstrap;
mod calibration;
mod class_counts;
mod confusion;
mod distance;
mod error;
mod overlap;
pub mod per_image;
mod random;
pub mod sizes;
mod spread;
mod summary;
mod surface;
pub mod worst_case;

pub use bootstrap::Interval;
pub use calibration::Calibration;
pub use class_counts::ClassCounts;
pub use confusion::Confusion;
pub use distance::{Grid, distance_transform};
pub use error::MetricError;
pub use overlap::{ByVolume, EmptyClass, Overlap};
pub use sizes::{ObjectSize, SizeCounts};
pub use spread::Spread;
pub use summary::Summary;
pub use surface::SurfaceDistances;
pub use worst_case::WorstCase;

/// The label of pixels that are neither trained on nor scored.
pub const VOID: u8 = 255;
