//! FCN on a dilated ResNet-50, as in torchvision.
//!
//! Long, Shelhamer, Darrell. *Fully Convolutional Networks for Semantic Segmentation*, CVPR 2015.
//! <https://arxiv.org/abs/1411.4038>
//!
//! Names: `backbone.*`, `classifier.{0,1,4}`, `aux_classifier.{0,1,4}`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fireproof_tensor::ops::resize_bilinear;

use crate::head::Head;
use crate::layers::Builder;
use crate::resnet::{Depth, Dilation, ResNet, SITES};
use crate::weights::{Recognised, Shapes};
use crate::{Architecture, Definition, Forward, Network, NetworkOption, Normalisation, Output, Taps, Trained};

/// `fcn-resnet50`.
pub static FCN_RESNET50: Definition = Definition {
    name: "fcn-resnet50",
    about: "FCN on a dilated ResNet-50, torchvision's layout (Long et al., CVPR 2015)",
    options: &[AUXILIARY],
    normalisation: Normalisation::imagenet,
    plan: None,
    recognise,
    build,
};

/// The option that FCN, DeepLabv3 and PSPNet share.
pub(crate) const AUXILIARY: NetworkOption = NetworkOption {
    name: "auxiliary",
    about: "1 for a second head on the third stage, used in training only",
    default: 1,
    range: 0..=1,
};

fn build(architecture: &Architecture, seed: u64, device: &Device) -> Box<dyn Network> {
    Trained::assemble(architecture, seed, device, |builder| Fcn::new(builder, architecture))
}

fn recognise(shapes: &Shapes) -> Option<Recognised> {
    let [_, _, 3, 3] = shapes.convolution("classifier.0.weight")? else { return None };
    (Depth::recognise(shapes, "backbone.")? == Depth::Fifty).then_some(())?;
    recognise_torchvision(shapes)
}

/// Classes and channels of torchvision's layouts. Auxiliary heads are left out: they only serve training.
pub(crate) fn recognise_torchvision(shapes: &Shapes) -> Option<Recognised> {
    let [_, input_channels, 7, 7] = shapes.convolution("backbone.conv1.weight")? else { return None };
    let [classes, _, 1, 1] = shapes.convolution("classifier.4.weight")? else { return None };
    Some(Recognised { classes, input_channels, options: vec![("auxiliary", 0)] })
}

#[derive(Module, Debug)]
struct Fcn {
    backbone: ResNet,
    classifier: Head,
    auxiliary: Option<Head>,
}

impl Fcn {
    fn new(builder: &Builder, architecture: &Architecture) -> Self {
        let depth = Depth::of(&architecture.name);
        let [third, last] = depth.features();
        let head = |name: &str, channels: usize| {
            Head::new(&builder.at(name), channels, channels / 4, architecture.classes.len(), false)
        };
        Self {
            backbone: torchvision_backbone(builder, architecture, depth),
            classifier: head("classifier", last),
            auxiliary: (architecture.option("auxiliary") == 1).then(|| head("aux_classifier", third)),
        }
    }
}

/// The extractor under torchvision's names.
pub(crate) fn torchvision_backbone(builder: &Builder, architecture: &Architecture, depth: Depth) -> ResNet {
    let backbone = builder.at("backbone");
    let stem = vec![[backbone.at("conv1"), backbone.at("bn1")]];
    ResNet::new(&backbone, stem, architecture.input_channels, depth, Dilation::FromSecondBlock)
}

impl Forward for Fcn {
    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output {
        let [_, _, height, width] = images.dims();
        let resize = |x: Tensor<4>| resize_bilinear(x, [height, width], false);
        let features = self.backbone.forward(images, taps);
        let auxiliary = self.auxiliary.as_ref().filter(|_| taps.is_training());
        let auxiliary = auxiliary.map(|head| resize(head.forward(features.third, taps)));
        let logits = resize(self.classifier.forward(features.last, taps));
        Output { auxiliary, ..logits.into() }
    }

    fn sites(&self) -> Vec<String> {
        SITES.map(String::from).into()
    }
}
