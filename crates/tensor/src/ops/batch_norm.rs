//! Batch normalisation in training, and its frozen form, a scale and a shift a channel.

use burn::backend::Flex;
use burn::tensor::{Tensor, module};
use burn_flex::FlexTensor;
use fireproof_kernels::batch_norm as kernel;

use super::{
    DeviceOp, flex,
    footprint::{self, count},
};
use crate::host;

/// `x · scale + shift` per channel: `x [N, C, H, W]`, `scale` and `shift` `[C]`. A frozen batch norm is this.
pub fn scale_shift(x: Tensor<4>, scale: Tensor<1>, shift: Tensor<1>) -> Tensor<4> {
    let read = count(&x);
    let out = if flex::on_flex(&x) && !scale.is_tracked() && !shift.is_tracked() {
        flex::apply(x.into_dispatch(), Some(scale.into_dispatch()), Some(shift.into_dispatch()), ScaleShift)
    } else {
        let row = |v: Tensor<1>| v.reshape([1, -1, 1, 1]);
        x * row(scale) + row(shift)
    };
    footprint::note("scale and shift", [2, 1], 2 * read, [read, 0], out)
}

/// Normalises with the batch's own statistics: the result, and mean and biased variance `[C]` (plain tensors).
///
/// Ioffe, Szegedy, ICML 2015, <https://arxiv.org/abs/1502.03167>. Differentiable in all three tensors.
pub fn batch_norm_train(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    if !flex::on_flex(&x) {
        let result = module::batch_norm_train(x, weight, bias, epsilon);
        return (result.output, result.mean.inner(), result.variance.inner());
    }
    let statistics: Tensor<2> = flex::apply(x.clone().inner().into_dispatch(), None, None, Statistics);
    let row = |i: usize| statistics.clone().narrow(0, i, 1).squeeze_dim::<1>(0);
    let (mean, variance) = (row(0), row(1));
    let [mean_values, variance_values] = [&mean, &variance].map(|x| host::floats(x.clone()));
    let norm = Normalise { mean: mean_values, variance: variance_values, epsilon };
    let output = flex::apply(x.into_dispatch(), Some(weight.into_dispatch()), Some(bias.into_dispatch()), norm);
    (output, mean, variance)
}

#[derive(Debug)]
struct ScaleShift;

impl DeviceOp<Flex> for ScaleShift {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, scale, shift] = [0, 1, 2].map(|i| flex::contiguous(&inputs[i]));
        let size = flex::dims::<4>(&x);
        let output = flex::written(size, |out| {
            kernel::scale_shift(flex::numbers(&x), size[0], flex::numbers(&scale), flex::numbers(&shift), false, out);
        });
        (output, vec![scale])
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], _needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = flex::contiguous(&grad);
        let scale = flex::numbers(&kept[0]);
        let size = flex::dims::<4>(&grad);
        let at_x = flex::written(size, |out| {
            kernel::scale_shift(flex::numbers(&grad), size[0], scale, &vec![0.0; scale.len()], false, out);
        });
        vec![Some(at_x), None, None]
    }
}

/// Mean and biased variance of each channel, `[2, C]`.
#[derive(Debug)]
struct Statistics;

impl DeviceOp<Flex> for Statistics {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let x = flex::contiguous(&inputs[0]);
        let [n, channels, ..] = flex::dims::<4>(&x);
        let output = flex::written([2, channels], |out| {
            let (mean, variance) = out.split_at_mut(channels);
            kernel::statistics(flex::numbers(&x), n, mean, variance);
        });
        (output, Vec::new())
    }

    fn backward(&self, _: FlexTensor, _: &[FlexTensor], _: &[bool]) -> Vec<Option<FlexTensor>> {
        unreachable!("statistics are computed of plain tensors")
    }
}

/// Normalisation with the statistics of `x` itself, through which the gradient goes.
#[derive(Debug)]
struct Normalise {
    mean: Vec<f32>,
    variance: Vec<f32>,
    epsilon: f64,
}

impl DeviceOp<Flex> for Normalise {
    fn forward(&self, inputs: &[FlexTensor], tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, weight, bias] = [0, 1, 2].map(|i| flex::contiguous(&inputs[i]));
        let (gamma, beta) = (flex::numbers(&weight), flex::numbers(&bias));
        let channels = 0..gamma.len();
        let scale: Vec<f64> = channels
            .clone()
            .map(|c| f64::from(gamma[c]) / (f64::from(self.variance[c]) + self.epsilon).sqrt())
            .collect();
        let shift: Vec<f32> =
            channels.map(|c| (f64::from(beta[c]) - f64::from(self.mean[c]) * scale[c]) as f32).collect();
        let scale: Vec<f32> = scale.into_iter().map(|s| s as f32).collect();
        let size = flex::dims::<4>(&x);
        let output = flex::written(size, |out| {
            kernel::scale_shift(flex::numbers(&x), size[0], &scale, &shift, false, out);
        });
        (output, if tracked.contains(&true) { vec![x, weight] } else { Vec::new() })
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = flex::contiguous(&grad);
        let (x, weight) = (&kept[0], flex::numbers(&kept[1]));
        let size = flex::dims::<4>(x);
        let (mut gamma, mut beta) = (vec![0.0; weight.len()], vec![0.0; weight.len()]);
        let at_x = flex::written(size, |out| {
            let gradients = kernel::Gradients { x: out, gamma: &mut gamma, beta: &mut beta };
            let (mean, variance, epsilon) = (&self.mean, &self.variance, self.epsilon as f32);
            kernel::backward(
                flex::numbers(x),
                size[0],
                mean,
                variance,
                epsilon,
                weight,
                flex::numbers(&grad),
                gradients,
            );
        });
        let vector = |values: &[f32]| flex::written([values.len()], |out| out.copy_from_slice(values));
        vec![needed[0].then_some(at_x), needed[1].then(|| vector(&gamma)), needed[2].then(|| vector(&beta))]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    #[test]
    fn training_values_statistics_and_gradients_are_those_of_burn() {
        let device = Device::flex();
        let x = Tensor::<4>::random([3, 4, 6, 5], Distribution::Normal(0.7, 2.0), &device);
        let weight = Tensor::<1>::random([4], Distribution::Uniform(0.5, 1.5), &device);
        let bias = Tensor::<1>::random([4], Distribution::Normal(0.0, 1.0), &device);
        let target = Tensor::<4>::random([3, 4, 6, 5], Distribution::Normal(0.0, 1.0), &device);
        let run = |ours: bool| {
            let leaf = |t: &Tensor<1>| t.clone().autodiff().require_grad();
            let (x, weight, bias) = (x.clone().autodiff().require_grad(), leaf(&weight), leaf(&bias));
            let (y, mean, variance) = if ours {
                batch_norm_train(x.clone(), weight.clone(), bias.clone(), 1e-5)
            } else {
                let r = module::batch_norm_train(x.clone(), weight.clone(), bias.clone(), 1e-5);
                (r.output, r.mean.inner(), r.variance.inner())
            };
            let mut gradients = (y.clone() * Tensor::from_inner(target.clone())).sum().backward();
            [
                y.inner().into_data(),
                mean.into_data(),
                variance.into_data(),
                x.grad_remove(&mut gradients).unwrap().into_data(),
                weight.grad_remove(&mut gradients).unwrap().into_data(),
                bias.grad_remove(&mut gradients).unwrap().into_data(),
            ]
        };
        for (ours, burns) in run(true).into_iter().zip(run(false)) {
            ours.assert_approx_eq::<f32>(&burns, Tolerance::rel_abs(1e-3, 1e-4));
        }
    }

    #[test]
    fn a_frozen_batch_norm_passes_the_scaled_gradient() {
        let device = Device::flex();
        let x = Tensor::<4>::random([2, 3, 2, 2], Distribution::Normal(0.0, 1.0), &device);
        let (scale, shift) = (Tensor::<1>::from_floats([1.0, -2.0, 0.5], &device), Tensor::<1>::zeros([3], &device));
        let leaf = x.clone().autodiff().require_grad();
        let y = scale_shift(leaf.clone(), scale.clone(), shift);
        let mut gradients = y.sum().backward();
        let gradient = leaf.grad_remove(&mut gradients).unwrap();
        let expected = scale.reshape([1, 3, 1, 1]).expand([2, 3, 2, 2]);
        gradient.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::default());
    }
}
