//! `bench --precision`.

use serde_json::Value;

use crate::lab::{Lab, data, timeless, weights};

const TWO: [&str; 10] =
    ["--attacks", "pgd", "--steps", "2", "--images", "2", "--precision", "f32", "--precision", "f16"];

#[test]
fn half_precision_stands_beside_single_precision_with_its_share_of_zero_gradients() {
    let lab = Lab::new();
    let out = lab.bench(&["standard"], &[&TWO[..], &["--out", "a"]].concat()).good();
    assert!(out.contains("Devices and precisions") && out.contains("| f16 |"), "{out}");
    let rows = timeless(&lab.path("a/results.json"))["rows"].as_array().unwrap().clone();
    let of = |precision: &str| -> Vec<f64> {
        let rows = rows.iter().filter(|row| row["precision"] == precision);
        rows.map(|row| row["pixel_accuracy"].as_f64().unwrap()).collect()
    };
    let (single, half) = (of("f32"), of("f16"));
    assert_eq!((single.len(), half.len()), (2, 2), "clean and PGD in each");
    assert!(single.iter().zip(&half).all(|(a, b)| (a - b).abs() < 0.05), "{single:?} {half:?}");
    for model in ["unet standard: ", "unet standard in f16: "] {
        let told = out.split("The gradient is not zero. ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let share = told.split(model).nth(1).unwrap_or_else(|| panic!("no '{model}' in: {told}"));
        assert!(share.split_once(' ').unwrap().0.parse::<f64>().unwrap() < 10.0, "{told}");
    }
}

#[test]
fn a_gradient_that_half_precision_loses_is_no_claim_of_robustness() {
    let lab = Lab::new();
    // Folded, the first layer's weights are too small for f16, and the image's gradient goes through them.
    let mut bytes = std::fs::read(weights("standard")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let offsets = &header["down.0.1.weight"]["data_offsets"];
    let [from, to] = [0, 1].map(|end| 8 + length + offsets[end].as_u64().unwrap() as usize);
    for value in bytes[from..to].chunks_exact_mut(4) {
        let tiny = f32::from_le_bytes(value.try_into().unwrap()) * 1e-9;
        value.copy_from_slice(&tiny.to_le_bytes());
    }
    let file = lab.path("tiny.safetensors");
    std::fs::write(&file, bytes).unwrap();
    let data = data();
    let bench = ["bench", "--data", &data, "--weights", file.to_str().unwrap()];
    lab.run(&[&bench[..], &TWO[..6], &["--out", "single"]].concat()).good();
    let half = lab.run(&[&bench[..], &TWO, &["--out", "half"]].concat());
    half.bad(&["--precision", "the gradient is hidden", "in f16: 100.00 %", "at most 10 %"]);
    assert!(lab.path("half/results.json").is_file(), "what was found is kept");
}

#[test]
fn a_precision_that_the_device_does_not_have_is_refused_by_name() {
    let lab = Lab::new();
    let tf32 = ["--precision", "tf32", "--out", "a"];
    lab.bench(&["standard"], &tf32).bad(&["'tf32'", "the CPU", "no tensors of it"]);
    assert!(!lab.path("a").exists(), "nothing was begun");
    let f8 = lab.bench(&["standard"], &["--precision", "f8"]);
    assert!(!f8.ok && f8.err.contains("'f32', 'f16', 'bf16' or 'tf32'"), "{}", f8.err);
}
