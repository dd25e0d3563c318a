//! The step of APGD.

use burn::tensor::Tensor;
use fireproof_tensor::norm::per_sample;

use super::{Update, UpdateRun, Visit, step_sizes};
use crate::{Result, Scene, Step, Variables, threat::Space};

/// Steepest ascent with a quarter of momentum, whose step is halved, image by image, where it no longer helps; the run then
/// goes on from the best point so far.
///
/// Croce, Hein. *Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks*,
/// ICML 2020. <https://arxiv.org/abs/2003.01690>
///
/// With the projected step `u` from `x_k` the next point is the projection of `x_k + ¾ (u − x_k) + ¼ (x_k − x_{k−1})`. At
/// the [checkpoints](checkpoints) the step of an image is halved if its tracked loss rose in at most ¾ of the steps since
/// the last one, or if the step was not halved there and the best loss has not grown since. Every variable has the samples
/// along its first axis.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Apgd {
    /// Length of the first step, in the units of the images; `None` for the published 2 ε.
    pub step_size: Option<f32>,
}

/// After how many steps a run of `steps` looks back: first after 22 % of them, then at intervals that shrink by 3 % down to
/// 6 %, every share rounded down but never to zero.
pub fn checkpoints(steps: usize) -> Vec<usize> {
    let share = |percent: usize| (percent * steps / 100).max(1);
    let (mut window, shrink, least) = (share(22), share(3), share(6));
    let (mut at, mut all) = (0, Vec::new());
    while at + window <= steps {
        at += window;
        all.push(at);
        window = window.saturating_sub(shrink).max(least);
    }
    all
}

/// Share of rising steps below which a step size counts as too long.
const RISING: f32 = 0.75;
const MOMENTUM: f32 = 0.25;

impl Update for Apgd {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn UpdateRun + 'a>> {
        let given = self.step_size.is_some() || scene.context.step_size.is_some();
        let step_size = given.then(|| step_sizes(scene, self.step_size.unwrap_or(0.0))).transpose()?;
        Ok(Box::new(Run { checkpoints: checkpoints(scene.steps), step_size, state: None }))
    }
}

struct Run {
    checkpoints: Vec<usize>,
    step_size: Option<Tensor<1>>,
    state: Option<State>,
}

/// All `[N]` tensors that count or decide hold zeros and ones.
struct State {
    step_size: Tensor<1>,
    /// The point before the last step.
    before: Variables,
    best: Variables,
    best_gradients: Variables,
    best_loss: Tensor<1>,
    last_loss: Tensor<1>,
    /// Steps since the last checkpoint that raised the loss.
    rises: Tensor<1>,
    last_checkpoint: usize,
    best_at_checkpoint: Tensor<1>,
    halved_at_checkpoint: Tensor<1>,
}

impl State {
    fn new(step_size: Tensor<1>, visit: &Visit) -> Self {
        Self {
            step_size,
            before: visit.variables.clone(),
            best: visit.variables.clone(),
            best_gradients: visit.gradients.clone(),
            best_loss: visit.loss.clone(),
            last_loss: visit.loss.clone(),
            rises: visit.loss.zeros_like(),
            last_checkpoint: 0,
            best_at_checkpoint: visit.loss.clone(),
            // As if it had been halved: the first checkpoint looks at the oscillation only.
            halved_at_checkpoint: visit.loss.ones_like(),
        }
    }

    /// Takes the loss after a step into account.
    fn note(&mut self, visit: &Visit) {
        self.rises = self.rises.clone() + visit.loss.clone().greater(self.last_loss.clone()).float();
        self.last_loss = visit.loss.clone();
        let better = visit.loss.clone().greater(self.best_loss.clone()).float();
        self.best = choose(&better, &visit.variables, &self.best);
        self.best_gradients = choose(&better, &visit.gradients, &self.best_gradients);
        self.best_loss = visit.loss.clone().max_pair(self.best_loss.clone());
    }

    /// Halves the steps that need it and sends their images back to their best point.
    fn look_back(&mut self, step: usize, mut visit: Visit) -> Visit {
        let window = (step - self.last_checkpoint) as f32;
        let oscillates = self.rises.clone().lower_equal_elem(RISING * window).float();
        let stuck = self.best_at_checkpoint.clone().greater_equal(self.best_loss.clone()).float()
            * (self.halved_at_checkpoint.clone() * -1.0 + 1.0);
        let halve = oscillates.max_pair(stuck);
        self.step_size = self.step_size.clone() * (halve.clone() * -0.5 + 1.0);
        visit.variables = choose(&halve, &self.best, &visit.variables);
        visit.gradients = choose(&halve, &self.best_gradients, &visit.gradients);
        self.rises = self.rises.zeros_like();
        self.last_checkpoint = step;
        self.best_at_checkpoint = self.best_loss.clone();
        self.halved_at_checkpoint = halve;
        visit
    }
}

/// `yes` of the samples where `which` `[N]` is one, `no` of the others.
fn choose(which: &Tensor<1>, yes: &Variables, no: &Variables) -> Variables {
    let pick = |(yes, no): (&Tensor<4>, &Tensor<4>)| {
        let mask = per_sample(which).equal_elem(1.0).expand(no.dims());
        no.clone().mask_where(mask, yes.clone())
    };
    yes.iter().zip(no).map(pick).collect()
}

impl UpdateRun for Run {
    fn advance(&mut self, step: Step, mut visit: Visit, space: &dyn Space) -> Variables {
        let first = self.state.is_none();
        let own = || self.step_size.clone().unwrap_or_else(|| space.epsilon().clone() * 2.0);
        let state = self.state.get_or_insert_with(|| State::new(own(), &visit));
        if !first {
            state.note(&visit);
            if self.checkpoints.contains(&step.index) {
                visit = state.look_back(step.index, visit);
            }
        }
        let current = visit.variables.clone();
        let stepped = space.ascend(visit.variables, visit.gradients, &state.step_size);
        let before = std::mem::replace(&mut state.before, current.clone());
        if first {
            return stepped;
        }
        let mixed = stepped.into_iter().zip(current).zip(before).map(|((stepped, current), before)| {
            // Differences first: where nothing moves nothing must change, not even by a rounding.
            let drag = current.clone() - stepped.clone();
            stepped + (drag + (current - before)) * MOMENTUM
        });
        space.project(mixed.collect())
    }
}
