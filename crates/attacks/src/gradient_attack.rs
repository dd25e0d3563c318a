//! The one loop behind every attack that follows a gradient.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Counted, Victim};

use crate::{
    Adversarial, Attack, AttackConfig, Context, Error, Goal, Iterate, Observer, Radii, Result, Scene, Start, Step,
    Target, View,
    compact::Compact,
    guard::Guard,
    host::floats,
    objective::{Evaluation, Objective},
    start::Seeds,
    threat::{PixelBall, Threat},
    trace::Recorder,
    tracker::Best,
    update::{Steepest, Update, Visit},
};

/// Objective × update × threat × start × iterate × restarts.
///
/// A step is exactly one forward and one backward pass. Returning the last iterate of a single run makes no other pass;
/// the best iterate and restarts cost one more forward pass a run (and stage), to know the last point. A run that returns
/// the lowest accuracy looks every ten steps which images are fooled everywhere: they make no further pass, and the run
/// ends with the last of them. What an image gets does not depend on when the others are.
///
/// ```
/// use fireproof_attacks::{AttackConfig, GradientAttack, methods::pgd::Pgd, objective::Weighted, update::Momentum};
/// let config = AttackConfig::new("pgd")?;
/// let attack = GradientAttack {
///     update: Box::new(Momentum { step_size: 0.01, decay: 1.0 }),
///     ..GradientAttack::new(&config, Weighted(Pgd))?
/// };
/// # let _ = attack;
/// # Ok::<(), fireproof_attacks::Error>(())
/// ```
pub struct GradientAttack {
    /// The name in results and errors; random starts derive from it.
    pub name: String,
    /// What is maximised.
    pub objective: Box<dyn Objective>,
    /// How a step is taken.
    pub update: Box<dyn Update>,
    /// What may change, and how far.
    pub threat: Box<dyn Threat>,
    /// The first iterate.
    pub start: Start,
    /// Which iterate is returned.
    pub iterate: Iterate,
    /// Gradient steps of a run.
    pub steps: usize,
    /// Independent runs, of which each image keeps the best: by the tracked loss if `iterate` is
    /// [`Iterate::BestLoss`], else by the accuracy over valid pixels.
    pub restarts: usize,
    /// The map to reach, if the attack is targeted.
    pub target: Option<Target>,
    /// Radii of the run's stages. Each begins, with a step size and checkpoints of its own, at the iterate that `iterate`
    /// chose of the one before, projected on the smaller ball; only the last one's iterates are returned. The objective's
    /// memory begins anew too, but its schedule goes through all stages.
    pub radii: Radii,
    /// Whether images that are fooled everywhere stop making passes. Not with a victim that knows images by their place in the
    /// batch, as one that shows each a random view of its own does.
    pub compacts: bool,
}

impl GradientAttack {
    /// Steepest ascent of an objective in the ball of pixels that the settings describe.
    ///
    /// # Errors
    /// Those of [`AttackConfig::check`].
    pub fn new(config: &AttackConfig, objective: impl Objective + 'static) -> Result<Self> {
        config.check()?;
        Ok(Self {
            name: config.name.clone(),
            objective: Box::new(objective),
            update: Box::new(Steepest { step_size: config.step() }),
            threat: Box::new(PixelBall { norm: config.norm, epsilon: config.epsilon, range: config.range }),
            start: config.start,
            iterate: config.iterate,
            steps: config.steps,
            restarts: config.restarts,
            target: config.target.clone(),
            radii: Radii::default(),
            compacts: true,
        })
    }

    /// One run: the chosen images, and the score by which restarts are compared where there is one.
    fn once(&self, scene: &Scene, restart: usize, settled: &Compact, record: &mut Option<Recorder>) -> Result<Chosen> {
        let stages = self.radii.stages(self.steps);
        let mut done = 0;
        let mut chosen: Option<Chosen> = None;
        for stage in stages {
            // The first stage may begin at images that the caller gave, the others do at what the one before has found.
            let start = chosen.as_ref().map(|chosen| &chosen.images).or(scene.context.start);
            let radii;
            let mut context = Context { start, ..*scene.context };
            if stage.radius != 1.0 {
                let own = floats(self.threat.bind(scene)?.epsilon().clone());
                radii = own.iter().map(|r| r * stage.radius).collect::<Vec<f32>>();
                context.epsilon = Some(&radii);
            }
            let part = Scene { context: &context, steps: stage.steps, ..*scene };
            let at = Position { restart, done, total: self.steps };
            // What is fooled in a larger ball need not be in this one: a stage begins with all that the run began with.
            let found = self.stage(&part, at, settled.clone(), record)?;
            done += stage.steps;
            chosen = Some(found);
        }
        chosen.ok_or_else(|| Error::Argument { what: "steps", found: "0".into(), expected: "at least 1".into() })
    }

    /// One stage of a run; `at` is where the run was when it began.
    fn stage(
        &self,
        scene: &Scene,
        at: Position,
        mut compact: Compact,
        record: &mut Option<Recorder>,
    ) -> Result<Chosen> {
        let space = self.threat.bind(scene)?;
        let space = &*space;
        let mut objective = self.objective.begin(scene)?;
        let mut update = self.update.begin(scene)?;
        let mut guard = Guard::new(&self.name, *scene);
        let ceiling = self.iterate.ceiling();
        let mut best: Option<Best> = None;
        let mut watch = |step: Step, images: &Tensor<4>, logits: &Tensor<4>, losses: &Losses| {
            if let Some(record) = record {
                record.record(at.restart, step.index, &losses.attacked, logits, &scene.batch.targets);
            }
            if let Some(observer) = scene.context.observer {
                tell(observer, scene, at.restart, step, images, logits, &losses.attacked);
            }
            let score = match self.iterate {
                Iterate::Last if step.index < step.total => return None,
                Iterate::Last | Iterate::BestAccuracy => scene.goal.success(logits),
                Iterate::BestLoss => losses.tracked.clone(),
            };
            Some(score)
        };
        let mut evaluate = |step: Step, logits: &Tensor<4>| {
            let Evaluation { loss, tracked, cotangent } = objective.evaluate(step, logits);
            let sign = |x: Tensor<1>| if scene.goal.targeted { -x } else { x };
            (Losses { attacked: sign(loss), tracked: sign(tracked) }, cotangent)
        };

        let mut variables = space.start(self.start, &Seeds::new(&self.name, scene.context, at.restart))?;
        for index in 0..scene.steps {
            let step = Step { index: at.done + index, total: at.total };
            let images = space.apply(&variables);
            let mut losses = None;
            let (logits, gradient) = compact.pull_back(scene.victim, images.clone(), &mut |logits| {
                fits(&logits, scene.batch)?;
                let (found, cotangent) = evaluate(step, &logits);
                losses = Some(found);
                Ok(cotangent)
            })?;
            // The loss towards a target is minimised. Images have fewer numbers than logits, so the sign turns here.
            let gradient = if scene.goal.targeted { -gradient } else { gradient };
            let losses = losses.expect("a victim's pull_back asks for the gradient at its logits");
            guard.check(step, &losses.attacked, &gradient)?;
            if let Some(score) = watch(step, &images, &logits, &losses) {
                let merged = Best::merge_below(best, images, score, true, ceiling);
                if (index + 1) % PATIENCE == 0 && ceiling.is_finite() && self.compacts {
                    compact.close(&merged.score, ceiling, &logits);
                }
                if compact.is_empty() {
                    guard.read()?;
                    return Ok(Chosen { images: merged.images, score: Some(merged.score), logits: Some(logits) });
                }
                best = Some(merged);
            } else {
                // The last handle but one: the step below can reuse the images' memory.
                drop(images);
            }
            let gradients = space.pull_back(&variables, gradient);
            let step = Step { index, total: scene.steps };
            variables = update.advance(step, Visit { variables, gradients, loss: losses.tracked }, space);
        }
        guard.read()?;

        let images = space.apply(&variables);
        let last = Step { index: at.done + scene.steps, total: at.total };
        if self.iterate == Iterate::Last && (self.restarts == 1 || last.index < last.total) {
            return Ok(Chosen { images, score: None, logits: None });
        }
        let logits = compact.logits(scene.victim, &images)?;
        fits(&logits, scene.batch)?;
        let (losses, _) = evaluate(last, &logits);
        guard.check(last, &losses.attacked, &images)?;
        guard.read()?;
        let score = watch(last, &images, &logits, &losses).expect("the last pass of a run is scored");
        let best = Best::merge_below(best, images, score, true, ceiling);
        Ok(Chosen { images: best.images, score: Some(best.score), logits: Some(logits) })
    }

    /// Attacks a batch; besides the result the score of each image, `[N]`, where the run knows it.
    pub(crate) fn run_scored(
        &self,
        victim: &dyn Victim,
        batch: &Batch,
        context: &Context,
    ) -> Result<(Adversarial, Option<Tensor<1>>)> {
        let victim = Counted::new(victim);
        let goal = Goal::of(batch, self.target.as_ref(), context)?;
        let scene = Scene { victim: &victim, batch, goal: &goal, steps: self.steps, context };
        let mut record = context.trace.then(Recorder::default);
        let mut best: Option<Best> = None;
        let mut images = None;
        let mut settled = Compact::default();
        for restart in 0..self.restarts {
            let chosen = self.once(&scene, restart, &settled, &mut record)?;
            let (Some(score), Some(logits)) = (chosen.score, chosen.logits) else {
                images = Some(chosen.images);
                continue;
            };
            let merged = Best::merge(best, chosen.images, score, false);
            if restart + 1 < self.restarts && self.iterate.ceiling().is_finite() && self.compacts {
                settled.close(&merged.score, self.iterate.ceiling(), &logits);
            }
            best = Some(merged);
            if settled.is_empty() {
                break;
            }
        }
        let (images, score) = match best {
            Some(best) => (Some(best.images), Some(best.score)),
            None => (images, None),
        };
        let images = images.ok_or_else(|| Error::Argument {
            what: "restarts",
            found: "0".into(),
            expected: "at least 1".into(),
        })?;
        let trace = record.map(Recorder::finish);
        Ok((Adversarial { trace, ..Adversarial::new(images, victim.passes()) }, score))
    }
}

/// After how many steps a run that returns the lowest accuracy looks which images have anything left to fool: rarely enough
/// that the host's wait does not matter.
const PATIENCE: usize = 10;

/// The images that a run or stage has chosen, `[N, C, H, W]`; their score, `[N]`, and the logits of its last pass, where they are
/// known.
struct Chosen {
    images: Tensor<4>,
    score: Option<Tensor<1>>,
    logits: Option<Tensor<4>>,
}

/// The losses of an iterate that the attack raises, `[N]` each: the negated ones of a targeted attack.
struct Losses {
    attacked: Tensor<1>,
    tracked: Tensor<1>,
}

/// Where in an attack a stage begins.
#[derive(Clone, Copy)]
struct Position {
    restart: usize,
    /// Steps of the run before the stage.
    done: usize,
    /// Steps of the run.
    total: usize,
}

impl Attack for GradientAttack {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        Ok(self.run_scored(victim, batch, context)?.0)
    }

    fn step_size(&self) -> Option<f32> {
        self.update.step_size()
    }

    fn contains_shorter_runs(&self) -> bool {
        let same_steps = !self.objective.depends_on_total() && !self.update.depends_on_total();
        same_steps && self.iterate == Iterate::Last && self.restarts == 1 && self.radii == Radii::default()
    }
}

fn tell(
    observer: &dyn Observer,
    scene: &Scene,
    restart: usize,
    step: Step,
    images: &Tensor<4>,
    logits: &Tensor<4>,
    loss: &Tensor<1>,
) {
    let (step, steps) = (step.index, step.total);
    observer.observe(&View { restart, step, steps, batch: scene.batch, images, logits, loss });
}

/// Logits must lie on the labels' grid.
pub(crate) fn fits(logits: &Tensor<4>, batch: &Batch) -> fireproof_tensor::Result<()> {
    let [n, _, height, width] = logits.dims();
    if [n, height, width] == batch.targets.dims() {
        return Ok(());
    }
    Err(fireproof_tensor::Error::Shape {
        what: "logits of the victim",
        found: format!("{:?}", logits.dims()),
        expected: format!("[N, K, H, W] with N, H, W = {:?} like the labels", batch.targets.dims()),
    })
}
