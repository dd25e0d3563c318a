//! FMN, the fast minimum-norm attack: a ball that shrinks while the image is fooled and grows while it is not.
//!
//! Pintor, Roli, Brendel, Biggio. *Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints*, NeurIPS 2021.
//! <https://arxiv.org/abs/2102.12827>; step and ball as in adv-lib 0.2.8.
//!
//! Each step goes `α` (in ℓ2) along the gradient of the lead of the wrong class, then `δ` is projected on a ball of the image's
//! own radius: `(1 − γ)` times the last one after a success, `(1 + γ)` times after a failure; before the first success the
//! radius is where the boundary would be if the victim were linear, `‖δ‖ + |lead| / ‖g‖_*`. Both `α` and `γ` fall along half a
//! cosine.
//!
//! The lead is summed over the pixels that are not fooled yet and the tenth of all that is the closest to falling back, so that
//! pixels won for good do not outweigh the rest. On one pixel that is the published loss.
//!
//! An image's result is its smallest perturbation that fools 99 % of the valid pixels, else its most successful one. For a
//! number in a ball it is clipped to ε; [`Adversarial::minimal`] holds what was found. ℓ∞ or ℓ2.
//!
//! Defaults: 200 steps, α from 1 (`step_size`) to a hundredth of it, γ from 0.05 (`gamma`) to 0.001.

use std::f64::consts::PI;

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Norm, Victim, norm::per_sample};

use super::margin::lead;
use crate::{
    Adversarial, Attack, AttackConfig, Context, Goal, OptionSpec, Registration, Result, Step,
    host::{floats, upload},
    minimal::{self, Minimiser},
    objective::Evaluation,
};

struct Fmn {
    search: Minimiser,
    /// Length of the first step, in ℓ2.
    alpha: f32,
    gamma: f32,
    steps: usize,
}

const LAST_ALPHA: f32 = 0.01;
const LAST_GAMMA: f32 = 0.001;
/// The share of pixels that are held at the boundary.
const HELD: f32 = 0.1;
/// Keeps lengths of zero gradients from being divided by.
const FLOOR: f32 = 1e-12;

impl Attack for Fmn {
    fn name(&self) -> &str {
        &self.search.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let n = batch.len();
        let alphas = Context::per_sample("step size", context.step_size, self.alpha, n)?;
        let norm = self.search.ball.norm;
        let [low, high] = self.search.ball.range;
        self.search.run(self.steps, (victim, batch, context), |search| {
            let clean = batch.images.clone();
            let goal = search.scene.goal;
            // The longest perturbation that the range allows.
            let longest = floats(norm.of((clean.clone() - low).max_pair(clean.clone() * -1.0 + high)));
            let (mut images, mut radii) = (clean.clone(), vec![f32::INFINITY; n]);
            let open = vec![true; n];
            for index in 0..self.steps {
                let step = Step { index, total: self.steps };
                let left = 0.5 * (1.0 + (PI * index as f64 / self.steps as f64).cos()) as f32;
                let gamma = LAST_GAMMA + (self.gamma - LAST_GAMMA) * left;
                let ever: Vec<bool> = (0..n).map(|i| search.smallest(i).is_some()).collect();
                let look = search.look(step, &images, &open, &mut |logits| evaluate(logits, goal))?;
                let dual = match norm {
                    Norm::Linf => look.gradient.clone().abs().flatten::<2>(1, 3).sum_dim(1),
                    Norm::L2 => look.gradient.clone().square().flatten::<2>(1, 3).sum_dim(1).sqrt(),
                };
                let dual = floats(dual);
                for i in 0..n {
                    let grown = radii[i] * (1.0 + gamma);
                    radii[i] = match (look.fooled[i], ever[i]) {
                        (true, _) => (radii[i] * (1.0 - gamma)).min(search.smallest(i).unwrap_or(longest[i])),
                        (false, true) => grown,
                        (false, false) => look.norms[i] + look.loss[i].abs() / dual[i].max(FLOOR),
                    };
                    radii[i] = radii[i].min(longest[i]);
                }
                let length = |i: usize| alphas[i] * (LAST_ALPHA + (1.0 - LAST_ALPHA) * left);
                let step = per_sample(&upload(&(0..n).map(length).collect::<Vec<_>>(), &clean));
                let moved: Tensor<4> = images - clean.clone() + Norm::L2.steepest(look.gradient) * step;
                images = search.valid(clean.clone() + norm.project(moved, &upload(&radii, &clean)));
            }
            Ok(())
        })
    }
}

/// The summed lead of the wrong class (towards a target: of the others over the target, which the search negates).
fn evaluate(logits: &Tensor<4>, goal: &Goal) -> Evaluation {
    let leaf = logits.clone().autodiff().require_grad();
    let (lead, counted) = lead(&leaf, goal);
    let [n, _, h, w] = lead.dims();
    let sign = if goal.targeted { -1.0 } else { 1.0 };
    let (values, valid) = (floats(lead.clone().inner() * sign), floats(counted));
    let pixels = h * w;
    let mut weights = vec![0.0f32; n * pixels];
    for i in 0..n {
        let of = i * pixels..(i + 1) * pixels;
        let (values, valid) = (&values[of.clone()], &valid[of.clone()]);
        let mut held: Vec<f32> = values.iter().zip(valid).filter(|(_, v)| **v > 0.0).map(|(x, _)| *x).collect();
        if held.is_empty() {
            continue;
        }
        let at = ((held.len() as f32 * HELD).ceil() as usize).clamp(1, held.len()) - 1;
        let limit = held.select_nth_unstable_by(at, f32::total_cmp).1.max(0.0);
        for (weight, (value, valid)) in weights[of].iter_mut().zip(values.iter().zip(valid)) {
            *weight = if *valid > 0.0 && *value <= limit { 1.0 } else { 0.0 };
        }
    }
    let weights = upload(&weights, logits).reshape([n, 1, h, w]);
    let loss = lead * Tensor::from_inner(weights);
    let plain: Tensor<1> = loss.clone().inner().flatten::<2>(1, 3).sum_dim(1).reshape([n]);
    let mut gradients = loss.sum().backward();
    let cotangent = leaf.grad_remove(&mut gradients).unwrap_or_else(|| logits.zeros_like());
    Evaluation { loss: plain.clone(), tracked: plain, cotangent }
}

const GAMMA: &str = "0.05, or another first change of the radius, in (0, 1)";

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    let search = Minimiser::new(config)?;
    let gamma: f32 = config.option("gamma", 0.05, GAMMA)?;
    if !(gamma > 0.0 && gamma < 1.0) {
        return Err(config.setting("gamma", gamma, GAMMA));
    }
    Ok(Box::new(Fmn { search, alpha: config.step_size.unwrap_or(1.0), gamma, steps: config.steps }))
}

inventory::submit! {
    Registration {
        name: "fmn",
        about: "gradient steps in a ball that shrinks while the image is fooled, then clipped",
        paper: "https://arxiv.org/abs/2102.12827",
        options: &[OptionSpec { name: "gamma", values: GAMMA }],
        defaults: |config| {
            config.steps = 200;
            config.step_size = Some(1.0);
            minimal::defaults(config);
        },
        build,
    }
}
