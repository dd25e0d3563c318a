//! One step of a sign attack in one pass.

use crate::parallel;
use crate::reduce::plane_len;
use crate::simd::Isa;
use crate::vectorized::{CHUNK, vectorized};

/// Moves each image by its step size along the sign of the gradient, projects it on the ℓ∞ ball around its clean image,
/// and clamps it to the valid range, in this order and in place. Madry et al., *Towards Deep Learning Models Resistant to
/// Adversarial Attacks*, ICLR 2018, <https://arxiv.org/abs/1706.06083>.
///
/// `images`, `clean` and `gradient` are `[N, …]`; `step_sizes` (negative ones descend) and `epsilons` have one number per
/// image, in the images' unit; `range` is the lowest and the highest valid number. A zero gradient moves nothing, and a
/// NaN one makes the number NaN, so that it is noticed.
///
/// ```
/// use fireproof_kernels::attack_step::sign_step;
///
/// let mut images = [0.5, 0.02];
/// sign_step(&mut images, &[0.5, 0.0], &[3.0, -1.0], &[0.1], &[0.03], [0.0, 1.0]);
/// assert_eq!(images, [0.53, 0.0]);
/// ```
///
/// # Panics
/// If lengths disagree.
pub fn sign_step(
    images: &mut [f32],
    clean: &[f32],
    gradient: &[f32],
    step_sizes: &[f32],
    epsilons: &[f32],
    range: [f32; 2],
) {
    assert_eq!((images.len(), images.len()), (clean.len(), gradient.len()), "images, clean images and gradients");
    assert_eq!(step_sizes.len(), epsilons.len(), "step sizes and epsilons");
    let image = plane_len(images.len(), step_sizes.len(), 1).max(1);
    let isa = Isa::current();
    let chunk = image.min(CHUNK);
    let per_image = image.div_ceil(chunk);
    let mut jobs: Vec<&mut [f32]> = images.chunks_mut(image).flat_map(|image| image.chunks_mut(chunk)).collect();
    let together = CHUNK / chunk;
    parallel::for_each_chunk(&mut jobs, together, |first, jobs| {
        for (i, x) in jobs.iter_mut().enumerate() {
            let job = first * together + i;
            let (n, at) = (job / per_image, job / per_image * image + job % per_image * chunk);
            let (clean, gradient) = (&clean[at..][..x.len()], &gradient[at..][..x.len()]);
            step(isa, x, clean, gradient, step_sizes[n], epsilons[n], range);
        }
    });
}

vectorized! {
    fn step<'a>(x: &'a mut [f32], clean: &'a [f32], gradient: &'a [f32], size: f32, epsilon: f32, range: [f32; 2]) {
        for ((x, clean), g) in x.iter_mut().zip(clean).zip(gradient) {
            let sign = if *g > 0.0 {
                1.0
            } else if *g < 0.0 {
                -1.0
            } else {
                0.0 * *g
            };
            let moved = *x + size * sign;
            let (low, high) = (*clean - epsilon, *clean + epsilon);
            // Comparisons that NaN fails leave it in place.
            let moved = if moved < low { low } else { moved };
            let moved = if moved > high { high } else { moved };
            let moved = if moved < range[0] { range[0] } else { moved };
            *x = if moved > range[1] { range[1] } else { moved };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn a_step_agrees_with_its_definition_for_every_image_size() {
        for (n, image) in [(1, 1), (3, 5), (2, 2 * CHUNK + 7), (700, 100), (0, 4)] {
            let len = n * image;
            let (clean, gradient, start) = (numbers(1, len), numbers(2, len), numbers(3, len));
            let (steps, epsilons) = (numbers(4, n), numbers(5, n).iter().map(|e| e.abs()).collect::<Vec<_>>());
            for isa in Isa::available() {
                let mut x = start.clone();
                isa.force(|| sign_step(&mut x, &clean, &gradient, &steps, &epsilons, [-0.8, 0.9]));
                for i in 0..len {
                    let (step, epsilon) = (steps[i / image], epsilons[i / image]);
                    let moved = start[i] + step * gradient[i].signum();
                    let want = moved.max(clean[i] - epsilon).min(clean[i] + epsilon).clamp(-0.8, 0.9);
                    assert_eq!(x[i], want);
                }
            }
        }
    }

    #[test]
    fn a_zero_gradient_moves_nothing_and_a_nan_shows() {
        let mut x = [0.5, 0.5, 0.5];
        sign_step(&mut x, &[0.5; 3], &[0.0, -0.0, f32::NAN], &[0.1], &[1.0], [0.0, 1.0]);
        assert!(x[..2] == [0.5, 0.5] && x[2].is_nan(), "{x:?}");
    }
}
