//! The head that FCN, PSPNet and auxiliary classifiers share: 3×3 convolution, batch norm, ReLU, dropout, 1×1 to logits.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::Taps;
use crate::layers::{Activation, Builder, Conv2d, ConvNorm, ConvSpec, dropout, dropout_channels};

/// The head; parameters at `0`, `1` and `4`, as in a PyTorch `Sequential`.
#[derive(Module, Debug)]
pub(crate) struct Head {
    hidden: ConvNorm,
    classifier: Conv2d,
    #[module(skip)]
    drop_channels: bool,
}

impl Head {
    /// `drop_channels` drops whole channels instead of single values; the share is 0.1.
    pub(crate) fn new(builder: &Builder, input: usize, hidden: usize, classes: usize, drop_channels: bool) -> Self {
        let builder = builder.head();
        let spec = ConvSpec::new(input, hidden, 3);
        Self {
            hidden: ConvNorm::new(&builder.at(0), &builder.at(1), spec, Activation::Relu),
            classifier: Conv2d::with_bias(&builder.at(4), ConvSpec::new(hidden, classes, 1)),
            drop_channels,
        }
    }

    /// `[N, C, h, w]` → logits `[N, K, h, w]`.
    pub(crate) fn forward(&self, features: Tensor<4>, taps: &mut Taps) -> Tensor<4> {
        let x = self.hidden.forward(features, taps);
        let x = if self.drop_channels { dropout_channels(x, 0.1, taps) } else { dropout(x, 0.1, taps) };
        self.classifier.forward(x)
    }
}
