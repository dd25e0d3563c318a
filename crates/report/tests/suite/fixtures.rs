//! A small run with plausible numbers.

use std::collections::BTreeMap;

use fireproof_metrics::ClassCounts;
use fireproof_report::{Class, Header, Record, RowKey, Run};

pub fn run() -> Run {
    let class = |name: &str, color| Class { name: name.into(), color };
    Run {
        version: "0.1.0".into(),
        commit: "0123abc".into(),
        command: "cargo xtask bench".into(),
        device: "flex".into(),
        machine: "2 cores".into(),
        seed: 7,
        unit: "pixel".into(),
        range: [0.0, 1.0],
        weights: BTreeMap::from([("standard.safetensors".into(), "ab12".into())]),
        classes: vec![class("road", [128, 64, 128]), class("sky", [70, 130, 180]), class("pole", [220, 220, 0])],
        sanity: Vec::new(),
        measured: Vec::new(),
        not_run: Vec::new(),
    }
}

pub fn key(training: &str, attack: &str, steps: u32) -> RowKey {
    let attacked = attack != "none";
    RowKey {
        model: "unet".into(),
        training: training.into(),
        weights: format!("{training}.safetensors"),
        dataset: "scenes".into(),
        split: "test".into(),
        device: "flex".into(),
        precision: "f32".into(),
        attack: attack.into(),
        norm: attacked.then(|| "linf".into()),
        epsilon: attacked.then_some(8.0 / 255.0),
        alpha: attacked.then_some(if attack == "fgsm" { 8.0 / 255.0 } else { 0.01 }),
        steps,
        restarts: u32::from(attacked),
        iterate: attacked.then(|| "last".into()),
        start: attacked.then(|| "random".into()),
        targeted: false,
        seed: 7,
        options: BTreeMap::new(),
    }
}

pub fn header() -> Header {
    Header {
        version: "0.1.0".into(),
        plan: BTreeMap::from([("data".into(), "scenes".into()), ("steps".into(), "3,10".into())]),
        weights: BTreeMap::from([("standard.safetensors".into(), "ab12".into())]),
        classes: 3,
        rows: vec![key("standard", "none", 0), key("standard", "pgd", 3), key("standard", "pgd", 10)],
        part: None,
    }
}

/// Labels and predictions of an image; rows differ in the predictions.
pub fn maps(row: usize, image: u64) -> (Vec<u8>, Vec<u8>) {
    let row = row as u64 * 5;
    let mix = |pixel: u64, salt: u64| (pixel * 7 + image * 13 + salt).wrapping_mul(0x9E37_79B9) >> 7;
    let labels = (0..40).map(|pixel| if pixel % 11 == 0 { 255 } else { (mix(pixel, 0) % 3) as u8 }).collect();
    let predictions = (0..40).map(|pixel| (mix(pixel, row + 1 + pixel % 2) % 4) as u8).collect();
    (labels, predictions)
}

pub fn record(row: usize, image: u64) -> Record {
    let (labels, predictions) = maps(row, image);
    Record {
        row,
        image,
        name: format!("frame_{image:03}.png"),
        volume: None,
        counts: ClassCounts::count(3, &labels, &predictions).unwrap(),
        sizes: None,
        calibration: None,
        candidates: Vec::new(),
        minimal: None,
        forward_passes: row as u64 * 3 + 1,
        backward_passes: row as u64 * 3,
        seconds: 0.1 + 1.0 / 3.0,
        trace: (row == 2).then(|| fireproof_report::Trace { loss: vec![0.1, 0.7], accuracy: vec![0.9, 0.3] }),
    }
}
