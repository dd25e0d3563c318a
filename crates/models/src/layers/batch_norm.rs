//! Batch normalisation without hidden state.
//!
//! Ioffe, Szegedy. *Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift*,
//! ICML 2015. <https://arxiv.org/abs/1502.03167>

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Tensor, module};
use fireproof_tensor::ops::{self, Activation};

use super::builder::Fold;
use super::{Builder, Init};
use crate::{BatchNormMode, Taps, taps::BatchStatistics};

/// Batch norm over `[N, C, H, W]` with parameters `weight`, `bias`, `running_mean`, `running_var`, all `[C]`.
///
/// Burn's own layer keeps its running statistics behind a lock that clones share; here they are parameters without
/// gradient. What a training pass learns about them goes to [`Taps`], and
/// [`Network::commit`](crate::Network::commit) applies it.
#[derive(Module, Debug)]
pub struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl BatchNorm {
    /// A batch norm that follows something else than a convolution.
    pub fn new(builder: &Builder, channels: usize, epsilon: f64) -> Self {
        Self::after(builder, channels, epsilon, None)
    }

    /// A batch norm whose scale folds into the weight of the convolution before it.
    pub(super) fn after(builder: &Builder, channels: usize, epsilon: f64, convolution: Option<ParamId>) -> Self {
        let norm = Self {
            weight: builder.weight("weight", [channels], Init::Constant(1.0)),
            bias: builder.weight("bias", [channels], Init::Constant(0.0)),
            running_mean: builder.statistic("running_mean", [channels], Init::Constant(0.0)),
            running_var: builder.statistic("running_var", [channels], Init::Constant(1.0)),
            epsilon,
        };
        builder.fold(Fold {
            convolution,
            weight: norm.weight.id,
            bias: norm.bias.id,
            mean: norm.running_mean.id,
            variance: norm.running_var.id,
            epsilon,
        });
        norm
    }

    /// The bias of a victim's convolution: what folding left of this layer.
    pub(super) fn shift(&self) -> Tensor<1> {
        self.bias.val()
    }

    /// `[N, C, H, W]` → the same shape, by the mode of the pass.
    ///
    /// # Panics
    /// In the training modes, if there is one value a channel only (one image pooled to one pixel): it has no variance.
    pub fn forward(&self, x: Tensor<4>, taps: &mut Taps) -> Tensor<4> {
        self.fused(x, None, Activation::None, taps)
    }

    /// `activation(self(x) + residual)`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), or if `residual` has another shape than `x`.
    pub(super) fn fused(
        &self,
        x: Tensor<4>,
        residual: Option<Tensor<4>>,
        activation: Activation,
        taps: &mut Taps,
    ) -> Tensor<4> {
        let [n, _, height, width] = x.dims();
        if taps.is_folded() || taps.mode() == BatchNormMode::Eval {
            let (weight, bias) = (self.weight.val(), self.bias.val());
            let y = if taps.is_folded() {
                ops::scale_shift(x, weight, bias)
            } else {
                let (mean, variance) = (self.running_mean.val(), self.running_var.val());
                module::batch_norm(x, weight, bias, mean, variance, self.epsilon)
            };
            return match (residual, activation) {
                (None, Activation::None) => y,
                (None, Activation::Relu) => ops::relu(y),
                (Some(residual), Activation::None) => y + residual,
                (Some(residual), Activation::Relu) => ops::add_relu(y, residual),
            };
        }
        let count = n * height * width;
        assert!(count > 1, "batch norm in training needs more than one value a channel, found input {:?}", x.dims());
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let (output, mean, variance) = ops::batch_norm_train_fused(x, weight, bias, self.epsilon, residual, activation);
        if taps.mode() == BatchNormMode::Train {
            taps.collect(BatchStatistics {
                running_mean: self.running_mean.id,
                running_variance: self.running_var.id,
                mean,
                variance: variance * (count as f64 / (count - 1) as f64),
            });
        }
        output
    }
}
