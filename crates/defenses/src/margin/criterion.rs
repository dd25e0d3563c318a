//! When an image counts as predicted right.

use burn::tensor::Tensor;
use fireproof_metrics::EmptyClass;
use fireproof_tensor::{
    Targets, VOID,
    host::{floats, integers},
};
use serde::{Deserialize, Serialize};

/// When the network gets an image right.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use fireproof_defenses::margin::{Criterion, Over};
/// use fireproof_tensor::Targets;
///
/// // One image of two pixels, the second one predicted as class 0 instead of 1.
/// let device = Device::flex();
/// let logits = Tensor::<4>::from_data([[[[0.0, 1.0]], [[2.0, 0.0]]]], &device);
/// let targets = Targets::from_labels(&[1, 1], [1, 1, 2], &device)?;
/// let dice = |threshold| Criterion::Dice { threshold: Some(threshold), over: Over::Max, empty: Default::default() };
/// // Dice of class 1 is 2 · 1 / (1 + 2).
/// assert_eq!(dice(0.6).judge(&logits, &targets, None), [Some(true)]);
/// assert_eq!(dice(0.7).judge(&logits, &targets, None), [Some(false)]);
/// assert_eq!(Criterion::Label.judge(&logits, &targets, None), [Some(false)]);
/// # Ok::<(), fireproof_tensor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Criterion {
    /// Every valid pixel has its label: for one label an image, equality of labels.
    Label,
    /// The hard Dice of the foreground, of the predicted classes of the whole image.
    Dice {
        /// The least Dice, 0 to 1. Without one it is the mean over the training images of the Dice that the network has when
        /// training begins, as AMAT takes it from a clean model: only sensible with weights to start from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<f64>,
        /// How the classes' scores become one.
        #[serde(default)]
        over: Over,
        /// What a class without labels scores. An image in which no class has a score is neither right nor wrong: its
        /// margin is left alone.
        #[serde(default)]
        empty: EmptyClass,
    },
}

/// How the scores of the foreground classes become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// The best class: what IMA and AMAT's code does, lenient where there are several.
    #[default]
    Max,
    /// Their mean.
    Mean,
    /// The worst class.
    Min,
}

impl Criterion {
    /// Refuses thresholds that mean nothing.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Dice { threshold: Some(threshold), .. } if !(0.0..=1.0).contains(threshold) => {
                Err(format!("the criterion's threshold is {threshold}, expected 0 to 1"))
            }
            _ => Ok(()),
        }
    }

    /// The criterion in words.
    pub(crate) fn explain(&self) -> String {
        match self {
            Self::Label => "every label is right".into(),
            Self::Dice { threshold, over, empty } => {
                let threshold =
                    threshold.map_or("the starting network's mean".into(), |threshold| threshold.to_string());
                let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_string();
                let (over, empty) = (word(serde_json::json!(over)), word(serde_json::json!(empty)));
                format!("the {over} of the foreground classes' Dice is at least {threshold} (empty classes: {empty})")
            }
        }
    }

    /// Whether the criterion's threshold has to be measured.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Dice { threshold: None, .. })
    }

    /// Whether each image is right, `logits [N, K, H, W]`; `None` where that is not defined: an image without a valid pixel,
    /// or without a class that has a score. `measured` stands for a threshold that is not given.
    pub fn judge(&self, logits: &Tensor<4>, targets: &Targets, measured: Option<f64>) -> Vec<Option<bool>> {
        match self {
            Self::Label => {
                let [n, height, width] = targets.dims();
                let right = targets.correct(logits).reshape([n, height * width]).sum_dim(1).reshape([n]);
                let valid = floats(targets.valid_pixels());
                let judged = floats(right).into_iter().zip(valid);
                judged.map(|(right, valid)| (valid > 0.0).then_some(right >= valid)).collect()
            }
            Self::Dice { threshold, .. } => {
                let least = threshold.or(measured).unwrap_or(1.0);
                self.scores(logits, targets).into_iter().map(|score| score.map(|dice| dice >= least)).collect()
            }
        }
    }

    /// The Dice of each image, 0 to 1; `None` where no class has a score, and for [`Label`](Self::Label).
    pub fn scores(&self, logits: &Tensor<4>, targets: &Targets) -> Vec<Option<f64>> {
        let [n, classes, height, width] = logits.dims();
        let Self::Dice { over, empty, .. } = self else { return vec![None; n] };
        let predicted = integers(logits.clone().inner().argmax(1).reshape([n, height, width]));
        let labels = integers(targets.labels().clone());
        let valid = floats(targets.valid().clone());
        let pixels = height * width;
        let score = |image: usize| {
            let mut counts = vec![[0u64; 3]; classes];
            for at in image * pixels..(image + 1) * pixels {
                let (label, class) = (labels[at], predicted[at]);
                if valid[at] == 0.0 || label == i32::from(VOID) {
                    continue;
                }
                counts[class as usize][1] += 1;
                if let Some(counts) = counts.get_mut(label as usize) {
                    counts[2] += 1;
                    counts[0] += u64::from(label == class);
                }
            }
            let dice = counts[1..].iter().filter_map(|&[both, predicted, labelled]| match labelled {
                0 => empty.score(predicted > 0),
                _ => Some(2.0 * both as f64 / (predicted + labelled) as f64),
            });
            let dice: Vec<f64> = dice.collect();
            if dice.is_empty() {
                return None;
            }
            Some(match over {
                Over::Max => dice.into_iter().fold(0.0, f64::max),
                Over::Mean => dice.iter().sum::<f64>() / dice.len() as f64,
                Over::Min => dice.into_iter().fold(1.0, f64::min),
            })
        };
        (0..n).map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// The Dice of one image of four pixels and three classes.
    fn dice(predicted: [usize; 4], labels: [u8; 4], over: Over, empty: EmptyClass) -> Option<f64> {
        let device = Device::flex();
        let mut logits = vec![0.0f32; 12];
        predicted.iter().enumerate().for_each(|(pixel, class)| logits[class * 4 + pixel] = 1.0);
        let logits = Tensor::<4>::from_data(TensorData::new(logits, [1, 3, 1, 4]), &device);
        let targets = Targets::from_labels(&labels, [1, 1, 4], &device).unwrap();
        Criterion::Dice { threshold: None, over, empty }.scores(&logits, &targets)[0]
    }

    #[test]
    fn classes_are_combined_by_their_best_their_mean_or_their_worst() {
        // Class 1: 2 / 3, class 2: 0 of one predicted and one labelled pixel.
        let scores =
            [Over::Max, Over::Mean, Over::Min].map(|over| dice([1, 0, 0, 2], [1, 1, 2, 0], over, EmptyClass::NnUnet));
        assert_eq!(scores, [Some(2.0 / 3.0), Some(1.0 / 3.0), Some(0.0)]);
    }

    #[test]
    fn an_image_without_foreground_follows_the_rule_that_was_named() {
        let nothing = |empty| dice([0; 4], [0; 4], Over::Max, empty);
        assert_eq!(nothing(EmptyClass::NnUnet), None, "left out");
        assert_eq!(nothing(EmptyClass::MonaiKeepEmpty), Some(1.0));
        assert_eq!(nothing(EmptyClass::ImaOnline), Some(0.0), "what the released code does");
        assert_eq!(dice([0, 0, 0, 1], [0; 4], Over::Max, EmptyClass::NnUnet), Some(0.0), "false positives");
        assert_eq!(dice([0, 0, 0, 1], [0, 0, 0, VOID], Over::Max, EmptyClass::NnUnet), None, "void is not counted");
    }
}
