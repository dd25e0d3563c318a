//! U-Net with batch norm.
//!
//! Ronneberger, Fischer, Brox. *U-Net: Convolutional Networks for Biomedical Image Segmentation*, MICCAI 2015.
//! <https://arxiv.org/abs/1505.04597>
//!
//! Differs from the paper as most of today's do: padded convolutions, so that logits have the images' size, and
//! batch norm. Level `k` has `base · 2ᵏ` channels and two 3×3 convolutions; 2×2 max pooling goes down, 2×2 transposed
//! convolutions go up, skip features come first in the concatenation, a 1×1 convolution ends in logits.
//!
//! Names: `down.{k}.{0,1,3,4}`, `up.{j}`, `merge.{j}.{0,1,3,4}` (deepest first), `head`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fireproof_tensor::ops::concat;

use crate::layers::{Activation, Builder, Conv2d, ConvNorm, ConvSpec, ConvTranspose2d, max_pool};
use crate::weights::{Recognised, Shapes};
use crate::{Architecture, Definition, Forward, Network, NetworkOption, Normalisation, Output, Taps, Trained};

/// `unet`.
pub static UNET: Definition = Definition {
    name: "unet",
    about: "U-Net with batch norm (Ronneberger et al., MICCAI 2015)",
    options: &[
        NetworkOption { name: "base", about: "channels of the first level", default: 32, range: 1..=1024 },
        NetworkOption { name: "levels", about: "resolutions, each half the one above", default: 5, range: 1..=8 },
    ],
    normalisation: Normalisation::identity,
    plan: None,
    recognise,
    build,
};

fn build(architecture: &Architecture, seed: u64, device: &Device) -> Box<dyn Network> {
    Trained::assemble(architecture, seed, device, |builder| UNet::new(builder, architecture))
}

fn recognise(shapes: &Shapes) -> Option<Recognised> {
    let [base, input_channels, 3, 3] = shapes.convolution("down.0.0.weight")? else { return None };
    let [classes, _, 1, 1] = shapes.convolution("head.weight")? else { return None };
    let levels = shapes.count("down.{}.0.weight");
    Some(Recognised { classes, input_channels, options: vec![("base", base), ("levels", levels)] })
}

/// Two 3×3 convolutions with batch norm and ReLU.
#[derive(Module, Debug)]
struct Block {
    first: ConvNorm,
    second: ConvNorm,
}

impl Block {
    fn new(builder: &Builder, input: usize, output: usize) -> Self {
        let layer = |i: usize, input| {
            let spec = ConvSpec::new(input, output, 3);
            ConvNorm::new(&builder.at(i), &builder.at(i + 1), spec, Activation::Relu)
        };
        Self { first: layer(0, input), second: layer(3, output) }
    }

    fn forward(&self, x: Tensor<4>, taps: &mut Taps) -> Tensor<4> {
        let x = self.first.forward(x, taps);
        self.second.forward(x, taps)
    }
}

/// U-Net.
#[derive(Module, Debug)]
struct UNet {
    down: Vec<Block>,
    up: Vec<ConvTranspose2d>,
    merge: Vec<Block>,
    head: Conv2d,
}

impl UNet {
    fn new(builder: &Builder, architecture: &Architecture) -> Self {
        let (base, levels) = (architecture.option("base"), architecture.option("levels"));
        let channels = |level: usize| base << level;
        let input = |level: usize| if level == 0 { architecture.input_channels } else { channels(level - 1) };
        let down = (0..levels).map(|k| Block::new(&builder.at("down").at(k), input(k), channels(k))).collect();
        let rising = || (1..levels).rev().enumerate();
        let up = rising()
            .map(|(j, k)| ConvTranspose2d::with_bias(&builder.at("up").at(j), channels(k), channels(k - 1)))
            .collect();
        let merge =
            rising().map(|(j, k)| Block::new(&builder.at("merge").at(j), channels(k), channels(k - 1))).collect();
        let head = Conv2d::with_bias(&builder.at("head").head(), ConvSpec::new(base, architecture.classes.len(), 1));
        Self { down, up, merge, head }
    }
}

impl Forward for UNet {
    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output {
        let mut skips: Vec<Tensor<4>> = Vec::new();
        let mut x = images;
        for (k, stage) in self.down.iter().enumerate() {
            if k > 0 {
                skips.push(x.clone());
                x = max_pool(x, 2, 2, 0);
            }
            x = stage.forward(x, taps);
            x = taps.site(&format!("down.{k}"), x);
        }
        for (j, (up, merge)) in self.up.iter().zip(&self.merge).enumerate() {
            let skip = skips.pop().expect("one skip a level");
            x = concat(vec![skip, up.forward(x)]);
            x = merge.forward(x, taps);
            x = taps.site(&format!("merge.{j}"), x);
        }
        self.head.forward(x).into()
    }

    fn sites(&self) -> Vec<String> {
        let down = (0..self.down.len()).map(|k| format!("down.{k}"));
        down.chain((0..self.merge.len()).map(|j| format!("merge.{j}"))).collect()
    }

    fn size_multiple(&self) -> usize {
        1 << (self.down.len() - 1)
    }
}
