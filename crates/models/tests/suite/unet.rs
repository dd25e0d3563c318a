//! The U-Net against PyTorch: logits, gradients, and what a training pass leaves behind.

use fireproof_models::{Overrides, Taps, load};
use fireproof_tensor::Victim;

use crate::common::{Answers, device, golden, host, relative};

#[test]
fn logits_and_image_gradient_agree_with_pytorch() {
    let answers = Answers::read(&golden("unet_base4_answers.safetensors"));
    let loaded = load(golden("unet_base4.pth"), &Overrides::default(), &device()).unwrap();
    let architecture = loaded.network.architecture();
    assert_eq!((architecture.name.as_str(), architecture.classes.len()), ("unet", 5));
    assert_eq!((architecture.option("base"), architecture.option("levels")), (4, 4));
    assert!(!loaded.report.described);
    assert!(loaded.report.unused.iter().all(|name| name.ends_with("num_batches_tracked")));
    assert_eq!(loaded.report.unused.len(), 14);

    let x = answers.tensor("images");
    let eval = host(loaded.network.forward(x.clone(), &mut Taps::eval()).logits);
    let probe = answers.tensor("probe");
    let (logits, gradient) = loaded.network.victim().pull_back(x, &mut |_| Ok(probe.clone())).unwrap();
    for (what, found) in [("logits", eval), ("logits", host(logits)), ("image_gradient", host(gradient))] {
        let error = relative(&found, answers.values(what));
        assert!(error < 1e-5, "{what}: {error}");
    }
}

#[test]
fn a_training_pass_agrees_with_pytorch() {
    let answers = Answers::read(&golden("unet_base4_answers.safetensors"));
    let mut network = load(golden("unet_base4.pth"), &Overrides::default(), &device()).unwrap().network;
    network.train_mode();
    let mut taps = Taps::train();
    let logits = network.forward(answers.tensor("images"), &mut taps).logits;
    let error = relative(&host(logits.clone()), answers.values("train_logits"));
    assert!(error < 1e-5, "logits: {error}");
    let gradients = network.gradients(&(logits * answers.tensor("probe")).sum().backward());
    assert_eq!(gradients.len(), answers.names().filter(|n| n.starts_with("gradient.")).count());
    for gradient in gradients {
        let error = relative(&gradient.values, answers.values(&format!("gradient.{}", gradient.name)));
        assert!(error < 1e-4, "gradient of {}: {error}", gradient.name);
    }
    network.commit(&taps);
    let statistics = network.parameters().into_iter().filter(|p| p.name.contains("running_"));
    for statistic in statistics {
        let error = relative(&statistic.values, answers.values(&format!("after.{}", statistic.name)));
        assert!(error < 1e-5, "{}: {error}", statistic.name);
    }
}
