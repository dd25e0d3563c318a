//! Fine-tuning: what may change, how strong the adversary is, which weights are kept.

use fireproof_datasets::Split;
use fireproof_defenses::{
    BEST, CHECKPOINT, Checkpoint, Control, Guard, Radius, Recipe, Stop, TrainConfig,
    stage::{BATCH, Describe, Moment, Prepare, StageConfig, View},
    stages::InnerMax,
};
use fireproof_models::{Kind, Parameter};

use crate::common::{bits, config, network, run, scenes, silent};

fn with(recipe: &str, stages: &[(usize, &str, serde_json::Value)]) -> TrainConfig {
    let mut config = TrainConfig { epochs: 1, ..config(recipe) };
    for (at, name, options) in stages {
        let options = options.as_object().unwrap().clone();
        config.recipe.stages.insert(*at, StageConfig { stage: (*name).into(), options });
    }
    config
}

/// Names of what a run of one epoch has changed.
fn changed(config: &TrainConfig) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let (_, trained) = run(config, folder.path(), &silent()).unwrap();
    let (before, after) = (bits(&network(5).parameters()), bits(&trained.parameters()));
    before.into_iter().zip(after).filter(|(a, b)| a != b).map(|(a, _)| a.0).collect()
}

#[test]
fn frozen_parameters_keep_their_bits_and_all_others_learn() {
    let layout: Vec<String> = network(5).layout().iter().map(|info| info.name.clone()).collect();
    let learns = |options: serde_json::Value| changed(&with("standard", &[(0, "freeze", options)]));
    let without = |kept: &dyn Fn(&str) -> bool| layout.iter().filter(|name| !kept(name)).cloned().collect::<Vec<_>>();
    assert_eq!(learns(serde_json::json!({ "prefixes": ["down."] })), without(&|name| name.starts_with("down.")));
    assert_eq!(learns(serde_json::json!({ "first": 1 })), without(&|name| name.starts_with("down.0.")));
    assert_eq!(learns(serde_json::json!({ "groups": ["backbone"] })), without(&|name| !name.starts_with("head")));
    let norms = learns(serde_json::json!({ "norm_affine": true }));
    // Two blocks of `down` and one of `merge` have two batch norms each.
    assert_eq!(layout.len() - norms.len(), 6 * 2);
    assert!(norms.contains(&"down.0.1.running_mean".to_string()) && !norms.contains(&"down.0.1.weight".to_string()));
    assert!(norms.contains(&"head.bias".to_string()) && norms.contains(&"up.0.bias".to_string()));

    let folder = tempfile::tempdir().unwrap();
    let wrong = with("standard", &[(0, "freeze", serde_json::json!({ "prefixes": ["encoder."] }))]);
    let message = run(&wrong, folder.path(), &silent()).map(drop).unwrap_err().to_string();
    assert!(message.contains("freeze: found encoder."), "{message}");
}

/// The running statistics after one epoch.
fn statistics(mode: Option<&str>, epsilon: f64) -> Vec<Parameter> {
    let attack = serde_json::json!({ "name": "pgd", "steps": 1, "epsilon": epsilon, "step_size": epsilon });
    let inner = serde_json::json!({ "attack": attack, "share": 1.0, "into": "adversarial" });
    let mut stages = vec![(0, "inner-max", inner)];
    if let Some(mode) = mode {
        stages.push((1, "batch-norm", serde_json::json!({ "view": "adversarial", "mode": mode })));
    }
    let mut config = with("standard", &stages);
    // Nothing learns, so that only what is seen decides.
    config.optimizer.learning_rate = 1e-30;
    config.optimizer.weight_decay = 0.0;
    let folder = tempfile::tempdir().unwrap();
    let trained = run(&config, folder.path(), &silent()).unwrap().1;
    trained.parameters().into_iter().filter(|p| p.kind == Kind::Statistic).collect()
}

#[test]
fn adversarial_images_move_the_running_statistics_only_where_they_are_shared() {
    let clean = {
        let mut config = with("standard", &[]);
        config.optimizer.learning_rate = 1e-30;
        config.optimizer.weight_decay = 0.0;
        let folder = tempfile::tempdir().unwrap();
        let trained = run(&config, folder.path(), &silent()).unwrap().1;
        trained.parameters().into_iter().filter(|p| p.kind == Kind::Statistic).collect::<Vec<_>>()
    };
    for mode in ["train-without-update", "eval"] {
        assert_eq!(bits(&statistics(Some(mode), 0.5)), bits(&clean), "{mode}");
    }
    assert!(bits(&statistics(None, 0.5)) != bits(&clean));
    assert_eq!(bits(&statistics(Some("train"), 0.5)), bits(&statistics(None, 0.5)));
}

/// The largest change of a pixel that the stage makes at a step.
fn reach(stage: &mut InnerMax, step: u64) -> f32 {
    let network = network(0);
    let data = scenes(Split::Train, 2);
    let samples: Vec<_> = (0..2).map(|i| data.get(i).unwrap()).collect();
    let batch = fireproof_datasets::batch(&samples, &network.device()).unwrap();
    let clean = batch.images.clone();
    let mut views = vec![View::new(BATCH, batch)];
    stage.prepare(&mut views, &Moment::new(&*network, step, 100, 0, 7)).unwrap();
    (views.pop().unwrap().batch.images - clean).abs().max().into_scalar()
}

#[test]
fn radius_and_step_follow_the_ramp() {
    let attack = serde_json::from_value(serde_json::json!({ "name": "pgd", "steps": 3, "epsilon": 0.08 })).unwrap();
    let radius = serde_json::from_value(serde_json::json!({ "kind": "ramp", "over": 0.5 })).unwrap();
    let mut stage = InnerMax::new(attack, 1.0, Some("adversarial".into())).unwrap().with_radius(radius);
    for (step, expected) in [(0, 0.0), (25, 0.04), (50, 0.08), (90, 0.08)] {
        let found = reach(&mut stage, step);
        assert!((found - expected).abs() < 2e-3, "{found} at step {step}");
    }
    assert!(stage.explain().contains("growing from 0 to 1 over 0.5 of the run (linear)"), "{}", stage.explain());
}

#[test]
fn the_guard_keeps_the_start_unless_other_weights_are_as_good_on_clean_images() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("pgd1-at-full");
    // Learns to say nothing: the clean score falls.
    config.optimizer.learning_rate = 1e-30;
    config.recipe.guard = Some(Guard { tolerance: 0.0, reference: None });
    let (summary, _) = run(&config, folder.path(), &silent()).unwrap();
    let state = Checkpoint::read(&folder.path().join(CHECKPOINT)).unwrap().state;
    let start = state.start.unwrap();
    assert_eq!((start.epoch, start.step), (0, 0));
    assert!(start.clean_miou.is_some() && start.robust_miou.is_some());
    let best = summary.best.unwrap();
    let allowed = |record: &fireproof_defenses::EpochRecord| record.clean_miou >= start.clean_miou;
    let expected = summary.epochs.iter().filter(|record| allowed(record) && record.score() > start.score());
    assert_eq!(best.epoch, expected.max_by(|a, b| a.score().partial_cmp(&b.score()).unwrap()).map_or(0, |r| r.epoch));

    // A reference that nothing reaches: the start stays, to the bit.
    let folder = tempfile::tempdir().unwrap();
    config.optimizer.learning_rate = 0.05;
    config.recipe.guard = Some(Guard { tolerance: 0.0, reference: Some(1.0) });
    let (summary, _) = run(&config, folder.path(), &silent()).unwrap();
    assert_eq!(summary.best.unwrap().epoch, 0);
    let kept = fireproof_models::load(folder.path().join(BEST), &Default::default(), &network(5).device()).unwrap();
    assert_eq!(bits(&kept.network.parameters()), bits(&network(5).parameters()));
    // Without the guard the best of the epochs is kept.
    let folder = tempfile::tempdir().unwrap();
    config.recipe.guard = None;
    assert!(run(&config, folder.path(), &silent()).unwrap().0.best.unwrap().epoch > 0);
}

#[test]
fn regulated_fine_tuning_resumes_with_its_radius_and_its_start() {
    let recipe = || {
        let mut recipe = Recipe::preset("regulated-finetune").unwrap();
        let fewer = |attack: &mut serde_json::Value| attack["steps"] = 2.into();
        fewer(&mut recipe.stages[0].options["attack"]);
        recipe.selection.as_mut().unwrap().steps = 2;
        recipe
    };
    // Sixteen steps, so that the radius has begun to move.
    let config = TrainConfig { recipe: recipe(), epochs: 4, batch_size: 2, ..config("standard") };
    let (whole, part) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = run(&config, whole.path(), &silent()).unwrap().1;
    let stop = Stop::default();
    stop.request();
    for _ in 0..2 {
        run(&config, part.path(), &Control { resume: true, stop: stop.clone(), ..silent() }).unwrap();
    }
    let found = run(&config, part.path(), &Control { resume: true, ..silent() }).unwrap().1;
    assert_eq!(bits(&found.parameters()), bits(&expected.parameters()));
    let radius = |out: &std::path::Path| {
        let mut checkpoint = Checkpoint::read(&out.join(CHECKPOINT)).unwrap();
        let state = checkpoint.stages.get_mut("1-inner-max").unwrap().remove("radius").unwrap();
        (state.try_to_vec::<f64>().unwrap(), checkpoint.state.start.unwrap().clean_miou)
    };
    assert_eq!(radius(part.path()), radius(whole.path()));
    assert!(radius(whole.path()).0[0] > 0.05, "the loss falls, so the radius grows");
}

#[test]
fn a_radius_without_a_clean_batch_cannot_be_regulated_by_its_loss() {
    let radius = serde_json::json!({ "kind": "regulated" });
    let inner = serde_json::json!({ "attack": { "name": "pgd" }, "radius": radius });
    let message = with("standard", &[(0, "inner-max", inner)]).check().unwrap_err().to_string();
    assert!(message.contains("in place there is no clean batch left"), "{message}");
    assert!(Radius::default() == Radius::Constant);
}
