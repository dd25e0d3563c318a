//! Instance normalisation.
//!
//! Ulyanov, Vedaldi, Lempitsky. *Instance Normalization: The Missing Ingredient for Fast Stylization*, 2016.
//! <https://arxiv.org/abs/1607.08022>

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use fireproof_tensor::ops;

use super::{Builder, Init};

/// Every channel of every image is brought to mean 0 and variance 1 over its own pixels, then scaled and shifted.
/// Parameters `weight` and `bias`, both `[C]`.
///
/// The same in training and evaluation: there are no running statistics, and an image's result does not depend on its
/// batch. The gradient goes through mean and variance.
#[derive(Module, Debug)]
pub struct InstanceNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl InstanceNorm {
    /// Starts as plain normalisation: weight 1, bias 0.
    pub fn new(builder: &Builder, channels: usize, epsilon: f64) -> Self {
        Self {
            weight: builder.weight("weight", [channels], Init::Constant(1.0)),
            bias: builder.weight("bias", [channels], Init::Constant(0.0)),
            epsilon,
        }
    }

    /// `[N, C, H, W]` → the same shape. A map of one pixel becomes the bias.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, channels, height, width] = x.dims();
        // A batch norm over one image whose channels are all channels of all images.
        let each = |v: Tensor<1>| v.repeat_dim(0, n);
        let x = x.reshape([1, n * channels, height, width]);
        let (y, _, _) = ops::batch_norm_train(x, each(self.weight.val()), each(self.bias.val()), self.epsilon);
        y.reshape([n, channels, height, width])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    fn layer(channels: usize) -> InstanceNorm {
        InstanceNorm::new(&Builder::new(0, &Device::flex()), channels, 1e-5)
    }

    /// The definition, in Burn's own operations.
    fn reference(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<4> {
        let mean = x.clone().mean_dim(3).mean_dim(2);
        let centred = x - mean;
        let variance = (centred.clone() * centred.clone()).mean_dim(3).mean_dim(2);
        let row = |v: Tensor<1>| v.reshape([1, -1, 1, 1]);
        centred / (variance + 1e-5).sqrt() * row(weight) + row(bias)
    }

    #[test]
    fn values_and_gradients_are_those_of_the_definition() {
        let device = Device::flex();
        let x = Tensor::<4>::random([3, 4, 7, 5], Distribution::Normal(1.7, 3.0), &device);
        let target = Tensor::<4>::random([3, 4, 7, 5], Distribution::Normal(0.0, 1.0), &device);
        let weight = Tensor::<1>::random([4], Distribution::Uniform(0.5, 1.5), &device);
        let bias = Tensor::<1>::random([4], Distribution::Normal(0.0, 1.0), &device);
        let run = |ours: bool| {
            let leaf = |t: &Tensor<1>| t.clone().autodiff().require_grad();
            let (x, weight, bias) = (x.clone().autodiff().require_grad(), leaf(&weight), leaf(&bias));
            let y = if ours {
                let mut layer = layer(4);
                layer.weight = Param::from_tensor(weight.clone());
                layer.bias = Param::from_tensor(bias.clone());
                layer.forward(x.clone())
            } else {
                reference(x.clone(), weight.clone(), bias.clone())
            };
            let mut gradients = (y.clone() * Tensor::from_inner(target.clone())).sum().backward();
            let mut gradient = |leaf: &Tensor<1>| leaf.grad_remove(&mut gradients).unwrap().into_data();
            let parameters = [gradient(&weight), gradient(&bias)];
            let [at_weight, at_bias] = parameters;
            [y.inner().into_data(), x.grad_remove(&mut gradients).unwrap().into_data(), at_weight, at_bias]
        };
        for (ours, definition) in run(true).into_iter().zip(run(false)) {
            ours.assert_approx_eq::<f32>(&definition, Tolerance::rel_abs(1e-3, 1e-4));
        }
    }

    #[test]
    fn an_image_does_not_see_its_neighbours_and_scale_and_shift_of_it_vanish() {
        let device = Device::flex();
        let x = Tensor::<4>::random([2, 3, 6, 6], Distribution::Normal(0.0, 1.0), &device);
        let both = layer(3).forward(x.clone());
        let alone = layer(3).forward(x.clone().narrow(0, 1, 1));
        both.clone().narrow(0, 1, 1).into_data().assert_eq(&alone.into_data(), true);
        let moved = layer(3).forward(x * 7.0 - 3.0);
        moved.into_data().assert_approx_eq::<f32>(&both.into_data(), Tolerance::rel_abs(1e-3, 1e-3));
    }

    #[test]
    fn one_pixel_has_no_variance_and_becomes_the_bias() {
        let y = layer(2).forward(Tensor::ones([1, 2, 1, 1], &Device::flex()) * 5.0);
        assert_eq!(y.into_data().try_to_vec::<f32>().unwrap(), [0.0, 0.0]);
    }
}
