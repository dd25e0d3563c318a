//! PDPGD: the smallest perturbation by descent on it and ascent on a multiplier of every pixel.
//!
//! Matyasko, Chau. *PDPGD: Primal-Dual Proximal Gradient Descent Adversarial Attack*, 2021. <https://arxiv.org/abs/2106.01538>;
//! for segmentation as in adv-lib 0.2.8.
//!
//! Each valid pixel has a dual variable; a softmax over them and a zero makes its weight `λ_i`, and what is left is the weight of
//! the norm. A step of Adam follows the gradient of `Σ λ_i softplus(m_i)` with the lead `m_i` of the label, then a few steps of
//! the proximity operator of the norm, in the metric of Adam's denominator, shrink the perturbation. Pixels that hold raise their
//! dual variable by `θ`, fooled ones lower theirs.
//!
//! An image's result is its smallest perturbation that fools 99 % of the valid pixels, else its most successful one. For a
//! number in a ball it is clipped to ε; [`Adversarial::minimal`] holds what was found. ℓ∞ or ℓ2.
//!
//! Defaults: 500 steps that begin at 0.01 (`step_size`), as Halmosi et al. use, and fall to a hundredth of it.

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::{Batch, Norm, Victim, ops::backward};

use super::margin::lead;
use crate::{
    Adversarial, Attack, AttackConfig, Context, Registration, Result, Step,
    host::{floats, upload},
    minimal::{self, Minimiser, Moments},
    objective::Evaluation,
};

struct Pdpgd {
    search: Minimiser,
    step_size: f32,
    steps: usize,
}

/// The last step size over the first.
const DECAY: f64 = 0.01;
/// The first step of the dual variables, and the last over it.
const DUAL_STEP: f64 = 0.1;
const DUAL_DECAY: f64 = 0.1;
/// What remains of the weights at a step.
const MEMORY: f64 = 0.9;
/// The dual variables stay within the logarithm of this and of its inverse.
const RATIO: f64 = 1e-12;
/// Proximal steps, and the relative change below which there are no more.
const PROXIMAL: usize = 5;
const STILL: f32 = 0.01;

/// One image's dual variables: none at pixels that do not count.
struct Duals {
    values: Vec<Option<f64>>,
    /// The mean of the weights.
    weights: Vec<f64>,
}

impl Duals {
    fn new(counted: &[f32]) -> Self {
        let count: f32 = counted.iter().sum();
        let first = -f64::from(count.max(1.0)).ln();
        let values = counted.iter().map(|c| (*c > 0.0).then_some(first)).collect();
        let mut new = Self { values, weights: Vec::new() };
        new.weights = new.share();
        new
    }

    /// Softmax over the dual variables and a zero, without the zero's part.
    fn share(&self) -> Vec<f64> {
        let highest = self.values.iter().flatten().fold(0.0f64, |m, v| m.max(*v));
        let powers: Vec<f64> = self.values.iter().map(|v| v.map_or(0.0, |v| (v - highest).exp())).collect();
        let total = (-highest).exp() + powers.iter().sum::<f64>();
        powers.iter().map(|p| p / total).collect()
    }

    fn average(&mut self) {
        let shares = self.share();
        for (weight, share) in self.weights.iter_mut().zip(shares) {
            *weight = MEMORY * *weight + (1.0 - MEMORY) * share;
        }
    }

    /// Up where the pixel holds (`margin` above zero), down where it is fooled.
    fn ascend(&mut self, margins: &[f32], theta: f64) {
        let limit = -RATIO.ln();
        for (value, margin) in self.values.iter_mut().zip(margins) {
            if let Some(value) = value {
                let sign = if *margin == 0.0 { 0.0 } else { f64::from(margin.signum()) };
                *value = (*value + theta * sign).clamp(-limit, limit);
            }
        }
    }
}

/// `argmin_v μ ‖v‖ + ½ ‖v − x‖₂²`.
fn proximal(norm: Norm, x: &mut [f32], mu: f32) {
    match norm {
        Norm::L2 => {
            let length = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32;
            let factor = if length > 0.0 { (1.0 - mu / length).max(0.0) } else { 0.0 };
            x.iter_mut().for_each(|v| *v *= factor);
        }
        // What a clamp takes off in total is μ (Moreau: x less its projection on the ℓ1 ball of radius μ).
        Norm::Linf => {
            let mut sizes: Vec<f32> = x.iter().map(|v| v.abs()).collect();
            if sizes.iter().map(|v| f64::from(*v)).sum::<f64>() <= f64::from(mu) {
                x.fill(0.0);
                return;
            }
            sizes.sort_unstable_by(|a, b| b.total_cmp(a));
            let (mut sum, mut bound) = (0.0f64, 0.0f64);
            for (count, size) in sizes.iter().enumerate() {
                sum += f64::from(*size);
                let level = (sum - f64::from(mu)) / (count + 1) as f64;
                if level >= f64::from(*size) {
                    break;
                }
                bound = level;
            }
            x.iter_mut().for_each(|v| *v = v.clamp(-bound as f32, bound as f32));
        }
    }
}

impl Attack for Pdpgd {
    fn name(&self) -> &str {
        &self.search.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let n = batch.len();
        let step_sizes = Context::per_sample("step size", context.step_size, self.step_size, n)?;
        let norm = self.search.ball.norm;
        let [low, high] = self.search.ball.range;
        self.search.run(self.steps, (victim, batch, context), |search| {
            let dims = batch.dims();
            let values: usize = dims[1..].iter().product();
            let clean = floats(batch.images.clone());
            let goal = search.scene.goal;
            let [_, height, width] = goal.targets.dims();
            let pixels = height * width;
            let mut images = batch.images.clone();
            let mut moments = Moments::new(&images);
            let mut duals: Vec<Duals> = Vec::new();
            let open = vec![true; n];
            let steps = self.steps;
            for index in 0..steps {
                let step = Step { index, total: steps };
                let left = steps.saturating_sub(1 + index) as f64 / steps.saturating_sub(1).max(1) as f64;
                let theta = DUAL_STEP * (left * (1.0 - DUAL_DECAY) + DUAL_DECAY);
                let look = search.look(step, &images, &open, &mut |logits| {
                    let leaf = logits.clone().autodiff().require_grad();
                    let (lead, counted) = lead(&leaf, goal);
                    // Above zero where the attack has not succeeded.
                    let margin = if goal.targeted { lead } else { -lead };
                    let margins = floats(margin.clone().inner());
                    if duals.is_empty() {
                        duals = floats(counted).chunks(pixels).map(Duals::new).collect();
                    } else {
                        duals.iter_mut().for_each(Duals::average);
                    }
                    let (mut slopes, mut losses) = (Vec::with_capacity(n * pixels), Vec::with_capacity(n));
                    for (duals, margins) in duals.iter_mut().zip(margins.chunks(pixels)) {
                        let mut loss = 0.0;
                        for (weight, margin) in duals.weights.iter().zip(margins) {
                            let m = f64::from(*margin);
                            slopes.push((weight / (1.0 + (-m).exp())) as f32);
                            loss += weight * (m.max(0.0) + (-m.abs()).exp().ln_1p());
                        }
                        losses.push(loss as f32);
                        duals.ascend(margins, theta);
                    }
                    let slopes = upload(&slopes, logits).reshape([n, 1, height, width]);
                    let mut gradients = backward(margin, slopes);
                    let cotangent = leaf.grad_remove(&mut gradients).unwrap_or_else(|| logits.zeros_like());
                    let loss = upload(&losses, logits);
                    let descent = Evaluation { loss: loss.clone(), tracked: loss, cotangent };
                    // The search ascends, and negates by itself towards a target.
                    if goal.targeted { descent } else { descent.negated() }
                })?;
                // `look` gives the gradient of what rises.
                let (mean, root) = moments.take(-look.gradient, index);
                let (mean, root) = (floats(mean), floats(root));
                let mut next = floats(images.clone() - batch.images.clone());
                for i in 0..n {
                    let of = i * values..(i + 1) * values;
                    let length = (f64::from(step_sizes[i]) * DECAY.powf(index as f64 / steps as f64)) as f32;
                    let box_of = |at: usize| (low - clean[of.start + at], high - clean[of.start + at]);
                    let inside = |at: usize, v: f32| v.clamp(box_of(at).0, box_of(at).1);
                    let (root, mean) = (&root[of.clone()], &mean[of.clone()]);
                    let delta = &mut next[of.clone()];
                    for (at, d) in delta.iter_mut().enumerate() {
                        *d = inside(at, *d - length * mean[at] / root[at]);
                    }
                    let largest = root.iter().fold(0.0f32, |m, r| m.max(*r));
                    let weight: f64 = duals[i].weights.iter().sum();
                    let mu = if weight > 0.0 { ((1.0 - weight) / weight) as f32 * length / largest } else { 0.0 };
                    let moved = delta.to_vec();
                    for _ in 0..PROXIMAL {
                        let mut z: Vec<f32> =
                            (0..values).map(|at| delta[at] - root[at] / largest * (delta[at] - moved[at])).collect();
                        proximal(norm, &mut z, mu);
                        z.iter_mut().enumerate().for_each(|(at, v)| *v = inside(at, *v));
                        let length =
                            |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                        let change = length(&mut z.iter().zip(&*delta).map(|(a, b)| a - b));
                        let size = length(&mut z.iter().copied());
                        delta.copy_from_slice(&z);
                        if change <= f64::from(STILL) * size {
                            break;
                        }
                    }
                }
                let delta = Tensor::from_data(TensorData::new(next, dims), &images.device());
                images = search.valid(batch.images.clone() + delta);
            }
            Ok(())
        })
    }
}

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    let search = Minimiser::new(config)?;
    Ok(Box::new(Pdpgd { search, step_size: config.step_size.unwrap_or(0.01), steps: config.steps }))
}

inventory::submit! {
    Registration {
        name: "pdpgd",
        about: "the smallest perturbation by a multiplier for every pixel and proximal steps, then clipped",
        paper: "https://arxiv.org/abs/2106.01538",
        options: &[],
        defaults: |config| {
            config.steps = 500;
            config.step_size = Some(0.01);
            minimal::defaults(config);
        },
        build,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proximal_steps_are_the_best_of_a_grid() {
        let stream = fireproof_tensor::random::Stream::new(&[8]);
        for case in 0..40 {
            let start: Vec<f32> = (0..5).map(|i| 2.0 * stream.symmetric(10 * case + i)).collect();
            let mu = 1.5 * stream.uniform(10 * case + 7);
            for norm in [Norm::Linf, Norm::L2] {
                let size = |v: &[f32]| match norm {
                    Norm::Linf => v.iter().fold(0.0f32, |m, x| m.max(x.abs())),
                    Norm::L2 => v.iter().map(|x| x * x).sum::<f32>().sqrt(),
                };
                let value =
                    |v: &[f32]| mu * size(v) + 0.5 * v.iter().zip(&start).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
                let mut found = start.clone();
                proximal(norm, &mut found, mu);
                let candidate = |t: f32| -> Vec<f32> {
                    match norm {
                        Norm::Linf => start.iter().map(|v| v.clamp(-t, t)).collect(),
                        Norm::L2 => start.iter().map(|v| v * t / size(&start)).collect(),
                    }
                };
                let brute = (0..5000).map(|t| value(&candidate(t as f32 * 1e-3))).fold(f32::INFINITY, f32::min);
                assert!(value(&found) <= brute + 1e-4, "{norm} {case}: {} {brute}", value(&found));
            }
        }
    }

    #[test]
    fn weights_and_what_the_norm_keeps_sum_to_one() {
        let mut duals = Duals::new(&[1.0, 1.0, 0.0, 1.0]);
        assert!((duals.weights.iter().sum::<f64>() - 0.5).abs() < 1e-12 && duals.weights[2] == 0.0);
        duals.ascend(&[1.0, -1.0, 5.0, 0.0], 3.0f64.ln());
        let share = duals.share();
        // Three times a third, a third of a third, and a third, beside the one.
        let total = 1.0 + 1.0 + 1.0 / 9.0 + 1.0 / 3.0;
        for (found, expected) in share.iter().zip([1.0, 1.0 / 9.0, 0.0, 1.0 / 3.0]) {
            assert!((found - expected / total).abs() < 1e-12, "{share:?}");
        }
    }
}
