//! Attacks that look for the smallest perturbation, and the one that asks for no gradient.

use std::cell::RefCell;

use burn::tensor::{Int, Tensor, TensorData, module::conv2d, ops::ConvOptions};
use fireproof_attacks::{AttackConfig, Context, Iterate, Start, Step, Target, View, build, methods::square};
use fireproof_tensor::{Batch, Norm, Targets, VOID, Victim, random::Stream, victim};

use crate::support::{Blind, MINIMAL, batch, config, device, floats, tensor};

/// One 3×3 convolution, close to "the highest of three channels is the class"; a fourth class is their mean.
struct Linear(Tensor<4>);

impl Linear {
    fn random() -> Self {
        let stream = Stream::new(&[3]);
        let mut weights: Vec<f32> = (0..108).map(|i| stream.normal(i) * 0.5).collect();
        for (class, taps) in weights.chunks_mut(27).enumerate() {
            let mean = taps.iter().sum::<f32>() / 27.0;
            taps.iter_mut().for_each(|t| *t -= mean);
            for channel in 0..3 {
                taps[channel * 9 + 4] +=
                    [if channel == class { 10.0 } else { 0.0 }, 10.0 / 3.0][usize::from(class == 3)];
            }
        }
        Self(tensor(weights, [4, 3, 3, 3]))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        conv2d(x, self.0.clone(), None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1))
    }
}

/// Images of little contrast, labelled as the victim sees them but for some void pixels: little fools nearly all of them.
fn setting() -> (Linear, Batch) {
    let network = Linear::random();
    let batch = batch(4, &victim(|x| network.forward(x)), 4, [3, 3, 16, 20]);
    let images = batch.images * 0.1 + 0.45;
    let seen = network.forward(images.clone()).argmax(1).reshape([3, 16, 20]);
    let labels = seen.mask_where(batch.targets.void(), batch.targets.labels().clone());
    (network, Batch::new(images, Targets::hard(labels), batch.ids).unwrap())
}

fn lengths(norm: Norm, delta: &Tensor<4>) -> Vec<f32> {
    floats(&norm.of(delta.clone()))
}

#[test]
fn what_is_found_fools_nearly_everything_and_what_is_returned_lies_in_the_ball() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let cases = [
        ("dag", Norm::Linf, 0.005, 0.02, 250),
        ("dag", Norm::L2, 0.05, 0.2, 250),
        ("alma-prox", Norm::Linf, 0.001, 0.02, 250),
        ("cw", Norm::L2, 0.01, 0.2, 60),
        ("deepfool", Norm::Linf, 0.01, 0.02, 50),
        ("deepfool", Norm::L2, 0.01, 0.2, 50),
        ("fmn", Norm::Linf, 1.0, 0.02, 150),
        ("fmn", Norm::L2, 1.0, 0.2, 150),
        ("pdpgd", Norm::Linf, 0.01, 0.02, 150),
        ("pdpgd", Norm::L2, 0.01, 0.2, 150),
    ];
    for (name, norm, step, epsilon, steps) in cases {
        let settings = AttackConfig { norm, epsilon, steps, step_size: Some(step), ..config(name) };
        let found = build(&settings).unwrap().run(&model, &batch, &Context::new(1)).unwrap();
        let minimal = found.minimal.unwrap();
        println!("{name} {norm}: norms {:?}, success {:?}", minimal.norms, minimal.success);
        let accuracy = batch.targets.accuracy(&network.forward(minimal.images.clone()));
        let delta = minimal.images.clone() - batch.images.clone();
        for image in 0..3 {
            assert!((1.0 - accuracy[image] - minimal.success[image]).abs() < 1e-5);
            assert!((lengths(norm, &delta)[image] - minimal.norms[image]).abs() < 1e-5);
        }
        // These would need more steps here.
        let enough = if ["alma-prox", "deepfool"].contains(&name) { 0.9 } else { 0.99 };
        assert!(minimal.success.iter().all(|s| *s >= enough), "{name}: {:?}", minimal.success);
        assert!(floats(&minimal.images).iter().all(|v| (0.0..=1.0).contains(v)));
        let clipped = found.images.clone() - batch.images.clone();
        assert!(lengths(norm, &clipped).iter().all(|l| *l <= epsilon + 1e-5 && *l > 0.5 * epsilon));
        let expected = floats(&norm.project(delta, &tensor(vec![epsilon; 3], [3])));
        assert!(floats(&clipped).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn dag_keeps_its_most_successful_iterate_and_never_the_clean_image() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let settings = AttackConfig { steps: 5, ..config("dag") };
    let context = Context { trace: true, ..Context::new(1) };
    let found = build(&settings).unwrap().run(&model, &batch, &context).unwrap();
    let minimal = found.minimal.unwrap();
    let rows = found.trace.unwrap().rows;
    for image in 0..3 {
        assert!(minimal.norms[image] > 0.0, "the clean image is no result");
        let most = rows[1..].iter().map(|r| 1.0 - r.accuracy[image]).fold(0.0, f32::max);
        assert!((minimal.success[image] - most).abs() < 1e-6);
        assert!(minimal.success[image] < 0.99, "five small steps are not enough");
    }
    // Every step is γ long in the norm.
    let seen: RefCell<Vec<Tensor<4>>> = RefCell::default();
    let observer = |view: &View<'_>| seen.borrow_mut().push(view.images.clone());
    let context = Context { observer: Some(&observer), ..Context::new(1) };
    build(&settings).unwrap().run(&model, &batch, &context).unwrap();
    for pair in seen.into_inner().windows(2) {
        let steps = lengths(Norm::Linf, &(pair[1].clone() - pair[0].clone()));
        assert!(steps.iter().all(|s| (s - 0.003).abs() < 1e-6), "{steps:?}");
    }
}

#[test]
fn an_image_stops_when_it_is_fooled_and_does_not_depend_on_its_neighbours() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    for name in MINIMAL {
        let settings = AttackConfig { steps: 60, ..config(name) };
        let attack = build(&settings).unwrap();
        let run = |positions: &[usize]| {
            let found = attack.run(&model, &batch.select(positions), &Context::new(1)).unwrap();
            let values = floats(&found.minimal.unwrap().images);
            values.chunks(960).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        let (all, turned) = (run(&[0, 1, 2]), run(&[2, 0, 1]));
        assert_eq!(turned, [all[2].clone(), all[0].clone(), all[1].clone()], "{name}");
        assert_eq!(run(&[1])[0], all[1], "{name}");
    }
}

#[test]
fn masks_void_and_radii_are_kept() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let mut labels: Vec<i32> = batch.targets.labels().clone().try_into_vec_as().unwrap();
    labels[..320].fill(i32::from(VOID));
    let labels = Tensor::<3, Int>::from_data(TensorData::new(labels, [3, 16, 20]), &device());
    let voided = Batch::new(batch.images.clone(), Targets::hard(labels), batch.ids.clone()).unwrap();
    let mask = tensor((0..960).map(|i| (i % 20 < 10) as u8 as f32).collect(), [3, 1, 16, 20]);
    for name in MINIMAL {
        let settings = AttackConfig { steps: 20, epsilon: 0.5, ..config(name) };
        let attack = build(&settings).unwrap();
        let found = attack.run(&model, &voided, &Context::new(1)).unwrap();
        let delta = found.images - voided.images.clone();
        let lengths = lengths(settings.norm, &delta);
        assert!(lengths[0] == 0.0 && lengths[1] > 0.0, "{name} leaves an image of void alone: {lengths:?}");
        let context = Context { mask: Some(&mask), epsilon: Some(&[0.002, 0.5, 0.0]), ..Context::new(1) };
        let found = attack.run(&model, &batch, &context).unwrap();
        let delta = found.images - batch.images.clone();
        let outside: f32 = (delta.clone() * (mask.clone() * -1.0 + 1.0)).abs().max().into_scalar();
        assert_eq!(outside, 0.0, "{name}");
        let lengths = super::minimal::lengths(settings.norm, &delta);
        assert!(
            lengths[0] <= 0.002 + 1e-6 && lengths[0] > 0.0 && lengths[1] > 0.002 && lengths[2] == 0.0,
            "{name}: {lengths:?}"
        );
    }
}

#[test]
fn a_target_is_painted_by_the_smallest_change() {
    // Three channels are three classes; the lead to make up differs from pixel to pixel and is 0.3 at most.
    let model = victim(|x| x * 10.0);
    let images: Vec<f32> = (0..3 * 64).map(|i| 0.4 + [0.1, 0.0, 0.0][i / 64] + 0.003 * (i % 50) as f32).collect();
    let targets = Targets::from_labels(&[0; 64], [1, 8, 8], &device()).unwrap();
    let batch = Batch::new(tensor(images.clone(), [1, 3, 8, 8]), targets, vec![0]).unwrap();
    let needed: Vec<f32> = (0..64).map(|i| 0.5 * (images[i].max(images[64 + i]) - images[128 + i]).max(0.0)).collect();
    let smallest = needed.iter().copied().fold(0.0, f32::max);
    for (name, slack) in [("dag", 0.02), ("alma-prox", 0.001), ("fmn", 0.02), ("pdpgd", 0.02)] {
        let settings = AttackConfig { epsilon: 0.9, steps: 500, target: Some(Target::Class(2)), ..config(name) };
        let found = build(&settings).unwrap().run(&model, &batch, &Context::new(1)).unwrap().minimal.unwrap();
        println!("{name}: {:?} of {smallest}, success {:?}", found.norms, found.success);
        assert!(found.success[0] >= 0.99);
        assert!(found.norms[0] < smallest + slack && found.norms[0] > 0.5 * smallest, "{name}: {:?}", found.norms);
    }
}

#[test]
fn settings_that_a_minimal_attack_does_not_have_are_refused() {
    let refused = |name: &str, change: fn(&mut AttackConfig)| {
        let mut settings = config(name);
        change(&mut settings);
        build(&settings).err().expect("must be refused").to_string()
    };
    for name in MINIMAL {
        assert!(refused(name, |c| c.start = Start::Random).contains("start is random, expected zero"));
        assert!(refused(name, |c| c.iterate = Iterate::Last).contains("iterate is last, expected best-accuracy"));
        assert!(refused(name, |c| c.restarts = 2).contains("restarts is 2"));
    }
    assert!(refused("alma-prox", |c| c.norm = Norm::L2).contains("norm is l2, expected linf"));
    assert!(refused("cw", |c| c.norm = Norm::Linf).contains("norm is linf, expected l2"));
    for (name, option, value) in [
        ("cw", "c", "0"),
        ("cw", "rounds", "0"),
        ("deepfool", "overshoot", "-1"),
        ("deepfool", "classes", "0"),
        ("fmn", "gamma", "1"),
    ] {
        let options = [(option.to_string(), value.to_string())].into();
        let error = build(&AttackConfig { options, ..config(name) }).err().expect("must be refused").to_string();
        assert!(error.contains(&format!("{option} is {value}")), "{error}");
    }
    assert!(refused("square", |c| c.norm = Norm::L2).contains("norm is l2, expected linf"));
}

/// The way to the boundary of a linear victim is known: a smallest perturbation finds it, steps of PGD do not.
#[test]
fn on_a_linear_classifier_the_smallest_perturbation_is_the_distance_to_the_boundary() {
    // Two classes whose difference is `Σ w x`, one label an image.
    let w: Vec<f32> = (0..48).map(|i| ((i * 29) % 23) as f32 / 23.0 - 0.4).collect();
    let weight = tensor(w.clone(), [1, 3, 4, 4]);
    let model = victim(|x: Tensor<4>| {
        let weight = if x.is_autodiff() { Tensor::from_inner(weight.clone()) } else { weight.clone() };
        let [n, ..] = x.dims();
        let lead = (x * weight).reshape([n, 48]).sum_dim(1).reshape([n, 1, 1, 1]);
        Tensor::cat(vec![lead.clone() * 0.0, lead], 1)
    });
    let images: Vec<f32> = (0..48).map(|i| 0.4 + 0.2 * ((i * 7) % 10) as f32 / 10.0).collect();
    let lead: f32 = images.iter().zip(&w).map(|(x, w)| x * w).sum();
    let label = u8::from(lead > 0.0);
    let targets = Targets::from_labels(&[label], [1, 1, 1], &device()).unwrap();
    let batch = Batch::new(tensor(images, [1, 3, 4, 4]), targets, vec![0]).unwrap();
    let l1: f32 = w.iter().map(|w| w.abs()).sum();
    let l2 = w.iter().map(|w| w * w).sum::<f32>().sqrt();
    let cases = [
        ("cw", Norm::L2, 0.01),
        ("deepfool", Norm::Linf, 0.021),
        ("deepfool", Norm::L2, 0.021),
        ("fmn", Norm::Linf, 0.01),
        ("fmn", Norm::L2, 0.01),
        ("pdpgd", Norm::Linf, 0.02),
        ("pdpgd", Norm::L2, 0.1),
        ("alma-prox", Norm::Linf, 0.02),
    ];
    for (name, norm, slack) in cases {
        let distance = lead.abs() / if norm == Norm::Linf { l1 } else { l2 };
        let own = config(name);
        let settings = AttackConfig { norm, epsilon: if norm == Norm::Linf { 1.0 } else { 9.0 }, ..own };
        let found = build(&settings).unwrap().run(&model, &batch, &Context::new(1)).unwrap().minimal.unwrap();
        println!("{name} {norm}: {} where the boundary is {distance} away", found.norms[0]);
        assert_eq!(found.success, [1.0], "{name} {norm}");
        assert!(found.norms[0] >= distance * 0.9999 && found.norms[0] <= distance * (1.0 + slack), "{name} {norm}");
    }
}

#[test]
fn squares_shrink_as_published() {
    let shares: Vec<f32> = [0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001, 10_000]
        .map(|index| square::share(Step { index, total: 10_000 }) / 0.8)
        .to_vec();
    let expected = [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9].map(|k| 0.5f32.powi(k));
    assert_eq!(shares, expected);
    assert_eq!(square::share(Step { index: 100, total: 1000 }), square::share(Step { index: 1000, total: 10_000 }));
}

#[test]
fn square_needs_no_gradient_and_its_loss_never_falls() {
    let (network, batch) = setting();
    // Rounding the logits leaves white-box attacks without any gradient; square sees through it.
    let model = Blind(victim(|x| (network.forward(x) * 100.0).round() / 100.0));
    let epsilon = 0.05;
    let run = |steps, start| {
        let settings = AttackConfig { epsilon, steps, start, iterate: Iterate::Last, ..config("square") };
        let context = Context { trace: true, ..Context::new(1) };
        build(&settings).unwrap().run(&model, &batch, &context).unwrap()
    };
    let found = run(300, Start::Random);
    assert_eq!((found.passes.forward, found.passes.backward), (3 * 301, 0));
    let (values, clean) = (floats(&found.images), floats(&batch.images));
    let at_the_edge =
        |i: usize| ((values[i] - clean[i]).abs() - epsilon).abs() < 1e-6 || values[i] == 0.0 || values[i] == 1.0;
    assert!((0..values.len()).all(at_the_edge), "every value is at ±ε or at the end of its range");
    let rows = &found.trace.as_ref().unwrap().rows;
    let accuracy = batch.targets.accuracy(&network.forward(found.images));
    for image in 0..3 {
        let best = rows.iter().map(|r| r.loss[image]).fold(f32::NEG_INFINITY, f32::max);
        let short = run(1, Start::Random).trace.unwrap().rows[0].loss[image];
        assert!(best > short, "something better than stripes is found");
        assert!(accuracy[image] < rows[0].accuracy[image]);
    }
    let noise = AttackConfig { epsilon, restarts: 300, ..config("noise") };
    let noise = build(&noise).unwrap().run(&model, &batch, &Context::new(1)).unwrap();
    let noise = batch.targets.accuracy(&network.forward(noise.images));
    println!("square {accuracy:?}, noise {noise:?}");
    assert!(accuracy.iter().zip(&noise).all(|(square, noise)| square < noise), "as many queries of noise find less");
    let from_clean = run(1, Start::Zero).trace.unwrap().rows;
    assert_eq!(from_clean[0].accuracy, batch.targets.accuracy(&model.logits(batch.images.clone()).unwrap()));
}
