//! DLA, the discrete linear attack: stripes of ±ε and flips of their signs, judged by predicted labels alone.
//!
//! Chen et al. *Delving into Decision-based Black-box Attacks on Semantic Segmentation*, 2024.
//!
//! The attacker sees the label map and nothing else: no gradient, no logits, no loss. What it lowers is the mIoU of the image
//! (towards a target: what it raises is the mIoU with the map), over the classes that occur.
//!
//! 1. *Exploration*, a fifth of the queries: horizontal and vertical stripes in turn, a random sign of ε for every row or column
//!    and channel; the worst is kept.
//! 2. *Calibration*: the image is cut into blocks, one block's signs are flipped, and the flip is kept if the mIoU falls. First
//!    one block, the whole image, then two, four, …, each cut in half in turn across and along the stripes; at single pixels it
//!    starts over.
//!
//! How many queries explore, and the order of the cuts along the stripes, are this crate's choices; the paper describes stripes
//! and hierarchical flips. ℓ∞ only, from the clean image there are no random signs to begin with, so it must start at random.
//!
//! Defaults: 200 queries (`steps`), the paper's larger number.

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::{Batch, Counted, Norm, VOID, Victim, random::Stream};

use crate::{
    Adversarial, Attack, AttackConfig, Context, Error, Goal, Iterate, Registration, Result, Scene, Start, Target, View,
    compact::Compact,
    gradient_attack::fits,
    host::{floats, integers},
    minimal::everywhere,
    start::Seeds,
    threat::{PixelBall, Threat},
    trace::Recorder,
};

struct Dla {
    name: String,
    ball: PixelBall,
    queries: usize,
    target: Option<Target>,
}

/// One query in so many explores.
const EXPLORES: usize = 5;

/// Where the signs of an image are.
struct Signs {
    /// `[C, H, W]`, ±1.
    values: Vec<f32>,
    /// Whether its stripes are columns.
    columns: bool,
    /// What they have reached: lower is better for the attacker.
    score: f64,
    level: u32,
    block: usize,
}

impl Attack for Dla {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let victim = Counted::new(victim);
        let goal = Goal::of(batch, self.target.as_ref(), context)?;
        let scene = Scene { victim: &victim, batch, goal: &goal, steps: self.queries, context };
        let space = self.ball.bind(&scene)?;
        let dims = batch.dims();
        let radii = floats(space.epsilon().clone());
        let labels = integers(goal.targets.labels().clone());
        let valid = floats(goal.targets.valid().clone());
        let pixels = labels.len() / dims[0];
        let seeds = Seeds::new(&self.name, context, 0);
        let streams: Vec<Stream> = batch.ids.iter().map(|id| seeds.stream(*id)).collect();
        let exploring = (self.queries / EXPLORES).max(1);
        let mut record = context.trace.then(Recorder::default);
        let mut states: Vec<Option<Signs>> = (0..dims[0]).map(|_| None).collect();
        let mut best = batch.images.clone();
        let mut compact = Compact::default();
        for query in 0..self.queries {
            let tried: Vec<Signs> = (0..dims[0])
                .map(|i| match &states[i] {
                    Some(signs) if query >= exploring => signs.flipped(dims),
                    _ => Signs::stripes(&streams[i], query, dims),
                })
                .collect();
            let delta: Vec<f32> =
                tried.iter().zip(&radii).flat_map(|(signs, r)| signs.values.iter().map(move |s| s * r)).collect();
            let delta = Tensor::from_data(TensorData::new(delta, dims), &best.device());
            let images = space.project(vec![batch.images.clone() + delta]).remove(0);
            let logits = compact.logits(&victim, &images)?;
            fits(&logits, batch)?;
            if !floats(logits.clone().sum()).iter().all(|v| v.is_finite()) {
                return Err(self.not_finite(&logits, batch, query));
            }
            // Nothing else of the logits is looked at.
            let seen = integers(logits.clone().argmax(1));
            let scores: Vec<f64> = (0..dims[0])
                .map(|i| {
                    let of = i * pixels..(i + 1) * pixels;
                    let miou = miou(&labels[of.clone()], &seen[of.clone()], &valid[of]);
                    if goal.targeted { -miou } else { miou }
                })
                .collect();
            let loss: Vec<f32> = scores.iter().map(|s| -*s as f32).collect();
            let loss = crate::host::upload(&loss, &images);
            if let Some(record) = &mut record {
                record.record(0, query, &loss, &logits, &batch.targets);
            }
            if let Some(observer) = context.observer {
                let (images, logits, loss) = (&images, &logits, &loss);
                observer.observe(&View { restart: 0, step: query, steps: self.queries, batch, images, logits, loss });
            }
            let better: Vec<bool> =
                (0..dims[0]).map(|i| states[i].as_ref().is_none_or(|kept| scores[i] < kept.score)).collect();
            best = best.mask_where(everywhere(&better, &images), images);
            for (i, tried) in tried.into_iter().enumerate() {
                if better[i] {
                    states[i] = Some(Signs { score: scores[i], ..tried });
                } else if let Some(kept) = states[i].as_mut() {
                    (kept.level, kept.block) = (tried.level, tried.block);
                }
            }
            // No map scores less than one that is wrong everywhere (towards a target: right everywhere).
            let least = if goal.targeted { -1.0 } else { 0.0 };
            let open = |state: &Option<Signs>| state.as_ref().is_none_or(|kept| kept.score > least);
            let open: Vec<bool> = states.iter().map(open).collect();
            compact = Compact::only(&open, &logits);
            if !open.contains(&true) {
                break;
            }
        }
        let trace = record.map(Recorder::finish);
        Ok(Adversarial { trace, ..Adversarial::new(best, victim.passes()) })
    }
}

impl Dla {
    fn not_finite(&self, logits: &Tensor<4>, batch: &Batch, query: usize) -> Error {
        let [n, k, h, w] = logits.dims();
        let sums = floats(logits.clone().reshape([n, k * h * w]).sum_dim(1));
        let image = sums.iter().position(|s| !s.is_finite()).unwrap_or(0);
        Error::NotFinite {
            attack: self.name.clone(),
            what: "a logit",
            sample: batch.ids[image],
            step: query,
            steps: self.queries,
            device: format!("{:?}", logits.device()),
        }
    }
}

impl Signs {
    fn stripes(stream: &Stream, query: usize, [_, c, h, w]: [usize; 4]) -> Self {
        let stream = Stream::new(&[stream.bits(0), query as u64]).child("stripes");
        let columns = query % 2 == 1;
        let lines = if columns { w } else { h };
        let sign = |channel: usize, line: usize| match stream.below((channel * lines + line) as u64, 2) {
            0 => -1.0,
            _ => 1.0,
        };
        let value = |i: usize| {
            let (channel, y, x) = (i / (h * w), i / w % h, i % w);
            sign(channel, if columns { x } else { y })
        };
        let values = (0..c * h * w).map(value).collect();
        Self { values, columns, score: f64::INFINITY, level: 0, block: 0 }
    }

    /// The signs with the next block flipped, and the block after it as the next one.
    fn flipped(&self, [_, c, h, w]: [usize; 4]) -> Self {
        // Cut across the stripes first.
        let (across, along) = (self.level.div_ceil(2), self.level / 2);
        let (rows, columns) = if self.columns { (1 << along, 1 << across) } else { (1 << across, 1 << along) };
        let (rows, columns): (usize, usize) = (rows, columns);
        let (rows, columns) = (rows.min(h), columns.min(w));
        let (row, column) = (self.block / columns, self.block % columns);
        let part = |index: usize, parts: usize, size: usize| index * size / parts..(index + 1) * size / parts;
        let mut values = self.values.clone();
        for channel in 0..c {
            for y in part(row, rows, h) {
                let start = (channel * h + y) * w;
                part(column, columns, w).for_each(|x| values[start + x] = -values[start + x]);
            }
        }
        let last = self.block + 1 == rows * columns;
        let (level, block) = match (last, (rows, columns) == (h, w)) {
            (false, _) => (self.level, self.block + 1),
            (true, false) => (self.level + 1, 0),
            (true, true) => (0, 0),
        };
        Self { values, level, block, score: f64::INFINITY, columns: self.columns }
    }
}

/// Mean IoU of one image over the classes that occur in its labels or predictions; 0 for an image of void.
fn miou(labels: &[i32], seen: &[i32], valid: &[f32]) -> f64 {
    let mut counts = std::collections::BTreeMap::<i32, (u32, u32)>::new();
    for ((label, seen), valid) in labels.iter().zip(seen).zip(valid) {
        if *valid == 0.0 || *label == i32::from(VOID) {
            continue;
        }
        if label == seen {
            let (both, either) = counts.entry(*label).or_default();
            (*both, *either) = (*both + 1, *either + 1);
        } else {
            counts.entry(*label).or_default().1 += 1;
            counts.entry(*seen).or_default().1 += 1;
        }
    }
    let sum: f64 = counts.values().map(|(both, either)| f64::from(*both) / f64::from(*either)).sum();
    sum / counts.len().max(1) as f64
}

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    config.check()?;
    if config.norm != Norm::Linf {
        return Err(config.setting("norm", config.norm, "linf"));
    }
    if config.start != Start::Random {
        return Err(config.setting("start", config.start, "random"));
    }
    if config.restarts != 1 {
        return Err(config.setting("restarts", config.restarts, "1; more queries are steps"));
    }
    if config.iterate != Iterate::BestAccuracy {
        return Err(config.setting("iterate", config.iterate, "best-accuracy, which is the lowest mIoU here"));
    }
    let ball = PixelBall { norm: config.norm, epsilon: config.epsilon, range: config.range };
    let (name, queries, target) = (config.name.clone(), config.steps, config.target.clone());
    Ok(Box::new(Dla { name, ball, queries, target }))
}

inventory::submit! {
    Registration {
        name: "dla",
        about: "stripes of +-epsilon and flips of their signs, judged by labels alone: no gradient, no logits, linf only",
        paper: "Delving into Decision-based Black-box Attacks on Semantic Segmentation, 2024",
        options: &[],
        defaults: |config| {
            config.steps = 200;
            config.iterate = Iterate::BestAccuracy;
        },
        build,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_go_from_the_whole_image_to_single_pixels_and_start_over() {
        let dims = [1, 1, 2, 4];
        let mut signs = Signs { values: vec![1.0; 8], columns: true, score: 0.0, level: 0, block: 0 };
        let mut sizes = Vec::new();
        for _ in 0..16 {
            let next = signs.flipped(dims);
            sizes.push(next.values.iter().filter(|v| **v < 0.0).count());
            signs = Signs { values: vec![1.0; 8], ..next };
        }
        // Whole; halves; quarters (cut across and along); eighths; whole again.
        assert_eq!(sizes, [8, 4, 4, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 8]);
    }

    #[test]
    fn the_score_is_the_mean_iou_of_what_occurs() {
        // Class 0: one of two; class 1: one of two; void does not count.
        let score = miou(&[0, 0, 1, i32::from(VOID)], &[0, 1, 1, 3], &[1.0, 1.0, 1.0, 0.0]);
        assert!((score - 0.5).abs() < 1e-12);
        assert_eq!(miou(&[1], &[2], &[1.0]), 0.0);
        assert_eq!(miou(&[i32::from(VOID)], &[2], &[0.0]), 0.0);
    }
}
