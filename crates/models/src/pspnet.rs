//! PSPNet on a dilated ResNet, in the layout of its authors' PyTorch code.
//!
//! Zhao, Shi, Qi, Wang, Jia. *Pyramid Scene Parsing Network*, CVPR 2017. <https://arxiv.org/abs/1612.01105>
//!
//! The features are averaged over grids of 1, 2, 3 and 6 windows a side, each reduced to a quarter of the channels,
//! resized back (corners aligned) and concatenated behind the features.
//!
//! Names: `layer0.*` (stem), `layer1` to `layer4`, `ppm.features.{0..3}.{1,2}`, `cls.{0,1,4}`, `aux.{0,1,4}`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fireproof_tensor::ops::{concat, resize_bilinear};

use crate::fcn::AUXILIARY;
use crate::head::Head;
use crate::layers::{Activation, Builder, ConvNorm, ConvSpec, adaptive_average_pool};
use crate::resnet::{Depth, Dilation, ResNet, SITES};
use crate::weights::{Recognised, Shapes};
use crate::{Architecture, Definition, Forward, Network, NetworkOption, Normalisation, Output, Taps, Trained};

const DEEP_STEM: NetworkOption = NetworkOption {
    name: "deep_stem",
    about: "1 for a stem of three 3x3 convolutions, 0 for one 7x7 as in torchvision's backbones",
    default: 0,
    range: 0..=1,
};

const DILATE_FIRST: NetworkOption = NetworkOption {
    name: "dilate_first",
    about: "1 if the first block of stages 3 and 4 dilates like the others (the authors' code), 0 as in torchvision",
    default: 1,
    range: 0..=1,
};

const fn hidden(default: usize) -> NetworkOption {
    NetworkOption { name: "hidden", about: "channels before the classifier", default, range: 1..=4096 }
}

/// `pspnet-resnet18`.
pub static PSPNET_RESNET18: Definition = Definition {
    name: "pspnet-resnet18",
    about: "PSPNet on a dilated ResNet-18 (Zhao et al., CVPR 2017)",
    options: &[AUXILIARY, DEEP_STEM, DILATE_FIRST, hidden(128)],
    normalisation: Normalisation::imagenet,
    plan: None,
    recognise: |shapes| recognise(shapes, Depth::Eighteen),
    build,
};

/// `pspnet-resnet50`.
pub static PSPNET_RESNET50: Definition = Definition {
    name: "pspnet-resnet50",
    about: "PSPNet on a dilated ResNet-50 (Zhao et al., CVPR 2017)",
    options: &[AUXILIARY, DEEP_STEM, DILATE_FIRST, hidden(512)],
    normalisation: Normalisation::imagenet,
    plan: None,
    recognise: |shapes| recognise(shapes, Depth::Fifty),
    build,
};

fn build(architecture: &Architecture, seed: u64, device: &Device) -> Box<dyn Network> {
    Trained::assemble(architecture, seed, device, |builder| PspNet::new(builder, architecture))
}

fn recognise(shapes: &Shapes, depth: Depth) -> Option<Recognised> {
    shapes.get("ppm.features.0.1.weight")?;
    (Depth::recognise(shapes, "")? == depth).then_some(())?;
    let [_, input_channels, _, _] = shapes.convolution("layer0.0.weight")?;
    let [hidden, _, 3, 3] = shapes.convolution("cls.0.weight")? else { return None };
    let [classes, _, 1, 1] = shapes.convolution("cls.4.weight")? else { return None };
    let deep = usize::from(shapes.get("layer0.3.weight").is_some());
    Some(Recognised {
        classes,
        input_channels,
        options: vec![("auxiliary", 0), ("deep_stem", deep), ("hidden", hidden)],
    })
}

const BINS: [usize; 4] = [1, 2, 3, 6];

#[derive(Module, Debug)]
struct PspNet {
    backbone: ResNet,
    pyramid: Vec<ConvNorm>,
    classifier: Head,
    auxiliary: Option<Head>,
}

impl PspNet {
    fn new(builder: &Builder, architecture: &Architecture) -> Self {
        let depth = Depth::of(&architecture.name);
        let [third, last] = depth.features();
        let classes = architecture.classes.len();
        let layer0 = builder.at("layer0");
        // Convolution, batch norm and ReLU follow each other in a Sequential, so numbers come in threes.
        let convolutions = if architecture.option("deep_stem") == 1 { 3 } else { 1 };
        let stem = (0..convolutions).map(|i| [layer0.at(3 * i), layer0.at(3 * i + 1)]).collect();
        let rule =
            if architecture.option("dilate_first") == 1 { Dilation::FromFirstBlock } else { Dilation::FromSecondBlock };
        let pyramid = (0..BINS.len()).map(|i| {
            let at = builder.at("ppm.features").at(i).head();
            ConvNorm::new(&at.at(1), &at.at(2), ConvSpec::new(last, last / BINS.len(), 1), Activation::Relu)
        });
        Self {
            backbone: ResNet::new(builder, stem, architecture.input_channels, depth, rule),
            pyramid: pyramid.collect(),
            classifier: Head::new(&builder.at("cls"), 2 * last, architecture.option("hidden"), classes, true),
            auxiliary: (architecture.option("auxiliary") == 1)
                .then(|| Head::new(&builder.at("aux"), third, third / 4, classes, true)),
        }
    }
}

impl Forward for PspNet {
    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output {
        let [_, _, height, width] = images.dims();
        let resize = |x: Tensor<4>| resize_bilinear(x, [height, width], true);
        let features = self.backbone.forward(images, taps);
        let auxiliary = self.auxiliary.as_ref().filter(|_| taps.is_training());
        let auxiliary = auxiliary.map(|head| resize(head.forward(features.third, taps)));
        let x = features.last;
        let [_, _, h, w] = x.dims();
        let mut parts = vec![x.clone()];
        for (layer, bins) in self.pyramid.iter().zip(BINS) {
            let pooled = layer.forward(adaptive_average_pool(x.clone(), bins), taps);
            parts.push(resize_bilinear(pooled, [h, w], true));
        }
        let x = taps.site("pyramid", concat(parts));
        Output { auxiliary, ..resize(self.classifier.forward(x, taps)).into() }
    }

    fn sites(&self) -> Vec<String> {
        SITES.into_iter().chain(["pyramid"]).map(String::from).collect()
    }
}
