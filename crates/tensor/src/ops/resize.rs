//! Bilinear resizing, differentiable on every backend.

use burn::tensor::{Device, Tensor, TensorData};
use burn_flex::FlexTensor;
use fireproof_kernels::resize as kernel;

use super::flex::{self, FlexOp};

/// Resizes `[N, C, H, W]` to `[N, C, height, width]` with PyTorch's bilinear rule.
///
/// With `align_corners` the corner pixels' centres coincide; without it the images' edges do. On GPUs resizing is a
/// product with one constant matrix an axis, so the backward is their transpose; Burn's own bilinear has none there.
///
/// # Panics
/// If a size is zero.
pub fn resize_bilinear(x: Tensor<4>, [height, width]: [usize; 2], align_corners: bool) -> Tensor<4> {
    let [_, _, h, w] = x.dims();
    if [h, w] == [height, width] {
        return x;
    }
    if flex::on_flex(&x) {
        return flex::apply(x.into_dispatch(), None, None, Bilinear { size: [height, width], align_corners });
    }
    product(x, [height, width], align_corners)
}

fn product(x: Tensor<4>, [height, width]: [usize; 2], align_corners: bool) -> Tensor<4> {
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
    size: [usize; 2],
    align_corners: bool,
}

impl FlexOp for Bilinear {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let x = flex::contiguous(&inputs[0]);
        let [n, c, h, w] = flex::dims(&x);
        let output = flex::written([n, c, self.size[0], self.size[1]], |out| {
            kernel::bilinear(flex::numbers(&x), n * c, [h, w], self.size, self.align_corners, out);
        });
        (output, vec![flex::shape_of(&x)])
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], _needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = flex::contiguous(&grad);
        let [n, c, h, w] = flex::dims(&kept[0]);
        let at_x = flex::written([n, c, h, w], |out| {
            kernel::bilinear_backward(flex::numbers(&grad), n * c, [h, w], self.size, self.align_corners, out);
        });
        vec![Some(at_x)]
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
    fn the_kernel_and_the_product_agree_in_value_and_gradient() {
        use burn::tensor::{Distribution, Tolerance};
        for (from, to, align) in [([5, 7], [9, 20], false), ([5, 7], [9, 20], true), ([9, 8], [4, 3], false)] {
            let x = Tensor::<4>::random([2, 3, from[0], from[1]], Distribution::Normal(0.0, 1.0), &Device::flex());
            let run = |kernel: bool| {
                let x = x.clone().autodiff().require_grad();
                let y = if kernel { resize_bilinear(x.clone(), to, align) } else { product(x.clone(), to, align) };
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
