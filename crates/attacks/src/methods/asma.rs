//! ASMA: an adaptive step towards a given mask, held back by the distance from the clean image.
//!
//! Ozbulak, Van Messem, De Neve. *Impact of adversarial examples on deep learning models for biomedical image
//! segmentation*, MICCAI 2019. <https://arxiv.org/abs/1907.13124>; constants as in the authors' code.
//!
//! Targeted. `x ← x + (β · IoU + τ) ∇(Σ z_c − ‖x − x₀‖²)`, the sum over pixels whose target is `c` and whose prediction is not
//! yet: a pixel that has arrived pulls no more. The gradient keeps its length, and the multiplier grows with the IoU of
//! prediction and target, so the last pixels are fetched with longer steps.
//!
//! The paper has no ball: the distance term keeps the perturbation small. Here the result is projected on the ball of the
//! settings at every step, as every attack's is. The IoU is the mean over the classes of the target mask. An image keeps the
//! iterate that agrees most with its target.
//!
//! Defaults: 2500 steps, β = 10⁻⁶, τ = 10⁻⁷. They are the authors', for logits summed over 512 × 512 pixels or so; smaller
//! images need more of both.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Counted, Targets, Victim, norm::per_sample};

use crate::{
    Adversarial, Attack, AttackConfig, Context, Goal, Iterate, OptionSpec, Registration, Result, Scene, Start, Step,
    Target, View,
    gradient_attack::fits,
    guard::Guard,
    objective::classes::highest,
    start::Seeds,
    threat::{PixelBall, Threat},
    trace::Recorder,
    tracker::Best,
};

struct Asma {
    name: String,
    ball: PixelBall,
    steps: usize,
    start: Start,
    target: Option<Target>,
    beta: f32,
    tau: f32,
}

impl Attack for Asma {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let victim = Counted::new(victim);
        let goal = Goal::of(batch, self.target.as_ref(), context)?;
        let scene = Scene { victim: &victim, batch, goal: &goal, steps: self.steps, context };
        let space = self.ball.bind(&scene)?;
        let mut guard = Guard::new(&self.name, scene);
        let mut record = context.trace.then(Recorder::default);
        let mut images = space.start(self.start, &Seeds::new(&self.name, context, 0))?.remove(0);
        let mut best: Option<Best> = None;
        for index in 0..=self.steps {
            let step = Step { index, total: self.steps };
            let away = images.clone() - batch.images.clone();
            let mut seen = None;
            let mut evaluate = |logits: Tensor<4>| {
                fits(&logits, batch)?;
                let wanted = wanted(&goal.targets, &logits);
                seen = Some((logits, wanted.clone()));
                Ok::<_, fireproof_tensor::Error>(wanted)
            };
            let gradient = if index < self.steps {
                Some(victim.pull_back(images.clone(), &mut evaluate)?.1 - away.clone() * 2.0)
            } else {
                evaluate(victim.logits(images.clone())?)?;
                None
            };
            let (logits, wanted) = seen.expect("a victim's pull_back asks for the gradient at its logits");
            let loss = sums(logits.clone() * wanted) - sums(away.clone() * away);
            guard.check(step, &loss, gradient.as_ref().unwrap_or(&images))?;
            if let Some(record) = &mut record {
                record.record(0, index, &loss, &logits, &batch.targets);
            }
            if let Some(observer) = context.observer {
                let (images, logits, loss) = (&images, &logits, &loss);
                observer.observe(&View { restart: 0, step: index, steps: self.steps, batch, images, logits, loss });
            }
            best = Some(Best::merge(best, images.clone(), goal.success(&logits), true));
            let Some(gradient) = gradient else { break };
            let multiplier = iou(&goal.targets, &logits) * self.beta + self.tau;
            let gradient = space.restrict(vec![gradient]).remove(0);
            images = space.project(vec![images + gradient * per_sample(&multiplier)]).remove(0);
        }
        guard.read()?;
        let images = best.expect("the first iterate is scored").images;
        let trace = record.map(Recorder::finish);
        Ok(Adversarial { trace, ..Adversarial::new(images, victim.passes()) })
    }
}

/// One at the target's class of each pixel that is predicted otherwise, `[N, K, H, W]`.
fn wanted(targets: &Targets, logits: &Tensor<4>) -> Tensor<4> {
    let label = targets.one_hot(logits.dims()[1]);
    label.clone() * (highest(logits) * -1.0 + 1.0)
}

/// Mean over the classes of the target mask of the IoU with the prediction, `[N]`.
fn iou(targets: &Targets, logits: &Tensor<4>) -> Tensor<1> {
    let [n, k, height, width] = logits.dims();
    let valid = targets.valid().clone().reshape([n, 1, height, width]);
    let (label, found) = (targets.one_hot(k), highest(logits) * valid);
    let sum = |x: Tensor<4>| x.reshape([n, k, height * width]).sum_dim(2).reshape([n, k]);
    let both = sum(label.clone() * found.clone());
    let size = sum(label);
    let any = size.clone() + sum(found) - both.clone();
    let present = size.greater_elem(0.0).float();
    let classes = present.clone().sum_dim(1).clamp_min(1.0);
    (both / any.clamp_min(1.0) * present).sum_dim(1).div(classes).reshape([n])
}

/// `[N, C, H, W]` → the sum of each image, `[N]`.
fn sums(x: Tensor<4>) -> Tensor<1> {
    let [n, c, h, w] = x.dims();
    x.reshape([n, c * h * w]).sum_dim(1).reshape([n])
}

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    config.check()?;
    if config.restarts != 1 {
        return Err(config.setting("restarts", config.restarts, "1"));
    }
    if config.iterate != Iterate::BestAccuracy {
        return Err(config.setting("iterate", config.iterate, "best-accuracy, the one nearest to the target"));
    }
    if config.step_size.is_some() {
        return Err(config.setting("step_size", config.step(), "none: asma.beta and asma.tau take its place"));
    }
    let number = |name: &str, own: f32| {
        let value = config.option(name, own, "a number that is not negative")?;
        match value >= 0.0 && value.is_finite() {
            true => Ok(value),
            false => Err(config.setting(name, value, "a number that is not negative")),
        }
    };
    Ok(Box::new(Asma {
        name: config.name.clone(),
        ball: PixelBall { norm: config.norm, epsilon: config.epsilon, range: config.range },
        steps: config.steps,
        start: config.start,
        target: config.target.clone().or(Some(Target::Class(0))),
        beta: number("beta", 1e-6)?,
        tau: number("tau", 1e-7)?,
    }))
}

inventory::submit! {
    Registration {
        name: "asma",
        about: "towards a mask, by steps that grow with its IoU; all background unless --target says another",
        paper: "https://arxiv.org/abs/1907.13124",
        options: &[
            OptionSpec { name: "beta", values: "1e-6, or another number: what a step gains with the IoU" },
            OptionSpec { name: "tau", values: "1e-7, or another number: a step at IoU 0" },
        ],
        defaults: |config| {
            config.steps = 2500;
            config.start = Start::Zero;
            config.iterate = Iterate::BestAccuracy;
            config.target = Some(Target::Class(0));
        },
        build,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use fireproof_tensor::victim;

    use super::*;
    use crate::build;

    #[test]
    fn a_step_follows_the_formula() {
        // Two classes; the logits are the pixel and a constant: class 0 where the pixel is above 0.5.
        let device = Device::flex();
        let model = victim(|x: Tensor<4>| Tensor::cat(vec![x.clone() * 3.0, x.ones_like() * 1.5], 1));
        let pixels = vec![0.4, 0.6, 0.2, 0.9];
        let batch = Batch::from_host(pixels.clone(), &[1, 0, 1, 0], [1, 1, 1, 4], vec![0], &device).unwrap();
        let mut config = AttackConfig { steps: 1, epsilon: 0.5, ..AttackConfig::new("asma").unwrap() };
        config.options.insert("beta".into(), "0.1".into());
        config.options.insert("tau".into(), "0.02".into());
        let found = build(&config).unwrap().run(&model, &batch, &Context::new(0)).unwrap();
        // Everything shall be class 0; of that, the second and fourth pixel are: IoU 2/4. The others have gradient 3.
        let multiplier = 0.1 * 0.5 + 0.02;
        let expected = [0.4 + 3.0 * multiplier, 0.6, 0.2 + 3.0 * multiplier, 0.9];
        let values: Vec<f32> = found.images.into_data().try_to_vec().unwrap();
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
        assert_eq!((found.passes.forward, found.passes.backward), (2, 1));
    }

    #[test]
    fn pixels_that_have_arrived_are_drawn_back_to_the_clean_image() {
        let device = Device::flex();
        let model = victim(|x: Tensor<4>| Tensor::cat(vec![x.clone() * 3.0, x.ones_like() * 1.5], 1));
        let batch = Batch::from_host(vec![0.4; 4], &[1; 4], [1, 1, 1, 4], vec![0], &device).unwrap();
        let mut config = AttackConfig { steps: 60, epsilon: 0.5, ..AttackConfig::new("asma").unwrap() };
        config.options.insert("beta".into(), "0.05".into());
        config.options.insert("tau".into(), "0.01".into());
        let start = Tensor::<4>::from_data(TensorData::new(vec![0.9f32; 4], [1, 1, 1, 4]), &device);
        let context = Context { start: Some(&start), ..Context::new(0) };
        let found = build(&config).unwrap().run(&model, &batch, &context).unwrap();
        let values: Vec<f32> = found.images.into_data().try_to_vec().unwrap();
        assert!(
            values.iter().all(|v| (0.5..0.7).contains(v)),
            "over the boundary and no further than needed: {values:?}"
        );
    }

    #[test]
    fn settings_that_it_does_not_have_are_refused() {
        let config = AttackConfig { step_size: Some(0.1), ..AttackConfig::new("asma").unwrap() };
        assert!(build(&config).err().unwrap().to_string().contains("asma.beta"));
        let config = AttackConfig { restarts: 3, start: Start::Random, ..AttackConfig::new("asma").unwrap() };
        assert!(build(&config).is_err());
    }
}
