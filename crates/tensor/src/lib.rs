//! Devices by name, the data contract, seeds, norm geometry and fused operations of fireproof.
//!
//! Every other crate of the workspace speaks in the types defined here:
//!
//! | name | type | meaning |
//! |---|---|---|
//! | images | `Tensor<4>` `[N, C, H, W]` | pixel space; the valid range is part of the threat model |
//! | logits | `Tensor<4>` `[N, K, H, W]` | at the images' resolution; the class axis is always 1 |
//! | [`Targets`] | labels `[N, H, W]`, void = [`VOID`] | what a loss and a score read |
//! | [`Batch`] | images, targets, ids | one step's data; `ids` are stable in the data set |
//! | [`Victim`] | trait | a frozen model under attack: logits, and the gradient at the images |
//!
//! ```
//! use burn::tensor::Tensor;
//! use fireproof_tensor::{Victim, device, victim};
//!
//! let device = device::open("flex")?;
//! let model = victim(|images: Tensor<4>| images.mean_dim(1).repeat_dim(1, 5));
//! let logits = model.logits(Tensor::zeros([1, 3, 8, 8], &device))?;
//! assert_eq!(logits.dims(), [1, 5, 8, 8]);
//! # Ok::<(), fireproof_tensor::Error>(())
//! ```

mod batch;
pub mod device;
mod error;
pub mod host;
pub mod memory;
pub mod norm;
pub mod ops;
mod precision;
pub mod random;
pub mod selftest;
mod split;
mod targets;
mod victim;

pub use batch::{Affine, Batch, Unit};
pub use error::{Error, Result};
pub use norm::Norm;
pub use precision::{HalfPrecision, Precision};
pub use split::{Sizes, Split};
pub use targets::{Targets, VOID};
pub use victim::{Counted, InUnit, Passes, Victim, victim};
