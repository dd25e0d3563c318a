//! What the losses of whole regions share: sums over pixels, heads at several resolutions.

use burn::tensor::{Tensor, TensorData, activation::softmax};
use fireproof_models::{Coarse, Output};
use fireproof_tensor::Targets;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::MeanOver;
use crate::stage::{BATCH, Options, options, parse};

/// What the losses of regions have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// The view it reads.
    pub view: String,
    /// What the term is multiplied by.
    pub weight: f64,
    /// Sums go over the whole batch, as nnU-Net has it in 2-D; without it every image has a loss of its own, and the mean
    /// is taken.
    pub batch_dice: bool,
    /// Without `batch_dice`, what the sum over images is divided by, where they have weights.
    pub mean_over: MeanOver,
    /// Whether class 0 is one of the classes that are averaged.
    pub background: bool,
    /// Added above and below the fraction: what a class that nobody has and nobody predicts is judged by.
    pub smooth: f64,
    /// Whether the coarser heads of a network with deep supervision have the same loss, see [`head_weights`].
    pub deep_supervision: bool,
}

impl Default for Region {
    fn default() -> Self {
        Self {
            view: BATCH.into(),
            weight: 1.0,
            batch_dice: true,
            mean_over: MeanOver::Weights,
            background: false,
            smooth: 1e-5,
            deep_supervision: true,
        }
    }
}

impl Region {
    pub(super) fn check(&self) -> Result<(), String> {
        positive("weight", self.weight)?;
        if self.batch_dice && self.mean_over == MeanOver::Samples {
            return Err("mean_over is samples, expected weights where batch_dice makes one loss of all samples".into());
        }
        not_negative("smooth", self.smooth)
    }

    /// `mean loss of 'batch' …`, the end of every explanation.
    pub(super) fn explain(&self) -> String {
        let over = if self.batch_dice { "over the batch" } else { "of each image" };
        let classes = if self.background { "all classes" } else { "all classes but the first" };
        let deep = if self.deep_supervision { ", coarser heads too" } else { "" };
        format!("of '{}', sums {over}, {classes}{deep}", self.view)
    }

    /// The sums of a pass.
    ///
    /// # Panics
    /// Without background, if the network has a single class.
    pub(super) fn sums(&self, logits: &Tensor<4>, targets: &Targets) -> Sums {
        Sums::of(logits, targets, self)
    }

    /// The loss of an output: that of the finest head, or the weighted one of all heads.
    pub(super) fn over_heads(
        &self,
        output: &Output,
        targets: &Targets,
        loss: impl Fn(&Tensor<4>, &Targets) -> Tensor<1>,
    ) -> Tensor<1> {
        if !self.deep_supervision || output.coarse.is_empty() {
            return loss(&output.logits, targets) * self.weight;
        }
        let weights = head_weights(output.coarse.len() + 1);
        let mut sum = loss(&output.logits, targets) * weights[0];
        for (Coarse { logits, stride }, weight) in output.coarse.iter().zip(&weights[1..]) {
            if *weight > 0.0 {
                sum = sum + loss(logits, &targets.coarse(*stride)) * *weight;
            }
        }
        sum * self.weight
    }
}

/// What each head's loss counts, from full resolution down: 1, 1/2, 1/4, …, nothing for the coarsest, divided by their
/// sum, as nnU-Net has it.
pub fn head_weights(heads: usize) -> Vec<f64> {
    let own = |head: usize| if head > 0 && head + 1 == heads { 0.0 } else { 0.5f64.powi(head as i32) };
    let sum: f64 = (0..heads).map(own).sum();
    (0..heads).map(|head| own(head) / sum).collect()
}

/// Sums over valid pixels, `[R, C]`: a row an image, or one for the whole batch.
pub(super) struct Sums {
    /// `Σ p · t`, on the graph of the logits.
    pub(super) both: Tensor<2>,
    /// `Σ p`, on the graph of the logits.
    pub(super) predicted: Tensor<2>,
    /// `Σ t`, plain.
    pub(super) labelled: Tensor<2>,
    /// Weight of each row, `[R]`, plain; they sum to one unless samples of less weight make the others count less.
    share: Tensor<1>,
}

impl Sums {
    fn of(logits: &Tensor<4>, targets: &Targets, region: &Region) -> Self {
        let [n, k, height, width] = logits.dims();
        let from = usize::from(!region.background);
        assert!(k > from, "a loss without the background needs a second class, found {k} logits");
        let valid = targets.valid().clone().reshape([n, 1, height, width]);
        let label = match targets.soft() {
            Some(soft) => soft.clone() * valid.clone(),
            None => targets.one_hot(k),
        };
        let label = label.narrow(1, from, k - from);
        let p = softmax(logits.clone(), 1).narrow(1, from, k - from) * Tensor::from_inner(valid);
        let weight = targets.weight().cloned().unwrap_or_else(|| Tensor::ones([n], &label.device()));
        let rows = |x: Tensor<4>| x.reshape([n, k - from, height * width]).sum_dim(2).reshape([n, k - from]);
        let (both, predicted, labelled) = (rows(p.clone() * Tensor::from_inner(label.clone())), rows(p), rows(label));
        if !region.batch_dice {
            let total = match region.mean_over {
                MeanOver::Weights => weight.clone().sum().clamp_min(1e-12),
                MeanOver::Samples => Tensor::full([1], n as f32, &weight.device()),
            };
            return Self { both, predicted, labelled, share: weight / total };
        }
        let column = weight.reshape([n, 1]);
        let tracked = |x: Tensor<2>| (x * Tensor::from_inner(column.clone())).sum_dim(0);
        let share = Tensor::ones([1], &labelled.device());
        Self { both: tracked(both), predicted: tracked(predicted), labelled: (labelled * column).sum_dim(0), share }
    }

    /// `Σ t` on the graph of the others.
    pub(super) fn labels(&self) -> Tensor<2> {
        Tensor::from_inner(self.labelled.clone())
    }

    /// The mean over rows of one number a row, `[R, 1]` → `[1]`.
    pub(super) fn mean(&self, rows: Tensor<2>) -> Tensor<1> {
        let [n, _] = rows.dims();
        (rows.reshape([n]) * Tensor::from_inner(self.share.clone())).sum()
    }
}

/// One of Generalised Dice's weights a class, `[R, C]`, as plain values.
pub(super) fn plain(values: Vec<f32>, like: &Tensor<2>) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, like.dims()), &like.device().inner())
}

/// Reads options over a loss' own defaults. (serde's `deny_unknown_fields` does not go with `flatten`.)
pub(super) fn filled<T: Default + Serialize + DeserializeOwned>(given: Options) -> Result<T, String> {
    let mut all = options(&T::default());
    if let Some(unknown) = given.keys().find(|name| !all.contains_key(*name)) {
        let known = all.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(format!("unknown field `{unknown}`, expected one of {known}"));
    }
    all.extend(given);
    parse(all)
}

pub(super) fn positive(what: &str, value: f64) -> Result<(), String> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(format!("{what} is {value}, expected a positive number")),
    }
}

pub(super) fn not_negative(what: &str, value: f64) -> Result<(), String> {
    match value >= 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(format!("{what} is {value}, expected zero or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::head_weights;

    #[test]
    fn heads_count_half_of_the_one_above_and_the_coarsest_nothing() {
        assert_eq!(head_weights(1), [1.0]);
        assert_eq!(head_weights(2), [1.0, 0.0]);
        assert_eq!(head_weights(4), [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0]);
    }
}
