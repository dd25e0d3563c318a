//! Random noise of size ε: not an attack, but what every attack must beat by far.
//!
//! The points at which attacks start at random: uniform in the ball (ℓ∞), or of length ε (ℓ2). Of as many draws as there
//! are restarts each image keeps the one with the lowest accuracy. A model whose score falls under noise is fragile; one
//! whose attacks do no more than noise hides its gradient.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Counted, Victim, ops::cross_entropy};

use crate::{
    Adversarial, Attack, AttackConfig, Context, Error, Goal, Iterate, Registration, Result, Scene, Start, Target, View,
    compact::Compact,
    gradient_attack::fits,
    objective::per_image,
    start::Seeds,
    threat::{PixelBall, Threat},
    trace::Recorder,
    tracker::Best,
};

/// The best of several random points.
struct Noise {
    name: String,
    ball: PixelBall,
    draws: usize,
    target: Option<Target>,
}

impl Attack for Noise {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let victim = Counted::new(victim);
        let goal = Goal::of(batch, self.target.as_ref(), context)?;
        // Noise has no other start than noise.
        let context = &Context { start: None, ..*context };
        let scene = Scene { victim: &victim, batch, goal: &goal, steps: 0, context };
        let space = self.ball.bind(&scene)?;
        let mut record = context.trace.then(Recorder::default);
        let mut best: Option<Best> = None;
        let mut compact = Compact::default();
        for restart in 0..self.draws {
            let images = space.apply(&space.start(Start::Random, &Seeds::new(&self.name, context, restart))?);
            let logits = compact.logits(&victim, &images)?;
            fits(&logits, batch)?;
            let loss = per_image(cross_entropy(logits.clone(), &goal.targets)) * if goal.targeted { -1.0 } else { 1.0 };
            self.finite(&loss, batch)?;
            if let Some(record) = &mut record {
                record.record(restart, 0, &loss, &logits, &batch.targets);
            }
            if let Some(observer) = context.observer {
                let (images, logits, loss) = (&images, &logits, &loss);
                observer.observe(&View { restart, step: 0, steps: 0, batch, images, logits, loss });
            }
            let merged = Best::merge(best, images, goal.success(&logits), false);
            if restart + 1 < self.draws {
                compact.close(&merged.score, Iterate::BestAccuracy.ceiling(), &logits);
            }
            best = Some(merged);
            if compact.is_empty() {
                break;
            }
        }
        let images = best.expect("at least one restart").images;
        let trace = record.map(Recorder::finish);
        Ok(Adversarial { trace, ..Adversarial::new(images, victim.passes()) })
    }
}

impl Noise {
    fn finite(&self, loss: &Tensor<1>, batch: &Batch) -> Result<()> {
        match crate::host::floats(loss.clone()).iter().position(|l| !l.is_finite()) {
            None => Ok(()),
            Some(i) => Err(Error::NotFinite {
                attack: self.name.clone(),
                what: "the loss",
                sample: batch.ids[i],
                step: 0,
                steps: 0,
                device: format!("{:?}", loss.device()),
            }),
        }
    }
}

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    config.check()?;
    if config.steps != 1 {
        return Err(config.setting("steps", config.steps, "1; more draws are restarts"));
    }
    if config.start == Start::Zero {
        return Err(config.setting("start", config.start, "random"));
    }
    let ball = PixelBall { norm: config.norm, epsilon: config.epsilon, range: config.range };
    let (name, draws, target) = (config.name.clone(), config.restarts, config.target.clone());
    Ok(Box::new(Noise { name, ball, draws, target }))
}

inventory::submit! {
    Registration {
        name: "noise",
        about: "random noise of size epsilon, the worst of as many draws as restarts: a control",
        paper: "none",
        options: &[],
        defaults: |config| config.steps = 1,
        build,
    }
}
