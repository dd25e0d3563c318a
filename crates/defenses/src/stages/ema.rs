//! Exponential moving average of the weights.
//!
//! Izmailov et al., *Averaging Weights Leads to Wider Optima and Better Generalization*, UAI 2018; for adversarial
//! training Rebuffi et al., *Data Augmentation Can Improve Robustness*, NeurIPS 2021 (decay 0.995).

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use fireproof_datasets::Dataset;
use fireproof_models::{Kind, Network, Parameter};
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    stage::{Describe, Hook, Options, Stage, StageConfig, StageEntry, options, parse},
};

/// Which running statistics of batch norm go with the averaged weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistics {
    /// Averaged like weights, so the average is a network of its own.
    #[default]
    Average,
    /// Those of the trained network, as Rebuffi et al. evaluate.
    Live,
}

/// After every step `average ← decay · average + (1 − decay) · weights`; the average is what is validated and kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// Share of the old average, from 0 to below 1.
    #[serde(default = "default_decay")]
    pub decay: f64,
    /// Whether the decay after `t` steps is at most `(1 + t) / (10 + t)`, so that the first weights are soon forgotten.
    #[serde(default)]
    pub warmup: bool,
    /// Which running statistics go with the average.
    #[serde(default)]
    pub statistics: Statistics,
    #[serde(skip)]
    average: Vec<Parameter>,
    /// Steps averaged so far.
    #[serde(skip)]
    steps: u64,
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

/// Where the number of steps is kept, beside parameters of any name.
const STEPS: &str = "steps of the average";

impl Describe for Ema {
    fn explain(&self) -> String {
        let warmup = if self.warmup { " (less in the first steps)" } else { "" };
        let statistics = match self.statistics {
            Statistics::Average => "",
            Statistics::Live => ", with the running statistics of the trained network",
        };
        let decay = self.decay;
        format!(
            "moving average of the weights with decay {decay}{warmup}, validated and kept instead of them{statistics}"
        )
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
        self.steps = 0;
        Ok(())
    }

    fn state(&self) -> Vec<(String, TensorData)> {
        let tensor = |p: &Parameter| (p.name.clone(), TensorData::new(p.values.clone(), p.shape.clone()));
        let steps = (STEPS.to_string(), TensorData::new(vec![self.steps], [1]));
        self.average.iter().map(tensor).chain([steps]).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, TensorData>) -> Result<(), String> {
        let steps = state.remove(STEPS).and_then(|data| data.try_to_vec::<u64>().ok());
        self.steps = steps.and_then(|steps| steps.first().copied()).ok_or_else(|| format!("has no '{STEPS}'"))?;
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
        let t = self.steps as f64;
        let decay = if self.warmup { self.decay.min((1.0 + t) / (10.0 + t)) } else { self.decay } as f32;
        self.steps += 1;
        for (average, live) in self.average.iter_mut().zip(network.parameters()) {
            for (old, new) in average.values.iter_mut().zip(live.values) {
                *old = decay * *old + (1.0 - decay) * new;
            }
        }
        Ok(())
    }

    fn evaluated(&self, network: &dyn Network) -> Result<Option<Box<dyn Network>>> {
        let mut copy = network.deep_clone();
        let mut average = self.average.clone();
        if self.statistics == Statistics::Live {
            let live = average.iter_mut().zip(network.parameters());
            live.filter(|(kept, _)| kept.kind == Kind::Statistic).for_each(|(kept, live)| kept.values = live.values);
        }
        copy.set_parameters(&average)?;
        Ok(Some(copy))
    }
}
