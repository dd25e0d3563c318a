//! The commands on the device that `FIREPROOF_TEST_DEVICE` names, end to end on tiny scenes.

#[allow(dead_code)]
#[path = "../suite/lab.rs"]
mod lab;

use lab::{Lab, timeless};

/// The device's name, if it can be opened.
fn device() -> Option<String> {
    fireproof_tensor::device::under_test()?;
    Some(std::env::var("FIREPROOF_TEST_DEVICE").unwrap_or_else(|_| "flex".into()))
}

#[test]
fn a_bench_on_the_cpu_and_the_device_says_that_they_agree() {
    let Some(device) = device().filter(|device| device != "flex") else { return };
    let lab = Lab::new();
    let arguments = ["--attacks", "fgsm,pgd,segpgd", "--steps", "3", "--images", "2", "--out", "a"];
    let devices = ["--device", "flex", "--device", &device];
    let out = lab.bench(&["standard"], &[&arguments[..], &devices].concat()).good();
    assert!(out.contains("Devices and precisions") && out.contains("| yes |"), "{out}");
    assert!(!out.contains("| NO |"), "{out}");
    let rows = timeless(&lab.path("a/results.json"))["rows"].as_array().unwrap().clone();
    let of = |device: &str| rows.iter().filter(|row| row["device"] == device).count();
    assert_eq!((of("flex"), of(&device)), (4, 4), "the same plan on each");
}

#[test]
fn the_doctor_checks_every_operation_and_runs_a_small_bench() {
    let Some(device) = device() else { return };
    let lab = Lab::new();
    let out = lab.run(&["doctor", "--device", &device]).good();
    assert!(out.contains("operations right") && out.contains("bench") && out.contains(&device), "{out}");
    assert!(!out.contains("WRONG"), "{out}");
}
