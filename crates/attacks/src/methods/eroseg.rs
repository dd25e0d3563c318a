//! EroSeg: erode correct pixels from the least confident on.
//!
//! arXiv 2601.14950 (2026). <https://arxiv.org/abs/2601.14950>
//!
//! Only pixels that are correct and whose highest probability is below `τ_t = 1 − (1 − τ₀) e^{−βt}` count, with
//! `τ₀ = β = 0.8` and `t` steps done: the threshold opens from 0.8 to 1 within a few steps, so that pixels near a boundary
//! fall first and the confident ones behind them after. Foreground classes weigh 0.7, the background class 0.3.
//!
//! Defaults: α = 0.001 as in the paper. Ten such steps travel 0.01 from the start, a third of ε = 8/255: take more steps,
//! or longer ones, to evaluate a defense.

use burn::tensor::{Tensor, activation::softmax};

use crate::{
    AttackConfig, Goal, GradientAttack, OptionSpec, Registration, Result, Step,
    objective::{NamedObjective, Objective, PixelWeight, Weighted},
};

const THRESHOLD: f32 = 0.8;
const RATE: f32 = 0.8;
const FOREGROUND: f32 = 0.7;
const BACKGROUND: f32 = 0.3;

/// The weight map of EroSeg.
#[derive(Clone, Copy, Debug)]
pub struct EroSeg {
    /// The background class; without one every class is foreground.
    pub background: Option<u8>,
}

impl Default for EroSeg {
    fn default() -> Self {
        Self { background: Some(0) }
    }
}

/// The probability below which a correct pixel counts at a step.
pub fn threshold(step: Step) -> f32 {
    1.0 - (1.0 - THRESHOLD) * (-RATE * step.index as f32).exp()
}

impl PixelWeight for EroSeg {
    fn weights(&self, step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
        let [n, _, height, width] = logits.dims();
        let confidence = softmax(logits.clone(), 1).max_dim(1).reshape([n, height, width]);
        // The threshold rounds to one after some twenty steps; a probability that rounds to one must count then.
        let reached = match threshold(step) {
            tau if tau < 1.0 => goal.open(logits) * confidence.lower_elem(tau).float(),
            _ => goal.open(logits),
        };
        Some(match self.background {
            Some(class) => {
                let background = goal.targets.labels().clone().equal_elem(i32::from(class)).float();
                reached * (background * (BACKGROUND - FOREGROUND) + FOREGROUND)
            }
            None => reached,
        })
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

const VALUES: &str = "0, another class, or none";

const OPTIONS: &[OptionSpec] = &[OptionSpec { name: "background", values: VALUES }];

fn objective(config: &AttackConfig) -> Result<Box<dyn Objective>> {
    let background = match config.options.get("background").map(String::as_str) {
        Some("none") => None,
        _ => Some(config.option("background", 0u8, VALUES)?),
    };
    Ok(Box::new(Weighted(EroSeg { background })))
}

inventory::submit! {
    NamedObjective { name: "eroseg", options: OPTIONS, build: objective }
}

inventory::submit! {
    Registration {
        name: "eroseg",
        about: "PGD that erodes correct pixels from the least confident on",
        paper: "https://arxiv.org/abs/2601.14950",
        options: OPTIONS,
        defaults: |config| config.step_size = Some(0.001),
        build: |config| Ok(Box::new(GradientAttack::new(config, objective(config)?)?)),
    }
}
