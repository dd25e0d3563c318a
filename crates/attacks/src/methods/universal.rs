//! A universal perturbation: one δ that is added to every image.
//!
//! Metzen, Kumar, Brox, Fischer. *Universal Adversarial Perturbations Against Semantic Image Segmentation*, ICCV 2017.
//! <https://arxiv.org/abs/1704.05712>
//!
//! `δ ← Π_ε(δ − α sign Σ_x ∇ CE(f(x + δ), t_x))` with the gradients of a whole data set in every step. The target `t` is one map
//! for all images (`--target class=K`, or any map), or each image's own map without a class (`--target remove=K`): then pixels
//! of that class weigh `hide` and the others `1 − hide`. Without a target the loss of the labels rises.
//!
//! [`fit`](crate::fit) learns δ from images of one size and gives the attack that adds it, at no pass. Without a fit an image is
//! its own data set: BIM.
//!
//! Defaults: ε = 10/255, α = 1/255, 60 steps (each a pass over the data), `hide` = 0.9999, as in a re-implementation of the paper;
//! `bench` learns from 32 images (`images`) of the training split. Not implemented: the periodic tile.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Counted, Passes, Victim};

use crate::{
    Adversarial, Attack, AttackConfig, Context, Error, Goal, GradientAttack, Iterate, Learns, OptionSpec, Registration,
    Result, Scene, Start, Step, Target,
    gradient_attack::fits,
    guard::Guard,
    host::upload,
    objective::{Objective, ObjectiveRun, named, weighted_by},
    threat::{PixelBall, Threat},
};

struct Universal {
    config: AttackConfig,
    ball: PixelBall,
    images: usize,
    /// What is done without a fit; its objective is the loss of the fit too.
    alone: GradientAttack,
    learned: Option<Tensor<4>>,
}

/// Cross-entropy in which a class that is to vanish outweighs the rest.
struct Hide {
    class: u8,
    weight: f32,
}

impl Objective for Hide {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn ObjectiveRun + 'a>> {
        let hidden = scene.batch.targets.labels().clone().equal_elem(i32::from(self.class)).float();
        let weights = hidden * (2.0 * self.weight - 1.0) + (1.0 - self.weight);
        Ok(weighted_by(scene.goal, move |_, _| Some(weights.clone())))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

impl Attack for Universal {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let Some(delta) = &self.learned else { return self.alone.run(victim, batch, context) };
        let goal = Goal::of(batch, self.config.target.as_ref(), context)?;
        let scene = Scene { victim, batch, goal: &goal, steps: 0, context };
        let space = self.ball.bind(&scene)?;
        let (found, expected) = (delta.dims(), batch.dims());
        if found[1..] != expected[1..] {
            let expected = format!("[1, C, H, W] of the images {expected:?}");
            return Err(Error::Argument { what: "universal perturbation", found: format!("{found:?}"), expected });
        }
        let delta = delta.clone().to_device(&batch.images.device()).expand(expected);
        let images = space.project(vec![batch.images.clone() + delta]).remove(0);
        Ok(Adversarial::new(images, Passes::default()))
    }

    fn step_size(&self) -> Option<f32> {
        self.alone.step_size()
    }

    fn learns(&self) -> Option<&dyn Learns> {
        (self.images > 0).then_some(self)
    }
}

impl Learns for Universal {
    fn images(&self) -> usize {
        self.images
    }

    fn learn(&self, victim: &dyn Victim, data: &[Batch], context: &Context) -> Result<(Tensor<4>, Passes)> {
        let victim = Counted::new(victim);
        let dims = one_size(data)?;
        let goals = data.iter().map(|batch| Goal::of(batch, self.config.target.as_ref(), context));
        let goals: Vec<Goal> = goals.collect::<Result<_>>()?;
        let steps = self.alone.steps;
        let scenes: Vec<Scene> = data
            .iter()
            .zip(&goals)
            .map(|(batch, goal)| Scene { victim: &victim, batch, goal, steps, context })
            .collect();
        let begin = |scene: &Scene<'_>| self.ball.bind(scene).map(|_| ());
        scenes.iter().try_for_each(begin)?;
        let mut runs = scenes.iter().map(|scene| self.alone.objective.begin(scene)).collect::<Result<Vec<_>>>()?;
        let mut guards: Vec<Guard> = scenes.iter().map(|scene| Guard::new(&self.config.name, *scene)).collect();
        let device = data[0].images.device();
        let [low, high] = self.ball.range;
        let alpha = self.config.step_size.unwrap_or(self.config.step());
        let mut delta = Tensor::<4>::zeros([1, dims[1], dims[2], dims[3]], &device);
        let radius = upload(&[self.ball.epsilon], &delta);
        for index in 0..steps {
            let step = Step { index, total: steps };
            let mut sum = delta.zeros_like();
            for ((scene, run), guard) in scenes.iter().zip(&mut runs).zip(&mut guards) {
                let clean = scene.batch.images.clone();
                let images = (clean.clone() + delta.clone().expand(clean.dims())).clamp(low, high);
                let mut loss = None;
                let (_, gradient) = victim.pull_back(images, &mut |logits| {
                    fits(&logits, scene.batch)?;
                    let evaluation = run.evaluate(step, &logits);
                    let evaluation = if scene.goal.targeted { evaluation.negated() } else { evaluation };
                    loss = Some(evaluation.loss);
                    Ok(evaluation.cotangent)
                })?;
                guard.check(step, &loss.expect("a victim's pull_back asks for the gradient"), &gradient)?;
                // Image by image, so that the sum does not depend on how they are batched.
                for image in 0..scene.batch.len() {
                    sum = sum + gradient.clone().narrow(0, image, 1);
                }
            }
            delta = self.ball.norm.project(delta + self.ball.norm.steepest(sum) * alpha, &radius);
        }
        guards.iter_mut().try_for_each(Guard::read)?;
        Ok((delta, victim.passes()))
    }

    fn with(&self, learned: Tensor<4>) -> Result<Box<dyn Attack>> {
        Ok(Box::new(Self { learned: Some(learned), ..Self::new(&self.config)? }))
    }
}

/// The dimensions that all images share.
pub(super) fn one_size(data: &[Batch]) -> Result<[usize; 4]> {
    let argument = |found: String| Error::Argument {
        what: "images to learn from",
        found,
        expected: "images of one size, at least one".into(),
    };
    let first = data.first().filter(|batch| !batch.is_empty()).ok_or_else(|| argument("none".into()))?.dims();
    match data.iter().map(Batch::dims).find(|dims| dims[1..] != first[1..]) {
        Some(other) => Err(argument(format!("{:?} and {:?}", &first[1..], &other[1..]))),
        None => Ok(first),
    }
}

const HIDE: &str = "0.9999, or another weight in (0, 1) of the pixels whose class is removed";
const IMAGES: &str = "32, or of how many images bench learns; 0 for one perturbation an image";

impl Universal {
    fn new(config: &AttackConfig) -> Result<Self> {
        config.in_pixels()?;
        if config.start != Start::Zero {
            return Err(config.setting("start", config.start, "zero"));
        }
        if config.iterate != Iterate::Last {
            return Err(config.setting("iterate", config.iterate, "last, since no image has an iterate of its own"));
        }
        let weight: f32 = config.option("hide", 0.9999, HIDE)?;
        if !(weight > 0.0 && weight < 1.0) {
            return Err(config.setting("hide", weight, HIDE));
        }
        let objective: Box<dyn Objective> = match (&config.target, config.options.contains_key(named::OPTION)) {
            (Some(Target::Remove(class)), false) => Box::new(Hide { class: *class, weight }),
            _ => named::chosen(config)?,
        };
        Ok(Self {
            config: config.clone(),
            ball: PixelBall { norm: config.norm, epsilon: config.epsilon, range: config.range },
            images: config.option("images", 32, IMAGES)?,
            alone: GradientAttack::new(config, objective)?,
            learned: None,
        })
    }
}

inventory::submit! {
    Registration {
        name: "universal",
        about: "one perturbation for all images, learned from a data set",
        paper: "https://arxiv.org/abs/1704.05712",
        options: &[
            OptionSpec { name: named::OPTION, values: named::VALUES },
            OptionSpec { name: "hide", values: HIDE },
            OptionSpec { name: "images", values: IMAGES },
        ],
        defaults: |config| {
            config.epsilon = 10.0 / 255.0;
            config.step_size = Some(1.0 / 255.0);
            config.steps = 60;
            config.start = Start::Zero;
        },
        build: |config| Ok(Box::new(Universal::new(config)?)),
    }
}

#[cfg(test)]
mod tests {
    use fireproof_tensor::Norm;

    use super::*;

    #[test]
    fn l2_and_linf_have_defaults_that_build() {
        for norm in [Norm::Linf, Norm::L2] {
            let config = AttackConfig { norm, ..AttackConfig::new("universal").unwrap() };
            assert!(Universal::new(&config).unwrap().learns().is_some());
        }
    }
}
