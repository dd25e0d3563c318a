use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use fireproof_datasets::{Class, Dataset, Sample, Split, batch};
use fireproof_defenses::{
    BEST, CHECKPOINT, Checkpoint, Control, Error, Outcome, Recipe, Schedule, Stop, Summary, TrainConfig,
    stage::StageConfig, train,
};
use fireproof_metrics::Confusion;
use fireproof_models::Network;

use crate::common::{bits, config, network, run, scenes, silent};

#[test]
fn training_on_scenes_lowers_the_loss_and_ends_in_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 6, ..config("segpgd2-at") };
    let (summary, trained) = run(&config, folder.path(), &silent()).unwrap();
    assert_eq!((summary.outcome, summary.steps, summary.epochs.len()), (Outcome::Finished, 12, 6));
    let losses: Vec<f64> = summary.epochs.iter().map(|epoch| epoch.loss).collect();
    assert!(losses.is_sorted_by(|a, b| a > b) && losses[5] < 0.9 * losses[0], "{losses:?}");
    let saved = Checkpoint::read(&folder.path().join(CHECKPOINT)).unwrap();
    assert_eq!(bits(&saved.parameters(&summary.checkpoint, &*trained).unwrap()), bits(&trained.parameters()));
    assert!(bits(&network(5).parameters()) != bits(&trained.parameters()));

    // A run's file is a weight file too.
    let loaded =
        fireproof_models::load(&summary.checkpoint, &Default::default(), &burn::tensor::Device::flex()).unwrap();
    assert_eq!(bits(&loaded.network.parameters()), bits(&trained.parameters()));
    assert_eq!((loaded.report.described, loaded.report.unused), (true, vec!["training.optimizer".to_string()]));
}

#[test]
fn a_step_costs_the_passes_that_the_recipe_announces() {
    let folder = tempfile::tempdir().unwrap();
    let (summary, _) = run(&config("segpgd2-at"), folder.path(), &silent()).unwrap();
    let meter = summary.meter;
    // Four steps of four images; half attacked in two steps.
    assert_eq!((meter.forward, meter.input_backward, meter.full_backward), (16 + 16, 16, 16));
    // Two validations of three images: clean, two steps of the attack, attacked.
    assert_eq!((meter.validation_forward, meter.validation_backward), (2 * 3 * 4, 2 * 3 * 2));
    assert!(
        Recipe::preset("segpgd2-at")
            .unwrap()
            .explain()
            .unwrap()
            .contains("2 forward, 1 backward to the input, 1 backward")
    );
}

#[test]
fn a_second_view_has_a_pass_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe::from_toml(
        "name = 'pairs'\n[[stages]]\nstage = 'inner-max'\ninto = 'adversarial'\nshare = 1.0\nattack = { name = 'pgd', steps = 1 }\n\
         [[stages]]\nstage = 'cross-entropy'\n[[stages]]\nstage = 'pair'\nother = 'adversarial'",
    );
    let config = TrainConfig { recipe: recipe.unwrap(), epochs: 1, ..config("standard") };
    let (summary, _) = run(&config, folder.path(), &silent()).unwrap();
    // Two steps of four images: one attack step, and two passes.
    let meter = summary.meter;
    assert_eq!((meter.forward, meter.input_backward, meter.full_backward), (8 + 16, 8, 16));
}

fn miou(network: &dyn Network, data: &dyn Dataset, images: &[usize]) -> f64 {
    let victim = network.victim();
    let mut table = Confusion::new(data.classes().len()).unwrap();
    for &index in images {
        let batch = batch(&[data.get(index).unwrap()], &network.device()).unwrap();
        let predictions = victim.logits(batch.images.clone()).unwrap().argmax(1).into_data().convert::<i32>();
        let labels = batch.targets.labels().to_data().convert::<i32>();
        table.add(&labels.try_to_vec::<i32>().unwrap(), &predictions.try_to_vec::<i32>().unwrap()).unwrap();
    }
    table.class_counts().miou().unwrap()
}

/// Counts what is read of a data set.
struct Watched {
    data: Arc<dyn Dataset>,
    reads: AtomicUsize,
}

impl Dataset for Watched {
    fn name(&self) -> &str {
        self.data.name()
    }
    fn split(&self) -> &str {
        self.data.split()
    }
    fn len(&self) -> usize {
        self.data.len()
    }
    fn classes(&self) -> &[Class] {
        self.data.classes()
    }
    fn channels(&self) -> usize {
        self.data.channels()
    }
    fn sample_name(&self, index: usize) -> String {
        self.data.sample_name(index)
    }
    fn stored_as(&self, index: usize) -> fireproof_datasets::Result<String> {
        self.data.stored_as(index)
    }
    fn get(&self, index: usize) -> fireproof_datasets::Result<Sample> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.data.get(index)
    }
}

#[test]
fn the_best_weights_are_those_with_the_highest_validation_score() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = TrainConfig { epochs: 5, schedule: Schedule::Constant, ..config("standard") };
    config.optimizer.learning_rate = 0.3;
    let held_out = Arc::new(Watched { data: scenes(Split::Val, 6), reads: AtomicUsize::new(0) });
    let mut trained = network(5);
    let summary =
        train(&config, &mut *trained, scenes(Split::Train, 8), held_out.clone(), folder.path(), &silent()).unwrap();
    let scores: Vec<f64> = summary.epochs.iter().map(|epoch| epoch.clean_miou.unwrap()).collect();
    let highest = scores.iter().copied().fold(0.0, f64::max);
    let best = summary.best.unwrap();
    assert_eq!(best.clean_miou, Some(highest), "{scores:?}");
    assert_eq!(best.epoch, 1 + scores.iter().position(|&s| s == highest).unwrap(), "the first of equals");
    // Three of six images, spread over the list: what the score says is what the kept weights do on them.
    let kept = fireproof_models::load(folder.path().join(BEST), &Default::default(), &burn::tensor::Device::flex())
        .unwrap()
        .network;
    assert_eq!(miou(&*kept, &*held_out.data, &[0, 2, 4]), highest);
    assert_eq!(held_out.reads.load(Ordering::SeqCst), 1 + 5 * 3, "one look at its size, three images an epoch");
}

#[test]
fn test_data_is_never_trained_on_nor_selected_by() {
    let folder = tempfile::tempdir().unwrap();
    for (train_split, held_out) in [(Split::Train, Split::Test), (Split::Test, Split::Val)] {
        let result = train(
            &config("standard"),
            &mut *network(5),
            scenes(train_split, 8),
            scenes(held_out, 6),
            folder.path(),
            &silent(),
        );
        let message = result.unwrap_err().to_string();
        assert!(message.contains("the test split of scenes"), "{message}");
    }
    let result = train(
        &config("standard"),
        &mut *network(5),
        scenes(Split::Train, 8),
        scenes(Split::Train, 6),
        folder.path(),
        &silent(),
    );
    let message = result.unwrap_err().to_string();
    assert!(message.contains("which is trained on, expected held-out samples"), "{message}");
}

#[test]
fn a_run_stops_early_when_the_score_does_not_get_better() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = TrainConfig { epochs: 30, ..config("standard") };
    // So small a rate changes no prediction: the first score is never beaten.
    config.optimizer.learning_rate = 1e-12;
    config.validation.patience = Some(2);
    let (summary, _) = run(&config, folder.path(), &silent()).unwrap();
    let best = summary.best.as_ref().unwrap().epoch;
    assert_eq!((summary.outcome, summary.epochs.len()), (Outcome::StoppedEarly, best + 2));
    // Resuming a run that is over changes nothing.
    let (again, _) = run(&config, folder.path(), &Control { resume: true, ..silent() }).unwrap();
    assert_eq!(Summary { waiting: summary.waiting, ..again }, summary);
}

#[test]
fn a_planted_nan_stops_the_run_with_step_stage_and_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("standard");
    let plant = |at| StageConfig {
        stage: "plant-nan".into(),
        options: serde_json::json!({ "at": at }).as_object().unwrap().clone(),
    };
    config.recipe.stages.insert(0, plant(3));
    let error = run(&config, folder.path(), &silent()).map(|(summary, _)| summary).unwrap_err();
    let Error::Diverged { step: 3, epoch: 2, stage, checkpoint: Some(path), .. } = &error else { panic!("{error}") };
    assert_eq!(stage, "plant-nan");
    let good = Checkpoint::read(path).unwrap();
    assert_eq!(good.state.step, 2);
    let finite = |data: &burn::tensor::TensorData| data.try_to_vec::<f32>().unwrap().iter().all(|v| v.is_finite());
    assert!(good.parameters.values().all(finite));

    // Without a checkpoint the message says so.
    let folder = tempfile::tempdir().unwrap();
    let mut config = crate::common::config("pgd1-at");
    config.recipe.stages.insert(0, plant(0));
    let message = run(&config, folder.path(), &silent()).map(|(summary, _)| summary).unwrap_err().to_string();
    assert!(message.contains("at step 0 (epoch 1) in stage 'plant-nan'"), "{message}");
    assert!(message.ends_with("no checkpoint was written yet"), "{message}");
}

#[test]
fn exploding_weights_stop_the_run_in_the_stage_that_meets_them_first() {
    for (recipe, place) in [("standard", "cross-entropy"), ("pgd1-at", "inner-max")] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(recipe);
        config.optimizer.learning_rate = 1e30;
        let error = run(&config, folder.path(), &silent()).map(|(summary, _)| summary).unwrap_err();
        assert!(matches!(&error, Error::Diverged { step: 1.., stage, .. } if stage == place), "{error}");
    }
}

#[test]
fn an_occupied_folder_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("standard");
    run(&config, folder.path(), &silent()).unwrap();
    let message = run(&config, folder.path(), &silent()).map(|(summary, _)| summary).unwrap_err().to_string();
    assert!(message.contains("holds a run already (epoch 2, step 4)"), "{message}");
}

#[test]
fn a_request_to_stop_finishes_the_step_and_saves() {
    let folder = tempfile::tempdir().unwrap();
    let stop = Stop::default();
    stop.request();
    let control = Control { stop, ..silent() };
    let (summary, _) = run(&config("standard"), folder.path(), &control).unwrap();
    assert_eq!((summary.outcome, summary.steps), (Outcome::Interrupted, 1));
    assert_eq!(Checkpoint::read(&summary.checkpoint).unwrap().state.step, 1);
}

#[test]
fn settings_that_do_not_fit_the_data_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |config: TrainConfig| {
        run(&config, folder.path(), &silent()).map(|(summary, _)| summary).unwrap_err().to_string()
    };
    let message = refused(TrainConfig { batch_size: 9, ..config("standard") });
    assert_eq!(message, "batch size: found 9, expected at most the 8 training images");
    let message = refused(TrainConfig { epochs: 0, ..config("standard") });
    assert_eq!(message, "epochs: found 0, expected at least 1");
}
