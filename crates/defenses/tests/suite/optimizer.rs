use burn::tensor::Tensor;
use fireproof_datasets::{Split, batch};
use fireproof_defenses::{Method, OptimizerConfig, Schedule};
use fireproof_models::{Group, Kind, Parameter, Taps};

use crate::common::{network, scenes};

/// Weights after each step, and the gradient that the step was made with.
fn steps(config: &OptimizerConfig, count: usize) -> Vec<(Vec<Parameter>, Vec<Parameter>)> {
    let mut network = network(2);
    let batch = batch(&[scenes(Split::Train, 1).get(0).unwrap()], &network.device()).unwrap();
    network.train_mode();
    let mut optimizer = config.build();
    let mut history = vec![(network.parameters(), Vec::new())];
    for _ in 0..count {
        let output = network.forward(batch.images.clone(), &mut Taps::train_without_update());
        let loss: Tensor<1> = fireproof_tensor::ops::cross_entropy(output.logits, &batch.targets).mean();
        let gradients = loss.backward();
        let seen = network.gradients(&gradients);
        network.step(&mut optimizer, config.rates(1.0), gradients);
        history.push((network.parameters(), seen));
    }
    history
}

/// The largest deviation of every weight from `expected(weight, gradients so far)` in units of its change.
fn deviation(history: &[(Vec<Parameter>, Vec<Parameter>)], mut expected: impl FnMut(Group, f64, &[f64]) -> f64) -> f64 {
    let weights = history[0].0.iter().filter(|p| p.kind == Kind::Weight);
    let mut worst: f64 = 0.0;
    for before in weights {
        let find = |list: &[Parameter]| list.iter().find(|p| p.name == before.name).unwrap().values.clone();
        let last = find(&history.last().unwrap().0);
        let gradients: Vec<Vec<f32>> = history[1..].iter().map(|(_, gradients)| find(gradients)).collect();
        for (i, (&start, &end)) in before.values.iter().zip(&last).enumerate() {
            let gradients: Vec<f64> = gradients.iter().map(|g| f64::from(g[i])).collect();
            let expected = expected(before.group, f64::from(start), &gradients);
            let change = (expected - f64::from(start)).abs().max(1e-3);
            worst = worst.max((f64::from(end) - expected).abs() / change);
        }
    }
    worst
}

#[test]
fn sgd_follows_the_formula_of_pytorch_without_dampening() {
    let config = OptimizerConfig {
        method: Method::Sgd { momentum: 0.9 },
        learning_rate: 0.1,
        head_factor: 1.0,
        weight_decay: 0.01,
        nesterov: false,
    };
    let history = steps(&config, 3);
    let formula = |dampening: f64| {
        move |_: Group, start: f64, gradients: &[f64]| {
            let (mut weight, mut velocity) = (start, 0.0);
            for (t, gradient) in gradients.iter().enumerate() {
                let gradient = gradient + 0.01 * weight;
                velocity = if t == 0 { gradient } else { 0.9 * velocity + (1.0 - dampening) * gradient };
                weight -= 0.1 * velocity;
            }
            weight
        }
    };
    let right = deviation(&history, formula(0.0));
    assert!(right < 1e-3, "{right}");
    let dampened = deviation(&history, formula(0.1));
    assert!(dampened > 1e-2, "the test must tell a dampening of 0.1 apart: {dampened}");
}

#[test]
fn a_hand_example_of_momentum_and_decay() {
    // w = 1, gradients 1 and 2, momentum 0.5, decay 0.1, rate 0.1:
    // v1 = 1 + 0.1 = 1.1, w1 = 0.89; v2 = 0.55 + 2 + 0.089 = 2.639, w2 = 0.6261.
    use burn::module::{Module, Param, ParamId};
    #[derive(Module, Debug)]
    struct One {
        weight: Param<Tensor<1>>,
    }
    let device = burn::tensor::Device::flex().autodiff();
    let weight = Tensor::<1>::from_floats([1.0], &device).require_grad();
    let mut model = One { weight: Param::initialized(ParamId::new(), weight) };
    let method = Method::Sgd { momentum: 0.5 };
    let mut optimizer = OptimizerConfig { method, weight_decay: 0.1, ..OptimizerConfig::default() }.build();
    for slope in [1.0, 2.0] {
        let gradients = (model.weight.val() * slope).sum().backward();
        let gradients = burn::optim::GradientsParams::from_grads(gradients, &model);
        model = optimizer.step(0.1, model, gradients);
    }
    let weight = model.weight.val().inner().into_scalar::<f32>();
    assert!((weight - 0.6261).abs() < 1e-6, "{weight}");
}

#[test]
fn the_head_learns_at_its_own_rate() {
    let config =
        OptimizerConfig { weight_decay: 0.0, learning_rate: 0.01, head_factor: 10.0, ..OptimizerConfig::default() };
    let history = steps(&config, 1);
    let groups: std::collections::HashSet<String> = history[0].0.iter().map(|p| format!("{:?}", p.group)).collect();
    assert_eq!(groups.len(), 2, "the network has both groups");
    let rate = |group| if group == Group::Head { 0.1 } else { 0.01 };
    let worst = deviation(&history, |group, start, gradients| start - rate(group) * gradients[0]);
    assert!(worst < 1e-3, "{worst}");
}

#[test]
fn adamw_makes_a_first_step_of_the_rate_and_decays_apart_from_it() {
    let method = Method::AdamW { betas: [0.9, 0.999] };
    let config = OptimizerConfig { method, learning_rate: 0.01, head_factor: 1.0, weight_decay: 0.5, nesterov: false };
    let history = steps(&config, 1);
    // PyTorch: w (1 − rate · decay) − rate · g / (|g| + 1e-8).
    let worst = deviation(&history, |_, start, gradients| {
        let gradient = gradients[0];
        start * (1.0 - 0.01 * 0.5) - 0.01 * gradient / (gradient.abs() + 1e-8)
    });
    assert!(worst < 2e-3, "{worst}");
}

#[test]
fn poly_decay_is_one_at_the_start_and_zero_at_the_end() {
    let poly = Schedule::Poly { power: 0.9 };
    assert_eq!(poly.factor(0, 10), 1.0);
    assert!((poly.factor(5, 10) - 0.535_886_731_268_146_4).abs() < 1e-12);
    assert!((poly.factor(9, 10) - 0.125_892_541_179_416_73).abs() < 1e-12);
    assert_eq!(poly.factor(10, 10), 0.0);
    assert_eq!(Schedule::Constant.factor(9, 10), 1.0);
}

#[test]
fn settings_that_cannot_train_are_refused_by_name() {
    for (config, name) in [
        (OptimizerConfig { learning_rate: f64::NAN, ..OptimizerConfig::default() }, "learning rate"),
        (OptimizerConfig { head_factor: 0.0, ..OptimizerConfig::default() }, "head factor"),
        (OptimizerConfig { weight_decay: -1.0, ..OptimizerConfig::default() }, "weight decay"),
        (OptimizerConfig { method: Method::Sgd { momentum: 1.0 }, ..OptimizerConfig::default() }, "momentum"),
    ] {
        let message = config.check().unwrap_err().to_string();
        assert!(message.starts_with(name), "{message}");
    }
}
