//! Commands on one image or one file.

use std::fs;

use serde_json::Value;

use crate::lab::{Lab, data, picture, timeless, weights};

#[test]
fn predict_writes_classes_colours_and_logits_at_the_images_size() {
    let lab = Lab::new();
    let (image, _) = picture(&lab);
    let arguments = ["predict", "--weights", &weights("standard"), "--image", &image, "--out", "p", "--json"];
    let shares: Value =
        serde_json::from_str(&lab.run(&[&arguments[..], &["--save-logits", "logits.safetensors"]].concat()).good())
            .unwrap();
    let total: f64 = shares["shares"].as_object().unwrap().values().map(|share| share.as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-9, "{total}");
    let bytes = fs::read(lab.path("logits.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let logits = file.tensor("logits").unwrap();
    assert_eq!((logits.shape(), logits.dtype()), (&[1, 9, 24, 32][..], safetensors::Dtype::F32));
    let values: Vec<f32> =
        logits.data().chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect();
    let classes = image::open(lab.path("p/scene-classes.png")).unwrap().into_luma8();
    for (pixel, class) in classes.pixels().enumerate() {
        let best = (0..9).max_by(|&a, &b| values[a * 768 + pixel].total_cmp(&values[b * 768 + pixel])).unwrap();
        assert_eq!(values[best * 768 + pixel], values[usize::from(class.0[0]) * 768 + pixel], "pixel {pixel}");
    }
    assert_eq!(image::open(lab.path("p/scene-colors.png")).unwrap().into_rgb8().dimensions(), (32, 24));
}

#[test]
fn attack_writes_the_exact_image_the_rounded_one_and_panels() {
    let lab = Lab::new();
    let (image, mask) = picture(&lab);
    let arguments = [
        "attack",
        "--weights",
        &weights("standard"),
        "--image",
        &image,
        "--mask",
        &mask,
        "--attack",
        "segpgd",
        "--steps",
        "8",
        "--eps",
        "8/255",
        "--out",
        "a",
        "--json",
    ];
    let found: Value = serde_json::from_str(&lab.run(&arguments).good()).unwrap();
    let accuracy = |name: &str| found["scores"][name]["pixel_accuracy"].as_f64().unwrap();
    assert!(accuracy("attacked") < accuracy("clean"));
    assert!(found["perturbation"].as_f64().unwrap() <= 8.0 / 255.0 + 1e-6);
    assert_eq!((&found["passes"]["forward"], &found["passes"]["backward"]), (&8.into(), &8.into()));
    for file in ["a/scene-adversarial.png", "a/scene-adversarial.safetensors", "a/scene-panels.png"] {
        assert!(lab.path(file).is_file(), "{file}");
    }
    let (clean, attacked) = (
        image::open(&image).unwrap().into_rgb8(),
        image::open(lab.path("a/scene-adversarial.png")).unwrap().into_rgb8(),
    );
    let largest = clean.as_raw().iter().zip(attacked.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!((1..=8).contains(&largest), "{largest}");
}

#[test]
fn a_targeted_attack_leads_to_its_target() {
    let lab = Lab::new();
    let (image, mask) = picture(&lab);
    let building = |out: &str, more: &[&str]| {
        let weights = weights("standard");
        // This tiny network, trained for seconds, needs a large radius to be led anywhere.
        let radius = ["--steps", "40", "--eps", "0.3", "--alpha", "0.03"];
        let common = ["attack", "--weights", &weights, "--image", &image, "--mask", &mask, "--out", out];
        lab.run(&[&common[..], &radius, more].concat()).good();
        let attacked = lab.path(out).join("scene-adversarial.png").display().to_string();
        let predicted = ["predict", "--weights", &weights, "--image", &attacked, "--out", "p", "--json"];
        let found: Value = serde_json::from_str(&lab.run(&predicted).good()).unwrap();
        found["shares"]["building"].as_f64().unwrap()
    };
    let (away, towards) = (building("a", &[]), building("b", &["--target", "class=1", "--start", "zero"]));
    assert!(towards > away + 0.15, "building: {away} untargeted, {towards} targeted");
}

#[test]
fn exported_weights_are_the_same_model() {
    let lab = Lab::new();
    let out = lab.run(&["export", "--weights", &weights("standard"), "--out", "torch.safetensors"]).good();
    assert!(out.contains("tensors"), "{out}");
    lab.bench(&["standard"], &["--attacks", "none", "--out", "a"]).good();
    let data = data();
    lab.run(&["bench", "--data", &data, "--weights", "torch.safetensors", "--attacks", "none", "--out", "b"]).good();
    let score = |out: &str| timeless(&lab.path(out).join("results.json"))["rows"][0]["miou"].clone();
    assert_eq!(score("a"), score("b"));
}

#[test]
fn doctor_says_what_is_missing_and_how_to_get_it() {
    let lab = Lab::new();
    let found: Value = serde_json::from_str(&lab.run(&["doctor", "--json"]).good()).unwrap();
    let backends = found["backends"].as_array().unwrap();
    assert_eq!(backends.len(), 5);
    for backend in backends {
        assert_ne!(backend["device"].is_null(), backend["reason"].is_null(), "{backend}");
        if backend["compiled"] == false {
            let feature = format!("--features {}", backend["name"].as_str().unwrap());
            assert!(backend["reason"].as_str().unwrap().contains(&feature), "{backend}");
        }
    }
    assert!(found["threads"].as_u64().unwrap() > 0);
    assert!(lab.run(&["doctor"]).good().contains("backends"));
}

#[test]
fn data_is_listed_and_checked() {
    let lab = Lab::new();
    assert!(lab.run(&["data", "list"]).good().contains("camvid"));
    let report: Value =
        serde_json::from_str(&lab.run(&["data", "check", &data(), "--split", "val", "--json"]).good()).unwrap();
    assert_eq!(report["samples"], 4);
}

#[test]
fn speed_has_the_keys_of_the_script_it_is_compared_with() {
    let lab = Lab::new();
    let arguments = [
        "speed",
        "--model",
        "unet",
        "--base",
        "4",
        "--size",
        "32",
        "48",
        "--batch",
        "2",
        "--threads",
        "1",
        "--runs",
        "1",
    ];
    let line: Value = serde_json::from_str(&lab.run(&arguments).good()).unwrap();
    assert_eq!((&line["model"], &line["size"][0], &line["size"][1]), (&"unet".into(), &32.into(), &48.into()));
    for key in ["forward_s", "input_gradient_s", "segpgd_step_s", "train_step_s", "peak_rss_mib"] {
        assert!(line[key].as_f64().unwrap() > 0.0, "{key}");
    }
    for key in ["base", "batch", "threads"] {
        assert!(line[key].is_u64(), "{key}");
    }
}

#[test]
fn a_recipe_is_explained_in_words() {
    let lab = Lab::new();
    let words = lab.run(&["train", "--recipe", "segpgd3-at", "--explain"]).good();
    assert!(words.contains("segpgd (3 steps"), "{words}");
    assert_eq!(lab.run(&["train", "--explain", "segpgd3-at"]).good(), words);
    lab.run(&["train", "--explain", "segpdg3-at"]).bad(&["segpdg3-at"]);
}

#[test]
fn every_recipe_of_the_list_can_be_explained_and_its_options_set_however_deep_they_are() {
    let lab = Lab::new();
    let list = lab.run(&["train", "--list"]).good();
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for name in ["trades", "awp-at", "cutmix-ema", "iat", "oat", "rlat", "free-at", "adaptive-at", "augrmix-at", "ima"]
    {
        assert!(names.contains(&name), "{name} in {list}");
    }
    // Forms of names are in capitals.
    for name in names.iter().filter(|name| !name.contains(char::is_uppercase)) {
        assert!(lab.run(&["train", "--explain", name]).good().contains("passes per image and step"), "{name}");
    }
    assert!(lab.run(&["train", "--explain", "trades-dice"]).good().contains("dice-ce"));
    let deep = ["train", "--explain", "adaptive-at", "--option", "inner-max.attack.steps=7", "--option"];
    let words = lab.run(&[&deep[..], &["inner-max.epsilon_schedule.every=3"]].concat()).good();
    assert!(words.contains("7 steps") && words.contains("7 backward to the input"), "{words}");
    lab.run(&[&deep[..], &["inner-max.epsilon_schedule.evry=3"]].concat()).bad(&["evry"]);
}

#[test]
fn tensors_that_nothing_was_read_from_are_told_unless_the_file_says_what_it_is() {
    let lab = Lab::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/models/tests/golden/unet_base4.pth");
    let ran = lab.run(&["export", "--weights", file, "--out", "w.safetensors"]);
    assert!(ran.err.contains("unet_base4.pth: not used: ") && ran.err.contains("num_batches_tracked"), "{}", ran.err);
    ran.good();
    let again = lab.run(&["export", "--weights", "w.safetensors", "--out", "again.safetensors"]);
    assert_eq!(again.err, "");
    again.good();
    assert_eq!(fs::read(lab.path("w.safetensors")).unwrap(), fs::read(lab.path("again.safetensors")).unwrap());
}
