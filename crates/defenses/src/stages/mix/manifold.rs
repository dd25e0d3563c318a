//! Manifold mixup: features are mixed inside the network.
//!
//! Verma, Lamb, Beckham, Najafi, Mitliagkas, Lopez-Paz, Bengio. *Manifold Mixup: Better Representations by Interpolating
//! Hidden States*, ICML 2019. <https://arxiv.org/abs/1806.05236>
//!
//! Every step draws one site of the network; there sample `i` becomes `λ` of its own features and `1 − λ` of its partner's, and
//! so do its labels.

use burn::tensor::{Tensor, TensorData};
use fireproof_datasets::Dataset;
use fireproof_models::{Change, Network};
use fireproof_tensor::random::Stream;
use serde::{Deserialize, Serialize};

use super::{check_alpha, mix_targets};
use crate::{
    Error, Result, draw,
    stage::{BATCH, Describe, Moment, Options, Prepare, Stage, StageEntry, View, options, parse, view},
};

/// Mixes features of a view's samples in pairs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ManifoldMixup {
    /// The view whose pass is changed.
    pub view: String,
    /// Both parameters of the Beta distribution of each sample's share.
    pub alpha: f64,
    /// The sites to draw from; none named means all, the normalised images among them.
    pub sites: Vec<String>,
}

impl Default for ManifoldMixup {
    fn default() -> Self {
        Self { view: BATCH.into(), alpha: 1.0, sites: Vec::new() }
    }
}

inventory::submit! {
    StageEntry { name: "manifold-mixup", about: "weighted means of features", build: |given| {
        let stage: ManifoldMixup = parse(given)?;
        check_alpha(stage.alpha)?;
        Ok(Stage::Prepare(Box::new(stage)))
    } }
}

impl Describe for ManifoldMixup {
    fn explain(&self) -> String {
        let sites = if self.sites.is_empty() { "all sites".to_string() } else { self.sites.join(", ") };
        let Self { view, alpha, .. } = self;
        format!("features of '{view}' mixed in pairs at one of {sites}, a share of Beta({alpha}, {alpha})")
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.view.clone()]
    }

    fn begin(&mut self, network: &dyn Network, _: &dyn Dataset) -> Result<()> {
        known_sites(&self.sites, network)
    }
}

/// Refuses sites that the network does not have.
pub(in crate::stages) fn known_sites(sites: &[String], network: &dyn Network) -> Result<()> {
    let known = network.sites();
    match sites.iter().find(|site| !known.contains(site)) {
        Some(site) => Err(Error::Setting { what: "site", found: site.clone(), expected: known.join(", ") }),
        None => Ok(()),
    }
}

impl Prepare for ManifoldMixup {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()> {
        let view = view(views, &self.view)?;
        let stream = Stream::new(&[moment.seed]).child(&view.name).child("manifold-mixup");
        let sites = if self.sites.is_empty() { moment.network.sites() } else { self.sites.clone() };
        let site = sites[stream.below(0, sites.len() as u64) as usize].clone();
        let n = view.batch.len();
        let share = |i: u64| draw::beta(&Stream::new(&[stream.child("share").bits(i)]), self.alpha) as f32;
        let keep: Vec<f32> = (0..n as u64).map(share).collect();
        let partners = stream.child("partners").permutation(n);

        let [_, rows, columns] = view.batch.targets.dims();
        let plane: Vec<f32> = keep.iter().flat_map(|&k| vec![k; rows * columns]).collect();
        let plane = TensorData::new(plane, [n, 1, rows, columns]);
        let plane = Tensor::<4>::from_data(plane, &view.batch.images.device());
        let others = view.batch.select(&partners).targets;
        let weight = view.batch.targets.weight().cloned();
        let classes = moment.network.architecture().classes.len();
        view.batch.targets = mix_targets(&view.batch.targets, &others, plane, Some(classes));
        if let Some(weight) = weight {
            view.batch.targets = view.batch.targets.clone().with_weight(weight);
        }
        view.features.push((site, Change::Mix { partners, keep }));
        Ok(())
    }
}
