//! Dice and IoU of medical segmentation: per slice, per volume or pooled, with the rule for absent classes said by name.

use std::collections::{BTreeMap, btree_map::Entry};

use serde::{Deserialize, Serialize};

use crate::{ClassCounts, MetricError};

/// What a class scores that the labels do not contain.
///
/// Published numbers differ by this rule alone, and most of all on slices, where many classes are absent.
///
/// | convention | neither labelled nor predicted | predicted, not labelled |
/// |---|---|---|
/// | [`NnUnet`](Self::NnUnet) | no score | 0 |
/// | [`Monai`](Self::Monai) | no score | no score |
/// | [`MonaiKeepEmpty`](Self::MonaiKeepEmpty) | 1 | 0 |
/// | [`Rog`](Self::Rog) | 1 | 0 |
/// | [`RogAttack`](Self::RogAttack) | 0 | 0 |
/// | [`ImaOnline`](Self::ImaOnline) | 0 | 0 |
///
/// A class that is labelled and not predicted scores 0 in all of them. Where a convention adds a small constant to the
/// denominator, it is left out here: it only decides the case of two empty sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyClass {
    /// nnU-Net's evaluation: a class that is nowhere is left out of the mean over cases.
    #[default]
    NnUnet,
    /// MONAI with `ignore_empty = True`, its default: without labels there is no score, however much is predicted.
    Monai,
    /// MONAI with `ignore_empty = False`.
    MonaiKeepEmpty,
    /// The final test of ROG (Daza et al., MICCAI 2021).
    Rog,
    /// What ROG's attacks measure while they run.
    RogAttack,
    /// The Dice that IMA's training decides margins by.
    ImaOnline,
}

impl EmptyClass {
    /// All conventions, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::NnUnet, Self::Monai, Self::MonaiKeepEmpty, Self::Rog, Self::RogAttack, Self::ImaOnline];

    /// The score of a class without labels; `predicted` says whether there are predictions of it.
    pub fn score(self, predicted: bool) -> Option<f64> {
        match (self, predicted) {
            (Self::NnUnet, false) | (Self::Monai, _) => None,
            (Self::MonaiKeepEmpty | Self::Rog, false) => Some(1.0),
            _ => Some(0.0),
        }
    }
}

/// A score of how far two sets overlap, in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// `2 |A ∩ B| / (|A| + |B|)`.
    Dice,
    /// `|A ∩ B| / |A ∪ B|`.
    Iou,
}

impl Overlap {
    /// The score of every class, `[K]`. Counts of a slice give the score of the slice, merged counts that of a volume or of
    /// everything.
    ///
    /// ```
    /// use fireproof_metrics::{ClassCounts, EmptyClass, Overlap};
    ///
    /// let counts = ClassCounts::count(3, &[0u8, 1, 1, 1], &[0u8, 1, 0, 0])?;
    /// assert_eq!(Overlap::Dice.of(&counts, EmptyClass::NnUnet), [Some(0.5), Some(0.5), None]);
    /// assert_eq!(Overlap::Iou.of(&counts, EmptyClass::Rog), [Some(1.0 / 3.0), Some(1.0 / 3.0), Some(1.0)]);
    /// # Ok::<(), fireproof_metrics::MetricError>(())
    /// ```
    pub fn of(self, counts: &ClassCounts, empty: EmptyClass) -> Vec<Option<f64>> {
        let score = |class: usize| {
            let (both, labels, predictions) =
                (counts.intersections()[class], counts.labels()[class], counts.predictions()[class]);
            if labels == 0 {
                return empty.score(predictions > 0);
            }
            Some(match self {
                Self::Dice => (2 * both) as f64 / (labels + predictions) as f64,
                Self::Iou => both as f64 / counts.union(class) as f64,
            })
        };
        (0..counts.classes()).map(score).collect()
    }
}

/// Counts of slices, kept apart by volume.
///
/// ```
/// use fireproof_metrics::{ByVolume, ClassCounts, EmptyClass, Overlap};
///
/// let mut volumes = ByVolume::default();
/// volumes.add(4, &ClassCounts::count(2, &[1u8, 0], &[1u8, 1])?)?;
/// volumes.add(4, &ClassCounts::count(2, &[1u8, 1], &[1u8, 1])?)?;
/// volumes.add(9, &ClassCounts::count(2, &[1u8, 0], &[0u8, 0])?)?;
/// let dice: Vec<_> = volumes.iter().map(|(_, counts)| Overlap::Dice.of(counts, EmptyClass::NnUnet)[1]).collect();
/// assert_eq!(dice, [Some(6.0 / 7.0), Some(0.0)]);
/// let pooled = volumes.pooled()?.unwrap();
/// assert_eq!(Overlap::Dice.of(&pooled, EmptyClass::NnUnet)[1], Some(6.0 / 8.0));
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByVolume(BTreeMap<u64, ClassCounts>);

impl ByVolume {
    /// Adds the counts of a slice to its volume. Addition of integers: the order of the slices never matters.
    ///
    /// # Errors
    /// [`MetricError::Merge`] when the number of classes is not that of the volumes so far; nothing is then added.
    pub fn add(&mut self, volume: u64, counts: &ClassCounts) -> Result<(), MetricError> {
        if let Some(other) = self.0.values().next()
            && other.classes() != counts.classes()
        {
            return Err(MetricError::Merge { what: "classes", found: counts.classes(), expected: other.classes() });
        }
        match self.0.entry(volume) {
            Entry::Vacant(place) => {
                place.insert(counts.clone());
                Ok(())
            }
            Entry::Occupied(place) => place.into_mut().merge(counts),
        }
    }

    /// Adds the volumes of `other`, slices of a volume that both hold included.
    ///
    /// # Errors
    /// [`MetricError::Merge`] when the numbers of classes differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricError> {
        other.iter().try_for_each(|(volume, counts)| self.add(volume, counts))
    }

    /// The number of volumes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The counts of each volume, by increasing number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &ClassCounts)> {
        self.0.iter().map(|(&volume, counts)| (volume, counts))
    }

    /// All volumes as one; `None` without any.
    ///
    /// # Errors
    /// [`MetricError::Merge`] when counts that were read from a file differ in their number of classes.
    pub fn pooled(&self) -> Result<Option<ClassCounts>, MetricError> {
        let mut volumes = self.0.values();
        let Some(mut pooled) = volumes.next().cloned() else { return Ok(None) };
        volumes.try_for_each(|counts| pooled.merge(counts))?;
        Ok(Some(pooled))
    }
}
