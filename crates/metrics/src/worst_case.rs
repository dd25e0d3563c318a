//! The worst case over several attacks: each image gets the attack that hurts most.
//!
//! Croce, Singh, Hein. *Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models*, ECCV 2024,
//! <https://arxiv.org/abs/2306.12941>: for pixel accuracy the minimum of each image, for mIoU a greedy assignment, because an
//! image's share in a pooled IoU depends on the attacks that the other images got.
//!
//! The greedy rule: all images start with the attack of the smallest pooled mIoU. In each round the images come in random
//! order; for each, every attack is tried against the *current* totals and the one with the lowest mIoU stays. It ends with
//! the first round that gains less than 10⁻⁶. A class whose union is 0 in the totals does not enter the mean and keeps its
//! index: a subset of a data set may lack classes that the next image brings back.

use crate::random::{hash, shuffled};
use crate::{ClassCounts, MetricError};

/// A round that gains less is the last.
const GAIN: f64 = 1e-6;

/// More rounds than any table needed: published runs take 5 to 10.
const ROUNDS: u64 = 1000;

/// What a defender is left with when the attacker picks per image.
#[derive(Debug, Clone, PartialEq)]
pub struct WorstCase {
    /// The score, a fraction in 0..=1.
    pub score: f64,
    /// Index of the attack that each image got, `[images]`.
    pub chosen: Vec<usize>,
}

/// The mean over images of the smallest pixel accuracy that any attack reached on the image (aAcc of SEA).
///
/// `attacks[a][i]` are the counts of image `i` under attack `a`; images without valid pixels have no accuracy and are left
/// out of the mean. `None` when there is no image with one. Of attacks that do equal harm the first is chosen.
///
/// # Errors
/// [`MetricError::Table`] when the attacks do not have the same images with the same labels.
///
/// ```
/// use fireproof_metrics::{ClassCounts, worst_case};
///
/// let image = |correct: usize| ClassCounts::count(1, &[0u8; 4], &[vec![0u8; correct], vec![9; 4 - correct]].concat());
/// let (a, b) = ([image(1)?, image(4)?], [image(3)?, image(2)?]);
/// let worst = worst_case::pixel_accuracy(&[a.iter().collect(), b.iter().collect()])?.unwrap();
/// assert_eq!((worst.score, worst.chosen), ((0.25 + 0.5) / 2.0, vec![0, 1]));
/// # Ok::<(), fireproof_metrics::MetricError>(())
/// ```
pub fn pixel_accuracy(attacks: &[Vec<&ClassCounts>]) -> Result<Option<WorstCase>, MetricError> {
    let images = check(attacks)?;
    let correct = |attack: usize, image: usize| attacks[attack][image].correct();
    let worst = |image: usize| (0..attacks.len()).min_by_key(|&attack| correct(attack, image)).unwrap_or(0);
    let chosen: Vec<usize> = (0..images).map(worst).collect();
    let counts = chosen.iter().enumerate().map(|(image, &attack)| attacks[attack][image]);
    Ok(crate::per_image::mean(counts, ClassCounts::pixel_accuracy).map(|score| WorstCase { score, chosen }))
}

/// The pooled mIoU that the greedy assignment of attacks to images reaches, see the [module](self). An upper bound of the
/// true minimum, and never above the strongest single attack.
///
/// `attacks[a][i]` are the counts of image `i` under attack `a`; `seed` orders the images of each round. `None` when no image
/// has valid pixels.
///
/// # Errors
/// [`MetricError::Table`] when the attacks do not have the same images with the same labels.
pub fn miou(attacks: &[Vec<&ClassCounts>], seed: u64) -> Result<Option<WorstCase>, MetricError> {
    let images = check(attacks)?;
    let pooled = |attack: &[&ClassCounts]| {
        let mut totals = Totals::new(attack.first().map_or(0, |first| first.classes()));
        attack.iter().for_each(|counts| totals.add(counts));
        totals
    };
    let mut start: Option<(f64, usize, Totals)> = None;
    for (attack, counts) in attacks.iter().enumerate() {
        let totals = pooled(counts);
        let Some(score) = totals.miou() else { return Ok(None) };
        if start.as_ref().is_none_or(|(least, ..)| score < *least) {
            start = Some((score, attack, totals));
        }
    }
    let Some((mut score, attack, mut totals)) = start else { return Ok(None) };
    let mut chosen = vec![attack; images];
    for round in 0..ROUNDS {
        let before = score;
        for image in shuffled(images, hash(seed) ^ round) {
            totals.subtract(attacks[chosen[image]][image]);
            for (attack, counts) in attacks.iter().enumerate() {
                totals.add(counts[image]);
                let tried = totals.miou().expect("labels do not depend on the attack, so there is a class");
                totals.subtract(counts[image]);
                if tried < score {
                    (score, chosen[image]) = (tried, attack);
                }
            }
            totals.add(attacks[chosen[image]][image]);
        }
        if before - score < GAIN {
            break;
        }
    }
    Ok(Some(WorstCase { score, chosen }))
}

/// The number of images.
fn check(attacks: &[Vec<&ClassCounts>]) -> Result<usize, MetricError> {
    let Some(first) = attacks.first() else { return Ok(0) };
    for (attack, counts) in attacks.iter().enumerate() {
        if counts.len() != first.len() {
            let message = format!("attack {attack} has {} images, expected {} as attack 0", counts.len(), first.len());
            return Err(MetricError::Table(message));
        }
        let same = |image: &usize| counts[*image].labels() == first[*image].labels();
        if let Some(image) = (0..counts.len()).find(|image| !same(image)) {
            let message = format!("image {image} has other labels under attack {attack} than under attack 0");
            return Err(MetricError::Table(message));
        }
        if counts.iter().any(|one| one.classes() != first[0].classes()) {
            return Err(MetricError::Table(format!("attack {attack} has images of different numbers of classes")));
        }
    }
    Ok(first.len())
}

/// Intersections and unions over all images, `[K]` each; images come and go.
struct Totals {
    intersections: Vec<u64>,
    unions: Vec<u64>,
}

impl Totals {
    fn new(classes: usize) -> Self {
        Self { intersections: vec![0; classes], unions: vec![0; classes] }
    }

    fn add(&mut self, counts: &ClassCounts) {
        for class in 0..self.unions.len() {
            self.intersections[class] += counts.intersections()[class];
            self.unions[class] += counts.union(class);
        }
    }

    fn subtract(&mut self, counts: &ClassCounts) {
        for class in 0..self.unions.len() {
            self.intersections[class] -= counts.intersections()[class];
            self.unions[class] -= counts.union(class);
        }
    }

    /// As [`ClassCounts::miou`].
    fn miou(&self) -> Option<f64> {
        let (mut sum, mut present) = (0.0, 0);
        for (&both, &either) in self.intersections.iter().zip(&self.unions) {
            if either > 0 {
                sum += both as f64 / either as f64;
                present += 1;
            }
        }
        (present > 0).then(|| sum / f64::from(present))
    }
}
