//! Inside the threat model, whatever the image, the radius and the method.

use burn::tensor::{Int, Tensor, TensorData};
use fireproof_attacks::{AttackConfig, Context, Iterate, Start, build};
use fireproof_tensor::{Batch, Norm, Targets, VOID, Victim, random::Stream};
use proptest::prelude::*;

use crate::support::{Network, batch, config, device, floats, knows, several_steps, suited, tensor};

fn methods() -> impl Strategy<Value = &'static str> {
    prop::sample::select(several_steps())
}

fn norms() -> impl Strategy<Value = Norm> {
    prop::sample::select(vec![Norm::Linf, Norm::L2])
}

fn length(norm: Norm, delta: &[f32]) -> f32 {
    match norm {
        Norm::Linf => delta.iter().fold(0.0, |m, d| m.max(d.abs())),
        Norm::L2 => delta.iter().map(|d| f64::from(d * d)).sum::<f64>().sqrt() as f32,
    }
}

fn deltas(found: &Tensor<4>, clean: &Tensor<4>) -> Vec<Vec<f32>> {
    let n = clean.dims()[0];
    let all: Vec<f32> = floats(found).iter().zip(floats(clean)).map(|(f, c)| f - c).collect();
    all.chunks(all.len() / n).map(<[f32]>::to_vec).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn perturbations_stay_in_the_ball_and_images_in_the_range(
        name in methods(), norm in norms(), epsilon in 0.001f32..0.6, step in 0.001f32..1.0, steps in 1usize..4,
        low in -1.0f32..0.5, seed in 0u64..1000, size in (2usize..9, 2usize..9), random in any::<bool>(),
    ) {
        prop_assume!(knows(name, norm));
        let victim = Network::random(seed, 2, 3).victim();
        let mut batch = batch(seed, &victim, 3, [2, 2, 2 * size.0, 2 * size.1]);
        let range = [low, low + 1.0];
        batch.images = batch.images + low;
        let settings = AttackConfig {
            norm, epsilon, steps, range, step_size: Some(step),
            start: if random { Start::Random } else { Start::Zero }, ..config(name)
        };
        let found = build(&suited(settings)).unwrap().run(&victim, &batch, &Context::new(seed)).unwrap();
        prop_assert!(floats(&found.images).iter().all(|v| (range[0]..=range[1]).contains(v)));
        for delta in deltas(&found.images, &batch.images) {
            prop_assert!(length(norm, &delta) <= epsilon + 1e-6);
        }
    }

    #[test]
    fn each_sample_keeps_its_own_radius(
        name in methods(), norm in norms(), first in 0.001f32..0.05, second in 0.06f32..0.3, seed in 0u64..1000,
    ) {
        prop_assume!(knows(name, norm));
        let victim = Network::random(seed, 1, 3).victim();
        let batch = batch(seed, &victim, 3, [3, 1, 8, 8]);
        let settings = AttackConfig { norm, epsilon: 0.5, step_size: Some(1.0), steps: 2, ..config(name) };
        let context = Context { epsilon: Some(&[first, second, 0.0]), ..Context::new(seed) };
        let found = build(&settings).unwrap().run(&victim, &batch, &context).unwrap();
        let lengths: Vec<f32> = deltas(&found.images, &batch.images).iter().map(|d| length(norm, d)).collect();
        prop_assert!(lengths[0] <= first + 1e-6 && lengths[1] <= second + 1e-6);
        prop_assert!(lengths[1] > first + 1e-3, "the larger radius is used: {lengths:?}");
        prop_assert_eq!(lengths[2], 0.0);
    }

    #[test]
    fn outside_the_mask_nothing_changes(
        name in methods(), norm in norms(), seed in 0u64..1000, shared in any::<bool>(), given in any::<bool>(),
    ) {
        prop_assume!(knows(name, norm));
        let victim = Network::random(seed, 2, 3).victim();
        let batch = batch(seed, &victim, 3, [2, 2, 8, 8]);
        let channels = if shared { 1 } else { 2 };
        let stream = Stream::new(&[seed, 9]);
        let mask: Vec<f32> = (0..2 * channels * 64).map(|i| (stream.below(i as u64, 3) == 0) as u8 as f32).collect();
        let mask = tensor(mask, [2, channels, 8, 8]);
        let elsewhere = batch.images.clone() * 0.5;
        let start = given.then_some(&elsewhere);
        let context = Context { mask: Some(&mask), start, ..Context::new(seed) };
        let settings = AttackConfig { norm, epsilon: 0.3, steps: 3, ..config(name) };
        let found = build(&settings).unwrap().run(&victim, &batch, &context).unwrap();
        let mask = floats(&if shared { mask.repeat_dim(1, 2) } else { mask });
        let (found, clean) = (floats(&found.images), floats(&batch.images));
        prop_assert!((0..found.len()).all(|i| mask[i] == 1.0 || found[i] == clean[i]));
        // The mask may leave nothing of a small patch.
        prop_assert!(name == "patch" || (0..found.len()).any(|i| found[i] != clean[i]));
    }
}

#[test]
fn linf_projection_and_clamp_are_the_nearest_point_of_the_intersection() {
    // Per coordinate the feasible set is an interval, so brute force over a fine grid knows the nearest point.
    let stream = Stream::new(&[3]);
    let value = |i: u64, scale: f32| stream.uniform(i) * scale;
    for case in 0..200u64 {
        let (clean, target, epsilon) =
            (value(4 * case, 1.0), value(4 * case + 1, 2.0) - 0.5, value(4 * case + 2, 0.5) + 0.01);
        let radius = tensor(vec![epsilon], [1]);
        let zero = tensor(vec![0.0], [1]);
        let image = |v: f32| tensor(vec![v], [1, 1, 1, 1]);
        let clean_image = image(clean);
        let direction = image(0.0);
        let found = fireproof_tensor::ops::attack_step(
            image(target),
            direction,
            &clean_image,
            Norm::Linf,
            &zero,
            &radius,
            [0.0, 1.0],
        );
        let grid = (0..=20_000).map(|i| clean - epsilon + 2.0 * epsilon * i as f32 / 20_000.0);
        let nearest =
            grid.filter(|v| (0.0..=1.0).contains(v)).min_by(|a, b| (a - target).abs().total_cmp(&(b - target).abs()));
        assert!((floats(&found)[0] - nearest.unwrap()).abs() < 1e-4, "case {case}");
    }
}

#[test]
fn an_l2_start_lies_on_the_sphere_and_an_linf_start_fills_the_cube() {
    let victim = fireproof_tensor::victim(|x: Tensor<4>| x * 0.0);
    let images = Tensor::full([2, 3, 8, 8], 0.5, &device());
    let targets = Targets::from_labels(&[0; 128], [2, 8, 8], &device()).unwrap();
    let batch = Batch::new(images, targets, vec![4, 5]).unwrap();
    for norm in [Norm::Linf, Norm::L2] {
        let settings = AttackConfig { norm, epsilon: 0.3, steps: 1, ..config("pgd") };
        // The victim has no gradient: what comes back is the start.
        let found = build(&settings).unwrap().run(&victim, &batch, &Context::new(1)).unwrap();
        let deltas = deltas(&found.images, &batch.images);
        assert_ne!(deltas[0], deltas[1], "each sample has its own start");
        for delta in deltas {
            match norm {
                Norm::L2 => assert!((length(norm, &delta) - 0.3).abs() < 1e-5),
                Norm::Linf => {
                    let mean = delta.iter().sum::<f32>() / delta.len() as f32;
                    let spread = (delta.iter().map(|d| d * d).sum::<f32>() / delta.len() as f32).sqrt();
                    assert!(mean.abs() < 0.05 && (spread - 0.3 / 3.0f32.sqrt()).abs() < 0.03, "{mean} {spread}");
                }
            }
        }
    }
}

#[test]
fn void_pixels_are_perturbed_but_an_image_of_void_is_left_alone() {
    let victim = Network::random(5, 3, 4).victim();
    let whole = batch(6, &victim, 4, [2, 3, 16, 16]);
    let labels: Vec<i32> = whole.targets.labels().clone().try_into_vec_as().unwrap();
    // First image: the right half void. Second: all void.
    let void = |i: usize| i >= 256 || i % 16 >= 8;
    let labels: Vec<i32> = labels.iter().enumerate().map(|(i, l)| if void(i) { i32::from(VOID) } else { *l }).collect();
    let labels = Tensor::<3, Int>::from_data(TensorData::new(labels, [2, 16, 16]), &device());
    let batch = Batch::new(whole.images, Targets::hard(labels), vec![0, 1]).unwrap();
    // Random squares and stripes need not find anything, a patch is put on every image, and an indirect attack chooses its blocks.
    for name in several_steps().into_iter().filter(|name| !["dla", "indirect", "patch", "square"].contains(name)) {
        let settings = AttackConfig { start: Start::Zero, steps: 3, ..config(name) };
        let found = build(&settings).unwrap().run(&victim, &batch, &Context::new(1)).unwrap();
        let deltas = deltas(&found.images, &batch.images);
        let in_void = (0..256).filter(|&i| void(i)).any(|i| deltas[0][i] != 0.0);
        assert!(in_void, "{name}: void pixels near labelled ones matter to them and may change");
        assert!(deltas[1].iter().all(|d| *d == 0.0), "{name}: nothing to gain where all is void");
    }
}

#[test]
fn the_best_iterate_is_inside_the_ball_too() {
    let victim = Network::random(8, 3, 4).victim();
    let batch = batch(9, &victim, 4, [2, 3, 12, 12]);
    for iterate in [Iterate::BestAccuracy, Iterate::BestLoss] {
        let settings = AttackConfig { iterate, steps: 5, restarts: 2, ..config("segpgd") };
        let found = build(&settings).unwrap().run(&victim, &batch, &Context::new(1)).unwrap();
        for delta in deltas(&found.images, &batch.images) {
            assert!(length(Norm::Linf, &delta) <= 8.0 / 255.0 + 1e-6);
        }
        assert!(victim.logits(found.images).is_ok());
    }
}
