//! Passes, traces, observers, trackers, restarts, and what happens when numbers are not finite.

use std::cell::RefCell;

use burn::tensor::Tensor;
use fireproof_attacks::{AttackConfig, Context, Error, Iterate, View, build};
use fireproof_tensor::{Batch, Passes, Victim, victim};

use crate::support::{Network, batch, config, device, floats, tensor};

fn setting() -> (Network, Batch) {
    let network = Network::random(11, 3, 5);
    let batch = batch(12, &victim(|x| network.forward(x)), 5, [3, 3, 16, 16]);
    (network, batch)
}

#[test]
fn a_step_is_one_forward_and_one_backward_pass() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let passes = |settings: AttackConfig| {
        let counted = fireproof_tensor::Counted::new(&model);
        let found = build(&settings).unwrap().run(&counted, &batch, &Context::new(0)).unwrap();
        assert_eq!(found.passes, counted.passes());
        found.passes
    };
    let per_image = |forward: u64, backward: u64| Passes { forward: 3 * forward, backward: 3 * backward };
    assert_eq!(passes(config("fgsm")), per_image(1, 1));
    assert_eq!(passes(AttackConfig { steps: 7, ..config("pgd") }), per_image(7, 7));
    assert_eq!(passes(AttackConfig { steps: 7, iterate: Iterate::BestAccuracy, ..config("segpgd") }), per_image(8, 7));
    assert_eq!(passes(AttackConfig { steps: 2, restarts: 3, ..config("cospgd") }), per_image(9, 6));
}

#[test]
fn an_image_with_one_label_is_a_segmentation_of_one_pixel() {
    let network = Network::random(31, 3, 5);
    let model = victim(|x| network.forward(x).mean_dim(2).mean_dim(3));
    let images = batch(32, &victim(|x| network.forward(x)), 5, [4, 3, 16, 16]).images;
    let logits = model.logits(images.clone()).unwrap();
    assert_eq!(logits.dims(), [4, 5, 1, 1]);
    let seen: Vec<i32> = logits.argmax(1).try_into_vec_as().unwrap();
    let labels: Vec<u8> = seen.iter().map(|&class| class as u8).collect();
    let targets = fireproof_tensor::Targets::from_labels(&labels, [4, 1, 1], &device()).unwrap();
    let batch = Batch::new(images, targets, vec![0, 1, 2, 3]).unwrap();
    for attack in fireproof_attacks::list().into_iter().filter(|attack| attack.name != "asma") {
        let own = config(attack.name);
        // A step that a paper chose for a small ball goes nowhere in a large one.
        let step_size = own.step_size.map(|step| step.max(0.03));
        let epsilon = if own.norm == fireproof_tensor::Norm::L2 { 3.0 } else { 0.3 };
        let settings = AttackConfig { epsilon, step_size, steps: own.steps.min(60), ..own };
        let found = build(&settings).unwrap().run(&model, &batch, &Context::new(0)).unwrap();
        let accuracy = batch.targets.accuracy(&model.logits(found.images).unwrap());
        // Noise is a control, corruptions are not aimed, and a patch is small: they need not fool anything.
        let aimed = !["corruption", "noise", "patch"].contains(&attack.name);
        assert!(accuracy.iter().sum::<f32>() < 4.0 || !aimed, "{} fooled nothing", attack.name);
    }
}

#[test]
fn one_long_run_shows_every_shorter_one() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    for name in ["pgd", "bim", "cospgd"] {
        let seen: RefCell<Vec<Vec<f32>>> = RefCell::default();
        let observer = |view: &View<'_>| {
            assert_eq!((view.step, view.steps, view.restart), (seen.borrow().len(), 6, 0));
            assert_eq!(view.batch.ids, batch.ids);
            assert_eq!(floats(view.logits), floats(&network.forward(view.images.clone())));
            seen.borrow_mut().push(floats(view.images));
        };
        let long = build(&AttackConfig { steps: 6, ..config(name) }).unwrap();
        assert!(long.contains_shorter_runs());
        let context = Context { observer: Some(&observer), ..Context::new(5) };
        let found = long.run(&model, &batch, &context).unwrap();
        assert_eq!(seen.borrow().len(), 6, "observing makes no pass of its own");
        assert_eq!(found.passes, Passes { forward: 18, backward: 18 });
        for steps in [1, 3, 5] {
            let short = build(&AttackConfig { steps, ..config(name) }).unwrap();
            let short = short.run(&model, &batch, &Context::new(5)).unwrap();
            assert_eq!(floats(&short.images), seen.borrow()[steps], "{name} with {steps} steps");
        }
    }
}

#[test]
fn a_run_whose_loss_depends_on_its_length_does_not_claim_to_contain_others() {
    let contains = |settings: AttackConfig| build(&settings).unwrap().contains_shorter_runs();
    assert!(!contains(config("segpgd")));
    assert!(contains(AttackConfig { options: [("lambda".into(), "0.2".into())].into(), ..config("segpgd") }));
    assert!(!contains(AttackConfig { iterate: Iterate::BestAccuracy, ..config("pgd") }));
    assert!(!contains(AttackConfig { restarts: 2, ..config("pgd") }));
}

#[test]
fn the_trace_tells_loss_and_accuracy_at_every_pass() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let settings = AttackConfig { steps: 5, restarts: 2, iterate: Iterate::BestAccuracy, ..config("pgd") };
    let context = Context { trace: true, ..Context::new(3) };
    let found = build(&settings).unwrap().run(&model, &batch, &context).unwrap();
    let rows = found.trace.unwrap().rows;
    let order: Vec<_> = rows.iter().map(|r| (r.restart, r.step)).collect();
    assert_eq!(order, (0..2).flat_map(|r| (0..6).map(move |s| (r, s))).collect::<Vec<_>>());
    let accuracy = batch.targets.accuracy(&network.forward(found.images));
    for image in 0..3 {
        let lowest = rows.iter().map(|r| r.accuracy[image]).fold(1.0, f32::min);
        assert_eq!(accuracy[image], lowest, "the returned image is the best that was seen");
        assert!(rows[5].loss[image] > rows[0].loss[image], "the loss rises");
    }
    assert!(build(&settings).unwrap().run(&model, &batch, &Context::new(3)).unwrap().trace.is_none());
}

#[test]
fn restarts_and_best_iterates_never_help_the_defender() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    for iterate in [Iterate::Last, Iterate::BestAccuracy] {
        let accuracy = |restarts| {
            let settings = AttackConfig { steps: 2, restarts, iterate, ..config("pgd") };
            let found = build(&settings).unwrap().run(&model, &batch, &Context::new(3)).unwrap();
            batch.targets.accuracy(&network.forward(found.images))
        };
        let runs = [accuracy(1), accuracy(2), accuracy(6)];
        for image in 0..3 {
            assert!(runs[2][image] <= runs[1][image] && runs[1][image] <= runs[0][image], "{runs:?}");
        }
        assert_ne!(runs[0], runs[2], "six different starts find something better");
    }
    let accuracy = |iterate| {
        let settings = AttackConfig { steps: 6, step_size: Some(0.03), iterate, ..config("pgd") };
        let found = build(&settings).unwrap().run(&model, &batch, &Context::new(3)).unwrap();
        batch.targets.accuracy(&network.forward(found.images))
    };
    let (last, best) = (accuracy(Iterate::Last), accuracy(Iterate::BestAccuracy));
    assert!(last.iter().zip(&best).all(|(l, b)| b <= l), "{last:?} {best:?}");
}

#[test]
fn the_highest_loss_iterate_has_the_highest_loss_of_the_trace() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let settings = AttackConfig { steps: 6, step_size: Some(0.05), iterate: Iterate::BestLoss, ..config("pgd") };
    let found = build(&settings).unwrap().run(&model, &batch, &Context { trace: true, ..Context::new(3) }).unwrap();
    let logits = network.forward(found.images);
    let loss = fireproof_tensor::ops::cross_entropy(logits, &batch.targets).reshape([3, 256]).sum_dim(1).reshape([3]);
    for (image, loss) in floats::<1>(&loss).into_iter().enumerate() {
        let highest = found.trace.as_ref().unwrap().rows.iter().map(|r| r.loss[image]).fold(0.0, f32::max);
        assert!((loss - highest).abs() <= 1e-4 * highest);
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_attack_naming_step_sample_and_device() {
    let (network, batch) = setting();
    // The third forward pass gives the second image NaN logits.
    let pass = RefCell::new(0);
    let model = victim(|x| {
        *pass.borrow_mut() += 1;
        let logits = network.forward(x);
        if *pass.borrow() < 3 { logits } else { logits + tensor(vec![0.0, f32::NAN, 0.0], [3, 1, 1, 1]).autodiff() }
    });
    for steps in [4, 25] {
        *pass.borrow_mut() = 0;
        let attack = build(&AttackConfig { steps, ..config("pgd") }).unwrap();
        let error = attack.run(&model, &batch, &Context::new(0)).unwrap_err();
        assert!(matches!(error, Error::NotFinite { what: "the loss", sample: 101, step: 2, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("'pgd'") && text.contains("sample 101") && text.contains("step 2"), "{text}");
        assert!(text.to_lowercase().contains("flex"), "{text}");
    }
}

#[test]
fn an_infinite_gradient_stops_the_attack_though_the_loss_is_fine() {
    let (network, batch) = setting();
    struct Exploding<V>(V);
    impl<V: Victim> Victim for Exploding<V> {
        fn logits(&self, images: Tensor<4>) -> fireproof_tensor::Result<Tensor<4>> {
            self.0.logits(images)
        }
        fn pull_back(
            &self,
            images: Tensor<4>,
            cotangent: &mut dyn FnMut(Tensor<4>) -> fireproof_tensor::Result<Tensor<4>>,
        ) -> fireproof_tensor::Result<(Tensor<4>, Tensor<4>)> {
            let (logits, gradient) = self.0.pull_back(images, cotangent)?;
            Ok((logits, gradient * tensor(vec![1.0, 1.0, f32::INFINITY], [3, 1, 1, 1])))
        }
    }
    let model = Exploding(victim(|x| network.forward(x)));
    let error = build(&config("cospgd")).unwrap().run(&model, &batch, &Context::new(0)).unwrap_err();
    assert!(matches!(error, Error::NotFinite { what: "the gradient", sample: 102, step: 0, .. }), "{error}");
}

#[test]
fn the_last_point_of_a_tracked_run_must_be_finite_too() {
    let (network, batch) = setting();
    let pass = RefCell::new(0);
    let model = victim(|x| {
        *pass.borrow_mut() += 1;
        let scale = if *pass.borrow() <= 3 { 1.0 } else { f32::NAN };
        network.forward(x) * scale
    });
    let settings = AttackConfig { steps: 3, iterate: Iterate::BestAccuracy, ..config("pgd") };
    let error = build(&settings).unwrap().run(&model, &batch, &Context::new(0)).unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 3, .. }), "{error}");
}

#[test]
fn arguments_that_do_not_fit_the_batch_are_named() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let attack = build(&config("pgd")).unwrap();
    let message = |context: &Context| attack.run(&model, &batch, context).unwrap_err().to_string();
    let small = Tensor::zeros([3, 3, 8, 8], &crate::support::device());
    let none = Context::new(0);
    assert!(message(&Context { epsilon: Some(&[0.1]), ..none }).starts_with("epsilon: found 1 values, expected 3"));
    assert!(
        message(&Context { step_size: Some(&[0.1, f32::NAN, 0.1]), ..none })
            .starts_with("step size: found NaN for sample 1")
    );
    assert!(message(&Context { start: Some(&small), ..none }).starts_with("start: found [3, 3, 8, 8]"));
    assert!(message(&Context { mask: Some(&small), ..none }).starts_with("mask: found [3, 3, 8, 8]"));

    let normalised = batch.with_images(batch.images.clone() * 4.0 - 2.0);
    let error = attack.run(&model, &normalised, &none).unwrap_err().to_string();
    assert!(error.contains("in sample 100") && error.contains("not normalised"), "{error}");

    let half = victim(|x: Tensor<4>| network.forward(x).slice([0..3, 0..5, 0..8, 0..8]));
    let error = attack.run(&half, &batch, &none).unwrap_err().to_string();
    assert!(error.contains("logits of the victim") && error.contains("[3, 5, 8, 8]"), "{error}");
}

#[test]
fn more_logits_than_classes_and_labels_beyond_the_logits_are_no_panic() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let labels = batch.targets.labels().clone().mask_fill(batch.targets.labels().clone().equal_elem(0), 77);
    let batch = Batch::new(batch.images, fireproof_tensor::Targets::hard(labels), batch.ids).unwrap();
    for attack in fireproof_attacks::list() {
        let own = config(attack.name);
        let settings = AttackConfig { steps: own.steps.min(30), ..own };
        let found = build(&settings).unwrap().run(&model, &batch, &Context::new(0)).unwrap();
        assert_eq!(found.images.dims(), batch.dims());
    }
}
