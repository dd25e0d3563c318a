//! The stages of this crate, one a file.

mod cross_entropy;
mod ema;
mod inner_max;

pub use cross_entropy::{ClassWeights, CrossEntropy};
pub use ema::Ema;
pub use inner_max::InnerMax;
