//! The weights that come with the repository.

use std::fs;
use std::path::{Path, PathBuf};

use fireproof_datasets::{Options, Split, open};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::lab::run_in;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("crates/models/checkpoints")
}

/// What the weights were made on, `facts.json` beside them; none in a package, which comes without weights.
fn facts() -> Option<Value> {
    let folder = folder();
    if !folder.exists() {
        println!("skipped: no weights at {}", folder.display());
        return None;
    }
    let path = folder.join("facts.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn shipped_weights_were_trained_on_the_scenes_that_the_generator_makes_today() {
    let Some(facts) = facts() else { return };
    let scenes = open("scenes", None, Split::Train, Options::default()).unwrap();
    let mut hash = Sha256::new();
    for index in [0, 1, 1000, 2047] {
        let sample = scenes.get(index).unwrap();
        sample.image.data.iter().for_each(|value| hash.update(value.to_le_bytes()));
        hash.update(&sample.mask.data);
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, facts["scenes_sha256"], "the generator has changed: train the shipped weights anew");
}

#[test]
fn shipped_weights_fit_their_architecture_and_still_know_what_they_knew() {
    let Some(facts) = facts() else { return };
    let lab = tempfile::tempdir().unwrap();
    let arguments = ["bench", "--attacks", "none", "--images", "8", "--out", "a", "--json"];
    let results: Value = serde_json::from_str(&run_in(lab.path(), &arguments).good()).unwrap();
    let expected = facts["clean_miou_of_8"].as_object().unwrap().clone();
    let rows = results["rows"].as_array().unwrap();
    assert_eq!(rows.len(), expected.len());
    for row in rows {
        let (found, expected) =
            (row["miou"].as_f64().unwrap(), expected[row["weights"].as_str().unwrap()].as_f64().unwrap());
        // Another processor's rounding may flip a pixel in a thousand.
        assert!((found - expected).abs() < 2e-3, "{}: mIoU {found}, expected {expected}", row["weights"]);
    }
}

#[test]
fn shipped_weights_are_small() {
    let Some(_) = facts() else { return };
    let sizes = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(sizes.sum::<u64>() <= 8 << 20);
}
