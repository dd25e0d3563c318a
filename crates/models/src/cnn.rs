//! A small convolutional network that gives one label an image.
//!
//! Four 3×3 convolutions with batch norm and ReLU of `base`, `2 base`, `4 base` and `4 base` channels, the first two followed by 2×2
//! max pooling, then the mean over the map and a 1×1 convolution that ends in logits `[N, K, 1, 1]`. For 28×28 grey images and the
//! default base of 8 a forward pass takes 0.97 million multiplications and as many additions: small enough that robust training
//! with many seeds fits on a desktop.
//!
//! Names: `features.{i}.{0,1}`, `head`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::layers::{Activation, Builder, Conv2d, ConvNorm, ConvSpec, adaptive_average_pool, max_pool};
use crate::weights::{Recognised, Shapes};
use crate::{Architecture, Definition, Forward, Network, NetworkOption, Normalisation, Output, Taps, Trained};

/// `cnn`.
pub static CNN: Definition = Definition {
    name: "cnn",
    about: "small convolutional network for image classification, one label an image",
    options: &[NetworkOption { name: "base", about: "channels of the first layer", default: 8, range: 1..=256 }],
    normalisation: Normalisation::identity,
    recognise,
    plan: None,
    build,
};

/// Channels of the layers, in units of the base.
const CHANNELS: [usize; 4] = [1, 2, 4, 4];

fn build(architecture: &Architecture, seed: u64, device: &Device) -> Box<dyn Network> {
    Trained::assemble(architecture, seed, device, |builder| Cnn::new(builder, architecture))
}

fn recognise(shapes: &Shapes) -> Option<Recognised> {
    let [base, input_channels, 3, 3] = shapes.convolution("features.0.0.weight")? else { return None };
    let [classes, _, 1, 1] = shapes.convolution("head.weight")? else { return None };
    (shapes.count("features.{}.0.weight") == CHANNELS.len()).then_some(())?;
    Some(Recognised { classes, input_channels, options: vec![("base", base)] })
}

#[derive(Module, Debug)]
struct Cnn {
    features: Vec<ConvNorm>,
    head: Conv2d,
}

impl Cnn {
    fn new(builder: &Builder, architecture: &Architecture) -> Self {
        let base = architecture.option("base");
        let features = (0..CHANNELS.len()).map(|i| {
            let place = builder.at("features").at(i);
            let input = if i == 0 { architecture.input_channels } else { base * CHANNELS[i - 1] };
            let spec = ConvSpec::new(input, base * CHANNELS[i], 3);
            ConvNorm::new(&place.at(0), &place.at(1), spec, Activation::Relu)
        });
        let features = features.collect();
        let spec = ConvSpec::new(base * CHANNELS[CHANNELS.len() - 1], architecture.classes.len(), 1);
        Self { features, head: Conv2d::with_bias(&builder.at("head").head(), spec) }
    }
}

impl Forward for Cnn {
    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output {
        let mut x = images;
        for (i, layer) in self.features.iter().enumerate() {
            x = layer.forward(x, taps);
            x = taps.site(&format!("features.{i}"), x);
            let [_, _, height, width] = x.dims();
            if i < 2 && height > 1 && width > 1 {
                x = max_pool(x, 2, 2, 0);
            }
        }
        self.head.forward(adaptive_average_pool(x, 1)).into()
    }

    fn sites(&self) -> Vec<String> {
        (0..self.features.len()).map(|i| format!("features.{i}")).collect()
    }
}
