//! Adversarial training of segmentation models as composed stages.
//!
//! A [`Recipe`] says what a step of training consists of, [`TrainConfig`] adds data order, optimizer and selection, and
//! [`train`] runs it, in a folder from which it can be resumed after any interruption, bit by bit on Flex.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use burn::tensor::Device;
//! use fireproof_datasets::{Dataset, Options, Split, open};
//! use fireproof_defenses::{Control, Recipe, TrainConfig, train};
//! use fireproof_models::{Architecture, build};
//!
//! let data = |split| open("scenes", None, split, Options::default());
//! let (train_data, held_out) = (data(Split::Train)?, data(Split::Val)?);
//! let classes: Vec<_> = train_data.classes().iter().map(|class| class.name.clone()).collect();
//! let mut network = build(&Architecture::new("unet", &classes)?, 0, &Device::flex())?;
//!
//! let recipe = Recipe::preset("segpgd3-at")?;
//! println!("{}", recipe.explain()?);
//! let config = TrainConfig { epochs: 20, batch_size: 8, ..TrainConfig::new(recipe) };
//! let control = Control { resume: true, ..Control::default() };
//! control.stop.on_signals()?;
//! let out = Path::new("runs/segpgd3-at");
//! let summary = train(&config, &mut *network, train_data.into(), held_out.into(), out, &control)?;
//! println!("{:?}, best {:?}", summary.outcome, summary.best);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checkpoint;
mod config;
mod control;
mod draw;
mod error;
pub mod margin;
mod optimizer;
mod presets;
mod progress;
mod radius;
mod recipe;
mod recipes;
mod schedule;
pub mod stage;
pub mod stages;
mod trainer;
mod validation;

pub use checkpoint::{Checkpoint, Identity, State, VERSION};
pub use config::{DataSummary, TrainConfig, Validation};
pub use control::{Control, Display, Stop};
pub use error::{Error, Result};
pub use optimizer::{Method, OptimizerConfig};
pub use radius::{Radius, Ramp, Regulator};
pub use recipe::{Guard, Recipe, RecipeEntry, recipes};
pub use schedule::Schedule;
pub use trainer::{BEST, CHECKPOINT, EpochRecord, Meter, Outcome, Summary, train};
