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
        // Kernel and stride are equal, so an output pixel sees one tap of every input channel.
        let init = Init::Uniform(1.0 / (input as f32).sqrt());
        Self {
            weight: builder.weight("weight", [input, output, 2, 2], init),
            bias: None,
            cache: WeightCache::default(),
        }
    }

    /// With a bias.
    pub fn with_bias(builder: &Builder, input: usize, output: usize) -> Self {
        let init = Init::Uniform(1.0 / (input as f32).sqrt());
        let layer = Self::new(builder, input, output);
        Self { bias: Some(builder.weight("bias", [output], init)), ..layer }
    }

    /// `[N, Ci, H, W]` → `[N, Co, 2 H, 2 W]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::conv_transpose2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), 2, &self.cache)
    }
}
