//! Convolution, alone or with the batch norm and activation that follow it.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use fireproof_tensor::ops::{self, Conv2dOptions, WeightCache};

pub use fireproof_tensor::ops::Activation;

use super::{BatchNorm, Builder, Init};
use crate::Taps;

/// Shape of a convolution: square kernel, symmetric padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride, padding, dilation, groups.
    pub options: Conv2dOptions,
}

impl ConvSpec {
    /// Stride 1, and padding that keeps the size.
    pub fn new(input: usize, output: usize, kernel: usize) -> Self {
        let options = Conv2dOptions { padding: (kernel - 1) / 2, ..Conv2dOptions::default() };
        Self { input, output, kernel, options }
    }

    /// With a stride.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.options.stride = stride;
        self
    }

    /// With a dilation, and padding that keeps the size.
    #[must_use]
    pub fn dilation(mut self, dilation: usize) -> Self {
        self.options.dilation = dilation;
        self.options.padding = (self.kernel - 1) / 2 * dilation;
        self
    }
}

/// Two-dimensional convolution. Parameters `weight` `[Co, Ci, K, K]` and, if asked for, `bias` `[Co]`.
///
/// The only convolution layer here, so that every network gets the same kernels.
#[derive(Module, Debug)]
pub struct Conv2d {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    options: Conv2dOptions,
    #[module(skip)]
    cache: WeightCache,
}

impl Conv2d {
    /// Without a bias. Starts normal with variance 2 / fan-in (He et al., 2015), for layers before a ReLU.
    pub fn new(builder: &Builder, spec: ConvSpec) -> Self {
        let fan_in = spec.input / spec.options.groups * spec.kernel * spec.kernel;
        Self::with(builder, spec, Init::Normal((2.0 / fan_in as f32).sqrt()))
    }

    /// With a bias; both start uniform in ± 1 / √fan-in, PyTorch's default. For layers that end in logits.
    pub fn with_bias(builder: &Builder, spec: ConvSpec) -> Self {
        let fan_in = spec.input / spec.options.groups * spec.kernel * spec.kernel;
        let init = Init::Uniform(1.0 / (fan_in as f32).sqrt());
        Self::with_init(builder, spec, init, init)
    }

    /// With a bias, and initial values of the caller's choice.
    pub fn with_init(builder: &Builder, spec: ConvSpec, weight: Init, bias: Init) -> Self {
        // The weight first: parameters are listed in the order in which they are made.
        let convolution = Self::with(builder, spec, weight);
        Self { bias: Some(builder.weight("bias", [spec.output], bias)), ..convolution }
    }

    fn with(builder: &Builder, spec: ConvSpec, init: Init) -> Self {
        let shape = [spec.output, spec.input / spec.options.groups, spec.kernel, spec.kernel];
        Self {
            weight: builder.weight("weight", shape, init),
            bias: None,
            options: spec.options,
            cache: WeightCache::default(),
        }
    }

    /// `[N, Ci, H, W]` → `[N, Co, Ho, Wo]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.fused(x, self.bias.as_ref().map(Param::val), Activation::None)
    }

    /// Convolution, bias and activation in one operation where the device has one.
    fn fused(&self, x: Tensor<4>, bias: Option<Tensor<1>>, activation: Activation) -> Tensor<4> {
        ops::conv2d_fused(x, self.weight.val(), bias, self.options, activation, &self.cache)
    }
}

/// Convolution without bias, batch norm, activation. In a victim it is one operation.
#[derive(Module, Debug)]
pub struct ConvNorm {
    convolution: Conv2d,
    norm: BatchNorm,
    #[module(skip)]
    activation: Activation,
}

impl ConvNorm {
    /// Places the parameters at `convolution` and `norm`, which PyTorch's layouts name freely.
    pub fn new(convolution: &Builder, norm: &Builder, spec: ConvSpec, activation: Activation) -> Self {
        Self::with_epsilon(convolution, norm, spec, activation, 1e-5)
    }

    /// With another ε of the batch norm.
    pub fn with_epsilon(
        convolution: &Builder,
        norm: &Builder,
        spec: ConvSpec,
        activation: Activation,
        epsilon: f64,
    ) -> Self {
        let convolution = Conv2d::new(convolution, spec);
        let norm = BatchNorm::after(norm, spec.output, epsilon, Some(convolution.weight.id));
        Self { convolution, norm, activation }
    }

    /// `max(0, self(x) + residual)`, for a layer without an activation of its own.
    pub fn forward_residual(&self, x: Tensor<4>, residual: Tensor<4>, taps: &mut Taps) -> Tensor<4> {
        debug_assert_eq!(self.activation, Activation::None, "the activation comes after the addition");
        if taps.is_folded() {
            let Conv2d { weight, options, cache, .. } = &self.convolution;
            return ops::conv2d_residual(x, weight.val(), self.norm.shift(), residual, *options, cache);
        }
        self.norm.fused(self.convolution.forward(x), Some(residual), Activation::Relu, taps)
    }

    /// `[N, Ci, H, W]` → `[N, Co, Ho, Wo]`.
    pub fn forward(&self, x: Tensor<4>, taps: &mut Taps) -> Tensor<4> {
        if taps.is_folded() {
            return self.convolution.fused(x, Some(self.norm.shift()), self.activation);
        }
        self.norm.fused(self.convolution.forward(x), None, self.activation, taps)
    }
}
