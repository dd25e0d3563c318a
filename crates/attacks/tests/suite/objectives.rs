//! The losses beyond plain cross-entropy: values, weights and gradients against closed forms on the host.

use burn::tensor::Tensor;
use fireproof_attacks::{
    AttackConfig, Context, Goal, Iterate, Scene, Step, build, inventory,
    methods::{balanced::Balanced, eroseg, js::Js, rp_pgd, tsallis::Tsallis},
    objective::{Evaluation, NamedObjective, Objective, OfLabel},
};
use fireproof_tensor::{Batch, Targets, VOID, random::Stream, victim};

use crate::{
    losses::{TOLERANCE, evaluate},
    support::{Golden, Network, batch, config, device, floats, relative_error, tensor, with_scene},
};

/// Objectives that an attack of the same name follows with the step of PGD.
const NAMES: [&str; 12] = [
    "balanced",
    "cosine",
    "dice",
    "dlr",
    "eroseg",
    "js",
    "margin",
    "masked-ce",
    "rp-pgd",
    "spherical",
    "tsallis",
    "uncertainty",
];

fn named(name: &str, options: &[(&str, &str)]) -> Box<dyn Objective> {
    let found = inventory::iter::<NamedObjective>.into_iter().find(|o| o.name == name).expect(name);
    let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    (found.build)(&AttackConfig { options, ..config("pgd") }).unwrap()
}

fn step(index: usize, total: usize) -> Step {
    Step { index, total }
}

/// Logits `[2, 4, 2, 3]` with distinct values at every pixel, and labels with a void pixel in each image.
fn setting() -> (Tensor<4>, Targets) {
    let stream = Stream::new(&[17]);
    let logits = tensor((0..48).map(|i| stream.normal(i) * 1.5).collect(), [2, 4, 2, 3]);
    let targets = Targets::from_labels(&[0, 1, VOID, 3, 1, 2, 0, 0, 1, VOID, 2, 3], [2, 2, 3], &device()).unwrap();
    (logits, targets)
}

/// The objective at these logits; a victim that shows `clean` answers objectives that ask.
fn at(objective: &dyn Objective, step: Step, logits: &Tensor<4>, targets: &Targets, targeted: bool) -> Evaluation {
    let [n, height, width] = targets.dims();
    let images = Tensor::zeros([n, 1, height, width], &device());
    let batch = Batch::new(images, targets.clone(), (0..n as u64).collect()).unwrap();
    let goal = Goal { targets: targets.clone(), targeted };
    let same = victim(|_| logits.clone());
    let scene = Scene { victim: &same, batch: &batch, goal: &goal, steps: step.total, context: &Context::new(0) };
    objective.begin(&scene).unwrap().evaluate(step, logits)
}

#[test]
fn jensen_shannon_and_tsallis_and_masked_losses_are_those_of_the_reference() {
    let Some(golden) = Golden::open("losses.safetensors") else { return };
    let (logits, targets) = (golden.tensor("logits"), golden.labels("labels"));
    let fixed = |q: f32| OfLabel(Tsallis { from: q, to: q });
    let cases: [(&str, &str, Box<dyn Objective>); 4] = [
        ("js", "js_grad", Box::new(OfLabel(Js))),
        ("tsallis_-2.0", "tsallis_grad_-2.0", Box::new(fixed(-2.0))),
        ("tsallis_0.0", "tsallis_grad_0.0", Box::new(fixed(0.0))),
        ("tsallis_0.5", "tsallis_grad_0.5", Box::new(fixed(0.5))),
    ];
    for (value, gradient, objective) in cases {
        let found = evaluate(&*objective, step(0, 1), &logits, &targets);
        let per_image: Vec<f32> = golden.values(value).chunks(63).map(|image| image.iter().sum()).collect();
        assert!(relative_error(&floats(&found.loss), &per_image) < TOLERANCE, "{value}");
        assert!(relative_error(&floats(&found.cotangent), golden.values(gradient)) < TOLERANCE, "{gradient}");
        let tracked: Vec<f32> = golden.values("ce").chunks(63).map(|image| image.iter().sum()).collect();
        assert!(relative_error(&floats(&found.tracked), &tracked) < TOLERANCE, "{value} is compared by cross-entropy");
    }
    let found = evaluate(&*named("masked-ce", &[]), step(3, 9), &logits, &targets);
    assert!(relative_error(&floats(&found.cotangent), golden.values("mce_grad")) < TOLERANCE);
    assert!(relative_error(golden.values("ce_grad"), golden.values("mce_grad")) > 0.1, "not plain cross-entropy");
}

/// Value and weight of a pixel whose label has probability `p`, with two classes.
fn of_probability(objective: &dyn Objective, at_step: Step, p: f64) -> (f32, f32) {
    // The other logit is finite even where p is zero or one to every digit of f32.
    let logit = (p / (1.0 - p)).ln().clamp(-500.0, 500.0) as f32;
    let targets = Targets::from_labels(&[0], [1, 1, 1], &device()).unwrap();
    let logits = tensor(vec![logit, 0.0], [1, 2, 1, 1]);
    let found = evaluate(objective, at_step, &logits, &targets);
    let plain = evaluate(&*named("ce", &[]), at_step, &logits, &targets);
    (floats(&found.loss)[0], floats(&found.cotangent)[0] / floats(&plain.cotangent)[0])
}

#[test]
fn jensen_shannon_has_its_closed_form_values() {
    for (p, value) in [(1.0, 0.0), (0.5, 0.215762), (0.0, std::f32::consts::LN_2)] {
        let found = of_probability(&OfLabel(Js), step(0, 1), p).0;
        assert!((found - value).abs() < 1e-6, "at {p}: {found}");
    }
    for (p, weight) in [(0.5, 0.274653), (1.0 - 1e-6, 0.346574), (0.01, 0.005 * 101f32.ln())] {
        let found = of_probability(&OfLabel(Js), step(0, 1), p).1;
        assert!((found - weight).abs() < 2e-6 + 0.05 * (1.0 - p as f32) * 1e-3, "at {p}: {found}, not {weight}");
    }
}

#[test]
fn tsallis_has_its_closed_form_values_and_ends_at_cross_entropy() {
    let formulas: [(f32, fn(f32) -> f32); 4] =
        [(0.0, |p| 1.0 - p), (-1.0, |p| (1.0 - p * p) / 2.0), (-2.0, |p| (1.0 - p * p * p) / 3.0), (1.0, |p| -p.ln())];
    for (q, formula) in formulas {
        let loss = OfLabel(Tsallis { from: q, to: q });
        for p in [0.9, 0.5, 0.1, 1e-3] {
            let (value, weight) = of_probability(&loss, step(2, 7), p);
            let p = p as f32;
            assert!((value - formula(p)).abs() < 1e-5 * formula(p).max(1.0), "q {q}, p {p}: {value}");
            assert!((weight - p.powf(1.0 - q)).abs() < 1e-4, "q {q}, p {p}: weight {weight}");
        }
    }
    // Near p = 1 the value is tiny, and must not be lost to cancellation.
    let tiny = of_probability(&OfLabel(Tsallis { from: -2.0, to: -2.0 }), step(0, 1), 1.0 / (1.0 + 1e-5)).0;
    assert!((tiny / 1e-5 - 1.0).abs() < 1e-2, "{tiny}");
    let q: Vec<f32> = (0..3).map(|t| Tsallis::default().q(step(t, 3))).collect();
    assert_eq!(q, [-2.0, -1.0, 0.0]);
    assert!(!build(&config("tsallis")).unwrap().contains_shorter_runs());
    let fixed = AttackConfig { options: [("q".into(), "-1".into())].into(), ..config("tsallis") };
    assert!(build(&fixed).unwrap().contains_shorter_runs());
}

#[test]
fn gradients_of_losses_are_their_finite_differences() {
    let (logits, targets) = setting();
    let values = floats(&logits);
    let cases: [(&str, &[(&str, &str)]); 8] = [
        ("js", &[]),
        ("tsallis", &[]),
        ("spherical", &[]),
        ("cosine", &[]),
        ("dice", &[]),
        ("margin", &[]),
        ("margin", &[("kappa", "inf")]),
        ("dlr", &[]),
    ];
    for (name, options) in cases {
        for targeted in [false, true] {
            let objective = named(name, options);
            let evaluate =
                |values: Vec<f32>| at(&*objective, step(2, 5), &tensor(values, [2, 4, 2, 3]), &targets, targeted);
            let gradient = floats(&evaluate(values.clone()).cotangent);
            let moved = |i: usize, by: f32| {
                let mut values = values.clone();
                values[i] += by;
                floats(&evaluate(values).loss).iter().map(|l| f64::from(*l)).sum::<f64>()
            };
            let h = 4e-3;
            let difference: Vec<f32> =
                (0..48).map(|i| ((moved(i, h) - moved(i, -h)) / f64::from(2.0 * h)) as f32).collect();
            let error = relative_error(&gradient, &difference);
            assert!(error < 5e-3, "{name} {options:?}, targeted {targeted}: {error}\n{gradient:?}\n{difference:?}");
            assert!(gradient.iter().any(|g| *g != 0.0));
        }
    }
}

/// What the host says about one pixel: its sorted probabilities, whether it is correct, its label.
struct Pixel {
    sorted: Vec<f64>,
    correct: bool,
    label: usize,
}

/// The weights that an objective gives, against `formula`; read from the cotangent, which must be `w · (p − e_y)`.
fn weights_are(objective: &dyn Objective, at_step: Step, targeted: bool, formula: impl Fn(usize, &Pixel) -> f64) {
    let (logits, targets) = setting();
    let found = floats(&at(objective, at_step, &logits, &targets, targeted).cotangent);
    let labels: Vec<i32> = targets.labels().clone().try_into_vec_as().unwrap();
    let z = floats(&logits);
    let mut expected = vec![0.0f32; 48];
    for (i, &label) in labels.iter().enumerate().filter(|(_, l)| **l != i32::from(VOID)) {
        let (image, pixel, label) = (i / 6, i % 6, label as usize);
        let index = |k: usize| (image * 4 + k) * 6 + pixel;
        let exp: Vec<f64> = (0..4).map(|k| f64::from(z[index(k)]).exp()).collect();
        let total: f64 = exp.iter().sum();
        let p: Vec<f64> = exp.iter().map(|e| e / total).collect();
        let mut sorted = p.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let weight = formula(image, &Pixel { correct: p[label] == sorted[0], sorted, label });
        for k in 0..4 {
            expected[index(k)] = (weight * (p[k] - f64::from(u8::from(k == label)))) as f32;
        }
    }
    assert!(relative_error(&found, &expected) < TOLERANCE, "{found:?}\n{expected:?}");
}

#[test]
fn uncertainty_weights_are_their_formulas() {
    let formulas: [(&str, fn(&Pixel) -> f64); 5] = [
        ("entropy", |p| (p.sorted.iter().map(|p| -p * p.ln()).sum::<f64>() / 4f64.ln()).exp()),
        ("margin", |p| (1.0 - p.sorted[0] + p.sorted[1]).exp()),
        ("range", |p| (1.0 - p.sorted[0] + p.sorted[3]).exp()),
        ("spread", |p| (1.0 - p.sorted.iter().map(|other| p.sorted[0] - other).sum::<f64>() / 3.0).exp()),
        ("skip", |p| if !p.correct && p.sorted[0] > 0.75 { 0.0 } else { 1.0 }),
    ];
    for (measure, formula) in formulas {
        weights_are(&*named("uncertainty", &[("measure", measure)]), step(0, 1), false, |_, p| formula(p));
    }
}

#[test]
fn eroded_pixels_are_the_correct_ones_below_a_threshold_that_opens() {
    assert!((eroseg::threshold(step(0, 10)) - 0.8).abs() < 1e-6);
    assert!((eroseg::threshold(step(1, 10)) - (1.0 - 0.2 * (-0.8f32).exp())).abs() < 1e-6);
    for index in [0, 1, 60] {
        let tau = f64::from(eroseg::threshold(step(index, 100)));
        let class = |p: &Pixel| if p.label == 0 { 0.3 } else { 0.7 };
        let counted = |p: &Pixel| p.correct && (p.sorted[0] < tau || index == 60);
        weights_are(&*named("eroseg", &[]), step(index, 100), false, |_, p| if counted(p) { class(p) } else { 0.0 });
        weights_are(&*named("eroseg", &[("background", "none")]), step(index, 100), false, |_, p| {
            if counted(p) { 1.0 } else { 0.0 }
        });
        // A targeted run erodes what does not show the target yet.
        weights_are(&*named("eroseg", &[("background", "none")]), step(index, 100), true, |_, p| {
            f64::from(u8::from(!p.correct && (p.sorted[0] < tau || index == 60)))
        });
    }
    // A victim that is sure to the last digit of f32 is attacked once the threshold has opened.
    let sure = tensor(vec![50.0, 0.0], [1, 2, 1, 1]);
    let targets = Targets::from_labels(&[0], [1, 1, 1], &device()).unwrap();
    let loss = |index| floats(&evaluate(&*named("uncertainty", &[]), step(index, 99), &sure, &targets).loss)[0];
    assert!(loss(0).is_finite());
}

#[test]
fn balanced_weights_are_one_over_the_pixels_of_the_class() {
    // Valid labels of the images: [0, 1, 3, 1, 2] and [0, 0, 1, 2, 3], four classes each.
    let own = [[1.0, 2.0, 1.0, 1.0], [2.0, 1.0, 1.0, 1.0]];
    weights_are(
        &Balanced::default(),
        step(0, 1),
        false,
        |image, p| {
            if p.correct { 5.0 / 4.0 / own[image][p.label] } else { 0.0 }
        },
    );
    let counts = [700.0, 20.0, 250.0, 30.0];
    weights_are(&*named("balanced", &[("counts", "700,20,250,30")]), step(0, 1), false, |_, p| {
        if p.correct { 250.0 / counts[p.label] } else { 0.0 }
    });
    let (logits, targets) = setting();
    with_scene(targets, false, 1, |scene| {
        let short = Balanced { counts: Some(vec![1, 2, 3]) };
        let error = short.begin(scene).err().unwrap().to_string();
        assert!(error.contains("3 entries") && error.contains("class 3"), "{error}");
    });
    let _ = logits;
    let refused = |counts: &str| {
        let options = [("counts".to_string(), counts.to_string())].into();
        build(&AttackConfig { options, ..config("balanced") }).err().unwrap().to_string()
    };
    assert!(refused("0,0").contains("counts is '0,0'") && refused("1,x").contains("image, or the training set's"));
}

#[test]
fn a_pixel_that_was_fooled_once_keeps_the_weight_of_the_lost() {
    // One pixel each: held all the time; lost at step 1 and back at step 2; wrong from the clean image on.
    let targets = Targets::from_labels(&[0, 0, 0], [1, 1, 3], &device()).unwrap();
    let (right, wrong) = (2.0, -2.0);
    let shown = |pixels: [f32; 3]| {
        let others = [0.0; 3];
        tensor(pixels.into_iter().chain(others).collect(), [1, 2, 1, 3])
    };
    let clean = shown([right, right, wrong]);
    let batch = Batch::new(Tensor::zeros([1, 1, 1, 3], &device()), targets.clone(), vec![0]).unwrap();
    let goal = Goal { targets: targets.clone(), targeted: false };
    let model = victim(|_| clean.clone());
    let context = Context::new(0);
    let scene = Scene { victim: &model, batch: &batch, goal: &goal, steps: 5, context: &context };
    let mut run = rp_pgd::RpPgd.begin(&scene).unwrap();
    let mut weights = |index: usize, pixels: [f32; 3]| -> Vec<f32> {
        let logits = shown(pixels);
        let found = floats(&run.evaluate(step(index, 5), &logits).cotangent);
        let plain = floats(&evaluate(&*named("ce", &[]), step(index, 5), &logits, &targets).cotangent);
        (0..3).map(|i| found[i] / plain[i]).collect()
    };
    let close = |found: Vec<f32>, expected: [f32; 3]| {
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-5), "{found:?}, not {expected:?}");
    };
    close(weights(0, [right, right, wrong]), [0.9, 0.9, 0.1]);
    close(weights(1, [right, wrong, right]), [0.8, 0.1, 0.1]);
    close(weights(2, [right, right, wrong]), [0.7, 0.2, 0.1]);
    close(weights(4, [wrong, right, wrong]), [0.4, 0.4, 0.1]);
}

#[test]
fn scaling_the_logits_hides_nothing_from_directions_and_ratios() {
    let (logits, targets) = setting();
    let images = |name: &str, scale: f32| {
        let found = at(&*named(name, &[]), step(0, 1), &(logits.clone() * scale), &targets, false);
        floats(&found.loss)
    };
    for name in ["dlr", "cosine", "spherical"] {
        assert!(relative_error(&images(name, 100.0), &images(name, 1.0)) < 1e-4, "{name}");
    }
    for name in ["margin", "js", "ce"] {
        assert!(relative_error(&images(name, 100.0), &images(name, 1.0)) > 0.1, "{name}");
    }
}

#[test]
fn a_margin_is_capped_where_it_is_told_and_dice_counts_classes_not_pixels() {
    let targets = Targets::from_labels(&[0, 0, 0], [1, 1, 3], &device()).unwrap();
    // Leads of the wrong class: -3, 1, 5.
    let logits = tensor(vec![0.0, 0.0, 0.0, -3.0, 1.0, 5.0, -9.0, -9.0, -9.0], [1, 3, 1, 3]);
    let loss = |kappa: &str| {
        let objective = named("margin", &[("kappa", kappa)]);
        floats(&at(&*objective, step(0, 1), &logits, &targets, false).loss)[0]
    };
    assert_eq!([loss("0"), loss("2"), loss("inf")], [-3.0, 0.0, 3.0]);

    // Nine pixels of class 0 and one of class 1, each with p = 0.5 of its label: both classes lose the same.
    let labels = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let targets = Targets::from_labels(&labels, [1, 1, 10], &device()).unwrap();
    let shift = |pixel: usize| {
        let mut values = vec![0.0; 20];
        values[if pixel == 9 { 19 } else { pixel }] = 1.0;
        tensor(values, [1, 2, 1, 10])
    };
    let gain = |pixel: usize, name: &str| {
        let objective = named(name, &[]);
        let loss = |logits: &Tensor<4>| floats(&at(&*objective, step(0, 1), logits, &targets, false).loss)[0];
        loss(&tensor(vec![0.0; 20], [1, 2, 1, 10])) - loss(&shift(pixel))
    };
    assert!((gain(0, "ce") - gain(9, "ce")).abs() < 1e-5);
    assert!(gain(9, "dice") > 2.0 * gain(0, "dice"), "{} {}", gain(9, "dice"), gain(0, "dice"));
}

#[test]
fn no_objective_has_a_loss_or_gradient_on_void_or_breaks_at_extreme_logits() {
    let labels = [VOID, VOID, VOID, VOID, 0, 1, 1, 0];
    let targets = Targets::from_labels(&labels, [2, 2, 2], &device()).unwrap();
    let normal = Stream::new(&[3]);
    for named_objective in inventory::iter::<NamedObjective> {
        let name = named_objective.name;
        let objective = named(name, &[]);
        for classes in [1usize, 2, 3, 5] {
            let count = 2 * classes * 4;
            let cases: [(&str, Vec<f32>); 4] = [
                ("usual", (0..count as u64).map(|i| normal.normal(i)).collect()),
                ("zero", vec![0.0; count]),
                ("huge", (0..count as u64).map(|i| normal.normal(i) * 1e4).collect()),
                ("tied", (0..count).map(|i| (i % 2) as f32).collect()),
            ];
            for (case, values) in cases {
                let found = at(&*objective, step(1, 3), &tensor(values, [2, classes, 2, 2]), &targets, false);
                let (loss, gradient) = (floats(&found.loss), floats(&found.cotangent));
                let text = format!("{name}, {case} logits of {classes} classes: {loss:?} {gradient:?}");
                assert!(loss.iter().chain(&gradient).chain(&floats(&found.tracked)).all(|v| v.is_finite()), "{text}");
                assert_eq!(loss[0], 0.0, "{text}");
                assert!(gradient[..4 * classes].iter().all(|g| *g == 0.0), "{text}");
                if case == "usual" && classes > 2 {
                    assert!(gradient.iter().any(|g| *g != 0.0), "{text}");
                }
            }
        }
    }
}

#[test]
fn each_objective_is_an_attack_of_its_own() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let batch = batch(4, &model, 5, [2, 3, 16, 20]);
    let run = |name: &str| {
        let settings = AttackConfig { steps: 4, step_size: Some(0.01), ..config(name) };
        let context = Context { start: Some(&batch.images), ..Context::new(1) };
        floats(&build(&settings).unwrap().run(&model, &batch, &context).unwrap().images)
    };
    let names: Vec<&str> = ["pgd", "segpgd", "cospgd"].into_iter().chain(NAMES).collect();
    let all: Vec<Vec<f32>> = names.iter().map(|name| run(name)).collect();
    for (i, a) in all.iter().enumerate() {
        for (j, b) in all.iter().enumerate().take(i) {
            let differ = a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > 1e-6).count();
            assert!(differ > a.len() / 500, "{} and {} differ at {differ} of {} values", names[i], names[j], a.len());
        }
    }
}

#[test]
fn each_objective_lowers_accuracy_far_more_than_noise() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let batch = batch(4, &model, 5, [3, 3, 16, 20]);
    let mean = |images: Tensor<4>| batch.targets.accuracy(&network.forward(images)).iter().sum::<f32>() / 3.0;
    let clean = mean(batch.images.clone());
    let noise = {
        let stream = Stream::new(&[1]);
        let noise = (0..3 * 3 * 16 * 20).map(|i| stream.symmetric(i) * 8.0 / 255.0).collect();
        clean - mean((batch.images.clone() + tensor(noise, [3, 3, 16, 20])).clamp(0.0, 1.0))
    };
    for name in NAMES {
        let settings =
            AttackConfig { steps: 20, step_size: Some(0.01), iterate: Iterate::BestAccuracy, ..config(name) };
        let found = build(&settings).unwrap().run(&model, &batch, &Context::new(1)).unwrap();
        let gain = clean - mean(found.images);
        println!("{name}: {clean:.3} → {:.3}; noise {:.3}", clean - gain, clean - noise);
        assert!(gain > 3.0 * noise.max(0.02), "{name}: {gain}, noise {noise}");
    }
}
