//! Adversarial attacks on segmentation models, one file each.
//!
//! ```
//! use fireproof_attacks::{AttackConfig, Context, build};
//! # use burn::tensor::{Device, Tensor};
//! # use fireproof_tensor::{Batch, victim};
//! # let model = victim(|images: Tensor<4>| Tensor::cat(vec![images.clone(), images * -1.0], 1));
//! # let batch = Batch::from_host(vec![0.5; 16], &[0; 16], [1, 1, 4, 4], vec![0], &Device::flex())?;
//! let attack = build(&AttackConfig { steps: 20, ..AttackConfig::new("segpgd")? })?;
//! let adversarial = attack.run(&model, &batch, &Context::new(7))?;
//! assert_eq!(adversarial.images.dims(), batch.dims());
//! # Ok::<(), fireproof_attacks::Error>(())
//! ```
//!
//! Nearly every attack is one [`GradientAttack`], put together from parts that each do one thing:
//!
//! | part | question | given here |
//! |---|---|---|
//! | [`Objective`](objective::Objective) | what is maximised? | [`PixelWeight`](objective::PixelWeight) maps, [`LabelLoss`](objective::LabelLoss), [`ImageLoss`](objective::ImageLoss) |
//! | [`Update`](update::Update) | how is a step taken? | [`Steepest`](update::Steepest), [`Momentum`](update::Momentum), [`Adam`](update::Adam), [`Apgd`](update::Apgd) |
//! | [`Threat`](threat::Threat) | what may change, and how far? | [`PixelBall`](threat::PixelBall) |
//! | [`Start`] | from where? | the clean images, a random point, given images |
//! | [`Iterate`] | which iterate is returned? | last, lowest accuracy, highest loss |
//! | [`Radii`] | in stages of which radius? | one, or shrinking |
//!
//! A method is a file in [`methods`]: its paper, its new formula, its defaults, and one `inventory::submit!` that makes
//! it known by name. A crate of your own adds one the same way.

mod attack;
mod compact;
mod config;
mod context;
mod error;
mod goal;
mod gradient_attack;
mod guard;
pub mod methods;
mod minimal;
pub mod objective;
mod registry;
mod scene;
mod stage;
mod start;
mod targets;
pub mod threat;
mod trace;
mod tracker;
mod unit;
pub mod update;
mod views;

use fireproof_tensor::host;

pub use attack::{Adversarial, Attack, Candidate, Learns, Minimal, fit};
pub use config::AttackConfig;
pub use context::{Context, Observer, View};
pub use error::{Error, Result};
pub use goal::Goal;
pub use gradient_attack::GradientAttack;
pub use registry::{OptionSpec, Registration, build, list};
pub use scene::{Scene, Step, Variables};
pub use stage::{Radii, Stage};
pub use start::{Seeds, Start};
pub use targets::Target;
pub use trace::{Trace, TraceRow};
pub use tracker::Iterate;

#[doc(hidden)]
pub use inventory;
