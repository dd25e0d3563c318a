//! Bugs found in public re-implementations, planted one by one: each must be caught, and by the check that names it.

use std::sync::atomic::{AtomicU32, Ordering};

use burn::tensor::{Tensor, activation::softmax};
use fireproof_attacks::{
    Attack, Context, Goal, GradientAttack, Iterate, Result, Scene, Step, Variables, build,
    methods::segpgd::SegPgd,
    objective::{ImageLoss, PerImage, PixelWeight, Weighted},
    threat::Space,
    update::{Steepest, Update, UpdateRun, Visit},
};
use fireproof_tensor::{Batch, Norm, ops::cross_entropy, victim};

use crate::{
    losses::{TOLERANCE, segpgd_error},
    oracle::{self, Budget, Kind, differing},
    support::{self, Golden, Network, config, floats, relative_error},
};

const EPSILON: f32 = 8.0 / 255.0;
const STEPS: usize = 4;

/// What the checks say about an attack that claims to be SegPGD with 4 steps of 0.01.
#[derive(Debug, PartialEq)]
struct Verdict {
    /// The images are those of the plain loop of `oracle.rs`.
    right_images: bool,
    /// Two runs give the same images.
    repeatable: bool,
    /// Inside the ball and the valid range.
    bounded: bool,
    /// Not the images of PGD.
    distinct: bool,
}

const SOUND: Verdict = Verdict { right_images: true, repeatable: true, bounded: true, distinct: true };

fn network() -> Network {
    Network::random(3, 3, 5)
}

fn batch() -> Batch {
    let network = network();
    let mut batch = support::batch(4, &victim(|x| network.forward(x)), 5, [2, 3, 16, 20]);
    // Some pixels at the ends of the range, where a missing clamp shows.
    batch.images = (batch.images * 1.2 - 0.1).clamp(0.0, 1.0);
    batch
}

fn judge(attack: &dyn Attack) -> Verdict {
    let (network, batch) = (network(), batch());
    let model = victim(|x| network.forward(x));
    let context = Context { start: Some(&batch.images), ..Context::new(1) };
    let run = |attack: &dyn Attack| floats(&attack.run(&model, &batch, &context).unwrap().images);
    let (found, again) = (run(attack), run(attack));
    let budget = Budget { norm: Norm::Linf, epsilon: EPSILON, alpha: 0.01, steps: STEPS };
    let expected = oracle::attack(Kind::SegPgd, &network, &batch, &batch.images, &budget);
    let pgd = run(&*build(&fireproof_attacks::AttackConfig { steps: STEPS, ..config("pgd") }).unwrap());
    let few = expected.len() / 500;
    let clean = floats(&batch.images);
    Verdict {
        right_images: differing(&found, &expected) <= few,
        repeatable: found == again,
        bounded: found.iter().zip(&clean).all(|(f, c)| (f - c).abs() <= EPSILON + 1e-6 && (0.0..=1.0).contains(f)),
        distinct: differing(&found, &pgd) > few,
    }
}

fn segpgd_with(objective: impl fireproof_attacks::objective::Objective + 'static) -> GradientAttack {
    let settings = fireproof_attacks::AttackConfig { steps: STEPS, step_size: Some(0.01), ..config("segpgd") };
    GradientAttack::new(&settings, objective).unwrap()
}

fn updated_by(update: impl Update + 'static) -> GradientAttack {
    GradientAttack { update: Box::new(update), ..segpgd_with(Weighted(SegPgd::default())) }
}

/// A planted weight map must fail on the images and, where the data is there, on the golden weights.
fn caught(weight: impl PixelWeight + Copy + 'static) {
    let verdict = judge(&segpgd_with(Weighted(weight)));
    assert!(!verdict.right_images, "{verdict:?}");
    if let Some(golden) = Golden::open("losses.safetensors") {
        assert!(segpgd_error(&golden, weight) > 100.0 * TOLERANCE);
    }
}

#[test]
fn the_real_method_passes_every_check() {
    assert_eq!(judge(&segpgd_with(Weighted(SegPgd::default()))), SOUND);
}

#[test]
fn the_highest_logit_compared_with_the_label_is_caught() {
    #[derive(Clone, Copy)]
    struct LogitValue;
    impl PixelWeight for LogitValue {
        fn weights(&self, step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
            let [n, _, height, width] = logits.dims();
            let value = logits.clone().max_dim(1).reshape([n, height, width]);
            let correct = value.equal(goal.targets.labels().clone().float()).float();
            let lambda = 0.5 * step.fraction();
            Some(correct * (1.0 - 2.0 * lambda) + lambda)
        }
    }
    caught(LogitValue);
}

#[test]
fn swapped_weights_are_caught() {
    #[derive(Clone, Copy)]
    struct Swapped;
    impl PixelWeight for Swapped {
        fn weights(&self, step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
            SegPgd::default().weights(step, logits, goal).map(|w| w * -1.0 + 1.0)
        }
    }
    caught(Swapped);
}

#[test]
fn a_lambda_that_is_negative_at_the_first_step_is_caught() {
    #[derive(Clone, Copy)]
    struct OffByOne;
    impl PixelWeight for OffByOne {
        fn weights(&self, step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
            let lambda = (step.index as f32 - 1.0) / (2 * step.total) as f32;
            Some(goal.open(logits) * (1.0 - 2.0 * lambda) + lambda)
        }
    }
    caught(OffByOne);
}

#[test]
fn weights_from_the_clean_image_only_are_caught() {
    struct Frozen(std::sync::Mutex<Option<Tensor<3>>>);
    impl PixelWeight for Frozen {
        fn weights(&self, step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
            let mut first = self.0.lock().unwrap();
            if step.index == 0 {
                *first = None;
            }
            let open = first.get_or_insert_with(|| goal.open(logits)).clone();
            let lambda = 0.5 * step.fraction();
            Some(open * (1.0 - 2.0 * lambda) + lambda)
        }
    }
    assert!(!judge(&segpgd_with(Weighted(Frozen(Default::default())))).right_images);
}

#[test]
fn weighting_a_scalar_loss_is_caught_as_plain_pgd() {
    struct Scalar;
    impl ImageLoss for Scalar {
        fn loss(&self, step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
            let [n, _, height, width] = logits.dims();
            let weights = SegPgd::default().weights(step, &logits.clone().inner(), goal).unwrap();
            let mean = |x: Tensor<3>| x.reshape([n, height * width]).mean_dim(1).reshape([n]);
            mean(cross_entropy(logits, &goal.targets)) * Tensor::from_inner(mean(weights))
        }
    }
    let verdict = judge(&segpgd_with(PerImage(Scalar)));
    assert!(!verdict.right_images && !verdict.distinct, "{verdict:?}");
}

#[test]
fn dice_in_place_of_cross_entropy_is_caught() {
    struct Dice;
    impl ImageLoss for Dice {
        fn loss(&self, _step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
            let [n, classes, height, width] = logits.dims();
            let map = Tensor::from_inner(goal.targets.one_hot(classes));
            let overlap = (softmax(logits, 1) * map).reshape([n, classes * height * width]).mean_dim(1);
            overlap.reshape([n]) * -1.0 + 1.0
        }
    }
    assert!(!judge(&segpgd_with(PerImage(Dice))).right_images);
}

#[test]
fn a_gradient_that_is_always_that_of_the_first_image_is_caught() {
    struct Stale;
    struct Run(Option<Variables>, Tensor<1>);
    impl Update for Stale {
        fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn UpdateRun + 'a>> {
            Ok(Box::new(Run(None, fireproof_attacks::update::step_sizes(scene, 0.01)?)))
        }
    }
    impl UpdateRun for Run {
        fn advance(&mut self, _step: Step, visit: Visit, space: &dyn Space) -> Variables {
            let first = self.0.get_or_insert(visit.gradients).clone();
            space.ascend(visit.variables, first, &self.1)
        }
    }
    assert!(!judge(&updated_by(Stale)).right_images);
}

#[test]
fn a_step_that_starts_over_from_the_clean_image_is_caught() {
    struct Forgetful;
    struct Run(Option<Variables>, Tensor<1>);
    impl Update for Forgetful {
        fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn UpdateRun + 'a>> {
            Ok(Box::new(Run(None, fireproof_attacks::update::step_sizes(scene, 0.01)?)))
        }
    }
    impl UpdateRun for Run {
        fn advance(&mut self, _step: Step, visit: Visit, space: &dyn Space) -> Variables {
            let clean = self.0.get_or_insert(visit.variables).clone();
            space.ascend(clean, visit.gradients, &self.1)
        }
    }
    assert!(!judge(&updated_by(Forgetful)).right_images);
}

#[test]
fn a_step_size_rescaled_in_place_at_every_run_is_caught() {
    struct InPlace(AtomicU32);
    impl Update for InPlace {
        fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn UpdateRun + 'a>> {
            let step_size = f32::from_bits(self.0.load(Ordering::Relaxed)) * 255.0;
            self.0.store(step_size.to_bits(), Ordering::Relaxed);
            // The rule itself is sound; only its length is not.
            let leaked: &'a Steepest = Box::leak(Box::new(Steepest { step_size }));
            leaked.begin(scene)
        }
    }
    let verdict = judge(&updated_by(InPlace(AtomicU32::new((0.01f32 / 255.0).to_bits()))));
    assert!(!verdict.repeatable, "{verdict:?}");
}

/// A sign step that is neither projected nor clamped.
struct Unbounded(f32);
struct UnboundedRun(f32);

impl Update for Unbounded {
    fn begin<'a>(&'a self, _scene: &Scene<'a>) -> Result<Box<dyn UpdateRun + 'a>> {
        Ok(Box::new(UnboundedRun(self.0)))
    }
}

impl UpdateRun for UnboundedRun {
    fn advance(&mut self, _step: Step, visit: Visit, _space: &dyn Space) -> Variables {
        visit.variables.into_iter().zip(visit.gradients).map(|(v, g)| v + g.sign() * self.0).collect()
    }
}

#[test]
fn a_missing_clamp_is_caught() {
    // 4 steps of 0.005 stay inside the ball, so only the range can tell.
    let verdict = judge(&updated_by(Unbounded(0.005)));
    assert!(!verdict.bounded, "{verdict:?}");
}

#[test]
fn a_missing_projection_is_caught() {
    let verdict = judge(&updated_by(Unbounded(0.01)));
    assert!(!verdict.bounded, "{verdict:?}");
}

#[test]
fn a_step_of_a_tenth_of_the_radius_is_caught() {
    assert!(!judge(&updated_by(Steepest { step_size: EPSILON / 10.0 })).right_images);
}

#[test]
fn a_mean_over_the_whole_batch_that_scales_with_it_is_caught_in_l2() {
    // Harmless under a sign; the weights by the batch's own size are not when the objective mixes images.
    struct Mixed;
    impl ImageLoss for Mixed {
        fn loss(&self, _step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
            let [n, _, height, width] = logits.dims();
            let sums = cross_entropy(logits, &goal.targets).reshape([n, height * width]).sum_dim(1).reshape([n]);
            // Squaring the batch's mean couples the images.
            sums.clone() * sums.mean()
        }
    }
    let (network, batch) = (network(), batch());
    let model = victim(|x| network.forward(x));
    let attack = GradientAttack { iterate: Iterate::BestLoss, ..segpgd_with(PerImage(Mixed)) };
    let run = |batch: &Batch| attack.run(&model, batch, &Context { trace: true, ..Context::new(1) }).unwrap();
    let (both, alone) = (run(&batch), run(&batch.slice(0..1)));
    let loss = |run: &fireproof_attacks::Adversarial| run.trace.as_ref().unwrap().rows[0].loss[0];
    assert!(relative_error(&[loss(&both)], &[loss(&alone)]) > 1e-3);
}
