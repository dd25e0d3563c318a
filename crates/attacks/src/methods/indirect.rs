//! Indirect: perturb one region to change what the victim sees in another.
//!
//! Nakka, Salzmann. *Indirect Local Attacks for Context-aware Semantic Segmentation Networks*, ECCV 2020.
//! <https://arxiv.org/abs/1911.13038>
//!
//! Only pixels of the region B (`change`) have a loss: a box of the image, or everything that is labelled with given classes.
//! Only pixels outside it may change, `gap` pixels away from it and further, and of these only the blocks (`block` pixels wide)
//! whose gradient at the start is the longest: a share of `share`. So what changes in B comes through the context that the
//! victim looks at; a network that sees little of its surroundings cannot be attacked this way.
//!
//! The steps are PGD's with any loss. Choosing the blocks once by the length of their gradient stands in for the paper's
//! group-sparse optimisation.
//!
//! Defaults: B is the box between a quarter and three quarters of height and width, a gap of 0, blocks of 8, a share of 0.25 (the
//! paper's sparsity of 0.75), PGD's ball and step, 100 steps.

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::{Batch, Counted, Targets, VOID, Victim};

use crate::{
    Adversarial, Attack, AttackConfig, Context, Goal, GradientAttack, OptionSpec, Registration, Result, Scene, Step,
    gradient_attack::fits,
    host::{floats, integers, upload},
    objective::named,
};

struct Indirect {
    attack: GradientAttack,
    change: Region,
    gap: usize,
    block: usize,
    share: f32,
}

/// Pixels that are to change.
#[derive(Clone, Debug, PartialEq)]
enum Region {
    /// Top, left, bottom and right, as shares of height and width.
    Box([f32; 4]),
    Classes(Vec<u8>),
}

impl std::str::FromStr for Region {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.split_once('=') {
            Some(("box", sides)) => {
                let sides: Option<Vec<f32>> = sides.split(',').map(|s| s.trim().parse().ok()).collect();
                let sides: Option<[f32; 4]> = sides.and_then(|sides| sides.try_into().ok());
                let fine = |s: &[f32; 4]| {
                    s[0] >= 0.0 && s[1] >= 0.0 && s[0] < s[2] && s[1] < s[3] && s[2] <= 1.0 && s[3] <= 1.0
                };
                sides.filter(fine).map(Self::Box)
            }
            Some(("classes", classes)) => {
                let class = |c: &str| c.trim().parse().ok().filter(|&c| c != VOID);
                classes.split(',').map(class).collect::<Option<_>>().map(Self::Classes)
            }
            _ => None,
        };
        parsed.ok_or(CHANGE)
    }
}

impl Region {
    /// One in the region, on the labels' grid, `[N, H, W]`.
    fn map(&self, targets: &Targets) -> Vec<f32> {
        let [n, h, w] = targets.dims();
        match self {
            Self::Box([top, left, bottom, right]) => {
                let middle = |i: usize, size: usize| (i as f32 + 0.5) / size as f32;
                let inside = |i: usize| {
                    let (y, x) = (middle(i / w % h, h), middle(i % w, w));
                    (*top..*bottom).contains(&y) && (*left..*right).contains(&x)
                };
                (0..n * h * w).map(|i| f32::from(u8::from(inside(i)))).collect()
            }
            Self::Classes(classes) => {
                let is = |label: i32| classes.iter().any(|class| i32::from(*class) == label);
                integers(targets.labels().clone()).iter().map(|l| f32::from(u8::from(is(*l)))).collect()
            }
        }
    }
}

impl Attack for Indirect {
    fn name(&self) -> &str {
        self.attack.name()
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let counted = Counted::new(victim);
        let dims = batch.dims();
        let changes = self.change.map(&batch.targets);
        let device = batch.images.device();
        let region = || Tensor::<3>::from_data(TensorData::new(changes.clone(), batch.targets.dims()), &device);
        let inner = Batch { targets: batch.targets.clone().with_valid(region()), ..batch.clone() };
        let target = context.target.map(|target| target.clone().with_valid(region()));
        let outside = self.outside(&changes, batch.targets.dims(), dims);
        let mut mask = Tensor::from_data(TensorData::new(outside, [dims[0], 1, dims[2], dims[3]]), &device);
        if let Some(given) = context.mask {
            mask = given.clone() * if given.dims()[1] == 1 { mask } else { mask.repeat_dim(1, dims[1]) };
        }
        let context = Context { target: target.as_ref(), ..*context };
        if self.share < 1.0 {
            let goal = Goal::of(&inner, self.attack.target.as_ref(), &context)?;
            let scene = Scene { victim: &counted, batch: &inner, goal: &goal, steps: 1, context: &context };
            mask = mask.clone() * self.blocks(&scene, &mask)?;
        }
        let found = self.attack.run(&counted, &inner, &Context { mask: Some(&mask), ..context })?;
        Ok(Adversarial { passes: counted.passes(), ..found })
    }

    fn step_size(&self) -> Option<f32> {
        self.attack.step_size()
    }
}

impl Indirect {
    /// One where pixels may change, on the images' grid, `[N, H, W]`: everything further than `gap` from the region.
    fn outside(&self, changes: &[f32], [n, rows, columns]: [usize; 3], [_, _, h, w]: [usize; 4]) -> Vec<f32> {
        let mut outside = Vec::with_capacity(n * h * w);
        for image in changes.chunks(rows * columns) {
            // Labels lie on the images' pixels, or are one for the whole image: then its box is the configured one.
            let region: Vec<f32> = match &self.change {
                Region::Box(_) if [rows, columns] != [h, w] => {
                    let grid = Tensor::<3, burn::tensor::Int>::zeros([1, h, w], &burn::tensor::Device::flex());
                    self.change.map(&Targets::hard(grid))
                }
                Region::Classes(_) if [rows, columns] != [h, w] => vec![image[0]; h * w],
                _ => image.to_vec(),
            };
            let near = |i: usize| {
                let (y, x) = (i / w, i % w);
                let rows = y.saturating_sub(self.gap)..=(y + self.gap).min(h - 1);
                let columns = x.saturating_sub(self.gap)..=(x + self.gap).min(w - 1);
                rows.into_iter().any(|y| columns.clone().any(|x| region[y * w + x] > 0.0))
            };
            outside.extend((0..h * w).map(|i| if near(i) { 0.0 } else { 1.0 }));
        }
        outside
    }

    /// One in the blocks that the loss at the clean images hangs on most, among those that `mask` leaves, `[N, 1, H, W]`.
    fn blocks(&self, scene: &Scene, mask: &Tensor<4>) -> Result<Tensor<4>> {
        let [n, c, h, w] = scene.batch.dims();
        let mut objective = self.attack.objective.begin(scene)?;
        let (_, gradient) = scene.victim.pull_back(scene.batch.images.clone(), &mut |logits| {
            fits(&logits, scene.batch)?;
            Ok(objective.evaluate(Step { index: 0, total: self.attack.steps }, &logits).cotangent)
        })?;
        let masked = gradient * if mask.dims()[1] == 1 { mask.clone().repeat_dim(1, c) } else { mask.clone() };
        let squares = floats(masked.square().sum_dim(1));
        let allowed = floats(mask.clone().max_dim(1));
        let (down, across) = (h.div_ceil(self.block), w.div_ceil(self.block));
        let block = |pixel: usize| pixel / w / self.block * across + pixel % w / self.block;
        let mut chosen = Vec::with_capacity(n * h * w);
        for image in 0..n {
            let mut lengths = vec![0.0f64; down * across];
            let mut open = vec![false; down * across];
            for pixel in 0..h * w {
                lengths[block(pixel)] += f64::from(squares[image * h * w + pixel]);
                open[block(pixel)] |= allowed[image * h * w + pixel] > 0.0;
            }
            let mut order: Vec<usize> = (0..lengths.len()).filter(|&b| open[b]).collect();
            order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
            order.truncate((order.len() as f32 * self.share).ceil() as usize);
            chosen.extend((0..h * w).map(|pixel| if order.contains(&block(pixel)) { 1.0 } else { 0.0 }));
        }
        Ok(upload(&chosen, mask).reshape([n, 1, h, w]).repeat_dim(1, mask.dims()[1]))
    }
}

const CHANGE: &str =
    "box=0.25,0.25,0.75,0.75, or another box=TOP,LEFT,BOTTOM,RIGHT in shares of the image, or classes=K,…";
const GAP: &str = "0, or how many pixels around what is to change must stay as they are";
const BLOCK: &str = "8, or the side of the blocks in pixels, at least 1";
const SHARE: &str = "0.25, or another share in (0, 1] of the blocks that may change";

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    let change = config.option("change", Region::Box([0.25, 0.25, 0.75, 0.75]), CHANGE)?;
    let (gap, block) = (config.option("gap", 0, GAP)?, config.option("block", 8, BLOCK)?);
    let share: f32 = config.option("share", 0.25, SHARE)?;
    if block == 0 {
        return Err(config.setting("block", block, BLOCK));
    }
    if !(share > 0.0 && share <= 1.0) {
        return Err(config.setting("share", share, SHARE));
    }
    let attack = GradientAttack::new(config, named::chosen(config)?)?;
    Ok(Box::new(Indirect { attack, change, gap, block, share }))
}

inventory::submit! {
    Registration {
        name: "indirect",
        about: "perturbs one region to change another",
        paper: "https://arxiv.org/abs/1911.13038",
        options: &[
            OptionSpec { name: named::OPTION, values: named::VALUES },
            OptionSpec { name: "change", values: CHANGE },
            OptionSpec { name: "gap", values: GAP },
            OptionSpec { name: "block", values: BLOCK },
            OptionSpec { name: "share", values: SHARE },
        ],
        defaults: |config| config.steps = 100,
        build,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_or_refused() {
        assert_eq!("box=0,0,0.5,1".parse(), Ok(Region::Box([0.0, 0.0, 0.5, 1.0])));
        assert_eq!("classes=3, 7".parse(), Ok(Region::Classes(vec![3, 7])));
        for wrong in ["", "box=0,0,1", "box=0.5,0,0.5,1", "box=0,0,2,1", "box=nan,0,1,1", "classes=255", "classes="] {
            assert_eq!(wrong.parse::<Region>(), Err(CHANGE), "{wrong}");
        }
    }
}
