//! What attacks have in common that look for the smallest perturbation instead of the worst one in a ball.

use burn::tensor::{Bool, Tensor};
use fireproof_tensor::{Batch, Counted, Norm, Passes, Unit, Victim};

use crate::{
    Adversarial, AttackConfig, Context, Goal, Iterate, Minimal, Result, Scene, Start, Step, Target, View,
    compact::Compact,
    gradient_attack::fits,
    guard::Guard,
    host::{floats, upload},
    objective::Evaluation,
    threat::{PixelBall, Space, Threat},
    trace::Recorder,
};

/// Share of valid pixels that must be fooled for an image to count as fooled.
pub(crate) const FOOLED: f32 = 0.99;

/// Refuses settings that such an attack does not have.
pub(crate) fn check(config: &AttackConfig) -> Result<()> {
    config.check()?;
    if config.unit != Unit::Pixel {
        return Err(config.setting("unit", config.unit, "pixel, since the valid range is a part of the search"));
    }
    if config.start != Start::Zero {
        return Err(config.setting("start", config.start, "zero, since the smallest perturbation is sought"));
    }
    if config.iterate != Iterate::BestAccuracy {
        return Err(config.setting("iterate", config.iterate, "best-accuracy, of equals the smallest"));
    }
    Ok(())
}

/// The defaults that [`check`] asks for.
pub(crate) fn defaults(config: &mut AttackConfig) {
    config.start = Start::Zero;
    config.iterate = Iterate::BestAccuracy;
}

/// Brings what was found into the ball; `passes` and trace are the caller's to fill in.
pub(crate) fn clipped(ball: PixelBall, scene: &Scene, found: Minimal) -> Result<Adversarial> {
    let images: Tensor<4> = ball.bind(scene)?.project(vec![found.images.clone()]).remove(0);
    Ok(Adversarial { minimal: Some(found), ..Adversarial::new(images, Passes::default()) })
}

/// The settings of a search.
#[derive(Clone)]
pub(crate) struct Minimiser {
    pub(crate) name: String,
    /// Into which the result is clipped; its norm is the one that is made small.
    pub(crate) ball: PixelBall,
    pub(crate) target: Option<Target>,
}

impl Minimiser {
    pub(crate) fn new(config: &AttackConfig) -> Result<Self> {
        check(config)?;
        let ball = PixelBall { norm: config.norm, epsilon: config.epsilon, range: config.range };
        Ok(Self { name: config.name.clone(), ball, target: config.target.clone() })
    }

    /// Runs `body`, which looks where it wants; the result is the best that it saw. `steps` is the number of its looks.
    pub(crate) fn run(
        &self,
        steps: usize,
        (victim, batch, context): (&dyn Victim, &Batch, &Context),
        body: impl FnOnce(&mut Search) -> Result<()>,
    ) -> Result<Adversarial> {
        let victim = Counted::new(victim);
        let goal = Goal::of(batch, self.target.as_ref(), context)?;
        let scene = Scene { victim: &victim, batch, goal: &goal, steps, context };
        // Only the mask and the checks of the images are the ball's.
        let free_context = Context { epsilon: None, start: None, ..*context };
        let free = PixelBall { epsilon: f32::INFINITY, ..self.ball };
        let space = free.bind(&Scene { context: &free_context, ..scene })?;
        let n = batch.len();
        let mut search = Search {
            scene,
            space: &*space,
            norm: self.ball.norm,
            guard: Guard::new(&self.name, scene),
            record: context.trace.then(Recorder::default),
            seen: None,
            best: Best { images: batch.images.clone(), norms: vec![0.0; n], success: vec![-1.0; n] },
        };
        body(&mut search)?;
        search.guard.read()?;
        let Search { record, best, .. } = search;
        // An image that nobody looked at while it was anything but clean stays clean, and fools what it fools.
        let success = best.success.iter().map(|s| s.max(0.0)).collect();
        let found = Minimal { images: best.images, norms: best.norms, success };
        let result = clipped(self.ball, &scene, found)?;
        Ok(Adversarial { trace: record.map(Recorder::finish), passes: victim.passes(), ..result })
    }
}

/// A search in progress.
pub(crate) struct Search<'a> {
    pub(crate) scene: Scene<'a>,
    /// The valid range and the mask.
    pub(crate) space: &'a dyn Space,
    norm: Norm,
    guard: Guard<'a>,
    record: Option<Recorder>,
    /// Logits of the last look, `[N, K, H, W]`.
    seen: Option<Tensor<4>>,
    best: Best,
}

/// What a look has shown.
pub(crate) struct Look {
    /// At the images, without what may not change, `[N, C, H, W]`.
    pub(crate) gradient: Tensor<4>,
    /// `[N]`, as the loss of the evaluation.
    pub(crate) loss: Vec<f32>,
    /// Which images are fooled.
    pub(crate) fooled: Vec<bool>,
    /// The norm of each perturbation.
    pub(crate) norms: Vec<f32>,
}

/// The best perturbation of each image so far.
struct Best {
    images: Tensor<4>,
    norms: Vec<f32>,
    success: Vec<f32>,
}

impl Search<'_> {
    /// One forward and one backward pass at images within the range. Only those that are `open` make it, and may become the
    /// best; the others show their last logits and a gradient of zero, so they must stay where they are.
    pub(crate) fn look(
        &mut self,
        step: Step,
        images: &Tensor<4>,
        open: &[bool],
        evaluate: &mut dyn FnMut(&Tensor<4>) -> Evaluation,
    ) -> Result<Look> {
        let Scene { victim, batch, goal, .. } = self.scene;
        let mut seen = None;
        let compact = self.compact(open);
        let (logits, gradient) = compact.pull_back(victim, images.clone(), &mut |logits| {
            fits(&logits, batch)?;
            let evaluation = evaluate(&logits);
            let evaluation = if goal.targeted { evaluation.negated() } else { evaluation };
            let cotangent = evaluation.cotangent.clone();
            seen = Some(evaluation.loss);
            Ok(cotangent)
        })?;
        let loss = seen.expect("a victim's pull_back asks for the gradient at its logits");
        self.guard.check(step, &loss, &gradient)?;
        // Decisions on the host come next: a NaN must not get that far.
        self.guard.read()?;
        if let Some(record) = &mut self.record {
            record.record(0, step.index, &loss, &logits, &batch.targets);
        }
        if let Some(observer) = self.scene.context.observer {
            let (logits, loss) = (&logits, &loss);
            observer.observe(&View { restart: 0, step: step.index, steps: step.total, batch, images, logits, loss });
        }
        let success = floats(goal.success(&logits));
        self.seen = Some(logits);
        let norms = floats(self.norm.of(images.clone() - batch.images.clone()));
        self.best.offer(images, open, &norms, &success);
        let gradient = self.space.restrict(vec![gradient]).remove(0);
        let fooled = success.iter().map(|s| *s >= FOOLED).collect();
        Ok(Look { gradient, loss: floats(loss), fooled, norms })
    }

    /// The gradient at the images of another loss than the one that was looked at, without what may not change: one more forward
    /// and backward pass of those that are `open`.
    pub(crate) fn gradient(
        &self,
        images: &Tensor<4>,
        open: &[bool],
        cotangent: &dyn Fn() -> Tensor<4>,
    ) -> Result<Tensor<4>> {
        let victim = self.scene.victim;
        let (_, gradient) = self.compact(open).pull_back(victim, images.clone(), &mut |_| Ok(cotangent()))?;
        Ok(self.space.restrict(vec![gradient]).remove(0))
    }

    fn compact(&self, open: &[bool]) -> Compact {
        self.seen.as_ref().map_or_else(Compact::default, |seen| Compact::only(open, seen))
    }

    /// The smallest norm at which an image was fooled.
    pub(crate) fn smallest(&self, image: usize) -> Option<f32> {
        (self.best.success[image] >= FOOLED).then_some(self.best.norms[image])
    }

    /// Images nearest to these that may be shown.
    pub(crate) fn valid(&self, images: Tensor<4>) -> Tensor<4> {
        self.space.project(vec![images]).remove(0)
    }
}

impl Best {
    /// Takes over images that are fooled by less, or, where nothing fools an image yet, that are fooled more. The clean image
    /// is no candidate, unless it is fooled as it is.
    fn offer(&mut self, images: &Tensor<4>, open: &[bool], norms: &[f32], success: &[f32]) {
        let better = |i: usize| {
            if success[i] >= FOOLED {
                self.success[i] < FOOLED || norms[i] < self.norms[i]
            } else {
                norms[i] > 0.0 && success[i] > self.success[i]
            }
        };
        let better: Vec<bool> = (0..open.len()).map(|i| open[i] && better(i)).collect();
        if !better.contains(&true) {
            return;
        }
        for i in (0..better.len()).filter(|&i| better[i]) {
            (self.norms[i], self.success[i]) = (norms[i], success[i]);
        }
        self.images = self.images.clone().mask_where(everywhere(&better, images), images.clone());
    }
}

/// One flag an image, at every value of it.
pub(crate) fn everywhere(flags: &[bool], like: &Tensor<4>) -> Tensor<4, Bool> {
    let flags: Vec<f32> = flags.iter().map(|&flag| f32::from(u8::from(flag))).collect();
    upload(&flags, like).reshape([-1, 1, 1, 1]).equal_elem(1.0).expand(like.dims())
}

/// Mean and mean square of gradients, as in Adam (Kingma, Ba, ICLR 2015), with its published constants.
pub(crate) struct Moments {
    mean: Tensor<4>,
    square: Tensor<4>,
}

impl Moments {
    const MEAN: f64 = 0.9;
    const SQUARE: f64 = 0.999;

    pub(crate) fn new(like: &Tensor<4>) -> Self {
        Self { mean: like.zeros_like(), square: like.zeros_like() }
    }

    /// Takes in the gradient of step `index`, from 0: the unbiased mean, and the root of the unbiased mean square.
    pub(crate) fn take(&mut self, gradient: Tensor<4>, index: usize) -> (Tensor<4>, Tensor<4>) {
        let count = index as i32 + 1;
        self.mean = self.mean.clone() * Self::MEAN + gradient.clone() * (1.0 - Self::MEAN);
        self.square = self.square.clone() * Self::SQUARE + gradient.square() * (1.0 - Self::SQUARE);
        let root = self.square.clone().sqrt() / (1.0 - Self::SQUARE.powi(count)).sqrt() + 1e-8;
        (self.mean.clone() / (1.0 - Self::MEAN.powi(count)), root)
    }
}
