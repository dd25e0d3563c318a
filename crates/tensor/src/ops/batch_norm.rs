//! Batch normalisation in training, and its frozen form, a scale and a shift a channel.

use burn::backend::Flex;
use burn::tensor::{Tensor, module};
use burn_flex::FlexTensor;
use fireproof_kernels::batch_norm as kernel;

use super::{
    Activation, DeviceOp,
    activation::through_relu,
    flex,
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
    batch_norm_train_fused(x, weight, bias, epsilon, None, Activation::None)
}

/// [`batch_norm_train`] whose result is `activation(normalised + residual)`, in one pass where the device has one.
///
/// # Panics
/// If `residual` has another shape than `x`.
pub fn batch_norm_train_fused(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
    residual: Option<Tensor<4>>,
    activation: Activation,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    assert!(residual.as_ref().is_none_or(|residual| residual.dims() == x.dims()), "a residual of the input's shape");
    if !flex::on_flex(&x) {
        let result = module::batch_norm_train(x, weight, bias, epsilon);
        let output = match residual {
            Some(residual) => result.output + residual,
            None => result.output,
        };
        return (activation.apply(output), result.mean.inner(), result.variance.inner());
    }
    let statistics: Tensor<2> = flex::apply(x.clone().inner().into_dispatch(), None, None, Statistics);
    let row = |i: usize| statistics.clone().narrow(0, i, 1).squeeze_dim::<1>(0);
    let (mean, variance) = (row(0), row(1));
    let [mean_values, variance_values] = [&mean, &variance].map(|x| host::floats(x.clone()));
    let relu = activation == Activation::Relu;
    let norm = Normalise { mean: mean_values, variance: variance_values, epsilon, relu };
    let mut inputs = vec![x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()];
    inputs.extend(residual.map(Tensor::into_dispatch));
    (flex::apply_all(inputs, norm), mean, variance)
}

#[derive(Debug)]
struct ScaleShift;

impl DeviceOp<Flex> for ScaleShift {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, scale, shift] = [0, 1, 2].map(|i| flex::contiguous(&inputs[i]));
        let size = flex::dims::<4>(&x);
        let output = flex::written(size, |out| {
            kernel::scale_shift(
                flex::numbers(&x),
                size[0],
                flex::numbers(&scale),
                flex::numbers(&shift),
                None,
                false,
                out,
            );
        });
        (output, vec![scale])
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], _needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = flex::contiguous(&grad);
        let scale = flex::numbers(&kept[0]);
        let size = flex::dims::<4>(&grad);
        let at_x = flex::written(size, |out| {
            kernel::scale_shift(flex::numbers(&grad), size[0], scale, &vec![0.0; scale.len()], None, false, out);
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

/// Normalisation with the statistics of `x` itself, through which the gradient goes, and what follows it.
#[derive(Debug)]
struct Normalise {
    mean: Vec<f32>,
    variance: Vec<f32>,
    epsilon: f64,
    relu: bool,
}

impl Normalise {
    fn with<'a>(&'a self, weight: &'a FlexTensor, bias: &'a FlexTensor) -> kernel::Normalisation<'a> {
        let Self { mean, variance, epsilon, .. } = self;
        let [gamma, beta] = [weight, bias].map(flex::numbers);
        kernel::Normalisation { mean, variance, epsilon: *epsilon, gamma, beta }
    }
}

impl DeviceOp<Flex> for Normalise {
    fn forward(&self, inputs: &[FlexTensor], tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, weight, bias] = [0, 1, 2].map(|i| flex::contiguous(&inputs[i]));
        let residual = inputs.get(3).map(flex::contiguous);
        let (scale, shift) = self.with(&weight, &bias).factors();
        let size = flex::dims::<4>(&x);
        let output = flex::written(size, |out| {
            let residual = residual.as_ref().map(flex::numbers);
            kernel::scale_shift(flex::numbers(&x), size[0], &scale, &shift, residual, self.relu, out);
        });
        if !tracked.contains(&true) {
            return (output, Vec::new());
        }
        let mut kept = vec![x, weight, bias];
        // Else the sign of the result follows from `x`.
        kept.extend((self.relu && residual.is_some()).then(|| output.clone()));
        (output, kept)
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = match kept.get(3) {
            Some(output) => through_relu(grad, output),
            None => grad,
        };
        let grad = flex::contiguous(&grad);
        let (x, norm) = (&kept[0], self.with(&kept[1], &kept[2]));
        let size = flex::dims::<4>(x);
        let (mut gamma, mut beta) = (vec![0.0; norm.gamma.len()], vec![0.0; norm.gamma.len()]);
        let at_x = flex::written(size, |out| {
            let gradients = kernel::Gradients { x: out, gamma: &mut gamma, beta: &mut beta };
            let relu = self.relu && kept.len() == 3;
            kernel::backward(flex::numbers(x), size[0], norm, relu, flex::numbers(&grad), gradients);
        });
        let vector = |values: &[f32]| flex::written([values.len()], |out| out.copy_from_slice(values));
        let at = [Some(at_x), needed[1].then(|| vector(&gamma)), needed[2].then(|| vector(&beta)), Some(grad)];
        at.into_iter().zip(needed).map(|(gradient, &needed)| gradient.filter(|_| needed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::super::{add_relu, relu};
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
    fn what_follows_in_the_same_pass_is_what_follows_in_its_own() {
        let device = Device::flex();
        let random = || Tensor::<4>::random([3, 4, 6, 5], Distribution::Normal(0.3, 2.0), &device);
        let (x, residual, target) = (random(), random(), random());
        let weight = Tensor::<1>::random([4], Distribution::Uniform(-1.5, 1.5), &device);
        let bias = Tensor::<1>::random([4], Distribution::Normal(0.0, 1.0), &device);
        let run = |fused: bool, with_residual: bool| {
            let leaf = |t: &Tensor<1>| t.clone().autodiff().require_grad();
            let (weight, bias) = (leaf(&weight), leaf(&bias));
            let (x, r) = (x.clone().autodiff().require_grad(), residual.clone().autodiff().require_grad());
            let residual = with_residual.then(|| r.clone());
            let (norm_weight, norm_bias) = (weight.clone(), bias.clone());
            let y = if fused {
                batch_norm_train_fused(x.clone(), norm_weight, norm_bias, 1e-5, residual, Activation::Relu).0
            } else {
                let y = batch_norm_train(x.clone(), norm_weight, norm_bias, 1e-5).0;
                residual.map_or_else(|| relu(y.clone()), |r| add_relu(y.clone(), r))
            };
            let mut gradients = (y.clone() * Tensor::from_inner(target.clone())).sum().backward();
            let mut all = vec![y.inner().into_data(), x.grad_remove(&mut gradients).unwrap().into_data()];
            all.extend([weight, bias].map(|p| p.grad_remove(&mut gradients).unwrap().into_data()));
            all.extend(r.grad_remove(&mut gradients).map(Tensor::into_data));
            all
        };
        for with_residual in [false, true] {
            let fused = run(true, with_residual);
            assert_eq!(fused.len(), if with_residual { 5 } else { 4 });
            assert_eq!(fused, run(false, with_residual));
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
