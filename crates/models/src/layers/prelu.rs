//! Rectifier with a learned slope.
//!
//! He, Zhang, Ren, Sun. *Delving Deep into Rectifiers*, ICCV 2015. <https://arxiv.org/abs/1502.01852>

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use fireproof_tensor::ops::prelu;

use super::{Builder, Init};

/// `x` where it is not negative, `weight · x` elsewhere. Parameter `weight` `[C]`, one slope a channel.
#[derive(Module, Debug)]
pub struct PRelu {
    weight: Param<Tensor<1>>,
}

impl PRelu {
    /// Slopes start at 0.25, as in PyTorch.
    pub fn new(builder: &Builder, channels: usize) -> Self {
        Self { weight: builder.weight("weight", [channels], Init::Constant(0.25)) }
    }

    /// `[N, C, H, W]` → the same shape.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        prelu(x, self.weight.val())
    }
}
