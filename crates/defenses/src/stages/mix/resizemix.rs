//! ResizeMix: the whole other image, made smaller and pasted.
//!
//! Qin, Fang, Zhang, Liu, Wang, Wang. *ResizeMix: Mixing Data with Preserved Object Information and True Labels*, 2020.
//! <https://arxiv.org/abs/2012.11101>
//!
//! The frame has `√(1 − λ)` of both sides, a place drawn uniformly inside the image, and `λ` is one minus its area. Here its
//! sides lie between 0.1 and 0.8 of the image's, as the paper draws them (remembered, not read again).

use fireproof_tensor::random::Stream;

use super::{Mixer, Overlay};

/// The partner in a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResizeMix;

impl Mixer for ResizeMix {
    fn name(&self) -> &'static str {
        "resizemix"
    }

    fn overlay(&self, lambda: f64, stream: &Stream, [height, width]: [usize; 2]) -> Overlay {
        let side = (1.0 - lambda).sqrt().clamp(0.1, 0.8);
        let place = stream.child("place");
        let [h, w] = [height, width].map(|whole| ((side * whole as f64).round() as usize).clamp(1, whole));
        let top = place.below(0, (height - h + 1) as u64) as usize;
        let left = place.below(1, (width - w + 1) as u64) as usize;
        let mut keep = vec![1.0; height * width];
        for row in top..top + h {
            keep[row * width + left..][..w].fill(0.0);
        }
        Overlay { keep, frame: Some([top, left, h, w]) }
    }
}
