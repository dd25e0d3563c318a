//! DeepFool: steps to the nearest boundary of the victim as it would be if it were linear.
//!
//! Moosavi-Dezfooli, Fawzi, Frossard. *DeepFool: a simple and accurate method to fool deep neural networks*, CVPR 2016.
//! <https://arxiv.org/abs/1511.04599>
//!
//! For every class `k` let `f_k = Σ (z_k − z_y)` over the valid pixels that are still correct, and `w_k` its gradient. If the
//! victim were linear, a step of `|f_k| / ‖w_k‖_*` would bring `f_k` to zero, in the dual norm: `δ = |f_k| w_k / ‖w_k‖₂²` for
//! ℓ2, `|f_k| sign(w_k) / ‖w_k‖₁` for ℓ∞. The class with the shortest step is taken, 1 + `overshoot` times as far, until 99 %
//! of the valid pixels are fooled. On one pixel this is the paper's algorithm. Towards a target there is one `f`: the sum of the
//! leads of the best other class over the target's.
//!
//! An image's result is the first iterate that is fooled, else the most successful one; it is clipped to ε, and
//! [`Adversarial::minimal`] holds what was found.
//!
//! Defaults: 50 steps at most, an overshoot of 0.02, the 10 classes (`classes`) that are the closest by `f_k`, as in the paper
//! for many classes. A step is a pass for each of them.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Norm, Victim, norm::per_sample};

use super::margin::Margin;
use crate::{
    Adversarial, Attack, AttackConfig, Context, OptionSpec, Registration, Result, Step,
    host::{floats, upload},
    minimal::{self, Minimiser},
    objective::{Evaluation, Objective, PerImage},
};

struct DeepFool {
    search: Minimiser,
    steps: usize,
    overshoot: f32,
    classes: usize,
}

/// Keeps a length finite where a gradient is zero.
const FLOOR: f32 = 1e-12;

impl DeepFool {
    /// What brings the sum `f` of each image, `[N]`, to zero, and how long it is.
    fn step(&self, f: &[f32], gradient: Tensor<4>) -> (Tensor<4>, Vec<f32>) {
        let norm = self.search.ball.norm;
        let flat = gradient.clone().flatten::<2>(1, 3);
        let dual = match norm {
            Norm::Linf => flat.abs().sum_dim(1),
            Norm::L2 => flat.square().sum_dim(1).sqrt(),
        };
        let dual: Vec<f32> = floats(dual);
        let lengths: Vec<f32> =
            f.iter().zip(&dual).map(|(f, d)| if *d > FLOOR { f / d } else { f32::INFINITY }).collect();
        let taken: Vec<f32> = lengths.iter().map(|l| if l.is_finite() { *l } else { 0.0 }).collect();
        let step = norm.steepest(gradient.clone()) * per_sample(&upload(&taken, &gradient));
        (step, lengths)
    }
}

/// `Σ (z_k − z_y)` over the correct pixels of each image, for every class: `[N, K]` on the host. Infinitely low for a class that
/// no correct pixel could be mistaken for.
fn leads(logits: &Tensor<4>, correct: &Tensor<4>, label: &Tensor<4>) -> Vec<Vec<f32>> {
    let [n, k, h, w] = logits.dims();
    let of_label = (logits.clone() * label.clone()).sum_dim(1);
    let lead = (logits.clone() - of_label.repeat_dim(1, k)) * correct.clone().repeat_dim(1, k);
    let sums = floats(lead.reshape([n, k, h * w]).sum_dim(2));
    let others = (label.clone() * -1.0 + 1.0) * correct.clone().repeat_dim(1, k);
    let others = floats(others.reshape([n, k, h * w]).sum_dim(2));
    let sums = sums.iter().zip(&others).map(|(s, o)| if *o > 0.0 { *s } else { f32::NEG_INFINITY });
    sums.collect::<Vec<f32>>().chunks(k).map(<[f32]>::to_vec).collect()
}

impl Attack for DeepFool {
    fn name(&self) -> &str {
        &self.search.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let n = batch.len();
        self.search.run(self.steps + 1, (victim, batch, context), |search| {
            let objective = PerImage(Margin::default());
            let mut margin = objective.begin(&search.scene)?;
            let goal = search.scene.goal;
            let mut images = batch.images.clone();
            let mut open = vec![true; n];
            for index in 0..=self.steps {
                let step = Step { index, total: self.steps };
                // The first of the passes goes to the closest class, and shows how far the attack has come.
                let (mut f, mut order) = (Vec::new(), Vec::new());
                let mut maps = None;
                let look = search.look(step, &images, &open, &mut |logits| {
                    let own = margin.evaluate(step, logits);
                    if goal.targeted {
                        return own;
                    }
                    let label = goal.targets.one_hot(logits.dims()[1]);
                    let [n, h, w] = goal.targets.dims();
                    let correct = goal.open(logits).reshape([n, 1, h, w]);
                    f = leads(logits, &correct, &label);
                    order = f.iter().map(|f| ranked(f)).collect();
                    let cotangent = towards(&order, 0, &label, &correct);
                    maps = Some((label, correct));
                    Evaluation { cotangent, ..own }
                })?;
                (0..n).for_each(|i| open[i] &= !look.fooled[i]);
                if index == self.steps || !open.contains(&true) {
                    break;
                }
                let (mut best, mut shortest) = match &maps {
                    // Towards the target: the loss is minus what is left to make up.
                    None => self.step(&look.loss.iter().map(|l| l.abs()).collect::<Vec<_>>(), look.gradient),
                    Some(_) => self.step(&of_rank(&f, &order, 0), look.gradient),
                };
                if let Some((label, correct)) = &maps {
                    for rank in 1..self.classes {
                        // An image has as many passes as it has classes that its pixels could be mistaken for.
                        let asked: Vec<bool> = (0..n).map(|i| open[i] && order[i].len() > rank).collect();
                        if !asked.contains(&true) {
                            break;
                        }
                        let gradient = search.gradient(&images, &asked, &|| towards(&order, rank, label, correct))?;
                        let (step, lengths) = self.step(&of_rank(&f, &order, rank), gradient);
                        let nearer: Vec<bool> = (0..n).map(|i| lengths[i] < shortest[i]).collect();
                        best = best.mask_where(minimal::everywhere(&nearer, &step), step);
                        (0..n).filter(|&i| nearer[i]).for_each(|i| shortest[i] = lengths[i]);
                    }
                }
                let moving: Vec<f32> = open.iter().map(|&open| if open { 1.0 + self.overshoot } else { 0.0 }).collect();
                images = search.valid(images.clone() + best * per_sample(&upload(&moving, &images)));
            }
            Ok(())
        })
    }
}

/// Classes from the closest on; those that cannot be are left out.
fn ranked(f: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..f.len()).filter(|&k| f[k].is_finite()).collect();
    order.sort_by(|&a, &b| f[b].total_cmp(&f[a]));
    order
}

/// How far away the class of a rank is for each image.
fn of_rank(f: &[Vec<f32>], order: &[Vec<usize>], rank: usize) -> Vec<f32> {
    f.iter().zip(order).map(|(f, order)| order.get(rank).map_or(f32::INFINITY, |&k| f[k].abs())).collect()
}

/// The gradient at the logits of `f_k`, with the class of a rank for each image, `[N, K, H, W]`.
fn towards(order: &[Vec<usize>], rank: usize, label: &Tensor<4>, correct: &Tensor<4>) -> Tensor<4> {
    let k = label.dims()[1];
    let mut map = vec![0.0; order.len() * k];
    for (row, order) in map.chunks_mut(k).zip(order) {
        if let Some(&class) = order.get(rank) {
            row[class] = 1.0;
        }
    }
    let class = upload(&map, label).reshape([order.len(), k, 1, 1]).expand(label.dims());
    (class - label.clone()) * correct.clone().repeat_dim(1, k)
}

const OVERSHOOT: &str = "0.02, or another share of a step that is added to it, not negative";
const CLASSES: &str = "10, or how many of the closest classes are looked at, at least 1";

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    let search = Minimiser::new(config)?;
    let overshoot: f32 = config.option("overshoot", 0.02, OVERSHOOT)?;
    let classes = config.option("classes", 10, CLASSES)?;
    if !(overshoot.is_finite() && overshoot >= 0.0) {
        return Err(config.setting("overshoot", overshoot, OVERSHOOT));
    }
    if classes == 0 {
        return Err(config.setting("classes", classes, CLASSES));
    }
    Ok(Box::new(DeepFool { search, steps: config.steps, overshoot, classes }))
}

inventory::submit! {
    Registration {
        name: "deepfool",
        about: "steps to the nearest boundary as if the victim were linear until 99 % are fooled, then clipped",
        paper: "https://arxiv.org/abs/1511.04599",
        options: &[
            OptionSpec { name: "overshoot", values: OVERSHOOT },
            OptionSpec { name: "classes", values: CLASSES },
        ],
        defaults: |config| {
            config.steps = 50;
            minimal::defaults(config);
        },
        build,
    }
}
