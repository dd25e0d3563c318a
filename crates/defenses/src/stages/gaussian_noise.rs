//! Gaussian noise on a share of the images.
//!
//! The baseline of Kireev, Andriushchenko, Flammarion, *On the Effectiveness of Adversarial Training against Common
//! Corruptions*, UAI 2022, <https://arxiv.org/abs/2103.02325>: on all images it overfits to its own strength, on half of them much
//! less. Half with σ = 0.1, all with σ = 0.05.

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::random::Stream;
use serde::{Deserialize, Serialize};

use super::pair::positive;
use crate::{
    Result,
    stage::{BATCH, Describe, Moment, Options, Prepare, Stage, StageEntry, View, options, parse, view},
};

/// Adds noise to the last images of a view.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GaussianNoise {
    /// The view.
    pub view: String,
    /// Standard deviation, in the units of the images.
    pub sigma: f64,
    /// Share of the images that get it, over 0 to 1, rounded up to whole images.
    pub share: f64,
    /// Lowest and highest valid value of a pixel.
    pub range: [f32; 2],
}

impl Default for GaussianNoise {
    fn default() -> Self {
        Self { view: BATCH.into(), sigma: 0.1, share: 0.5, range: [0.0, 1.0] }
    }
}

inventory::submit! {
    StageEntry { name: "gaussian-noise", about: "Gaussian noise on a share of the images", build: |given| {
        let stage: GaussianNoise = parse(given)?;
        positive("sigma", stage.sigma)?;
        match stage.share > 0.0 && stage.share <= 1.0 {
            true => Ok(Stage::Prepare(Box::new(stage))),
            false => Err(format!("share is {}, expected over 0 to 1", stage.share)),
        }
    } }
}

impl Describe for GaussianNoise {
    fn explain(&self) -> String {
        let Self { view, sigma, share, .. } = self;
        format!("Gaussian noise of standard deviation {sigma} on the last {share} of '{view}'")
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.view.clone()]
    }
}

impl Prepare for GaussianNoise {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()> {
        let batch = &mut view(views, &self.view)?.batch;
        let [n, channels, height, width] = batch.dims();
        let clean = (n as f64 * (1.0 - self.share) + 1e-9).floor() as usize;
        let length = channels * height * width;
        let mut noise = vec![0.0; clean * length];
        for &id in &batch.ids[clean..] {
            let stream = Stream::new(&[moment.seed, id]).child("gaussian-noise");
            noise.extend((0..length as u64).map(|i| self.sigma as f32 * stream.normal(i)));
        }
        let noise: Tensor<4> =
            Tensor::from_data(TensorData::new(noise, [n, channels, height, width]), &batch.images.device());
        batch.images = (batch.images.clone() + noise).clamp(self.range[0], self.range[1]);
        Ok(())
    }
}
