//! DeepLabv3 on a dilated ResNet, as in torchvision.
//!
//! Chen, Papandreou, Schroff, Adam. *Rethinking Atrous Convolution for Semantic Image Segmentation*, 2017.
//! <https://arxiv.org/abs/1706.05587>
//!
//! The head sees the features through a 1×1 convolution, 3×3 convolutions with dilations 12, 24 and 36, and the image's
//! mean, 256 channels each.
//!
//! Names: `backbone.*`, `classifier.0.convs.{0..4}`, `classifier.0.project`, `classifier.{1,2,4}`,
//! `aux_classifier.{0,1,4}`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fireproof_tensor::ops::{concat, resize_bilinear};

use crate::fcn::{AUXILIARY, recognise_torchvision, torchvision_backbone};
use crate::head::Head;
use crate::layers::{Activation, Builder, Conv2d, ConvNorm, ConvSpec, adaptive_average_pool, dropout};
use crate::resnet::{Depth, ResNet, SITES};
use crate::weights::{Recognised, Shapes};
use crate::{Architecture, Definition, Forward, Network, Normalisation, Output, Taps, Trained};

/// `deeplabv3-resnet18`.
pub static DEEPLABV3_RESNET18: Definition = Definition {
    name: "deeplabv3-resnet18",
    about: "DeepLabv3 on a dilated ResNet-18 (Chen et al., 2017)",
    options: &[AUXILIARY],
    normalisation: Normalisation::imagenet,
    plan: None,
    recognise: |shapes| recognise(shapes, Depth::Eighteen),
    build,
};

/// `deeplabv3-resnet50`.
pub static DEEPLABV3_RESNET50: Definition = Definition {
    name: "deeplabv3-resnet50",
    about: "DeepLabv3 on a dilated ResNet-50, torchvision's layout (Chen et al., 2017)",
    recognise: |shapes| recognise(shapes, Depth::Fifty),
    ..DEEPLABV3_RESNET18
};

fn build(architecture: &Architecture, seed: u64, device: &Device) -> Box<dyn Network> {
    Trained::assemble(architecture, seed, device, |builder| DeepLab::new(builder, architecture))
}

fn recognise(shapes: &Shapes, depth: Depth) -> Option<Recognised> {
    shapes.get("classifier.0.convs.0.0.weight")?;
    (Depth::recognise(shapes, "backbone.")? == depth).then_some(())?;
    recognise_torchvision(shapes)
}

const WIDTH: usize = 256;

/// Atrous spatial pyramid pooling.
#[derive(Module, Debug)]
struct Aspp {
    branches: Vec<ConvNorm>,
    pooled: ConvNorm,
    project: ConvNorm,
}

impl Aspp {
    fn new(builder: &Builder, input: usize) -> Self {
        let layer =
            |at: Builder, first: usize, spec| ConvNorm::new(&at.at(first), &at.at(first + 1), spec, Activation::Relu);
        let convs = builder.at("convs");
        let point = ConvSpec::new(input, WIDTH, 1);
        let mut branches = vec![layer(convs.at(0), 0, point)];
        for (i, dilation) in [12, 24, 36].into_iter().enumerate() {
            branches.push(layer(convs.at(i + 1), 0, ConvSpec::new(input, WIDTH, 3).dilation(dilation)));
        }
        let pooled = layer(convs.at(4), 1, point);
        Self { branches, pooled, project: layer(builder.at("project"), 0, ConvSpec::new(5 * WIDTH, WIDTH, 1)) }
    }

    fn forward(&self, x: Tensor<4>, taps: &mut Taps) -> Tensor<4> {
        let [n, _, height, width] = x.dims();
        let mut parts: Vec<_> = self.branches.iter().map(|branch| branch.forward(x.clone(), taps)).collect();
        let pooled = self.pooled.forward(adaptive_average_pool(x, 1), taps);
        parts.push(pooled.expand([n, WIDTH, height, width]));
        let y = self.project.forward(concat(parts), taps);
        dropout(y, 0.5, taps)
    }
}

#[derive(Module, Debug)]
struct DeepLab {
    backbone: ResNet,
    aspp: Aspp,
    hidden: ConvNorm,
    classifier: Conv2d,
    auxiliary: Option<Head>,
}

impl DeepLab {
    fn new(builder: &Builder, architecture: &Architecture) -> Self {
        let depth = Depth::of(&architecture.name);
        let [third, last] = depth.features();
        let classes = architecture.classes.len();
        let head = builder.at("classifier").head();
        Self {
            backbone: torchvision_backbone(builder, architecture, depth),
            aspp: Aspp::new(&head.at(0), last),
            hidden: ConvNorm::new(&head.at(1), &head.at(2), ConvSpec::new(WIDTH, WIDTH, 3), Activation::Relu),
            classifier: Conv2d::with_bias(&head.at(4), ConvSpec::new(WIDTH, classes, 1)),
            auxiliary: (architecture.option("auxiliary") == 1)
                .then(|| Head::new(&builder.at("aux_classifier"), third, third / 4, classes, false)),
        }
    }
}

impl Forward for DeepLab {
    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output {
        let [_, _, height, width] = images.dims();
        let resize = |x: Tensor<4>| resize_bilinear(x, [height, width], false);
        let features = self.backbone.forward(images, taps);
        let auxiliary = self.auxiliary.as_ref().filter(|_| taps.is_training());
        let auxiliary = auxiliary.map(|head| resize(head.forward(features.third, taps)));
        let x = self.aspp.forward(features.last, taps);
        let x = taps.site("aspp", x);
        let x = self.hidden.forward(x, taps);
        Output { auxiliary, ..resize(self.classifier.forward(x)).into() }
    }

    fn sites(&self) -> Vec<String> {
        SITES.into_iter().chain(["aspp"]).map(String::from).collect()
    }
}
