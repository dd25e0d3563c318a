//! Radii in pixels and in standard deviations of a case, on images of either unit.

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_attacks::{AttackConfig, Context, View, build};
use fireproof_tensor::{Affine, Batch, InUnit, Norm, Unit, Victim, victim};

use crate::support::{config, floats};

const MEAN: [f32; 2] = [0.5, 0.25];
const STD: [f32; 2] = [0.1, 0.25];

/// Two images of one channel in pixels; some values lie at the ends of the range.
fn pixels() -> Batch {
    let device = Device::flex();
    let values: Vec<f32> = (0..48).map(|i| [0.0, 1.0, 0.3, 0.55, 0.72, 0.98, 0.02][i % 7]).collect();
    let labels: Vec<u8> = (0..48).map(|i| (i % 3 == 0) as u8).collect();
    let mut batch = Batch::from_host(values, &labels, [2, 1, 4, 6], vec![3, 9], &device).unwrap();
    let table = |values: [f32; 2]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [2, 1]), &device);
    batch.affine = Some(Affine { mean: table(MEAN), std: table(STD) });
    batch
}

/// A model of normalised images with a gradient that differs from value to value.
fn model() -> impl Victim {
    victim(|x: Tensor<4>| Tensor::cat(vec![x.clone(), x.clone() * x * 0.5 + 0.1], 1))
}

fn settings(name: &str, norm: Norm, unit: Unit, epsilon: f32) -> AttackConfig {
    AttackConfig { norm, unit, epsilon, steps: 4, ..config(name) }
}

fn norms(norm: Norm, a: &Tensor<4>, b: &Tensor<4>) -> Vec<f32> {
    floats(&norm.of(a.clone() - b.clone()))
}

#[test]
fn a_radius_in_deviations_is_as_many_pixels_as_the_deviation_of_the_case() {
    let batch = pixels();
    let model = model();
    let seen = InUnit::new(&model, &batch, Unit::Pixel, Unit::Normalised).unwrap();
    for (norm, slack) in [(Norm::Linf, 1e-6), (Norm::L2, 1e-5)] {
        for name in ["pgd", "bim", "noise", "dice", "apgd", "mi-fgsm"] {
            let mut settings = settings(name, norm, Unit::Normalised, 0.5);
            if name == "noise" {
                settings.steps = 1;
            }
            let found = build(&settings).unwrap().run(&seen, &batch, &Context::new(1)).unwrap().images;
            let reached = norms(norm, &found, &batch.images);
            for (reached, std) in reached.iter().zip(STD) {
                assert!(*reached <= 0.5 * std + slack, "{name} {norm}: {reached} of {}", 0.5 * std);
                assert!(*reached > 0.2 * std, "{name} {norm}: {reached} of {}", 0.5 * std);
            }
            assert!(floats(&found).iter().all(|pixel| (0.0..=1.0).contains(pixel)), "{name} {norm}");
        }
    }
}

#[test]
fn images_of_either_unit_give_the_same_attack() {
    let batch = pixels();
    let normalised = batch.in_unit(Unit::Normalised).unwrap();
    let model = model();
    let seen = InUnit::new(&model, &batch, Unit::Pixel, Unit::Normalised).unwrap();
    for (unit, epsilon) in [(Unit::Normalised, 0.4), (Unit::Pixel, 0.05)] {
        for norm in [Norm::Linf, Norm::L2] {
            let attack = build(&settings("pgd", norm, unit, epsilon)).unwrap();
            let a = attack.run(&seen, &batch, &Context::new(5)).unwrap().images;
            let b = attack.run(&model, &normalised, &Context::new(5)).unwrap().images;
            let b = normalised.convert(b, Unit::Normalised, Unit::Pixel).unwrap();
            let worst = norms(Norm::Linf, &a, &b).into_iter().fold(0.0, f32::max);
            assert!(worst < 1e-5, "{unit} {norm}: {worst}");
            assert!(norms(Norm::Linf, &a, &batch.images).iter().all(|moved| *moved > 1e-3));
        }
    }
}

#[test]
fn normalised_images_stay_within_the_range_of_their_case() {
    let batch = pixels().in_unit(Unit::Normalised).unwrap();
    let attack = build(&settings("pgd", Norm::Linf, Unit::Normalised, 3.0)).unwrap();
    let found = floats(&attack.run(&model(), &batch, &Context::new(2)).unwrap().images);
    for (case, values) in found.chunks(24).enumerate() {
        let [low, high] = [0.0, 1.0].map(|end: f32| (end - MEAN[case]) / STD[case]);
        assert!(values.iter().all(|v| (low - 1e-5..=high + 1e-5).contains(v)), "{low} to {high}: {values:?}");
        // With so large a radius some values must have been stopped by the range.
        assert!(values.iter().any(|v| (v - high).abs() < 1e-5 || (v - low).abs() < 1e-5));
    }
}

#[test]
fn an_observer_sees_the_unit_of_the_batch() {
    let batch = pixels();
    let model = model();
    let seen = InUnit::new(&model, &batch, Unit::Pixel, Unit::Normalised).unwrap();
    let outside = std::cell::Cell::new(0);
    let observer = |view: &View<'_>| {
        assert_eq!(view.batch.unit, Unit::Pixel);
        let wrong = floats(view.images).iter().filter(|pixel| !(0.0..=1.0).contains(*pixel)).count();
        outside.set(outside.get() + wrong);
    };
    let context = Context { observer: Some(&observer), ..Context::new(1) };
    build(&settings("pgd", Norm::Linf, Unit::Normalised, 0.5)).unwrap().run(&seen, &batch, &context).unwrap();
    assert_eq!(outside.get(), 0);
}

#[test]
fn pixels_of_no_case_have_no_deviations() {
    let mut batch = pixels();
    batch.affine = None;
    let attack = build(&settings("pgd", Norm::Linf, Unit::Normalised, 0.5)).unwrap();
    let error = attack.run(&model(), &batch, &Context::new(1)).unwrap_err().to_string();
    assert!(error.contains("per-case normalisation: found no mean and standard deviation"), "{error}");
    let error = build(&settings("alma-prox", Norm::L2, Unit::Normalised, 0.5)).err().unwrap().to_string();
    assert!(error.contains("unit") && error.contains("pixel"), "{error}");
}

#[test]
fn the_gradient_does_not_see_the_statistics() {
    // With statistics taken from the attacked image, adding a constant would change nothing and its gradient were zero.
    let batch = pixels();
    let sum = victim(|x: Tensor<4>| Tensor::cat(vec![x.clone(), x], 1));
    let seen = InUnit::new(&sum, &batch, Unit::Pixel, Unit::Normalised).unwrap();
    let (_, gradient) = seen.pull_back(batch.images.clone(), &mut |z| Ok(z.ones_like())).unwrap();
    for (values, std) in floats(&gradient).chunks(24).zip(STD) {
        assert!(values.iter().all(|g| (g - 2.0 / std).abs() < 1e-4), "{values:?}");
    }
    // The wrapped victim's own backward pass agrees with autodiff through the conversion.
    let model = model();
    let seen = InUnit::new(&model, &batch, Unit::Pixel, Unit::Normalised).unwrap();
    let (_, ours) = seen.pull_back(batch.images.clone(), &mut |z| Ok(z)).unwrap();
    let leaf = batch.images.clone().autodiff().require_grad();
    let logits = seen.logits(leaf.clone()).unwrap();
    let plain = Tensor::from_inner(logits.clone().inner());
    let theirs = leaf.grad_remove(&mut (logits * plain).sum().backward()).unwrap();
    assert!(ours.all_close(theirs, Some(1e-4), Some(1e-4)));
}

/// What reads the valid range as numbers of the image must know which unit they are in, or refuse every other.
#[test]
fn in_deviations_every_attack_stays_within_ball_and_range_or_is_refused() {
    let pixels = pixels();
    let normalised = pixels.in_unit(Unit::Normalised).unwrap();
    let model = model();
    let seen = InUnit::new(&model, &pixels, Unit::Pixel, Unit::Normalised).unwrap();
    let mut refused = Vec::new();
    for registration in fireproof_attacks::list() {
        let name = registration.name;
        let own = config(name);
        let settings = AttackConfig { unit: Unit::Normalised, epsilon: 0.5, steps: own.steps.min(10), ..own };
        let attack = match build(&settings) {
            Ok(attack) => attack,
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("unit is normalised, expected pixel"), "{name}: {error}");
                refused.push(name);
                continue;
            }
        };
        let found = attack.run(&seen, &pixels, &Context::new(2)).unwrap().images;
        assert!(floats(&found).iter().all(|v| (0.0..=1.0).contains(v)), "{name}");
        let reached = norms(settings.norm, &found, &pixels.images);
        assert!(reached.iter().zip(STD).all(|(r, std)| *r <= 0.5 * std + 1e-5), "{name}: {reached:?}");
        // A batch that comes normalised has each case's own limits.
        let other = attack.run(&model, &normalised, &Context::new(2)).unwrap().images;
        let back = normalised.convert(other, Unit::Normalised, Unit::Pixel).unwrap();
        assert!(floats(&back).iter().all(|v| (-1e-5..=1.0 + 1e-5).contains(v)), "{name}");
        let differ = floats(&back).iter().zip(floats(&found)).filter(|(a, b)| (*a - b).abs() > 1e-4).count();
        assert!(differ <= 2, "{name}: {differ} of 48 values differ between the units");
    }
    let expected = ["alma-prox", "corruption", "cw", "dag", "deepfool", "fmn", "patch", "pdpgd", "universal"];
    assert_eq!(refused, expected);
}
