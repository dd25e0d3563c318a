//! Adversarial patch: a small square that may look like anything, wherever and however it is put on the image.
//!
//! Brown, Mané, Roy, Abadi, Gilmer. *Adversarial Patch*, 2017. <https://arxiv.org/abs/1712.09665>; for segmentation with the loss
//! of Nesti, Rossolini, Nair, Biondi, Buttazzo. *Evaluating the Robustness of Semantic Segmentation for Autonomous Driving
//! against Real-World Adversarial Patch Attacks*, WACV 2022. <https://arxiv.org/abs/2108.06179>
//!
//! `p ← clamp(p + α sign Σ ∇_p L(f(A(p, x))))` where `A` puts the patch on the image at a random place, scaled, turned and
//! resampled bilinearly: the expectation over transformations (Athalye et al., ICML 2018). Pixels that the patch covers have
//! no loss; of the others those that are still correct weigh `balance` and those that are fooled `1 − balance`.
//!
//! The result shows the patch under one more transformation, which no step has seen. Labels under it are void, so that it is
//! judged by what it does to its surroundings. It is not bounded by ε (the default is the whole range), unless a smaller ε
//! says how far its values may be from the image's.
//!
//! Learned on each image alone, or with `images` > 0 by [`fit`](crate::fit) on many: then one patch for all.
//!
//! Defaults: 100 steps of 0.02 with 2 views each, a side (`size`) of 0.25 of the image's shorter side, a scale within 20 %
//! (`scale`), a turn within 0° (`turn`), anywhere (`place`), `balance` = 0.8. The paper's terms for smoothness and for colours
//! that a printer has are not implemented.

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::{Batch, Counted, Norm, Passes, Victim, random::Stream};

use super::universal::one_size;
use crate::{
    Adversarial, Attack, AttackConfig, Context, Error, Goal, Iterate, Learns, OptionSpec, Registration, Result, Scene,
    Start, Step, View,
    gradient_attack::fits,
    guard::Guard,
    host::floats,
    objective::weighted_by,
    start::Seeds,
    threat::{PixelBall, Threat},
    trace::Recorder,
};

struct Patch {
    config: AttackConfig,
    ball: PixelBall,
    alpha: f32,
    size: f32,
    scale: f32,
    turn: f32,
    place: Place,
    balance: f32,
    views: usize,
    images: usize,
    learned: Option<Tensor<4>>,
}

/// Where the middle of the patch is put.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Anywhere,
    /// In shares of height and width.
    At(f32, f32),
}

impl std::str::FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "random" {
            return Ok(Self::Anywhere);
        }
        let share = |text: &str| text.trim().parse().ok().filter(|v: &f32| (0.0..=1.0).contains(v));
        let at = text.split_once(',').and_then(|(y, x)| Some(Self::At(share(y)?, share(x)?)));
        at.ok_or(PLACE)
    }
}

/// A transformation of the patch.
#[derive(Clone, Copy, Debug)]
struct Spot {
    middle: [f32; 2],
    scale: f32,
    turn: f32,
}

impl Spot {
    /// Every pixel of the image that the patch of `side` covers, with the patch's pixels that it mixes and their weights.
    fn each(&self, side: usize, [h, w]: [usize; 2], mut see: impl FnMut(usize, [(usize, f32); 4])) {
        let (sin, cos) = self.turn.sin_cos();
        let reach = 0.5 * side as f32 * self.scale * (sin.abs() + cos.abs());
        let [y0, x0] = self.middle;
        let span = |middle: f32, size: usize| {
            let from = (middle - reach).floor().max(0.0) as usize;
            from..((middle + reach).ceil().max(0.0) as usize).min(size)
        };
        for y in span(y0, h) {
            for x in span(x0, w) {
                let (dy, dx) = (y as f32 + 0.5 - y0, x as f32 + 0.5 - x0);
                let from_middle = [cos * dy + sin * dx, cos * dx - sin * dy];
                let [v, u] = from_middle.map(|d| d / self.scale + 0.5 * side as f32);
                let inside = 0.0..side as f32;
                if !inside.contains(&v) || !inside.contains(&u) {
                    continue;
                }
                let ends = |at: f32| {
                    let at = (at - 0.5).clamp(0.0, side as f32 - 1.0);
                    let low = at.floor() as usize;
                    [(low, 1.0 - at.fract()), ((low + 1).min(side - 1), at.fract())]
                };
                let (rows, columns) = (ends(v), ends(u));
                let mixed = [0, 1, 2, 3].map(|i| {
                    let ((row, a), (column, b)) = (rows[i / 2], columns[i % 2]);
                    (row * side + column, a * b)
                });
                see(y * w + x, mixed);
            }
        }
    }
}

/// A batch on the host, with what may change.
struct Scenery {
    clean: Vec<f32>,
    mask: Option<Vec<f32>>,
    radii: Vec<f32>,
    range: [f32; 2],
    dims: [usize; 4],
}

impl Scenery {
    fn values(&self) -> usize {
        self.dims[1..].iter().product()
    }

    /// Puts the patch, `[C, side, side]`, on an image; tells every value that the patch moves freely, with its mixture.
    fn paint(
        &self,
        image: usize,
        patch: &[f32],
        spot: Spot,
        mut free: impl FnMut(usize, [(usize, f32); 4]),
    ) -> Vec<f32> {
        let [_, c, h, w] = self.dims;
        let area = patch.len() / c;
        let side = area.isqrt();
        let of = image * self.values();
        let mut painted = self.clean[of..of + self.values()].to_vec();
        spot.each(side, [h, w], |pixel, mixed| {
            for channel in 0..c {
                let at = channel * h * w + pixel;
                let may = self.mask.as_ref().map_or(1.0, |mask| mask[of + at]);
                let mixed = mixed.map(|(i, weight)| (channel * area + i, weight));
                let value: f32 = mixed.iter().map(|(i, weight)| patch[*i] * weight).sum();
                let change = value - painted[at];
                if may > 0.0 && change.abs() < self.radii[image] {
                    free(at, mixed);
                }
                // The weights of a mixture add up to one only up to rounding, which may leave the range by a unit in the last place.
                if may > 0.0 {
                    let moved = painted[at] + may * change.clamp(-self.radii[image], self.radii[image]);
                    painted[at] = moved.clamp(self.range[0], self.range[1]);
                }
            }
        });
        painted
    }

    /// Zero under the patch, `[H, W]`.
    fn uncovered(&self, side: usize, spot: Spot) -> Vec<f32> {
        let [_, _, h, w] = self.dims;
        let mut uncovered = vec![1.0; h * w];
        spot.each(side, [h, w], |pixel, _| uncovered[pixel] = 0.0);
        uncovered
    }
}

/// One of an attack's steps on a batch: loss and logits of its first view, and the summed gradient of each patch.
struct Seen {
    images: Tensor<4>,
    logits: Tensor<4>,
    loss: Tensor<1>,
    gradients: Vec<Vec<f32>>,
}

impl Patch {
    fn side(&self, [_, _, h, w]: [usize; 4]) -> usize {
        ((self.size * h.min(w) as f32).round() as usize).clamp(1, h.min(w))
    }

    fn spot(&self, stream: &Stream, draw: u64, [_, _, h, w]: [usize; 4]) -> Spot {
        let value = |i: u64| stream.uniform(4 * draw + i);
        let scale = 1.0 + self.scale * (2.0 * value(0) - 1.0);
        let turn = self.turn.to_radians() * (2.0 * value(1) - 1.0);
        let reach = 0.5 * self.side([0, 0, h, w]) as f32 * scale * (turn.sin().abs() + turn.cos().abs());
        let middle = |share: f32, size: usize| {
            let size = size as f32;
            if 2.0 * reach >= size { 0.5 * size } else { share }
        };
        let (y, x) = match self.place {
            Place::At(y, x) => (y * h as f32, x * w as f32),
            Place::Anywhere => {
                let any = |value: f32, size: usize| reach + value * (size as f32 - 2.0 * reach);
                (any(value(2), h), any(value(3), w))
            }
        };
        Spot { middle: [middle(y, h), middle(x, w)], scale, turn }
    }

    fn scenery(&self, scene: &Scene) -> Result<Scenery> {
        let epsilon = floats(self.ball.bind(scene)?.epsilon().clone());
        let dims = scene.batch.dims();
        let mask = scene.context.mask.map(|mask| {
            floats(if mask.dims()[1] == dims[1] { mask.clone() } else { mask.clone().repeat_dim(1, dims[1]) })
        });
        let clean = floats(scene.batch.images.clone());
        Ok(Scenery { clean, mask, radii: epsilon, range: self.ball.range, dims })
    }

    /// A patch to begin with.
    fn first(&self, stream: &Stream, dims: [usize; 4]) -> Vec<f32> {
        let [low, high] = self.ball.range;
        let values = dims[1] * self.side(dims).pow(2);
        let value = |i: u64| match self.config.start {
            Start::Zero => 0.5 * (low + high),
            Start::Random => low + (high - low) * stream.uniform(i),
        };
        (0..values as u64).map(value).collect()
    }

    /// Looks at every image with the patch that `patch` gives for it.
    fn look<'p>(
        &self,
        scene: &Scene,
        scenery: &Scenery,
        step: Step,
        patch: impl Fn(usize) -> &'p [f32],
        guard: &mut Guard,
    ) -> Result<Seen> {
        let [n, _, h, w] = scenery.dims;
        let device = scene.batch.images.device();
        let mut seen: Option<Seen> = None;
        for view in 0..self.views {
            let mut free: Vec<Vec<(usize, [(usize, f32); 4])>> = vec![Vec::new(); n];
            let (mut painted, mut uncovered) = (Vec::new(), Vec::new());
            for (image, free) in free.iter_mut().enumerate() {
                let stream = Seeds::new(&self.config.name, scene.context, 0).stream(scene.batch.ids[image]);
                let draw = (step.index * self.views + view) as u64;
                let spot = self.spot(&stream.child("views"), draw, scenery.dims);
                painted.extend(scenery.paint(image, patch(image), spot, |at, mixed| free.push((at, mixed))));
                uncovered.extend(scenery.uncovered(self.side(scenery.dims), spot));
            }
            let images = Tensor::from_data(TensorData::new(painted, scenery.dims), &device);
            let mut targets = scene.goal.targets.clone();
            if targets.dims() == [n, h, w] {
                targets = targets.with_valid(Tensor::from_data(TensorData::new(uncovered, [n, h, w]), &device));
            }
            let goal = Goal { targets, targeted: scene.goal.targeted };
            let mut run = weighted_by(&goal, |_, logits| {
                let open = goal.open(logits);
                let rest = goal.targets.valid().clone() - open.clone();
                Some(open * self.balance + rest * (1.0 - self.balance))
            });
            let mut loss = None;
            let (logits, gradient) = scene.victim.pull_back(images.clone(), &mut |logits| {
                fits(&logits, scene.batch)?;
                let evaluation = run.evaluate(step, &logits);
                let evaluation = if goal.targeted { evaluation.negated() } else { evaluation };
                loss = Some(evaluation.loss);
                Ok(evaluation.cotangent)
            })?;
            let loss = loss.expect("a victim's pull_back asks for the gradient at its logits");
            guard.check(step, &loss, &gradient)?;
            let gradient = floats(gradient);
            let mut sums = match seen.take() {
                Some(seen) => seen.gradients,
                None => (0..n).map(|image| vec![0.0; patch(image).len()]).collect(),
            };
            for (image, free) in free.iter().enumerate() {
                for (at, mixed) in free {
                    let slope = gradient[image * scenery.values() + at];
                    mixed.iter().for_each(|(i, weight)| sums[image][*i] += weight * slope);
                }
            }
            seen = Some(Seen { images, logits, loss, gradients: sums });
        }
        Ok(seen.expect("at least one view"))
    }

    fn ascend(&self, patch: &mut [f32], gradient: &[f32]) {
        let [low, high] = self.ball.range;
        for (value, slope) in patch.iter_mut().zip(gradient) {
            let sign = if *slope == 0.0 { 0.0 } else { slope.signum() };
            *value = (*value + self.alpha * sign).clamp(low, high);
        }
    }

    /// The images with their patches, as they are judged.
    fn shown<'p>(&self, scene: &Scene, scenery: &Scenery, patch: impl Fn(usize) -> &'p [f32]) -> Adversarial {
        let [n, _, h, w] = scenery.dims;
        let device = scene.batch.images.device();
        let (mut painted, mut uncovered) = (Vec::new(), Vec::new());
        for image in 0..n {
            let stream = Seeds::new(&self.config.name, scene.context, 0).stream(scene.batch.ids[image]);
            let spot = self.spot(&stream.child("shown"), 0, scenery.dims);
            painted.extend(scenery.paint(image, patch(image), spot, |_, _| ()));
            uncovered.extend(scenery.uncovered(self.side(scenery.dims), spot));
        }
        let images = Tensor::from_data(TensorData::new(painted, scenery.dims), &device);
        let targets = (scene.batch.targets.dims() == [n, h, w]).then(|| {
            let uncovered = Tensor::from_data(TensorData::new(uncovered, [n, h, w]), &device);
            scene.batch.targets.clone().with_valid(uncovered)
        });
        Adversarial { targets, ..Adversarial::new(images, Passes::default()) }
    }
}

impl Attack for Patch {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let victim = Counted::new(victim);
        let goal = Goal::of(batch, self.config.target.as_ref(), context)?;
        let steps = self.config.steps;
        // A patch has no other start than its own.
        let context = &Context { start: None, ..*context };
        let scene = Scene { victim: &victim, batch, goal: &goal, steps, context };
        let scenery = self.scenery(&scene)?;
        let dims = batch.dims();
        if let Some(learned) = &self.learned {
            let (found, side) = (learned.dims(), self.side(dims));
            if found != [1, dims[1], side, side] {
                let expected = format!("{:?} for images {dims:?}", [1, dims[1], side, side]);
                return Err(Error::Argument { what: "patch", found: format!("{found:?}"), expected });
            }
            let learned = floats(learned.clone());
            return Ok(self.shown(&scene, &scenery, |_| &learned));
        }
        let mut guard = Guard::new(&self.config.name, scene);
        let mut record = context.trace.then(Recorder::default);
        let seeds = Seeds::new(&self.config.name, context, 0);
        let mut patches: Vec<Vec<f32>> =
            batch.ids.iter().map(|id| self.first(&seeds.stream(*id).child("patch"), dims)).collect();
        for index in 0..steps {
            let step = Step { index, total: steps };
            let seen = self.look(&scene, &scenery, step, |image| &patches[image], &mut guard)?;
            if let Some(record) = &mut record {
                record.record(0, index, &seen.loss, &seen.logits, &batch.targets);
            }
            if let Some(observer) = context.observer {
                let Seen { images, logits, loss, .. } = &seen;
                observer.observe(&View { restart: 0, step: index, steps, batch, images, logits, loss });
            }
            patches.iter_mut().zip(&seen.gradients).for_each(|(patch, gradient)| self.ascend(patch, gradient));
        }
        guard.read()?;
        let found = self.shown(&scene, &scenery, |image| &patches[image]);
        Ok(Adversarial { trace: record.map(Recorder::finish), passes: victim.passes(), ..found })
    }

    fn step_size(&self) -> Option<f32> {
        Some(self.alpha)
    }

    fn bounded(&self) -> bool {
        self.ball.epsilon < self.ball.range[1] - self.ball.range[0]
    }

    fn learns(&self) -> Option<&dyn Learns> {
        (self.images > 0).then_some(self)
    }
}

impl Learns for Patch {
    fn images(&self) -> usize {
        self.images
    }

    fn learn(&self, victim: &dyn Victim, data: &[Batch], context: &Context) -> Result<(Tensor<4>, Passes)> {
        let victim = Counted::new(victim);
        let dims = one_size(data)?;
        let steps = self.config.steps;
        let goals = data.iter().map(|batch| Goal::of(batch, self.config.target.as_ref(), context));
        let goals: Vec<Goal> = goals.collect::<Result<_>>()?;
        let scenes: Vec<Scene> = data
            .iter()
            .zip(&goals)
            .map(|(batch, goal)| Scene { victim: &victim, batch, goal, steps, context })
            .collect();
        let sceneries = scenes.iter().map(|scene| self.scenery(scene)).collect::<Result<Vec<_>>>()?;
        let mut patch = self.first(&Stream::new(&[context.seed]).child(&self.config.name).child("patch"), dims);
        for index in 0..steps {
            let step = Step { index, total: steps };
            let mut sum = vec![0.0; patch.len()];
            for (scene, scenery) in scenes.iter().zip(&sceneries) {
                let mut guard = Guard::new(&self.config.name, *scene);
                let seen = self.look(scene, scenery, step, |_| &patch, &mut guard)?;
                guard.read()?;
                seen.gradients.iter().for_each(|gradient| sum.iter_mut().zip(gradient).for_each(|(s, g)| *s += g));
            }
            self.ascend(&mut patch, &sum);
        }
        let side = self.side(dims);
        let learned = TensorData::new(patch, [1, dims[1], side, side]);
        Ok((Tensor::from_data(learned, &data[0].images.device()), victim.passes()))
    }

    fn with(&self, learned: Tensor<4>) -> Result<Box<dyn Attack>> {
        Ok(Box::new(Self { learned: Some(learned), ..Self::new(&self.config)? }))
    }
}

const SIZE: &str = "0.25, or another share in (0, 1] of the image's shorter side";
const SCALE: &str = "0.2, or by how much the patch may be larger or smaller, in [0, 1)";
const TURN: &str = "0, or by how many degrees it may be turned, in [0, 180]";
const PLACE: &str = "random, or where its middle is: Y,X in shares of the image";
const BALANCE: &str = "0.8, or another weight in [0, 1] of the pixels that are still correct";
const VIEWS: &str = "2, or how many views a step looks at, at least 1";
const IMAGES: &str = "0 for a patch of its own for each image, or of how many images bench learns a common one";

impl Patch {
    fn new(config: &AttackConfig) -> Result<Self> {
        config.check()?;
        config.in_pixels()?;
        if config.norm != Norm::Linf {
            return Err(config.setting("norm", config.norm, "linf"));
        }
        if config.iterate != Iterate::Last {
            return Err(config.setting("iterate", config.iterate, "last, since every step sees another view"));
        }
        if config.restarts != 1 {
            return Err(config.setting("restarts", config.restarts, "1"));
        }
        let patch = Self {
            config: config.clone(),
            ball: PixelBall { norm: config.norm, epsilon: config.epsilon, range: config.range },
            alpha: config.step_size.unwrap_or(0.02),
            size: config.option("size", 0.25, SIZE)?,
            scale: config.option("scale", 0.2, SCALE)?,
            turn: config.option("turn", 0.0, TURN)?,
            place: config.option("place", Place::Anywhere, PLACE)?,
            balance: config.option("balance", 0.8, BALANCE)?,
            views: config.option("views", 2, VIEWS)?,
            images: config.option("images", 0, IMAGES)?,
            learned: None,
        };
        let checks = [
            ("size", patch.size, patch.size > 0.0 && patch.size <= 1.0, SIZE),
            ("scale", patch.scale, (0.0..1.0).contains(&patch.scale), SCALE),
            ("turn", patch.turn, (0.0..=180.0).contains(&patch.turn), TURN),
            ("balance", patch.balance, (0.0..=1.0).contains(&patch.balance), BALANCE),
            ("views", patch.views as f32, patch.views > 0, VIEWS),
        ];
        match checks.into_iter().find(|(_, _, fine, _)| !fine) {
            Some((field, found, _, expected)) => Err(config.setting(field, found, expected)),
            None => Ok(patch),
        }
    }
}

inventory::submit! {
    Registration {
        name: "patch",
        about: "a square that may look like anything, learned under random places and sizes; linf only",
        paper: "https://arxiv.org/abs/1712.09665",
        options: &[
            OptionSpec { name: "size", values: SIZE },
            OptionSpec { name: "scale", values: SCALE },
            OptionSpec { name: "turn", values: TURN },
            OptionSpec { name: "place", values: PLACE },
            OptionSpec { name: "balance", values: BALANCE },
            OptionSpec { name: "views", values: VIEWS },
            OptionSpec { name: "images", values: IMAGES },
        ],
        defaults: |config| {
            config.epsilon = 1.0;
            config.step_size = Some(0.02);
            config.steps = 100;
        },
        build: |config| Ok(Box::new(Patch::new(config)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_that_is_neither_scaled_nor_turned_is_copied() {
        let dims = [1, 1, 6, 7];
        let scenery = Scenery { clean: vec![0.5; 42], mask: None, radii: vec![1.0], range: [0.0, 1.0], dims };
        let patch: Vec<f32> = (0..9).map(|i| i as f32 / 10.0).collect();
        let spot = Spot { middle: [3.5, 2.5], scale: 1.0, turn: 0.0 };
        let mut count = 0;
        let painted = scenery.paint(0, &patch, spot, |_, _| count += 1);
        for y in 0..6 {
            for x in 0..7 {
                let inside = (2..5).contains(&y) && (1..4).contains(&x);
                let expected = if inside { patch[(y - 2) * 3 + x - 1] } else { 0.5 };
                assert!((painted[y * 7 + x] - expected).abs() < 1e-6, "{y} {x}");
            }
        }
        assert_eq!((count, scenery.uncovered(3, spot).iter().filter(|u| **u == 0.0).count()), (9, 9));
    }

    #[test]
    fn rounding_does_not_leave_the_range() {
        let dims = [1, 1, 12, 12];
        let range = [-0.272_725_16, 0.727_274_84];
        for value in range {
            for step in 0..200 {
                let scenery = Scenery { clean: vec![0.1; 144], mask: None, radii: vec![1.0], range, dims };
                let spot = Spot { middle: [6.1, 5.7], scale: 1.0 + 0.003 * step as f32, turn: 0.3 };
                let painted = scenery.paint(0, &[value; 25], spot, |_, _| ());
                assert!(painted.iter().all(|v| (range[0]..=range[1]).contains(v)), "{value} {step}");
            }
        }
    }

    #[test]
    fn a_quarter_turn_moves_the_corners() {
        let dims = [1, 1, 4, 4];
        let scenery = Scenery { clean: vec![0.5; 16], mask: None, radii: vec![1.0], range: [0.0, 1.0], dims };
        let spot = Spot { middle: [2.0, 2.0], scale: 2.0, turn: std::f32::consts::FRAC_PI_2 };
        let painted = scenery.paint(0, &[0.0, 0.1, 0.2, 0.3], spot, |_, _| ());
        let corners = [painted[0], painted[3], painted[12], painted[15]].map(|v| (v * 10.0).round() as i32);
        let turned = [[1, 3, 0, 2], [2, 0, 3, 1]];
        assert!(turned.contains(&corners), "{corners:?}");
    }

    #[test]
    fn what_the_patch_gains_is_the_finite_difference() {
        let dims = [1, 2, 9, 9];
        let clean: Vec<f32> = (0..162).map(|i| ((i * 7) % 11) as f32 / 11.0).collect();
        let scenery = Scenery { clean, mask: None, radii: vec![1.0], range: [0.0, 1.0], dims };
        let patch: Vec<f32> = (0..32).map(|i| ((i * 5) % 13) as f32 / 13.0).collect();
        let spot = Spot { middle: [4.3, 4.8], scale: 1.2, turn: 0.4 };
        // The loss is a weighted sum of the image's values.
        let weight = |at: usize| ((at * 3) % 17) as f32 - 8.0;
        let loss = |patch: &[f32]| -> f32 {
            scenery.paint(0, patch, spot, |_, _| ()).iter().enumerate().map(|(at, v)| v * weight(at)).sum()
        };
        let mut gradient = vec![0.0; 32];
        scenery.paint(0, &patch, spot, |at, mixed| {
            mixed.iter().for_each(|(i, w)| gradient[*i] += w * weight(at));
        });
        for i in 0..32 {
            let moved = |by: f32| {
                let mut patch = patch.clone();
                patch[i] += by;
                loss(&patch)
            };
            let difference = (moved(0.05) - moved(-0.05)) / 0.1;
            assert!((difference - gradient[i]).abs() < 1e-2, "{i}: {difference} {}", gradient[i]);
        }
    }

    #[test]
    fn places_are_read_or_refused() {
        assert_eq!("random".parse(), Ok(Place::Anywhere));
        assert_eq!("0.5,0.25".parse(), Ok(Place::At(0.5, 0.25)));
        for wrong in ["", "0.5", "2,0", "nan,0"] {
            assert_eq!(wrong.parse::<Place>(), Err(PLACE), "{wrong}");
        }
    }
}
