//! Losses, weights and gradients against the reference package and closed forms.

use burn::tensor::Tensor;
use fireproof_attacks::{
    Goal, Step,
    methods::{
        cospgd::{Activation, CosPgd},
        pgd::Pgd,
        segpgd::{LambdaSchedule, SegPgd},
    },
    objective::{Evaluation, ImageLoss, Objective, PerImage, PixelWeight, Weighted},
};
use fireproof_tensor::{Targets, VOID, ops::cross_entropy};

use crate::support::{Golden, device, floats, relative_error, tensor, with_scene};

pub const TOLERANCE: f32 = 1e-5;

pub fn evaluate(objective: &dyn Objective, step: Step, logits: &Tensor<4>, targets: &Targets) -> Evaluation {
    with_scene(targets.clone(), false, step.total, |scene| objective.begin(scene).unwrap().evaluate(step, logits))
}

fn step(index: usize, total: usize) -> Step {
    Step { index, total }
}

/// The weights as the loop uses them: masked by the valid pixels.
fn weights(method: &dyn PixelWeight, at: Step, logits: &Tensor<4>, targets: &Targets) -> Vec<f32> {
    let goal = Goal { targets: targets.clone(), targeted: false };
    floats(&(method.weights(at, logits, &goal).unwrap() * targets.valid().clone()))
}

/// Weights and gradients of ten SegPGD steps against the reference; the worst relative error.
pub fn segpgd_error(golden: &Golden, method: impl PixelWeight + Copy) -> f32 {
    let (logits, targets) = (golden.tensor("logits"), golden.labels("labels"));
    let error = |t: usize| {
        let found = weights(&method, step(t, 10), &logits, &targets);
        let gradient = evaluate(&Weighted(method), step(t, 10), &logits, &targets).cotangent;
        relative_error(&found, golden.values(&format!("segpgd_weight_{t}")))
            .max(relative_error(&floats(&gradient), golden.values(&format!("segpgd_grad_{t}"))))
    };
    (0..10).map(error).fold(0.0, f32::max)
}

#[test]
fn cross_entropy_and_its_gradient_are_those_of_the_reference() {
    let Some(golden) = Golden::open("losses.safetensors") else { return };
    let (logits, targets) = (golden.tensor("logits"), golden.labels("labels"));
    let found = evaluate(&Weighted(Pgd), step(0, 1), &logits, &targets);
    assert!(relative_error(&floats(&found.cotangent), golden.values("ce_grad")) < TOLERANCE);
    let pixels = floats(&cross_entropy(logits, &targets));
    assert!(relative_error(&pixels, golden.values("ce")) < TOLERANCE);
    let per_image: Vec<f32> = golden.values("ce").chunks(63).map(|image| image.iter().sum()).collect();
    assert!(relative_error(&floats(&found.loss), &per_image) < TOLERANCE);
}

#[test]
fn segpgd_weights_and_gradients_are_those_of_the_reference_at_every_step() {
    let Some(golden) = Golden::open("losses.safetensors") else { return };
    let error = segpgd_error(&golden, SegPgd::default());
    println!("SegPGD, weights and gradients at t = 0..9 of 10: relative error {error:.1e}");
    assert!(error < TOLERANCE, "{error}");
}

#[test]
fn cospgd_weights_and_gradients_are_those_of_the_reference() {
    let Some(golden) = Golden::open("losses.safetensors") else { return };
    let (logits, targets) = (golden.tensor("logits"), golden.labels("labels"));
    let softmax = CosPgd::default();
    let sigmoid = CosPgd { activation: Activation::Sigmoid };
    let found = weights(&softmax, step(0, 1), &logits, &targets);
    assert!(relative_error(&found, golden.values("cospgd_weight")) < TOLERANCE);
    let gradient = evaluate(&Weighted(softmax), step(0, 1), &logits, &targets).cotangent;
    assert!(relative_error(&floats(&gradient), golden.values("cospgd_grad")) < TOLERANCE);
    let found = weights(&sigmoid, step(0, 1), &logits, &targets);
    assert!(relative_error(&found, golden.values("cospgd_sigmoid_weight")) < TOLERANCE);
    assert!(relative_error(&found, golden.values("cospgd_weight")) > 0.01, "the two activations differ");
}

#[test]
fn the_first_segpgd_gradient_is_that_of_masked_cross_entropy() {
    let Some(golden) = Golden::open("losses.safetensors") else { return };
    let (logits, targets) = (golden.tensor("logits"), golden.labels("labels"));
    for schedule in [LambdaSchedule::Linear, LambdaSchedule::Exponential, LambdaSchedule::Logarithmic] {
        let gradient = evaluate(&Weighted(SegPgd { schedule }), step(0, 7), &logits, &targets).cotangent;
        assert!(relative_error(&floats(&gradient), golden.values("mce_grad")) < TOLERANCE);
    }
}

/// Jensen–Shannon and Tsallis losses have no file yet; through autodiff they check [`ImageLoss`] itself.
struct OfProbability(fn(Tensor<3>) -> Tensor<3>);

impl ImageLoss for OfProbability {
    fn loss(&self, _step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
        let [n, _, height, width] = logits.dims();
        let probability = (-cross_entropy(logits, &goal.targets)).exp();
        let pixels = (self.0)(probability) * Tensor::from_inner(goal.targets.valid().clone());
        pixels.reshape([n, height * width]).sum_dim(1).reshape([n])
    }
}

#[test]
fn losses_given_as_a_formula_get_the_reference_gradient_through_autodiff() {
    let Some(golden) = Golden::open("losses.safetensors") else { return };
    let (logits, targets) = (golden.tensor("logits"), golden.labels("labels"));
    let cases: [(&str, &str, fn(Tensor<3>) -> Tensor<3>); 4] = [
        ("js", "js_grad", |p| {
            let first = (p.clone() + 1.0) * p.clone().log1p() * -0.5;
            first + p.clone() * p.log() * 0.5 + std::f32::consts::LN_2
        }),
        ("tsallis_-2.0", "tsallis_grad_-2.0", |p| (p.powf_scalar(3.0) * -1.0 + 1.0) / 3.0),
        ("tsallis_0.0", "tsallis_grad_0.0", |p| p * -1.0 + 1.0),
        ("tsallis_0.5", "tsallis_grad_0.5", |p| (p.sqrt() * -1.0 + 1.0) / 0.5),
    ];
    for (value, gradient, formula) in cases {
        let found = evaluate(&PerImage(OfProbability(formula)), step(0, 1), &logits, &targets);
        let per_image: Vec<f32> = golden.values(value).chunks(63).map(|image| image.iter().sum()).collect();
        assert!(relative_error(&floats(&found.loss), &per_image) < TOLERANCE, "{value}");
        assert!(relative_error(&floats(&found.cotangent), golden.values(gradient)) < TOLERANCE, "{gradient}");
    }
}

#[test]
fn the_closed_form_of_a_weighted_loss_is_its_autodiff() {
    let logits = tensor((0..60).map(|i| ((i * 37) % 23) as f32 * 0.3 - 3.0).collect(), [2, 5, 2, 3]);
    let targets = Targets::from_labels(&[0, 1, VOID, 3, 4, 2, 0, 0, 1, VOID, 2, 4], [2, 2, 3], &device()).unwrap();
    struct Autodiff<W>(Weighted<W>);
    impl<W: PixelWeight> ImageLoss for Autodiff<W> {
        fn loss(&self, step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
            with_scene(goal.targets.clone(), false, step.total, |scene| self.0.begin(scene).unwrap().loss(step, logits))
        }
    }
    fn check(method: impl PixelWeight + Copy, logits: &Tensor<4>, targets: &Targets) {
        let closed = evaluate(&Weighted(method), step(2, 5), logits, targets);
        let autodiff = evaluate(&PerImage(Autodiff(Weighted(method))), step(2, 5), logits, targets);
        assert!(relative_error(&floats(&closed.loss), &floats(&autodiff.loss)) < TOLERANCE);
        assert!(relative_error(&floats(&closed.cotangent), &floats(&autodiff.cotangent)) < TOLERANCE);
    }
    check(Pgd, &logits, &targets);
    check(SegPgd::default(), &logits, &targets);
    check(CosPgd::default(), &logits, &targets);
}

#[test]
fn lambda_starts_at_zero_and_stays_below_a_half() {
    let lambdas =
        |schedule: LambdaSchedule, total| -> Vec<f32> { (0..total).map(|t| schedule.at(step(t, total))).collect() };
    assert_eq!(lambdas(LambdaSchedule::Linear, 1), [0.0]);
    for (found, expected) in lambdas(LambdaSchedule::Linear, 3).iter().zip([0.0, 1.0 / 6.0, 1.0 / 3.0]) {
        assert!((found - expected).abs() < 1e-6);
    }
    for schedule in [LambdaSchedule::Linear, LambdaSchedule::Exponential, LambdaSchedule::Logarithmic] {
        let all = lambdas(schedule, 10);
        assert_eq!(all[0], 0.0, "{schedule:?}");
        assert!(all.windows(2).all(|w| w[0] < w[1]) && all[9] < 0.5, "{schedule:?}: {all:?}");
    }
    assert!((lambdas(LambdaSchedule::Linear, 10)[9] - 0.45).abs() < 1e-6);
    assert!((LambdaSchedule::Exponential.at(step(5, 10)) - 0.5 * (2.0f32.sqrt() - 1.0)).abs() < 1e-6);
    assert!((LambdaSchedule::Logarithmic.at(step(5, 10)) - 0.5 * 1.5f32.log2()).abs() < 1e-6);
    assert_eq!(LambdaSchedule::Fixed(0.3).at(step(9, 10)), 0.3);
}

#[test]
fn the_cosine_weight_has_its_closed_form_values() {
    let weight = |logits: Vec<f32>| {
        let targets = Targets::from_labels(&[0], [1, 1, 1], &device()).unwrap();
        let classes = logits.len();
        weights(&CosPgd::default(), step(0, 1), &tensor(logits, [1, classes, 1, 1]), &targets)[0]
    };
    assert!((weight(vec![0.0; 4]) - 0.5).abs() < 1e-6, "a uniform prediction over K classes has 1/sqrt(K)");
    assert!((weight(vec![60.0, 0.0, 0.0]) - 1.0).abs() < 1e-6, "a sure and correct one has 1");
    assert!((weight(vec![0.0, 0.0, -200.0]) - 0.707107).abs() < 1e-6, "two equal classes have 1/sqrt(2)");
}

#[test]
fn the_cosine_with_a_soft_map_that_is_one_hot_is_that_with_the_label() {
    let logits = tensor((0..20).map(|i| ((i * 7) % 11) as f32 * 0.5).collect(), [1, 5, 2, 2]);
    let targets = Targets::from_labels(&[0, 4, 2, VOID], [1, 2, 2], &device()).unwrap();
    let soft = targets.clone().with_soft(targets.one_hot(5) * 0.5);
    for activation in [Activation::Softmax, Activation::Sigmoid] {
        let method = CosPgd { activation };
        let hard = weights(&method, step(0, 1), &logits, &targets);
        let found = weights(&method, step(0, 1), &logits, &soft);
        assert!(relative_error(&found, &hard) < TOLERANCE, "a cosine does not see the length: {found:?} {hard:?}");
    }
}

#[test]
fn an_image_that_is_all_void_has_neither_loss_nor_gradient() {
    let logits = tensor((0..24).map(|i| i as f32 * 0.1).collect(), [2, 3, 2, 2]);
    let targets = Targets::from_labels(&[VOID, VOID, VOID, VOID, 0, 1, 2, 0], [2, 2, 2], &device()).unwrap();
    let objectives: [Box<dyn Objective>; 3] =
        [Box::new(Weighted(Pgd)), Box::new(Weighted(SegPgd::default())), Box::new(Weighted(CosPgd::default()))];
    for objective in objectives {
        let found = evaluate(&*objective, step(1, 3), &logits, &targets);
        let (loss, gradient) = (floats(&found.loss), floats(&found.cotangent));
        assert_eq!(loss[0], 0.0);
        assert!(loss[1] > 0.0);
        assert!(gradient[..12].iter().all(|g| *g == 0.0) && gradient[12..].iter().any(|g| *g != 0.0));
    }
}
