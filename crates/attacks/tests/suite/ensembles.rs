//! SEA and the noise beside it, and the attacks that look at views of an image.

use burn::tensor::Tensor;
use fireproof_attacks::{AttackConfig, Context, Iterate, Start, build};
use fireproof_tensor::{Batch, Counted, Norm, victim};

use crate::support::{Blind, Network, batch, config, floats};

fn setting() -> (Network, Batch) {
    let network = Network::random(3, 3, 5);
    let batch = batch(4, &victim(|x| network.forward(x)), 5, [4, 3, 16, 20]);
    (network, batch)
}

#[test]
fn sea_keeps_of_each_image_the_worst_of_its_runs() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let accuracy = |images: Tensor<4>| batch.targets.accuracy(&network.forward(images));
    for (name, runs) in
        [("sea", &["balanced", "masked-ce", "js"][..]), ("sea+", &["balanced", "masked-ce", "js", "tsallis"])]
    {
        let settings = AttackConfig { steps: 10, epsilon: 4.0 / 255.0, ..config(name) };
        let found = build(&settings).unwrap().run(&model, &batch, &Context::new(2)).unwrap();
        let names: Vec<&str> = found.candidates.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, runs);
        let each: Vec<Vec<f32>> = found.candidates.iter().map(|c| accuracy(c.images.clone())).collect();
        let worst = accuracy(found.images.clone());
        println!("{name}: {each:?} → {worst:?}");
        for image in 0..4 {
            let lowest = each.iter().map(|a| a[image]).fold(1.0, f32::min);
            assert_eq!(worst[image], lowest);
        }
        let images = found.candidates.iter().map(|c| floats(&c.images));
        for (i, images) in images.enumerate() {
            let clean = floats(&batch.images);
            let largest = images.iter().zip(&clean).map(|(a, c)| (a - c).abs()).fold(0.0, f32::max);
            assert!(largest <= 4.0 / 255.0 + 1e-6, "{} lies in the ball", runs[i]);
        }
        // Ten steps in three stages of 3, 3 and 4, each with a pass at its end.
        let each_image = runs.len() as u64;
        assert_eq!((found.passes.forward, found.passes.backward), (4 * 13 * each_image, 4 * 10 * each_image));
    }
}

#[test]
fn a_run_of_sea_is_apgd_with_that_loss_and_radius_reduction() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let context = Context { start: Some(&batch.images), ..Context::new(2) };
    let sea = build(&AttackConfig { steps: 20, ..config("sea") }).unwrap().run(&model, &batch, &context).unwrap();
    for (i, objective) in ["balanced", "masked-ce", "js"].iter().enumerate() {
        let options = [("objective", *objective), ("radii", "2,1.5,1")];
        let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let apgd = AttackConfig { steps: 20, options, ..config("apgd") };
        let apgd = build(&apgd).unwrap().run(&model, &batch, &context).unwrap();
        assert_eq!(floats(&sea.candidates[i].images), floats(&apgd.images), "{objective}");
    }
    let with = |key: &str, value: &str| {
        let options = [(key.to_string(), value.to_string())].into();
        let settings = AttackConfig { steps: 20, options, ..config("sea") };
        build(&settings).unwrap().run(&model, &batch, &context).unwrap()
    };
    let counted = with("counts", "1,1000,1,1000,1");
    assert_ne!(floats(&counted.candidates[0].images), floats(&sea.candidates[0].images));
    assert_eq!(floats(&counted.candidates[1].images), floats(&sea.candidates[1].images));
    assert_ne!(floats(&with("radii", "1").candidates[1].images), floats(&sea.candidates[1].images));
    let refused = build(&AttackConfig { iterate: Iterate::Last, ..config("sea") }).err().unwrap().to_string();
    assert!(refused.contains("iterate is last, expected best-accuracy"), "{refused}");
}

#[test]
fn sea_leaves_less_than_a_single_weak_attack_and_its_trace_tells_all_runs() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let mean = |images: Tensor<4>| batch.targets.accuracy(&network.forward(images)).iter().sum::<f32>();
    let run = |name: &str| {
        let settings = AttackConfig { steps: 60, ..config(name) };
        let context = Context { trace: true, ..Context::new(2) };
        build(&settings).unwrap().run(&model, &batch, &context).unwrap()
    };
    let (sea, pgd) = (run("sea"), run("pgd"));
    let rows = &sea.trace.as_ref().unwrap().rows;
    let of = |restart| rows.iter().filter(|r| r.restart == restart).count();
    assert_eq!((of(0), of(1), of(2), of(3)), (63, 63, 63, 0));
    assert!(mean(sea.images) < mean(pgd.images));
}

#[test]
fn noise_is_the_worst_of_its_draws_and_needs_no_gradient() {
    let (network, batch) = setting();
    let model = Blind(victim(|x| network.forward(x)));
    let counted = Counted::new(&model);
    for norm in [Norm::Linf, Norm::L2] {
        let run = |restarts| {
            let settings = AttackConfig { norm, epsilon: 0.2, restarts, ..config("noise") };
            let context = Context { trace: true, ..Context::new(2) };
            build(&settings).unwrap().run(&counted, &batch, &context).unwrap()
        };
        let many = run(8);
        assert_eq!((many.passes.forward, many.passes.backward), (32, 0));
        let accuracy = batch.targets.accuracy(&network.forward(many.images.clone()));
        let rows = many.trace.unwrap().rows;
        for (image, accuracy) in accuracy.iter().enumerate() {
            assert_eq!(*accuracy, rows.iter().map(|r| r.accuracy[image]).fold(1.0, f32::min));
        }
        assert_eq!(rows[0].accuracy, run(1).trace.unwrap().rows[0].accuracy, "more draws hold the first");
        let delta = floats(&(run(1).images - batch.images.clone()));
        match norm {
            // Uniform: as many values in each half of the range.
            Norm::Linf => {
                let large = delta.iter().filter(|d| d.abs() > 0.1).count() as f32 / delta.len() as f32;
                assert!((0.35..0.55).contains(&large), "{large}");
            }
            Norm::L2 => {
                let length = delta[..960].iter().map(|d| d * d).sum::<f32>().sqrt();
                assert!(length <= 0.2 + 1e-5 && length > 0.19, "{length}");
            }
        }
    }
    let refused = |change: fn(&mut AttackConfig)| {
        let mut settings = config("noise");
        change(&mut settings);
        build(&settings).err().unwrap().to_string()
    };
    assert!(refused(|c| c.steps = 10).contains("steps is 10, expected 1; more draws are restarts"));
    assert!(refused(|c| c.start = Start::Zero).contains("start is zero, expected random"));
}

#[test]
fn momentum_attacks_share_a_loop_and_differ_by_what_they_look_at() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    let run = |name: &str, options: &[(&str, &str)]| {
        let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        build(&AttackConfig { options, ..config(name) }).unwrap().run(&model, &batch, &Context::new(2)).unwrap()
    };
    let plain = run("mi-fgsm", &[]);
    let images = |found: &fireproof_attacks::Adversarial| floats(&found.images);
    // ε / steps a step from the clean image: after one step of 20 at most a twentieth of the way.
    let one = AttackConfig { steps: 1, step_size: Some(8.0 / 255.0 / 20.0), ..config("mi-fgsm") };
    let one = build(&one).unwrap().run(&model, &batch, &Context::new(2)).unwrap();
    let moved: f32 = (one.images - batch.images.clone()).abs().max().into_scalar();
    assert!((moved - 8.0 / 255.0 / 20.0).abs() < 1e-6);
    let bim = AttackConfig { steps: 20, step_size: Some(8.0 / 255.0 / 20.0), ..config("bim") };
    let bim = floats(&build(&bim).unwrap().run(&model, &batch, &Context::new(2)).unwrap().images);
    assert_eq!(images(&run("mi-fgsm", &[("decay", "0")])), bim, "without memory it is BIM");
    assert_ne!(images(&plain), bim);

    let passes = |found: &fireproof_attacks::Adversarial| (found.passes.forward / 4, found.passes.backward / 4);
    assert_eq!(passes(&plain), (20, 20));
    let names = ["di-fgsm", "ti-fgsm", "ds-fgsm"];
    let all: Vec<_> = names.iter().map(|name| run(name, &[])).collect();
    for (name, found) in names.iter().zip(&all) {
        assert_ne!(images(found), images(&plain), "{name}");
    }
    assert_eq!(passes(&all[0]), (20, 20));
    assert_eq!(passes(&all[2]), (80, 80), "four scales a step");
    // Options turn one into another.
    assert_eq!(images(&run("mi-fgsm", &[("kernel", "7")])), images(&all[1]));
    let plain_again = run("di-fgsm", &[("diversity", "0")]);
    assert_eq!(images(&plain_again), images(&plain), "nothing else is random");
    let error = |name: &str, options: &[(&str, &str)]| {
        let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        build(&AttackConfig { options, ..config(name) }).err().unwrap().to_string()
    };
    assert!(error("mi-fgsm", &[("kernel", "4")]).contains("kernel is 4"));
    assert!(error("mi-fgsm", &[("copies", "0")]).contains("copies is 0"));
    assert!(error("mi-fgsm", &[("smallest", "0")]).contains("smallest is 0"));
    let best = AttackConfig { iterate: Iterate::BestAccuracy, ..config("di-fgsm") };
    assert!(build(&best).err().unwrap().to_string().contains("the steps see changed images"));
}

#[test]
fn a_smoothed_gradient_gives_a_smoother_perturbation() {
    let (network, batch) = setting();
    let model = victim(|x| network.forward(x));
    // How often the perturbation turns its sign from one pixel to the next.
    let turns = |name: &str| {
        let found = build(&config(name)).unwrap().run(&model, &batch, &Context::new(2)).unwrap();
        let delta = floats(&(found.images - batch.images.clone()));
        delta.chunks(20).flat_map(|row| row.windows(2)).filter(|w| w[0] * w[1] < 0.0).count()
    };
    let (plain, smoothed) = (turns("mi-fgsm"), turns("ti-fgsm"));
    assert!(2 * smoothed < plain, "{plain} {smoothed}");
}
