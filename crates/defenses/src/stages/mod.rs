//! The stages of this crate, one a file.

mod batch_norm;
mod cross_entropy;
mod dice_ce;
mod ema;
mod focal;
mod freeze;
mod generalised_dice;
mod inner_max;
mod margin;
mod region;
mod tversky;

pub use batch_norm::BatchNorm;
pub use cross_entropy::{ClassWeights, CrossEntropy, MeanOver};
pub use dice_ce::DiceCe;
pub use ema::Ema;
pub use focal::Focal;
pub use freeze::Freeze;
pub use generalised_dice::GeneralisedDice;
pub use inner_max::InnerMax;
pub use margin::{Active, Clean, CleanActive, Margin, MarginTraining, StartRadius, Unit};
pub use region::{Region, head_weights};
pub use tversky::Tversky;
