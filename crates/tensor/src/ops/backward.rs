//! A backward pass that begins with a given gradient.

use burn::backend::Flex;
use burn::tensor::{Gradients, Tensor};
use burn_flex::FlexTensor;

#[cfg(feature = "cube")]
use super::cube;
use super::{DeviceOp, flex};

/// The gradients of `⟨output, cotangent⟩`, both `[N, C, H, W]`, with the plain `cotangent` held constant.
///
/// The cotangent enters the backward pass as it is: there is no product, no sum, and no backward pass of either.
///
/// # Panics
/// If `output` depends on nothing that is tracked.
///
/// ```
/// # use burn::tensor::{Device, Tensor};
/// use fireproof_tensor::ops::backward;
/// let x = Tensor::<4>::ones([1, 1, 1, 2], &Device::flex()).autodiff().require_grad();
/// let cotangent = Tensor::from_floats([[[[1.0, -3.0]]]], &Device::flex());
/// let mut gradients = backward(x.clone() * 2.0, cotangent);
/// assert_eq!(x.grad_remove(&mut gradients).unwrap().into_data().try_to_vec::<f32>().unwrap(), [2.0, -6.0]);
/// ```
pub fn backward(output: Tensor<4>, cotangent: Tensor<4>) -> Gradients {
    if flex::on_flex(&output) && flex::on_flex(&cotangent) && output.dims() == cotangent.dims() {
        let root: Tensor<1> = flex::apply(output.into_dispatch(), Some(cotangent.into_dispatch()), None, Root);
        return root.backward();
    }
    #[cfg(feature = "cube")]
    if cube::on_cube(&output) && cube::on_cube(&cotangent) && output.dims() == cotangent.dims() {
        let root: Tensor<1> = cube::apply(output.into_dispatch(), gpu::Root(cube::primitive(&cotangent)));
        return root.backward();
    }
    (output * Tensor::from_inner(cotangent)).sum().backward()
}

/// A number whose gradient at the first input is the second one. Its value is nobody's business.
#[derive(Debug)]
struct Root;

impl DeviceOp<Flex> for Root {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        (flex::written([1], |number| number.fill(0.0)), vec![inputs[1].clone()])
    }

    fn backward(&self, _one: FlexTensor, kept: &[FlexTensor], _needed: &[bool]) -> Vec<Option<FlexTensor>> {
        vec![Some(kept[0].clone()), None]
    }
}

#[cfg(feature = "cube")]
mod gpu {
    use burn_cubecl::{CubeBackend, tensor::CubeTensor};

    use super::{DeviceOp, cube};

    /// The same; no kernel is launched, and its value is whatever the memory holds.
    #[derive(Debug)]
    pub(super) struct Root(pub(super) CubeTensor);

    impl DeviceOp<CubeBackend> for Root {
        fn forward(&self, inputs: &[CubeTensor], _tracked: &[bool]) -> (CubeTensor, Vec<CubeTensor>) {
            (cube::empty(&inputs[0], [1]), Vec::new())
        }

        fn backward(&self, _one: CubeTensor, _: &[CubeTensor], _: &[bool]) -> Vec<Option<CubeTensor>> {
            vec![Some(self.0.clone())]
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int};

    use super::*;

    #[test]
    fn the_gradient_is_that_of_the_inner_product() {
        let numbers =
            |from: f32| (Tensor::<1, Int>::arange(0..24, &Device::flex()).float() * 0.25 + from).reshape([2, 3, 2, 2]);
        let run = |seeded: bool| {
            let x = numbers(-2.0).autodiff().require_grad();
            let y = x.clone() * x.clone() + x.clone().exp();
            let given = numbers(-3.0);
            let mut gradients =
                if seeded { backward(y, given) } else { (y * Tensor::from_inner(given)).sum().backward() };
            x.grad_remove(&mut gradients).unwrap().into_data()
        };
        assert_eq!(run(true), run(false));
    }
}
