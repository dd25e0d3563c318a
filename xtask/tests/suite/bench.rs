use std::fs;

use serde_json::Value;

use crate::lab::{Lab, timeless, weights};

const QUICK: &[&str] = &["--attacks", "fgsm,pgd,segpgd", "--steps", "2,4", "--images", "3"];

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().chain(more).copied().collect()
}

#[test]
fn two_equal_runs_differ_only_in_seconds_and_leave_every_file() {
    let lab = Lab::new();
    let out = lab.bench(&["standard", "segpgd3-at"], &with(QUICK, &["--out", "a"])).good();
    assert!(out.contains("SegPGD4") && out.contains("segpgd3-at") && out.contains("a/report.html"), "{out}");
    lab.bench(&["standard", "segpgd3-at"], &with(QUICK, &["--out", "b", "--batch", "2"])).good();
    let (a, b) = (timeless(&lab.path("a/results.json")), timeless(&lab.path("b/results.json")));
    assert_eq!(a["rows"], b["rows"]);
    assert_eq!(a["run"]["weights"], b["run"]["weights"]);
    for file in ["results.csv", "report.html", "records.jsonl", "panels.png"] {
        assert!(lab.path("a").join(file).is_file(), "{file}");
    }
    let curves = fs::read_dir(lab.path("a"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("curves"));
    assert!(curves.count() >= 2, "mIoU and MisRatio against iterations");
}

#[test]
fn equal_commands_have_equal_results_to_the_last_letter_but_for_seconds() {
    let lab = Lab::new();
    for out in ["a", "b"] {
        lab.bench(&["standard"], &with(QUICK, &["--out", out])).good();
    }
    assert_eq!(timeless(&lab.path("a/results.json")), timeless(&lab.path("b/results.json")));
}

#[test]
fn rows_say_what_the_schema_asks_for() {
    let lab = Lab::new();
    let json = lab.bench(&["standard"], &with(QUICK, &["--out", "a", "--json"])).good();
    let results: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(results["schema"], 1);
    let rows = results["rows"].as_array().unwrap();
    let named: Vec<_> =
        rows.iter().map(|row| (row["attack"].as_str().unwrap(), row["steps"].as_u64().unwrap())).collect();
    assert_eq!(named, [("none", 0), ("fgsm", 1), ("pgd", 2), ("pgd", 4), ("segpgd", 2), ("segpgd", 4)]);
    let pgd = &rows[3];
    for (field, value) in [
        ("model", "unet".into()),
        ("training", "standard".into()),
        ("weights", "best.safetensors".into()),
        ("split", "test".into()),
        ("images", 3.into()),
        ("device", "flex".into()),
        ("precision", "f32".into()),
        ("norm", "linf".into()),
        ("epsilon", Value::from(8.0 / 255.0)),
        ("alpha", Value::from(0.01)),
        ("restarts", 1.into()),
        ("iterate", "last".into()),
        ("start", "random".into()),
        ("targeted", false.into()),
        // Four steps and the pass that scores the result, of three images.
        ("forward_passes", 15.into()),
        ("backward_passes", 12.into()),
    ] {
        assert_eq!(pgd[field], value, "{field}");
    }
    assert_eq!(rows[1]["alpha"], Value::from(8.0 / 255.0), "a single step has the radius' length");
    assert_eq!(pgd["per_class_iou"].as_array().unwrap().len(), 9);
    let clean = rows[0]["miou"].as_f64().unwrap();
    assert!(pgd["miou"].as_f64().unwrap() < clean, "the attack lowers the clean {clean}");
}

#[test]
fn one_long_trace_gives_the_rows_of_shorter_runs() {
    let lab = Lab::new();
    lab.bench(&["standard"], &["--attacks", "pgd", "--steps", "2,3,6", "--out", "trace"]).good();
    let rows = timeless(&lab.path("trace/results.json"))["rows"].clone();
    for (index, steps) in ["2", "3", "6"].iter().enumerate() {
        let out = format!("alone-{steps}");
        lab.bench(&["standard"], &["--attacks", "pgd", "--steps", steps, "--out", &out]).good();
        let alone = timeless(&lab.path(&out).join("results.json"))["rows"][1].clone();
        assert_eq!(rows[index + 1], alone, "{steps} steps");
    }
}

#[test]
fn a_plan_counts_passes_exactly_and_runs_nothing() {
    let lab = Lab::new();
    let arguments = ["--attacks", "fgsm,segpgd", "--steps", "2,5", "--out", "a"];
    let plan: Value =
        serde_json::from_str(&lab.bench(&["standard"], &with(&arguments, &["--plan", "--json"])).good()).unwrap();
    assert!(!lab.path("a").exists());
    assert!(plan["estimate"]["seconds"].as_f64().unwrap() > 0.0);
    lab.bench(&["standard"], &arguments).good();
    let results = timeless(&lab.path("a/results.json"));
    let sum =
        |field: &str| results["rows"].as_array().unwrap().iter().map(|row| row[field].as_u64().unwrap()).sum::<u64>();
    for field in ["forward_passes", "backward_passes"] {
        assert_eq!(plan["estimate"][field].as_u64().unwrap(), sum(field), "{field}");
    }
    let shared: Value = serde_json::from_str(
        &lab.bench(&["standard"], &["--attacks", "pgd", "--steps", "2,5", "--plan", "--json"]).good(),
    )
    .unwrap();
    // Five images: five steps once, not seven, and a scoring pass for clean, 2 and 5.
    assert_eq!(shared["estimate"]["backward_passes"], 25);
    assert_eq!(shared["estimate"]["forward_passes"], 40);
    let words = lab.bench(&["standard"], &["--attacks", "pgd", "--steps", "2,5", "--plan"]).good();
    assert!(
        words.contains("40 forward and 25 backward passes") && words.contains(" h)") && words.contains("GiB"),
        "{words}"
    );
}

#[test]
fn an_interrupted_run_goes_on_where_it_was_and_redoes_nothing() {
    let lab = Lab::new();
    lab.bench(&["standard"], &with(QUICK, &["--out", "whole"])).good();
    lab.bench(&["standard"], &with(QUICK, &["--out", "cut"])).good();
    let records = lab.path("cut/records.jsonl");
    let whole = fs::read_to_string(&records).unwrap();
    // The header, and in the middle of the eighth record.
    let kept: usize = whole.lines().take(8).map(|line| line.len() + 1).sum();
    fs::write(&records, &whole[..kept + 20]).unwrap();
    fs::remove_file(lab.path("cut/results.json")).unwrap();
    lab.bench(&["standard"], &with(QUICK, &["--out", "cut"])).bad(&["records.jsonl", "--resume"]);
    lab.bench(&["standard"], &with(QUICK, &["--out", "cut", "--resume"])).good();
    assert_eq!(timeless(&lab.path("cut/results.json")), timeless(&lab.path("whole/results.json")));
    let resumed = fs::read_to_string(&records).unwrap();
    assert!(resumed.starts_with(&whole[..kept]), "records are not touched");
    assert_eq!(resumed.lines().count(), whole.lines().count());
    // Nothing is missing now, so nothing is done.
    lab.bench(&["standard"], &with(QUICK, &["--out", "cut", "--resume"])).good();
    assert_eq!(fs::read_to_string(&records).unwrap(), resumed);
}

#[test]
fn another_plan_or_other_weights_are_refused_by_name() {
    let lab = Lab::new();
    lab.bench(&["standard"], &with(QUICK, &["--out", "a"])).good();
    let resume = |more: &[&str]| lab.bench(&["standard"], &with(QUICK, &with(&["--out", "a", "--resume"], more)));
    resume(&["--seed", "3"]).bad(&["another run", "seed", "\"0\"", "\"3\""]);
    resume(&["--eps", "4/255"]).bad(&["another run", "plan.eps", "0.0313", "0.0156"]);
    resume(&["--steps", "5"]).bad(&["plan.steps", "2, 4, 5"]);
    lab.bench(&["segpgd3-at"], &with(QUICK, &["--out", "a", "--resume"])).bad(&["another run", "training"]);
    let changed = lab.path("best.safetensors");
    fs::copy(weights("standard"), &changed).unwrap();
    let mut bytes = fs::read(&changed).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&changed, bytes).unwrap();
    let data = crate::lab::data();
    let arguments = ["bench", "--data", &data, "--weights", "best.safetensors", "--out", "a", "--resume"];
    lab.run(&with(&arguments, QUICK)).bad(&["another run", "weights.best.safetensors"]);
}

#[test]
fn saved_adversarial_images_score_the_same_when_they_come_back() {
    let lab = Lab::new();
    let arguments = ["--attacks", "segpgd", "--steps", "4", "--images", "3"];
    lab.bench(&["standard"], &with(&arguments, &["--out", "made", "--save-adversarial", "adv.safetensors"])).good();
    lab.bench(&["standard"], &["--images", "3", "--adversarial", "adv.safetensors", "--out", "scored"]).good();
    let (made, scored) = (timeless(&lab.path("made/results.json")), timeless(&lab.path("scored/results.json")));
    assert_eq!(scored["rows"][1]["attack"], "given");
    for score in ["miou", "pixel_accuracy", "per_class_iou"] {
        assert_eq!(made["rows"][1][score], scored["rows"][1][score], "{score}");
    }
    let bytes = fs::read(lab.path("adv.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("images").unwrap().shape(), [3, 3, 24, 32]);
    lab.bench(&["standard"], &["--images", "2", "--adversarial", "adv.safetensors", "--out", "other"]).bad(&[
        "adv.safetensors",
        "[3, 3, 24, 32]",
        "[2, 3, 24, 32]",
    ]);
}

#[test]
fn chosen_frames_are_scored_in_the_order_of_their_file() {
    let lab = Lab::new();
    let first = lab.bench(&["standard"], &["--attacks", "none", "--images", "2", "--out", "a"]);
    first.good();
    let names: Vec<String> = fs::read_to_string(lab.path("a/records.jsonl"))
        .unwrap()
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].as_str().unwrap().to_owned())
        .collect();
    fs::write(lab.path("frames.txt"), format!("{}\n\n{}\n", names[1], names[0])).unwrap();
    lab.bench(&["standard"], &["--attacks", "none", "--frames", "frames.txt", "--out", "b"]).good();
    let (a, b) = (timeless(&lab.path("a/results.json")), timeless(&lab.path("b/results.json")));
    assert_eq!(a["rows"], b["rows"]);
    fs::write(lab.path("frames.txt"), "nobody\n").unwrap();
    lab.bench(&["standard"], &["--frames", "frames.txt", "--out", "c"]).bad(&["nobody"]);
}

#[test]
fn reports_are_made_anew_in_every_format() {
    let lab = Lab::new();
    lab.bench(&["standard"], &with(QUICK, &["--out", "a"])).good();
    assert!(lab.run(&["report", "a"]).good().contains("| unet"));
    assert!(lab.run(&["report", "a", "--format", "latex"]).good().contains("\\toprule"));
    fs::remove_file(lab.path("a/report.html")).unwrap();
    lab.run(&["report", "a", "--format", "html"]).good();
    assert!(fs::read_to_string(lab.path("a/report.html")).unwrap().contains("SegPGD"));
}

#[test]
fn the_list_names_attacks_presets_models_and_data() {
    let lab = Lab::new();
    let list: Value = serde_json::from_str(&lab.run(&["bench", "--list", "--json"]).good()).unwrap();
    let has = |kind: &str, name: &str| list[kind].as_array().unwrap().iter().any(|entry| entry["name"] == name);
    for (kind, name) in [("attacks", "cospgd"), ("presets", "legacy"), ("models", "unet"), ("data", "camvid")] {
        assert!(has(kind, name), "{kind} {name}");
        assert!(lab.run(&["bench", "--list"]).good().contains(name));
    }
}

#[test]
fn shards_merge_to_the_numbers_of_one_run() {
    let lab = Lab::new();
    lab.bench(&["standard"], &with(QUICK, &["--out", "whole"])).good();
    for shard in ["1", "2"] {
        let (which, out) = (format!("{shard}/2"), format!("part-{shard}"));
        lab.bench(&["standard"], &with(QUICK, &["--out", &out, "--shard", &which])).good();
    }
    lab.run(&["report", "part-1", "--out", "half"]).bad(&["missing", "2/2"]);
    lab.run(&["report", "part-1", "part-1", "part-2", "--out", "twice"]).bad(&["part-1", "1/2"]);
    lab.run(&["report", "part-1", "part-2"]).bad(&["--out"]);
    let table = lab.run(&["report", "part-2", "part-1", "--out", "merged"]).good();
    assert!(table.contains("SegPGD4"), "{table}");
    let (whole, merged) = (timeless(&lab.path("whole/results.json")), timeless(&lab.path("merged/results.json")));
    assert_eq!(whole["rows"], merged["rows"]);
    assert_eq!(whole["run"]["sanity"], merged["run"]["sanity"]);
    lab.bench(&["standard"], &with(QUICK, &["--out", "x", "--shard", "3/2"])).bad(&["3/2", "i/n"]);
    lab.bench(&["standard"], &with(QUICK, &["--out", "x", "--shard", "auto"])).bad(&["auto without a launcher"]);
}

#[test]
fn runs_of_several_seeds_give_the_spread_over_them() {
    let lab = Lab::new();
    for seed in ["3", "5"] {
        let run = ["--attacks", "pgd", "--steps", "2", "--images", "1", "--seed", seed, "--out", seed];
        lab.bench(&["standard"], &run).good();
    }
    let miou = |seed: &str| timeless(&lab.path(seed).join("results.json"))["rows"][1]["miou"].as_f64().unwrap();
    let table = lab.run(&["report", "3", "5", "--format", "csv"]).good();
    assert!(table.contains(&format!("{:.2}", 50.0 * (miou("3") + miou("5")))), "{table}");
    assert!(lab.run(&["report", "3", "5"]).good().contains("Spread over seeds"));
    lab.run(&["report", "3", "3"]).bad(&["--seed", "--out DIR"]);
    lab.run(&["report", "3", "5", "--format", "html"]).bad(&["--format", "html"]);
}

#[test]
fn strict_fails_on_a_check_that_was_not_run() {
    let lab = Lab::new();
    lab.bench(&["standard"], &with(QUICK, &["--out", "a", "--strict"])).bad(&["--strict", "of 10 sanity checks"]);
    let results = timeless(&lab.path("a/results.json"));
    let checks = results["run"]["sanity"].as_array().unwrap();
    assert_eq!(checks.len(), 10);
    let status = |name: &str| checks.iter().find(|check| check["name"].as_str().unwrap().starts_with(name)).unwrap();
    assert_eq!(status("Restarts")["status"], "not run");
    assert_ne!(status("More iterations")["status"], "not run");
}

#[test]
fn a_row_names_a_step_size_only_where_all_steps_have_it() {
    let lab = Lab::new();
    let attacks = ["--attacks", "fgsm,pgd,mi-fgsm,apgd,sea", "--steps", "4", "--images", "1", "--out", "a"];
    lab.bench(&["standard"], &attacks).good();
    let results = timeless(&lab.path("a/results.json"));
    let alpha = |attack: &str| {
        let rows = results["rows"].as_array().unwrap();
        rows.iter().find(|row| row["attack"] == attack).unwrap()["alpha"].as_f64()
    };
    let epsilon = 8.0 / 255.0;
    assert_eq!([alpha("fgsm"), alpha("pgd"), alpha("mi-fgsm")], [Some(epsilon), Some(0.01), Some(epsilon / 4.0)]);
    assert_eq!([alpha("apgd"), alpha("sea")], [None, None]);
}

#[test]
fn attacks_outside_the_preset_take_their_own_number_of_steps_and_draws_repeat() {
    let lab = Lab::new();
    let arguments = ["--attacks", "pgd,sea,noise", "--restarts", "3", "--images", "1", "--plan", "--json"];
    let plan: Value = serde_json::from_str(&lab.bench(&["standard"], &arguments).good()).unwrap();
    let of = |attack: &str, field: &str| -> Vec<u64> {
        let rows = plan["rows"].as_array().unwrap().iter().filter(|row| row["attack"] == attack);
        rows.map(|row| row[field].as_u64().unwrap()).collect()
    };
    assert_eq!([of("pgd", "steps"), of("sea", "steps")], [vec![3, 10, 20], vec![300]]);
    assert_eq!(of("noise", "restarts"), [3]);
}

#[test]
fn a_target_that_no_class_has_is_refused() {
    let lab = Lab::new();
    lab.bench(&["standard"], &with(QUICK, &["--out", "a", "--target", "class=9"])).bad(&["class 9", "from 0 to 8"]);
}

/// The check of this name.
fn check<'a>(results: &'a Value, name: &str) -> &'a Value {
    let checks = results["run"]["sanity"].as_array().unwrap();
    checks.iter().find(|check| check["name"].as_str().unwrap().starts_with(name)).unwrap()
}

#[test]
fn every_preset_is_planned_with_its_cost_and_the_headline_runs_all_ten_checks() {
    let lab = Lab::new();
    for preset in ["quick", "legacy", "fast", "standard", "full", "masking"] {
        let plan = lab.bench(&["standard"], &["--preset", preset, "--images", "2", "--plan"]).good();
        assert!(plan.contains("backward passes") && plan.contains(" h)") && plan.contains("sanity checks"), "{plan}");
    }
    let arguments = ["--preset", "standard", "--steps", "10", "--images", "2", "--out", "a"];
    let ran = lab.bench(&["standard", "segpgd3-at"], &arguments);
    assert!(ran.err.contains("backward passes") && ran.err.contains("for the sanity checks (all) on 2 images"));
    let out = ran.good();
    assert!(
        out.contains("SEA+ 10") && out.contains("Worst case") && out.contains(": Restarts change little. "),
        "{out}"
    );
    let results = timeless(&lab.path("a/results.json"));
    let checks = results["run"]["sanity"].as_array().unwrap();
    assert_eq!(checks.len(), 10);
    assert!(checks.iter().all(|check| check["status"] != "not run"), "{checks:?}");
    assert_eq!(results["run"]["measured"].as_array().unwrap().len(), 2, "one a model");
    // What the ensemble's runs did is recorded, and nothing is measured twice.
    let records = fs::read_to_string(lab.path("a/records.jsonl")).unwrap();
    let row: Value = serde_json::from_str(records.lines().last().unwrap()).unwrap();
    let names: Vec<&str> =
        row["candidates"].as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["balanced", "masked-ce", "js", "tsallis"]);
    let measured = fs::read_to_string(lab.path("a/checks.jsonl")).unwrap();
    lab.bench(&["standard", "segpgd3-at"], &with(&arguments, &["--resume"])).good();
    assert_eq!(fs::read_to_string(lab.path("a/checks.jsonl")).unwrap(), measured);
    assert_eq!(timeless(&lab.path("a/results.json")), results);
    // The greedy choice among the runs is at most the row, which was chosen by accuracy.
    let worst = results["worst_cases"][0]["miou"].as_f64().unwrap();
    assert!(worst <= results["rows"][1]["miou"].as_f64().unwrap());
    assert!(results["rows"][1]["calibration_error"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_model_that_masks_its_gradient_fails_the_checks_and_strict_says_which() {
    let lab = Lab::new();
    let arguments = ["--preset", "masking", "--attacks", "pgd", "--steps", "3", "--images", "2"];
    let ran = lab.bench(&["standard"], &with(&arguments, &["--preprocess", "bits=3", "--out", "a", "--strict"]));
    assert!(ran.err.contains("The gradient is not zero: 100.00 %"), "{}", ran.err);
    ran.bad(&["--strict", "of 10 sanity checks did not pass"]);
    let results = timeless(&lab.path("a/results.json"));
    assert_eq!(results["rows"][0]["model"], "unet (3 bits)");
    assert_eq!(check(&results, "The gradient is not zero")["status"], "failed");
    let arguments = ["--attacks", "pgd", "--steps", "3", "--images", "2", "--out", "b"];
    let through = ["--preprocess", "bits=3", "--straight-through"];
    lab.bench(&["standard"], &with(&arguments, &through)).good();
    let results = timeless(&lab.path("b/results.json"));
    assert_eq!(check(&results, "The gradient is not zero")["status"], "passed");
}

#[test]
fn attacks_go_through_windows_scales_noise_and_ensembles() {
    let lab = Lab::new();
    let clean_and_attacked = |recipes: &[&str], more: &[&str], out: &str| {
        lab.bench(recipes, &with(&["--attacks", "pgd", "--steps", "10", "--images", "2", "--out", out], more)).good();
        let results = timeless(&lab.path(&format!("{out}/results.json")));
        let row = |index: usize| results["rows"][index]["pixel_accuracy"].as_f64().unwrap();
        assert_eq!(results["rows"][1]["backward_passes"], 20, "a pass of the whole image counts one");
        (results["rows"][0]["model"].as_str().unwrap().to_owned(), row(0), row(1))
    };
    for (more, out, name) in [
        (
            &["--window", "16x16", "--stride", "8x8", "--window-weights", "gaussian"][..],
            "w",
            "window 16x16/8x8 gaussian",
        ),
        (&["--scales", "0.75,1", "--mirror"], "s", "scales 0.75 1 mirrored"),
        (&["--smooth", "0.05", "--smooth-draws", "2"], "n", "noise 0.05 x 2 seed 0"),
        (&["--preprocess", "blur=0.7"], "p", "blur 0.7"),
    ] {
        let (model, clean, attacked) = clean_and_attacked(&["standard"], more, out);
        assert_eq!(model, format!("unet ({name})"));
        assert!(attacked < clean - 0.01, "{name}: {clean} {attacked}");
    }
    let (_, clean, attacked) = clean_and_attacked(&["standard", "segpgd3-at"], &["--ensemble"], "e");
    assert!(attacked < clean - 0.01, "{clean} {attacked}");
    lab.bench(&["standard"], &["--ensemble", "--out", "x"]).bad(&["--ensemble", "expected several"]);
    lab.bench(&["standard"], &["--window", "8x8", "--stride", "9x8", "--out", "x"]).bad(&["8 pixels every 9"]);
}

#[test]
fn several_seeds_run_every_attack_and_their_spread_is_in_the_report() {
    let lab = Lab::new();
    let arguments = ["--attacks", "pgd", "--steps", "2", "--images", "2", "--seed", "0,3", "--out", "a"];
    lab.bench(&["standard"], &arguments).good();
    let results = timeless(&lab.path("a/results.json"));
    let seeds: Vec<(String, u64)> = results["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["attack"].as_str().unwrap().to_owned(), row["seed"].as_u64().unwrap()))
        .collect();
    assert_eq!(seeds, [("none".into(), 0), ("pgd".into(), 0), ("pgd".into(), 3)]);
    assert_ne!(results["rows"][1]["pixel_accuracy"], results["rows"][2]["pixel_accuracy"]);
    assert!(fs::read_to_string(lab.path("a/report.html")).unwrap().contains("Spread over seeds"));
}

#[test]
fn certificates_are_made_kept_and_gone_on_with() {
    let lab = Lab::new();
    let (data, weights) = (crate::lab::data(), weights("standard"));
    let certify = |more: &[&str]| {
        let own = ["certify", "--data", &data, "--weights", &weights, "--sigma", "0.02", "--n", "100", "--n0", "10"];
        lab.run(&with(&own, &with(&["--out", "c", "--tau", "0.75,0.9"], more)))
    };
    let table = certify(&["--images", "2"]).good();
    assert!(table.contains("| 0.0135 |") && table.contains("n0 = 10, n = 100"), "{table}");
    let summary: Value = serde_json::from_str(&fs::read_to_string(lab.path("c/certificates.json")).unwrap()).unwrap();
    let of = |line: usize, field: &str| summary["results"][line][field].as_f64().unwrap();
    assert!(of(0, "accuracy") > 0.2 && of(0, "accuracy") >= of(1, "accuracy"), "{table}");
    assert!(of(0, "abstained") <= of(1, "abstained") && of(0, "abstained") < 0.8, "{table}");
    let maps = fs::read_dir(lab.path("c")).unwrap();
    let maps = maps.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("radii-1-"));
    assert_eq!(maps.count(), 2);
    // A torn line is dropped, its image made again, and nothing else.
    let path = lab.path("c/certificates.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 40]).unwrap();
    certify(&["--images", "2"]).bad(&["certificates.jsonl", "--resume"]);
    certify(&["--images", "2", "--resume", "--alpha", "0.01"]).bad(&["another run"]);
    certify(&["--images", "2", "--resume", "--batch", "3"]).good();
    let again = fs::read_to_string(&path).unwrap();
    assert_eq!(again.lines().count(), whole.lines().count());
    assert!(again.lines().zip(whole.lines()).take(2).all(|(a, b)| a == b));
    let again: Value = serde_json::from_str(&fs::read_to_string(lab.path("c/certificates.json")).unwrap()).unwrap();
    assert_eq!(again["results"], summary["results"], "the batch changes nothing");
}

#[test]
fn one_label_an_image_is_certified_as_a_classifier_and_costs_are_told_first() {
    let lab = Lab::new();
    let manifest = r#"
name = "bright"
title = "Bright or dark"
origin = "generated"
licence = "MIT"
channels = 1
classes = [{ name = "dark", color = [0, 0, 0] }, { name = "bright", color = [255, 255, 255] }]
[idx]
images = "{split}-images"
labels = "{split}-labels"
[splits.train]
[splits.val]
path = "train"
[splits.test]
"#;
    fs::write(lab.path("bright.toml"), manifest).unwrap();
    for (split, count) in [("train", 32u32), ("test", 4)] {
        let head = |magic: u32, sizes: &[u32]| -> Vec<u8> {
            std::iter::once(&magic).chain(sizes).flat_map(|n| n.to_be_bytes()).collect()
        };
        let label = |i: u32| (i % 2) as u8;
        let pixels = (0..count).flat_map(|i| (0..144).map(move |p| 40 + 150 * label(i) + ((i * 7 + p * 5) % 40) as u8));
        fs::write(lab.path(&format!("{split}-images")), [head(0x803, &[count, 12, 12]), pixels.collect()].concat())
            .unwrap();
        let labels = (0..count).map(label).collect();
        fs::write(lab.path(&format!("{split}-labels")), [head(0x801, &[count]), labels].concat()).unwrap();
    }
    let data = ["--data", "bright.toml", "--root", "."];
    let train = ["train", "--recipe", "standard", "--model", "cnn", "--epochs", "4", "--batch", "8", "--out", "t"];
    lab.run(&with(&train, &data)).good();
    let own = ["certify", "--weights", "t/best.safetensors", "--images", "4", "--sigma", "0.1", "--n", "60"];
    let certify = |more: &[&str]| lab.run(&with(&with(&own, &data), more));
    let plan = certify(&["--plan"]).good();
    assert!(
        plan.contains("1 models, 4 images of bright, 70 noisy copies of each: 280 forward passes, about"),
        "{plan}"
    );
    assert!(!lab.path("runs").exists(), "a plan writes nothing");
    let table = certify(&["--tau", "0.5,0.8"]).good();
    assert!(table.contains("| 0.5 | 0.0000 |"), "{table}");
    let summary = fs::read_to_string(lab.path("runs/certify/certificates.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let first = &summary["results"][0];
    assert_eq!((&first["accuracy"], &first["abstained"]), (&Value::from(1.0), &Value::from(0.0)), "{table}");
    // All 60 copies at alpha 0.001: sigma times the quantile of 0.001^(1/60).
    assert!((first["median_radius"].as_f64().unwrap() - 0.1 * 1.2332).abs() < 1e-4, "{table}");
    // The next run has a folder of its own.
    let ran = certify(&[]);
    assert!(ran.err.contains("280 forward passes, into runs/certify-2"), "{}", ran.err);
    ran.good();
}
