//! Volumes from a folder to a table and back to a volume.

use std::fs;

use fireproof_datasets::read::{Limits, nifti, nifti::Header};
use fireproof_datasets::volume::write_labels;
use serde_json::{Value, json};

use crate::lab::Lab;

const WIDTH: usize = 20;
const HEIGHT: usize = 16;
const DEPTH: usize = 4;

const MANIFEST: &str = r#"
name = "discs"
title = "Bright discs"
origin = "generated"
licence = "MIT"
channels = 1
classes = [
    { name = "background", color = [0, 0, 0] },
    { name = "disc", color = [230, 80, 60] },
]
[msd]
[splits.train]
list = "{split}.txt"
[splits.val]
list = "{split}.txt"
[splits.test]
list = "{split}.txt"
"#;

/// A header of 0.8 x 0.9 x 2.5 mm voxels that are neither at the origin nor along the axes of the file.
fn header() -> Header {
    let mut raw = [0u8; Header::BYTES];
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let extents: Vec<u8> =
        [3, WIDTH as i16, HEIGHT as i16, DEPTH as i16, 1, 1, 1, 1].iter().flat_map(|e| e.to_le_bytes()).collect();
    let fields: [(usize, Vec<u8>); 9] = [
        (0, 348i32.to_le_bytes().to_vec()),
        (40, extents),
        (70, [2i16.to_le_bytes(), 8i16.to_le_bytes()].concat()),
        (76, floats(&[1.0, 0.8, 0.9, 2.5])),
        (108, floats(&[352.0, 1.0])),
        (254, 1i16.to_le_bytes().to_vec()),
        (280, floats(&[-0.8, 0.0, 0.0, 11.0, 0.0, 0.9, 0.0, -7.0])),
        (312, floats(&[0.0, 0.0, 2.5, 3.0])),
        (344, b"n+1\0".to_vec()),
    ];
    for (at, bytes) in fields {
        raw[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    Header::parse("made".as_ref(), raw, &Limits::default()).unwrap()
}

/// Volume `number`: a disc that moves from slice to slice, on a noisy ground.
fn write(lab: &Lab, number: usize) {
    let inside = |at: usize| {
        let (x, y, z) = (at % WIDTH, at / WIDTH % HEIGHT, at / (WIDTH * HEIGHT));
        let (dx, dy) = (x as f32 - 7.0 - (number % 3 + z) as f32, y as f32 - 8.0);
        dx * dx + dy * dy < 17.0
    };
    let voxels = WIDTH * HEIGHT * DEPTH;
    let noise = |at: usize| ((at * 2_654_435_761 + number * 97) >> 7) % 40;
    let scan: Vec<u8> = (0..voxels).map(|at| (50 + noise(at) + 90 * usize::from(inside(at))) as u8).collect();
    let labels: Vec<u8> = (0..voxels).map(|at| u8::from(inside(at))).collect();
    write_labels(&lab.path(&format!("images/v{number}.nii.gz")), &header(), &scan).unwrap();
    write_labels(&lab.path(&format!("labels/v{number}.nii.gz")), &header(), &labels).unwrap();
}

fn task() -> Lab {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("images")).unwrap();
    fs::create_dir_all(lab.path("labels")).unwrap();
    (0..6).for_each(|number| write(&lab, number));
    let pair = |n: usize| json!({ "image": format!("images/v{n}.nii.gz"), "label": format!("labels/v{n}.nii.gz") });
    let contents = json!({
        "name": "Discs", "modality": { "0": "MRI" }, "labels": { "0": "background", "1": "disc" },
        "training": (0..6).map(pair).collect::<Vec<_>>(),
    });
    fs::write(lab.path("dataset.json"), contents.to_string()).unwrap();
    fs::write(lab.path("discs.toml"), MANIFEST).unwrap();
    for (split, volumes) in [("train", "v0\nv1\nv2\nv3\n"), ("val", "v4\n"), ("test", "v4\nv5\n")] {
        fs::write(lab.path(&format!("{split}.txt")), volumes).unwrap();
    }
    lab
}

#[test]
fn volumes_are_trained_on_attacked_in_deviations_and_predicted_where_they_lie() {
    let lab = task();
    let arguments = "train --recipe nnunet --model nnunet --set base=4 --data discs.toml --crop 16x16 --augment nnunet \
                     --batch 4 --epochs 16 --lr 0.1 --head-factor 1 --val-every 16 --out run --json";
    lab.run(&arguments.split_whitespace().collect::<Vec<_>>()).good();

    let arguments = "bench --preset medical --data discs.toml --weights run/best.safetensors --out bench --json";
    let results: Value =
        serde_json::from_str(&lab.run(&arguments.split_whitespace().collect::<Vec<_>>()).good()).unwrap();
    assert_eq!((&results["run"]["unit"], &results["run"]["range"]), (&json!("normalised"), &json!([0.0, 1.0])));
    let row = |attack: &str| {
        let rows = results["rows"].as_array().unwrap();
        rows.iter().find(|row| row["attack"] == attack).unwrap_or_else(|| panic!("no {attack}")).clone()
    };
    let clean = row("none");
    assert_eq!((&clean["images"], &clean["dice"]["volumes"]), (&json!(8), &json!(2)));
    let dice = |row: &Value| row["dice"]["pooled"].as_f64().unwrap();
    assert!(dice(&clean) > 0.8, "{}", dice(&clean));
    assert!(dice(&row("pgd")) <= dice(&clean), "{} {}", dice(&row("pgd")), dice(&clean));
    // A large radius in deviations, on the L2 ball: nothing is left, while the images stay in their range.
    let arguments = "bench --attacks dice --norm l2 --unit normalised --eps 20 --steps 10 --data discs.toml \
                     --weights run/best.safetensors --out far --json";
    let far: Value = serde_json::from_str(&lab.run(&arguments.split_whitespace().collect::<Vec<_>>()).good()).unwrap();
    assert!(dice(&far["rows"][1]) < 0.5 * dice(&clean), "{}", dice(&far["rows"][1]));

    for window in [&[][..], &["--window", "16x16"]] {
        let arguments = ["predict", "--weights", "run/best.safetensors", "--image", "images/v5.nii.gz", "--out", "p"];
        lab.run(&[&arguments[..], window].concat()).good();
        let read = |path: &str| nifti::read(&lab.path(path), &Limits::default()).unwrap();
        let (found, scan, labels) = (read("p/v5-classes.nii.gz"), read("images/v5.nii.gz"), read("labels/v5.nii.gz"));
        assert_eq!((found.header.affine, found.header.spacing), (scan.header.affine, scan.header.spacing));
        assert_eq!(found.header.orientation(), scan.header.orientation());
        assert_eq!(found.data.len(), scan.data.len());
        let agree = found.data.iter().zip(&labels.data).filter(|(a, b)| a == b).count();
        assert!(agree * 100 > 90 * labels.data.len(), "{agree} of {}", labels.data.len());
    }
}

#[test]
fn what_belongs_to_no_volume_or_is_none_is_refused() {
    let lab = task();
    let arguments = "bench --attacks pgd --unit normalised --data scenes --images 1";
    lab.run(&arguments.split_whitespace().collect::<Vec<_>>()).bad(&["--unit", "normalised", "scenes has no volumes"]);
    // A mask of another shape, an unknown label, and a header that is none: each names its file.
    let bytes = fs::read(lab.path("labels/v0.nii.gz")).unwrap();
    let flat = Header::parse("made".as_ref(), *raw(&header(), 3), &Limits::default()).unwrap();
    write_labels(&lab.path("labels/v0.nii.gz"), &flat, &vec![0; WIDTH * HEIGHT * 3]).unwrap();
    let train =
        "train --recipe nnunet --model nnunet --set base=4 --data discs.toml --crop 16x16 --epochs 1 --out broken";
    let train: Vec<&str> = train.split_whitespace().collect();
    lab.run(&train).bad(&["labels/v0.nii.gz", "20x16x3", "20x16x4 voxels"]);
    write_labels(&lab.path("labels/v0.nii.gz"), &header(), &vec![7; WIDTH * HEIGHT * DEPTH]).unwrap();
    lab.run(&train).bad(&["labels/v0.nii.gz", "labels outside the class list: 7"]);
    fs::write(lab.path("labels/v0.nii.gz"), bytes).unwrap();
    fs::write(lab.path("images/v1.nii.gz"), b"not a volume at all").unwrap();
    let ran = lab.run(&train);
    assert!(!ran.ok && ran.err.contains("images/v1.nii.gz: found a broken or short file"), "{}", ran.err);
}

/// The header's bytes with another depth.
fn raw(like: &Header, depth: i16) -> Box<[u8; Header::BYTES]> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("h.nii");
    write_labels(&file, like, &vec![0; WIDTH * HEIGHT * DEPTH]).unwrap();
    let mut raw: [u8; Header::BYTES] = fs::read(&file).unwrap()[..Header::BYTES].try_into().unwrap();
    raw[46..48].copy_from_slice(&depth.to_le_bytes());
    Box::new(raw)
}
