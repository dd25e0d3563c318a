//! ResNet as a feature extractor with output stride 8.
//!
//! He, Zhang, Ren, Sun. *Deep Residual Learning for Image Recognition*, CVPR 2016.
//! <https://arxiv.org/abs/1512.03385>. Like torchvision, a bottleneck has its stride at the 3×3 convolution.
//!
//! The last two stages keep the size and dilate instead of striding (Yu, Koltun, Funkhouser, *Dilated Residual
//! Networks*, CVPR 2017). Two conventions are in use and weights need theirs, see [`Dilation`].

use burn::module::Module;
use burn::tensor::Tensor;

use crate::Taps;
use crate::layers::{Activation, Builder, ConvNorm, ConvSpec, max_pool};
use crate::weights::Shapes;

/// Which blocks of the last two stages dilate by the full 2 and 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dilation {
    /// All but the first, which dilates as the stage before: torchvision.
    FromSecondBlock,
    /// All: semseg's PSPNet.
    FromFirstBlock,
}

/// Residual block: two 3×3 convolutions, or 1×1, 3×3, 1×1.
#[derive(Module, Debug)]
struct Block {
    layers: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
}

/// What a block is like.
#[derive(Clone, Copy)]
struct BlockSpec {
    input: usize,
    width: usize,
    stride: usize,
    dilation: usize,
}

impl Block {
    fn new(builder: &Builder, depth: Depth, spec: BlockSpec) -> Self {
        let BlockSpec { input, width, stride, dilation } = spec;
        let output = width * depth.expansion();
        let three = |input| ConvSpec::new(input, width, 3).dilation(dilation);
        let specs = if depth.is_bottleneck() {
            vec![ConvSpec::new(input, width, 1), three(width).stride(stride), ConvSpec::new(width, output, 1)]
        } else {
            vec![three(input).stride(stride), three(width)]
        };
        let last = specs.len();
        let layer = |(i, spec): (usize, ConvSpec)| {
            // The last one's ReLU comes after the addition.
            let activation = if i + 1 == last { Activation::None } else { Activation::Relu };
            let (conv, bn) = (builder.at(format!("conv{}", i + 1)), builder.at(format!("bn{}", i + 1)));
            ConvNorm::new(&conv, &bn, spec, activation)
        };
        let layers = specs.into_iter().enumerate().map(layer).collect();
        let shortcut = (stride != 1 || input != output).then(|| {
            let at = builder.at("downsample");
            let spec = ConvSpec::new(input, output, 1).stride(stride);
            ConvNorm::new(&at.at(0), &at.at(1), spec, Activation::None)
        });
        Self { layers, shortcut }
    }

    fn forward(&self, x: Tensor<4>, taps: &mut Taps) -> Tensor<4> {
        let identity = match &self.shortcut {
            Some(layer) => layer.forward(x.clone(), taps),
            None => x.clone(),
        };
        let (last, layers) = self.layers.split_last().expect("a block has layers");
        let y = layers.iter().fold(x, |x, layer| layer.forward(x, taps));
        last.forward_residual(y, identity, taps)
    }
}

/// Number of layers of a ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// ResNet-18: basic blocks.
    Eighteen,
    /// ResNet-50: bottlenecks.
    Fifty,
}

impl Depth {
    /// From the end of an architecture's name.
    pub(crate) fn of(architecture: &str) -> Self {
        if architecture.ends_with("resnet18") { Self::Eighteen } else { Self::Fifty }
    }

    fn is_bottleneck(self) -> bool {
        self == Self::Fifty
    }

    fn expansion(self) -> usize {
        if self.is_bottleneck() { 4 } else { 1 }
    }

    fn blocks(self) -> [usize; 4] {
        if self.is_bottleneck() { [3, 4, 6, 3] } else { [2, 2, 2, 2] }
    }

    /// By the blocks of the four stages at `prefix`; `None` for other depths.
    pub(crate) fn recognise(shapes: &Shapes, prefix: &str) -> Option<Self> {
        let blocks = [1, 2, 3, 4].map(|s| shapes.count(&format!("{prefix}layer{s}.{{}}.conv1.weight")));
        let bottleneck = shapes.get(&format!("{prefix}layer1.0.conv3.weight")).is_some();
        [Self::Eighteen, Self::Fifty].into_iter().find(|d| d.blocks() == blocks && d.is_bottleneck() == bottleneck)
    }

    /// Channels after the third and the fourth stage.
    pub(crate) fn features(self) -> [usize; 2] {
        [256 * self.expansion(), 512 * self.expansion()]
    }
}

/// The places of a stem's parameters: one 7×7 convolution, or three 3×3 (64, 64, 128 channels).
pub(crate) type StemNames = Vec<[Builder; 2]>;

/// The feature extractor.
#[derive(Module, Debug)]
pub(crate) struct ResNet {
    stem: Vec<ConvNorm>,
    stages: Vec<Vec<Block>>,
}

/// What the heads read.
pub(crate) struct Features {
    /// After the third stage, for an auxiliary head.
    pub third: Tensor<4>,
    /// After the fourth stage.
    pub last: Tensor<4>,
}

impl ResNet {
    /// Stages at `layer1` to `layer4` of `builder`.
    pub(crate) fn new(builder: &Builder, stem: StemNames, image: usize, depth: Depth, rule: Dilation) -> Self {
        let deep = stem.len() > 1;
        let stem_layer = |(i, [conv, bn]): (usize, [Builder; 2])| {
            let spec = match (deep, i) {
                (false, _) => ConvSpec::new(image, 64, 7).stride(2),
                (true, 0) => ConvSpec::new(image, 64, 3).stride(2),
                (true, 1) => ConvSpec::new(64, 64, 3),
                (true, _) => ConvSpec::new(64, 128, 3),
            };
            ConvNorm::new(&conv, &bn, spec, Activation::Relu)
        };
        let stem: Vec<_> = stem.into_iter().enumerate().map(stem_layer).collect();
        let mut input = if deep { 128 } else { 64 };
        let mut stages = Vec::with_capacity(4);
        for (s, blocks) in depth.blocks().into_iter().enumerate() {
            let at = builder.at(format!("layer{}", s + 1));
            let width = 64 << s;
            let mut stage = Vec::with_capacity(blocks);
            for b in 0..blocks {
                let full = [1, 1, 2, 4][s];
                let first_dilation = if rule == Dilation::FromSecondBlock { [1, 1, 1, 2][s] } else { full };
                let spec = BlockSpec {
                    input,
                    width,
                    stride: if s == 1 && b == 0 { 2 } else { 1 },
                    dilation: if b == 0 { first_dilation } else { full },
                };
                stage.push(Block::new(&at.at(b), depth, spec));
                input = width * depth.expansion();
            }
            stages.push(stage);
        }
        Self { stem, stages }
    }

    pub(crate) fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Features {
        let x = self.stem.iter().fold(images, |x, layer| layer.forward(x, taps));
        let x = taps.site("stem", x);
        let mut x = max_pool(x, 3, 2, 1);
        let mut third = None;
        for (s, stage) in self.stages.iter().enumerate() {
            x = stage.iter().fold(x, |x, block| block.forward(x, taps));
            x = taps.site(SITES[s + 1], x);
            if s == 2 {
                third = Some(x.clone());
            }
        }
        Features { third: third.expect("a ResNet has four stages"), last: x }
    }
}

/// The sites of the extractor.
pub(crate) const SITES: [&str; 5] = ["stem", "layer1", "layer2", "layer3", "layer4"];
