//! The likeliest wrong inputs of each command: one line that names the file or argument, what was found, what was expected.

use std::fs;

use crate::lab::{Lab, data, picture, weights};

/// A value that clap refuses: its message has several lines, the first of which says it all.
fn refused(lab: &Lab, arguments: &[&str], parts: &[&str]) {
    lab.run(arguments).bad(parts);
}

#[test]
fn of_bench() {
    let lab = Lab::new();
    let good = weights("standard");
    let data = data();
    let bench =
        |more: &[&str]| lab.run(&[&["bench", "--data", &data, "--weights", &good, "--out", "a"], more].concat());
    bench(&["--attacks", "pgdd"]).bad(&["'pgdd'", "expected one of", "segpgd"]);
    bench(&["--eps", "8"]).bad(&["epsilon is 8", "1/255"]);
    bench(&["--eps", "8/0"]).bad(&["8/0", "--eps", "8/255"]);
    // The message is the last thing that is said.
    let told = bench(&["--eps", "9x"]).err;
    assert!(told.trim_end().ends_with("expected a number such as 0.03 or 8/255"), "{told}");
    bench(&["--steps", "0"]).bad(&["steps is 0", "at least 1"]);
    bench(&["--device", "gpu"]).bad(&["'gpu'", "flex"]);
    bench(&["--preset", "fastest"]).bad(&["--preset", "fastest", "quick"]);
    bench(&["--images", "99"]).bad(&["--images", "99", "at most 5"]);
    bench(&["--images", "0"]).bad(&["0", "at least"]);
    bench(&["--split", "tset"]).bad(&["`tset`", "test"]);
    bench(&["--size", "24"]).bad(&["--size", "24", "240x176"]);
    bench(&["--batch", "0"]).bad(&["--batch", "0"]);
    bench(&["--frames", "missing.txt"]).bad(&["missing.txt", "expected one image's name a line"]);
    bench(&["--adversarial", "missing.safetensors"]).bad(&["missing.safetensors"]);
    bench(&["--attack-option", "cospgd.activation=sigmoid", "--attacks", "pgd"]).bad(&["cospgd.activation", "pgd"]);
    bench(&["--resume", "--weights", &good]).bad(&["twice", "each once"]);
    refused(&lab, &["bench", "--data", "camvid", "--weights", &good, "--out", "a"], &["camvid", "--root"]);
    refused(&lab, &["bench", "--data", "nowhere", "--weights", &good, "--out", "a"], &["`nowhere`", "camvid"]);
    refused(&lab, &["bench", "--data", &data, "--out", "a"], &["--weights"]);
    refused(
        &lab,
        &["bench", "--data", &data, "--weights", "none.pth", "--out", "a"],
        &["none.pth", "expected a weights file"],
    );
    fs::write(lab.path("text.safetensors"), "no weights").unwrap();
    refused(
        &lab,
        &["bench", "--data", &data, "--weights", "text.safetensors", "--out", "a"],
        &["text.safetensors", "expected"],
    );
    assert!(!lab.path("a").exists(), "a mistake leaves no folder behind");
}

#[test]
fn of_train() {
    let lab = Lab::new();
    let data = data();
    let train = |more: &[&str]| lab.run(&[&["train", "--data", &data, "--out", "t"], more].concat());
    train(&["--recipe", "pdg3-at"]).bad(&["'pdg3-at'", "standard"]);
    train(&["--model", "u-net"]).bad(&["'u-net'", "unet"]);
    train(&["--set", "bse=4"]).bad(&["'bse'", "base"]);
    train(&["--set", "base"]).bad(&["base", "--set", "base=16"]);
    train(&["--batch", "64"]).bad(&["64", "32"]);
    train(&["--epochs", "0"]).bad(&["epochs", "0", "at least 1"]);
    train(&["--scale", "2"]).bad(&["--scale"]);
    train(&["--lr", "-1"]).bad(&["-1"]);
}

#[test]
fn of_predict_and_attack() {
    let lab = Lab::new();
    let (image, mask) = picture(&lab);
    let good = weights("standard");
    refused(&lab, &["predict", "--weights", &good, "--image", "none.png", "--out", "p"], &["none.png"]);
    refused(&lab, &["predict", "--weights", "none.pth", "--image", &image, "--out", "p"], &["none.pth"]);
    // A cause is told once.
    let told = lab.run(&["predict", "--weights", "none.pth", "--image", &image, "--out", "p"]).err;
    assert_eq!(told.matches("no such file").count(), 1, "{told}");
    fs::write(lab.path("text.png"), "no image").unwrap();
    refused(&lab, &["predict", "--weights", &good, "--image", "text.png", "--out", "p"], &["text.png", "expected"]);
    let attack =
        |more: &[&str]| lab.run(&[&["attack", "--weights", &good, "--image", &image, "--out", "a"], more].concat());
    attack(&["--mask", &image]).bad(&["scene.png", "expected"]);
    attack(&["--mask", "none.png"]).bad(&["none.png"]);
    attack(&["--mask", &mask, "--data", "camvid"]).bad(&["--data", "11 classes of camvid", "at most 9"]);
    attack(&["--mask", &mask, "--attack", "segpdg"]).bad(&["'segpdg'", "segpgd"]);
    attack(&["--mask", &mask, "--target", "class=road"]).bad(&["--target", "class=road", "class=K"]);
    attack(&["--mask", &mask, "--attack-option", "cospgd.activation=sigmoid"]).bad(&["cospgd.activation", "segpgd"]);
    attack(&["--mask", &mask, "--eps", "9"]).bad(&["epsilon is 9"]);
    let small = lab.path("small.png");
    image::save_buffer(&small, &[0; 6], 3, 2, image::ColorType::L8).unwrap();
    attack(&["--mask", "small.png"]).bad(&["small.png", "3x2", "32x24"]);
}

#[test]
fn of_data_report_export_speed_and_test() {
    let lab = Lab::new();
    let good = weights("standard");
    refused(&lab, &["data", "check", "nowhere"], &["`nowhere`", "camvid"]);
    refused(&lab, &["data", "check", "camvid"], &["camvid", "--root"]);
    refused(&lab, &["data", "check", "camvid", "--root", "missing"], &["missing"]);
    refused(&lab, &["report", "missing"], &["missing"]);
    refused(&lab, &["report", ".", "--format", "pdf"], &["pdf", "markdown"]);
    fs::write(lab.path("results.json"), "{}").unwrap();
    refused(&lab, &["report", "."], &["results.json"]);
    refused(&lab, &["export", "--weights", &good, "--out", "w.pth"], &["w.pth", ".safetensors"]);
    refused(&lab, &["export", "--weights", "none.pth", "--out", "w.safetensors"], &["none.pth"]);
    refused(&lab, &["export", "--weights", &data(), "--out", "w.safetensors"], &["tiny.toml", "expected"]);
    refused(&lab, &["speed", "--model", "u-net"], &["'u-net'", "unet"]);
    refused(&lab, &["speed", "--threads", "0"], &["--threads", "0"]);
    refused(&lab, &["speed", "--batch", "0"], &["--batch", "0"]);
    refused(&lab, &["test", "--device", "gpu"], &["--device", "'gpu'", "flex"]);
}
