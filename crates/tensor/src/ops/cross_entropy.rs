//! Per-pixel cross-entropy over the class axis of logits in `[N, K, H, W]`, with its gradient in closed form.

use burn::backend::Flex;
use burn::tensor::{Tensor, activation::log_softmax};
use burn_flex::FlexTensor;
use fireproof_kernels::cross_entropy as kernel;

#[cfg(feature = "cube")]
use super::cube;
use super::{DeviceOp, flex, image_sums};
use crate::Targets;

/// Cross-entropy of every pixel, `[N, H, W]`; void pixels are 0. Differentiable in `logits`.
///
/// With a soft label map the loss is `−Σ_k soft_k · log p_k`. A hard label of a class that the logits do not have
/// counts as a probability of zero in no class: its loss is 0 and it has no gradient.
pub fn cross_entropy(logits: Tensor<4>, targets: &Targets) -> Tensor<3> {
    if targets.soft().is_none() && flex::on_flex(&logits) {
        return flex::apply(logits.into_dispatch(), None, None, Loss { labels: flex::labels(targets) });
    }
    #[cfg(feature = "cube")]
    if targets.soft().is_none() && cube::on_cube(&logits) {
        return cube::apply(logits.into_dispatch(), gpu::Loss::new(targets));
    }
    let [n, k, height, width] = logits.dims();
    let log_p = log_softmax(logits, 1);
    let map = targets.soft().cloned().unwrap_or_else(|| targets.one_hot(k));
    let loss = -(log_p * Tensor::from_inner(map)).sum_dim(1).reshape([n, height, width]);
    loss * Tensor::from_inner(targets.valid().clone())
}

/// Values and gradient of a weighted cross-entropy, all plain tensors.
#[derive(Clone, Debug)]
pub struct WeightedCrossEntropy {
    /// `Σ weight · cross-entropy` over the valid pixels of each image, `[N]`.
    pub loss: Tensor<1>,
    /// `Σ cross-entropy` over the valid pixels of each image, `[N]`.
    pub plain: Tensor<1>,
    /// Gradient of `Σ loss` at the logits, `[N, K, H, W]`.
    pub gradient: Tensor<4>,
}

/// Weighted cross-entropy of each image and the gradient at the logits, without autodiff.
///
/// `weights` `[N, H, W]` are constants (the weight map of an attack), `None` is one everywhere. The gradient is
/// `weight · (Σ_k t_k · softmax(z) − t)` with the label map `t`. On Flex and on GPUs everything is one pass over the logits.
pub fn weighted_cross_entropy(
    logits: &Tensor<4>,
    targets: &Targets,
    weights: Option<&Tensor<3>>,
) -> WeightedCrossEntropy {
    if targets.soft().is_some() || logits.is_autodiff() {
        return composition(logits, targets, weights);
    }
    #[cfg(feature = "cube")]
    if cube::on_cube(logits) {
        let map = weights.unwrap_or_else(|| targets.valid());
        let (pixels, gradient) = gpu::Loss::new(targets).with_gradient(cube::primitive(logits), cube::primitive(map));
        let pixels: Tensor<3> = cube::tensor(pixels);
        let plain = image_sums(pixels.clone());
        let loss = weights.map_or_else(|| plain.clone(), |w| image_sums(pixels * w.clone()));
        return WeightedCrossEntropy { loss, plain, gradient: cube::tensor(gradient) };
    }
    if !flex::on_flex(logits) {
        return composition(logits, targets, weights);
    }
    let [n, k, height, width] = logits.dims();
    let logits = flex::contiguous(&flex::plain(logits.clone()));
    let labels = flex::labels(targets);
    let map = weights.map(|weights| flex::contiguous(&flex::plain(weights.clone())));
    let (mut loss, mut plain) = (vec![0.0; n], vec![0.0; n]);
    let gradient = flex::written([n, k, height, width], |out| {
        let (logits, labels) = (flex::numbers(&logits), flex::integers(&labels));
        kernel::evaluate(logits, k, labels, n, map.as_ref().map(flex::numbers), &mut loss, &mut plain, out);
    });
    let images = |values: Vec<f32>| flex::tensor(flex::written([n], |out| out.copy_from_slice(&values)));
    WeightedCrossEntropy { loss: images(loss), plain: images(plain), gradient: flex::tensor(gradient) }
}

/// The same from Burn's primitives.
pub(crate) fn composition(logits: &Tensor<4>, targets: &Targets, weights: Option<&Tensor<3>>) -> WeightedCrossEntropy {
    let [n, k, height, width] = logits.dims();
    let log_p = log_softmax(logits.clone(), 1);
    let map = targets.soft().cloned().unwrap_or_else(|| targets.one_hot(k));
    let valid = targets.valid().clone();
    let pixels = -(log_p.clone() * map.clone()).sum_dim(1).reshape([n, height, width]) * valid.clone();
    let plain = image_sums(pixels.clone());
    let loss = weights.map_or_else(|| plain.clone(), |w| image_sums(pixels * w.clone()));
    let scale = weights.map_or(valid.clone(), |w| w.clone() * valid).reshape([n, 1, height, width]);
    let mass = map.clone().sum_dim(1);
    let gradient = (log_p.exp() * mass - map) * scale;
    WeightedCrossEntropy { loss, plain, gradient }
}

/// The loss of every pixel, `[N, H, W]`, of logits `[N, K, H, W]`.
#[derive(Debug)]
struct Loss {
    labels: FlexTensor,
}

impl DeviceOp<Flex> for Loss {
    fn forward(&self, inputs: &[FlexTensor], tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let logits = flex::contiguous(&inputs[0]);
        let [n, k, height, width] = flex::dims(&logits);
        let loss = flex::written([n, height, width], |loss| {
            kernel::forward(flex::numbers(&logits), k, flex::integers(&self.labels), n, loss);
        });
        (loss, if tracked[0] { vec![logits] } else { Vec::new() })
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], _needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let (logits, weights) = (&kept[0], flex::contiguous(&grad));
        let [n, k, height, width] = flex::dims(logits);
        let (labels, weights) = (flex::integers(&self.labels), flex::numbers(&weights));
        let gradient = flex::written([n, k, height, width], |out| {
            kernel::backward(flex::numbers(logits), k, labels, n, weights, out);
        });
        vec![Some(gradient)]
    }
}

#[cfg(feature = "cube")]
mod gpu {
    use burn_cubecl::{CubeBackend, tensor::CubeTensor};

    use super::{super::cube::cross_entropy as kernel, DeviceOp, Targets, cube};

    /// The loss of every pixel, as on Flex.
    #[derive(Debug)]
    pub(super) struct Loss {
        labels: CubeTensor,
    }

    impl Loss {
        pub(super) fn new(targets: &Targets) -> Self {
            Self { labels: cube::integers(targets.labels()) }
        }

        /// The losses, and the gradient of their sum weighted by `weights`.
        pub(super) fn with_gradient(&self, logits: CubeTensor, weights: CubeTensor) -> (CubeTensor, CubeTensor) {
            let [n, k, height, width] = cube::dims(&logits);
            let loss = cube::empty(&logits, [n, height, width]);
            let gradient = cube::empty(&logits, [n, k, height, width]);
            let (count, dim) = cube::units(&logits, n * height * width);
            let client = logits.client.clone();
            let [logits, labels, weights, values, out] =
                [logits, self.labels.clone(), weights, loss.clone(), gradient.clone()].map(CubeTensor::into_tensor_arg);
            kernel::loss_and_gradient::launch(&client, count, dim, logits, labels, weights, values, out);
            (loss, gradient)
        }
    }

    impl DeviceOp<CubeBackend> for Loss {
        fn forward(&self, inputs: &[CubeTensor], tracked: &[bool]) -> (CubeTensor, Vec<CubeTensor>) {
            let logits = &inputs[0];
            let [n, _, height, width] = cube::dims(logits);
            let loss = cube::empty(logits, [n, height, width]);
            let (count, dim) = cube::units(logits, n * height * width);
            let [values, labels, out] =
                [logits.clone(), self.labels.clone(), loss.clone()].map(CubeTensor::into_tensor_arg);
            kernel::loss::launch(&logits.client, count, dim, values, labels, out);
            (loss, if tracked[0] { vec![logits.clone()] } else { Vec::new() })
        }

        fn backward(&self, grad: CubeTensor, kept: &[CubeTensor], _needed: &[bool]) -> Vec<Option<CubeTensor>> {
            vec![Some(self.with_gradient(kept[0].clone(), grad).1)]
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::VOID;

    #[test]
    fn the_closed_form_gradient_is_the_autodiff_gradient() {
        let device = Device::flex();
        let values: Vec<f32> = (0..24).map(|i| ((i * 7919) % 13) as f32 * 0.5 - 3.0).collect();
        let plain = Tensor::<4>::from_data(TensorData::new(values, [2, 3, 2, 2]), &device);
        let targets = Targets::from_labels(&[0, 1, 2, VOID, 1, VOID, 0, 2], [2, 2, 2], &device).unwrap();
        let weights: Vec<f32> = (0..8).map(|i| 0.25 * i as f32).collect();
        let weights = Tensor::<3>::from_data(TensorData::new(weights, [2, 2, 2]), &device);

        let fused = weighted_cross_entropy(&plain, &targets, Some(&weights));
        // Hard labels take the kernel, the same labels as a soft map take Burn's primitives.
        for targets in [targets.clone(), targets.clone().with_soft(targets.one_hot(3))] {
            let leaf = plain.clone().autodiff().require_grad();
            let loss = cross_entropy(leaf.clone(), &targets);
            let values = loss.clone().inner();
            let mut gradients = (loss * Tensor::from_inner(weights.clone())).sum().backward();
            let reference = leaf.grad_remove(&mut gradients).unwrap();
            assert!(fused.gradient.clone().all_close(reference, Some(1e-5), Some(1e-6)));
            let sums = image_sums(values.clone() * weights.clone());
            assert!(fused.loss.clone().all_close(sums, Some(1e-5), Some(1e-6)));
            assert!(fused.plain.clone().all_close(image_sums(values), Some(1e-5), Some(1e-6)));
        }
        let composed = composition(&plain, &targets, Some(&weights));
        assert!(fused.gradient.clone().all_close(composed.gradient, Some(1e-5), Some(1e-6)));
        assert!(fused.loss.all_close(composed.loss, Some(1e-5), Some(1e-6)));
        assert!(fused.plain.all_close(composed.plain, Some(1e-5), Some(1e-6)));
        let loss: Vec<f32> = cross_entropy(plain, &targets).into_data().try_to_vec().unwrap();
        assert_eq!((loss[3], loss[5]), (0.0, 0.0), "void pixels have no loss");
    }
}
