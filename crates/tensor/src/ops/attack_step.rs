//! Project and clamp: the end of every ℓ∞ or ℓ2 attack step.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use fireproof_kernels::attack_step::sign_step;

use super::flex::{self, FlexOp};
use crate::{Norm, norm::per_sample};

/// One ascent step from `current` along `direction`, projected on the ball around `clean`, clamped to the valid range.
///
/// `current`, `direction` (a unit vector for ℓ2, see [`Norm::steepest`]; of ℓ∞ only the sign is read) and `clean` are `[N, C, H, W]`,
/// `step` and `epsilon` are `[N]`. Step → project around the *clean* image → clamp; for ℓ∞ the result is the exact
/// projection on the intersection, for ℓ2 it is feasible.
pub fn attack_step(
    current: Tensor<4>,
    direction: Tensor<4>,
    clean: &Tensor<4>,
    norm: Norm,
    step: &Tensor<1>,
    epsilon: &Tensor<1>,
    [low, high]: [f32; 2],
) -> Tensor<4> {
    if norm == Norm::Linf && flex::on_flex(&current) && !current.is_autodiff() {
        let host = |x: &Tensor<1>| x.to_data().try_to_vec::<f32>().expect("an f32 tensor");
        let op = SignStep { steps: host(step), epsilons: host(epsilon), range: [low, high] };
        let (direction, clean) = (direction.into_dispatch(), clean.clone().into_dispatch());
        return flex::apply(current.into_dispatch(), Some(direction), Some(clean), op);
    }
    let direction = if norm == Norm::Linf { direction.sign() } else { direction };
    let moved = current + direction * per_sample(step);
    let delta = norm.project(moved - clean.clone(), epsilon);
    (clean.clone() + delta).clamp(low, high)
}

#[derive(Debug)]
struct SignStep {
    steps: Vec<f32>,
    epsilons: Vec<f32>,
    range: [f32; 2],
}

impl FlexOp for SignStep {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [direction, clean] = [1, 2].map(|i| flex::contiguous(&inputs[i]));
        let next = flex::changed(inputs[0].clone(), |images| {
            let (clean, direction) = (flex::numbers(&clean), flex::numbers(&direction));
            sign_step(images, clean, direction, &self.steps, &self.epsilons, self.range);
        });
        (next, Vec::new())
    }

    fn backward(&self, _: FlexTensor, _: &[FlexTensor], _: &[bool]) -> Vec<Option<FlexTensor>> {
        unreachable!("attack steps are taken on plain tensors")
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::norm::radii;

    #[test]
    fn the_ball_is_around_the_clean_image_not_the_current_one() {
        let image =
            |v: &[f32]| Tensor::<4>::from_data(TensorData::new(v.to_vec(), [1, 1, 1, v.len()]), &Device::flex());
        let clean = image(&[0.5, 0.5, 0.99]);
        let current = image(&[0.55, 0.45, 0.99]);
        let direction = image(&[1.0, -1.0, 1.0]);
        let radius = |r| radii(&[r], &clean);
        let next = attack_step(current, direction, &clean, Norm::Linf, &radius(0.1), &radius(0.06), [0.0, 1.0]);
        let next: Vec<f32> = next.into_data().try_to_vec().unwrap();
        for (a, b) in next.iter().zip([0.56, 0.44, 1.0]) {
            assert!((a - b).abs() < 1e-6, "{next:?}");
        }
    }
}
