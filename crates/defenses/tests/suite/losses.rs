//! The losses of medical segmentation against nnU-Net's and MONAI's, see `tests/reference`.

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_defenses::{
    Recipe,
    stage::{BATCH, Moment, Options, Pass, Stage, View, registered},
};
use fireproof_models::{Coarse, Output};
use fireproof_tensor::{Batch, Targets};
use serde_json::{Value, json};

use crate::common::network;

fn golden() -> Value {
    serde_json::from_str(include_str!("../reference/losses.json")).unwrap()
}

fn floats(values: &Value) -> Vec<f32> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

fn options(value: Value) -> Options {
    value.as_object().unwrap().clone()
}

/// The stage's loss of the golden logits, and its gradient at each head (empty where there is none).
fn run(stage: &str, given: Value, labels: &str, weight: Option<[f32; 2]>) -> (f32, Vec<Vec<f32>>) {
    let golden = golden();
    let device = Device::flex();
    let entry = registered().into_iter().find(|entry| entry.name == stage).unwrap();
    let Stage::Term(mut term) = (entry.build)(options(given)).unwrap() else { panic!("{stage} is a term") };
    let leaf = |k: usize| {
        let data = TensorData::new(floats(&golden["logits"][k]), [2, 3, 8 >> k, 12 >> k]);
        Tensor::<4>::from_data(data, &device).autodiff().require_grad()
    };
    let leaves: Vec<Tensor<4>> = (0..3).map(leaf).collect();
    let coarse = |k: usize| Coarse { logits: leaves[k].clone(), stride: 1 << k };
    let output = Output { coarse: vec![coarse(1), coarse(2)], ..leaves[0].clone().into() };
    let labels: Vec<u8> = floats(&golden[labels]).into_iter().map(|label| label as u8).collect();
    let mut targets = Targets::from_labels(&labels, [2, 8, 12], &device).unwrap();
    if let Some(weight) = weight {
        targets = targets.with_weight(Tensor::from_floats(weight, &device));
    }
    let batch = Batch::new(Tensor::zeros([2, 1, 8, 12], &device), targets, vec![0, 1]).unwrap();
    let passes = [Pass { view: View::new(BATCH, batch), output }];
    let network = network(0);
    let loss = term.loss(&passes, &Moment::new(&*network, 0, 1, 0, 7)).unwrap();
    let value = loss.clone().inner().into_scalar();
    let mut gradients = loss.backward();
    let host = |gradient: Option<Tensor<4>>| gradient.map(|g| g.into_data().try_to_vec().unwrap()).unwrap_or_default();
    (value, leaves.iter().map(|leaf| host(leaf.grad_remove(&mut gradients))).collect())
}

fn compare(case: &str, stage: &str, given: Value, labels: &str) {
    let expected = golden()["cases"][case].clone();
    let (loss, gradients) = run(stage, given, labels, None);
    let theirs = expected["loss"].as_f64().unwrap() as f32;
    assert!((loss - theirs).abs() < 2e-5, "{case}: {loss}, expected {theirs}");
    for (k, ours) in gradients.iter().enumerate() {
        let theirs = &expected["gradients"][k];
        // A head that counts nothing is zero here or there.
        let theirs = if theirs.is_null() { vec![0.0; ours.len()] } else { floats(theirs) };
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let largest = theirs.iter().map(|b| b.abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-4 * largest.max(1e-3), "{case}, head {k}: {worst} of {largest}");
    }
}

#[test]
fn dice_and_cross_entropy_are_those_of_nnunet() {
    let plain = json!({ "deep_supervision": false });
    compare("dice-ce", "dice-ce", plain.clone(), "labels");
    compare("dice-ce void", "dice-ce", plain, "void");
    let each = json!({ "deep_supervision": false, "batch_dice": false });
    compare("dice-ce per image", "dice-ce", each.clone(), "labels");
    compare("dice-ce void per image", "dice-ce", each, "void");
    compare("dice-ce background", "dice-ce", json!({ "deep_supervision": false, "background": true }), "labels");
}

#[test]
fn deep_supervision_is_that_of_nnunet() {
    compare("dice-ce deep", "dice-ce", json!({}), "labels");
}

#[test]
fn generalised_dice_tversky_and_focal_are_those_of_monai() {
    compare("generalised-dice", "generalised-dice", json!({ "deep_supervision": false }), "labels");
    let batch = json!({ "deep_supervision": false, "batch_dice": true });
    compare("generalised-dice batch", "generalised-dice", batch, "labels");
    let tversky = |batch: bool| {
        let all = !batch;
        json!({ "alpha": 0.3, "beta": 0.7, "batch_dice": batch, "background": all, "deep_supervision": false })
    };
    compare("tversky", "tversky", tversky(true), "labels");
    compare("tversky per image", "tversky", tversky(false), "labels");
    compare("focal", "focal", json!({ "deep_supervision": false }), "labels");
}

#[test]
fn tversky_with_equal_prices_is_dice_and_focal_without_gamma_is_cross_entropy() {
    let dice = run("dice-ce", json!({ "cross_entropy": 0.0 }), "void", None).0;
    let tversky = run("tversky", json!({}), "void", None).0;
    // The smooth term counts twice as much in Tversky's form.
    assert!((dice + 1.0 - tversky).abs() < 1e-5, "{dice} {tversky}");
    let focal = run("focal", json!({ "gamma": 0.0, "deep_supervision": false }), "void", None).0;
    let entropy = run("dice-ce", json!({ "dice": 0.0, "deep_supervision": false }), "void", None).0;
    assert!((focal - entropy).abs() < 1e-5, "{focal} {entropy}");
}

#[test]
fn an_image_of_weight_zero_pulls_at_nothing() {
    for (stage, given) in [
        ("dice-ce", json!({})),
        ("dice-ce", json!({ "batch_dice": false })),
        ("generalised-dice", json!({})),
        ("tversky", json!({})),
        ("focal", json!({})),
    ] {
        let (_, gradients) = run(stage, given.clone(), "labels", Some([2.0, 0.0]));
        let (first, second) = gradients[0].split_at(gradients[0].len() / 2);
        assert!(first.iter().any(|g| *g != 0.0), "{stage} {given}");
        assert!(second.iter().all(|g| *g == 0.0), "{stage} {given}: the second image has weight zero");
    }
}

#[test]
fn a_mean_over_samples_counts_those_of_weight_zero() {
    let of =
        |over: &str| run("dice-ce", json!({ "batch_dice": false, "mean_over": over }), "labels", Some([1.0, 0.0])).0;
    assert!((of("samples") - of("weights") / 2.0).abs() < 1e-6, "{} {}", of("samples"), of("weights"));
}

#[test]
fn an_image_without_a_class_costs_what_it_predicts_of_it_and_nothing_is_not_a_number() {
    // The second image lacks class 2; alone, its Dice of that class is about smooth / Σ p.
    for stage in ["dice-ce", "generalised-dice", "tversky", "focal"] {
        let (loss, gradients) = run(stage, json!({}), "labels", Some([0.0, 1.0]));
        assert!(loss.is_finite() && gradients.iter().flatten().all(|g| g.is_finite()), "{stage}: {loss}");
    }
}

#[test]
fn wrong_options_are_refused_by_name() {
    for (stage, given, expected) in [
        ("dice-ce", json!({ "batchdice": true }), "unknown field `batchdice`, expected one of"),
        ("dice-ce", json!({ "smooth": -1.0 }), "smooth is -1, expected zero or more"),
        ("dice-ce", json!({ "dice": 0.0, "cross_entropy": 0.0 }), "both zero"),
        ("tversky", json!({ "alpha": -0.5 }), "alpha is -0.5, expected zero or more"),
        ("generalised-dice", json!({ "weight": 0.0 }), "weight is 0, expected a positive number"),
        ("focal", json!({ "gama": 1.0 }), "unknown field `gama`"),
    ] {
        let entry = registered().into_iter().find(|entry| entry.name == stage).unwrap();
        let error = (entry.build)(options(given)).err().expect("is refused");
        assert!(error.contains(expected), "{stage}: {error}");
    }
}

#[test]
fn a_recipe_of_nnunets_loss_has_a_name() {
    let recipe = Recipe::preset("nnunet").unwrap().resolved().unwrap();
    assert_eq!(recipe.stages.len(), 1);
    assert_eq!((recipe.stages[0].stage.as_str(), &recipe.stages[0].options["batch_dice"]), ("dice-ce", &json!(true)));
}
