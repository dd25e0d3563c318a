//! Transposed convolution: doubles height and width.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use fireproof_tensor::ops::{self, WeightCache};

use super::{Builder, Init};

/// Transposed convolution with a 2×2 kernel and stride 2. Parameters `weight` `[Ci, Co, 2, 2]` and maybe `bias` `[Co]`.
#[derive(Module, Debug)]
pub struct ConvTranspose2d {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    cache: WeightCache,
}

impl ConvTranspose2d {
    /// Without a bias.
    pub fn new(builder: &Builder, input: usize, output: usize) -> Self {
        Self::with(builder, input, output, Self::init(input))
    }

    /// With a bias.
    pub fn with_bias(builder: &Builder, input: usize, output: usize) -> Self {
        let init = Self::init(input);
        Self::with_init(builder, input, output, init, init)
    }

    /// With a bias, and initial values of the caller's choice.
    pub fn with_init(builder: &Builder, input: usize, output: usize, weight: Init, bias: Init) -> Self {
        Self { bias: Some(builder.weight("bias", [output], bias)), ..Self::with(builder, input, output, weight) }
    }

    /// Kernel and stride are equal, so an output pixel sees one tap of every input channel.
    fn init(input: usize) -> Init {
        Init::Uniform(1.0 / (input as f32).sqrt())
    }

    fn with(builder: &Builder, input: usize, output: usize, init: Init) -> Self {
        let weight = builder.weight("weight", [input, output, 2, 2], init);
        Self { weight, bias: None, cache: WeightCache::default() }
    }

    /// `[N, Ci, H, W]` → `[N, Co, 2 H, 2 W]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::conv_transpose2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), 2, &self.cache)
    }
}
