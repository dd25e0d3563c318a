//! TYPE: four convolutions at full resolution.
//!
//! Put here: authors, title, year, a link, and in what the network differs from the paper. `bench --list` and
//! `train --model NAME` know it by name.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use fireproof_models::layers::{Activation, Builder, Conv2d, ConvNorm, ConvSpec};
use fireproof_models::{Architecture, Definition, Forward, Network, NetworkOption, Normalisation, Output, Taps, Trained};

inventory::submit! {
    Definition {
        name: "NAME",
        about: "four convolutions at full resolution",
        options: &[NetworkOption { name: "base", about: "channels", default: 16, range: 1..=1024 }],
        normalisation: Normalisation::identity,
        plan: None,
        recognise: |_| None,
        build,
    }
}

fn build(architecture: &Architecture, seed: u64, device: &Device) -> Box<dyn Network> {
    Trained::assemble(architecture, seed, device, |builder| TYPE::new(builder, architecture))
}

/// The network.
#[derive(Module, Debug)]
struct TYPE {
    body: Vec<ConvNorm>,
    head: Conv2d,
}

impl TYPE {
    fn new(builder: &Builder, architecture: &Architecture) -> Self {
        let base = architecture.option("base");
        let layer = |at: usize| {
            let input = if at == 0 { architecture.input_channels } else { base };
            let place = builder.at("body").at(at);
            // Each layer sees twice as far as the one before.
            let spec = ConvSpec::new(input, base, 3).dilation(1 << at);
            ConvNorm::new(&place.at("conv"), &place.at("norm"), spec, Activation::Relu)
        };
        let head = Conv2d::with_bias(&builder.at("head").head(), ConvSpec::new(base, architecture.classes.len(), 1));
        Self { body: (0..3).map(layer).collect(), head }
    }
}

impl Forward for TYPE {
    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output {
        let mut x = images;
        for (at, layer) in self.body.iter().enumerate() {
            x = layer.forward(x, taps);
            x = taps.site(&format!("body.{at}"), x);
        }
        self.head.forward(x).into()
    }

    fn sites(&self) -> Vec<String> {
        (0..self.body.len()).map(|at| format!("body.{at}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use fireproof_models::{Architecture, build};

    #[test]
    fn logits_have_the_size_of_the_images() {
        let device = Device::flex();
        let architecture = Architecture::new("NAME", &["road", "sky"]).unwrap();
        let victim = build(&architecture, 0, &device).unwrap().victim();
        let logits = victim.logits(Tensor::zeros([2, 3, 13, 17], &device)).unwrap();
        assert_eq!(logits.dims(), [2, 2, 13, 17]);
    }
}
