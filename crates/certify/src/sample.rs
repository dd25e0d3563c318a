//! What a model says of noisy copies of an image.

use std::ops::Range;

use burn::tensor::Tensor;
use fireproof_tensor::{Victim, random::gaussian};

use crate::{Error, Result};

/// Noisy copies of one image. Copy `i` depends on seed, image and `i` alone, not on the batches in which they are looked at.
pub(crate) struct Copies<'a> {
    pub(crate) victim: &'a dyn Victim,
    /// `[1, C, H, W]`.
    pub(crate) image: &'a Tensor<4>,
    pub(crate) id: u64,
    pub(crate) sigma: f32,
    pub(crate) seed: u64,
    /// Copies in a pass.
    pub(crate) batch: usize,
}

impl Copies<'_> {
    /// Calls `see` with the predicted class of every pixel, `[H · W]`, for each copy in order.
    pub(crate) fn predictions(&self, draws: Range<u64>, see: &mut dyn FnMut(&[usize])) -> Result<()> {
        let mut next = draws.start;
        while next < draws.end {
            let end = draws.end.min(next + self.batch as u64);
            let copy = |draw| {
                let noise = gaussian(self.image.dims(), self.sigma, &[self.seed, self.id, draw], &self.image.device());
                self.image.clone() + noise
            };
            let logits = self.victim.logits(Tensor::cat((next..end).map(copy).collect(), 0))?;
            let [n, k, height, width] = logits.dims();
            let sums = logits.clone().reshape([n, k * height * width]).sum_dim(1).into_data().convert::<f32>();
            let sums: Vec<f32> = sums.try_to_vec().expect("floats convert to f32");
            if let Some(at) = sums.iter().position(|sum| !sum.is_finite()) {
                return Err(Error::NotFinite { draw: next + at as u64 });
            }
            let classes = logits.argmax(1).into_data().convert::<i32>();
            let classes: Vec<i32> = classes.try_to_vec().expect("integers convert to i32");
            for image in classes.chunks_exact(height * width) {
                see(&image.iter().map(|&class| class as usize).collect::<Vec<_>>());
            }
            next = end;
        }
        Ok(())
    }

    /// Of each pixel the class that most of the draws get, the lowest of equals.
    pub(crate) fn top(&self, draws: Range<u64>) -> Result<Vec<usize>> {
        let mut counts: Vec<Vec<u32>> = Vec::new();
        self.predictions(draws, &mut |classes| {
            counts.resize_with(classes.len(), Vec::new);
            for (counts, &class) in counts.iter_mut().zip(classes) {
                if counts.len() <= class {
                    counts.resize(class + 1, 0);
                }
                counts[class] += 1;
            }
        })?;
        let highest = |counts: &Vec<u32>| {
            let best = counts.iter().max().copied().unwrap_or(0);
            counts.iter().position(|&count| count == best).unwrap_or(0)
        };
        Ok(counts.iter().map(highest).collect())
    }

    /// How many of the draws give each pixel the class in `top`.
    pub(crate) fn hits(&self, draws: Range<u64>, top: &[usize]) -> Result<Vec<u64>> {
        let mut hits = vec![0; top.len()];
        self.predictions(draws, &mut |classes| {
            for ((hits, class), top) in hits.iter_mut().zip(classes).zip(top) {
                *hits += u64::from(class == top);
            }
        })?;
        Ok(hits)
    }
}
