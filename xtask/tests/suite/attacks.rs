//! Attacks that need more than the victim and the image: another model, many images, other labels.

use std::fs;

use serde_json::Value;

use crate::lab::{Lab, timeless, weights};

fn rows(lab: &Lab, folder: &str) -> Vec<Value> {
    timeless(&lab.path(folder).join("results.json"))["rows"].as_array().unwrap().clone()
}

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().chain(more).copied().collect()
}

fn score(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap()
}

#[test]
fn transfer_hurts_less_than_the_white_box_and_needs_a_source() {
    let lab = Lab::new();
    let source = format!("transfer.source={}", weights("segpgd3-at"));
    let list = ["--attacks", "transfer,pgd", "--steps", "4", "--images", "4"];
    lab.bench(&["standard"], &with(&list, &["--out", "a", "--attack-option", &source])).good();
    let found = rows(&lab, "a");
    assert_eq!((&found[1]["attack"], &found[2]["attack"]), (&"transfer".into(), &"pgd".into()));
    // Four steps on the source, and the pass that scores the result on the victim.
    assert_eq!((&found[1]["forward_passes"], &found[1]["backward_passes"]), (&20.into(), &16.into()));
    assert!(score(&found[2], "pixel_accuracy") < score(&found[1], "pixel_accuracy"));
    let checks = timeless(&lab.path("a/results.json"))["run"]["sanity"].clone();
    let check = checks.as_array().unwrap().iter().find(|c| c["name"].as_str().unwrap().contains("transfer")).unwrap();
    assert_eq!(check["status"], "passed", "{check}");
    lab.bench(&["standard"], &with(&list, &["--out", "b"])).bad(&["transfer.source", "weights file"]);
    // The tier against masked gradients has a row of it where a source is named.
    let masking = ["--preset", "masking", "--images", "1", "--plan"];
    assert!(!lab.bench(&["standard"], &masking).good().contains("transfer"));
    let named = with(&masking, &["--attack-option", &source]);
    assert!(lab.bench(&["standard"], &named).good().contains("transfer-20  (81 forward, 80 backward an image)"));
    let missing = "transfer.source=nowhere.safetensors";
    lab.bench(&["standard"], &with(&list, &["--out", "b", "--attack-option", missing])).bad(&["nowhere.safetensors"]);
    // Another source is another run.
    let other = format!("transfer.source={}", weights("standard"));
    lab.bench(&["standard"], &with(&list, &["--out", "a", "--resume", "--attack-option", &other]))
        .bad(&["another run"]);
}

#[test]
fn what_is_learned_comes_from_the_training_split_and_survives_a_resume() {
    let lab = Lab::new();
    let list = ["--attacks", "universal", "--steps", "3", "--images", "4", "--attack-option", "universal.images=6"];
    let plan: Value =
        serde_json::from_str(&lab.bench(&["standard"], &with(&list, &["--plan", "--json", "--out", "p"])).good())
            .unwrap();
    // Three steps over six images; four images scored clean and attacked.
    assert_eq!(plan["estimate"]["backward_passes"], 18);
    assert_eq!(plan["estimate"]["forward_passes"], 18 + 8);
    lab.bench(&["standard"], &with(&list, &["--out", "a", "--save-adversarial", "a.safetensors"])).good();
    let learned = lab.path("a/learned/1.safetensors");
    let delta = fs::read(&learned).unwrap();
    let header = fs::read_to_string(lab.path("a/records.jsonl")).unwrap();
    assert!(header.lines().next().unwrap().contains("\"learning\":\"train, 6 images"), "{header}");
    let found = rows(&lab, "a");
    assert_eq!((&found[1]["epsilon"], &found[1]["alpha"]), (&Value::from(10.0 / 255.0), &Value::from(1.0 / 255.0)));
    assert_eq!((&found[1]["forward_passes"], &found[1]["backward_passes"]), (&4.into(), &0.into()));
    // Half of the records lost: what was learned is there still.
    let records = lab.path("a/records.jsonl");
    let kept: usize = header.lines().take(7).map(|line| line.len() + 1).sum();
    fs::write(&records, &header[..kept]).unwrap();
    lab.bench(&["standard"], &with(&list, &["--out", "a", "--resume"])).good();
    assert_eq!(rows(&lab, "a"), found);
    assert_eq!(fs::read(&learned).unwrap(), delta);
    // Two shards learn the same, and merge to the same rows.
    for shard in ["1/2", "2/2"] {
        let out = format!("part{}", &shard[..1]);
        lab.bench(&["standard"], &with(&list, &["--out", &out, "--shard", shard])).good();
        assert_eq!(fs::read(lab.path(&out).join("learned/1.safetensors")).unwrap(), delta);
    }
    lab.run(&["report", "part1", "part2", "--out", "merged"]).good();
    assert_eq!(rows(&lab, "merged"), found);
}

#[test]
fn corruptions_are_rows_with_a_table_of_their_own_and_without_a_radius() {
    let lab = Lab::new();
    let kind = ["--attack-option", "corruption.severity=3"];
    let list = ["--attacks", "corruption,pgd", "--steps", "2", "--images", "2", "--out", "a"];
    let out = lab.bench(&["standard"], &[&list[..], &kind[..]].concat()).good();
    assert!(
        out.contains("mIoU (%) under corruption of unet") && out.contains("| fog |") && out.contains("| Mean |"),
        "{out}"
    );
    let found = rows(&lab, "a");
    assert_eq!(found.len(), 17, "clean, fifteen kinds, PGD");
    let of = |kind: &str| found.iter().find(|row| row["options"]["kind"] == kind).unwrap().clone();
    for row in found.iter().filter(|row| row["attack"] == "corruption") {
        assert!(row["epsilon"].is_null() && row["norm"].is_null());
        assert_eq!((&row["forward_passes"], &row["backward_passes"]), (&2.into(), &0.into()));
    }
    assert!(score(&of("gaussian-noise"), "miou") < score(&found[0], "miou"));
    // Pixels under the occluder are not scored.
    let records = fs::read_to_string(lab.path("a/records.jsonl")).unwrap();
    let valid = |row: usize| -> u64 {
        let prefix = format!("{{\"row\":{row},");
        let of_row = records.lines().filter(|line| line.starts_with(&prefix));
        let labels = |line: &str| -> u64 {
            let record: Value = serde_json::from_str(line).unwrap();
            record["counts"]["labels"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum()
        };
        of_row.map(labels).sum()
    };
    let occluded = found.iter().position(|row| row["options"]["kind"] == "occlusion").unwrap();
    assert!(valid(occluded) < valid(0) * 9 / 10 && valid(1) == valid(0));
    // Corruptions are not in any worst case.
    let worst = timeless(&lab.path("a/results.json"))["worst_cases"].clone();
    assert!(worst.as_array().is_none_or(|all| all.iter().all(|one| one["rows"].as_array().unwrap().len() < 3)));
    let page = fs::read_to_string(lab.path("a/report.html")).unwrap();
    assert!(page.contains("<h2>Corruptions</h2>"));
}

#[test]
fn minimal_norms_and_their_curve_are_reported() {
    let lab = Lab::new();
    let list = ["--attacks", "fmn,deepfool,pgd", "--steps", "150", "--images", "3", "--out", "a"];
    let out = lab.bench(&["standard"], &list).good();
    assert!(out.contains("Smallest perturbations") && out.contains("Median norm"), "{out}");
    let found = rows(&lab, "a");
    for row in &found[1..3] {
        let minimal = &row["minimal"];
        let norms: Vec<f64> = minimal["norms"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
        assert_eq!(norms.len() as u64, minimal["fooled"].as_u64().unwrap());
        assert!(norms.windows(2).all(|w| w[0] <= w[1]));
        assert!((0.0..=1.0).contains(&score(minimal, "success")) && score(minimal, "success") > 0.5, "{row}");
    }
    assert!(found[3].get("minimal").is_none_or(Value::is_null), "PGD looks for none");
    let csv = fs::read_to_string(lab.path("a/results.csv")).unwrap();
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let column = |name: &str| head.iter().position(|found| *found == name).unwrap();
    for (line, row) in lines.zip(&found) {
        let expected = |field: &str| match row["minimal"][field].as_f64() {
            Some(number) => number.to_string(),
            None => String::new(),
        };
        for (name, field) in [("images_fooled", "fooled"), ("apsr", "success"), ("median_norm", "median_norm")] {
            assert_eq!(line[column(name)], expected(field), "{name}");
        }
    }
    // Where nothing is fooled there is no curve.
    let fooled = found[1..3].iter().any(|row| row["minimal"]["fooled"].as_u64().unwrap() > 0);
    assert_eq!(lab.path("a/success-linf.png").is_file(), fooled);
    assert!(fs::read_to_string(lab.path("a/report.html")).unwrap().contains("<h2>Smallest perturbations</h2>"));
}

#[test]
fn the_new_attacks_run_from_the_command_line() {
    let lab = Lab::new();
    let list = ["--attacks", "cw,pdpgd,dla,patch,indirect", "--steps", "6", "--images", "2", "--out", "a"];
    lab.bench(&["standard"], &list).good();
    let found = rows(&lab, "a");
    assert_eq!((&found[1]["norm"], &found[1]["epsilon"]), (&"l2".into(), &Value::from(128.0 / 255.0)), "its own ball");
    assert_eq!(found[2]["epsilon"], Value::from(8.0 / 255.0), "the preset's");
    assert_eq!(found[3]["backward_passes"], 0);
    assert!(found[4]["epsilon"].is_null(), "no radius bounds a patch");
    assert_eq!(found[5]["attack"], "indirect");
}
