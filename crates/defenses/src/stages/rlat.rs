//! RLAT: perturbed features instead of perturbed pixels, for robustness to common corruptions.
//!
//! Kireev, Andriushchenko, Flammarion. *On the Effectiveness of Adversarial Training against Common Corruptions*, UAI 2022.
//! <https://arxiv.org/abs/2103.02325>
//!
//! The relaxed LPIPS adversary: at the image and at sites of the network the features of each sample are moved by `ε_l` along the
//! gradient, in one step from zero, `δ_l = ε_l g / ‖g‖₂`. One pass gives all gradients. Radii fall with depth and follow the
//! number of values, `ε_l = ε (n_l / n_0) / (l + 1)` with `l = 0` for the image. `ε = 0.08`; 0.05 after AugMix.

use burn::tensor::Tensor;
use fireproof_datasets::Dataset;
use fireproof_models::{BatchNormMode, Change, Network};
use fireproof_tensor::{
    Norm, Passes,
    norm::{per_sample, radii},
    ops::cross_entropy,
};
use serde::{Deserialize, Serialize};

use super::{mix::known_sites, pair::positive};
use crate::{
    Result,
    stage::{
        BATCH, Cost, Describe, Moment, Options, Prepare, Stage, StageConfig, StageEntry, View, options, parse, view,
    },
};

/// One step of ascent at the image and at features, whose result the training pass sees.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rlat {
    /// The view that is perturbed.
    pub view: String,
    /// ℓ2 radius at the image; those of the sites follow from it.
    pub epsilon: f64,
    /// Sites in the order of their depth. Without any named, all but the normalised images; `none` leaves the image alone.
    pub sites: Vec<String>,
    /// How batch norm behaves in the pass that gives the gradients.
    pub batch_norm: BatchNormMode,
    /// Lowest and highest valid value of a pixel.
    pub range: [f32; 2],
}

impl Default for Rlat {
    fn default() -> Self {
        Self {
            view: BATCH.into(),
            epsilon: 0.08,
            sites: Vec::new(),
            batch_norm: BatchNormMode::TrainWithoutUpdate,
            range: [0.0, 1.0],
        }
    }
}

inventory::submit! {
    StageEntry { name: "rlat", about: "one-step perturbations of the image and of features", build: |given| {
        let stage: Rlat = parse(given)?;
        positive("epsilon", stage.epsilon)?;
        Ok(Stage::Prepare(Box::new(stage)))
    } }
}

impl Rlat {
    fn sites(&self, network: &dyn Network) -> Vec<String> {
        match &self.sites[..] {
            [] => network.sites().into_iter().skip(1).collect(),
            [none] if none == "none" => Vec::new(),
            sites => sites.to_vec(),
        }
    }

    /// The radius at depth `level`, of features with `values` values a sample beside an image with `pixels`.
    pub fn radius(&self, level: usize, values: usize, pixels: usize) -> f64 {
        self.epsilon * (values as f64 / pixels as f64) / (level + 1) as f64
    }
}

impl Describe for Rlat {
    fn explain(&self) -> String {
        let sites = match &self.sites[..] {
            [] => " and at all sites".to_string(),
            [none] if none == "none" => String::new(),
            sites => format!(" and at {}", sites.join(", ")),
        };
        format!(
            "'{}' perturbed in one step at the image (l2 radius {}){sites}, radii falling with depth",
            self.view, self.epsilon
        )
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn cost(&self) -> Cost {
        Cost { forward: 1.0, input_backward: 1.0, full_backward: 0.0 }
    }

    fn reads(&self) -> Vec<String> {
        vec![self.view.clone()]
    }

    fn contradiction(&self, earlier: &[StageConfig]) -> Option<String> {
        let in_place = |stage: &&StageConfig| stage.stage == "inner-max" && !stage.options.contains_key("into");
        let attacked = earlier.iter().find(in_place).filter(|_| self.view == BATCH)?;
        Some(format!(
            "'{}' attacked the batch in place, so the radius would not be around the clean images",
            attacked.stage
        ))
    }

    fn begin(&mut self, network: &dyn Network, _: &dyn Dataset) -> Result<()> {
        known_sites(&self.sites(network), network)
    }
}

impl Prepare for Rlat {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()> {
        let view = view(views, &self.view)?;
        let sites = self.sites(moment.network);
        // Plain parameters, so that only the perturbations have gradients.
        let mut network = moment.network.deep_clone();
        network.eval_mode();
        let given = View { batch_norm: self.batch_norm, ..view.clone() };
        let mut taps = sites.iter().fold(given.taps(), |taps, site| taps.probe(site));
        let images = view.batch.images.clone();
        let leaf = images.clone().autodiff().require_grad();
        let output = network.forward(leaf.clone(), &mut taps);
        let gradients = cross_entropy(output.logits, &view.batch.targets).sum().backward();
        let n = view.batch.len() as u64;
        moment.count(Passes { forward: n, backward: n });

        let pixels: usize = images.dims()[1..].iter().product();
        let step = |leaf: &Tensor<4>, level: usize| {
            let dims = leaf.dims();
            let gradient = leaf.grad(&gradients).unwrap_or_else(|| Tensor::zeros(dims, &images.device()));
            let radius = self.radius(level, dims[1..].iter().product(), pixels) as f32;
            Norm::L2.steepest(gradient) * per_sample(&radii(&vec![radius; dims[0]], &images))
        };
        view.batch.images = (images.clone() + step(&leaf, 0)).clamp(self.range[0], self.range[1]);
        for (level, site) in sites.into_iter().enumerate() {
            let delta = step(taps.probed(&site).expect("every probed site is reached"), level + 1);
            view.features.push((site, Change::Add(delta)));
        }
        Ok(())
    }
}
