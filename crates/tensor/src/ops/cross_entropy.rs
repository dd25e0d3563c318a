//! Per-pixel cross-entropy over the class axis of logits in `[N, K, H, W]`, with its gradient in closed form.

use std::sync::Arc;

use burn::tensor::{Tensor, activation::log_softmax};
use burn_flex::FlexTensor;
use fireproof_kernels::cross_entropy as kernel;

use super::flex::{self, FlexOp};
use crate::{Targets, VOID};

/// Cross-entropy of every pixel, `[N, H, W]`; void pixels are 0. Differentiable in `logits`.
///
/// With a soft label map the loss is `−Σ_k soft_k · log p_k`. A hard label of a class that the logits do not have
/// counts as a probability of zero in no class: its loss is 0 and it has no gradient.
pub fn cross_entropy(logits: Tensor<4>, targets: &Targets) -> Tensor<3> {
    let [n, k, height, width] = logits.dims();
    let valid = Tensor::from_inner(targets.valid().clone());
    if targets.soft().is_none() && flex::on_flex(&logits) {
        let loss = Loss { labels: host_labels(targets, k) };
        return flex::apply::<3>(logits.into_dispatch(), None, None, loss) * valid;
    }
    let log_p = log_softmax(logits, 1);
    let map = targets.soft().cloned().unwrap_or_else(|| targets.one_hot(k));
    let loss = -(log_p * Tensor::from_inner(map)).sum_dim(1).reshape([n, height, width]);
    loss * valid
}

/// Values and gradient of a weighted cross-entropy, all plain tensors.
#[derive(Clone, Debug)]
pub struct WeightedCrossEntropy {
    /// Unweighted cross-entropy of every pixel, `[N, H, W]`, void = 0.
    pub loss: Tensor<3>,
    /// Gradient of `Σ weight · loss` at the logits, `[N, K, H, W]`.
    pub gradient: Tensor<4>,
}

/// Cross-entropy and the gradient of its weighted sum, without autodiff.
///
/// `weights` `[N, H, W]` are constants (the weight map of an attack), `None` is one everywhere. The gradient is
/// `weight · (Σ_k t_k · softmax(z) − t)` with the label map `t`: one softmax serves both.
pub fn weighted_cross_entropy(
    logits: &Tensor<4>,
    targets: &Targets,
    weights: Option<&Tensor<3>>,
) -> WeightedCrossEntropy {
    let valid = targets.valid().clone();
    if targets.soft().is_none() && flex::on_flex(logits) && !logits.is_autodiff() {
        let labels = host_labels(targets, logits.dims()[1]);
        let loss: Tensor<3> = flex::apply(logits.clone().into_dispatch(), None, None, Loss { labels: labels.clone() });
        let scale = weights.map_or(valid.clone(), |w| w.clone() * valid.clone());
        let gradient = Gradient { labels };
        let gradient = flex::apply(logits.clone().into_dispatch(), Some(scale.into_dispatch()), None, gradient);
        return WeightedCrossEntropy { loss: loss * valid, gradient };
    }
    composition(logits, targets, weights)
}

/// The same from Burn's primitives.
fn composition(logits: &Tensor<4>, targets: &Targets, weights: Option<&Tensor<3>>) -> WeightedCrossEntropy {
    let [n, k, height, width] = logits.dims();
    let log_p = log_softmax(logits.clone(), 1);
    let map = targets.soft().cloned().unwrap_or_else(|| targets.one_hot(k));
    let valid = targets.valid().clone();
    let loss = -(log_p.clone() * map.clone()).sum_dim(1).reshape([n, height, width]) * valid.clone();
    let scale = weights.map_or(valid.clone(), |w| w.clone() * valid).reshape([n, 1, height, width]);
    let mass = map.clone().sum_dim(1);
    let gradient = (log_p.exp() * mass - map) * scale;
    WeightedCrossEntropy { loss, gradient }
}

/// Labels on the host; a class that the logits do not have is void, as in the composition.
fn host_labels(targets: &Targets, classes: usize) -> Arc<Vec<u8>> {
    let labels = targets.labels().to_data().convert::<i32>();
    let labels = labels.as_slice::<i32>().expect("an i32 tensor");
    Arc::new(labels.iter().map(|&l| if (0..classes as i32).contains(&l) { l as u8 } else { VOID }).collect())
}

/// The loss of every pixel, `[N, H, W]`, of logits `[N, K, H, W]`.
#[derive(Debug)]
struct Loss {
    labels: Arc<Vec<u8>>,
}

impl FlexOp for Loss {
    fn forward(&self, inputs: &[FlexTensor], tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let logits = flex::contiguous(&inputs[0]);
        let [n, k, height, width] = flex::dims(&logits);
        let mut correct = vec![0.0; n * height * width];
        let loss = flex::written([n, height, width], |loss| {
            kernel::forward(flex::numbers(&logits), k, &self.labels, n, loss, &mut correct);
        });
        (loss, if tracked[0] { vec![logits] } else { Vec::new() })
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], _needed: &[bool]) -> Vec<Option<FlexTensor>> {
        vec![Some(gradient(&kept[0], &self.labels, &grad))]
    }
}

/// The gradient of the losses' sum weighted by a second input `[N, H, W]`.
#[derive(Debug)]
struct Gradient {
    labels: Arc<Vec<u8>>,
}

impl FlexOp for Gradient {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        (gradient(&flex::contiguous(&inputs[0]), &self.labels, &inputs[1]), Vec::new())
    }

    fn backward(&self, _: FlexTensor, _: &[FlexTensor], _: &[bool]) -> Vec<Option<FlexTensor>> {
        unreachable!("the closed form is for plain logits")
    }
}

fn gradient(logits: &FlexTensor, labels: &[u8], weights: &FlexTensor) -> FlexTensor {
    let weights = flex::contiguous(weights);
    let [n, k, height, width] = flex::dims(logits);
    flex::written([n, k, height, width], |out| {
        kernel::backward(flex::numbers(logits), k, labels, n, flex::numbers(&weights), out);
    })
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
            assert!(fused.loss.clone().all_close(values, Some(1e-5), Some(1e-6)));
        }
        let composed = composition(&plain, &targets, Some(&weights));
        assert!(fused.gradient.clone().all_close(composed.gradient, Some(1e-5), Some(1e-6)));
        assert!(fused.loss.clone().all_close(composed.loss, Some(1e-5), Some(1e-6)));
        let loss: Vec<f32> = fused.loss.into_data().try_to_vec().unwrap();
        assert_eq!((loss[3], loss[5]), (0.0, 0.0), "void pixels have no loss");
    }
}
