//! OAT: images of no class, with all classes as their label.
//!
//! Lee, Park, Lee, Yi, Lee, Yoon. *Removing Undesirable Feature Contributions Using Out-of-Distribution Data*, ICLR 2021.
//! <https://arxiv.org/abs/2101.06639>
//!
//! Half of every batch is replaced by images from elsewhere, whose target is `1/K` for each class, at every pixel. What they share
//! with the data, but says nothing about a class, then counts for nothing. An attack that comes later attacks the whole batch with
//! these targets. Their loss is multiplied by `α` and divided by the whole batch, `½ (L_in + α L_out)`: give the cross-entropy
//! `mean_over = "samples"`. `α = 1`.

use std::path::PathBuf;

use burn::tensor::{Int, Tensor, TensorData};
use fireproof_datasets::{Dataset, Image, Split, open, resize};
use fireproof_models::Network;
use fireproof_tensor::{Targets, random::Stream};
use serde::{Deserialize, Serialize};

use super::{mix::FMix, pair::positive};
use crate::{
    Error, Result,
    stage::{BATCH, Describe, Moment, Options, Prepare, Stage, StageConfig, StageEntry, View, options, parse},
};

/// A label that no class has and that is not void: what is predicted there is never right.
const NO_CLASS: i32 = 254;

/// First of the ids that such images get, beyond those of any data set.
const FIRST_ID: u64 = 1 << 48;

/// Where the images come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// Uniform noise.
    Noise,
    /// Smooth random textures.
    Textures,
    /// A data set; its labels are not read.
    Data {
        /// Its name or manifest.
        name: String,
        /// Its folder.
        root: Option<PathBuf>,
        /// The split.
        #[serde(default = "train")]
        split: String,
    },
}

fn train() -> String {
    "train".into()
}

/// Replaces the last images of each batch by images of no class.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutOfDistribution {
    /// Share of the batch that is replaced, over 0 to below 1; rounded down to whole images.
    pub share: f64,
    /// Where the images come from.
    pub source: Source,
    /// Weight of their loss.
    pub alpha: f64,
    #[serde(skip)]
    data: Option<Box<dyn Dataset>>,
}

impl Default for OutOfDistribution {
    fn default() -> Self {
        Self { share: 0.5, source: Source::Textures, alpha: 1.0, data: None }
    }
}

inventory::submit! {
    StageEntry { name: "out-of-distribution", about: "images of no class, with uniform targets", build: |given| {
        let stage: OutOfDistribution = parse(given)?;
        if !(stage.share > 0.0 && stage.share < 1.0) {
            return Err(format!("share is {}, expected over 0 to below 1", stage.share));
        }
        match stage.alpha == 0.0 {
            true => {}
            false => positive("alpha", stage.alpha)?,
        }
        match &stage.source {
            Source::Data { split, .. } if split == "test" => {
                Err("split is 'test', expected another one: test data is read once, at the end".into())
            }
            _ => Ok(Stage::Prepare(Box::new(stage))),
        }
    } }
}

impl Describe for OutOfDistribution {
    fn explain(&self) -> String {
        let source = match &self.source {
            Source::Noise => "noise".to_string(),
            Source::Textures => "random textures".into(),
            Source::Data { name, split, .. } => format!("images of {name} ({split})"),
        };
        format!("the last {} of the batch replaced by {source} with uniform targets, weight {}", self.share, self.alpha)
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![BATCH.into()]
    }

    fn contradiction(&self, earlier: &[StageConfig]) -> Option<String> {
        let attack = earlier.iter().find(|stage| ["inner-max", "rlat"].contains(&stage.stage.as_str()))?;
        Some(format!(
            "'{}' comes before it, so these images would be the only ones that are not attacked",
            attack.stage
        ))
    }

    fn begin(&mut self, _: &dyn Network, _: &dyn Dataset) -> Result<()> {
        self.data = match &self.source {
            Source::Data { name, root, split } => {
                let Ok(split) = split.parse::<Split>();
                Some(open(name, root.as_deref(), split, Default::default())?)
            }
            _ => None,
        };
        Ok(())
    }
}

impl Prepare for OutOfDistribution {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()> {
        let batch = &mut views[0].batch;
        let [n, channels, height, width] = batch.dims();
        let count = (n as f64 * self.share + 1e-9).floor() as usize;
        let kept = n - count;
        if count == 0 || kept == 0 {
            return Err(Error::Setting {
                what: "batch with images of no class",
                found: format!("{n} images of which {count} are replaced"),
                expected: "at least one of each kind".into(),
            });
        }
        let stream = Stream::new(&[moment.seed]).child("out-of-distribution");
        let mut pixels = Vec::with_capacity(count * channels * height * width);
        for i in 0..count as u64 {
            pixels.extend(self.image(&Stream::new(&[stream.bits(i)]), [channels, height, width])?);
        }
        let device = batch.images.device();
        let own = batch.slice(0..kept);
        let [_, rows, columns] = own.targets.dims();
        let classes = moment.network.architecture().classes.len();
        let images = Tensor::<4>::from_data(TensorData::new(pixels, [count, channels, height, width]), &device);

        let labels = TensorData::new(vec![NO_CLASS; count * rows * columns], [count, rows, columns]);
        let labels = Tensor::<3, Int>::from_data(labels, &device);
        let uniform = Tensor::<4>::full([count, classes, rows, columns], 1.0 / classes as f32, &device);
        let valid = Tensor::<3>::ones([count, rows, columns], &device);
        let soft = own.targets.soft().cloned().unwrap_or_else(|| own.targets.one_hot(classes));
        let weight = |values: Vec<f32>| Tensor::<1>::from_data(TensorData::new(values, [n]), &device);
        let mut weights = match own.targets.weight() {
            Some(weight) => weight.to_data().convert::<f32>().try_to_vec().expect("converted to f32 before"),
            None => vec![1.0; kept],
        };
        weights.resize(n, self.alpha as f32);
        batch.targets = Targets::hard(Tensor::cat(vec![own.targets.labels().clone(), labels], 0))
            .with_valid(Tensor::cat(vec![own.targets.valid().clone(), valid], 0))
            .with_soft(Tensor::cat(vec![soft, uniform], 0))
            .with_weight(weight(weights));
        batch.images = Tensor::cat(vec![own.images, images], 0);
        batch.ids.truncate(kept);
        batch.ids.extend((0..count as u64).map(|i| FIRST_ID + i));
        Ok(())
    }
}

impl OutOfDistribution {
    /// `[C, H, W]` in 0 to 1.
    fn image(&self, stream: &Stream, [channels, height, width]: [usize; 3]) -> Result<Vec<f32>> {
        let plane = height * width;
        Ok(match (&self.source, &self.data) {
            (Source::Textures, _) => (0..channels as u64)
                .flat_map(|channel| {
                    // Steeper than white noise, flatter than the blobs of FMix: structure at every size.
                    let grey = FMix { decay: 1.5 }.noise(&Stream::new(&[stream.bits(channel)]), [height, width]);
                    let low = grey.iter().copied().fold(f64::INFINITY, f64::min);
                    let high = grey.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    grey.into_iter().map(move |v| ((v - low) / (high - low).max(1e-12)) as f32)
                })
                .collect(),
            (Source::Data { .. }, Some(data)) => {
                let index = stream.below(0, data.len() as u64) as usize;
                let image = resize::image(&data.get(index)?.image, height, width);
                recoloured(&image, channels)
            }
            (Source::Noise | Source::Data { .. }, _) => {
                (0..(channels * plane) as u64).map(|i| stream.uniform(i)).collect()
            }
        })
    }
}

/// The image with another number of channels: grey is repeated, and several become their mean.
fn recoloured(image: &Image, channels: usize) -> Vec<f32> {
    if image.channels == channels {
        return image.data.clone();
    }
    let plane = image.height * image.width;
    let grey = |pixel: usize| image.data.iter().skip(pixel).step_by(plane).sum::<f32>() / image.channels as f32;
    let grey: Vec<f32> = (0..plane).map(grey).collect();
    grey.repeat(channels)
}
