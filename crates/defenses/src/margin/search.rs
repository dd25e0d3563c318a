//! PGD with a radius for each image, and bisection to the point where its prediction turns wrong.

use burn::tensor::{Tensor, TensorData};
use fireproof_attacks::{
    Context, Error as AttackError, Goal, Scene, Step,
    objective::Objective,
    threat::{PixelBall, Threat},
};
use fireproof_tensor::{Batch, Norm, Victim, host::floats, norm::per_sample, random::Stream};
use serde::{Deserialize, Serialize};

use super::Criterion;
use crate::{Error, Result};

/// Between which two points the boundary is sought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bracket {
    /// It is not: the last iterate of PGD stands.
    #[default]
    None,
    /// Between the clean image and the last iterate that is wrong: IMA's classification.
    Segment,
    /// Between the last iterate before the first wrong one (the clean image, if already the start is wrong) and that first
    /// wrong one: IMA's segmentation.
    Crossing,
}

/// Which side of the boundary a bisected image is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The middle of the last bracket.
    #[default]
    Boundary,
    /// Its wrong end.
    Wrong,
    /// Its right end, as AME does.
    Right,
}

/// How far images are searched.
pub struct Search<'a> {
    /// What PGD ascends.
    pub objective: &'a dyn Objective,
    /// When an image is right.
    pub criterion: &'a Criterion,
    /// The criterion's threshold, where it is not given but measured.
    pub threshold: Option<f64>,
    /// Norm of the radii.
    pub norm: Norm,
    /// Lowest and highest valid value of a pixel.
    pub range: [f32; 2],
    /// Gradient steps.
    pub steps: usize,
    /// Steps that an image is attacked further after its first wrong iterate (FAT's τ); without, all are taken.
    pub stop_after: Option<usize>,
    /// Between which points the boundary is sought.
    pub bracket: Bracket,
    /// Halvings of the bracket.
    pub halvings: usize,
    /// An image whose bracket is no longer than this leaves the bisection early; 0 halves all of them to the end.
    pub tolerance: f32,
    /// Which end of the bracket is kept.
    pub keep: Keep,
}

/// Radius, step size and radius of the random start of each image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Budget {
    /// Radius of the ball, `N` values of zero or more.
    pub radius: Vec<f32>,
    /// Length of a step.
    pub step: Vec<f32>,
    /// Radius of the random start; zero starts at the clean image.
    pub start: Vec<f32>,
}

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Found {
    /// `[N, C, H, W]`.
    pub images: Tensor<4>,
    /// How far each image lies from the clean one.
    pub distance: Vec<f32>,
    /// Iterates of PGD, of `steps + 1`, that were wrong; those after an early stop are not made.
    pub wrong: Vec<usize>,
    /// The first wrong iterate, 0 for the start.
    pub first: Vec<Option<usize>>,
    /// Whether the last iterate is wrong.
    pub ends_wrong: Vec<bool>,
    /// Whether the criterion says anything about the image.
    pub defined: Vec<bool>,
    /// Largest absolute value of the gradient at the last gradient step.
    pub slope: Vec<f32>,
    /// The length of each image's bracket, before the bisection and after each halving; empty for images that were not
    /// bisected.
    pub brackets: Vec<Vec<f32>>,
}

/// One image on its way.
struct Walker {
    wrong: usize,
    first: Option<usize>,
    ends_wrong: bool,
    defined: bool,
    slope: f32,
    /// The last iterate, the last right one before the first wrong one, the first and the last wrong one: `[1, C, H, W]` each.
    left: Option<[Tensor<4>; 4]>,
}

impl Search<'_> {
    /// Searches each image of the batch. Passes: `steps + 1` forward and `steps` backward to the input for each image that
    /// PGD follows to its end, and one forward for each image that is still bisected in each halving. Only images for which a
    /// wrong iterate was found are bisected.
    ///
    /// An image's result does not depend on its neighbours; its random start derives from `seed` and its id.
    ///
    /// # Errors
    /// A loss or gradient that is not finite, the victim's errors, clean images outside the range.
    pub fn run(&self, victim: &dyn Victim, batch: &Batch, budget: &Budget, seed: u64) -> Result<Found> {
        let n = batch.len();
        let mut walkers: Vec<Walker> = (0..n)
            .map(|_| Walker { wrong: 0, first: None, ends_wrong: false, defined: true, slope: 0.0, left: None })
            .collect();
        self.walk(victim, batch, budget, seed, &mut walkers)?;
        let column = |which: usize| {
            let rows = walkers.iter().map(|walker| walker.left.as_ref().expect("every image arrives")[which].clone());
            Tensor::cat(rows.collect(), 0)
        };
        let mut images = column(0);
        let mut brackets = vec![Vec::new(); n];
        let members: Vec<usize> =
            (0..n).filter(|&i| self.bracket != Bracket::None && walkers[i].first.is_some()).collect();
        if !members.is_empty() {
            let ends = match self.bracket {
                Bracket::Crossing => [column(1), column(2)],
                _ => [batch.images.clone(), column(3)],
            };
            images = self.bisect(victim, batch, images, ends, members, &mut brackets)?;
        }
        let distance = floats(self.norm.of(images.clone() - batch.images.clone()));
        Ok(Found {
            images,
            distance,
            wrong: walkers.iter().map(|walker| walker.wrong).collect(),
            first: walkers.iter().map(|walker| walker.first).collect(),
            ends_wrong: walkers.iter().map(|walker| walker.ends_wrong).collect(),
            defined: walkers.iter().map(|walker| walker.defined).collect(),
            slope: walkers.iter().map(|walker| walker.slope).collect(),
            brackets,
        })
    }

    /// PGD, image by image as long as each is followed.
    fn walk(
        &self,
        victim: &dyn Victim,
        batch: &Batch,
        budget: &Budget,
        seed: u64,
        walkers: &mut [Walker],
    ) -> Result<()> {
        let ball = PixelBall { norm: self.norm, epsilon: 0.0, range: self.range };
        let mut alive: Vec<usize> = (0..batch.len()).collect();
        let mut carried: Option<[Tensor<4>; 4]> = None;
        let mut index = 0;
        // A round goes on until an image leaves; the parts of the attack are then bound to those that remain.
        while !alive.is_empty() {
            let part = if alive.len() == batch.len() { batch.clone() } else { batch.select(&alive) };
            let of = |values: &[f32]| -> Vec<f32> { alive.iter().map(|&i| values[i]).collect() };
            let (radius, step) = (of(&budget.radius), of(&budget.step));
            let context = Context { epsilon: Some(&radius), step_size: Some(&step), ..Context::new(seed) };
            let goal = Goal { targets: part.targets.clone(), targeted: false };
            let scene = Scene { victim, batch: &part, goal: &goal, steps: self.steps, context: &context };
            let space = ball.bind(&scene)?;
            let mut objective = self.objective.begin(&scene)?;
            let length = TensorData::new(step.clone(), [alive.len()]);
            let length = Tensor::<1>::from_data(length, &part.images.device());
            let mut points = match carried.take() {
                Some(points) => points,
                None => {
                    let start = part.images.clone() + self.noise(&part, &of(&budget.start), seed);
                    let start = space.project(vec![start]).remove(0);
                    // Until there is a right iterate, the clean image is the one before the first wrong one.
                    [start.clone(), part.images.clone(), start.clone(), start]
                }
            };
            loop {
                let at = Step { index, total: self.steps };
                let [images, right, wrong, last_wrong] = points;
                let (logits, gradient) = if index < self.steps {
                    let mut loss = None;
                    let (logits, gradient) = victim.pull_back(images.clone(), &mut |logits| {
                        let evaluation = objective.evaluate(at, &logits);
                        loss = Some(evaluation.loss);
                        Ok(evaluation.cotangent)
                    })?;
                    self.finite(&part, at, "the loss", loss.expect("asked for the gradient at the logits"))?;
                    let flat = gradient.clone().reshape([part.len() as i32, -1]).abs().max_dim(1);
                    let slope = self.finite(&part, at, "the gradient", flat.reshape([part.len()]))?;
                    alive.iter().zip(slope).for_each(|(&i, slope)| walkers[i].slope = slope);
                    (logits, Some(gradient))
                } else {
                    (victim.logits(images.clone())?, None)
                };
                let judged = self.criterion.judge(&logits, &part.targets, self.threshold);
                let mut still_right = vec![false; part.len()];
                let mut turned = vec![false; part.len()];
                let mut is_wrong = vec![false; part.len()];
                for (place, (&i, judged)) in alive.iter().zip(&judged).enumerate() {
                    let walker = &mut walkers[i];
                    walker.defined = judged.is_some();
                    walker.ends_wrong = *judged == Some(false);
                    if walker.ends_wrong {
                        turned[place] = walker.first.is_none();
                        walker.first.get_or_insert(index);
                        walker.wrong += 1;
                    }
                    is_wrong[place] = walker.ends_wrong;
                    still_right[place] = walker.first.is_none();
                }
                let right = choose(right, &images, &still_right);
                let wrong = choose(wrong, &images, &turned);
                let last_wrong = choose(last_wrong, &images, &is_wrong);
                let stopped = |i: usize| {
                    let first = walkers[i].first.filter(|_| self.stop_after.is_some());
                    first.is_some_and(|first| index >= first + self.stop_after.unwrap_or(0))
                };
                let leaving: Vec<bool> = alive.iter().map(|&i| index == self.steps || stopped(i)).collect();
                let mut now = [images, right, wrong, last_wrong];
                for (place, (&i, leaves)) in alive.iter().zip(&leaving).enumerate() {
                    if *leaves {
                        walkers[i].left = Some(now.each_ref().map(|points| points.clone().narrow(0, place, 1)));
                    }
                }
                if let Some(gradient) = gradient.filter(|_| leaving.contains(&false)) {
                    now[0] = space.ascend(vec![now[0].clone()], vec![gradient], &length).remove(0);
                }
                index += 1;
                if leaving.contains(&true) {
                    let stay: Vec<usize> = (0..alive.len()).filter(|&place| !leaving[place]).collect();
                    alive = stay.iter().map(|&place| alive[place]).collect();
                    carried = (!stay.is_empty()).then(|| now.map(|points| rows(&points, &stay)));
                    break;
                }
                points = now;
            }
        }
        Ok(())
    }

    /// Halves the brackets of `members`; the others keep their image.
    fn bisect(
        &self,
        victim: &dyn Victim,
        batch: &Batch,
        images: Tensor<4>,
        [right, wrong]: [Tensor<4>; 2],
        mut members: Vec<usize>,
        brackets: &mut [Vec<f32>],
    ) -> Result<Tensor<4>> {
        let mut kept: Vec<Tensor<4>> = (0..batch.len()).map(|i| images.clone().narrow(0, i, 1)).collect();
        let (mut right, mut wrong) = (rows(&right, &members), rows(&wrong, &members));
        let mut part = batch.select(&members);
        for halving in 0..=self.halvings {
            let lengths = floats(self.norm.of(wrong.clone() - right.clone()));
            members.iter().zip(&lengths).for_each(|(&i, length)| brackets[i].push(*length));
            let middle = (right.clone() + wrong.clone()) / 2.0;
            let done = |length: f32| halving == self.halvings || length <= self.tolerance;
            let (leave, stay): (Vec<usize>, Vec<usize>) = (0..members.len()).partition(|&place| done(lengths[place]));
            for place in leave {
                let end = match self.keep {
                    Keep::Boundary => &middle,
                    Keep::Wrong => &wrong,
                    Keep::Right => &right,
                };
                kept[members[place]] = end.clone().narrow(0, place, 1);
            }
            if stay.is_empty() {
                break;
            }
            let mut middle = middle;
            if stay.len() < members.len() {
                [right, wrong, middle] = [right, wrong, middle].map(|points| rows(&points, &stay));
                members = stay.iter().map(|&place| members[place]).collect();
                part = part.select(&stay);
            }
            let logits = victim.logits(middle.clone())?;
            let judged = self.criterion.judge(&logits, &part.targets, self.threshold);
            let is_right: Vec<bool> = judged.iter().map(|judged| *judged != Some(false)).collect();
            let is_wrong: Vec<bool> = is_right.iter().map(|right| !right).collect();
            right = choose(right, &middle, &is_right);
            wrong = choose(wrong, &middle, &is_wrong);
        }
        Ok(Tensor::cat(kept, 0))
    }

    /// A random point of each image's start: uniform in the cube of its radius, for ℓ2 then brought into the ball.
    fn noise(&self, batch: &Batch, start: &[f32], seed: u64) -> Tensor<4> {
        let dims = batch.dims();
        let values = (dims[1] * dims[2] * dims[3]) as u64;
        let mut noise = Vec::with_capacity(batch.len() * values as usize);
        for (&id, &radius) in batch.ids.iter().zip(start) {
            let stream = Stream::new(&[seed, id]).child("margin");
            noise.extend((0..values).map(|i| radius * stream.symmetric(i)));
        }
        let device = batch.images.device();
        let radius = Tensor::<1>::from_data(TensorData::new(start.to_vec(), [start.len()]), &device);
        self.norm.project(Tensor::from_data(TensorData::new(noise, dims), &device), &radius)
    }

    fn finite(&self, batch: &Batch, at: Step, what: &'static str, values: Tensor<1>) -> Result<Vec<f32>> {
        let device = values.device();
        let values = floats(values);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(place) => Err(Error::Attack(AttackError::NotFinite {
                attack: "margin".into(),
                what,
                sample: batch.ids[place],
                step: at.index,
                steps: at.total,
                device: format!("{device:?}"),
            })),
        }
    }
}

impl Budget {
    /// The same radius for each of `n` images, steps of `factor · radius / steps`, a start anywhere in the ball.
    pub fn fixed(n: usize, radius: f32, factor: f32, steps: usize) -> Self {
        let step = factor * radius / steps.max(1) as f32;
        Self { radius: vec![radius; n], step: vec![step; n], start: vec![radius; n] }
    }
}

/// The rows `places` of `[N, …]`.
fn rows(points: &Tensor<4>, places: &[usize]) -> Tensor<4> {
    if places.len() == points.dims()[0] {
        return points.clone();
    }
    Tensor::cat(places.iter().map(|&place| points.clone().narrow(0, place, 1)).collect(), 0)
}

/// `new` for the images that `chosen` marks, else `old`.
fn choose(old: Tensor<4>, new: &Tensor<4>, chosen: &[bool]) -> Tensor<4> {
    if !chosen.contains(&true) {
        return old;
    }
    if !chosen.contains(&false) {
        return new.clone();
    }
    let mask: Vec<f32> = chosen.iter().map(|&chosen| f32::from(u8::from(chosen))).collect();
    let mask = Tensor::<1>::from_data(TensorData::new(mask, [chosen.len()]), &new.device());
    let mask = per_sample(&mask).expand(new.dims()).equal_elem(1.0);
    old.mask_where(mask, new.clone())
}
