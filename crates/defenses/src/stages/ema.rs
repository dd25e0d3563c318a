//! Exponential moving average of the weights.
//!
//! Izmailov et al., *Averaging Weights Leads to Wider Optima and Better Generalization*, UAI 2018; for adversarial
//! training Rebuffi et al., *Data Augmentation Can Improve Robustness*, NeurIPS 2021 (decay 0.995).

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use fireproof_datasets::Dataset;
use fireproof_models::{Network, Parameter};
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    stage::{Describe, Hook, Options, Stage, StageConfig, StageEntry, options, parse},
};

/// After every step `average ← decay · average + (1 − decay) · weights`; the average is what is validated and kept.
///
/// Running statistics of batch norm are averaged like weights, so the average is a network of its own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// Share of the old average, from 0 to below 1.
    #[serde(default = "default_decay")]
    pub decay: f64,
    #[serde(skip)]
    average: Vec<Parameter>,
}

fn default_decay() -> f64 {
    0.995
}

inventory::submit! {
    StageEntry { name: "ema", about: "moving average of the weights", build: |given| {
        let stage: Ema = parse(given)?;
        match (0.0..1.0).contains(&stage.decay) {
            true => Ok(Stage::Hook(Box::new(stage))),
            false => Err(format!("decay is {}, expected 0 to below 1", stage.decay)),
        }
    } }
}

impl Describe for Ema {
    fn explain(&self) -> String {
        format!("moving average of the weights with decay {}, validated and kept instead of them", self.decay)
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn contradiction(&self, earlier: &[StageConfig]) -> Option<String> {
        let twice = earlier.iter().any(|stage| stage.stage == "ema");
        twice.then(|| "two averages of the weights, but only one network can be validated and kept".into())
    }

    fn begin(&mut self, network: &dyn Network, _train: &dyn Dataset) -> Result<()> {
        self.average = network.parameters();
        Ok(())
    }

    fn state(&self) -> Vec<(String, TensorData)> {
        let tensor = |p: &Parameter| (p.name.clone(), TensorData::new(p.values.clone(), p.shape.clone()));
        self.average.iter().map(tensor).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, TensorData>) -> Result<(), String> {
        for parameter in &mut self.average {
            let Parameter { name, shape, .. } = &*parameter;
            let kept = state.remove(name).filter(|data| data.shape().to_vec() == *shape);
            let kept = kept.ok_or_else(|| format!("has no average of '{name}' {shape:?}"))?;
            parameter.values = kept.try_to_vec().map_err(|error| format!("'{name}': {error:?}"))?;
        }
        match state.keys().next() {
            Some(name) => Err(format!("holds '{name}', which the network does not have")),
            None => Ok(()),
        }
    }
}

impl Hook for Ema {
    fn after_step(&mut self, network: &dyn Network) -> Result<()> {
        let decay = self.decay as f32;
        for (average, live) in self.average.iter_mut().zip(network.parameters()) {
            for (old, new) in average.values.iter_mut().zip(live.values) {
                *old = decay * *old + (1.0 - decay) * new;
            }
        }
        Ok(())
    }

    fn evaluated(&self, network: &dyn Network) -> Result<Option<Box<dyn Network>>> {
        let mut copy = network.deep_clone();
        copy.set_parameters(&self.average)?;
        Ok(Some(copy))
    }
}
