//! Synthetic scenes, folders with manifests and their readers, for fireproof.
//!
//! Everything here lives in host memory and builds without Burn: [`open`] a data set by name, read [`Sample`]s by index,
//! or stream them in batches. [`volume`] reads and writes single medical volumes.
//!
//! ```
//! use fireproof_datasets::{Dataset, Options, Split, open};
//!
//! let scenes = open("scenes", None, Split::Train, Options::default())?;
//! let sample = scenes.get(0)?;
//! assert_eq!((sample.image.channels, sample.image.size()), (3, sample.mask.size()));
//! # Ok::<(), fireproof_datasets::Error>(())
//! ```

mod augment;
#[cfg(feature = "burn")]
mod batch;
mod check;
mod dataset;
mod error;
mod folder;
mod idx;
mod loader;
pub mod manifest;
mod math;
mod msd;
mod nnunet;
mod open;
mod random;
pub mod read;
pub mod resize;
mod sample;
pub mod scenes;
pub mod volume;

pub use augment::{Augment, Fill};
#[cfg(feature = "burn")]
pub use batch::batch;
pub use check::{CheckReport, ClassCount, Problem, check, verify};
pub use dataset::{Dataset, Split, Subset};
pub use error::{Error, Result};
pub use loader::{Loaded, Loader, LoaderOptions, Position};
pub use manifest::{Manifest, Registration};
pub use open::{Options, list, open, open_manifest};
pub use sample::{Case, Class, Image, Mask, Sample, Slice, VOID};
