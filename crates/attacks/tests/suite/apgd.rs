//! APGD, radius reduction, Adam, early endings.

use std::cell::RefCell;

use burn::tensor::Tensor;
use fireproof_attacks::{
    AttackConfig, Context, GradientAttack, Iterate, Radii, Start, View, build,
    methods::pgd::Pgd,
    objective::Weighted,
    update::{Adam, Apgd, checkpoints},
};
use fireproof_tensor::{Batch, Norm, Targets, ops::cross_entropy, victim};

use crate::support::{Network, batch, config, device, floats, tensor};

#[test]
fn checkpoints_are_the_published_ones() {
    // 22 % of the steps, then 3 % less each time down to 6 %, all rounded down.
    assert_eq!(checkpoints(90), [19, 36, 51, 64, 75, 84]);
    let of_120 = checkpoints(120);
    assert_eq!(of_120[..4], [26, 49, 69, 86]);
    assert!(of_120.windows(2).all(|w| w[1] - w[0] >= 7));
    assert_eq!(checkpoints(100), [22, 41, 57, 70, 80, 87, 93, 99]);
    assert_eq!(checkpoints(4), [1, 2, 3, 4]);
}

/// Logits of one pixel that are a function of one value: the loss along a line.
fn on_a_line(config: AttackConfig, update: Apgd, start: f32, lead: impl Fn(Tensor<4>) -> Tensor<4>) -> Vec<f32> {
    let model = victim(move |x: Tensor<4>| {
        let lead = lead(x);
        Tensor::cat(vec![-lead.clone(), lead], 1)
    });
    let targets = Targets::from_labels(&[0], [1, 1, 1], &device()).unwrap();
    let batch = Batch::new(tensor(vec![0.5], [1, 1, 1, 1]), targets, vec![0]).unwrap();
    let seen = RefCell::new(Vec::new());
    let observer = |view: &View<'_>| seen.borrow_mut().push(floats(view.images)[0]);
    let from = tensor(vec![start], [1, 1, 1, 1]);
    let context = Context { observer: Some(&observer), start: Some(&from), ..Context::new(0) };
    let attack = GradientAttack { update: Box::new(update), ..GradientAttack::new(&config, Weighted(Pgd)).unwrap() };
    let found = attack.run(&model, &batch, &context).unwrap();
    let mut seen = seen.into_inner();
    seen.push(floats(&found.images)[0]);
    seen
}

use fireproof_attacks::Attack;

#[test]
fn a_step_has_three_quarters_of_itself_and_a_quarter_of_the_last() {
    // A loss that rises to the right all the way.
    let settings = AttackConfig { epsilon: 0.4, steps: 3, start: Start::Zero, ..config("pgd") };
    let seen = on_a_line(settings, Apgd { step_size: Some(0.04) }, 0.5, |x| x);
    // The checkpoint after the first step sees one rise in one step, above three quarters.
    let expected = [0.5, 0.54, 0.54 + 0.75 * 0.04 + 0.25 * 0.04, 0.62];
    assert!(seen.iter().zip(expected).all(|(s, e)| (s - e).abs() < 1e-6), "{seen:?}");
}

#[test]
fn where_the_loss_oscillates_the_step_is_halved_and_the_run_goes_back_to_its_best_point() {
    // A peak at 0.55, narrower than the first step of 2 ε: every step jumps over it.
    let settings = AttackConfig { epsilon: 0.4, steps: 100, start: Start::Zero, ..config("pgd") };
    let peak = |x: Tensor<4>| -((x - 0.55).abs() * 10.0);
    let seen = on_a_line(settings.clone(), Apgd::default(), 0.5, peak);
    // The run goes on from the best point of the first window with the gradient that it had there.
    let best = seen[..=22].iter().copied().min_by(|a, b| (a - 0.55).abs().total_cmp(&(b - 0.55).abs())).unwrap();
    assert!((seen[1] - 0.9).abs() < 1e-6, "the first step is 2 ε, projected: {seen:?}");
    let step = 0.4;
    let (before, direction) = (seen[21], (0.55 - best).signum());
    let stepped = (best + step * direction).clamp(0.1, 0.9);
    let expected = (best + 0.75 * (stepped - best) + 0.25 * (best - before)).clamp(0.1, 0.9);
    assert!((seen[23] - expected).abs() < 1e-5, "{} is not {expected}: {seen:?}", seen[23]);
    let last = (seen[99] - 0.55).abs();
    assert!(last < 0.02, "steps shrink until the peak is met: {last}");
    // With the step of PGD it never is.
    let pgd = GradientAttack::new(&AttackConfig { step_size: Some(0.8), ..settings }, Weighted(Pgd)).unwrap();
    let model = victim(move |x: Tensor<4>| {
        let lead = peak(x);
        Tensor::cat(vec![-lead.clone(), lead], 1)
    });
    let targets = Targets::from_labels(&[0], [1, 1, 1], &device()).unwrap();
    let batch = Batch::new(tensor(vec![0.5], [1, 1, 1, 1]), targets, vec![0]).unwrap();
    let found = floats(&pgd.run(&model, &batch, &Context::new(0)).unwrap().images)[0];
    assert!((found - 0.55).abs() > 0.3, "{found}");
}

#[test]
fn apgd_finds_more_loss_than_pgd_with_the_same_passes() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let batch = batch(4, &model, 5, [3, 3, 16, 20]);
    for (norm, epsilon) in [(Norm::Linf, 8.0 / 255.0), (Norm::L2, 0.7)] {
        let loss = |name: &str| {
            let settings =
                AttackConfig { norm, epsilon, steps: 60, iterate: Iterate::BestLoss, step_size: None, ..config(name) };
            let context = Context { start: Some(&batch.images), ..Context::new(1) };
            let found = build(&settings).unwrap().run(&model, &batch, &context).unwrap();
            assert_eq!(found.passes.backward, 180);
            let loss = cross_entropy(network.forward(found.images), &batch.targets);
            loss.sum().into_scalar::<f32>()
        };
        let (apgd, pgd) = (loss("apgd"), loss("pgd"));
        println!("{norm}: cross-entropy {apgd} with APGD, {pgd} with PGD");
        assert!(apgd > pgd, "{norm}: {apgd} {pgd}");
    }
}

#[test]
fn every_objective_can_be_ascended_by_apgd_and_options_belong_to_it() {
    let with = |options: &[(&str, &str)]| {
        let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        build(&AttackConfig { options, ..config("apgd") })
    };
    for name in [
        "ce",
        "segpgd",
        "cospgd",
        "masked-ce",
        "balanced",
        "js",
        "tsallis",
        "spherical",
        "uncertainty",
        "rp-pgd",
        "eroseg",
        "margin",
        "dlr",
        "cosine",
        "dice",
    ] {
        with(&[("objective", name)]).map(drop).unwrap();
    }
    with(&[("objective", "segpgd"), ("lambda", "0.2")]).map(drop).unwrap();
    let error = |options: &[(&str, &str)]| with(options).err().unwrap().to_string();
    assert!(error(&[("objective", "jss")]).contains("objective is 'jss', expected one of balanced, ce, cosine"));
    assert!(error(&[("objective", "js"), ("lambda", "0.2")]).contains("lambda = '0.2'"));
    assert!(error(&[("lambda", "0.2")]).contains("expected objective (ce,"));
    assert!(error(&[("radii", "1,2")]).contains("radii is '1,2'"));
}

#[test]
fn the_ascended_loss_decides_where_apgd_goes() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let batch = batch(4, &model, 5, [2, 3, 16, 20]);
    let run = |objective: &str| {
        let options = [("objective".to_string(), objective.to_string())].into();
        let settings = AttackConfig { steps: 10, options, ..config("apgd") };
        floats(&build(&settings).unwrap().run(&model, &batch, &Context::new(1)).unwrap().images)
    };
    assert_ne!(run("ce"), run("js"));
    assert_ne!(run("ce"), run("masked-ce"));
}

#[test]
fn radii_shrink_to_the_ball_and_the_schedule_goes_through_all_stages() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let batch = batch(4, &model, 5, [2, 3, 16, 20]);
    let epsilon = 8.0 / 255.0;
    let seen: RefCell<Vec<(usize, f32, f32)>> = RefCell::default();
    let observer = |view: &View<'_>| {
        let radius: f32 = (view.images.clone() - batch.images.clone()).abs().max().into_scalar();
        assert_eq!(view.steps, 10);
        seen.borrow_mut().push((view.step, radius, floats(view.loss)[0]));
    };
    let options = [("radii", "2,1.5,1"), ("objective", "tsallis")];
    let settings = AttackConfig {
        steps: 10,
        options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        ..config("apgd")
    };
    let context = Context { observer: Some(&observer), ..Context::new(1) };
    let found = build(&settings).unwrap().run(&model, &batch, &context).unwrap();
    let seen = seen.into_inner();
    // Each stage ends with a pass of its own, which shows its last iterate.
    let steps: Vec<usize> = seen.iter().map(|s| s.0).collect();
    assert_eq!(steps, [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 10]);
    let largest = |range: std::ops::Range<usize>| seen[range].iter().map(|s| s.1).fold(0.0, f32::max) / epsilon;
    for (range, radius) in [(0..4, 2.0), (4..8, 1.5), (8..13, 1.0)] {
        let found = largest(range);
        assert!(found <= radius + 1e-4 && found > 0.99 * radius, "{found} in a ball of {radius}");
    }
    let returned: f32 = (found.images.clone() - batch.images.clone()).abs().max().into_scalar();
    assert!(returned <= epsilon + 1e-6);
    // The lowest accuracy of the last stage, not of the larger balls.
    let model = |x| network.forward(x);
    let accuracy = batch.targets.accuracy(&model(found.images));
    assert!(accuracy.iter().all(|a| (0.0..1.0).contains(a)));
    let constant = AttackConfig { options: [("objective".to_string(), "tsallis".to_string())].into(), ..settings };
    let other = build(&constant).unwrap().run(&victim(model), &batch, &Context::new(1)).unwrap();
    assert_eq!(other.passes.backward, found.passes.backward);
}

#[test]
fn a_smaller_ball_begins_at_the_best_iterate_of_the_larger_one_projected() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let batch = batch(4, &model, 5, [1, 3, 16, 20]);
    let seen: RefCell<Vec<Tensor<4>>> = RefCell::default();
    let observer = |view: &View<'_>| seen.borrow_mut().push(view.images.clone());
    let attack = GradientAttack {
        radii: "2,1".parse::<Radii>().unwrap(),
        ..GradientAttack::new(
            &AttackConfig { steps: 8, step_size: Some(0.02), iterate: Iterate::BestAccuracy, ..config("pgd") },
            Weighted(Pgd),
        )
        .unwrap()
    };
    let context = Context { observer: Some(&observer), ..Context::new(1) };
    attack.run(&model, &batch, &context).unwrap();
    let seen = seen.into_inner();
    let accuracy = |images: &Tensor<4>| batch.targets.accuracy(&network.forward(images.clone()))[0];
    let stage: Vec<f32> = seen[..5].iter().map(&accuracy).collect();
    let lowest = stage.iter().copied().fold(1.0, f32::min);
    let best = stage.iter().rposition(|a| *a == lowest).unwrap();
    let delta = (seen[best].clone() - batch.images.clone()).clamp(-8.0 / 255.0, 8.0 / 255.0);
    assert_eq!(floats(&seen[5]), floats(&(batch.images.clone() + delta).clamp(0.0, 1.0)));
}

#[test]
fn adam_moves_every_value_by_its_own_step() {
    // Slopes of very different size: the first step of Adam is the step size for all of them.
    let slopes = tensor(vec![1.0, 1e-3, -2.0, 0.0], [1, 1, 2, 2]);
    let model = victim(move |x: Tensor<4>| {
        let slopes = if x.is_autodiff() { Tensor::from_inner(slopes.clone()) } else { slopes.clone() };
        let lead = (x * slopes).sum_dim(2).sum_dim(3);
        Tensor::cat(vec![-lead.clone(), lead], 1)
    });
    let targets = Targets::from_labels(&[0], [1, 1, 1], &device()).unwrap();
    let batch = Batch::new(tensor(vec![0.5; 4], [1, 1, 2, 2]), targets, vec![0]).unwrap();
    let run = |steps| {
        let settings = AttackConfig { epsilon: 0.4, steps, start: Start::Zero, ..config("padam") };
        let attack = GradientAttack {
            update: Box::new(Adam { step_size: 0.01, drop_after: None }),
            ..GradientAttack::new(&settings, Weighted(Pgd)).unwrap()
        };
        floats(&attack.run(&model, &batch, &Context::new(0)).unwrap().images)
    };
    let one = run(1);
    assert!(one.iter().zip([0.51, 0.51, 0.49, 0.5]).all(|(a, b)| (a - b).abs() < 1e-5), "{one:?}");
    assert_eq!(run(200)[0], 0.9, "projected");
}

#[test]
fn adam_is_the_formula_of_its_paper() {
    // A loss whose gradient changes from pass to pass, followed on the host.
    let passes = std::cell::Cell::new(0);
    let slope = |pass: i32| [0.5f64, -2.0, 0.1, 3.0, -0.2][pass as usize];
    let model = victim(|x: Tensor<4>| {
        let lead = x * slope(passes.replace(passes.get() + 1)) as f32;
        Tensor::cat(vec![-lead.clone(), lead], 1)
    });
    let targets = Targets::from_labels(&[0], [1, 1, 1], &device()).unwrap();
    let batch = Batch::new(tensor(vec![0.5], [1, 1, 1, 1]), targets, vec![0]).unwrap();
    let settings =
        AttackConfig { epsilon: 0.5, steps: 5, step_size: Some(0.03), start: Start::Zero, ..config("padam") };
    let found = floats(&build(&settings).unwrap().run(&model, &batch, &Context::new(0)).unwrap().images)[0];
    let (mut x, mut mean, mut square, mut largest) = (0.5f64, 0.0, 0.0, 0.0f64);
    for t in 0..5 {
        // d CE / dx with logits (−s x, s x) and label 0.
        let s = slope(t);
        let g = 2.0 * s / (1.0 + (-2.0 * s * x).exp());
        mean = 0.9 * mean + 0.1 * g;
        square = 0.999 * square + 0.001 * g * g;
        largest = largest.max(square);
        let scale = (largest / (1.0 - 0.999f64.powi(t + 1))).sqrt() + 1e-8;
        x = (x + 0.03 * mean / (1.0 - 0.9f64.powi(t + 1)) / scale).clamp(0.0, 1.0);
    }
    assert!((f64::from(found) - x).abs() < 1e-5, "{found} {x}");
}

#[test]
fn padam_follows_other_objectives_and_is_not_pgd() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let batch = batch(4, &model, 5, [2, 3, 16, 20]);
    let run = |name: &str, objective: Option<&str>| {
        let options = objective.map(|o| ("objective".to_string(), o.to_string())).into_iter().collect();
        let settings = AttackConfig { steps: 2, step_size: Some(0.01), options, ..config(name) };
        let context = Context { start: Some(&batch.images), ..Context::new(1) };
        floats(&build(&settings).unwrap().run(&model, &batch, &context).unwrap().images)
    };
    let (pgd, ce, cosine) = (run("pgd", None), run("padam", None), run("padam", Some("cosine")));
    let differ = |a: &[f32], b: &[f32]| a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
    assert!(differ(&pgd, &ce) > pgd.len() / 4);
    assert!(differ(&ce, &cosine) > pgd.len() / 4);
}

#[test]
fn a_run_ends_when_everything_is_fooled_and_returns_the_same_in_any_batch() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let whole = batch(4, &model, 5, [3, 3, 16, 20]);
    // The first image has one labelled pixel, soon fooled; the others keep theirs.
    let mut labels: Vec<i32> = whole.targets.labels().clone().try_into_vec_as().unwrap();
    let seen: Vec<i32> = network.forward(whole.images.clone()).argmax(1).try_into_vec_as().unwrap();
    labels[..320].fill(255);
    labels[100] = seen[100];
    let labels: Vec<u8> = labels.iter().map(|l| *l as u8).collect();
    let targets = Targets::from_labels(&labels, [3, 16, 20], &device()).unwrap();
    let batch = Batch::new(whole.images, targets, whole.ids).unwrap();
    for (name, epsilon) in [("apgd", 0.2), ("sea", 0.2)] {
        let settings = AttackConfig { steps: 100, epsilon, ..config(name) };
        let attack = build(&settings).unwrap();
        let run = |positions: &[usize]| attack.run(&model, &batch.select(positions), &Context::new(3)).unwrap();
        let (alone, together) = (run(&[0]), run(&[0, 1, 2]));
        assert!(alone.passes.backward < together.passes.backward / 3, "{name} goes on with what is fooled");
        assert_eq!(floats(&alone.images), floats(&together.images)[..960], "{name}");
        let accuracy = batch.targets.accuracy(&network.forward(together.images));
        assert_eq!(accuracy[0], 0.0);
    }
}
