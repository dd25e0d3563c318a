use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use fireproof_datasets::Augment;
use fireproof_defenses::{
    BEST, CHECKPOINT, Checkpoint, Control, EpochRecord, Outcome, Stop, TrainConfig, stage::StageConfig,
};
use fireproof_tensor::random::Stream;

use crate::common::{bits, config, network, run, silent};

/// A run with everything that has a state: random starts, momentum, augmentation, margins, an average of the weights.
fn stateful() -> TrainConfig {
    let mut config = TrainConfig { epochs: 4, batch_size: 2, ..config("segpgd2-at") };
    config.augment = Augment { flip: true, scale: Some((0.8, 1.25)), ..Augment::default() };
    config.recipe.stages.push(StageConfig { stage: "ema".into(), options: Default::default() });
    let margin = serde_json::json!({ "steps": 2, "halvings": 2, "criterion": { "kind": "dice", "threshold": 0.1 } });
    let options = margin.as_object().unwrap().clone();
    config.recipe.stages.insert(0, StageConfig { stage: "margin".into(), options });
    // Long enough that another process can hit a step.
    config.recipe.stages.insert(0, StageConfig { stage: "slow".into(), options: Default::default() });
    config
}

/// Bits of the last and of the best weights, the epochs without their times, and the bits of the stages' states.
type End = (Vec<(String, Vec<u32>)>, Vec<(String, Vec<u32>)>, Vec<EpochRecord>, Vec<(String, Vec<u8>)>);

fn end(folder: &Path) -> End {
    let path = folder.join(CHECKPOINT);
    let checkpoint = Checkpoint::read(&path).unwrap();
    let last = bits(&checkpoint.parameters(&path, &*network(5)).unwrap());
    let best = bits(
        &fireproof_models::load(folder.join(BEST), &Default::default(), &burn::tensor::Device::flex())
            .unwrap()
            .network
            .parameters(),
    );
    let epochs = checkpoint.state.epochs.into_iter().map(|epoch| EpochRecord { seconds: 0.0, ..epoch }).collect();
    let stage = |(stage, state): (String, std::collections::BTreeMap<String, burn::tensor::TensorData>)| {
        state.into_iter().map(move |(name, data)| (format!("{stage}/{name}"), data.as_bytes().to_vec()))
    };
    (last, best, epochs, checkpoint.stages.into_iter().flat_map(stage).collect())
}

const FOLDER: &str = "FIREPROOF_TEST_TRAIN_INTO";
/// The recipe to train; without it the stateful one.
const RECIPE: &str = "FIREPROOF_TEST_RECIPE";

/// A recipe by name, with short attacks, long enough that another process can hit a step.
fn short(name: &str) -> TrainConfig {
    let mut config = crate::systems::short(name);
    config.recipe.stages.insert(0, StageConfig { stage: "slow".into(), options: Default::default() });
    config
}

/// Not a test of its own: what the killed process runs.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let control = Control { resume: true, save_every: Duration::ZERO, ..silent() };
    control.stop.on_signals().unwrap();
    let config = std::env::var(RECIPE).map_or_else(|_| stateful(), |name| short(&name));
    let (summary, _) = run(&config, &folder, &control).unwrap();
    // Told apart from a run that is over by what the folder holds.
    assert_eq!(summary.outcome == Outcome::Interrupted, control.stop.requested());
}

fn start(folder: &Path) -> Child {
    start_with(folder, None)
}

fn start_with(folder: &Path, recipe: Option<&str>) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["resume::child", "--exact", "--test-threads=1"])
        .env(FOLDER, folder)
        .envs(recipe.map(|recipe| (RECIPE, recipe)))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

#[test]
fn a_run_killed_at_random_moments_ends_in_the_same_bits() {
    let whole = tempfile::tempdir().unwrap();
    assert!(start(whole.path()).wait().unwrap().success());

    let killed = tempfile::tempdir().unwrap();
    let path = killed.path().join(CHECKPOINT);
    let step = || Checkpoint::read(&path).map_or(0, |checkpoint| checkpoint.state.step);
    let moments = Stream::new(&[17]);
    let mut killed_at = Vec::new();
    loop {
        let (mut child, before) = (start(killed.path()), step());
        // Every fourth process is killed at any moment of its start, the others once they have saved something new.
        let started = killed_at.len() % 4 != 3;
        let mut status = None;
        while started && status.is_none() && step() == before {
            std::thread::sleep(Duration::from_millis(1));
            status = child.try_wait().unwrap();
        }
        std::thread::sleep(Duration::from_secs_f32(0.06 * moments.uniform(killed_at.len() as u64)));
        if let Some(status) = status.or(child.try_wait().unwrap()) {
            assert!(status.success());
            break;
        }
        // SIGKILL: nothing of the process runs after it.
        child.kill().unwrap();
        child.wait().unwrap();
        killed_at.push(step());
    }
    assert!(killed_at.len() >= 2, "killed after steps {killed_at:?}");
    assert!(end(killed.path()) == end(whole.path()), "killed after steps {killed_at:?}");
}

/// Every fourth recipe from `first` on, so that four tests share the work.
fn every_fourth_is_killed_and_resumed(first: usize) {
    for (position, (recipe, _)) in fireproof_defenses::recipes().into_iter().enumerate().skip(first).step_by(4) {
        let config = short(&recipe.name);
        let whole = tempfile::tempdir().unwrap();
        run(&config, whole.path(), &silent()).unwrap();
        let killed = tempfile::tempdir().unwrap();
        let path = killed.path().join(CHECKPOINT);
        let mut child = start_with(killed.path(), Some(&recipe.name));
        while !path.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_secs_f32(0.08 * Stream::new(&[23]).uniform(position as u64)));
        // SIGKILL: nothing of the process runs after it.
        child.kill().unwrap();
        child.wait().unwrap();
        let at = Checkpoint::read(&path).unwrap().state.step;
        run(&config, killed.path(), &Control { resume: true, ..silent() }).unwrap();
        assert!(end(killed.path()) == end(whole.path()), "'{}', killed after step {at}", recipe.name);
    }
}

#[test]
fn every_recipe_killed_at_a_random_moment_ends_in_the_same_bits() {
    every_fourth_is_killed_and_resumed(0);
}

#[test]
fn every_recipe_killed_at_a_random_moment_ends_in_the_same_bits_second_quarter() {
    every_fourth_is_killed_and_resumed(1);
}

#[test]
fn every_recipe_killed_at_a_random_moment_ends_in_the_same_bits_third_quarter() {
    every_fourth_is_killed_and_resumed(2);
}

#[test]
fn every_recipe_killed_at_a_random_moment_ends_in_the_same_bits_last_quarter() {
    every_fourth_is_killed_and_resumed(3);
}

#[test]
#[cfg(unix)]
fn the_first_signal_saves_and_a_later_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let child = start(folder.path());
    let path = folder.path().join(CHECKPOINT);
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    // SIGTERM by the shell's own command; the standard library sends SIGKILL only.
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let status = child.wait_with_output().unwrap().status;
    assert!(status.success(), "the process ends by itself: {status}");
    let state = Checkpoint::read(&path).unwrap().state;
    assert!(state.step > 0 && state.step < 16, "{}", state.step);
}

#[test]
fn a_run_interrupted_after_every_step_ends_in_the_same_bits() {
    let whole = tempfile::tempdir().unwrap();
    let (_, network) = run(&stateful(), whole.path(), &silent()).unwrap();
    let parts = tempfile::tempdir().unwrap();
    let mut runs = 0;
    let last = loop {
        let stop = Stop::default();
        stop.request();
        // What a killed writer leaves behind is in nobody's way.
        std::fs::write(parts.path().join(format!("{CHECKPOINT}.partial")), b"half a file").unwrap();
        let control = Control { resume: true, stop: if runs % 5 == 4 { Stop::default() } else { stop }, ..silent() };
        let (summary, network) = run(&stateful(), parts.path(), &control).unwrap();
        runs += 1;
        if summary.outcome == Outcome::Finished {
            break network;
        }
    };
    assert_eq!(runs, 5);
    assert!(bits(&last.parameters()) == bits(&network.parameters()));
    assert!(end(parts.path()) == end(whole.path()));
}

#[test]
fn every_part_of_a_checkpoint_matters_to_the_end() {
    let whole = tempfile::tempdir().unwrap();
    run(&stateful(), whole.path(), &silent()).unwrap();
    let part = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let stop = Stop::default();
        stop.request();
        run(&stateful(), part.path(), &Control { resume: true, stop, ..silent() }).unwrap();
    }
    let resumed = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = Checkpoint::read(&part.path().join(CHECKPOINT)).unwrap();
        assert_eq!(checkpoint.state.step, 3);
        change(&mut checkpoint);
        let folder = tempfile::tempdir().unwrap();
        checkpoint.write(&folder.path().join(CHECKPOINT)).unwrap();
        run(&stateful(), folder.path(), &Control { resume: true, ..silent() }).unwrap();
        end(folder.path())
    };
    let expected = end(whole.path());
    assert!(resumed(&|_| {}) == expected);
    let forgotten = stateful().optimizer.build().into_bytes().unwrap();
    assert!(resumed(&|checkpoint| checkpoint.optimizer = forgotten.to_vec()) != expected, "momentum");
    assert!(resumed(&|checkpoint| checkpoint.state.position.batch = 2) != expected, "data position");
    assert!(resumed(&|checkpoint| checkpoint.state.step = 2) != expected, "schedule and random starts");
    assert!(resumed(&|checkpoint| checkpoint.state.loss_sum = 0.0) != expected, "mean loss of the epoch");
    let average = |checkpoint: &mut Checkpoint| {
        let averages = checkpoint.stages.values_mut().find(|state| state.contains_key("head.bias")).unwrap();
        let head = averages.get_mut("head.bias").unwrap();
        *head = burn::tensor::TensorData::new(vec![1.0f32; head.num_elements()], head.shape().clone());
    };
    assert!(resumed(&average).1 != expected.1, "moving average");
}

#[test]
fn a_checkpoint_of_another_run_is_refused_by_the_field_that_differs() {
    let folder = tempfile::tempdir().unwrap();
    let first = config("pgd1-at");
    run(&first, folder.path(), &silent()).unwrap();
    let resume = Control { resume: true, ..silent() };
    let mut attacked = first.clone();
    attacked.recipe.stages[0].options["attack"]["epsilon"] = 0.5.into();
    let mut slower = first.clone();
    slower.optimizer.learning_rate = 0.01;
    for (other, field) in [
        (TrainConfig { seed: 4, ..first.clone() }, "its config.seed is 3, but this run has 4"),
        (TrainConfig { epochs: 3, ..first.clone() }, "its config.epochs is 2, but this run has 3"),
        (attacked, "its config.recipe.stages.0.attack.epsilon is"),
        (slower, "its config.optimizer.learning_rate is 0.05, but this run has 0.01"),
        (config("segpgd1-at"), "its config.recipe.name is \"pgd1-at\""),
    ] {
        let message = run(&other, folder.path(), &resume).map(|(summary, _)| summary).unwrap_err().to_string();
        assert!(message.contains(field), "{message}");
    }

    use crate::common::scenes;
    use fireproof_datasets::Split;
    let mut network = network(5);
    let data = (scenes(Split::Train, 9), scenes(Split::Val, 6));
    let error = fireproof_defenses::train(&first, &mut *network, data.0, data.1, folder.path(), &resume).unwrap_err();
    assert!(
        error.to_string().contains("its train.list is") || error.to_string().contains("its train.samples is 8"),
        "{error}"
    );

    let mut architecture = network.architecture().clone();
    architecture.options.insert("base".into(), 6);
    let mut wider = fireproof_models::build(&architecture, 5, &network.device()).unwrap();
    let data = (scenes(Split::Train, 8), scenes(Split::Val, 6));
    let error = fireproof_defenses::train(&first, &mut *wider, data.0, data.1, folder.path(), &resume).unwrap_err();
    assert!(error.to_string().contains("its architecture.options.base is 4, but this run has 6"), "{error}");
}

#[test]
fn a_newer_a_damaged_and_a_foreign_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(&config("standard"), folder.path(), &silent()).unwrap();
    let path = folder.path().join(CHECKPOINT);
    let resume = || {
        let control = Control { resume: true, ..silent() };
        run(&config("standard"), folder.path(), &control).map(|(summary, _)| summary).unwrap_err().to_string()
    };
    let good = std::fs::read(&path).unwrap();

    // The same length, so that the header's offsets stay right.
    let text = br#"{\\\"version\\\":1"#;
    let place = good.windows(text.len()).position(|window| window == text).unwrap();
    let mut newer = good.clone();
    newer[place + text.len() - 1] = b'9';
    std::fs::write(&path, &newer).unwrap();
    let message = resume();
    assert!(message.contains("its version is 9") && message.contains("update fireproof"), "{message}");

    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(resume().contains("not a training checkpoint"), "{}", resume());

    std::fs::copy(folder.path().join(BEST), &path).unwrap();
    assert!(resume().contains("weights alone are no training run"), "{}", resume());
}
