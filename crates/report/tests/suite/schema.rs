use fireproof_metrics::ClassCounts;
use fireproof_report::{Check, Results, Row, Status};
use proptest::prelude::*;
use serde_json::Value;

use crate::fixtures::{key, run};

fn results() -> Results {
    let counts = ClassCounts::count(3, &[0u8, 0, 1, 255], &[0u8, 1, 1, 0]).unwrap();
    let rows = [("none", 0), ("fgsm", 1), ("pgd", 10)];
    let row = |&(attack, steps): &(&str, u32)| Row::new(&key("standard", attack, steps), 5, &counts, (50, 45), 1.25);
    Results::new(run(), rows.iter().map(row).collect())
}

#[test]
fn a_row_has_exactly_the_fields_that_were_promised() {
    let value: Value = serde_json::from_str(&results().to_json()).unwrap();
    let mut names: Vec<&str> = value["rows"][0].as_object().unwrap().keys().map(String::as_str).collect();
    let mut promised = vec![
        "model",
        "training",
        "weights",
        "dataset",
        "split",
        "images",
        "device",
        "precision",
        "attack",
        "norm",
        "epsilon",
        "alpha",
        "steps",
        "restarts",
        "iterate",
        "start",
        "targeted",
        "seed",
        "miou",
        "mean_accuracy",
        "pixel_accuracy",
        "per_class_iou",
        "forward_passes",
        "backward_passes",
        "seconds",
    ];
    names.sort_unstable();
    promised.sort_unstable();
    assert_eq!(names, promised);
    assert_eq!(value["schema"], 1);
    for name in ["version", "commit", "command", "device", "seed"] {
        assert!(!value["run"][name].is_null(), "{name}");
    }
    assert_eq!(value["run"]["classes"][1]["name"], "sky");
    assert_eq!(value["rows"][0]["attack"], "none");
    assert_eq!(value["rows"][0]["norm"], Value::Null);
    assert_eq!(value["rows"][2]["steps"], 10);
}

#[test]
fn scores_are_fractions_and_an_absent_class_is_null() {
    let value: Value = serde_json::from_str(&results().to_json()).unwrap();
    assert_eq!(value["rows"][0]["per_class_iou"], serde_json::json!([0.5, 0.5, null]));
    assert_eq!(value["rows"][0]["miou"], 0.5);
    assert_eq!(value["rows"][0]["mean_accuracy"], 0.75);
}

#[test]
fn results_come_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new").join(Results::FILE);
    let mut results = results();
    let check = |name: &str, status| Check { name: name.into(), status, detail: "why".into() };
    results.run.sanity = vec![check("a", Status::Passed), check("b", Status::Failed), check("c", Status::NotRun)];
    results.write(&path).unwrap();
    assert_eq!(Results::read(&path).unwrap(), results);
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"not run\""));
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "temporary files are gone");
}

#[test]
fn another_schema_and_impossible_scores_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(Results::FILE);
    let complaint = |change: &dyn Fn(&mut Results)| {
        let mut results = results();
        change(&mut results);
        results.write(&path).unwrap();
        Results::read(&path).unwrap_err().to_string()
    };
    assert!(complaint(&|r| r.schema = 2).contains("schema 2, expected 1"));
    assert!(complaint(&|r| r.rows[1].miou = Some(55.0)).contains("rows[1] has the score 55"));
    assert!(complaint(&|r| r.rows[0].per_class_iou.truncate(2)).contains("2 values for 3 classes"));
    std::fs::write(&path, "{\n  \"schema\": 1,\n").unwrap();
    assert!(Results::read(&path).unwrap_err().to_string().contains("results.json, line"));
}

proptest! {
    #[test]
    fn every_fraction_survives_the_file_bit_by_bit(scores in prop::collection::vec(prop::option::of(0.0f64..=1.0), 3)) {
        let mut results = results();
        results.rows[0].per_class_iou = scores;
        let back: Results = serde_json::from_str(&results.to_json()).unwrap();
        prop_assert_eq!(back, results);
    }
}
