//! FMix: blobs of another image.
//!
//! Harris, Marcu, Painter, Niranjan, Prügel-Bennett, Hare. *FMix: Enhancing Mixed Sample Data Augmentation*, 2020.
//! <https://arxiv.org/abs/2002.12047>
//!
//! Grey noise whose amplitudes fall with the frequency to the power of `decay`, of which the brightest `λ` of all pixels are
//! kept. Frequencies above sixteen waves an image are left out: at a decay of 3 they are below a four-thousandth.

use fireproof_tensor::random::Stream;

use super::{Mixer, Overlay};

/// The brightest pixels of low-frequency noise stay.
#[derive(Clone, Copy, Debug)]
pub struct FMix {
    /// Power by which amplitudes fall with frequency.
    pub decay: f64,
}

impl Default for FMix {
    fn default() -> Self {
        Self { decay: 3.0 }
    }
}

/// Waves an image up to which noise is made.
const WAVES: i32 = 16;

impl Mixer for FMix {
    fn name(&self) -> &'static str {
        "fmix"
    }

    fn overlay(&self, lambda: f64, stream: &Stream, [height, width]: [usize; 2]) -> Overlay {
        let grey = self.noise(stream, [height, width]);
        let mut order: Vec<usize> = (0..grey.len()).collect();
        order.sort_by(|&a, &b| grey[b].total_cmp(&grey[a]).then(a.cmp(&b)));
        let mut keep = vec![0.0; grey.len()];
        for &pixel in &order[..(lambda * grey.len() as f64).round() as usize] {
            keep[pixel] = 1.0;
        }
        Overlay { keep, frame: None }
    }
}

impl FMix {
    /// A sum of waves with random amplitudes, one axis after the other.
    pub(in crate::stages) fn noise(&self, stream: &Stream, [height, width]: [usize; 2]) -> Vec<f64> {
        let noise = stream.child("noise");
        let reach = |size: usize| WAVES.min(size as i32 / 2);
        let (up, across) = (reach(height), reach(width));
        let angle =
            |wave: i32, at: usize, size: usize| std::f64::consts::TAU * f64::from(wave) * at as f64 / size as f64;
        let mut grey = vec![0.0; height * width];
        let mut counter = 0;
        for v in -up..=up {
            // Σ over the horizontal waves of this vertical one, as a complex row.
            let mut row = vec![(0.0, 0.0); width];
            for u in 0..=across {
                let (re, im) = (f64::from(noise.normal(counter)), f64::from(noise.normal(counter + 1)));
                counter += 2;
                let frequency = f64::from(u).hypot(f64::from(v)).max(1.0);
                let amplitude = frequency.powf(-self.decay);
                for (x, (a, b)) in row.iter_mut().enumerate() {
                    let (sin, cos) = angle(u, x, width).sin_cos();
                    *a += amplitude * (re * cos - im * sin);
                    *b += amplitude * (re * sin + im * cos);
                }
            }
            for y in 0..height {
                let (sin, cos) = angle(v, y, height).sin_cos();
                for (value, (a, b)) in grey[y * width..][..width].iter_mut().zip(&row) {
                    *value += a * cos - b * sin;
                }
            }
        }
        grey
    }
}
