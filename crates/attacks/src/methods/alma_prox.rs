//! ALMA prox: the smallest ℓ∞ perturbation that fools 99 % of the pixels, by an augmented Lagrangian and a proximal step.
//!
//! Rony, Pesquet, Ben Ayed. *Proximal Splitting Adversarial Attack for Semantic Segmentation*, CVPR 2023.
//! <https://arxiv.org/abs/2206.07179>; constants and details as in adv-lib 0.2.8.
//!
//! Minimise `‖δ‖∞` subject to `d_i < 0` at every valid pixel `i` but one in a hundred, where `d_i` is the lead of the label
//! over the best other class, divided by the spread of the logits ([`dlr`](super::dlr)). Each constraint has a multiplier `μ`
//! and a penalty `ρ` of its own, which grow where a pixel neither falls nor yields. A step follows the gradient of the
//! penalties in a metric `H` of the gradients' mean squares, and then the proximity operator of `‖·‖∞` in that metric, which
//! clamps `δ` to a size that it finds.
//!
//! An image's result is its smallest perturbation that fools 99 %, else its most successful one. For a number in a ball it
//! is clipped to ε; [`Adversarial::minimal`] holds what was found. ℓ∞ only. Multipliers, penalties and `δ` live on the host.
//!
//! Defaults: 500 steps, λ = 0.001 (`step_size`), which decays to a tenth after the first success. Halmosi et al. use 0.0001.

use std::f64;

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::{Batch, Counted, Norm, Victim, ops::backward};

use super::{dlr::spread, margin::lead};
use crate::{
    Adversarial, Attack, AttackConfig, Context, Goal, Iterate, Minimal, Registration, Result, Scene, Start, Step,
    Target, View,
    gradient_attack::fits,
    guard::Guard,
    host::floats,
    minimal::{FOOLED, check, clipped},
    threat::{PixelBall, Threat},
    trace::Recorder,
};

/// Growth of `ρ`, looked at every `CHECK` steps, where a constraint has not shrunk to `YIELD` of what it was.
const GROWTH: f64 = 2.0;
const CHECK: usize = 10;
const YIELD: f64 = 0.95;
const FIRST_RHO: f64 = 0.01;
/// What remains of `μ` and of the mean squares at a step.
const MEMORY: f64 = 0.8;
/// Range of the scale of an image's constraints, and its change a step.
const SCALE: (f64, f64) = (0.1, 1.0);
const SCALE_CHANGE: f64 = 0.02;
/// Added to the lead, so that a tie is not yet a success.
const TOLERANCE: f32 = 1e-4;
const FLOOR: f32 = 1e-8;
/// The last step size over the first.
const DECAY: f64 = 0.1;

struct AlmaProx {
    name: String,
    ball: PixelBall,
    lambda: f32,
    steps: usize,
    target: Option<Target>,
}

/// One image's constraints and perturbation.
struct State {
    delta: Vec<f32>,
    squares: Vec<f32>,
    mu: Vec<f64>,
    rho: Vec<f64>,
    /// Constraints at the last look.
    before: Vec<f64>,
    /// Pixels fooled since then.
    fell: Vec<bool>,
    scale: f64,
    /// The step from which the step size decays.
    decays_from: usize,
    found: bool,
    best: Option<Found>,
}

/// The best perturbation so far.
struct Found {
    delta: Vec<f32>,
    norm: f32,
    success: f64,
}

impl State {
    fn new(values: usize, pixels: usize, steps: usize) -> Self {
        Self {
            delta: vec![0.0; values],
            squares: vec![0.0; values],
            mu: vec![1.0; pixels],
            rho: vec![FIRST_RHO; pixels],
            before: Vec::new(),
            fell: vec![false; pixels],
            scale: SCALE.1,
            decays_from: steps / 2,
            found: false,
            best: None,
        }
    }

    /// Notes how far the current perturbation has come.
    fn track(&mut self, step: Step, open: &[f32], valid: &[f32]) {
        let count: f64 = valid.iter().map(|v| f64::from(*v)).sum();
        let left: f64 = open.iter().map(|o| f64::from(*o)).sum();
        let success = (count - left) / count.max(1.0);
        self.fell.iter_mut().zip(open).for_each(|(fell, open)| *fell |= *open == 0.0);
        let fooled = success >= f64::from(FOOLED);
        let norm = self.delta.iter().fold(0.0f32, |m, d| m.max(d.abs()));
        let better = match &self.best {
            None => true,
            Some(best) if fooled => !self.found || norm <= best.norm,
            Some(best) => !self.found && success >= best.success.min(f64::from(FOOLED)),
        };
        if fooled && !self.found && step.index < step.total / 2 {
            self.decays_from = step.index;
        }
        self.found |= fooled;
        if better {
            self.best = Some(Found { delta: self.delta.clone(), norm, success });
        }
        let change = if fooled { 1.0 + SCALE_CHANGE } else { 1.0 - SCALE_CHANGE };
        self.scale = (self.scale / change).clamp(SCALE.0, SCALE.1);
    }

    /// What the gradient of each pixel's ratio `d` weighs, and the penalty of the image.
    fn weigh(&mut self, step: Step, ratios: &[f32], counted: &[f32]) -> (Vec<f32>, f64) {
        let constraints: Vec<f64> = ratios.iter().map(|d| f64::from(*d) * self.scale).collect();
        let limit = self.limit(step, &constraints, counted);
        let kept = |i: usize| counted[i] > 0.0 && constraints[i] <= limit;
        if step.index == 0 {
            self.before.clone_from(&constraints);
        } else if (step.index + 1).is_multiple_of(CHECK) {
            for (i, &constraint) in constraints.iter().enumerate() {
                let value = if kept(i) { constraint } else { 0.0 };
                if !self.fell[i] && value > YIELD * self.before[i] {
                    self.rho[i] *= GROWTH;
                }
            }
            self.before.clone_from(&constraints);
            self.fell.fill(false);
        }
        let mut total = 0.0;
        let weights = (0..constraints.len()).map(|i| {
            let (c, keeps) = (constraints[i], kept(i));
            if step.index > 0 {
                let slope = if keeps { slope(c, self.rho[i], self.mu[i]) } else { 0.0 };
                self.mu[i] = (MEMORY * self.mu[i] + (1.0 - MEMORY) * slope).clamp(1e-12, 1.0);
            }
            if !keeps {
                return 0.0;
            }
            total += penalty(c, self.rho[i], self.mu[i]);
            (slope(c, self.rho[i], self.mu[i]) * self.scale) as f32
        });
        let weights = weights.collect();
        (weights, total)
    }

    /// Constraints above this are given up: at the last step the largest hundredth, before a share that grows from none.
    fn limit(&self, step: Step, constraints: &[f64], counted: &[f32]) -> f64 {
        let mut held: Vec<f64> =
            constraints.iter().zip(counted).filter(|(_, counted)| **counted > 0.0).map(|(c, _)| *c).collect();
        let share = (1.0 - f64::from(FOOLED)) * held.len() as f64;
        let grown = step.index as f64 / (step.total.max(2) - 1) as f64;
        match (share * grown) as usize {
            0 => f64::INFINITY,
            k => *held.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1,
        }
    }

    /// A gradient step in the metric, and the proximal step.
    fn advance(&mut self, step: Step, lambda: f32, gradient: &[f32], clean: &[f32], [low, high]: [f32; 2]) {
        let tangent = DECAY / (1.0 - DECAY) * (step.total - self.decays_from).max(1) as f64;
        let since = step.index.saturating_sub(self.decays_from) as f64;
        let lambda = lambda * (tangent / (since + tangent)) as f32;
        let bias = 1.0 - MEMORY.powi(step.index as i32 + 1);
        let mut metric = Vec::with_capacity(gradient.len());
        for ((square, delta), g) in self.squares.iter_mut().zip(&mut self.delta).zip(gradient) {
            *square = MEMORY as f32 * *square + (1.0 - MEMORY as f32) * g * g;
            let h = (*square / bias as f32).sqrt().max(FLOOR);
            *delta -= lambda / h * g;
            metric.push(h);
        }
        let bounds = |i: usize| (low - clean[i], high - clean[i]);
        proximal(&mut self.delta, lambda, &metric, bounds);
    }
}

/// The penalty of a constraint, `c ≥ 0` violated.
fn penalty(c: f64, rho: f64, mu: f64) -> f64 {
    if c >= 0.0 { mu * c + mu * rho * c * c + rho * rho * c * c * c / 6.0 } else { mu * c / (1.0 - rho.max(1.0) * c) }
}

/// Its derivative in `c`. The backward pass of adv-lib 0.2.8 has `μ c` for the first term of a violated constraint, where the
/// derivative is `μ`; this is the derivative.
fn slope(c: f64, rho: f64, mu: f64) -> f64 {
    if c >= 0.0 { mu + 2.0 * mu * rho * c + 0.5 * rho * rho * c * c } else { mu / (1.0 - rho.max(1.0) * c).powi(2) }
}

/// `argmin_v λ‖v‖∞ + ½ Σ H (v − δ)²` within bounds that hold zero: `δ` clamped to the bounds and to a size `t`.
///
/// Beyond the bounds of `t` the derivative `λ − Σ_{|δ'| > t} H (|δ| − t)` rises with `t`, where `δ'` is `δ` within the bounds:
/// bisection finds its zero.
fn proximal(delta: &mut [f32], lambda: f32, metric: &[f32], bounds: impl Fn(usize) -> (f32, f32)) {
    let inside = |i: usize, d: f32| {
        let (low, high) = bounds(i);
        d.clamp(low, high)
    };
    let (mut left, mut right) = (0.0f32, (0..delta.len()).fold(0.0f32, |m, i| m.max(inside(i, delta[i]).abs())));
    for _ in 0..30 {
        let t = 0.5 * (left + right);
        let pull: f64 = (0..delta.len())
            .filter(|&i| inside(i, delta[i]).abs() > t)
            .map(|i| f64::from(metric[i]) * f64::from(delta[i].abs() - t))
            .sum();
        if pull > f64::from(lambda) {
            left = t;
        } else {
            right = t;
        }
    }
    let t = 0.5 * (left + right);
    for (i, d) in delta.iter_mut().enumerate() {
        *d = inside(i, *d).clamp(-t, t);
    }
}

impl Attack for AlmaProx {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let victim = Counted::new(victim);
        let goal = Goal::of(batch, self.target.as_ref(), context)?;
        let scene = Scene { victim: &victim, batch, goal: &goal, steps: self.steps, context };
        // Only the mask and the checks of the images are the ball's.
        let free_context = Context { epsilon: None, start: None, ..*context };
        let free = PixelBall { epsilon: f32::INFINITY, ..self.ball };
        let space = free.bind(&Scene { context: &free_context, ..scene })?;
        let lambdas = Context::per_sample("step size", context.step_size, self.lambda, batch.len())?;
        let mut guard = Guard::new(&self.name, scene);
        let mut record = context.trace.then(Recorder::default);
        let dims = batch.dims();
        let values = dims[1] * dims[2] * dims[3];
        let [n, height, width] = goal.targets.dims();
        let pixels = height * width;
        let device = batch.images.device();
        let clean = floats(batch.images.clone());
        let valid = floats(goal.targets.valid().clone());
        let mut states: Vec<State> = (0..n).map(|_| State::new(values, pixels, self.steps)).collect();
        for index in 0..self.steps {
            let step = Step { index, total: self.steps };
            let delta: Vec<f32> = states.iter().flat_map(|state| &state.delta).copied().collect();
            let images =
                space.project(vec![batch.images.clone() + Tensor::from_data(TensorData::new(delta, dims), &device)]);
            let images = images.into_iter().next().expect("one variable");
            let mut seen = None;
            let (logits, gradient) = victim.pull_back(images.clone(), &mut |logits| {
                fits(&logits, batch)?;
                let open = floats(goal.open(&logits));
                let leaf = logits.clone().autodiff().require_grad();
                let (ratio, counted) = ratio(&leaf, &goal);
                let (ratios, counted) = (floats(ratio.clone().inner()), floats(counted));
                let mut weights = Vec::with_capacity(n * pixels);
                let mut losses = Vec::with_capacity(n);
                for (i, state) in states.iter_mut().enumerate() {
                    let of = i * pixels..(i + 1) * pixels;
                    state.track(step, &open[of.clone()], &valid[of.clone()]);
                    let (weight, loss) = state.weigh(step, &ratios[of.clone()], &counted[of]);
                    weights.extend(weight);
                    losses.push(-loss as f32);
                }
                let weights = Tensor::from_data(TensorData::new(weights, [n, 1, height, width]), &device);
                let mut gradients = backward(ratio, weights);
                seen = Some(Tensor::<1>::from_data(TensorData::new(losses, [n]), &device));
                Ok(leaf.grad_remove(&mut gradients).unwrap_or_else(|| logits.zeros_like()))
            })?;
            let loss = seen.expect("a victim's pull_back asks for the gradient at its logits");
            guard.check(step, &loss, &gradient)?;
            // Host arithmetic comes next: a NaN must not get that far.
            guard.read()?;
            if let Some(record) = &mut record {
                record.record(0, index, &loss, &logits, &batch.targets);
            }
            if let Some(observer) = context.observer {
                let (images, logits, loss) = (&images, &logits, &loss);
                observer.observe(&View { restart: 0, step: index, steps: self.steps, batch, images, logits, loss });
            }
            let gradient = floats(space.restrict(vec![gradient]).remove(0));
            for (i, state) in states.iter_mut().enumerate() {
                let of = i * values..(i + 1) * values;
                state.advance(step, lambdas[i], &gradient[of.clone()], &clean[of], self.ball.range);
            }
        }
        let found: Vec<Found> = states.into_iter().map(|s| s.best.expect("the first iterate is noted")).collect();
        let delta: Vec<f32> = found.iter().flat_map(|f| &f.delta).copied().collect();
        let delta = Tensor::from_data(TensorData::new(delta, dims), &device);
        let found = Minimal {
            images: space.project(vec![batch.images.clone() + delta]).remove(0),
            norms: found.iter().map(|f| f.norm).collect(),
            success: found.iter().map(|f| f.success as f32).collect(),
        };
        let result = clipped(self.ball, &scene, found)?;
        Ok(Adversarial { trace: record.map(Recorder::finish), passes: victim.passes(), ..result })
    }
}

/// The lead of the label over the best other class (targeted: of that over the target) by the spread of the logits, and the
/// pixels that count, `[N, 1, H, W]` both.
fn ratio(logits: &Tensor<4>, goal: &Goal) -> (Tensor<4>, Tensor<4>) {
    let (other, counted) = lead(logits, goal);
    let lead = if goal.targeted { other - TOLERANCE } else { -other + TOLERANCE };
    let lead = if logits.dims()[1] < 3 { lead } else { lead / (spread(logits, goal.targeted) + FLOOR) };
    (lead, counted)
}

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    check(config)?;
    if config.norm != Norm::Linf {
        return Err(config.setting("norm", config.norm, "linf"));
    }
    Ok(Box::new(AlmaProx {
        name: config.name.clone(),
        ball: PixelBall { norm: config.norm, epsilon: config.epsilon, range: config.range },
        lambda: config.step_size.unwrap_or(0.001),
        steps: config.steps,
        target: config.target.clone(),
    }))
}

inventory::submit! {
    Registration {
        name: "alma-prox",
        about: "the smallest linf perturbation that fools 99 % of the pixels, then clipped",
        paper: "https://arxiv.org/abs/2206.07179",
        options: &[],
        defaults: |config| {
            config.steps = 500;
            config.step_size = Some(0.001);
            config.start = Start::Zero;
            config.iterate = Iterate::BestAccuracy;
        },
        build,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proximal_step_clamps_to_the_size_that_pays() {
        let mut delta = [3.0, 1.0];
        proximal(&mut delta, 1.0, &[1.0, 1.0], |_| (-9.0, 9.0));
        assert!((delta[0] - 2.0).abs() < 1e-5 && (delta[1] - 1.0).abs() < 1e-5, "{delta:?}");
        let mut delta = [3.0, 1.0];
        proximal(&mut delta, 10.0, &[1.0, 1.0], |_| (-9.0, 9.0));
        assert!(delta.iter().all(|d| d.abs() < 1e-5), "shrinking all of it pays: {delta:?}");
        let mut delta = [3.0, -1.0];
        proximal(&mut delta, 1e-6, &[1.0, 1.0], |_| (-0.5, 2.5));
        assert!((delta[0] - 2.5).abs() < 1e-4 && (delta[1] + 0.5).abs() < 1e-4, "within the bounds: {delta:?}");
    }

    #[test]
    fn no_other_size_has_a_lower_value() {
        let stream = fireproof_tensor::random::Stream::new(&[4]);
        for case in 0..50 {
            let at = |i: u64| stream.uniform(100 * case + i);
            let start: Vec<f32> = (0..6).map(|i| 4.0 * at(i) - 2.0).collect();
            let metric: Vec<f32> = (0..6).map(|i| at(10 + i) + 0.1).collect();
            let bound = |i: usize| (-at(20 + i as u64) - 0.1, at(30 + i as u64) + 0.1);
            let lambda = at(40);
            let value = |v: &[f32]| {
                let size = v.iter().fold(0.0f32, |m, d| m.max(d.abs()));
                let far: f32 = v.iter().zip(&start).zip(&metric).map(|((v, d), h)| h * (v - d) * (v - d)).sum();
                lambda * size + 0.5 * far
            };
            let mut found = start.clone();
            proximal(&mut found, lambda, &metric, bound);
            let clamped =
                |t: f32| -> Vec<f32> { (0..6).map(|i| start[i].clamp(bound(i).0, bound(i).1).clamp(-t, t)).collect() };
            let brute = (0..=2200).map(|i| value(&clamped(i as f32 * 1e-3))).fold(f32::INFINITY, f32::min);
            assert!(value(&found) <= brute + 1e-4, "case {case}: {} {brute}", value(&found));
        }
    }

    #[test]
    fn the_slope_is_that_of_the_penalty() {
        for (c, rho, mu) in [(0.3, 0.01, 1.0), (2.0, 5.0, 0.2), (-0.4, 0.01, 1.0), (-0.4, 30.0, 0.3), (0.0, 7.0, 0.5)] {
            let h = 1e-6;
            let difference = (penalty(c + h, rho, mu) - penalty(c - h, rho, mu)) / (2.0 * h);
            assert!((difference - slope(c, rho, mu)).abs() < 1e-4 * difference, "{c} {rho} {mu}");
        }
    }
}
