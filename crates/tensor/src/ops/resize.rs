//! Bilinear resizing, differentiable on every backend.

use burn::tensor::{Device, Tensor, TensorData};

/// Resizes `[N, C, H, W]` to `[N, C, height, width]` with PyTorch's bilinear rule.
///
/// With `align_corners` the corner pixels' centres coincide; without it the images' edges do. Resizing is a product
/// with one constant matrix an axis, so the backward is their transpose; Burn's own bilinear has none on GPUs.
///
/// # Panics
/// If a size is zero.
pub fn resize_bilinear(x: Tensor<4>, [height, width]: [usize; 2], align_corners: bool) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    if [h, w] == [height, width] {
        return x;
    }
    let device = x.device().inner();
    let columns = matrix(w, width, align_corners, &device).transpose();
    let rows = matrix(h, height, align_corners, &device);
    let x = x.reshape([n * c * h, w]).matmul(constant(columns)).reshape([n * c, h, width]);
    // [height, h] × [n·c, h, width], broadcast over the images and channels.
    constant(rows).unsqueeze::<3>().matmul(x).reshape([n, c, height, width])
}

/// A plain tensor that an autodiff graph treats as constant.
fn constant<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x
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
