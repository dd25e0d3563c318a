//! Robustness evaluation: plan → run → records → results.
//!
//! ```no_run
//! use fireproof_datasets::Split;
//! use fireproof_eval::{Checks, DataSettings, Options, Plan, Selection, Settings, Trial, Weights, expand};
//! use fireproof_tensor::Precision;
//!
//! let attacks = expand(&["pgd".into(), "segpgd".into()], &[3, 10, 20], |_| Ok(()))?;
//! let settings = Settings {
//!     data: DataSettings { name: "scenes".into(), root: None, split: Split::Test, size: None, selection: Selection::First(8) },
//!     weights: vec![Weights { path: "unet.safetensors".into(), overrides: Default::default(), inference: Default::default(), joined: Vec::new() }],
//!     trials: [Trial::Clean].into_iter().chain(attacks.into_iter().map(Trial::Attack)).collect(),
//!     devices: vec!["flex".into()],
//!     seeds: vec![0],
//!     checks: Checks::Cheap,
//!     precisions: vec![Precision::F32],
//!     shard: None,
//! };
//! let plan = Plan::new(&settings)?;
//! println!("{:?}, about {:.0} s", plan.passes(), plan.estimate(None)?.seconds);
//! let results = plan.run("runs/first".as_ref(), &Options::default(), &mut |progress| println!("{}", progress.now))?;
//! println!("clean mIoU {:?}", results.rows[0].miou);
//! # Ok::<(), fireproof_eval::Error>(())
//! ```
//!
//! A [`Plan`] is everything that is going to happen, known before anything does: rows, passes, hours. Running it appends
//! one record per row and image to the folder's `records.jsonl`; whatever is recorded is not redone, and a folder of
//! another plan, version or weights file is refused. Everything after the records (tables, plots, report) is
//! [`fireproof_report`]'s.
//!
//! An attack that can be read at any of its steps (PGD: one trace of 100 steps) is run once for all of its rows; each row
//! is charged the passes and the time that it would have taken alone.

pub mod adversarial;
pub mod checks;
mod error;
mod estimate;
pub mod facts;
mod pictures;
pub mod plan;
pub mod presets;
mod run;
mod score;
mod settings;
mod subject;

pub use checks::Checks;
pub use error::{Error, Result};
pub use estimate::Estimate;
pub use plan::{Job, Plan, PlannedImage};
pub use run::{Options, Progress};
pub use settings::{DataSettings, Selection, Settings, Trial, expand};
pub use subject::{Subject, Weights, digest};
