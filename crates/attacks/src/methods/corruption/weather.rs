//! Weather: snow, fog, brightness. Frost is missing: it is made of photographs.

use fireproof_tensor::random::Stream;

use super::{
    blur::moved,
    picture::{Picture, enlarged},
};

/// Flakes that fall at an angle, on an image that has lost colour.
pub(super) fn snow(picture: Picture, level: usize, stream: &Stream) -> Picture {
    let (mean, deviation, zoom, least, radius, sigma, keep) = [
        (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
    ][level];
    let size = [picture.height, picture.width];
    let pixels = picture.pixels();
    let flakes: Vec<f32> = (0..pixels).map(|i| mean + deviation * stream.normal(i as u64)).collect();
    let flakes = enlarged(&flakes, size, zoom).into_iter().map(|v| if v < least { 0.0 } else { v.min(1.0) });
    let angle = -90.0 + 45.0 * stream.child("angle").symmetric(0);
    let fallen = moved(&flakes.collect::<Vec<_>>(), size, radius, sigma, angle);
    let pale: Vec<f32> = picture.gray().iter().map(|g| 1.5 * g + 0.5).collect();
    picture
        .each(|i, v| {
            let at = i % pixels;
            keep * v + (1.0 - keep) * v.max(pale[at]) + fallen[at] + fallen[pixels - 1 - at]
        })
        .clipped()
}

pub(super) fn fog(picture: Picture, level: usize, stream: &Stream) -> Picture {
    let (thick, decay) = [(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)][level];
    let (h, w) = (picture.height, picture.width);
    let side = h.max(w).next_power_of_two();
    let plasma = plasma(side, decay, stream);
    let brightest = picture.values.iter().fold(0.0f32, |m, v| m.max(*v));
    let pixels = picture.pixels();
    picture
        .each(|i, v| {
            let at = i % pixels;
            (v + thick * plasma[at / w * side + at % w]) * brightest / (brightest + thick)
        })
        .clipped()
}

/// A height map by the diamond–square algorithm, in `[0, 1]`, that wraps around.
fn plasma(side: usize, decay: f64, stream: &Stream) -> Vec<f32> {
    let mut map = vec![0.0f64; side * side];
    let (mut step, mut wobble) = (side, 100.0f64);
    let mut draw = 0;
    let mut around = |sum: f64, wobble: f64| {
        draw += 1;
        sum / 4.0 + wobble * wobble * f64::from(stream.symmetric(draw))
    };
    while step >= 2 {
        let half = step / 2;
        let at = |y: usize, x: usize| y % side * side + x % side;
        for y in (0..side).step_by(step) {
            for x in (0..side).step_by(step) {
                let corners = [(y, x), (y + step, x), (y, x + step), (y + step, x + step)];
                let sum = corners.map(|(y, x)| map[at(y, x)]).iter().sum();
                map[at(y + half, x + half)] = around(sum, wobble);
            }
        }
        for odd in [0, half] {
            // Middles of the horizontal edges, then of the vertical ones.
            for y in (half - odd..side + half - odd).step_by(step) {
                for x in (odd..side + odd).step_by(step) {
                    let corners = [(y + half, x), (y + side - half, x), (y, x + half), (y, x + side - half)];
                    let sum = corners.map(|(y, x)| map[at(y, x)]).iter().sum();
                    map[at(y, x)] = around(sum, wobble);
                }
            }
        }
        step = half;
        wobble /= decay;
    }
    let low = map.iter().copied().fold(f64::INFINITY, f64::min);
    let high = map.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    map.iter().map(|v| ((v - low) / (high - low).max(f64::MIN_POSITIVE)) as f32).collect()
}

/// A higher value (HSV) of the same hue and saturation.
pub(super) fn brightness(mut picture: Picture, level: usize) -> Picture {
    let by = [0.1, 0.2, 0.3, 0.4, 0.5][level];
    let pixels = picture.pixels();
    for at in 0..pixels {
        let value = (0..picture.channels).fold(0.0f32, |m, c| m.max(picture.values[c * pixels + at]));
        let brighter = (value + by).min(1.0);
        for c in 0..picture.channels {
            let v = &mut picture.values[c * pixels + at];
            *v = if value > 0.0 { *v / value * brighter } else { brighter };
        }
    }
    picture.clipped()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brightness_keeps_hue_and_saturation() {
        let picture = Picture::new([3, 1, 2], vec![0.4, 0.0, 0.2, 0.0, 0.1, 0.0]);
        let bright = brightness(picture, 1).values;
        let expected = [0.6, 0.2, 0.3, 0.2, 0.15, 0.2];
        assert!(bright.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{bright:?}");
    }

    #[test]
    fn fog_is_rough_at_all_scales_and_hides_contrast() {
        let map = plasma(64, 2.0, &Stream::new(&[2]));
        assert_eq!((map.iter().copied().fold(1.0, f32::min), map.iter().copied().fold(0.0, f32::max)), (0.0, 1.0));
        // Neighbours are closer to each other than pixels far apart.
        let difference = |by: usize| (0..4096).map(|i| (map[i] - map[(i + by) % 4096]).abs()).sum::<f32>();
        assert!(difference(1) < difference(32));
        let flat = Picture::new([1, 40, 30], vec![1.0; 1200]);
        for level in 0..5 {
            let foggy = fog(flat.clone(), level, &Stream::new(&[3]));
            assert!(foggy.values.iter().all(|v| *v >= 1.0 / (1.0 + [1.5, 2.0, 2.5, 2.5, 3.0][level]) - 1e-6));
        }
    }

    #[test]
    fn snow_only_brightens_and_falls_from_both_sides() {
        let dark = Picture::new([3, 48, 40], vec![0.0; 3 * 48 * 40]);
        let snowed = snow(dark, 2, &Stream::new(&[4]));
        // Black turns to (1 − keep) · 0.5 where nothing falls.
        assert!(snowed.values.iter().all(|v| *v >= 0.3 * 0.5 - 1e-6));
        assert!(snowed.values.iter().any(|v| *v > 0.3));
        let n = 48 * 40;
        assert!(
            (0..n).all(|i| (snowed.values[i] - snowed.values[n - 1 - i]).abs() < 1e-5),
            "half a turn changes nothing"
        );
    }
}
