//! Margins: how far each training sample may be moved before the network errs, and training at that distance.
//!
//! The parts of the stage [`Margin`](crate::stages::Margin), which `ima`, `amat`, `ame`, `iaat`, `sat` and others are
//! settings of:
//!
//! | part | question |
//! |---|---|
//! | [`Store`] | what is the margin of the sample with this id? |
//! | [`Criterion`] | does the network still get this image right? |
//! | [`Search`] | where, within a radius of its own, does each image's prediction turn wrong? |
//! | [`Update`] | how does what was found change the margin? |

mod criterion;
mod search;
mod store;
mod update;

pub use criterion::{Criterion, Over};
pub use search::{Bracket, Budget, Found, Keep, Search};
pub use store::{Snapshot, Store};
pub use update::{Expand, Refine, Update, Visit};
