//! Adversarial images against those of the reference package.

use fireproof_attacks::{Context, build};
use fireproof_tensor::{Batch, Norm, Victim};

use crate::{
    oracle::differing,
    support::{Golden, Network, config, floats, relative_error},
};

/// Model, data and starts of `attacks.safetensors`.
pub fn setting(golden: &Golden) -> (impl Victim, Batch) {
    let batch = Batch::new(golden.tensor("images"), golden.labels("labels"), vec![0, 1]).unwrap();
    (Network::golden(golden).victim(), batch)
}

#[test]
fn the_reference_network_is_rebuilt_exactly_enough() {
    let Some(golden) = Golden::open("attacks.safetensors") else { return };
    let (victim, batch) = setting(&golden);
    let logits = victim.logits(batch.images).unwrap();
    assert!(relative_error(&floats(&logits), golden.values("clean_logits")) < 1e-5);
}

#[test]
fn adversarial_images_are_those_of_the_reference() {
    let Some(golden) = Golden::open("attacks.safetensors") else { return };
    let (victim, batch) = setting(&golden);
    for (norm, epsilon, alpha) in [(Norm::Linf, 8.0 / 255.0, 0.01), (Norm::L2, 128.0 / 255.0, 0.2)] {
        let start = golden.tensor(&format!("{norm}_start"));
        for name in ["pgd", "segpgd", "cospgd"] {
            for steps in [1, 3, 10] {
                let mut settings = config(name);
                (settings.norm, settings.epsilon, settings.step_size, settings.steps) =
                    (norm, epsilon, Some(alpha), steps);
                let context = Context { start: Some(&start), ..Context::new(0) };
                let found = build(&settings).unwrap().run(&victim, &batch, &context).unwrap();
                let (found, expected) = (floats(&found.images), golden.values(&format!("{norm}_{name}_{steps}")));
                let differ = differing(&found, expected);
                println!("{norm} {name} {steps}: {differ} of {} values differ from the reference", expected.len());
                // A sign is a coin toss where the gradient is within rounding of zero, and such a pixel's neighbours
                // follow at later steps; an ℓ2 step has no such cliff.
                let allowed = if norm == Norm::Linf { 2 * steps } else { 0 };
                assert!(differ <= allowed, "{norm} {name} {steps}: {differ} values differ, at most {allowed} may");
            }
        }
    }
}

#[test]
fn where_a_single_step_differs_the_gradient_is_within_rounding_of_zero() {
    let Some(golden) = Golden::open("attacks.safetensors") else { return };
    let (victim, batch) = setting(&golden);
    let start = golden.tensor("linf_start");
    let settings = fireproof_attacks::AttackConfig { steps: 1, step_size: Some(0.01), ..config("pgd") };
    let context = Context { start: Some(&start), ..Context::new(0) };
    let found = floats(&build(&settings).unwrap().run(&victim, &batch, &context).unwrap().images);
    let (_, gradient) = victim
        .pull_back(start, &mut |logits| {
            Ok(fireproof_tensor::ops::weighted_cross_entropy(&logits, &batch.targets, None).gradient)
        })
        .unwrap();
    let gradient = floats(&gradient);
    let largest = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
    let expected = golden.values("linf_pgd_1");
    for i in (0..found.len()).filter(|&i| (found[i] - expected[i]).abs() > 2e-6) {
        assert!(gradient[i].abs() < 1e-6 * largest, "value {i}: gradient {} of at most {largest}", gradient[i]);
    }
}
