//! How well the prediction of each pixel agrees with its label.

use burn::tensor::{IntDType, Tensor, activation::softmax};
use fireproof_kernels::cross_entropy as kernel;

use super::flex;
use crate::Targets;

/// One where the highest logit is the label and the pixel is valid, `[N, K, H, W]` → `[N, H, W]`, detached.
pub fn correct(logits: &Tensor<4>, targets: &Targets) -> Tensor<3> {
    let [n, classes, height, width] = logits.dims();
    let logits = logits.clone().inner();
    if flex::on_flex(&logits) {
        return by_kernel(logits, targets, |logits, labels, out| kernel::correct(logits, classes, labels, n, out));
    }
    let predicted = logits.argmax(1).cast(IntDType::I32).reshape([n, height, width]);
    predicted.equal(targets.labels().clone()).float() * targets.valid().clone()
}

/// The cosine of the softmax over the classes and the one-hot label, `[N, K, H, W]` → `[N, H, W]`, detached; 0 at pixels
/// that are void or whose class the logits do not have.
pub fn cosine(logits: &Tensor<4>, targets: &Targets) -> Tensor<3> {
    let [n, classes, height, width] = logits.dims();
    let logits = logits.clone().inner();
    if flex::on_flex(&logits) {
        return by_kernel(logits, targets, |logits, labels, out| kernel::cosine(logits, classes, labels, n, out));
    }
    let prediction = softmax(logits, 1);
    let length = prediction.clone().square().sum_dim(1).sqrt();
    ((prediction * targets.one_hot(classes)).sum_dim(1) / length).reshape([n, height, width])
}

fn by_kernel(logits: Tensor<4>, targets: &Targets, work: impl FnOnce(&[f32], &[i32], &mut [f32])) -> Tensor<3> {
    let logits = flex::contiguous(&flex::plain(logits));
    let labels = flex::labels(targets);
    flex::tensor(flex::written(targets.dims(), |out| work(flex::numbers(&logits), flex::integers(&labels), out)))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;
    use crate::VOID;

    #[test]
    fn both_maps_are_those_of_burns_primitives() {
        let device = Device::flex();
        let logits = Tensor::<4>::random([2, 3, 4, 5], Distribution::Normal(0.0, 3.0), &device);
        let labels: Vec<u8> = (0..40).map(|i| [0, 1, 2, VOID, 7][i % 5]).collect();
        let targets = Targets::from_labels(&labels, [2, 4, 5], &device).unwrap();
        let predicted = logits.clone().argmax(1).reshape([2, 4, 5]);
        let right = predicted.equal(targets.labels().clone()).float() * targets.valid().clone();
        correct(&logits, &targets).into_data().assert_eq(&right.into_data(), true);

        let p = softmax(logits.clone(), 1);
        let own = (p.clone() * targets.one_hot(3)).sum_dim(1);
        let aligned = (own / (p.clone() * p).sum_dim(1).sqrt()).reshape([2, 4, 5]);
        let close = Tolerance::<f32>::rel_abs(1e-5, 1e-6);
        cosine(&logits, &targets).into_data().assert_approx_eq(&aligned.into_data(), close);
    }
}
