//! Free adversarial training.
//!
//! Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor, Goldstein. *Adversarial Training for Free!*, NeurIPS 2019.
//! <https://arxiv.org/abs/1904.12843>
//!
//! Every batch is stepped on `m` times. Each backward pass gives both gradients: the weights descend theirs, and the perturbation
//! ascends its own, `δ ← clip(δ + ε sign ∇ℓ)`, both taken before either moves. `δ` is never begun anew: the next batch starts with
//! what the last one ended with. A step costs what a step of ordinary training costs, so a run of a fixed cost sees the data in
//! `1/m` of the epochs. `m = 8`, `ε = 8/255`.
//!
//! Daza, Pérez, Arbeláez. *Towards Robust General Medical Image Segmentation* (ROG), MICCAI 2021, <https://arxiv.org/abs/2107.04263>, fine-tune
//! medical networks so, with `ε` a share of each patch's range. Their released code halves `ε` by a division of whole numbers before a step, which is
//! zero for ranges up to 64; here the step is half of `ε`.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use fireproof_datasets::Dataset;
use fireproof_models::Network;
use fireproof_tensor::{Batch, Norm, Unit, norm::radii};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    stage::{Cost, Describe, Options, Replay, Stage, StageConfig, StageEntry, options, parse},
};

/// Replays of each batch with one perturbation that outlives it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Free {
    /// Steps on each batch.
    pub replays: usize,
    /// Largest change of a pixel, in pixels whatever the network is fed.
    pub epsilon: f32,
    /// How far a pixel of the perturbation moves in a step; without it `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f32>,
    /// Whether `epsilon` and `step_size` are shares of the distance from an image's lowest to its highest pixel.
    pub relative: bool,
    /// Lowest and highest valid value of a pixel.
    pub range: [f32; 2],
    /// What `epsilon` is multiplied by for each image of the batch, `[N]`.
    #[serde(skip)]
    scale: Option<Tensor<1>>,
    /// `[N, C, H, W]`, from the last step.
    #[serde(skip)]
    perturbation: Option<Tensor<4>>,
    /// Where a restored perturbation goes.
    #[serde(skip)]
    restored: Option<TensorData>,
}

impl Default for Free {
    fn default() -> Self {
        Self {
            replays: 8,
            epsilon: 8.0 / 255.0,
            step_size: None,
            relative: false,
            range: [0.0, 1.0],
            scale: None,
            perturbation: None,
            restored: None,
        }
    }
}

inventory::submit! {
    StageEntry { name: "free", about: "replays of each batch with a perturbation that persists", build: |given| {
        let stage: Free = parse(given)?;
        let positive = |value: f32| value > 0.0 && value.is_finite();
        if stage.replays == 0 {
            return Err("replays is 0, expected at least 1".into());
        }
        if !positive(stage.epsilon) {
            return Err(format!("epsilon is {}, expected a positive number", stage.epsilon));
        }
        if let Some(step) = stage.step_size.filter(|&step| !positive(step)) {
            return Err(format!("step_size is {step}, expected a positive number"));
        }
        Ok(Stage::Replay(Box::new(stage)))
    } }
}

impl Describe for Free {
    fn explain(&self) -> String {
        format!(
            "{} steps on each batch, whose images carry a perturbation of at most {:.5}{} that each step's own gradient moves and \
             the next batch takes over",
            self.replays,
            self.epsilon,
            if self.relative { " of their range" } else { "" }
        )
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn cost(&self) -> Cost {
        Cost::default()
    }

    fn contradiction(&self, earlier: &[StageConfig]) -> Option<String> {
        let attack = earlier.iter().find(|stage| ["inner-max", "rlat"].contains(&stage.stage.as_str()))?;
        Some(format!("'{}' attacks the batch already; free training attacks by the steps themselves", attack.stage))
    }

    fn begin(&mut self, _: &dyn Network, _: &dyn Dataset) -> Result<()> {
        self.perturbation = None;
        self.restored = None;
        self.scale = None;
        Ok(())
    }

    fn state(&self) -> Vec<(String, TensorData)> {
        let live = self.perturbation.as_ref().map(|delta| delta.to_data().convert::<f32>());
        live.or_else(|| self.restored.clone()).map(|delta| ("perturbation".into(), delta)).into_iter().collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, TensorData>) -> Result<(), String> {
        self.perturbation = None;
        self.restored = state.remove("perturbation");
        if let Some(found) = self.restored.as_ref().map(|delta| delta.shape().to_vec()).filter(|shape| shape.len() != 4)
        {
            return Err(format!("has a perturbation of shape {found:?}, expected [N, C, H, W]"));
        }
        match state.keys().next() {
            Some(name) => Err(format!("holds '{name}', which the stage does not keep")),
            None => Ok(()),
        }
    }
}

impl Free {
    /// The perturbation cut to each image's radius.
    fn within(&self, delta: Tensor<4>) -> Tensor<4> {
        let radius = radii(&vec![self.epsilon; delta.dims()[0]], &delta);
        let radius = match &self.scale {
            Some(scale) => radius * scale.clone(),
            None => radius,
        };
        Norm::Linf.project(delta, &radius)
    }
}

impl Replay for Free {
    fn replays(&self) -> usize {
        self.replays
    }

    fn perturb(&mut self, batch: &Batch) -> Result<Tensor<4>> {
        let restored = || self.restored.take().map(|delta| Tensor::from_data(delta, &batch.images.device()));
        let delta = self.perturbation.take().or_else(restored).unwrap_or_else(|| batch.images.zeros_like());
        if delta.dims() != batch.dims() {
            return Err(Error::Setting {
                what: "batch of free training",
                found: format!("{:?} after {:?}", batch.dims(), delta.dims()),
                expected: "batches of one size, since the perturbation goes from one to the next; train on crops"
                    .into(),
            });
        }
        let unit = batch.unit;
        let clean = batch.convert(batch.images.clone(), unit, Unit::Pixel)?;
        let delta = match self.relative {
            true => {
                let [n, c, height, width] = clean.dims();
                let flat = clean.clone().reshape([n, c * height * width]);
                self.scale = Some((flat.clone().max_dim(1) - flat.min_dim(1)).reshape([n]));
                // What the last batch left may be too much for these images.
                self.within(delta)
            }
            false => delta,
        };
        let images = (clean + delta.clone()).clamp(self.range[0], self.range[1]);
        self.perturbation = Some(delta);
        Ok(batch.convert(images, Unit::Pixel, unit)?)
    }

    fn learn(&mut self, gradient: Tensor<4>) -> Result<()> {
        let delta = self.perturbation.take().expect("perturbed before");
        let step = self.step_size.unwrap_or(self.epsilon);
        let direction = gradient.sign();
        let step = match &self.scale {
            Some(scale) => direction * scale.clone().reshape([-1, 1, 1, 1]) * step,
            None => direction * step,
        };
        self.perturbation = Some(self.within(delta + step));
        Ok(())
    }
}
