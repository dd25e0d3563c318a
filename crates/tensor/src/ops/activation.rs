//! ReLU and PReLU.

use burn::backend::Flex;
use burn::tensor::{Tensor, activation};
use burn_flex::FlexTensor;
use fireproof_kernels::{activation as kernel, add};

use super::{
    DeviceOp, flex,
    footprint::{self, count},
};

/// `max(0, x)` of any tensor `[N, C, H, W]`; NaN stays NaN.
pub fn relu(x: Tensor<4>) -> Tensor<4> {
    let read = count(&x);
    let out = if flex::on_flex(&x) { flex::apply(x.into_dispatch(), None, None, Relu) } else { activation::relu(x) };
    footprint::note("ReLU", [1, 1], read, [read, 0], out)
}

/// `max(0, a + b)` of two tensors of one shape, in one pass: the end of a residual block.
///
/// # Panics
/// If the shapes differ.
pub fn add_relu(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    assert_eq!(a.dims(), b.dims(), "the two terms of a sum");
    let read = count(&a);
    let out = if flex::on_flex(&a) {
        flex::apply(a.into_dispatch(), Some(b.into_dispatch()), None, AddRelu)
    } else {
        activation::relu(a + b)
    };
    footprint::note("sum with ReLU", [2, 1], 2 * read, [2 * read, 0], out)
}

/// `x` where it is positive, else the channel's slope times `x`: `x [N, C, H, W]`, `slopes [C]`. Slopes may be negative.
pub fn prelu(x: Tensor<4>, slopes: Tensor<1>) -> Tensor<4> {
    let read = count(&x);
    let out = if flex::on_flex(&x) {
        flex::apply(x.into_dispatch(), Some(slopes.into_dispatch()), None, PRelu)
    } else {
        activation::prelu(x, slopes)
    };
    footprint::note("PReLU", [1, 1], 2 * read, [read, 0], out)
}

/// `x` where it is positive, else `slope · x`: `x [N, C, H, W]`.
pub fn leaky_relu(x: Tensor<4>, slope: f32) -> Tensor<4> {
    let slopes = Tensor::full([x.dims()[1]], slope, &x.device().inner());
    if flex::on_flex(&x) { prelu(x, slopes) } else { activation::leaky_relu(x, f64::from(slope)) }
}

#[derive(Debug)]
struct Relu;

impl DeviceOp<Flex> for Relu {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let x = flex::contiguous(&inputs[0]);
        let output = flex::written(flex::dims::<4>(&x), |out| kernel::relu(flex::numbers(&x), out));
        (output.clone(), vec![output])
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], _needed: &[bool]) -> Vec<Option<FlexTensor>> {
        vec![Some(through_relu(grad, &kept[0]))]
    }
}

#[derive(Debug)]
struct AddRelu;

impl DeviceOp<Flex> for AddRelu {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [a, b] = [0, 1].map(|i| flex::contiguous(&inputs[i]));
        let output = flex::written(flex::dims::<4>(&a), |out| add::add_relu(flex::numbers(&a), flex::numbers(&b), out));
        (output.clone(), vec![output])
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = through_relu(grad, &kept[0]);
        needed.iter().map(|&needed| needed.then(|| grad.clone())).collect()
    }
}

/// `grad` where ReLU let `output` through, else zero.
pub(super) fn through_relu(grad: FlexTensor, output: &FlexTensor) -> FlexTensor {
    flex::changed(grad, |grad| kernel::relu_backward(flex::numbers(output), grad))
}

#[derive(Debug)]
struct PRelu;

impl DeviceOp<Flex> for PRelu {
    fn forward(&self, inputs: &[FlexTensor], tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let x = flex::contiguous(&inputs[0]);
        let slopes = flex::contiguous(&inputs[1]);
        let size @ [n, ..]: [usize; 4] = flex::dims(&x);
        let output = flex::written(size, |out| kernel::prelu(flex::numbers(&x), n, flex::numbers(&slopes), out));
        (output, if tracked.contains(&true) { vec![x, slopes] } else { Vec::new() })
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let (x, slopes) = (&kept[0], flex::numbers(&kept[1]));
        let [n, ..]: [usize; 4] = flex::dims(x);
        let mut at_slopes = vec![0.0; slopes.len()];
        let at_x = flex::changed(grad, |grad| {
            kernel::prelu_backward(flex::numbers(x), n, slopes, grad, &mut at_slopes);
        });
        let at_slopes = flex::written([slopes.len()], |out| out.copy_from_slice(&at_slopes));
        vec![needed[0].then_some(at_x), needed[1].then_some(at_slopes)]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    #[test]
    fn values_and_gradients_are_those_of_burn() {
        let device = Device::flex();
        let x = Tensor::<4>::random([2, 3, 5, 7], Distribution::Normal(0.0, 1.0), &device);
        let slopes = Tensor::<1>::from_floats([0.25, -0.7, 1.7], &device);
        let run = |ours: bool| {
            let (x, slopes) = (x.clone().autodiff().require_grad(), slopes.clone().autodiff().require_grad());
            let y = if ours { prelu(x.clone(), slopes.clone()) } else { activation::prelu(x.clone(), slopes.clone()) };
            let y = if ours { relu(y.clone()) + y * 0.5 } else { activation::relu(y.clone()) + y * 0.5 };
            let y = if ours { add_relu(y, x.clone()) } else { activation::relu(y + x.clone()) };
            let mut gradients = (y.clone() * y.clone()).sum().backward();
            [
                y.inner().into_data(),
                x.grad_remove(&mut gradients).unwrap().into_data(),
                slopes.grad_remove(&mut gradients).unwrap().into_data(),
            ]
        };
        for (ours, burns) in run(true).into_iter().zip(run(false)) {
            ours.assert_approx_eq::<f32>(&burns, Tolerance::rel_abs(1e-4, 1e-4));
        }
    }
}
