//! Training mode: statistics, steps, and copies that share nothing.

use burn::module::ParamGroup;
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use fireproof_models::{Group, Kind, LearningRates, Network, Parameter, Taps, build};
use fireproof_tensor::{Targets, ops};

use crate::common::{architectures, device, host, images, lively, small_unet};

/// One step of gradient descent on fixed data; the loss before it.
fn step(network: &mut dyn Network, optimizer: &mut burn::optim::ModuleOptimizer, rates: LearningRates) -> f32 {
    let x = images([2, 3, 16, 16], 1);
    let labels: Vec<u8> = (0..2 * 16 * 16).map(|i| ((i / 4) % 5) as u8).collect();
    let targets = Targets::from_labels(&labels, [2, 16, 16], &device()).unwrap();
    let mut taps = Taps::train();
    let output = network.forward(x, &mut taps);
    let mut loss = ops::cross_entropy(output.logits, &targets).mean();
    if let Some(auxiliary) = output.auxiliary {
        loss = loss + ops::cross_entropy(auxiliary, &targets).mean() * 0.4;
    }
    for head in output.coarse {
        loss = loss + ops::cross_entropy(head.logits, &targets.coarse(head.stride)).mean() * 0.5;
    }
    let value = host(loss.clone())[0];
    network.step(optimizer, rates, loss.backward());
    network.commit(&taps);
    value
}

fn sgd() -> burn::optim::ModuleOptimizer {
    SgdConfig::new().with_momentum(Some(MomentumConfig::new().with_momentum(0.9).with_dampening(0.0))).init()
}

fn bits(network: &dyn Network) -> Vec<(String, Vec<u32>)> {
    let bits = |p: Parameter| (p.name, p.values.iter().map(|v| v.to_bits()).collect());
    network.parameters().into_iter().map(bits).collect()
}

#[test]
fn every_network_learns_in_a_few_steps() {
    for architecture in architectures() {
        let mut network = build(&architecture, 5, &device()).unwrap();
        network.train_mode();
        let mut optimizer = sgd();
        let first = step(&mut *network, &mut optimizer, LearningRates::from(0.02));
        for _ in 0..4 {
            step(&mut *network, &mut optimizer, LearningRates::from(0.02));
        }
        let last = step(&mut *network, &mut optimizer, LearningRates::from(0.02));
        assert!(last < first, "{}: {first} -> {last}", architecture.name);
    }
}

#[test]
fn a_step_moves_every_weight_and_commit_every_statistic() {
    for architecture in architectures() {
        let mut network = lively(&architecture);
        let before = network.parameters();
        network.train_mode();
        step(&mut *network, &mut sgd(), LearningRates::from(0.1));
        network.eval_mode();
        for (before, after) in before.iter().zip(network.parameters()) {
            assert_eq!(before.name, after.name);
            // Instance norm takes away what a bias before it adds, so its gradient is zero but for rounding.
            if architecture.name == "nnunet" && before.name.ends_with(".conv.bias") {
                continue;
            }
            assert_ne!(before.values, after.values, "{}: '{}' did not move", architecture.name, after.name);
        }
    }
}

#[test]
fn groups_have_their_own_learning_rates() {
    let mut network = lively(&small_unet());
    let before = network.parameters();
    network.train_mode();
    step(&mut *network, &mut sgd(), LearningRates { backbone: 0.0, head: 0.1 });
    for (before, after) in before.iter().zip(network.parameters()).filter(|(p, _)| p.kind == Kind::Weight) {
        assert_eq!(before.values != after.values, after.group == Group::Head, "{}", after.name);
    }
}

#[test]
fn a_deep_clone_is_bit_identical_before_and_after_the_other_trains() {
    for architecture in architectures() {
        let mut network = lively(&architecture);
        let clone = network.deep_clone();
        let before = bits(&*clone);
        assert_eq!(before, bits(&*network));
        network.train_mode();
        step(&mut *network, &mut sgd(), LearningRates::from(0.1));
        assert_eq!(before, bits(&*clone), "{}: training the original changed the copy", architecture.name);

        let live = bits(&*network);
        let mut clone = network.deep_clone();
        step(&mut *clone, &mut sgd(), LearningRates::from(0.1));
        assert_ne!(live, bits(&*clone));
        assert_eq!(live, bits(&*network), "{}: training the copy changed the original", architecture.name);
    }
}

#[test]
fn a_victim_stays_as_it_was_made() {
    let mut network = lively(&small_unet());
    network.train_mode();
    let victim = network.victim();
    let x = images([1, 3, 16, 16], 2);
    let before = host(victim.logits(x.clone()).unwrap());
    step(&mut *network, &mut sgd(), LearningRates::from(0.1));
    assert_eq!(before, host(victim.logits(x.clone()).unwrap()));
    assert_ne!(before, host(network.victim().logits(x).unwrap()));
}

#[test]
fn only_the_training_mode_collects_statistics() {
    let mut network = lively(&small_unet());
    let before = bits(&*network);
    for mut taps in [Taps::eval(), Taps::train_without_update()] {
        network.forward(images([2, 3, 16, 16], 3), &mut taps);
        assert!(taps.statistics().is_empty());
        network.commit(&taps);
    }
    assert_eq!(before, bits(&*network));
    let mut taps = Taps::train();
    network.forward(images([2, 3, 16, 16], 3), &mut taps);
    network.commit(&taps);
    assert_ne!(before, bits(&*network));
}

#[test]
fn switching_modes_changes_no_value() {
    let mut network = lively(&small_unet());
    let before = bits(&*network);
    network.train_mode();
    assert_eq!(before, bits(&*network));
    network.eval_mode();
    assert_eq!(before, bits(&*network));
    let logits = network.forward(images([1, 3, 8, 8], 4), &mut Taps::eval()).logits;
    assert!(!logits.is_autodiff(), "a plain network builds no graph");
}

#[test]
fn parameters_set_in_training_mode_are_trained_on() {
    let mut network = build(&small_unet(), 0, &device()).unwrap();
    network.train_mode();
    network.set_parameters(&lively(&small_unet()).parameters()).unwrap();
    let before = bits(&*network);
    assert_eq!(before, bits(&*lively(&small_unet())));
    step(&mut *network, &mut sgd(), LearningRates::from(0.1));
    assert_ne!(before, bits(&*network));
}

#[test]
fn gradients_come_by_name_for_weights_only() {
    let mut network = lively(&small_unet());
    network.train_mode();
    let loss = network.forward(images([1, 3, 16, 16], 1), &mut Taps::train_without_update()).logits.sum();
    let gradients = network.gradients(&loss.backward());
    let weights: Vec<_> = network.layout().iter().filter(|p| p.kind == Kind::Weight).map(|p| &p.name).collect();
    assert_eq!(gradients.iter().map(|g| &g.name).collect::<Vec<_>>(), weights);
    assert!(gradients.iter().any(|g| g.values.iter().any(|v| *v != 0.0)));
}

#[test]
fn the_head_group_names_the_heads_weights() {
    let network = build(&small_unet(), 0, &device()).unwrap();
    let group: ParamGroup = network.group(Group::Head);
    for info in network.layout() {
        assert_eq!(group.matches(&info.id, None), info.name.starts_with("head."), "{}", info.name);
    }
}
