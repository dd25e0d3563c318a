//! Terms that compare views, against sums written out in double precision.

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_defenses::stage::{BATCH, Moment, Pass, Stage, View, registered};
use fireproof_models::Output;
use fireproof_tensor::{Batch, Targets, VOID};

use crate::common::network;

const CLEAN: [[f64; 3]; 4] = [[1.0, 0.2, -0.5], [0.3, 0.1, 2.0], [-1.0, 0.0, 1.0], [0.5, 0.5, 0.5]];
const MOVED: [[f64; 3]; 4] = [[0.1, 0.9, -0.2], [0.2, 1.5, 0.4], [2.0, 0.0, -1.0], [0.0, 0.1, 0.2]];

/// Two samples of two pixels; the second pixel of the second sample is void.
const LABELS: [u8; 4] = [0, 2, 1, VOID];

fn logits(pixels: &[[f64; 3]; 4]) -> Tensor<4> {
    let values: Vec<f32> =
        (0..2).flat_map(|n| (0..3).flat_map(move |k| (0..2).map(move |x| pixels[2 * n + x][k] as f32))).collect();
    Tensor::<4>::from_data(TensorData::new(values, [2, 3, 1, 2]), &Device::flex()).autodiff().require_grad()
}

fn pass(name: &str, logits: Tensor<4>, ids: Vec<u64>, weight: Option<[f32; 2]>) -> Pass {
    let device = Device::flex();
    let mut targets = Targets::from_labels(&LABELS, [2, 1, 2], &device).unwrap();
    if let Some(weight) = weight {
        targets = targets.with_weight(Tensor::from_floats(weight, &device));
    }
    let batch = Batch::new(Tensor::zeros([2, 3, 1, 2], &device), targets, ids).unwrap();
    Pass { view: View::new(name, batch), output: Output::from(logits) }
}

fn value(stage: &str, options: serde_json::Value, passes: &[Pass]) -> Result<f64, String> {
    let entry = registered().into_iter().find(|entry| entry.name == stage).unwrap();
    let Stage::Term(mut term) = (entry.build)(options.as_object().unwrap().clone()).unwrap() else { panic!() };
    let network = network(0);
    let loss = term.loss(passes, &Moment::new(&*network, 0, 1, 0, 7)).map_err(|error| error.to_string())?;
    Ok(f64::from(loss.inner().into_scalar::<f32>()))
}

fn softmax(z: [f64; 3]) -> [f64; 3] {
    let sum: f64 = z.iter().map(|v| v.exp()).sum();
    z.map(|v| v.exp() / sum)
}

fn kl(p: [f64; 3], q: [f64; 3]) -> f64 {
    (0..3).map(|k| p[k] * (p[k] / q[k]).ln()).sum()
}

fn pair() -> [Pass; 2] {
    [pass(BATCH, logits(&CLEAN), vec![1, 2], None), pass("adversarial", logits(&MOVED), vec![1, 2], None)]
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
}

#[test]
fn trades_is_beta_times_the_mean_divergence_of_valid_pixels() {
    let sum: f64 = (0..3).map(|i| kl(softmax(CLEAN[i]), softmax(MOVED[i]))).sum();
    close(value("trades", serde_json::json!({ "beta": 6.0 }), &pair()).unwrap(), 6.0 * sum / 3.0);
    // A sample's weight multiplies its pixels, and leaves what is divided by.
    let weighted = [
        pass(BATCH, logits(&CLEAN), vec![1, 2], None),
        pass("adversarial", logits(&MOVED), vec![1, 2], Some([1.0, 0.0])),
    ];
    let first: f64 = (0..2).map(|i| kl(softmax(CLEAN[i]), softmax(MOVED[i]))).sum();
    close(value("trades", serde_json::json!({ "beta": 1.0 }), &weighted).unwrap(), first / 3.0);
}

#[test]
fn alp_is_the_mean_squared_distance_of_logits() {
    let distance = |i: usize| (0..3).map(|k| (CLEAN[i][k] - MOVED[i][k]).powi(2)).sum::<f64>() / 3.0;
    close(value("alp", serde_json::json!({}), &pair()).unwrap(), 0.5 * (0..3).map(distance).sum::<f64>() / 3.0);
}

#[test]
fn mart_boosts_the_cross_entropy_and_weighs_the_divergence() {
    let pixel = |i: usize| {
        let (y, p, q) = (usize::from(LABELS[i]), softmax(CLEAN[i]), softmax(MOVED[i]));
        let rival = (0..3).filter(|&k| k != y).map(|k| q[k]).fold(0.0, f64::max);
        -q[y].ln() - (1.0001 - rival).ln() + 5.0 * kl(p, q) * (1.0 - p[y])
    };
    close(value("mart", serde_json::json!({ "lambda": 5.0 }), &pair()).unwrap(), (0..3).map(pixel).sum::<f64>() / 3.0);
    let mut soft = pair();
    let targets = soft[1].view.batch.targets.clone();
    soft[1].view.batch.targets = targets.clone().with_soft(targets.one_hot(3));
    let message = value("mart", serde_json::json!({}), &soft).unwrap_err();
    assert!(message.contains("found a soft label map, expected one label a pixel"), "{message}");
}

#[test]
fn jsd_is_the_mean_divergence_from_the_mean_prediction() {
    let pixel = |i: usize| {
        let (p, q) = (softmax(CLEAN[i]), softmax(MOVED[i]));
        let mean = [0, 1, 2].map(|k| (p[k] + q[k]) / 2.0);
        (kl(p, mean) + kl(q, mean)) / 2.0
    };
    let expected = 12.0 * (0..3).map(pixel).sum::<f64>() / 3.0;
    close(value("jsd", serde_json::json!({ "views": ["batch", "adversarial"] }), &pair()).unwrap(), expected);
}

#[test]
fn a_part_of_the_batch_is_compared_with_the_same_samples() {
    // The adversarial view holds the second sample alone.
    let mut passes = pair();
    let second = passes[1].view.batch.slice(1..2);
    passes[1].view.batch = second;
    passes[1].output = Output::from(logits(&MOVED).narrow(0, 1, 1));
    close(
        value("trades", serde_json::json!({ "beta": 1.0 }), &passes).unwrap(),
        kl(softmax(CLEAN[2]), softmax(MOVED[2])),
    );
    passes[1].view.batch.ids = vec![9];
    let message = value("trades", serde_json::json!({}), &passes).unwrap_err();
    assert!(message.contains("the second view holds the last samples of the first"), "{message}");
}

#[test]
fn a_batch_that_is_all_void_has_no_divergence() {
    let mut passes = pair();
    let device = Device::flex();
    for pass in &mut passes {
        pass.view.batch.targets = Targets::from_labels(&[VOID; 4], [2, 1, 2], &device).unwrap();
    }
    for stage in ["trades", "mart", "alp"] {
        close(value(stage, serde_json::json!({}), &passes).unwrap(), 0.0);
    }
}
