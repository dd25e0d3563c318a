//! Attack and harden image segmentation models, on the Burn deep-learning framework.
//!
//! This crate only re-exports the parts of fireproof, each behind the cargo feature of its name.
//!
//! | feature | crate | what it is |
//! |---|---|---|
//! | (always) | [`tensor`] | devices by name, batches, victims, norms, fused operations |
//! | `attacks` (default) | [`attacks`] | FGSM, PGD, SegPGD, CosPGD, …, one file each |
//! | `metrics` (default) | [`metrics`] | mIoU and its kin from integer counts |
//! | `models` | `models` | U-Net, PSPNet, DeepLabv3, FCN, ESPNet; import and export of weights |
//! | `datasets` | `datasets` | synthetic scenes, folders with manifests, loaders |
//! | `defenses` | `defenses` | adversarial training by recipes |
//! | `report` | `report` | records, tables, plots, the HTML report |
//! | `eval` | `eval` | plan → run → records → results |
//! | `cli` | `cli` | the commands as a library, for a binary with plugins of its own |
//!
//! `wgpu`, `vulkan`, `cuda` and `rocm` compile further backends in; the CPU is always there.
//!
//! Robustness of a model of your own, in three lines:
//!
//! ```
//! # use burn::tensor::{Device, Tensor};
//! use fireproof::attacks::{AttackConfig, Context, build};
//! use fireproof::tensor::{Batch, Victim, victim};
//!
//! # let forward = |x: Tensor<4>| Tensor::cat(vec![x.clone() * -1.0 + 0.5, x - 0.5], 1) * 20.0;
//! # let batch = Batch::from_host(vec![0.49, 0.9], &[0, 1], [1, 1, 1, 2], vec![0], &Device::flex())?;
//! let model = victim(forward);
//! let attacked = build(&AttackConfig::new("segpgd")?)?.run(&model, &batch, &Context::new(0))?.images;
//! println!("accuracy under attack: {:?}", batch.targets.accuracy(&model.logits(attacked)?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "attacks")]
pub use fireproof_attacks as attacks;
#[cfg(feature = "cli")]
pub use fireproof_cli as cli;
#[cfg(feature = "datasets")]
pub use fireproof_datasets as datasets;
#[cfg(feature = "defenses")]
pub use fireproof_defenses as defenses;
#[cfg(feature = "eval")]
pub use fireproof_eval as eval;
#[cfg(feature = "metrics")]
pub use fireproof_metrics as metrics;
#[cfg(feature = "models")]
pub use fireproof_models as models;
#[cfg(feature = "report")]
pub use fireproof_report as report;
pub use fireproof_tensor as tensor;
