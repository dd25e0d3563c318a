//! A tiny network, small scenes, and stages of a crate of one's own.

use std::{path::Path, sync::Arc};

use burn::tensor::{Device, Tensor};
use fireproof_datasets::{Dataset, Options, Split, open};
use fireproof_defenses::{
    Control, Display, Error, Method, OptimizerConfig, Recipe, Summary, TrainConfig, Validation,
    stage::{
        BATCH, Cost, Describe, Moment, Options as StageOptions, Pass, Prepare, Stage, StageEntry, Term, View, parse,
        pass,
    },
    train,
};
use fireproof_models::{Architecture, Network, Parameter, build};

pub fn scenes(split: Split, length: usize) -> Arc<dyn Dataset> {
    let options = Options { size: Some((32, 32)), length: Some(length), seed: 1, ..Options::default() };
    open("scenes", None, split, options).unwrap().into()
}

pub fn network(seed: u64) -> Box<dyn Network> {
    let classes: Vec<String> = scenes(Split::Train, 1).classes().iter().map(|class| class.name.clone()).collect();
    let mut architecture = Architecture::new("unet", &classes).unwrap();
    architecture.options.insert("base".into(), 4);
    architecture.options.insert("levels".into(), 2);
    build(&architecture, seed, &Device::flex()).unwrap()
}

/// Two epochs of two steps.
pub fn config(recipe: &str) -> TrainConfig {
    TrainConfig {
        epochs: 2,
        batch_size: 4,
        optimizer: OptimizerConfig {
            method: Method::Sgd { momentum: 0.9 },
            learning_rate: 0.05,
            head_factor: 2.0,
            ..OptimizerConfig::default()
        },
        validation: Validation { images: Some(3), batch_size: 2, ..Validation::default() },
        seed: 3,
        ..TrainConfig::new(Recipe::preset(recipe).unwrap())
    }
}

pub fn silent() -> Control {
    Control { display: Display::Silent, ..Control::default() }
}

/// Trains the tiny network on eight scenes.
pub fn run(config: &TrainConfig, out: &Path, control: &Control) -> Result<(Summary, Box<dyn Network>), Error> {
    let mut network = network(5);
    let summary = train(config, &mut *network, scenes(Split::Train, 8), scenes(Split::Val, 6), out, control)?;
    Ok((summary, network))
}

/// The bits of all parameters, so that not even the sign of a zero may differ.
pub fn bits(parameters: &[Parameter]) -> Vec<(String, Vec<u32>)> {
    parameters.iter().map(|p| (p.name.clone(), p.values.iter().map(|v| v.to_bits()).collect())).collect()
}

/// What a user's own crate would add: images become NaN at one step.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PlantNan {
    at: u64,
}

inventory::submit! {
    StageEntry { name: "plant-nan", about: "for tests", build: |given| {
        Ok(Stage::Prepare(Box::new(parse::<PlantNan>(given)?)))
    } }
}

impl Describe for PlantNan {
    fn explain(&self) -> String {
        format!("images become NaN at step {}", self.at)
    }
    fn options(&self) -> StageOptions {
        fireproof_defenses::stage::options(self)
    }
}

impl Prepare for PlantNan {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<(), Error> {
        if moment.step == self.at {
            views[0].batch.images = views[0].batch.images.clone() * f32::NAN;
        }
        Ok(())
    }
}

/// A term that pulls the logits of two views together.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    other: String,
}

inventory::submit! {
    StageEntry { name: "pair", about: "for tests", build: |given| {
        Ok(Stage::Term(Box::new(parse::<Pair>(given)?)))
    } }
}

impl Describe for Pair {
    fn explain(&self) -> String {
        format!("squared distance of the logits of '{}' to the batch's", self.other)
    }
    fn options(&self) -> StageOptions {
        fireproof_defenses::stage::options(self)
    }
    fn reads(&self) -> Vec<String> {
        vec![BATCH.into(), self.other.clone()]
    }
    fn cost(&self) -> Cost {
        Cost::default()
    }
}

impl Term for Pair {
    fn loss(&mut self, passes: &[Pass], _: &Moment<'_>) -> Result<Tensor<1>, Error> {
        let distance = pass(passes, BATCH)?.output.logits.clone() - pass(passes, &self.other)?.output.logits.clone();
        Ok((distance.clone() * distance).mean())
    }
}

/// Sleeps for a while at every step.
struct Slow;

inventory::submit! {
    StageEntry { name: "slow", about: "for tests", build: |_| Ok(Stage::Prepare(Box::new(Slow))) }
}

impl Describe for Slow {
    fn explain(&self) -> String {
        "20 ms of sleep".into()
    }
    fn options(&self) -> StageOptions {
        StageOptions::new()
    }
}

impl Prepare for Slow {
    fn prepare(&mut self, _: &mut Vec<View>, _: &Moment<'_>) -> Result<(), Error> {
        std::thread::sleep(std::time::Duration::from_millis(20));
        Ok(())
    }
}
