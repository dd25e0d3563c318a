//! nnU-Net's plain U-Net in two dimensions.
//!
//! Isensee, Jaeger, Kohl, Petersen, Maier-Hein. *nnU-Net: a self-configuring method for deep learning-based biomedical
//! image segmentation*, Nature Methods 18, 2021. <https://doi.org/10.1038/s41592-020-01008-z>
//!
//! Stage `s` has `min(base · 2ˢ, widest)` channels and two 3×3 convolutions with bias, each followed by instance norm and
//! a leaky ReLU of slope 0.01. The first convolution of every later stage has stride 2: nothing is pooled. Going up, a 2×2
//! transposed convolution, the skip features behind it in the concatenation, two convolutions, and a 1×1 head at every
//! resolution: the coarser ones are deep supervision, in training only.
//!
//! [`plan`] chooses the number of stages by the size of the images, as nnU-Net's planner does. Its rule halves one axis
//! alone where the other has become too short; here both are halved or none.
//!
//! Names are those of `PlainConvUNet` in `dynamic-network-architectures` (nnU-Net v2): `encoder.stages.{s}.0.convs.{i}`,
//! `decoder.transpconvs.{j}`, `decoder.stages.{j}.convs.{i}`, `decoder.seg_layers.{j}` (deepest first). PyTorch lists the
//! same tensors again as `decoder.encoder.…` and `….all_modules.…`; those are not read.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fireproof_tensor::{Unit, ops};

use crate::layers::{Builder, Conv2d, ConvSpec, ConvTranspose2d, Init, InstanceNorm};
use crate::network::Coarse;
use crate::weights::{Recognised, Shapes};
use crate::{Architecture, Definition, Forward, Network, NetworkOption, Normalisation, Output, Taps, Trained};

/// `nnunet`.
pub static NNUNET: Definition = Definition {
    name: "nnunet",
    about: "nnU-Net's plain 2-D U-Net: instance norm, leaky ReLU, strided convolutions, deep supervision",
    options: &[
        NetworkOption { name: "base", about: "channels of the first stage", default: 32, range: 1..=1024 },
        NetworkOption { name: "stages", about: "resolutions, each half the one above", default: 6, range: 2..=10 },
        NetworkOption { name: "widest", about: "no stage has more channels", default: 512, range: 1..=4096 },
    ],
    normalisation: |channels| Normalisation { unit: Unit::Normalised, ..Normalisation::identity(channels) },
    plan: Some(|size| vec![("stages", plan(size))]),
    recognise,
    build,
};

/// Slope of the leaky ReLU where its input is negative.
const SLOPE: f32 = 0.01;

/// Number of stages for images (or crops) of this height and width: both are halved as long as both stay at 4 or more.
///
/// ```
/// // Hippocampus, as nnU-Net plans it: three halvings.
/// assert_eq!(fireproof_models::nnunet_stages([56, 40]), 4);
/// ```
pub fn plan([mut height, mut width]: [usize; 2]) -> usize {
    const SHORTEST: usize = 4;
    let mut stages = 1;
    while height >= 2 * SHORTEST && width >= 2 * SHORTEST && stages < 10 {
        (height, width) = (height.div_ceil(2), width.div_ceil(2));
        stages += 1;
    }
    stages.max(2)
}

fn build(architecture: &Architecture, seed: u64, device: &Device) -> Box<dyn Network> {
    Trained::assemble(architecture, seed, device, |builder| NnUNet::new(builder, architecture))
}

fn recognise(shapes: &Shapes) -> Option<Recognised> {
    let [base, input_channels, 3, 3] = shapes.convolution("encoder.stages.0.0.convs.0.conv.weight")? else {
        return None;
    };
    let stages = shapes.count("encoder.stages.{}.0.convs.0.conv.weight");
    let [classes, _, 1, 1] = shapes.convolution("decoder.seg_layers.0.weight")? else { return None };
    let last = format!("encoder.stages.{}.0.convs.0.conv.weight", stages.checked_sub(1)?);
    // A cap shows in the last stage, unless no stage reaches it.
    let widest = match shapes.convolution(&last)?[0] {
        channels if Some(channels) == base.checked_shl(stages as u32 - 1) => channels.max(512),
        channels => channels,
    };
    let options = vec![("base", base), ("stages", stages), ("widest", widest)];
    Some(Recognised { classes, input_channels, options })
}

/// Convolution with bias, instance norm, leaky ReLU.
#[derive(Module, Debug)]
struct ConvBlock {
    conv: Conv2d,
    norm: InstanceNorm,
}

impl ConvBlock {
    fn new(builder: &Builder, spec: ConvSpec) -> Self {
        let fan_in = spec.input * spec.kernel * spec.kernel;
        let conv = Conv2d::with_init(&builder.at("conv"), spec, he(fan_in), Init::Constant(0.0));
        Self { conv, norm: InstanceNorm::new(&builder.at("norm"), spec.output, 1e-5) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::leaky_relu(self.norm.forward(self.conv.forward(x)), SLOPE)
    }
}

/// Normal with variance `2 / ((1 + slope²) fan-in)` (He et al., 2015).
fn he(fan_in: usize) -> Init {
    Init::Normal((2.0 / ((1.0 + SLOPE * SLOPE) * fan_in as f32)).sqrt())
}

/// Two of them.
#[derive(Module, Debug)]
struct Stage {
    convs: Vec<ConvBlock>,
}

impl Stage {
    fn new(builder: &Builder, input: usize, output: usize, stride: usize) -> Self {
        let block = |i: usize| {
            let spec = match i {
                0 => ConvSpec::new(input, output, 3).stride(stride),
                _ => ConvSpec::new(output, output, 3),
            };
            ConvBlock::new(&builder.at("convs").at(i), spec)
        };
        Self { convs: (0..2).map(block).collect() }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.convs.iter().fold(x, |x, block| block.forward(x))
    }
}

/// The network.
#[derive(Module, Debug)]
struct NnUNet {
    encoder: Vec<Stage>,
    up: Vec<ConvTranspose2d>,
    decoder: Vec<Stage>,
    heads: Vec<Conv2d>,
}

impl NnUNet {
    fn new(builder: &Builder, architecture: &Architecture) -> Self {
        let (base, stages, widest) =
            (architecture.option("base"), architecture.option("stages"), architecture.option("widest"));
        let channels = |s: usize| (base << s).min(widest);
        let encoder = (0..stages).map(|s| {
            let (input, stride) = if s == 0 { (architecture.input_channels, 1) } else { (channels(s - 1), 2) };
            Stage::new(&builder.at("encoder.stages").at(s).at(0), input, channels(s), stride)
        });
        let place = |kind: &str, j: usize| builder.at("decoder").at(kind).at(j);
        let rising = || (1..stages).rev().enumerate();
        let zero = Init::Constant(0.0);
        let up = rising().map(|(j, s)| {
            // PyTorch takes the second axis for the fan, which is the output's in a transposed convolution.
            let init = he(channels(s - 1) * 4);
            ConvTranspose2d::with_init(&place("transpconvs", j), channels(s), channels(s - 1), init, zero)
        });
        let decoder = rising().map(|(j, s)| Stage::new(&place("stages", j), 2 * channels(s - 1), channels(s - 1), 1));
        let heads = rising().map(|(j, s)| {
            let spec = ConvSpec::new(channels(s - 1), architecture.classes.len(), 1);
            Conv2d::with_init(&place("seg_layers", j).head(), spec, he(channels(s - 1)), zero)
        });
        Self { encoder: encoder.collect(), up: up.collect(), decoder: decoder.collect(), heads: heads.collect() }
    }
}

impl Forward for NnUNet {
    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output {
        let mut skips: Vec<Tensor<4>> = Vec::new();
        let mut x = images;
        for (s, stage) in self.encoder.iter().enumerate() {
            if s > 0 {
                skips.push(x.clone());
            }
            x = taps.site(&format!("encoder.{s}"), stage.forward(x));
        }
        let mut coarse = Vec::new();
        let last = self.decoder.len() - 1;
        for (j, (up, stage)) in self.up.iter().zip(&self.decoder).enumerate() {
            let skip = skips.pop().expect("one skip a stage");
            x = stage.forward(Tensor::cat(vec![up.forward(x), skip], 1));
            x = taps.site(&format!("decoder.{j}"), x);
            if j < last && taps.is_training() {
                coarse.push(Coarse { logits: self.heads[j].forward(x.clone()), stride: 1 << (last - j) });
            }
        }
        coarse.reverse();
        Output { logits: self.heads[last].forward(x), auxiliary: None, coarse }
    }

    fn sites(&self) -> Vec<String> {
        let encoder = (0..self.encoder.len()).map(|s| format!("encoder.{s}"));
        encoder.chain((0..self.decoder.len()).map(|j| format!("decoder.{j}"))).collect()
    }

    fn size_multiple(&self) -> usize {
        1 << (self.encoder.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::plan;

    #[test]
    fn the_plan_is_that_of_nnunet_where_it_halves_both_axes() {
        // `get_pool_and_conv_props` of nnU-Net 2.8.1 at spacing 1, pools per axis: 56x40 3,3; 64x48 3,3; 320x320 6,6;
        // 256x256 6,6. For 320x256 it halves the longer axis twice more by itself.
        let expected = [([56, 40], 4), ([64, 48], 4), ([320, 320], 7), ([256, 256], 7), ([320, 256], 7), ([5, 90], 2)];
        for (size, stages) in expected {
            assert_eq!(plan(size), stages, "{size:?}");
        }
    }
}
