//! nnU-Net's U-Net against `dynamic-network-architectures`: every head, and the gradients of images and weights.

use fireproof_models::{Overrides, Taps, load, nnunet_stages};
use fireproof_tensor::{Unit, Victim};

use crate::common::{Answers, device, golden, host, images, relative};

#[test]
fn heads_and_gradients_agree_with_pytorch() {
    let answers = Answers::read(&golden("nnunet_base4_answers.safetensors"));
    let loaded = load(golden("nnunet_base4.pth"), &Overrides::default(), &device()).unwrap();
    let mut network = loaded.network;
    let architecture = network.architecture();
    assert_eq!((architecture.name.as_str(), architecture.classes.len(), architecture.input_channels), ("nnunet", 3, 1));
    assert_eq!(["base", "stages", "widest"].map(|name| architecture.option(name)), [4, 4, 10]);
    assert_eq!(architecture.normalisation.unit, Unit::Normalised);
    // PyTorch lists the same tensors up to four times.
    assert_eq!((network.layout().len(), loaded.report.unused.len()), (68, 120));

    let (x, probe) = (answers.tensor("images"), answers.tensor("probe"));
    let (logits, gradient) = network.victim().pull_back(x.clone(), &mut |_| Ok(probe.clone())).unwrap();
    let alone = host(network.forward(x.clone(), &mut Taps::eval()).logits);
    for (what, found) in [("logits.0", host(logits)), ("logits.0", alone), ("image_gradient", host(gradient))] {
        let error = relative(&found, answers.values(what));
        assert!(error < 1e-4, "{what}: {error}");
    }

    network.train_mode();
    let output = network.forward(x, &mut Taps::train());
    assert_eq!(output.coarse.iter().map(|head| head.stride).collect::<Vec<_>>(), [2, 4]);
    let mut loss = (output.logits * probe).sum();
    for (k, head) in output.coarse.into_iter().enumerate() {
        let error = relative(&host(head.logits.clone()), answers.values(&format!("logits.{}", k + 1)));
        assert!(error < 1e-4, "head {}: {error}", k + 1);
        loss = loss + (head.logits * answers.tensor(&format!("probe.{}", k + 1))).sum();
    }
    let gradients = network.gradients(&loss.backward());
    assert_eq!(gradients.len(), 68);
    let largest = |name: &str| answers.values(name).iter().map(|g| g.abs()).fold(0.0, f32::max);
    for gradient in gradients {
        let name = format!("gradient.{}", gradient.name);
        // What an instance norm follows has no use for a bias: its gradient is zero but for rounding, in PyTorch too.
        let scale = largest(&name).max(largest(&name.replace("conv.bias", "conv.weight")));
        let pairs = gradient.values.iter().zip(answers.values(&name));
        let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale;
        assert!(error < 1e-3, "{name}: {error}");
    }
}

#[test]
fn images_of_any_size_get_heads_of_their_own_size_rounded_up() {
    let network = load(golden("nnunet_base4.pth"), &Overrides::default(), &device()).unwrap().network;
    let output = network.forward(images([1, 1, 17, 30], 2), &mut Taps::train());
    assert_eq!(output.logits.dims(), [1, 3, 17, 30]);
    let sizes: Vec<[usize; 4]> = output.coarse.iter().map(|head| head.logits.dims()).collect();
    assert_eq!(sizes, [[1, 3, 9, 15], [1, 3, 5, 8]]);
    assert!(network.forward(images([1, 1, 17, 30], 2), &mut Taps::eval()).coarse.is_empty());
    assert_eq!(nnunet_stages([64, 48]), 4);
}
