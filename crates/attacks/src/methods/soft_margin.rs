//! Soft margin: the label's logit against the smooth maximum of all others.
//!
//! The loss that IMA's classification attacks with: Ma, Liang. *Increasing-Margin Adversarial (IMA) training to Improve
//! Adversarial Robustness of Neural Networks*, Computer Methods and Programs in Biomedicine 2023, in its released code.
//! <https://arxiv.org/abs/2005.09147>
//!
//! `Σ log Σ_{j≠y} exp z_j − z_y`. Unlike cross-entropy it never saturates, unlike [`Margin`](super::margin::Margin) its
//! gradient does not jump where the best other class changes.

use burn::tensor::Tensor;

use crate::{
    Goal, GradientAttack, Registration, Step,
    objective::{ImageLoss, NamedObjective, PerImage, classes, per_image},
};

/// The soft margin.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoftMargin;

impl ImageLoss for SoftMargin {
    fn loss(&self, _step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
        let [n, k, height, width] = logits.dims();
        let label = goal.targets.one_hot(k);
        let counted = label.clone().sum_dim(1) * if k > 1 { 1.0 } else { 0.0 };
        let own = classes::pick(&logits, label.clone());
        // Shifted by the best other class, so that nothing overflows; where there is no label the map is all zero.
        let plain = logits.clone().inner();
        let best = classes::without(&plain, &label).max_dim(1).clamp(-1e30, 1e30);
        let others = Tensor::from_inner(label * -1.0 + 1.0);
        let shifted = (logits - Tensor::from_inner(best.clone())).clamp_max(50.0).exp() * others;
        let soft = (shifted.sum_dim(1) + 1e-30).log() + Tensor::from_inner(best);
        per_image(((soft - own) * Tensor::from_inner(counted)).reshape([n, height, width]))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

inventory::submit! {
    NamedObjective { name: "soft-margin", options: &[], build: |_| Ok(Box::new(PerImage(SoftMargin))) }
}

inventory::submit! {
    Registration {
        name: "soft-margin",
        about: "PGD on the difference of the label's logit to the smooth maximum of the others",
        paper: "https://arxiv.org/abs/2005.09147",
        options: &[],
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, PerImage(SoftMargin))?)),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use fireproof_tensor::{Targets, VOID};

    use super::*;

    #[test]
    fn it_is_the_logarithm_of_the_others_sum_less_the_label() {
        let device = Device::flex();
        // Pixels: (1, 2, −3) of label 0, (100, 0, 99) of label 2, a void one.
        let values = vec![1.0f32, 100.0, 5.0, 2.0, 0.0, 5.0, -3.0, 99.0, 5.0];
        let logits = Tensor::<4>::from_data(TensorData::new(values, [1, 3, 1, 3]), &device);
        let targets = Targets::from_labels(&[0, 2, VOID], [1, 1, 3], &device).unwrap();
        let goal = Goal { targets, targeted: false };
        let leaf = logits.autodiff().require_grad();
        let loss = SoftMargin.loss(Step { index: 0, total: 1 }, leaf.clone(), &goal);
        let value: f32 = loss.clone().inner().into_scalar();
        let expected = (2.0f64.exp() + (-3.0f64).exp()).ln() - 1.0 + (100.0 - 99.0);
        assert!((f64::from(value) - expected).abs() < 1e-4, "{value} {expected}");
        let mut gradients = loss.sum().backward();
        let gradient: Vec<f32> = leaf.grad_remove(&mut gradients).unwrap().into_data().try_to_vec().unwrap();
        // Each pixel: −1 at its label, the softmax of the others at them.
        let share = 1.0 / (1.0 + (-5.0f32).exp());
        for (found, expected) in gradient.into_iter().zip([-1.0, 1.0, 0.0, share, 0.0, 0.0, 1.0 - share, -1.0, 0.0]) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }
}
