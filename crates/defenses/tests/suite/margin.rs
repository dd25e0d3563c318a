//! What margin training must do, on networks small enough to know the answer.

use std::{path::Path, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use fireproof_attacks::{methods::pgd::Pgd, objective::Weighted};
use fireproof_datasets::{Class, Dataset, Image, Mask, Sample, Split, batch};
use fireproof_defenses::{
    CHECKPOINT, Checkpoint, Control, Error, Method, OptimizerConfig, Recipe, Schedule, Stop, TrainConfig,
    margin::{Bracket, Budget, Criterion, Expand, Keep, Over, Refine, Search, Store, Update, Visit},
    stage::{BATCH, Describe, Moment, Options, Pass, Prepare, View},
    stages::{Active, Clean, Margin, MarginTraining, StartRadius},
    train,
};
use fireproof_metrics::EmptyClass;
use fireproof_models::{
    Architecture, Definition, Forward, Network, Normalisation, Output, Parameter, Taps, Trained, build,
    layers::{Conv2d, ConvSpec},
};
use fireproof_tensor::{Batch, Counted, Norm, Passes, random::Stream, victim};

use crate::common::{bits, network as unet, scenes, silent};

/// A linear classifier of points: two logits of `[N, C, 1, 1]`.
#[derive(Module, Debug)]
struct Linear {
    layer: Conv2d,
}

impl Forward for Linear {
    fn forward(&self, images: Tensor<4>, _: &mut Taps) -> Output {
        self.layer.forward(images).into()
    }
    fn sites(&self) -> Vec<String> {
        Vec::new()
    }
}

inventory::submit! {
    Definition {
        name: "linear", about: "for tests", options: &[], normalisation: Normalisation::identity, plan: None,
        recognise: |_| None,
        build: |architecture, seed, device| Trained::assemble(architecture, seed, device, |builder| Linear {
            layer: Conv2d::with_bias(builder, ConvSpec::new(architecture.input_channels, 2, 1)),
        }),
    }
}

fn linear(channels: usize) -> Box<dyn Network> {
    let mut architecture = Architecture::new("linear", &["left", "right"]).unwrap();
    architecture.input_channels = channels;
    architecture.normalisation = Normalisation::identity(channels);
    build(&architecture, 3, &Device::flex()).unwrap()
}

/// `z₁ − z₀ = w · x + b`.
fn set(network: &mut dyn Network, w: &[f32], b: f32) {
    let parameters: Vec<Parameter> = network
        .parameters()
        .into_iter()
        .map(|mut p| {
            let half: Vec<f32> = if p.name == "weight" { w.to_vec() } else { vec![b] };
            p.values = half.iter().map(|v| -v / 2.0).chain(half.iter().map(|v| v / 2.0)).collect();
            p
        })
        .collect();
    network.set_parameters(&parameters).unwrap();
}

/// Points with one label each.
struct Points {
    name: &'static str,
    split: &'static str,
    points: Vec<Vec<f32>>,
    labels: Vec<u8>,
    ids: Vec<u64>,
}

impl Points {
    fn new(points: Vec<Vec<f32>>, labels: Vec<u8>) -> Self {
        let ids = (0..labels.len() as u64).map(|i| 10 * i + 7).collect();
        Self { name: "points", split: "train", points, labels, ids }
    }
}

impl Dataset for Points {
    fn name(&self) -> &str {
        self.name
    }
    fn split(&self) -> &str {
        self.split
    }
    fn len(&self) -> usize {
        self.labels.len()
    }
    fn classes(&self) -> &[Class] {
        static CLASSES: std::sync::LazyLock<Vec<Class>> = std::sync::LazyLock::new(|| {
            ["left", "right"].map(|name| Class { name: name.into(), color: [0; 3] }).into()
        });
        &CLASSES
    }
    fn channels(&self) -> usize {
        self.points[0].len()
    }
    fn sample_name(&self, index: usize) -> String {
        format!("point {index}")
    }
    fn id(&self, index: usize) -> u64 {
        self.ids[index]
    }
    fn stored_as(&self, _: usize) -> fireproof_datasets::Result<String> {
        Ok("in memory".into())
    }
    fn get(&self, index: usize) -> fireproof_datasets::Result<Sample> {
        let data = self.points[index].clone();
        Ok(Sample {
            id: self.ids[index],
            name: self.sample_name(index),
            image: Image { channels: data.len(), height: 1, width: 1, data },
            mask: Mask { height: 1, width: 1, data: vec![self.labels[index]] },
            case: None,
        })
    }
}

/// Sixteen points around the line `0.6 x + 0.8 y = 0.5` and their distances to it; all labels are right.
fn around_a_line() -> (Points, Vec<f32>) {
    let stream = Stream::new(&[5]);
    let (mut points, mut labels, mut distances) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..16 {
        let point = vec![0.2 + 0.6 * stream.uniform(2 * i), 0.2 + 0.6 * stream.uniform(2 * i + 1)];
        let signed = 0.6 * point[0] + 0.8 * point[1] - 0.5;
        labels.push(u8::from(signed > 0.0));
        distances.push(signed.abs());
        points.push(point);
    }
    (Points::new(points, labels), distances)
}

fn whole(data: &dyn Dataset) -> Batch {
    batch(&(0..data.len()).map(|i| data.get(i).unwrap()).collect::<Vec<_>>(), &Device::flex()).unwrap()
}

fn grow(refine: Refine) -> Update {
    Update::Grow { expand: Expand::Constant, refine, freeze_after: None, patience: None }
}

/// Epochs of the stage on a network that does not learn; the margins after each.
fn epochs(stage: &mut MarginTraining, network: &dyn Network, data: &dyn Dataset, count: usize) -> Vec<Vec<f32>> {
    stage.begin(network, data).unwrap();
    let mut margins = Vec::new();
    for epoch in 0..count {
        let moment = Moment::new(network, epoch as u64, count as u64, epoch, 11 + epoch as u64);
        let mut views = vec![View::new(BATCH, whole(data))];
        stage.prepare(&mut views, &moment).unwrap();
        let pass = |view: View| {
            let output = network.forward(view.batch.images.clone().autodiff(), &mut Taps::train());
            Pass { view, output }
        };
        let mut passes: Vec<Pass> = views.into_iter().map(pass).collect();
        stage.observe(&mut passes, &moment).unwrap();
        stage.after_epoch(&record(epoch + 1)).unwrap();
        margins.push(stage.store().unwrap().iter().map(|(_, margin)| margin).collect());
    }
    margins
}

fn record(epoch: usize) -> fireproof_defenses::EpochRecord {
    fireproof_defenses::EpochRecord { epoch, step: 0, loss: 0.0, clean_miou: None, robust_miou: None, seconds: 0.0 }
}

#[test]
fn on_a_linear_model_margins_converge_to_the_distance_within_delta() {
    let (data, distances) = around_a_line();
    let mut network = linear(2);
    set(&mut *network, &[6.0, 8.0], -5.0);
    for bracket in [Bracket::Segment, Bracket::Crossing] {
        for start in [StartRadius::Full, StartRadius::Inner, StartRadius::Clean] {
            let mut stage = MarginTraining::new(Margin { delta: 0.02, bracket, start, ..Margin::default() });
            let margins = epochs(&mut stage, &*network, &data, 40).pop().unwrap();
            for (margin, distance) in margins.iter().zip(&distances) {
                // Ten halvings leave a thousandth of the bracket open. Where PGD crosses the boundary on a slant, the crossing
                // lies a little farther away than the nearest boundary point.
                let slant = if bracket == Bracket::Crossing { 0.1 * 0.02 } else { 0.0 };
                let open = (distance + 0.02) / 1024.0 + 1e-4 + slant;
                assert!((margin - distance).abs() <= 0.02 + open, "{margin} for {distance}, {bracket:?} {start:?}");
            }
        }
    }
}

#[test]
fn margins_stay_between_zero_and_their_cap_and_grow_by_at_most_delta_an_epoch() {
    let (data, distances) = around_a_line();
    let mut network = linear(2);
    set(&mut *network, &[6.0, 8.0], -5.0);
    for refine in [Refine::Mean, Refine::Minimum, Refine::None] {
        let mut stage =
            MarginTraining::new(Margin { delta: 0.03, cap: Some(0.1), update: grow(refine), ..Margin::default() });
        let history = epochs(&mut stage, &*network, &data, 12);
        let mut before = vec![0.03; data.len()];
        for margins in &history {
            for (margin, before) in margins.iter().zip(&before) {
                assert!((0.0..=0.1).contains(margin) && margin - before <= 0.03 + 1e-6, "{before} -> {margin}");
            }
            before.clone_from(margins);
        }
        let far = distances.iter().zip(&before).filter(|(distance, _)| **distance > 0.13);
        assert!(far.clone().count() > 2 && far.into_iter().all(|(_, margin)| *margin == 0.1), "far ones reach the cap");
    }
}

#[test]
fn with_a_threshold_out_of_reach_margins_stay_at_delta() {
    let data = scenes(Split::Train, 4);
    let network = unet(1);
    let criterion = Criterion::Dice { threshold: Some(1.0), over: Over::Min, empty: EmptyClass::Monai };
    let mut stage = MarginTraining::new(Margin {
        delta: 0.25,
        steps: 3,
        criterion,
        clean: Clean::Always,
        bracket: Bracket::None,
        active: Active::All,
        update: grow(Refine::None),
        ..Margin::default()
    });
    let history = epochs(&mut stage, &*network, &*data, 3);
    assert!(history.iter().flatten().all(|margin| *margin == 0.25), "{history:?}");
    let last = stage.store().unwrap().history()[2];
    assert_eq!((last.expanded, last.refined), (0, 4));
}

#[test]
fn a_bisection_halves_the_bracket_each_time_and_ends_on_the_boundary() {
    let (data, distances) = around_a_line();
    let clean = whole(&data);
    let slope = Tensor::<4>::from_data([[[[6.0]], [[8.0]]]], &Device::flex());
    let model = victim(|x: Tensor<4>| {
        let slope = if x.is_autodiff() { Tensor::from_inner(slope.clone()) } else { slope.clone() };
        let lead = (x * slope).sum_dim(1) - 5.0;
        Tensor::cat(vec![lead.clone() * -0.5, lead * 0.5], 1)
    });
    let objective = Weighted(Pgd);
    for (bracket, keep) in
        [(Bracket::Segment, Keep::Boundary), (Bracket::Crossing, Keep::Right), (Bracket::Segment, Keep::Wrong)]
    {
        let search = Search {
            objective: &objective,
            criterion: &Criterion::Label,
            threshold: None,
            norm: Norm::L2,
            range: [0.0, 1.0],
            steps: 20,
            stop_after: None,
            bracket,
            halvings: 10,
            tolerance: 0.0,
            keep,
        };
        let found = search.run(&model, &clean, &Budget::fixed(16, 0.12, 4.0, 20), 3).unwrap();
        let lead = |i: usize| {
            let point: Vec<f32> = found.images.clone().narrow(0, i, 1).into_data().try_to_vec().unwrap();
            let sign = if data.labels[i] == 1 { 1.0 } else { -1.0 };
            sign * (0.6 * point[0] + 0.8 * point[1] - 0.5)
        };
        let mut bisected = 0;
        for i in 0..16 {
            let lengths = &found.brackets[i];
            if distances[i] > 0.12 {
                assert!(lengths.is_empty() && found.first[i].is_none(), "{i} cannot be reached");
                continue;
            }
            bisected += 1;
            assert_eq!(lengths.len(), 11);
            // f32 coordinates near one are 6e-8 apart.
            assert!(lengths.windows(2).all(|pair| (pair[1] - pair[0] / 2.0).abs() < 3e-7), "{lengths:?}");
            let left = lead(i);
            assert!(left.abs() <= lengths[0] / 1024.0 + 1e-6, "{left} after a bracket of {}", lengths[0]);
            match keep {
                Keep::Right => assert!(left >= -1e-7, "{left}"),
                Keep::Wrong => assert!(left <= 1e-7, "{left}"),
                Keep::Boundary => {}
            }
        }
        assert!((3..14).contains(&bisected), "{bisected}");
    }
}

#[test]
fn the_passes_are_those_of_the_paper_and_what_left_the_bisection_costs_no_more() {
    let (data, distances) = around_a_line();
    let mut network = linear(2);
    set(&mut *network, &[6.0, 8.0], -5.0);
    let clean = whole(&data);
    let frozen = network.victim();
    let objective = Weighted(Pgd);
    let passes = |radius: f32, tolerance: f32, stop_after: Option<usize>| {
        let counted = Counted::new(&*frozen);
        let search = Search {
            objective: &objective,
            criterion: &Criterion::Label,
            threshold: None,
            norm: Norm::L2,
            range: [0.0, 1.0],
            steps: 20,
            stop_after,
            bracket: Bracket::Segment,
            halvings: 10,
            tolerance,
            keep: Keep::Boundary,
        };
        let found = search.run(&counted, &clean, &Budget::fixed(16, radius, 4.0, 20), 3).unwrap();
        (counted.passes(), found)
    };
    // Everything is fooled: 21 forward and 20 backward passes of PGD, 10 halvings, for each image.
    assert_eq!(passes(0.9, 0.0, None).0, Passes { forward: 16 * (21 + 10), backward: 16 * 20 });
    // Only what is fooled is bisected.
    let reached = distances.iter().filter(|distance| **distance < 0.1).count() as u64;
    assert!(reached > 2 && reached < 14);
    assert_eq!(passes(0.1, 0.0, None).0, Passes { forward: 16 * 21 + reached * 10, backward: 16 * 20 });
    // A bracket that is short enough leaves: each is at most 0.9 long, so six halvings end below 0.9 / 64.
    let (some, found) = passes(0.9, 0.0141, None);
    let halvings: usize = found.brackets.iter().map(|lengths| lengths.len() - 1).sum();
    assert!(halvings <= 16 * 6 && halvings > 16 * 3);
    assert_eq!(some, Passes { forward: 16 * 21 + halvings as u64, backward: 16 * 20 });
    // An image that is left alone after its first wrong iterate makes no further step.
    let (few, found) = passes(0.9, 0.0, Some(1));
    let made: usize = found.first.iter().map(|first| first.unwrap() + 2).sum();
    assert_eq!(few, Passes { forward: made as u64 + 160, backward: made as u64 });
}

#[test]
fn an_image_is_searched_alike_alone_and_among_others() {
    let (data, _) = around_a_line();
    let mut network = linear(2);
    set(&mut *network, &[6.0, 8.0], -5.0);
    let (frozen, clean, objective) = (network.victim(), whole(&data), Weighted(Pgd));
    let search = Search {
        objective: &objective,
        criterion: &Criterion::Label,
        threshold: None,
        norm: Norm::L2,
        range: [0.0, 1.0],
        steps: 7,
        stop_after: Some(2),
        bracket: Bracket::Crossing,
        halvings: 5,
        tolerance: 0.001,
        keep: Keep::Boundary,
    };
    let budget = Budget::fixed(16, 0.2, 4.0, 7);
    let together = search.run(&*frozen, &clean, &budget, 9).unwrap();
    let read = |x: Tensor<4>| x.into_data().try_to_vec::<f32>().unwrap();
    for i in 0..16 {
        let alone = search.run(&*frozen, &clean.select(&[i]), &Budget::fixed(1, 0.2, 4.0, 7), 9).unwrap();
        assert_eq!(read(alone.images), read(together.images.clone().narrow(0, i, 1)), "image {i}");
        assert_eq!((alone.wrong[0], alone.first[0]), (together.wrong[i], together.first[i]));
    }
}

#[test]
fn a_sample_of_margin_zero_stays_where_it_is() {
    let (data, _) = around_a_line();
    let mut network = linear(2);
    set(&mut *network, &[6.0, 8.0], -5.0);
    for norm in [Norm::L2, Norm::Linf] {
        let mut stage = MarginTraining::new(Margin { norm, initial: Some(1e-30), delta: 0.02, ..Margin::default() });
        let margins = epochs(&mut stage, &*network, &data, 1);
        assert!(margins[0].iter().all(|margin| margin.is_finite() && *margin >= 0.0), "{margins:?}");
    }
}

#[test]
fn iaat_follows_the_boundary_from_both_sides() {
    let (data, distances) = around_a_line();
    let mut network = linear(2);
    set(&mut *network, &[6.0, 8.0], -5.0);
    let update = Update::Probe { gamma: 0.01, smooth: 1.0 };
    let settings = || Margin {
        bracket: Bracket::None,
        active: Active::All,
        update: update.clone(),
        delta: 0.01,
        ..Margin::default()
    };
    for initial in [0.01, 0.3] {
        let mut stage = MarginTraining::new(Margin { initial: Some(initial), ..settings() });
        let margins = epochs(&mut stage, &*network, &data, 60).pop().unwrap();
        for (margin, distance) in margins.iter().zip(&distances) {
            assert!((margin - distance).abs() <= 0.0101, "{margin} for {distance} from {initial}");
        }
    }
}

/// Two blobs of equal density on both sides of `x = 0.5`.
fn blobs() -> Points {
    let stream = Stream::new(&[8]);
    let (mut points, mut labels) = (Vec::new(), Vec::new());
    for i in 0..96u64 {
        let side = (i % 2) as u8;
        let middle = if side == 0 { 0.3 } else { 0.7 };
        // Both sides get the same cloud, mirrored: only the training decides where the boundary goes.
        let (x, y) = (0.05 * stream.normal(2 * (i / 2)), 0.12 * stream.normal(2 * (i / 2) + 1));
        points.push(vec![middle + if side == 0 { x } else { -x }, 0.5 + y]);
        labels.push(side);
    }
    Points::new(points, labels)
}

fn train_points(data: Points, recipe: Recipe, epochs: usize, start: (&[f32], f32), out: &Path) -> Box<dyn Network> {
    let mut network = linear(2);
    set(&mut *network, start.0, start.1);
    let config = TrainConfig {
        epochs,
        batch_size: 32,
        optimizer: OptimizerConfig {
            method: Method::Sgd { momentum: 0.9 },
            learning_rate: 1.0,
            head_factor: 1.0,
            weight_decay: 0.0,
            nesterov: false,
        },
        schedule: Schedule::Poly { power: 0.9 },
        ..TrainConfig::new(recipe)
    };
    let held_out: Arc<dyn Dataset> = Arc::new(Points { split: "val", ..blobs() });
    train(&config, &mut *network, Arc::new(data), held_out, out, &silent()).unwrap();
    network
}

/// `ima-classification` with other settings of its margins.
fn ima(settings: serde_json::Value) -> Recipe {
    let mut recipe = Recipe::preset("ima-classification").unwrap();
    let settings = settings.as_object().unwrap().clone();
    recipe.stages[0].options.extend(settings);
    recipe
}

fn margins(out: &Path) -> Vec<f32> {
    let mut checkpoint = Checkpoint::read(&out.join(CHECKPOINT)).unwrap();
    checkpoint.stages.get_mut("1-margin").unwrap().remove("margins").unwrap().try_to_vec().unwrap()
}

#[test]
fn between_two_blobs_the_boundary_ends_in_the_middle_with_equal_margins() {
    let folder = tempfile::tempdir().unwrap();
    // The start puts the boundary at x = 0.4, near one of them.
    let recipe = ima(serde_json::json!({ "delta": 0.02, "cap": 0.3 }));
    let network = train_points(blobs(), recipe, 60, (&[10.0, 0.0], -4.0), folder.path());
    let w: Vec<f32> = network.parameters().iter().flat_map(|p| p.values.clone()).collect();
    let (slope, offset) = ([w[2] - w[0], w[3] - w[1]], w[5] - w[4]);
    let at_middle = (-offset - slope[1] * 0.5) / slope[0];
    assert!((at_middle - 0.5).abs() < 0.02, "the boundary crosses y = 0.5 at x = {at_middle}");
    assert!(slope[1].abs() < 0.1 * slope[0].abs(), "it stands upright: {slope:?}");
    let margins = margins(folder.path());
    let mean = |side: usize| margins.iter().skip(side).step_by(2).sum::<f32>() / 48.0;
    let (left, right) = (mean(0), mean(1));
    assert!((left / right - 1.0).abs() < 0.1, "{left} {right}");
    assert!((left - 0.2).abs() < 0.03, "the distance of the blobs to the middle: {left}");
}

#[test]
fn checkpoints_carry_margins_and_a_resumed_run_is_the_same_run() {
    let recipe = || {
        let mut recipe = Recipe::preset("ima").unwrap();
        recipe.stages[0].options.extend([("steps".to_string(), 3.into()), ("halvings".to_string(), 3.into())]);
        recipe
    };
    let run = |out: &Path, control: &Control| {
        let config = TrainConfig { recipe: recipe(), ..crate::common::config("standard") };
        crate::common::run(&config, out, control).unwrap().1
    };
    let (whole, part) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = run(whole.path(), &silent());
    let stop = Stop::default();
    // A requested stop ends a process after one step, in the middle of an epoch.
    stop.request();
    for _ in 0..3 {
        run(part.path(), &Control { resume: true, stop: stop.clone(), ..silent() });
    }
    let found = run(part.path(), &Control { resume: true, ..silent() });
    assert_eq!(bits(&found.parameters()), bits(&expected.parameters()));
    let state = |out: &Path| {
        let stage = Checkpoint::read(&out.join(CHECKPOINT)).unwrap().stages.remove("1-margin").unwrap();
        stage.into_iter().map(|(name, data)| (name, data.as_bytes().to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(state(part.path()), state(whole.path()));
    assert!(state(whole.path()).iter().any(|(name, _)| name == "history"));
}

#[test]
fn margins_that_are_not_these_samples_are_refused_by_name() {
    let twice = Points { ids: vec![3, 9, 3], ..Points::new(vec![vec![0.1, 0.2]; 3], vec![0; 3]) };
    let message = Store::new(&twice, 0.1, 0.1, None).unwrap_err().to_string();
    assert!(message.contains("the id 3 twice, for 'point 0' and 'point 2' of points"), "{message}");

    let (data, _) = around_a_line();
    let mut store = Store::new(&data, 0.1, 0.1, None).unwrap();
    let state = || store.state().into_iter().collect::<std::collections::BTreeMap<_, _>>();
    let refused = |change: &dyn Fn(&mut std::collections::BTreeMap<String, TensorData>)| {
        let mut changed = state();
        change(&mut changed);
        Store::new(&data, 0.1, 0.1, None).unwrap().restore(&mut changed).unwrap_err()
    };
    let margins = |values: Vec<f32>| TensorData::new(values, [16]);
    let mut values = vec![0.1f32; 16];
    values[3] = f32::NAN;
    let with = values.clone();
    assert_eq!(
        refused(&|state| drop(state.insert("margins".into(), margins(with.clone())))),
        "holds the margin NaN of sample 37, expected a number of zero or more"
    );
    let ids = |change: usize, id: u64| {
        let mut ids: Vec<u64> = data.ids.clone();
        ids[change] = id;
        TensorData::new(ids, [16])
    };
    let found = refused(&|state| drop(state.insert("ids".into(), ids(2, 8))));
    assert_eq!(found, "holds a margin of the sample 8, which the training data does not have");
    let found = refused(&|state| drop(state.insert("ids".into(), ids(2, 7))));
    assert_eq!(found, "holds the sample 7 twice");
    assert!(store.margin(8).unwrap_err().to_string().contains("the id 8"));
    assert!(store.set(7, f32::NAN).unwrap_err().to_string().contains("NaN for sample 7"));

    // From a file: another data set, and a run without margins.
    let folder = tempfile::tempdir().unwrap();
    let recipe = ima(serde_json::json!({ "delta": 0.02, "cap": 0.3 }));
    train_points(blobs(), recipe, 1, (&[10.0, 0.0], -5.0), folder.path());
    let file = folder.path().join(CHECKPOINT);
    let other = Points { name: "other", ..blobs() };
    let mut taken = Store::new(&other, 0.1, 0.1, None).unwrap();
    let message = taken.take_over(&file, &other).unwrap_err().to_string();
    assert!(message.contains("margins of points split 'train', expected those of other split 'train'"), "{message}");
    assert!(message.contains(CHECKPOINT), "{message}");
    let mut taken = Store::new(&blobs(), 0.1, 0.1, None).unwrap();
    taken.take_over(&file, &blobs()).unwrap();
    assert_eq!(taken.iter().map(|(_, margin)| margin).collect::<Vec<_>>(), self::margins(folder.path()));
    let folder = tempfile::tempdir().unwrap();
    train_points(blobs(), Recipe::preset("standard").unwrap(), 1, (&[10.0, 0.0], -5.0), folder.path());
    let message = taken.take_over(&folder.path().join(CHECKPOINT), &blobs()).unwrap_err().to_string();
    assert!(message.contains("a run without margins"), "{message}");
}

#[test]
fn one_attack_that_fools_a_sample_refines_it_and_several_visits_damp() {
    let data = Points::new(vec![vec![0.1, 0.2]; 4], vec![0; 4]);
    let mut store = Store::new(&data, 0.4, 0.1, Some(0.45)).unwrap();
    let visit = |right, fooled, distance| Visit { right, fooled, distance, slope: 0.0 };
    let mut note = |id, visit| store.note(id, visit, Expand::Constant, Refine::Mean).unwrap();
    note(7, visit(true, false, 0.4));
    note(17, visit(true, false, 0.4));
    note(17, visit(true, true, 0.2));
    note(17, visit(true, true, 0.1));
    note(27, visit(false, true, 0.1));
    let snapshot = store.end_epoch(false);
    let margins: Vec<f32> = store.iter().map(|(_, margin)| margin).collect();
    // Expanded to the cap; (0.4 + 0.2) / 2 and then (0.3 + 0.1) / 2; wrong without an attack; never visited.
    for (found, expected) in margins.iter().zip([0.45, 0.2, 0.4, 0.4]) {
        assert!((found - expected).abs() < 1e-6, "{margins:?}");
    }
    assert_eq!((snapshot.expanded, snapshot.refined, snapshot.wrong), (1, 1, 2));
    assert_eq!(store.share_above(0.4), 0.75);
    assert!((Expand::Decayed.by(0.1, 0.35, 1.0) - 0.1 / 2.0 * 0.9f32.powi(3)).abs() < 1e-7);
}

#[test]
fn settings_that_mean_nothing_are_refused_by_name() {
    let refused = |settings: serde_json::Value| ima(settings).resolved().unwrap_err().to_string();
    for (settings, expected) in [
        (serde_json::json!({ "delta": 0.0 }), "delta is 0, expected a positive number"),
        (serde_json::json!({ "unit": "rms", "norm": "linf" }), "unit is rms with the norm linf"),
        (serde_json::json!({ "objective": "nonsense" }), "objective is 'nonsense'"),
        (serde_json::json!({ "batch_norm": "train" }), "an attack teaches no statistics"),
        (serde_json::json!({ "criterion": { "kind": "dice", "threshold": 60 } }), "threshold is 60, expected 0 to 1"),
        (serde_json::json!({ "update": { "rule": "probe", "gamma": -1.0 } }), "gamma is -1"),
        (serde_json::json!({ "speed": 3 }), "unknown field `speed`"),
    ] {
        let message = refused(settings);
        assert!(message.contains("'margin'") && message.contains(expected), "{message}");
    }
    let _: Options = fireproof_defenses::stage::options(&Margin::default());
    let _: fn(Error) -> String = |error| error.to_string();
}
