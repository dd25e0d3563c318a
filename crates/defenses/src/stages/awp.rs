//! Adversarial weight perturbation.
//!
//! Wu, Xia, Wang. *Adversarial Weight Perturbation Helps Robust Generalization*, NeurIPS 2020.
//! <https://arxiv.org/abs/2004.05884>
//!
//! The gradient of the step is taken at weights that one step of ascent on the same loss has moved: each tensor `w` of two or
//! more axes by `γ ‖w‖ g / ‖g‖`, so that it moves by exactly the share `γ` of its own length. Biases, batch norm and running
//! statistics stay. `γ = 0.01` for adversarial training, 0.005 for TRADES, which is perturbed from its tenth epoch on.
//!
//! The authors' code steps on the perturbed weights and subtracts the perturbation again; here the optimizer steps on the
//! network's own weights, which are never touched. Both differ by weight decay of the perturbation alone, and this one restores
//! exactly.

use fireproof_models::{Kind, Network, Parameter};
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    stage::{Describe, Moment, Options, Stage, StageConfig, StageEntry, Weights, options, parse},
};

/// One step of ascent in the weights, of a fixed relative length.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Awp {
    /// Length of each tensor's perturbation as a share of its own.
    pub gamma: f64,
    /// Epochs without a perturbation.
    pub warmup: usize,
}

impl Default for Awp {
    fn default() -> Self {
        Self { gamma: 0.01, warmup: 0 }
    }
}

inventory::submit! {
    StageEntry { name: "awp", about: "adversarial weight perturbation", build: |given| {
        let stage: Awp = parse(given)?;
        match stage.gamma > 0.0 && stage.gamma < 1.0 {
            true => Ok(Stage::Weights(Box::new(stage))),
            false => Err(format!("gamma is {}, expected over 0 and below 1", stage.gamma)),
        }
    } }
}

impl Describe for Awp {
    fn explain(&self) -> String {
        let warmup = match self.warmup {
            0 => String::new(),
            epochs => format!(", from epoch {} on (one pass of each view less before)", epochs + 1),
        };
        format!(
            "the gradient is taken where one step of ascent moved each weight tensor by {} of its length{warmup}",
            self.gamma
        )
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn contradiction(&self, earlier: &[StageConfig]) -> Option<String> {
        let twice = earlier.iter().any(|stage| stage.stage == "awp");
        twice.then(|| {
            "the weights are perturbed already, and a second radius would not be around the network's own".into()
        })
    }
}

impl Weights for Awp {
    fn choose(
        &mut self,
        network: &dyn Network,
        look: &mut dyn FnMut(&dyn Network) -> Result<Vec<Parameter>>,
        moment: &Moment<'_>,
    ) -> Result<Option<Vec<Parameter>>> {
        if moment.epoch < self.warmup {
            return Ok(None);
        }
        let gradients = look(network)?;
        let mut parameters = network.parameters();
        for parameter in &mut parameters {
            // Names are unique, and both lists are in the order of the layout.
            if let Some(gradient) = gradients.iter().find(|gradient| gradient.name == parameter.name) {
                perturb(parameter, gradient, self.gamma);
            }
        }
        Ok(Some(parameters))
    }
}

/// Moves a weight tensor along the gradient by `gamma` of its length.
fn perturb(parameter: &mut Parameter, gradient: &Parameter, gamma: f64) {
    if parameter.kind != Kind::Weight || parameter.shape.len() < 2 {
        return;
    }
    let length = |values: &[f32]| values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    let (own, slope) = (length(&parameter.values), length(&gradient.values));
    if slope > 0.0 {
        let scale = gamma * own / slope;
        let moved = parameter.values.iter_mut().zip(&gradient.values);
        moved.for_each(|(value, &g)| *value = (f64::from(*value) + scale * f64::from(g)) as f32);
    }
}

/// The highest loss in random directions around a network's weights, for pictures of how flat it is: at each of `radii`, every
/// weight tensor of two or more axes moves by that share of its length (filter-normalised directions have one share for every
/// output channel; Li, Xu, Taylor, Studer, Goldstein, NeurIPS 2018, <https://arxiv.org/abs/1712.09913>).
///
/// `loss` is asked once for every direction and radius.
///
/// # Errors
/// Those of `loss`.
pub fn landscape(
    network: &dyn Network,
    radii: &[f64],
    directions: usize,
    seed: u64,
    loss: &mut dyn FnMut(&dyn Network) -> Result<f64>,
) -> Result<Vec<f64>> {
    let own = network.parameters();
    let mut highest = vec![f64::NEG_INFINITY; radii.len()];
    let mut copy = network.deep_clone();
    for direction in 0..directions as u64 {
        let noise: Vec<Vec<f64>> = own.iter().map(|parameter| filter_noise(parameter, seed, direction)).collect();
        for (radius, highest) in radii.iter().zip(&mut highest) {
            let mut moved = own.clone();
            for (parameter, noise) in moved.iter_mut().zip(&noise) {
                let values = parameter.values.iter_mut().zip(noise);
                values.for_each(|(value, n)| *value = (f64::from(*value) + radius * n) as f32);
            }
            copy.set_parameters(&moved)?;
            *highest = highest.max(loss(&*copy)?);
        }
    }
    Ok(highest)
}

/// A random direction in which every output channel is as long as the parameter's own; empty for what is not moved.
fn filter_noise(parameter: &Parameter, seed: u64, direction: u64) -> Vec<f64> {
    if parameter.kind != Kind::Weight || parameter.shape.len() < 2 {
        return Vec::new();
    }
    let stream = fireproof_tensor::random::Stream::new(&[seed, direction]).child(&parameter.name);
    let size = parameter.values.len() / parameter.shape[0];
    let mut noise: Vec<f64> = (0..parameter.values.len() as u64).map(|i| f64::from(stream.normal(i))).collect();
    for (filter, noise) in parameter.values.chunks(size).zip(noise.chunks_mut(size)) {
        let own = filter.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        let length = noise.iter().map(|n| n * n).sum::<f64>().sqrt().max(1e-12);
        noise.iter_mut().for_each(|n| *n *= own / length);
    }
    noise
}
