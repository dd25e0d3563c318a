//! Dice of slices of medical volumes: per slice, per volume and pooled.

use std::collections::BTreeMap;

use fireproof_metrics::{ByVolume, ClassCounts, EmptyClass, Overlap};
use serde::{Deserialize, Serialize};

/// Dice of a row, as fractions. Means go over the cases first and over the classes then, as nnU-Net's do; the first class is
/// the background and in none of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiceScores {
    /// How many volumes the slices belong to.
    pub volumes: u64,
    /// Cases are slices; by what a class scores that a slice does not have.
    pub slice: BTreeMap<EmptyClass, Option<f64>>,
    /// Cases are volumes; likewise.
    pub volume: BTreeMap<EmptyClass, Option<f64>>,
    /// All slices as one case: what the IMA paper calls voxel Dice.
    pub pooled: Option<f64>,
    /// One entry per class, the background included, by nnU-Net's rule for absent classes.
    pub per_class: Vec<ClassDice>,
}

/// Dice of one class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassDice {
    /// Mean over slices.
    pub slice: Option<f64>,
    /// Mean over volumes.
    pub volume: Option<f64>,
    /// Of all slices together.
    pub pooled: Option<f64>,
}

impl DiceScores {
    /// The rule for absent classes that tables go by.
    pub const RULE: EmptyClass = EmptyClass::NnUnet;

    /// Of the counts of slices and the volumes they belong to; `None` without any, or where a slice belongs to none.
    pub fn of<'a>(slices: impl Iterator<Item = (Option<u64>, &'a ClassCounts)>) -> Option<Self> {
        let mut volumes = ByVolume::default();
        let mut single = Vec::new();
        for (volume, counts) in slices {
            volumes.add(volume?, counts).ok()?;
            single.push(counts);
        }
        let pooled = volumes.pooled().ok()??;
        let whole: Vec<&ClassCounts> = volumes.iter().map(|(_, counts)| counts).collect();
        let by_rule = |cases: &[&ClassCounts]| {
            EmptyClass::ALL.into_iter().map(|rule| (rule, foreground(&per_class(cases, rule)))).collect()
        };
        let (slice, volume) = (per_class(&single, Self::RULE), per_class(&whole, Self::RULE));
        let all = Overlap::Dice.of(&pooled, Self::RULE);
        let class = |k: usize| ClassDice { slice: slice[k], volume: volume[k], pooled: all[k] };
        Some(Self {
            volumes: volumes.len() as u64,
            slice: by_rule(&single),
            volume: by_rule(&whole),
            pooled: foreground(&all),
            per_class: (0..all.len()).map(class).collect(),
        })
    }

    /// The mean over slices by [`Self::RULE`].
    pub fn per_slice(&self) -> Option<f64> {
        self.slice.get(&Self::RULE).copied().flatten()
    }

    /// The mean over volumes by [`Self::RULE`].
    pub fn per_volume(&self) -> Option<f64> {
        self.volume.get(&Self::RULE).copied().flatten()
    }
}

/// Of each class the mean over the cases in which it has a score.
fn per_class(cases: &[&ClassCounts], rule: EmptyClass) -> Vec<Option<f64>> {
    let scores: Vec<Vec<Option<f64>>> = cases.iter().map(|counts| Overlap::Dice.of(counts, rule)).collect();
    let classes = scores.first().map_or(0, Vec::len);
    (0..classes).map(|class| mean(scores.iter().map(|case| case[class]))).collect()
}

/// The mean over all classes but the first.
fn foreground(classes: &[Option<f64>]) -> Option<f64> {
    mean(classes.iter().skip(1).copied())
}

fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, count) = values.flatten().fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_volumes_and_everything_together_are_three_numbers() {
        // Volume 0 has two slices, the second without class 1; volume 1 has one slice, in which class 1 is missed.
        let count = |labels: &[u8], found: &[u8]| ClassCounts::count(2, labels, found).unwrap();
        let slices = [(0, count(&[1, 1, 0], &[1, 0, 0])), (0, count(&[0, 0], &[0, 1])), (1, count(&[1, 0], &[0, 0]))];
        let scores = DiceScores::of(slices.iter().map(|(volume, counts)| (Some(*volume), counts))).unwrap();
        // Slices: 2/3, 0 (predicted, not there), 0. Volumes: 2·1 / (2 + 2) and 0. Together: 2·1 / (3 + 2).
        assert_eq!(scores.volumes, 2);
        assert!((scores.per_slice().unwrap() - 2.0 / 9.0).abs() < 1e-12);
        assert_eq!((scores.per_volume(), scores.pooled), (Some(0.25), Some(0.4)));
        // MONAI leaves the second slice out.
        assert!((scores.slice[&EmptyClass::Monai].unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(scores.per_class[1].volume, Some(0.25));
        let text = serde_json::to_string(&scores).unwrap();
        assert!(text.contains("\"nn-unet\":0.25") || text.contains("\"nnunet\":0.25"), "{text}");
        assert_eq!(serde_json::from_str::<DiceScores>(&text).unwrap(), scores);
    }

    #[test]
    fn pictures_that_belong_to_no_volume_have_no_dice() {
        let counts = ClassCounts::count(2, &[1u8, 0], &[1u8, 0]).unwrap();
        assert_eq!(DiceScores::of([(None, &counts)].into_iter()), None);
        assert_eq!(DiceScores::of(std::iter::empty()), None);
    }
}
