//! C&W: the smallest ℓ2 perturbation, by Adam on its square and a margin.
//!
//! Carlini, Wagner. *Towards Evaluating the Robustness of Neural Networks*, IEEE S&P 2017, §VI.A.
//! <https://arxiv.org/abs/1608.04644>
//!
//! Minimise `‖x' − x‖₂² + c Σ max(z_y − max_{j≠y} z_j, −κ)` over `w`, where `x' = ½ (tanh w + 1)` stays in the valid range by
//! itself. The sum is over valid pixels, so classification is the case of one. `c` is searched for each image: ten times as
//! much until it is fooled, then bisection between what fools and what does not. A round ends for an image whose objective
//! has not fallen over a tenth of the steps.
//!
//! An image's result is its smallest perturbation that fools 99 % of the valid pixels, else its most successful one. For a
//! number in a ball it is clipped to ε; [`Adversarial::minimal`] holds what was found. ℓ2 only.
//!
//! Defaults: 5 rounds (`rounds`) of 50 steps of 0.01 (`step_size`), κ = 0, the first `c` = 1; the paper has 9 rounds of up to
//! 10 000 steps from `c` = 0.001 on. ε = 128/255, a radius that others clip ℓ2 attacks to.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Norm, Victim, norm::per_sample};

use super::margin::Margin;
use crate::{
    Adversarial, Attack, AttackConfig, Context, OptionSpec, Registration, Result, Step,
    host::upload,
    minimal::{self, Minimiser, Moments, everywhere},
    objective::{Objective, PerImage},
};

struct Cw {
    search: Minimiser,
    step_size: f32,
    /// Of a round.
    steps: usize,
    rounds: usize,
    kappa: f32,
    /// The first weight of the margin.
    c: f32,
}

/// The weight of an image's margin, and between which it lies.
#[derive(Clone, Copy)]
struct Weight {
    c: f32,
    fails: f32,
    fools: f32,
}

impl Weight {
    fn next(&mut self, fooled: bool) {
        if fooled {
            self.fools = self.fools.min(self.c);
        } else {
            self.fails = self.fails.max(self.c);
        }
        self.c = if self.fools.is_finite() { 0.5 * (self.fails + self.fools) } else { 10.0 * self.c };
    }
}

/// Keeps `w` finite at the ends of the range.
const EDGE: f32 = 1.0 - 1e-6;

impl Attack for Cw {
    fn name(&self) -> &str {
        &self.search.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let total = self.rounds * self.steps;
        let n = batch.len();
        let step_sizes = Context::per_sample("step size", context.step_size, self.step_size, n)?;
        let [low, high] = self.search.ball.range;
        let half = 0.5 * (high - low);
        self.search.run(total, (victim, batch, context), |search| {
            let clean = batch.images.clone();
            let step_size = per_sample(&upload(&step_sizes, &clean));
            let objective = PerImage(Margin { kappa: self.kappa });
            let mut margin = objective.begin(&search.scene)?;
            let scaled = ((clean.clone() - low) / half - 1.0).clamp(-EDGE, EDGE);
            let first = ((scaled.clone() + 1.0) / (-scaled + 1.0)).log() * 0.5;
            // What a `w` stands for is measured from where it began, so that beginning there changes nothing.
            let origin = first.clone().tanh();
            let mut weights = vec![Weight { c: self.c, fails: 0.0, fools: f32::INFINITY }; n];
            for round in 0..self.rounds {
                let mut w = first.clone();
                let mut moments = Moments::new(&w);
                let mut before = vec![f32::INFINITY; n];
                let mut open = vec![true; n];
                let mut fooled = vec![false; n];
                let c = per_sample(&upload(&weights.iter().map(|w| w.c).collect::<Vec<_>>(), &w));
                for index in 0..self.steps {
                    let step = Step { index: round * self.steps + index, total };
                    let images = search.valid(clean.clone() + (w.clone().tanh() - origin.clone()) * half);
                    let look = search.look(step, &images, &open, &mut |logits| margin.evaluate(step, logits))?;
                    (0..n).for_each(|i| fooled[i] |= open[i] && look.fooled[i]);
                    let cost = |i: usize| look.norms[i] * look.norms[i] - weights[i].c * look.loss[i];
                    if index % (self.steps / 10).max(1) == 0 {
                        for i in 0..n {
                            open[i] &= cost(i) <= before[i];
                            before[i] = cost(i);
                        }
                        if !open.contains(&true) {
                            break;
                        }
                    }
                    // The loss is what the attack raises, so its gradient is that of minus the margin.
                    let change = images - clean.clone();
                    let gradient = change * 2.0 - look.gradient * c.clone();
                    let slope = (w.clone().tanh().square() * -1.0 + 1.0) * half;
                    let (mean, root) = moments.take(search.space.restrict(vec![gradient]).remove(0) * slope, index);
                    let moved: Tensor<4> = w.clone() - mean / root * step_size.clone();
                    w = w.mask_where(everywhere(&open, &moved), moved);
                }
                weights.iter_mut().zip(fooled).for_each(|(weight, fooled)| weight.next(fooled));
            }
            Ok(())
        })
    }
}

const C: &str = "1, or another weight of the margin to begin with, positive";
const KAPPA: &str = "0, or the lead of the wrong class that is asked for, in logits, not negative";
const ROUNDS: &str = "5, or how many weights are tried, at least 1";

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    let search = Minimiser::new(config)?;
    if config.norm != Norm::L2 {
        return Err(config.setting("norm", config.norm, "l2"));
    }
    let (c, kappa) = (config.option("c", 1.0f32, C)?, config.option("kappa", 0.0f32, KAPPA)?);
    let rounds = config.option("rounds", 5, ROUNDS)?;
    if !(c.is_finite() && c > 0.0) {
        return Err(config.setting("c", c, C));
    }
    if !(kappa.is_finite() && kappa >= 0.0) {
        return Err(config.setting("kappa", kappa, KAPPA));
    }
    if rounds == 0 {
        return Err(config.setting("rounds", rounds, ROUNDS));
    }
    let (step_size, steps) = (config.step_size.unwrap_or(0.01), config.steps);
    Ok(Box::new(Cw { search, step_size, steps, rounds, kappa, c }))
}

inventory::submit! {
    Registration {
        name: "cw",
        about: "the smallest l2 perturbation by Adam on its square and a margin, then clipped",
        paper: "https://arxiv.org/abs/1608.04644",
        options: &[
            OptionSpec { name: "c", values: C },
            OptionSpec { name: "kappa", values: KAPPA },
            OptionSpec { name: "rounds", values: ROUNDS },
        ],
        defaults: |config| {
            config.norm = Norm::L2;
            config.epsilon = 128.0 / 255.0;
            config.steps = 50;
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
    fn the_weight_grows_until_it_fools_and_is_bisected_then() {
        let mut weight = Weight { c: 1.0, fails: 0.0, fools: f32::INFINITY };
        let found = [false, true, false, true].map(|fooled| {
            weight.next(fooled);
            weight.c
        });
        assert_eq!(found, [10.0, 5.5, 7.75, 6.625]);
    }
}
