//! ESPNet: spatial pyramids of dilated convolutions, 0.36 million parameters.
//!
//! Mehta, Rastegari, Caspi, Shapiro, Hajishirzi. *ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for
//! Semantic Segmentation*, ECCV 2018. <https://arxiv.org/abs/1803.06815>
//!
//! An ESP unit reduces its input to a fifth of the channels, convolves that with dilations 1, 2, 4, 8 and 16, adds the
//! dilated branches up cumulatively (against gridding) and concatenates. The encoder halves the size three times and
//! sees the image again at each scale; a light decoder comes back with 2×2 transposed convolutions. No convolution
//! has a bias; batch norm's ε is 10⁻³.
//!
//! The published CamVid weights expect OpenCV's channel order and inputs within ±0.01: the division by 255 comes
//! after the one by the standard deviation. The default normalisation says exactly that.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fireproof_tensor::ops::{Conv2dOptions, concat};

use crate::layers::{Activation, BatchNorm, Builder, Conv2d, ConvNorm, ConvSpec, ConvTranspose2d, PRelu, average_pool};
use crate::weights::{Recognised, Shapes};
use crate::{
    Architecture, ChannelOrder, Definition, Forward, Network, NetworkOption, Normalisation, Output, Taps, Trained,
};

/// `espnet`.
pub static ESPNET: Definition = Definition {
    name: "espnet",
    about: "ESPNet, decoder version (Mehta et al., ECCV 2018)",
    options: &[
        NetworkOption { name: "p", about: "ESP units at a quarter of the size", default: 2, range: 1..=64 },
        NetworkOption { name: "q", about: "ESP units at an eighth of the size", default: 8, range: 1..=64 },
    ],
    normalisation,
    plan: None,
    recognise,
    build,
};

const EPSILON: f64 = 1e-3;

/// CamVid's statistics as the published weights expect them, red first; see the module's text.
fn normalisation(channels: usize) -> Normalisation {
    if channels != 3 {
        return Normalisation::identity(channels);
    }
    let mean = [105.033_193_69, 108.408_863_15, 110.331_026_43].map(|m: f64| (m / 255.0) as f32);
    let std = [69.904_346_16, 72.690_745_34, 72.125_710_15].map(|s: f64| s as f32);
    Normalisation { mean: mean.to_vec(), std: std.to_vec(), order: ChannelOrder::Bgr, ..Normalisation::identity(3) }
}

fn build(architecture: &Architecture, seed: u64, device: &Device) -> Box<dyn Network> {
    Trained::assemble(architecture, seed, device, |builder| EspNet::new(builder, architecture))
}

fn recognise(shapes: &Shapes) -> Option<Recognised> {
    let [_, input_channels, 3, 3] = shapes.convolution("encoder.level1.conv.weight")? else { return None };
    let [_, classes, 2, 2] = shapes.convolution("classifier.weight")? else { return None };
    let (p, q) = (shapes.count("encoder.level2.{}.c1.conv.weight"), shapes.count("encoder.level3.{}.c1.conv.weight"));
    Some(Recognised { classes, input_channels, options: vec![("p", p), ("q", q)] })
}

/// Batch norm and PReLU.
#[derive(Module, Debug)]
struct NormAct {
    norm: BatchNorm,
    act: PRelu,
}

impl NormAct {
    /// Parameters at `bn` and `act`.
    fn new(builder: &Builder, channels: usize) -> Self {
        let norm = BatchNorm::new(&builder.at("bn"), channels, EPSILON);
        Self { norm, act: PRelu::new(&builder.at("act"), channels) }
    }

    fn forward(&self, x: Tensor<4>, taps: &mut Taps) -> Tensor<4> {
        self.act.forward(self.norm.forward(x, taps))
    }
}

/// Convolution, batch norm, PReLU.
#[derive(Module, Debug)]
struct ConvAct {
    convolution: ConvNorm,
    act: PRelu,
}

impl ConvAct {
    fn new(builder: &Builder, spec: ConvSpec) -> Self {
        let (conv, bn) = (builder.at("conv"), builder.at("bn"));
        let convolution = ConvNorm::with_epsilon(&conv, &bn, spec, Activation::None, EPSILON);
        Self { convolution, act: PRelu::new(&builder.at("act"), spec.output) }
    }

    fn forward(&self, x: Tensor<4>, taps: &mut Taps) -> Tensor<4> {
        self.act.forward(self.convolution.forward(x, taps))
    }
}

/// An ESP unit.
#[derive(Module, Debug)]
struct Esp {
    reduce: Conv2d,
    branches: Vec<Conv2d>,
    after: NormAct,
    #[module(skip)]
    residual: bool,
}

impl Esp {
    /// Keeps the size.
    fn new(builder: &Builder, input: usize, output: usize, residual: bool) -> Self {
        Self::with(builder, ConvSpec::new(input, output, 1), &builder.at("bn"), residual)
    }

    /// Halves the size.
    fn down(builder: &Builder, input: usize, output: usize) -> Self {
        Self::with(builder, ConvSpec::new(input, output, 3).stride(2), builder, false)
    }

    fn with(builder: &Builder, spec: ConvSpec, after: &Builder, residual: bool) -> Self {
        let narrow = spec.output / 5;
        let wide = spec.output - 4 * narrow;
        let reduce = Conv2d::new(&builder.at("c1.conv"), ConvSpec { output: narrow, ..spec });
        let branch = |dilation: usize| {
            let output = if dilation == 1 { wide } else { narrow };
            let spec = ConvSpec::new(narrow, output, 3).dilation(dilation);
            Conv2d::new(&builder.at(format!("d{dilation}.conv")), spec)
        };
        let branches = [1, 2, 4, 8, 16].map(branch).into();
        Self { reduce, branches, after: NormAct::new(after, spec.output), residual }
    }

    fn forward(&self, x: Tensor<4>, taps: &mut Taps) -> Tensor<4> {
        let reduced = self.reduce.forward(x.clone());
        let mut parts: Vec<Tensor<4>> = Vec::with_capacity(5);
        for (i, branch) in self.branches.iter().enumerate() {
            let y = branch.forward(reduced.clone());
            // The first branch has other channels and stays out of the sums.
            parts.push(if i >= 2 { parts[i - 1].clone() + y } else { y });
        }
        let y = concat(parts);
        let y = if self.residual { y + x } else { y };
        self.after.forward(y, taps)
    }
}

/// ESPNet with its decoder.
#[derive(Module, Debug)]
struct EspNet {
    level1: ConvAct,
    b1: NormAct,
    level2_down: Esp,
    level2: Vec<Esp>,
    b2: NormAct,
    level3_down: Esp,
    level3: Vec<Esp>,
    b3: NormAct,
    classifier3: ConvNorm,
    up3: ConvTranspose2d,
    classifier2: Conv2d,
    combine_act: NormAct,
    combine: Esp,
    up2: ConvTranspose2d,
    up2_act: NormAct,
    fuse: ConvAct,
    classifier: ConvTranspose2d,
}

impl EspNet {
    fn new(builder: &Builder, architecture: &Architecture) -> Self {
        let (p, q) = (architecture.option("p"), architecture.option("q"));
        let (image, k) = (architecture.input_channels, architecture.classes.len());
        let encoder = builder.at("encoder");
        let head = builder.head();
        let (c1, c2, c3) = (16 + image, 128 + image, 256);
        let level1 = ConvAct::new(&encoder.at("level1"), ConvSpec::new(image, 16, 3).stride(2));
        let stage = |name: &str, count: usize, channels: usize| {
            let at = encoder.at(name);
            (0..count).map(|i| Esp::new(&at.at(i), channels, channels, true)).collect::<Vec<_>>()
        };
        let point = |input: usize| ConvSpec { options: Conv2dOptions::default(), ..ConvSpec::new(input, k, 1) };
        Self {
            level1,
            b1: NormAct::new(&encoder.at("b1"), c1),
            level2_down: Esp::down(&encoder.at("level2_0"), c1, 64),
            level2: stage("level2", p, 64),
            b2: NormAct::new(&encoder.at("b2"), c2),
            level3_down: Esp::down(&encoder.at("level3_0"), c2, 128),
            level3: stage("level3", q, 128),
            b3: NormAct::new(&encoder.at("b3"), c3),
            classifier3: ConvNorm::with_epsilon(
                &head.at("encoder.classifier.conv"),
                &head.at("br"),
                point(c3),
                Activation::None,
                EPSILON,
            ),
            up3: ConvTranspose2d::new(&head.at("up_l3.0"), k, k),
            classifier2: Conv2d::new(&head.at("level3_C.conv"), point(c2)),
            combine_act: NormAct::new(&head.at("combine_l2_l3.0"), 2 * k),
            combine: Esp::new(&head.at("combine_l2_l3.1"), 2 * k, k, false),
            up2: ConvTranspose2d::new(&head.at("up_l2.0"), k, k),
            up2_act: NormAct::new(&head.at("up_l2.1"), k),
            fuse: ConvAct::new(&head.at("conv"), ConvSpec::new(k + c1, k, 3)),
            classifier: ConvTranspose2d::new(&head.at("classifier"), k, k),
        }
    }
}

impl Forward for EspNet {
    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output {
        let half = average_pool(images.clone(), 3, 2, 1);
        let quarter = average_pool(half.clone(), 3, 2, 1);

        let x = self.level1.forward(images, taps);
        let x = taps.site("level1", x);
        let b1 = self.b1.forward(concat(vec![x, half]), taps);
        let b1 = taps.site("b1", b1);

        let first = self.level2_down.forward(b1.clone(), taps);
        let x = self.level2.iter().fold(first.clone(), |x, esp| esp.forward(x, taps));
        let x = taps.site("level2", x);
        let b2 = self.b2.forward(concat(vec![x, first, quarter]), taps);
        let b2 = taps.site("b2", b2);

        let first = self.level3_down.forward(b2.clone(), taps);
        let x = self.level3.iter().fold(first.clone(), |x, esp| esp.forward(x, taps));
        let x = taps.site("level3", x);
        // The other way round than a level above.
        let b3 = self.b3.forward(concat(vec![first, x]), taps);
        let b3 = taps.site("b3", b3);

        let u3 = self.up3.forward(self.classifier3.forward(b3, taps));
        let x = self.combine_act.forward(concat(vec![self.classifier2.forward(b2), u3]), taps);
        let x = self.combine.forward(x, taps);
        let x = taps.site("combine", x);
        let u2 = self.up2_act.forward(self.up2.forward(x), taps);
        let x = self.fuse.forward(concat(vec![u2, b1]), taps);
        let x = taps.site("fuse", x);
        self.classifier.forward(x).into()
    }

    fn sites(&self) -> Vec<String> {
        ["level1", "b1", "level2", "b2", "level3", "b3", "combine", "fuse"].map(String::from).into()
    }

    fn size_multiple(&self) -> usize {
        8
    }
}
