//! Networks of usual size against PyTorch in double precision, with the files that `make_parity.py --large` makes.

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
    let mut gradients = Vec::new();
    // The reference's U-Net takes no size that cannot be halved.
    let sizes = if model == "unet" { ["96x144", "64x64", "48x32"] } else { ["97x131", "64x64", "40x33"] };
    for size in sizes {
        let probe = answers.tensor(&format!("probe.{size}"));
        let x = answers.tensor(&format!("images.{size}"));
        let (logits, gradient) = victim.pull_back(x, &mut |_| Ok(probe.clone())).unwrap();
        let logits = relative(&host(logits), answers.values(&format!("logits.{size}")));
        gradients.push(relative(&host(gradient), answers.values(&format!("gradient.{size}"))));
        println!("{file} {size}: logits {logits:.1e}, gradient {:.1e}", gradients.last().unwrap());
        assert!(logits < 1e-4, "{file} at {size}: {logits}");
    }
    // One ReLU within rounding of zero changes a gradient visibly: PyTorch's own answers in single and double precision
    // differ by up to 2e-2 here. A wrong gradient would be wrong at every size.
    let best = gradients.iter().copied().fold(f32::INFINITY, f32::min);
    let worst = gradients.iter().copied().fold(0.0, f32::max);
    assert!(best < 1e-4 && worst < 5e-2, "{file}: {gradients:?}");
}

#[test]
fn unet_agrees_with_pytorch_in_double_precision() {
    check("unet_base32", "unet", &[], "");
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
