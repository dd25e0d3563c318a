//! DAG: steps along the gradient of the pixels that still hold, until nearly all of them are fooled.
//!
//! Xie, Wang, Zhang, Zhou, Xie, Yuille. *Adversarial Examples for Semantic Segmentation and Object Detection*, ICCV 2017.
//! <https://arxiv.org/abs/1703.08603>; the step and the threshold as in adv-lib.
//!
//! `r ← r + γ g / ‖g‖` with the gradient `g` of the summed lead of correct pixels, in the norm of the settings. There is no
//! ball: an image is done once 99 % of its valid pixels are fooled, and the sum of the steps is then its perturbation. Where
//! that is never reached the iterate with the most fooled pixels is kept, never the clean image. For a robustness number in
//! a ball the result is clipped to ε; [`Adversarial::minimal`] holds what was found, whatever its size.
//!
//! Defaults: 200 steps of γ = 0.003 (ℓ∞), a value that Halmosi et al. use for images in `[0, 1]`.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Counted, Victim, norm::per_sample};

use super::margin::Margin;
use crate::{
    Adversarial, Attack, AttackConfig, Context, Goal, Iterate, Minimal, Registration, Result, Scene, Start, Step,
    Target, View,
    compact::Compact,
    gradient_attack::fits,
    guard::Guard,
    host::floats,
    minimal::{FOOLED, check, clipped},
    objective::{Objective, PerImage},
    threat::{PixelBall, Threat},
    trace::Recorder,
    tracker::Best,
};

struct Dag {
    name: String,
    ball: PixelBall,
    /// Length of a step.
    gamma: f32,
    steps: usize,
    target: Option<Target>,
}

impl Attack for Dag {
    fn name(&self) -> &str {
        &self.name
    }

    fn step_size(&self) -> Option<f32> {
        Some(self.gamma)
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let victim = Counted::new(victim);
        let goal = Goal::of(batch, self.target.as_ref(), context)?;
        let scene = Scene { victim: &victim, batch, goal: &goal, steps: self.steps, context };
        // Only the mask and the checks of the images are the ball's.
        let free_context = Context { epsilon: None, start: None, ..*context };
        let free = PixelBall { epsilon: f32::INFINITY, ..self.ball };
        let space = free.bind(&Scene { context: &free_context, ..scene })?;
        let gamma = crate::update::step_sizes(&scene, self.gamma)?;
        let objective = PerImage(Margin::default());
        let mut run = objective.begin(&scene)?;
        let mut guard = Guard::new(&self.name, scene);
        let mut record = context.trace.then(Recorder::default);
        let [low, high] = self.ball.range;
        let mut moved = batch.images.clone();
        let mut best: Option<Best> = None;
        let mut compact = Compact::default();
        for index in 0..=self.steps {
            let step = Step { index, total: self.steps };
            let images = space.project(vec![moved.clone()]).remove(0);
            let mut seen = None;
            let mut evaluate = |logits: Tensor<4>| {
                fits(&logits, batch)?;
                let evaluation = run.evaluate(step, &logits);
                let evaluation = if goal.targeted { evaluation.negated() } else { evaluation };
                let cotangent = evaluation.cotangent.clone();
                seen = Some((logits, evaluation));
                Ok::<_, fireproof_tensor::Error>(cotangent)
            };
            let gradient = if index < self.steps {
                Some(compact.pull_back(&victim, images.clone(), &mut evaluate)?.1)
            } else {
                evaluate(compact.logits(&victim, &images)?)?;
                None
            };
            let (logits, evaluation) = seen.expect("a victim's pull_back asks for the gradient at its logits");
            guard.check(step, &evaluation.loss, gradient.as_ref().unwrap_or(&images))?;
            if let Some(record) = &mut record {
                record.record(0, index, &evaluation.loss, &logits, &batch.targets);
            }
            if let Some(observer) = context.observer {
                let (images, logits, loss) = (&images, &logits, &evaluation.loss);
                observer.observe(&View { restart: 0, step: index, steps: self.steps, batch, images, logits, loss });
            }
            // The first iterate that reaches the threshold is the smallest, before it the one with the most success counts.
            // The clean image is no candidate, unless it is fooled as it is.
            let success = goal.success(&logits);
            let score = match index {
                0 => success.clone().mask_fill(success.lower_elem(FOOLED), -1.0),
                _ => success,
            };
            let merged = Best::merge_below(best, images, score, false, FOOLED);
            let done = merged.score.clone().greater_equal_elem(FOOLED);
            compact.close(&merged.score, FOOLED, &logits);
            best = Some(merged);
            let Some(gradient) = gradient.filter(|_| !compact.is_empty()) else { break };
            // A value beyond the range is clamped in the image and has no gradient there.
            let outside = moved.clone().lower_elem(low).bool_or(moved.clone().greater_elem(high));
            let gradient = space.restrict(vec![gradient.mask_fill(outside, 0.0)]).remove(0);
            let length = self.ball.norm.of(gradient.clone()).clamp_min(1e-8);
            let scale = (gamma.clone() / length).mask_fill(done, 0.0);
            moved = moved + gradient * per_sample(&scale);
        }
        guard.read()?;
        let best = best.expect("the first iterate is scored");
        let norms = floats(self.ball.norm.of(best.images.clone() - batch.images.clone()));
        let found = Minimal { images: best.images, norms, success: floats(best.score) };
        let result = clipped(self.ball, &scene, found)?;
        Ok(Adversarial { trace: record.map(Recorder::finish), passes: victim.passes(), ..result })
    }
}

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    check(config)?;
    Ok(Box::new(Dag {
        name: config.name.clone(),
        ball: PixelBall { norm: config.norm, epsilon: config.epsilon, range: config.range },
        gamma: config.step(),
        steps: config.steps,
        target: config.target.clone(),
    }))
}

inventory::submit! {
    Registration {
        name: "dag",
        about: "steps along the correct pixels' gradient until 99 % are fooled, then clipped",
        paper: "https://arxiv.org/abs/1703.08603",
        options: &[],
        defaults: |config| {
            config.steps = 200;
            config.step_size = Some(0.003);
            config.start = Start::Zero;
            config.iterate = Iterate::BestAccuracy;
        },
        build,
    }
}
