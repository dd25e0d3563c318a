//! Torchvision's networks and PSPNet against PyTorch, with the files that `make_parity.py --large` makes.

use std::path::PathBuf;

use fireproof_models::{Overrides, load};
use fireproof_tensor::Victim;

use crate::common::{Answers, device, host, relative};

/// Compares the victim's logits and input gradient with the answers beside the weights.
fn check(file: &str, model: &str, options: &[(&str, usize)], unused: &str) {
    let Some(folder) = std::env::var_os("FIREPROOF_PARITY").map(PathBuf::from) else {
        println!("skipped: no data at $FIREPROOF_PARITY (made by crates/models/tests/make_parity.py --large)");
        return;
    };
    let answers = Answers::read(&folder.join(format!("{file}_answers.safetensors")));
    let options = options.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    let overrides = Overrides { options, ..Overrides::default() };
    let loaded = load(folder.join(format!("{file}.pth")), &overrides, &device()).unwrap();
    assert_eq!(loaded.network.architecture().name, model);
    assert_eq!(loaded.network.architecture().classes.len(), 7);
    let expected = |name: &String| name.ends_with("num_batches_tracked") || name.starts_with(unused);
    assert!(loaded.report.unused.iter().all(expected), "{:?}", loaded.report.unused);
    assert!(loaded.report.unused.iter().any(|name| name.starts_with(unused)));
    let victim = loaded.network.victim();
    for size in ["97x131", "64x64", "40x33"] {
        let probe = answers.tensor(&format!("probe.{size}"));
        let x = answers.tensor(&format!("images.{size}"));
        let (logits, gradient) = victim.pull_back(x, &mut |_| Ok(probe.clone())).unwrap();
        for (what, found) in [("logits", host(logits)), ("gradient", host(gradient))] {
            let error = relative(&found, answers.values(&format!("{what}.{size}")));
            println!("{file} {size} {what}: {error:.1e}");
            assert!(error < if what == "logits" { 1e-4 } else { 1e-3 }, "{file} at {size}, {what}: {error}");
        }
    }
}

#[test]
fn deeplabv3_agrees_with_torchvision() {
    check("deeplabv3_resnet50", "deeplabv3-resnet50", &[], "aux_classifier.");
}

#[test]
fn fcn_agrees_with_torchvision() {
    check("fcn_resnet50", "fcn-resnet50", &[], "aux_classifier.");
}

#[test]
fn pspnet_agrees_with_its_authors_layout() {
    check("pspnet_resnet50_deep_stem", "pspnet-resnet50", &[], "aux.");
    check("pspnet_resnet18", "pspnet-resnet18", &[], "aux.");
}

#[test]
fn pspnet_agrees_on_torchvisions_way_to_dilate() {
    check("pspnet_resnet50_torchvision", "pspnet-resnet50", &[("dilate_first", 0)], "aux.");
}
