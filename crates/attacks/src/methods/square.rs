//! Square: random squares of ±ε, kept where they help. It asks for no gradient.
//!
//! Andriushchenko, Croce, Flammarion, Hein. *Square Attack: a query-efficient black-box adversarial attack via random
//! search*, ECCV 2020. <https://arxiv.org/abs/1912.00049>; the ℓ∞ attack, for segmentation by the loss of the whole image.
//!
//! From vertical stripes of ±ε on, every query adds a square of ±2 ε at a random place, one sign a channel, brings the image
//! back into the ball and keeps it if the loss has risen. A square covers a share of the image that begins at 0.8 and is
//! halved nine times on the way. The loss is the capped [`margin`](super::margin), so that squares that lower the lead of
//! correct pixels count before any of them falls; any other serves too. From a start at the clean image there are no stripes.
//!
//! Defaults: 1000 queries (`steps`), the lowest accuracy on the way.

use std::cell::RefCell;

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::{Batch, Counted, Norm, Victim, norm::per_sample, random::Stream};

use crate::{
    Adversarial, Attack, AttackConfig, Context, Goal, Iterate, OptionSpec, Registration, Result, Scene, Start, Step,
    Target, View,
    compact::Compact,
    gradient_attack::fits,
    guard::Guard,
    host::floats,
    objective::{Objective, ObjectiveRun, named},
    start::Seeds,
    threat::{PixelBall, Threat},
    trace::Recorder,
    tracker::Best,
};

/// The share of the image that the first squares cover.
const FIRST_SHARE: f32 = 0.8;

/// After which query of 10000 the share is halved; runs of another length have the same proportions.
const HALVINGS: [usize; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];

/// The share of the image that a square covers, with `step.index` squares tried before.
pub fn share(step: Step) -> f32 {
    let at = step.index * 10_000 / step.total;
    let halvings = HALVINGS.iter().filter(|&&after| at > after).count();
    FIRST_SHARE / (1 << halvings) as f32
}

struct Square {
    name: String,
    ball: PixelBall,
    objective: Box<dyn Objective>,
    start: Start,
    iterate: Iterate,
    queries: usize,
    restarts: usize,
    target: Option<Target>,
}

/// What is known of a point.
struct Point {
    images: Tensor<4>,
    loss: Tensor<1>,
    success: Tensor<1>,
}

impl Square {
    fn look(
        &self,
        scene: &Scene,
        objective: &mut dyn ObjectiveRun,
        (restart, step): (usize, Step),
        images: Tensor<4>,
        (compact, record): (&Compact, &mut Option<Recorder>),
    ) -> Result<(Point, Tensor<4>)> {
        let logits = compact.logits(scene.victim, &images)?;
        fits(&logits, scene.batch)?;
        let evaluation = objective.evaluate(step, &logits);
        let evaluation = if scene.goal.targeted { evaluation.negated() } else { evaluation };
        if let Some(record) = record {
            record.record(restart, step.index, &evaluation.loss, &logits, &scene.batch.targets);
        }
        if let Some(observer) = scene.context.observer {
            let (images, logits, loss) = (&images, &logits, &evaluation.loss);
            let (step, steps, batch) = (step.index, step.total, scene.batch);
            observer.observe(&View { restart, step, steps, batch, images, logits, loss });
        }
        Ok((Point { images, loss: evaluation.loss, success: scene.goal.success(&logits) }, logits))
    }

    /// One run of the images that are not `settled`: the best of each, and the logits of the last query.
    fn once(
        &self,
        scene: &Scene,
        restart: usize,
        settled: &Compact,
        record: &mut Option<Recorder>,
    ) -> Result<(Best, Tensor<4>)> {
        let space = self.ball.bind(scene)?;
        let mut objective = self.objective.begin(scene)?;
        let mut guard = Guard::new(&self.name, *scene);
        let dims = scene.batch.dims();
        let radii = floats(space.epsilon().clone());
        let seeds = Seeds::new(&self.name, scene.context, restart);
        let streams: Vec<Stream> = scene.batch.ids.iter().map(|id| seeds.stream(*id)).collect();
        let added = |to: &Tensor<4>, change: Vec<f32>| {
            let change = Tensor::from_data(TensorData::new(change, dims), &to.device());
            space.project(vec![to.clone() + change]).remove(0)
        };
        let start = match (scene.context.start, self.start) {
            (None, Start::Random) => added(&scene.batch.images, stripes(&streams, &radii, dims)),
            _ => space.start(Start::Zero, &seeds)?.remove(0),
        };
        let at = |index| (restart, Step { index, total: self.queries });
        let mut compact = settled.clone();
        let (mut kept, mut seen) = self.look(scene, &mut *objective, at(0), start, (&compact, &mut *record))?;
        let ceiling = Iterate::BestAccuracy.ceiling();
        let mut best = Best { images: kept.images.clone(), score: kept.success.clone() };
        for query in 1..=self.queries {
            let change = squares(&streams, &radii, dims, at(query).1);
            let tried = added(&kept.images, change);
            let (tried, logits) = self.look(scene, &mut *objective, at(query), tried, (&compact, &mut *record))?;
            guard.check(at(query).1, &tried.loss, &tried.images)?;
            if self.iterate == Iterate::BestAccuracy {
                best = Best::merge_below(Some(best), tried.images.clone(), tried.success.clone(), true, ceiling);
            }
            let better = tried.loss.clone().greater(kept.loss.clone());
            let everywhere = per_sample(&better.clone().float()).equal_elem(1.0).expand(dims);
            kept = Point {
                images: kept.images.mask_where(everywhere, tried.images),
                loss: kept.loss.mask_where(better.clone(), tried.loss),
                success: kept.success.mask_where(better, tried.success),
            };
            if self.iterate == Iterate::BestAccuracy && query % 10 == 0 {
                compact.close(&best.score, ceiling, &logits);
            }
            seen = logits;
            if compact.is_empty() {
                break;
            }
        }
        guard.read()?;
        let found = match self.iterate {
            Iterate::BestAccuracy => best,
            Iterate::Last => Best { images: kept.images, score: kept.success },
            // What is kept has the highest loss of all.
            Iterate::BestLoss => Best { images: kept.images, score: kept.loss },
        };
        Ok((found, seen))
    }
}

/// A random sign of ε for every column and channel, `[N, C, H, W]`.
fn stripes(streams: &[Stream], radii: &[f32], [_, c, h, w]: [usize; 4]) -> Vec<f32> {
    let mut values = Vec::with_capacity(streams.len() * c * h * w);
    for (stream, radius) in streams.iter().zip(radii) {
        let stream = stream.child("stripes");
        for channel in 0..c {
            let row: Vec<f32> = (0..w).map(|x| radius * sign(&stream, (channel * w + x) as u64)).collect();
            (0..h).for_each(|_| values.extend(&row));
        }
    }
    values
}

/// A square of ±2 ε at a random place, one sign a channel, `[N, C, H, W]`.
fn squares(streams: &[Stream], radii: &[f32], [_, c, h, w]: [usize; 4], step: Step) -> Vec<f32> {
    let tried = Step { index: step.index - 1, ..step };
    let side = ((share(tried) * (h * w) as f32).sqrt().round() as usize).clamp(1, h.min(w));
    let mut values = vec![0.0; streams.len() * c * h * w];
    for (image, (stream, radius)) in values.chunks_mut(c * h * w).zip(streams.iter().zip(radii)) {
        let counter = (c as u64 + 2) * step.index as u64;
        let top = stream.below(counter, (h - side + 1) as u64) as usize;
        let left = stream.below(counter + 1, (w - side + 1) as u64) as usize;
        for (channel, plane) in image.chunks_mut(h * w).enumerate() {
            let value = 2.0 * radius * sign(stream, counter + 2 + channel as u64);
            plane.chunks_mut(w).skip(top).take(side).for_each(|row| row[left..left + side].fill(value));
        }
    }
    values
}

fn sign(stream: &Stream, counter: u64) -> f32 {
    if stream.below(counter, 2) == 0 { -1.0 } else { 1.0 }
}

impl Attack for Square {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let victim = Counted::new(victim);
        let goal = Goal::of(batch, self.target.as_ref(), context)?;
        let scene = Scene { victim: &victim, batch, goal: &goal, steps: self.queries, context };
        let record = RefCell::new(context.trace.then(Recorder::default));
        let mut best: Option<Best> = None;
        let mut settled = Compact::default();
        for restart in 0..self.restarts {
            let (found, logits) = self.once(&scene, restart, &settled, &mut record.borrow_mut())?;
            let merged = Best::merge(best, found.images, found.score, false);
            if self.iterate == Iterate::BestAccuracy && restart + 1 < self.restarts {
                settled.close(&merged.score, self.iterate.ceiling(), &logits);
            }
            best = Some(merged);
            if settled.is_empty() {
                break;
            }
        }
        let images = best.expect("at least one restart").images;
        let trace = record.into_inner().map(Recorder::finish);
        Ok(Adversarial { trace, ..Adversarial::new(images, victim.passes()) })
    }
}

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    config.check()?;
    if config.norm != Norm::Linf {
        return Err(config.setting("norm", config.norm, "linf"));
    }
    let mut named_config = config.clone();
    named_config.options.entry(named::OPTION.into()).or_insert_with(|| "margin".into());
    Ok(Box::new(Square {
        name: config.name.clone(),
        ball: PixelBall { norm: config.norm, epsilon: config.epsilon, range: config.range },
        objective: named::chosen(&named_config)?,
        start: config.start,
        iterate: config.iterate,
        queries: config.steps,
        restarts: config.restarts,
        target: config.target.clone(),
    }))
}

inventory::submit! {
    Registration {
        name: "square",
        about: "random squares kept where they help: no gradient, linf only",
        paper: "https://arxiv.org/abs/1912.00049",
        options: &[OptionSpec { name: named::OPTION, values: "margin, or the name of another objective, e.g. ce, dice" }],
        defaults: |config| {
            config.steps = 1000;
            config.iterate = Iterate::BestAccuracy;
        },
        build,
    }
}
