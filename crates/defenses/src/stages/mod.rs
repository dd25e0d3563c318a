//! The stages of this crate, one a file.

mod batch_norm;
mod cross_entropy;
mod ema;
mod freeze;
mod inner_max;
mod margin;

pub use batch_norm::BatchNorm;
pub use cross_entropy::{ClassWeights, CrossEntropy, MeanOver};
pub use ema::Ema;
pub use freeze::Freeze;
pub use inner_max::InnerMax;
pub use margin::{Active, Clean, CleanActive, Margin, MarginTraining, StartRadius, Unit};
