//! Project and clamp: the end of every ℓ∞ or ℓ2 attack step.

use burn::tensor::Tensor;
use fireproof_kernels::attack_step::sign_step;

#[cfg(feature = "cube")]
use super::cube;
use super::flex;
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
        let plain = |x: Tensor<4>| flex::contiguous(&flex::plain(x));
        let (direction, clean) = (plain(direction), plain(clean.clone()));
        let [step, epsilon] = [step, epsilon].map(|x| flex::contiguous(&flex::plain(x.clone())));
        return flex::tensor(flex::changed(flex::plain(current), |images| {
            let (clean, direction) = (flex::numbers(&clean), flex::numbers(&direction));
            sign_step(images, clean, direction, flex::numbers(&step), flex::numbers(&epsilon), [low, high]);
        }));
    }
    #[cfg(feature = "cube")]
    if norm == Norm::Linf && cube::on_cube(&current) && !current.is_autodiff() {
        return sign_step_on_gpu(&current, &direction, clean, step, epsilon, [low, high]);
    }
    composition(current, direction, clean, norm, step, epsilon, [low, high])
}

/// The same from Burn's primitives.
pub(crate) fn composition(
    current: Tensor<4>,
    direction: Tensor<4>,
    clean: &Tensor<4>,
    norm: Norm,
    step: &Tensor<1>,
    epsilon: &Tensor<1>,
    [low, high]: [f32; 2],
) -> Tensor<4> {
    let direction = if norm == Norm::Linf { direction.sign() } else { direction };
    let moved = current + direction * per_sample(step);
    let delta = norm.project(moved - clean.clone(), epsilon);
    (clean.clone() + delta).clamp(low, high)
}

#[cfg(feature = "cube")]
fn sign_step_on_gpu(
    current: &Tensor<4>,
    direction: &Tensor<4>,
    clean: &Tensor<4>,
    step: &Tensor<1>,
    epsilon: &Tensor<1>,
    [low, high]: [f32; 2],
) -> Tensor<4> {
    let from = cube::primitive(current);
    let out = cube::empty(&from, current.dims());
    let (count, dim) = cube::units(&from, current.dims().iter().product());
    let [direction, clean] = [direction, clean].map(|x| cube::primitive(x).into_tensor_arg());
    let [step, epsilon] = [step, epsilon].map(|x| cube::primitive(x).into_tensor_arg());
    let (client, into) = (from.client.clone(), out.clone().into_tensor_arg());
    let from = from.into_tensor_arg();
    cube::attack_step::sign_step::launch(&client, count, dim, from, direction, clean, step, epsilon, into, low, high);
    cube::tensor(out)
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
