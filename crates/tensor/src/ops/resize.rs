//! Bilinear resizing, differentiable on every backend.

use burn::backend::Flex;
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use burn_flex::FlexTensor;
use fireproof_kernels::resize as kernel;

#[cfg(feature = "cube")]
use super::cube;
use super::{
    DeviceOp, flex,
    footprint::{self, count},
};

/// Resizes `[N, C, H, W]` to `[N, C, height, width]` with PyTorch's bilinear rule.
///
/// With `align_corners` the corner pixels' centres coincide; without it the images' edges do. Burn's own bilinear has no
/// backward on GPUs, hence the kernel there.
///
/// # Panics
/// If a size is zero.
pub fn resize_bilinear(x: Tensor<4>, [height, width]: [usize; 2], align_corners: bool) -> Tensor<4> {
    let [_, _, h, w] = x.dims();
    if [h, w] == [height, width] {
        return x;
    }
    if x.dtype() != DType::F32 {
        // Weights of a quarter and an eighth are exact in half precision, others are not.
        let dtype: FloatDType = x.dtype().into();
        return resize_bilinear(x.cast(FloatDType::F32), [height, width], align_corners).cast(dtype);
    }
    let (op, read) = (Bilinear { from: [h, w], to: [height, width], align_corners }, count(&x));
    let out = if flex::on_flex(&x) { flex::apply(x.into_dispatch(), None, None, op) } else { elsewhere(x, op) };
    let operations = 8 * count(&out);
    footprint::note("bilinear resize", [1, 1], operations, [read, 0], out)
}

fn elsewhere(x: Tensor<4>, op: Bilinear) -> Tensor<4> {
    #[cfg(feature = "cube")]
    if cube::on_cube(&x) {
        assert!(
            op.from.iter().chain(&op.to).all(|&side| side > 0),
            "cannot resize {:?} pixels to {:?}",
            op.from,
            op.to
        );
        return cube::apply(x.into_dispatch(), op);
    }
    composition(x, op.to, op.align_corners)
}

/// The same as a product with one constant matrix an axis.
pub(crate) fn composition(x: Tensor<4>, [height, width]: [usize; 2], align_corners: bool) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let device = x.device().inner();
    let columns = matrix(w, width, align_corners, &device).transpose();
    let rows = matrix(h, height, align_corners, &device);
    let x = x.reshape([n * c * h, w]).matmul(columns).reshape([n * c, h, width]);
    // [height, h] × [n·c, h, width], broadcast over the images and channels.
    rows.unsqueeze::<3>().matmul(x).reshape([n, c, height, width])
}

#[derive(Debug)]
struct Bilinear {
    from: [usize; 2],
    to: [usize; 2],
    align_corners: bool,
}

impl DeviceOp<Flex> for Bilinear {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let x = flex::contiguous(&inputs[0]);
        let [n, c, ..] = flex::dims::<4>(&x);
        let output = flex::written([n, c, self.to[0], self.to[1]], |out| {
            kernel::bilinear(flex::numbers(&x), n * c, self.from, self.to, self.align_corners, out);
        });
        (output, Vec::new())
    }

    fn backward(&self, grad: FlexTensor, _kept: &[FlexTensor], _needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = flex::contiguous(&grad);
        let [n, c, ..] = flex::dims::<4>(&grad);
        let at_x = flex::written([n, c, self.from[0], self.from[1]], |out| {
            kernel::bilinear_backward(flex::numbers(&grad), n * c, self.from, self.to, self.align_corners, out);
        });
        vec![Some(at_x)]
    }
}

#[cfg(feature = "cube")]
mod gpu {
    use burn_cubecl::{CubeBackend, tensor::CubeTensor};

    use super::{super::cube::resize as kernel, Bilinear, DeviceOp, cube};

    impl Bilinear {
        /// Source pixels from one output pixel to the next on an axis, as [`source`](super::source) has them.
        fn scale(&self, axis: usize) -> f32 {
            let (from, to) = (self.from[axis], self.to[axis]);
            match (self.align_corners, to) {
                (false, _) => from as f32 / to as f32,
                (true, 1) => 0.0,
                (true, _) => (from - 1) as f32 / (to - 1) as f32,
            }
        }

        fn offset(&self) -> f32 {
            if self.align_corners { 0.0 } else { 0.5 }
        }
    }

    impl DeviceOp<CubeBackend> for Bilinear {
        fn forward(&self, inputs: &[CubeTensor], _tracked: &[bool]) -> (CubeTensor, Vec<CubeTensor>) {
            let x = inputs[0].clone();
            let [n, c, ..] = cube::dims::<4>(&x);
            let shape = [n, c, self.to[0], self.to[1]];
            let out = cube::empty(&x, shape);
            let (count, dim) = cube::units(&x, shape.iter().product());
            let (client, into) = (x.client.clone(), out.clone().into_tensor_arg());
            let x = x.into_tensor_arg();
            kernel::bilinear::launch(&client, count, dim, x, into, self.scale(0), self.scale(1), self.offset());
            (out, Vec::new())
        }

        fn backward(&self, grad: CubeTensor, _: &[CubeTensor], _: &[bool]) -> Vec<Option<CubeTensor>> {
            let [n, c, ..] = cube::dims::<4>(&grad);
            let shape = [n, c, self.from[0], self.from[1]];
            let out = cube::empty(&grad, shape);
            let (count, dim) = cube::units(&grad, shape.iter().product());
            let (client, into) = (grad.client.clone(), out.clone().into_tensor_arg());
            let grad = grad.into_tensor_arg();
            kernel::bilinear_backward::launch(
                &client,
                count,
                dim,
                grad,
                into,
                self.scale(0),
                self.scale(1),
                self.offset(),
            );
            vec![Some(out)]
        }
    }
}

/// The interpolation weights of one axis, `[to, from]`.
fn matrix(from: usize, to: usize, align_corners: bool, device: &Device) -> Tensor<2> {
    assert!(from > 0 && to > 0, "cannot resize an axis from {from} to {to} pixels");
    let mut weights = vec![0.0f32; to * from];
    for (i, row) in weights.chunks_mut(from).enumerate() {
        let (low, high, fraction) = source(i, from, to, align_corners);
        row[low] += 1.0 - fraction;
        row[high] += fraction;
    }
    Tensor::from_data(TensorData::new(weights, [to, from]), device)
}

/// The two source pixels of output pixel `i`, and the weight of the second.
fn source(i: usize, from: usize, to: usize, align_corners: bool) -> (usize, usize, f32) {
    let position = if align_corners {
        if to > 1 { i as f32 * ((from - 1) as f32 / (to - 1) as f32) } else { 0.0 }
    } else {
        ((i as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0)
    };
    let low = (position as usize).min(from - 1);
    (low, (low + 1).min(from - 1), position - low as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(values: &[f32], to: usize, align_corners: bool) -> Vec<f32> {
        let x = Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 1, 1, values.len()]), &Device::flex());
        resize_bilinear(x, [1, to], align_corners).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn agrees_with_pytorch_on_a_row() {
        // torch.nn.functional.interpolate(torch.tensor([[[[0., 1., 4.]]]]), size=(1, 6), mode="bilinear")
        let half_pixel = [0.0, 0.25, 0.75, 1.75, 3.25, 4.0];
        let corners = [0.0, 0.4, 0.8, 1.6, 2.8, 4.0];
        for (align, expected) in [(false, half_pixel), (true, corners)] {
            for (a, b) in resized(&[0.0, 1.0, 4.0], 6, align).iter().zip(expected) {
                assert!((a - b).abs() < 1e-6, "{a} is not {b} (align_corners {align})");
            }
        }
    }

    #[test]
    fn the_kernel_and_the_composition_agree_in_value_and_gradient() {
        use burn::tensor::{Distribution, Tolerance};
        for (from, to, align) in [([5, 7], [9, 20], false), ([5, 7], [9, 20], true), ([9, 8], [4, 3], false)] {
            let x = Tensor::<4>::random([2, 3, from[0], from[1]], Distribution::Normal(0.0, 1.0), &Device::flex());
            let run = |kernel: bool| {
                let x = x.clone().autodiff().require_grad();
                let y = if kernel { resize_bilinear(x.clone(), to, align) } else { composition(x.clone(), to, align) };
                let mut gradients = (y.clone() * y.clone()).sum().backward();
                [y.inner().into_data(), x.grad_remove(&mut gradients).unwrap().into_data()]
            };
            for (ours, reference) in run(true).into_iter().zip(run(false)) {
                ours.assert_approx_eq::<f32>(&reference, Tolerance::rel_abs(1e-4, 1e-5));
            }
        }
    }

    #[test]
    fn the_gradient_is_the_transpose() {
        let device = Device::flex();
        let x = Tensor::<4>::zeros([1, 1, 2, 3], &device).autodiff().require_grad();
        let y = resize_bilinear(x.clone(), [4, 6], false);
        let mut gradients = y.sum().backward();
        let total: f32 = x.grad_remove(&mut gradients).unwrap().sum().into_scalar();
        // The weights of every output pixel sum to one.
        assert!((total - 24.0).abs() < 1e-4);
    }
}
