//! What each published system must do, beyond running: one or more tests a system.

use std::{collections::BTreeMap, sync::Arc};

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_attacks::AttackConfig;
use fireproof_datasets::{Class, Dataset, Image, Mask, Sample, Split, batch};
use fireproof_defenses::{
    BEST, CHECKPOINT, Checkpoint, Error, Recipe, Schedule, TrainConfig,
    stage::{BATCH, Dawn, Describe, Hook, Moment, Options, Pass, Prepare, Stage, StageEntry, View, parse, registered},
    stages::{CrossEntropy, Ema, landscape},
    train,
};
use fireproof_models::{Architecture, Kind, Network, Parameter, Taps, build};
use fireproof_tensor::{Batch, Norm, ops::cross_entropy};

use crate::common::{bits, config, network, run, scenes, silent};

/// A recipe with attacks of two steps and no waiting for warm-ups, on the tiny network.
pub fn short(name: &str) -> TrainConfig {
    let mut config = config("standard");
    config.recipe = Recipe::preset(name).unwrap();
    config.optimizer.learning_rate = 0.01;
    let recipe = &mut config.recipe;
    if recipe.selection.is_some() {
        recipe.set("selection.steps", "1").unwrap();
    }
    let with = |recipe: &Recipe, stage: &str| recipe.stages.iter().find(|s| s.stage == stage).cloned();
    if let Some(inner) = with(recipe, "inner-max") {
        recipe.set("inner-max.attack.steps", "2").unwrap();
        if inner.options.get("epsilon_schedule").is_some_and(|rule| rule["kind"] == "adaptive") {
            recipe.set("inner-max.epsilon_schedule.every", "1").unwrap();
        }
    }
    if with(recipe, "awp").is_some() {
        recipe.set("awp.warmup", "0").unwrap();
    }
    config.validation.images = Some(2);
    config
}

fn stage(name: &str, options: serde_json::Value) -> Stage {
    let entry = registered().into_iter().find(|entry| entry.name == name).unwrap();
    (entry.build)(options.as_object().unwrap().clone()).unwrap()
}

fn refused(name: &str, options: serde_json::Value) -> String {
    let entry = registered().into_iter().find(|entry| entry.name == name).unwrap();
    (entry.build)(options.as_object().unwrap().clone()).err().unwrap()
}

fn images(n: usize) -> Batch {
    let data = scenes(Split::Train, n);
    batch(&(0..n).map(|i| data.get(i).unwrap()).collect::<Vec<_>>(), &Device::flex()).unwrap()
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data().convert::<f32>().try_to_vec().unwrap()
}

fn prepared(stage: Stage, batch: Batch, network: &dyn Network) -> Vec<View> {
    let Stage::Prepare(mut stage) = stage else { panic!("not a Prepare stage") };
    stage.begin(network, &*scenes(Split::Train, 1)).unwrap();
    let mut views = vec![View::new(BATCH, batch)];
    stage.prepare(&mut views, &Moment::new(network, 0, 1, 0, 7)).unwrap();
    views
}

/// Grey pictures of two shapes with one label each: bars that lie or stand.
struct Bars {
    split: &'static str,
    classes: Vec<Class>,
}

impl Bars {
    fn new(split: &'static str) -> Arc<dyn Dataset> {
        let classes = ["lying", "standing"].map(|name| Class { name: name.into(), color: [0; 3] });
        Arc::new(Self { split, classes: classes.into() })
    }
}

impl Dataset for Bars {
    fn name(&self) -> &str {
        "bars"
    }
    fn split(&self) -> &str {
        self.split
    }
    fn len(&self) -> usize {
        8
    }
    fn classes(&self) -> &[Class] {
        &self.classes
    }
    fn channels(&self) -> usize {
        1
    }
    fn sample_name(&self, index: usize) -> String {
        format!("{index}")
    }
    fn stored_as(&self, _: usize) -> fireproof_datasets::Result<String> {
        Ok("in memory".into())
    }
    fn get(&self, index: usize) -> fireproof_datasets::Result<Sample> {
        let (label, at) = ((index % 2) as u8, 6 + 2 * index);
        let pixel = |i: usize| {
            let along = if label == 0 { i / 28 } else { i % 28 };
            if along.abs_diff(at) < 3 { 0.9 } else { 0.1 + 0.1 * ((i * 7919 + index) % 5) as f32 / 5.0 }
        };
        let image = Image { channels: 1, height: 28, width: 28, data: (0..784).map(pixel).collect() };
        let mask = Mask { height: 1, width: 1, data: vec![label] };
        Ok(Sample { id: index as u64, name: index.to_string(), image, mask, case: None })
    }
}

fn cnn() -> Box<dyn Network> {
    let mut architecture = Architecture::new("cnn", &["lying", "standing"]).unwrap();
    architecture.input_channels = 1;
    architecture.normalisation = fireproof_models::Normalisation::identity(1);
    architecture.options.insert("base".into(), 4);
    build(&architecture, 2, &Device::flex()).unwrap()
}

#[test]
fn every_recipe_trains_a_classifier_at_the_cost_that_it_announces() {
    for (recipe, about) in fireproof_defenses::recipes() {
        assert!(!about.is_empty());
        // What margins cost follows from the samples, and some are about Dice; they have tests of their own.
        if recipe.stages.iter().any(|stage| stage.stage == "margin") {
            continue;
        }
        let config = TrainConfig { epochs: 1, ..short(&recipe.name) };
        let folder = tempfile::tempdir().unwrap();
        let mut network = cnn();
        let summary =
            train(&config, &mut *network, Bars::new("train"), Bars::new("val"), folder.path(), &silent()).unwrap();
        let cost = config.recipe.cost().unwrap();
        let images = (summary.steps * 4) as f64;
        let meter = summary.meter;
        for (what, found, expected) in [
            ("forward", meter.forward, cost.forward),
            ("input backward", meter.input_backward, cost.input_backward),
            ("full backward", meter.full_backward, cost.full_backward),
        ] {
            let expected = expected * images;
            assert!((found as f64 - expected).abs() < 1e-6, "'{}' {what}: {found} instead of {expected}", recipe.name);
        }
        let text = config.recipe.explain().unwrap();
        assert!(text.contains("passes per image and step"), "{text}");
    }
}

#[test]
fn free_training_costs_what_ordinary_training_does_and_makes_as_many_steps() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 1, ..short("free-at") };
    let (free, _) = run(&config, folder.path(), &silent()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 8, ..short("standard") };
    let (ordinary, _) = run(&config, folder.path(), &silent()).unwrap();
    assert_eq!((free.steps, ordinary.steps), (16, 16), "two batches, eight steps on each");
    let passes = |meter: fireproof_defenses::Meter| (meter.forward, meter.input_backward, meter.full_backward);
    assert_eq!(passes(free.meter), passes(ordinary.meter));
}

#[test]
fn the_step_that_rogs_code_rounds_to_zero_is_half_of_a_share_of_each_images_range() {
    let recipe = Recipe::preset("rog-free-at").unwrap().resolved().unwrap();
    let options = serde_json::to_value(&recipe.stages[0].options).unwrap();
    let Stage::Replay(mut free) = stage("free", options) else { panic!() };
    assert_eq!(free.replays(), 5);
    let mut batch = images(2);
    let [_, c, h, w] = batch.dims();
    // One image from 0.2 to 0.8, one from 0.4 to 0.5.
    let ramp = |low: f32, span: f32| (0..c * h * w).map(move |i| low + span * i as f32 / (c * h * w - 1) as f32);
    let values: Vec<f32> = ramp(0.2, 0.6).chain(ramp(0.4, 0.1)).collect();
    batch.images =
        burn::tensor::Tensor::from_data(burn::tensor::TensorData::new(values, [2, c, h, w]), &Device::flex());
    let up = batch.images.ones_like();
    let mut largest = Vec::new();
    for _ in 0..3 {
        let moved = floats(free.perturb(&batch).unwrap() - batch.images.clone());
        largest.push(
            [&moved[..c * h * w], &moved[c * h * w..]].map(|half| half.iter().fold(0.0f32, |m, v| m.max(v.abs()))),
        );
        free.learn(up.clone()).unwrap();
    }
    let radius = 8.0 / 255.0;
    for (found, share) in largest.iter().zip([0.0, 0.5, 1.0]) {
        for (found, span) in found.iter().zip([0.6, 0.1]) {
            assert!((found - share * radius * span).abs() < 1e-6, "{largest:?}");
        }
    }
}

#[test]
fn the_perturbation_of_free_training_goes_from_batch_to_batch_within_its_radius() {
    let Stage::Replay(mut free) = stage("free", serde_json::json!({ "replays": 2, "epsilon": 0.03 })) else { panic!() };
    assert_eq!(free.replays(), 2);
    let (first, second) = (images(2), images(4).slice(2..4));
    assert_eq!(floats(free.perturb(&first).unwrap()), floats(first.images.clone()), "it begins at zero");
    let gradient = first.images.clone() - 0.5;
    free.learn(gradient.clone()).unwrap();
    let state = free.state();
    let delta = floats((gradient.clone().sign()) * 0.03);
    assert_eq!(state[0].1.try_to_vec::<f32>().unwrap(), delta);
    // Another batch starts with it.
    let moved = floats(free.perturb(&second).unwrap() - second.images.clone());
    let clipped =
        floats((second.images.clone() + gradient.clone().sign() * 0.03).clamp(0.0, 1.0) - second.images.clone());
    assert_eq!(moved, clipped);
    free.learn(gradient).unwrap();
    let largest = free.state()[0].1.try_to_vec::<f32>().unwrap().into_iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert_eq!(largest, 0.03, "projected after the second step too");
    // A resumed run has the same one.
    let Stage::Replay(mut again) = stage("free", serde_json::json!({ "replays": 2, "epsilon": 0.03 })) else {
        panic!()
    };
    again.restore(state.into_iter().collect()).unwrap();
    assert_eq!(floats(again.perturb(&second).unwrap() - second.images.clone()), clipped);
    let message = again.perturb(&images(3)).unwrap_err().to_string();
    assert!(message.contains("train on crops"), "{message}");
}

/// The gradient of the cross-entropy on some images, and the loss.
fn look(network: &dyn Network, batch: &Batch) -> (Vec<Parameter>, f64) {
    let output = network.forward(batch.images.clone(), &mut Taps::train());
    let loss = cross_entropy(output.logits, &batch.targets).mean();
    let value = f64::from(loss.clone().inner().into_scalar::<f32>());
    (network.gradients(&loss.backward()), value)
}

#[test]
fn awp_moves_each_weight_tensor_by_its_share_uphill_and_nothing_else() {
    let mut network = network(3);
    network.train_mode();
    let batch = images(4);
    for gamma in [0.005, 0.02] {
        let Stage::Weights(mut awp) = stage("awp", serde_json::json!({ "gamma": gamma })) else { panic!() };
        let before = bits(&network.parameters());
        let moment = Moment::new(&*network, 0, 1, 0, 7);
        let chosen = awp.choose(&*network, &mut |n| Ok(look(n, &batch).0), &moment).unwrap().unwrap();
        assert_eq!(bits(&network.parameters()), before, "the network's own weights are never touched");
        let length = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let mut moved = 0;
        for (own, new) in network.parameters().iter().zip(&chosen) {
            if own.kind == Kind::Statistic || own.shape.len() < 2 {
                assert_eq!(own, new, "'{}'", own.name);
                continue;
            }
            let difference = own.values.iter().zip(&new.values).map(|(a, b)| f64::from(*b) - f64::from(*a));
            let ratio = length(&mut { difference }) / length(&mut own.values.iter().map(|&v| f64::from(v)));
            assert!((ratio - gamma).abs() < 1e-6, "'{}' by {ratio}", own.name);
            moved += 1;
        }
        assert!(moved > 5);
        let mut there = network.deep_clone();
        there.set_parameters(&chosen).unwrap();
        assert!(look(&*there, &batch).1 > look(&*network, &batch).1, "uphill");
    }
}

/// What a user's own stage may say: half of the samples count nothing.
#[derive(serde::Serialize, serde::Deserialize)]
struct CountHalf {}

const HALF: [f32; 8] = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0];

inventory::submit! {
    StageEntry { name: "count-half", about: "for tests", build: |given| {
        Ok(Stage::Prepare(Box::new(parse::<CountHalf>(given)?)))
    } }
}

impl Describe for CountHalf {
    fn explain(&self) -> String {
        "half of the samples count nothing".into()
    }
    fn options(&self) -> Options {
        Options::new()
    }
}

impl Prepare for CountHalf {
    fn prepare(&mut self, _: &mut Vec<View>, _: &Moment<'_>) -> Result<(), Error> {
        Ok(())
    }
    fn observe(&mut self, passes: &mut [Pass], _: &Moment<'_>) -> Result<(), Error> {
        passes[0].weigh(&HALF);
        Ok(())
    }
}

#[test]
fn a_step_of_awp_is_the_step_along_the_gradient_taken_elsewhere() {
    awp_by_hand("", None);
}

#[test]
fn awp_looks_at_the_loss_as_earlier_stages_have_weighted_it() {
    awp_by_hand("[[stages]]\nstage = 'count-half'\n", Some(&HALF));
}

fn awp_by_hand(before: &str, weights: Option<&[f32]>) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = TrainConfig { epochs: 1, batch_size: 8, ..short("standard") };
    config.optimizer.weight_decay = 0.0;
    config.schedule = Schedule::Constant;
    let awp = "[[stages]]\nstage = 'cross-entropy'\n[[stages]]\nstage = 'awp'\ngamma = 0.1";
    config.recipe = Recipe::from_toml(&format!("name = 'awp'\n{before}{awp}")).unwrap();
    let (_, trained) = run(&config, folder.path(), &silent()).unwrap();

    // The same by hand: one batch of all eight images, in the order of the loader.
    let mut start = network(5);
    start.train_mode();
    let mut order = fireproof_datasets::Loader::new(
        scenes(Split::Train, 8),
        fireproof_datasets::LoaderOptions::training(8, config.seed, config.augment.clone()),
    )
    .unwrap();
    let samples = order.next().unwrap().unwrap().samples;
    let batch = batch(&samples, &Device::flex()).unwrap();
    let Stage::Weights(mut awp) = stage("awp", serde_json::json!({ "gamma": 0.1 })) else { panic!() };
    let Stage::Term(mut term) = stage("cross-entropy", serde_json::json!({})) else { panic!() };
    let moment = Moment::new(&*start, 0, 1, 0, 7);
    let mut gradients = |n: &dyn Network| {
        let output = n.forward(batch.images.clone(), &mut Taps::train());
        let mut passes = [Pass { view: View::new(BATCH, batch.clone()), output }];
        weights.into_iter().for_each(|weights| passes[0].weigh(weights));
        Ok(n.gradients(&term.loss(&passes, &moment)?.backward()))
    };
    let chosen = awp.choose(&*start, &mut gradients, &moment).unwrap().unwrap();
    let mut there = start.deep_clone();
    there.set_parameters(&chosen).unwrap();
    let slopes: BTreeMap<String, Vec<f32>> =
        gradients(&*there).unwrap().into_iter().map(|p| (p.name, p.values)).collect();
    for (own, end) in start.parameters().iter().zip(trained.parameters()).filter(|(own, _)| own.kind == Kind::Weight) {
        let rate = if own.group == fireproof_models::Group::Head { 0.02 } else { 0.01 };
        for ((w, g), found) in own.values.iter().zip(&slopes[&own.name]).zip(&end.values) {
            assert!((w - rate * g - found).abs() < 1e-6, "'{}': {found}", own.name);
        }
    }
}

#[test]
fn a_landscape_rises_from_its_middle_and_leaves_the_network_alone() {
    // A bowl around the weights: the loss is the squared distance, so at radius r it is r² times their own length.
    let network = network(1);
    let own = network.parameters();
    let before = bits(&own);
    let mut bowl = |n: &dyn Network| {
        let pairs = own.iter().zip(n.parameters());
        Ok(pairs
            .flat_map(|(a, b)| a.values.iter().zip(b.values).map(|(x, y)| f64::from(x - y).powi(2)).collect::<Vec<_>>())
            .sum())
    };
    let heights = landscape(&*network, &[0.0, 0.1, 0.2], 2, 4, &mut bowl).unwrap();
    let moved = own.iter().filter(|p| p.kind == Kind::Weight && p.shape.len() > 1);
    let length: f64 = moved.flat_map(|p| &p.values).map(|v| f64::from(*v).powi(2)).sum();
    for (height, radius) in heights.iter().zip([0.0f64, 0.1, 0.2]) {
        assert!((height - radius * radius * length).abs() < 1e-3 * length.max(1e-9), "{heights:?}");
    }
    assert_eq!(bits(&network.parameters()), before);
}

#[test]
fn the_best_robust_epoch_is_kept_bit_by_bit() {
    let mut config = TrainConfig { epochs: 4, schedule: Schedule::Constant, ..short("early-stopping") };
    config.optimizer.learning_rate = 0.3;
    config.validation.images = Some(6);
    let folder = tempfile::tempdir().unwrap();
    let (summary, _) = run(&config, folder.path(), &silent()).unwrap();
    let scores: Vec<f64> = summary.epochs.iter().map(|epoch| epoch.robust_miou.unwrap()).collect();
    let best = summary.best.unwrap();
    let highest = scores.iter().copied().fold(0.0, f64::max);
    assert_eq!(best.epoch, 1 + scores.iter().position(|&score| score == highest).unwrap(), "{scores:?}");
    let kept = fireproof_models::load(folder.path().join(BEST), &Default::default(), &Device::flex()).unwrap().network;
    // A run that ends there has the same weights.
    let folder = tempfile::tempdir().unwrap();
    let (_, there) = run(&TrainConfig { epochs: best.epoch, ..config }, folder.path(), &silent()).unwrap();
    assert_eq!(bits(&kept.parameters()), bits(&there.parameters()));
}

#[test]
fn images_of_no_class_without_weight_halve_the_gradient_and_change_nothing_else() {
    let mut network = network(2);
    network.train_mode();
    let batch = images(4);
    let ood = stage("out-of-distribution", serde_json::json!({ "alpha": 0.0, "source": "noise" }));
    let views = prepared(ood, batch.clone(), &*network);
    let mixed = &views[0].batch;
    assert_eq!(mixed.ids[..2], batch.ids[..2]);
    assert!(mixed.ids[2..].iter().all(|id| *id > 1 << 40));
    let gradient = |batch: &Batch| {
        // In evaluation mode, where an image's logits do not depend on its neighbours.
        let output = network.forward(batch.images.clone(), &mut Taps::eval());
        let passes = [Pass { view: View::new(BATCH, batch.clone()), output }];
        let Stage::Term(mut term) = stage("cross-entropy", serde_json::json!({ "mean_over": "samples" })) else {
            panic!()
        };
        network.gradients(&term.loss(&passes, &Moment::new(&*network, 0, 1, 0, 7)).unwrap().backward())
    };
    // All of the scenes' pixels are valid or void alike in both halves of the sum: count them.
    let valid = |batch: &Batch| floats(batch.targets.valid_pixels()).iter().sum::<f32>();
    let share = valid(&batch.slice(0..2)) / valid(mixed);
    for (a, b) in gradient(mixed).iter().zip(gradient(&batch.slice(0..2))) {
        let largest = b.values.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        for (x, y) in a.values.iter().zip(&b.values) {
            assert!((x - share * y).abs() < 1e-4 * largest, "'{}': {x} and {y}", a.name);
        }
    }
    let uniform = floats(mixed.targets.soft().unwrap().clone().narrow(0, 2, 2));
    let classes = network.architecture().classes.len() as f32;
    assert!(uniform.iter().all(|&p| p == 1.0 / classes));
    assert!(
        floats(mixed.targets.correct(&Tensor::zeros([4, classes as usize, 32, 32], &Device::flex())).narrow(0, 2, 2))
            .iter()
            .all(|&c| c == 0.0)
    );
}

#[test]
fn images_of_no_class_come_from_noise_textures_or_a_data_set() {
    let network = network(0);
    let sources = [
        serde_json::json!("noise"),
        serde_json::json!("textures"),
        serde_json::json!({ "data": { "name": "scenes", "root": null, "split": "val" } }),
    ];
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for source in sources {
        let made =
            prepared(stage("out-of-distribution", serde_json::json!({ "source": source })), images(2), &*network);
        let pixels = floats(made[0].batch.images.clone().narrow(0, 1, 1));
        assert!(pixels.iter().all(|v| (0.0..=1.0).contains(v)));
        assert!(seen.iter().all(|other| *other != pixels));
        seen.push(pixels);
    }
    let message = refused(
        "out-of-distribution",
        serde_json::json!({ "source": { "data": { "name": "scenes", "root": null, "split": "test" } } }),
    );
    assert!(message.contains("test data is read once"), "{message}");
}

#[test]
fn rlat_moves_image_and_features_by_their_radii_in_one_pass() {
    let network = network(4);
    let batch = images(3);
    let Stage::Prepare(mut rlat) = stage("rlat", serde_json::json!({ "epsilon": 0.5, "range": [-9.0, 9.0] })) else {
        panic!()
    };
    let mut views = vec![View::new(BATCH, batch.clone())];
    let moment = Moment::new(&*network, 0, 1, 0, 7);
    rlat.prepare(&mut views, &moment).unwrap();
    assert_eq!((moment.passes().forward, moment.passes().backward), (3, 3), "one pass each way for all sites");
    let pixels = 3.0 * 32.0 * 32.0;
    for norm in floats(Norm::L2.of(views[0].batch.images.clone() - batch.images.clone())) {
        assert!((norm - 0.5).abs() < 1e-5, "{norm}");
    }
    let sites: Vec<String> = network.sites().into_iter().skip(1).collect();
    assert_eq!(views[0].features.iter().map(|(site, _)| site.clone()).collect::<Vec<_>>(), sites);
    for (level, (site, change)) in views[0].features.iter().enumerate() {
        let fireproof_models::Change::Add(delta) = change else { panic!() };
        let values: usize = delta.dims()[1..].iter().product();
        let radius = 0.5 * values as f32 / pixels / (level + 2) as f32;
        for norm in floats(Norm::L2.of(delta.clone())) {
            assert!((norm / radius - 1.0).abs() < 1e-5, "{site}: {norm} instead of {radius}");
        }
    }
}

#[test]
fn rlat_without_sites_is_one_normalised_gradient_step() {
    let network = network(4);
    let batch = images(2);
    let options = serde_json::json!({ "epsilon": 0.3, "sites": ["none"], "batch_norm": "eval" });
    let found = floats(prepared(stage("rlat", options), batch.clone(), &*network)[0].batch.images.clone());
    let attack = AttackConfig {
        norm: Norm::L2,
        epsilon: 0.3,
        step_size: Some(0.3),
        steps: 1,
        start: fireproof_attacks::Start::Zero,
        ..AttackConfig::new("pgd").unwrap()
    };
    let victim = network.victim();
    let expected =
        fireproof_attacks::build(&attack).unwrap().run(&*victim, &batch, &fireproof_attacks::Context::new(7)).unwrap();
    for (a, b) in found.iter().zip(floats(expected.images)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn an_adaptive_radius_is_measured_on_held_out_images_and_kept() {
    let network = network(1);
    let options = serde_json::json!({
        "attack": { "name": "pgd", "steps": 1 }, "share": 1.0, "epsilon_schedule": { "kind": "adaptive", "levels": 3, "every": 2 },
    });
    let Stage::Prepare(mut inner) = stage("inner-max", options.clone()) else { panic!() };
    let held_out = scenes(Split::Val, 4);
    let dawn =
        |epoch| Dawn { epoch, network: &*network, held_out: &*held_out, images: Some(4), batch_size: 3, seed: 1 };
    let passes = inner.before_epoch(&dawn(0)).unwrap();
    // Four images at three radii, the first of which needs no attack.
    assert_eq!((passes.forward, passes.backward), (3 * 4 + 2 * 4, 2 * 4));
    let state = inner.state();
    let shares: Vec<f64> = state[0].1.try_to_vec().unwrap();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12 && shares.is_sorted(), "{shares:?}");
    assert_eq!(inner.before_epoch(&dawn(1)).unwrap().forward, 0, "every second epoch");
    let Stage::Prepare(mut again) = stage("inner-max", options) else { panic!() };
    again.restore(state.clone().into_iter().collect()).unwrap();
    assert_eq!(again.state()[0].1.try_to_vec::<f64>().unwrap(), shares);
    let Stage::Prepare(mut plain) = stage("inner-max", serde_json::json!({ "attack": { "name": "pgd" } })) else {
        panic!()
    };
    assert!(plain.restore(state.into_iter().collect()).unwrap_err().contains("does not draw from"));
}

#[test]
fn frames_of_a_clip_share_their_radius() {
    let network = network(1);
    let options = serde_json::json!({
        "attack": { "name": "pgd", "steps": 1, "start": "zero", "epsilon": 0.1, "step_size": 0.1, "range": [-9.0, 9.0] },
        "share": 1.0, "epsilon_schedule": { "kind": "beta", "alpha": 1.5 }, "clip": 2,
    });
    let batch = images(6);
    let moved = prepared(stage("inner-max", options), batch.clone(), &*network)[0].batch.images.clone() - batch.images;
    let radii = floats(Norm::Linf.of(moved));
    for clip in radii.chunks(2) {
        assert!((clip[0] - clip[1]).abs() < 1e-6, "{radii:?}");
    }
    assert!((radii[0] - radii[2]).abs() > 1e-4 && (radii[2] - radii[4]).abs() > 1e-4, "{radii:?}");
    assert!(radii.iter().all(|r| *r <= 0.1 + 1e-6));
}

#[test]
fn a_table_of_steps_needs_one_radius_a_batch() {
    let attack = serde_json::json!({ "name": "pgd" });
    let message = refused("inner-max", serde_json::json!({ "attack": attack, "steps": "table" }));
    assert!(message.contains("there is no 'epsilon_schedule'"), "{message}");
    let radius = serde_json::json!({ "kind": "beta", "alpha": 1.5 });
    let message = refused(
        "inner-max",
        serde_json::json!({ "attack": attack, "steps": "table", "epsilon_schedule": radius, "clip": 4 }),
    );
    assert!(message.contains("leave out 'clip'"), "{message}");
}

#[test]
fn a_warm_average_forgets_the_first_weights_and_may_take_live_statistics() {
    let mut live = network(0);
    let data = scenes(Split::Train, 1);
    let options = serde_json::json!({ "decay": 0.995, "warmup": true, "statistics": "live" });
    let mut average: Ema = serde_json::from_value(options).unwrap();
    average.begin(&*live, &*data).unwrap();
    let start = live.parameters();
    let mut expected = 0.0f64;
    for t in 0..4 {
        let mut moved = start.clone();
        moved.iter_mut().for_each(|p| p.values.iter_mut().for_each(|v| *v += (t + 1) as f32));
        live.set_parameters(&moved).unwrap();
        average.after_step(&*live).unwrap();
        let decay = (1.0 + t as f64) / (10.0 + t as f64);
        expected = decay * expected + (1.0 - decay) * (t + 1) as f64;
    }
    let kept = average.evaluated(&*live).unwrap().unwrap().parameters();
    for (kept, start) in kept.iter().zip(&start) {
        let shift = if kept.kind == Kind::Statistic { 4.0 } else { expected };
        for (a, s) in kept.values.iter().zip(&start.values) {
            assert!((f64::from(a - s) - shift).abs() < 1e-4, "'{}' {a} {s}", kept.name);
        }
    }
}

#[test]
fn only_the_adversarial_pass_of_the_cutmix_recipe_changes_running_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 1, batch_size: 8, ..short("cutmix-ema") };
    let (_, one) = run(&config, folder.path(), &silent()).unwrap();
    let mut both = config.clone();
    both.recipe.stages.retain(|stage| stage.stage != "batch-norm");
    let folder = tempfile::tempdir().unwrap();
    let (_, two) = run(&both, folder.path(), &silent()).unwrap();
    let statistics = |network: &dyn Network| {
        network.parameters().into_iter().filter(|p| p.kind == Kind::Statistic).collect::<Vec<_>>()
    };
    assert!(statistics(&*one) != statistics(&*two));
    let weights =
        |network: &dyn Network| network.parameters().into_iter().filter(|p| p.kind == Kind::Weight).collect::<Vec<_>>();
    assert_eq!(weights(&*one), weights(&*two), "the mode of the update is about running statistics alone");
}

#[test]
fn systems_combine_and_contradictions_are_refused_with_the_reason() {
    let toml = "name = 'all'\n[selection]\nname = 'segpgd'\nsteps = 1\n[[stages]]\nstage = 'cutmix'\n[[stages]]\nstage = 'inner-max'\nshare = 1.0\n\
                attack = { name = 'segpgd', steps = 2 }\n[[stages]]\nstage = 'cross-entropy'\n[[stages]]\nstage = 'awp'\n\
                [[stages]]\nstage = 'ema'";
    let config = TrainConfig { recipe: Recipe::from_toml(toml).unwrap(), epochs: 1, ..short("standard") };
    let folder = tempfile::tempdir().unwrap();
    let (summary, _) = run(&config, folder.path(), &silent()).unwrap();
    // CutMix → SegPGD → AWP → average: two attack steps, two passes with a backward pass to the weights.
    assert_eq!((summary.meter.forward, summary.meter.input_backward, summary.meter.full_backward), (32, 16, 16));
    let text = config.recipe.explain().unwrap();
    let places: Vec<usize> = ["  cutmix", "  inner-max", "  forward", "  cross-entropy", "  awp", "  step", "  ema"]
        .iter()
        .map(|w| text.find(w).unwrap())
        .collect();
    assert!(places.is_sorted(), "{text}");

    let (ce, attack) =
        ("[[stages]]\nstage = 'cross-entropy'\n", "[[stages]]\nstage = 'inner-max'\nattack.name = 'pgd'\n");
    let view = format!("{attack}into = 'adversarial'\n");
    let one = |name: &str| format!("[[stages]]\nstage = '{name}'\n");
    for (stages, reason) in [
        (format!("{attack}{}{ce}", one("free")), "free training attacks by the steps themselves"),
        (format!("{}{}{ce}", one("free"), one("free")), "both say how a batch is stepped on"),
        (format!("{}into = ['first']\n{}{ce}", one("augmix"), one("free")), "knows nothing of the view 'first'"),
        (format!("{ce}{}{}", one("awp"), one("awp")), "perturbed already"),
        (
            format!("{ce}{}{}", one("ema"), one("awp")),
            "chooses where the gradient is taken, so it must come before 'ema'",
        ),
        (
            format!("{view}{}{ce}{}", one("mixup"), one("trades")),
            "a pair no longer shows one image; mix before the attack",
        ),
        (format!("{}{view}{}", one("mixup"), one("mart")), "have no one label"),
        (format!("{attack}{}{ce}", one("out-of-distribution")), "the only ones that are not attacked"),
        (format!("{attack}{}{ce}", one("rlat")), "would not be around the clean images"),
    ] {
        let message =
            Recipe::from_toml(&format!("name = 'mine'\n{stages}")).unwrap().resolved().unwrap_err().to_string();
        assert!(message.contains(reason), "expected '{reason}' in: {message}");
    }
}

#[test]
fn a_recipe_by_name_and_its_file_are_the_same_thing() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Recipe::find(path.to_str().unwrap()).unwrap().resolved().unwrap()
    };
    let mut written = 0;
    for (recipe, _) in fireproof_defenses::recipes() {
        let named = Recipe::preset(&recipe.name).unwrap().resolved().unwrap();
        assert_eq!(read("mine.json", &serde_json::to_string(&recipe).unwrap()), named);
        // TOML has no word for an option that is not given.
        if let Ok(text) = toml::to_string(&recipe) {
            assert_eq!(read("mine.toml", &text), named);
            written += 1;
        }
    }
    assert!(written >= 24, "{written}");
}

#[test]
fn dice_behind_a_name_replaces_every_cross_entropy_with_its_view_and_weight() {
    let terms = |name: &str| {
        let recipe = Recipe::preset(name).unwrap().resolved().unwrap();
        let terms = recipe.stages.into_iter().filter(|s| s.options.contains_key("view"));
        terms
            .map(|s| (s.stage, ["view", "weight", "mean_over"].map(|name| s.options.get(name).cloned())))
            .collect::<Vec<_>>()
    };
    for name in ["ima", "sat", "regulated-finetune", "alp", "segpgd3-at-full", "standard", "oat", "mma"] {
        let (plain, dice) = (terms(name), terms(&format!("{name}-dice")));
        let replaced = plain.iter().map(|(stage, options)| match stage.as_str() {
            "cross-entropy" => ("dice-ce".to_owned(), options.clone()),
            _ => (stage.clone(), options.clone()),
        });
        assert_eq!(dice, replaced.collect::<Vec<_>>(), "{name}");
    }
    for (name, reason) in [
        ("mart-dice", "a stage 'cross-entropy' for '-dice' to replace"),
        ("nothing-dice", "unknown recipe 'nothing-dice'"),
    ] {
        let error = Recipe::preset(name).unwrap_err().to_string();
        assert!(error.contains(reason), "expected '{reason}' in: {error}");
    }
}

#[test]
fn an_option_is_set_in_every_stage_of_its_name() {
    let mut recipe = Recipe::preset("iat").unwrap();
    recipe.set("cross-entropy.weight", "0.25").unwrap();
    recipe.set("inner-max.attack.epsilon", "16/255").unwrap();
    recipe.set("inner-max.attack.name", "segpgd").unwrap();
    recipe.set("selection.steps", "3").unwrap();
    let weights: Vec<_> = recipe.stages.iter().filter_map(|s| s.options.get("weight")).collect();
    assert_eq!(weights, [0.25, 0.25]);
    let resolved = recipe.resolved().unwrap();
    assert_eq!(resolved.stages[0].options["attack"]["name"], "segpgd");
    assert!((resolved.stages[0].options["attack"]["epsilon"].as_f64().unwrap() - 16.0 / 255.0).abs() < 1e-6);
    assert_eq!(resolved.selection.unwrap().steps, 3);
    let message = recipe.set("awp.gamma", "0.1").unwrap_err().to_string();
    assert!(message.contains("'awp.gamma'") && message.contains("inner-max, mixup"), "{message}");
    let message = recipe.set("selection.steps", "many").unwrap_err().to_string();
    assert!(message.contains("selection.steps"), "{message}");
}

#[test]
fn the_state_of_every_stage_is_in_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = TrainConfig { epochs: 1, ..short("free-at") };
    config
        .recipe
        .stages
        .push(fireproof_defenses::stage::StageConfig { stage: "ema".into(), options: Default::default() });
    run(&config, folder.path(), &silent()).unwrap();
    let mut checkpoint = Checkpoint::read(&folder.path().join(CHECKPOINT)).unwrap();
    let names: Vec<&String> = checkpoint.stages.keys().collect();
    assert_eq!(names, ["1-free", "3-ema"], "by position; cross-entropy keeps nothing");
    assert!(checkpoint.stages["1-free"].contains_key("perturbation"));
    // A file without the perturbation's right shape is refused by name.
    let wrong = TensorData::new(vec![0.0f32; 4], [4]);
    checkpoint.stages.get_mut("1-free").unwrap().insert("perturbation".into(), wrong);
    checkpoint.write(&folder.path().join(CHECKPOINT)).unwrap();
    let control = fireproof_defenses::Control { resume: true, ..silent() };
    let error: Error = run(&config, folder.path(), &control).map(|(summary, _)| summary).unwrap_err();
    assert!(error.to_string().contains("stage '1-free' has a perturbation of shape [4]"), "{error}");
}

#[test]
fn the_small_network_stays_below_two_million_operations() {
    let mut architecture = Architecture::new("cnn", &["a"; 10]).unwrap();
    architecture.input_channels = 1;
    architecture.normalisation = fireproof_models::Normalisation::identity(1);
    let network = build(&architecture, 0, &Device::flex()).unwrap();
    // Multiplications and additions of every convolution at its place.
    let places = [28 * 28, 14 * 14, 7 * 7, 7 * 7, 1];
    let weights: Vec<usize> =
        network.layout().iter().filter(|p| p.shape.len() == 4).map(|p| p.shape.iter().product()).collect();
    assert_eq!(weights.len(), places.len());
    let operations: usize = weights.iter().zip(places).map(|(weight, place)| 2 * weight * place).sum();
    assert!(operations < 2_000_000, "{operations}");
    let logits = network.victim().logits(Tensor::zeros([3, 1, 28, 28], &Device::flex())).unwrap();
    assert_eq!(logits.dims(), [3, 10, 1, 1]);
}

#[test]
fn crossentropy_default_is_over_weights() {
    let options = CrossEntropy::default().options();
    assert_eq!(options["mean_over"], "weights");
}
