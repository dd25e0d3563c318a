//! CutMix: a box of another image, at its place there.
//!
//! Yun, Han, Oh, Chun, Choe, Yoo. *CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features*,
//! ICCV 2019. <https://arxiv.org/abs/1905.04899>
//!
//! The box has `√(1 − λ)` of both sides, a centre drawn uniformly, and is cut off at the border; `λ` is then what really
//! remains. Label maps are pasted with it, so labels stay hard: the natural mix for segmentation.

use fireproof_tensor::random::Stream;

use super::{Mixer, Overlay};

/// A box of the partner.
#[derive(Clone, Copy, Debug, Default)]
pub struct CutMix;

impl Mixer for CutMix {
    fn name(&self) -> &'static str {
        "cutmix"
    }

    fn overlay(&self, lambda: f64, stream: &Stream, size: [usize; 2]) -> Overlay {
        let side = (1.0 - lambda).sqrt();
        let place = stream.child("place");
        let [rows, columns] = [0, 1].map(|axis| {
            let whole = size[axis] as f64;
            let (middle, half) = (f64::from(place.uniform(axis as u64)) * whole, 0.5 * side * whole);
            let [from, to] = [middle - half, middle + half].map(|edge| edge.round().clamp(0.0, whole) as usize);
            from..to
        });
        let mut keep = vec![1.0; size[0] * size[1]];
        for row in rows {
            keep[row * size[1]..][columns.clone()].fill(0.0);
        }
        Overlay { keep, frame: None }
    }
}
