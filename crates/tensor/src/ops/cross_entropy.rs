//! Per-pixel cross-entropy over the class axis of logits in `[N, K, H, W]`, with its gradient in closed form.

use burn::tensor::{Tensor, activation::log_softmax};

use crate::Targets;

/// Cross-entropy of every pixel, `[N, H, W]`; void pixels are 0. Differentiable in `logits`.
///
/// With a soft label map the loss is `−Σ_k soft_k · log p_k`. A hard label of a class that the logits do not have
/// counts as a probability of zero in no class: its loss is 0 and it has no gradient.
pub fn cross_entropy(logits: Tensor<4>, targets: &Targets) -> Tensor<3> {
    let [n, k, height, width] = logits.dims();
    let log_p = log_softmax(logits, 1);
    let map = targets.soft().cloned().unwrap_or_else(|| targets.one_hot(k));
    let loss = -(log_p * Tensor::from_inner(map)).sum_dim(1).reshape([n, height, width]);
    loss * Tensor::from_inner(targets.valid().clone())
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

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::VOID;

    #[test]
    fn the_closed_form_gradient_is_the_autodiff_gradient() {
        let device = Device::flex();
        let values: Vec<f32> = (0..24).map(|i| ((i * 7919) % 13) as f32 * 0.5 - 3.0).collect();
        let logits = Tensor::<4>::from_data(TensorData::new(values, [2, 3, 2, 2]), &device);
        let targets = Targets::from_labels(&[0, 1, 2, VOID, 1, VOID, 0, 2], [2, 2, 2], &device).unwrap();
        let weights: Vec<f32> = (0..8).map(|i| 0.25 * i as f32).collect();
        let weights = Tensor::<3>::from_data(TensorData::new(weights, [2, 2, 2]), &device);

        let fused = weighted_cross_entropy(&logits, &targets, Some(&weights));
        let leaf = logits.autodiff().require_grad();
        let loss = cross_entropy(leaf.clone(), &targets);
        let values = loss.clone().inner();
        let mut gradients = (loss * Tensor::from_inner(weights)).sum().backward();
        let reference = leaf.grad_remove(&mut gradients).unwrap();
        assert!(fused.gradient.all_close(reference, Some(1e-5), Some(1e-6)));
        assert!(fused.loss.clone().all_close(values, Some(1e-5), Some(1e-6)));
        let loss: Vec<f32> = fused.loss.into_data().try_to_vec().unwrap();
        assert_eq!((loss[3], loss[5]), (0.0, 0.0), "void pixels have no loss");
    }
}
