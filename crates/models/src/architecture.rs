//! What a network is, apart from its weights: stored beside them, so that a file says how to rebuild it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use fireproof_tensor::Unit;
use serde::{Deserialize, Serialize};

use crate::weights::{Recognised, Shapes};
use crate::{Error, Network, Result};

/// Order in which a network takes the colours of an RGB image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// As in the image.
    #[default]
    Rgb,
    /// Reversed after normalising, for networks trained on OpenCV's images.
    Bgr,
}

/// The data set's normalisation, part of the network: `(pixel − mean) / std` per channel, for pixels in `[0, 1]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    /// Mean of each channel, in the image's order.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, in the image's order.
    pub std: Vec<f32>,
    /// Order of the channels that the first layer sees.
    #[serde(default)]
    pub order: ChannelOrder,
    /// The unit in which the network takes its images: pixels in `[0, 1]`, or what per-case normalisation makes of them
    /// (a data set of medical volumes knows each case's mean and standard deviation). The data set's normalisation
    /// comes after it.
    #[serde(default, skip_serializing_if = "is_pixel")]
    pub unit: Unit,
}

fn is_pixel(unit: &Unit) -> bool {
    *unit == Unit::Pixel
}

impl Normalisation {
    /// Leaves pixels as they are.
    pub fn identity(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels], order: ChannelOrder::Rgb, unit: Unit::Pixel }
    }

    /// ImageNet's statistics, as torchvision uses them, for RGB; grey images get the channels' average.
    pub fn imagenet(channels: usize) -> Self {
        let (mean, std) = match channels {
            3 => (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]),
            n => (vec![0.449; n], vec![0.226; n]),
        };
        Self { mean, std, ..Self::identity(channels) }
    }

    /// Normalises `[N, C, H, W]`.
    ///
    /// # Panics
    /// If the images have another number of channels.
    pub fn apply(&self, images: Tensor<4>) -> Tensor<4> {
        let channels = images.dims()[1];
        assert_eq!(channels, self.mean.len(), "the network was built for {} channels", self.mean.len());
        let device = images.device().inner();
        let dtype = FloatDType::from(images.dtype());
        let row = |values: &[f32]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, channels, 1, 1]), &device).cast(dtype)
        };
        let mut x = images;
        if self.mean.iter().any(|&m| m != 0.0) {
            x = x - row(&self.mean);
        }
        if self.std.iter().any(|&s| s != 1.0) {
            x = x / row(&self.std);
        }
        match self.order {
            ChannelOrder::Rgb => x,
            ChannelOrder::Bgr => x.flip([1]),
        }
    }
}

/// Name, options, classes and normalisation of a network.
///
/// ```
/// use fireproof_models::Architecture;
/// let mut small = Architecture::new("unet", &["road", "sky", "car"])?;
/// small.options.insert("base".into(), 8);
/// small.options.insert("levels".into(), 3);
/// let network = fireproof_models::build(&small, 0, &burn::tensor::Device::flex())?;
/// assert_eq!(network.architecture().classes.len(), 3);
/// # Ok::<(), fireproof_models::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Name of a [`Definition`], e.g. `unet`.
    pub name: String,
    /// The definition's options, e.g. `base` = 32; those not named have their default.
    #[serde(default)]
    pub options: BTreeMap<String, usize>,
    /// Names of the classes, one a logit.
    pub classes: Vec<String>,
    /// Channels of the images.
    pub input_channels: usize,
    /// The data set's normalisation.
    pub normalisation: Normalisation,
}

impl Architecture {
    /// A network for RGB images with its definition's defaults.
    ///
    /// # Errors
    /// [`Error::UnknownArchitecture`].
    pub fn new(name: &str, classes: &[impl ToString]) -> Result<Self> {
        let definition = definition(name)?;
        Ok(Self {
            name: name.to_string(),
            options: definition.options.iter().map(|o| (o.name.to_string(), o.default)).collect(),
            classes: classes.iter().map(ToString::to_string).collect(),
            input_channels: 3,
            normalisation: (definition.normalisation)(3),
        })
    }

    /// The value of an option, or its default.
    ///
    /// # Panics
    /// If the architecture has no option of that name.
    pub fn option(&self, name: &str) -> usize {
        self.options.get(name).copied().unwrap_or_else(|| {
            let option = definition(&self.name).ok().and_then(|d| d.options.iter().find(|o| o.name == name));
            option.unwrap_or_else(|| panic!("model '{}' has no option '{name}'", self.name)).default
        })
    }

    /// Checks the settings against the definition.
    ///
    /// # Errors
    /// [`Error::UnknownArchitecture`] or [`Error::Architecture`].
    pub fn check(&self) -> Result<&'static Definition> {
        let definition = definition(&self.name)?;
        let wrong = |what: &str, found: String, expected: String| Error::Architecture {
            architecture: self.name.clone(),
            what: what.to_string(),
            found,
            expected,
        };
        for (name, &value) in &self.options {
            let Some(option) = definition.options.iter().find(|o| o.name == name) else {
                let names: Vec<_> = definition.options.iter().map(|o| o.name).collect();
                return Err(wrong("option", format!("'{name}'"), format!("one of: {}", names.join(", "))));
            };
            if !option.range.contains(&value) {
                let expected = format!("{} to {}", option.range.start(), option.range.end());
                return Err(wrong(&format!("option '{name}'"), value.to_string(), expected));
            }
        }
        if self.classes.is_empty() || self.classes.len() > MAX_CLASSES {
            return Err(wrong("number of classes", self.classes.len().to_string(), format!("1 to {MAX_CLASSES}")));
        }
        if self.input_channels == 0 || self.input_channels > MAX_CHANNELS {
            return Err(wrong("input channels", self.input_channels.to_string(), format!("1 to {MAX_CHANNELS}")));
        }
        let Normalisation { mean, std, .. } = &self.normalisation;
        for (what, values) in [("mean", mean), ("std", std)] {
            if values.len() != self.input_channels {
                return Err(wrong(what, format!("{} values", values.len()), format!("{}", self.input_channels)));
            }
        }
        if let Some(bad) = mean.iter().find(|m| !m.is_finite()) {
            return Err(wrong("mean", bad.to_string(), "finite numbers".into()));
        }
        if let Some(bad) = std.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(wrong("std", bad.to_string(), "positive numbers".into()));
        }
        Ok(definition)
    }
}

/// More logits than this are taken for a damaged file.
const MAX_CLASSES: usize = 65_536;
/// More image channels than this are taken for a damaged file.
const MAX_CHANNELS: usize = 1024;

/// An option of a network: a number with a range.
#[derive(Clone, Debug)]
pub struct NetworkOption {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// The value when none is given.
    pub default: usize,
    /// The allowed values.
    pub range: RangeInclusive<usize>,
}

/// A kind of network that can be built by name. Other crates add theirs with `inventory::submit!`.
pub struct Definition {
    /// Name on the command line and in files.
    pub name: &'static str,
    /// What it is, with its paper.
    pub about: &'static str,
    /// Its options.
    pub options: &'static [NetworkOption],
    /// The normalisation when none is given, for a number of channels.
    pub normalisation: fn(usize) -> Normalisation,
    /// Options that follow from height and width of the images it is trained on, for networks that are planned by them;
    /// what the user says comes before it.
    pub plan: Option<fn([usize; 2]) -> Vec<(&'static str, usize)>>,
    /// Tells it by names and shapes in a weight file; `None` for another network's.
    pub recognise: fn(&Shapes) -> Option<Recognised>,
    /// Makes it, with values derived from the seed; called with settings that passed [`Architecture::check`].
    pub build: fn(&Architecture, u64, &Device) -> Box<dyn Network>,
}

inventory::collect!(Definition);

/// Every network that this binary can build: ours, then those of linked crates.
pub fn definitions() -> impl Iterator<Item = &'static Definition> {
    crate::OWN.iter().copied().chain(inventory::iter::<Definition>)
}

/// The definition of that name.
///
/// # Errors
/// [`Error::UnknownArchitecture`] lists the names.
pub fn definition(name: &str) -> Result<&'static Definition> {
    definitions().find(|d| d.name == name).ok_or_else(|| Error::UnknownArchitecture {
        name: name.to_string(),
        expected: definitions().map(|d| d.name).collect::<Vec<_>>().join(", "),
    })
}

/// Builds a network with initial values derived from `seed`, on the plain `device`.
///
/// # Errors
/// [`Error::UnknownArchitecture`] or [`Error::Architecture`].
pub fn build(architecture: &Architecture, seed: u64, device: &Device) -> Result<Box<dyn Network>> {
    Ok((architecture.check()?.build)(architecture, seed, device))
}
