//! Targeted attacks reach their targets, and weigh pixels the other way round.

use fireproof_attacks::{
    AttackConfig, Context, Goal, Iterate, Step, Target, build,
    methods::{cospgd::CosPgd, segpgd::SegPgd},
    objective::PixelWeight,
};
use fireproof_tensor::{Norm, Targets, Victim, victim};

use crate::support::{Network, batch, config, device, floats, tensor};

/// Share of valid pixels that show the target.
fn agreement(target: &Targets, model: &dyn Victim, images: burn::tensor::Tensor<4>) -> Vec<f32> {
    target.accuracy(&model.logits(images).unwrap())
}

#[test]
fn every_method_moves_the_prediction_to_the_target() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let batch = batch(22, &model, 4, [2, 3, 16, 16]);
    // Labelled as the victim sees them: what random labels ask for no smooth network can show.
    let seen: Vec<i32> = model.logits(batch.images.clone()).unwrap().argmax(1).try_into_vec_as().unwrap();
    let labels: Vec<u8> = seen.iter().map(|s| *s as u8).collect();
    let targets = Targets::from_labels(&labels, [2, 16, 16], &device()).unwrap();
    let batch = fireproof_tensor::Batch::new(batch.images, targets, batch.ids).unwrap();
    let common = (0..4u8).max_by_key(|class| labels.iter().filter(|l| *l == class).count()).unwrap();
    for target in [Target::Class(2), Target::Permute(vec![1, 2, 3, 0]), Target::Remove(common)] {
        let map = target.map(&batch).unwrap();
        let before = agreement(&map, &model, batch.images.clone());
        for name in ["pgd", "segpgd", "cospgd"] {
            for (norm, epsilon, step) in [(Norm::Linf, 0.5, 0.03), (Norm::L2, 12.0, 0.8)] {
                let settings = AttackConfig {
                    norm,
                    epsilon,
                    step_size: Some(step),
                    steps: 60,
                    iterate: Iterate::BestAccuracy,
                    target: Some(target.clone()),
                    ..config(name)
                };
                let found = build(&settings).unwrap().run(&model, &batch, &Context::new(1)).unwrap();
                let after = agreement(&map, &model, found.images);
                for image in 0..2 {
                    println!("{name} {norm} {target:?}: {} → {}", before[image], after[image]);
                    let gained = (after[image] - before[image]) / (1.0 - before[image]);
                    assert!(gained > 0.6, "{name} {norm} {target:?}: {} → {}", before[image], after[image]);
                }
            }
        }
    }
}

#[test]
fn a_reachable_target_is_reached_everywhere() {
    // Three channels are three classes: the target can be painted.
    let model = victim(|x| x * 10.0);
    let images = tensor((0..2 * 3 * 64).map(|i| ((i * 31) % 17) as f32 / 17.0).collect(), [2, 3, 8, 8]);
    let targets = Targets::from_labels(&[0; 128], [2, 8, 8], &device()).unwrap();
    let batch = fireproof_tensor::Batch::new(images, targets, vec![0, 1]).unwrap();
    for name in ["pgd", "segpgd", "cospgd"] {
        let settings = AttackConfig {
            epsilon: 0.9,
            step_size: Some(0.1),
            steps: 20,
            target: Some(Target::Class(2)),
            ..config(name)
        };
        let found = build(&settings).unwrap().run(&model, &batch, &Context::new(1)).unwrap();
        let map = Target::Class(2).map(&batch).unwrap();
        assert_eq!(agreement(&map, &model, found.images), [1.0, 1.0], "{name}");
    }
}

#[test]
fn a_map_in_the_context_replaces_the_target() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let batch = batch(22, &model, 4, [1, 3, 12, 12]);
    let map = Target::Class(3).map(&batch).unwrap();
    let run = |target, context: &Context| {
        let settings = AttackConfig { target, ..config("segpgd") };
        floats(&build(&settings).unwrap().run(&model, &batch, context).unwrap().images)
    };
    let by_context = run(None, &Context { target: Some(&map), ..Context::new(4) });
    assert_eq!(by_context, run(Some(Target::Class(3)), &Context::new(4)));
    assert_ne!(by_context, run(None, &Context::new(4)));
}

#[test]
fn targeted_weights_are_swapped() {
    // Pixels: predicted 0 with target 0, predicted 1 with target 0.
    let logits = tensor(vec![3.0, 0.0, 0.0, 3.0], [1, 2, 1, 2]);
    let targets = Targets::from_labels(&[0, 0], [1, 1, 2], &device()).unwrap();
    let (away, towards) =
        (Goal { targets: targets.clone(), targeted: false }, Goal { targets: targets.clone(), targeted: true });
    let step = Step { index: 2, total: 5 };
    let weights = |method: &dyn PixelWeight, goal| floats(&method.weights(step, &logits, goal).unwrap());
    let (a, t) = (weights(&SegPgd::default(), &away), weights(&SegPgd::default(), &towards));
    assert!((a[0] - 0.8).abs() < 1e-6 && (a[1] - 0.2).abs() < 1e-6, "{a:?}");
    assert!((t[0] - 0.2).abs() < 1e-6 && (t[1] - 0.8).abs() < 1e-6, "{t:?}");
    let (a, t) = (weights(&CosPgd::default(), &away), weights(&CosPgd::default(), &towards));
    assert!(a.iter().zip(&t).all(|(a, t)| (a + t - 1.0).abs() < 1e-6), "{a:?} {t:?}");
}
