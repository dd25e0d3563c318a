//! Segmentation networks, the layers they are made of, and the import and export of their weights.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use fireproof_models::{Architecture, build};
//!
//! let mut architecture = Architecture::new("unet", &["road", "sky"])?;
//! architecture.options.insert("base".into(), 4);
//! let network = build(&architecture, 0, &Device::flex())?;
//! let victim = network.victim();
//! let logits = victim.logits(Tensor::zeros([1, 3, 40, 56], &Device::flex())).unwrap();
//! assert_eq!(logits.dims(), [1, 2, 40, 56]);
//! # Ok::<(), fireproof_models::Error>(())
//! ```

mod architecture;
mod cnn;
mod deeplab;
mod error;
mod espnet;
mod fcn;
mod head;
pub mod inference;
pub mod layers;
pub mod network;
mod nnunet;
mod pspnet;
mod resnet;
mod taps;
mod unet;
mod weights;

pub use architecture::{
    Architecture, ChannelOrder, Definition, NetworkOption, Normalisation, build, definition, definitions,
};
pub use error::{Error, Result};
pub use network::{
    Coarse, Forward, Group, Kind, LearningRates, Network, Output, Parameter, ParameterInfo, Trained, Updates,
};
pub use nnunet::plan as nnunet_stages;
pub use taps::{BatchNormMode, BatchStatistics, Change, Taps};
pub use weights::{Loaded, Overrides, Recognised, Report, Shapes, load, load_backbone, save};

/// The networks of this crate.
static OWN: &[&Definition] = &[
    &unet::UNET,
    &nnunet::NNUNET,
    &cnn::CNN,
    &espnet::ESPNET,
    &pspnet::PSPNET_RESNET18,
    &pspnet::PSPNET_RESNET50,
    &deeplab::DEEPLABV3_RESNET18,
    &deeplab::DEEPLABV3_RESNET50,
    &fcn::FCN_RESNET50,
];
