//! What cameras, files and screens do to an image, and what stands in front of it.

use std::f64::consts::PI;

use fireproof_tensor::random::Stream;

use super::picture::{Edge, Picture, between, gaussian, nearest};

pub(super) fn contrast(picture: Picture, level: usize) -> Picture {
    let keep = [0.4, 0.3, 0.2, 0.1, 0.05][level];
    picture
        .each_plane(|plane| {
            let mean = plane.iter().sum::<f32>() / plane.len() as f32;
            plane.iter().map(|v| (v - mean) * keep + mean).collect()
        })
        .clipped()
}

/// Where every pixel of an elastic image comes from, `(y, x)`.
pub(super) fn elastic_field([h, w]: [usize; 2], level: usize, stream: &Stream) -> Vec<(f32, f32)> {
    let strength = 250.0 * [0.05, 0.065, 0.085, 0.1, 0.12][level];
    let most = 0.005 * h as f32;
    let sigma = [0.01 * h as f32, 0.01 * w as f32];
    let offsets = |name: &str| {
        let stream = stream.child(name);
        let raw: Vec<f32> = (0..h * w).map(|i| most * stream.symmetric(i as u64)).collect();
        gaussian(&raw, [h, w], sigma, 3.0, Edge::Reflect)
    };
    let (dx, dy) = (offsets("dx"), offsets("dy"));
    (0..h * w).map(|i| ((i / w) as f32 + strength * dy[i], (i % w) as f32 + strength * dx[i])).collect()
}

pub(super) fn elastic(picture: Picture, field: &[(f32, f32)]) -> Picture {
    let size = [picture.height, picture.width];
    let plane = |plane: &[f32]| field.iter().map(|&(y, x)| between(plane, size, y, x, Edge::Reflect)).collect();
    picture.each_plane(plane).clipped()
}

/// The labels of an elastic image.
pub(super) fn elastic_labels(labels: &[i32], size: [usize; 2], field: &[(f32, f32)]) -> Vec<i32> {
    field.iter().map(|&(y, x)| labels[nearest(size, y, x, Edge::Reflect)]).collect()
}

/// Fewer pixels, by their mean, and as many again by repetition.
pub(super) fn pixelate(picture: Picture, level: usize) -> Picture {
    let share = [0.6, 0.5, 0.4, 0.3, 0.25][level];
    let [h, w] = [picture.height, picture.width];
    let [rows, columns] = [h, w].map(|size| ((f64::from(share) * size as f64) as usize).max(1));
    picture.each_plane(|plane| {
        // The pixels whose middle lies in the larger one; of one on the border the part before it.
        let part = |i: usize, parts: usize, size: usize| {
            let scale = size as f64 / parts as f64;
            let (middle, reach) = ((i as f64 + 0.5) * scale, 0.5 * scale);
            ((middle - reach - 0.5).floor() + 1.0) as usize..((middle + reach + 0.5) as usize).min(size)
        };
        let mean = |i: usize| {
            let (ys, xs) = (part(i / columns, rows, h), part(i % columns, columns, w));
            let count = (ys.len() * xs.len()) as f32;
            ys.flat_map(|y| xs.clone().map(move |x| (y, x))).map(|(y, x)| plane[y * w + x]).sum::<f32>() / count
        };
        let small: Vec<f32> = (0..rows * columns).map(mean).collect();
        // Added up pixel by pixel, as the authors' library does: where a border is hit, rounding decides.
        let from = |size: usize, parts: usize| -> Vec<usize> {
            let scale = parts as f64 / size as f64;
            let next = |at: &mut f64| {
                let here = *at as usize;
                *at += scale;
                Some(here.min(parts - 1))
            };
            (0..size).scan(0.5 * scale, |at, _| next(at)).collect()
        };
        let (ys, xs) = (from(h, rows), from(w, columns));
        (0..h * w).map(|i| small[ys[i / w] * columns + xs[i % w]]).collect()
    })
}

/// What JPEG keeps: colours at half the resolution, and the quantised cosine transform of 8×8 blocks. Only the loss is computed;
/// no file is written.
pub(super) fn jpeg(picture: Picture, level: usize) -> Picture {
    let quality = [25, 18, 15, 10, 7][level];
    let (h, w) = (picture.height, picture.width);
    let planes: Vec<Vec<f64>> =
        picture.planes().map(|plane| plane.iter().map(|v| (f64::from(*v) * 255.0).round()).collect()).collect();
    let back = if let [red, green, blue] = &planes[..] {
        let mixed = |weights: [f64; 3], offset: f64| -> Vec<f64> {
            let value = |i: usize| weights[0] * red[i] + weights[1] * green[i] + weights[2] * blue[i] + offset;
            (0..h * w).map(|i| value(i).round()).collect()
        };
        let luma = coded(&mixed([0.299, 0.587, 0.114], 0.0), [h, w], &scaled(&LUMA, quality));
        let chroma = |weights: [f64; 3]| {
            let (half, size) = halved(&mixed(weights, 128.0), [h, w]);
            doubled(&coded(&half, size, &scaled(&CHROMA, quality)), size, [h, w])
        };
        let (cb, cr) = (chroma([-0.168_736, -0.331_264, 0.5]), chroma([0.5, -0.418_688, -0.081_312]));
        let colour = |b: f64, r: f64| -> Vec<f64> {
            (0..h * w).map(|i| luma[i] + b * (cb[i] - 128.0) + r * (cr[i] - 128.0)).collect()
        };
        vec![colour(0.0, 1.402), colour(-0.344_136, -0.714_136), colour(1.772, 0.0)]
    } else {
        planes.iter().map(|plane| coded(plane, [h, w], &scaled(&LUMA, quality))).collect()
    };
    let values = back.iter().flatten().map(|v| (v.round().clamp(0.0, 255.0) / 255.0) as f32).collect();
    Picture { values, ..picture }
}

/// Quantisation of the standard's annex K.
const LUMA: [u16; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
];
const CHROMA: [u16; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99,
];

/// A table at a quality below 50, as libjpeg scales it.
fn scaled(table: &[u16; 64], quality: u16) -> [f64; 64] {
    table.map(|entry| f64::from(((u32::from(entry) * 5000 / u32::from(quality) + 50) / 100).clamp(1, 255) as u16))
}

/// A plane, transformed block by block, quantised, and transformed back. Blocks beyond the edge repeat its last pixels.
fn coded(plane: &[f64], [h, w]: [usize; 2], table: &[f64; 64]) -> Vec<f64> {
    let basis: Vec<f64> = (0..64)
        .map(|i| {
            let (k, n) = (i / 8, i % 8);
            let scale = if k == 0 { 0.125f64.sqrt() } else { 0.5 };
            scale * (PI * (2 * n + 1) as f64 * k as f64 / 16.0).cos()
        })
        .collect();
    // B · block · Bᵀ, or with both turned, its inverse.
    let transform = |block: &[f64; 64], inverse: bool| -> [f64; 64] {
        let entry = |i: usize, j: usize| if inverse { basis[j * 8 + i] } else { basis[i * 8 + j] };
        let mut rows = [0.0; 64];
        let mut both = [0.0; 64];
        for (i, value) in rows.iter_mut().enumerate() {
            *value = (0..8).map(|k| entry(i / 8, k) * block[k * 8 + i % 8]).sum();
        }
        for (i, value) in both.iter_mut().enumerate() {
            *value = (0..8).map(|k| rows[i / 8 * 8 + k] * entry(i % 8, k)).sum();
        }
        both
    };
    let mut back = vec![0.0; h * w];
    for top in (0..h).step_by(8) {
        for left in (0..w).step_by(8) {
            let mut block = [0.0; 64];
            for (i, value) in block.iter_mut().enumerate() {
                *value = plane[(top + i / 8).min(h - 1) * w + (left + i % 8).min(w - 1)] - 128.0;
            }
            let mut kept = transform(&block, false);
            kept.iter_mut().zip(table).for_each(|(v, q)| *v = (*v / q).round() * q);
            let decoded = transform(&kept, true);
            for (i, value) in decoded.iter().enumerate() {
                let (y, x) = (top + i / 8, left + i % 8);
                if y < h && x < w {
                    back[y * w + x] = (value + 128.0).round().clamp(0.0, 255.0);
                }
            }
        }
    }
    back
}

/// Means of 2×2 pixels.
fn halved(plane: &[f64], [h, w]: [usize; 2]) -> (Vec<f64>, [usize; 2]) {
    let [rows, columns] = [h.div_ceil(2), w.div_ceil(2)];
    let mean = |i: usize| {
        let (y, x) = (2 * (i / columns), 2 * (i % columns));
        let at = |y: usize, x: usize| plane[y.min(h - 1) * w + x.min(w - 1)];
        // libjpeg rounds down and up in turn.
        ((at(y, x) + at(y, x + 1) + at(y + 1, x) + at(y + 1, x + 1) + 1.0 + (i % columns % 2) as f64) / 4.0).floor()
    };
    ((0..rows * columns).map(mean).collect(), [rows, columns])
}

/// Twice as large: three quarters of the nearer and a quarter of the further pixel, in both directions.
fn doubled(plane: &[f64], [rows, columns]: [usize; 2], [h, w]: [usize; 2]) -> Vec<f64> {
    let ends = |i: usize, size: usize| {
        let near = i / 2;
        let far = if i % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(size - 1) };
        (near, far)
    };
    let value = |i: usize| {
        let ((near_y, far_y), (near_x, far_x)) = (ends(i / w, rows), ends(i % w, columns));
        let row = |x: usize| 0.75 * plane[near_y * columns + x] + 0.25 * plane[far_y * columns + x];
        0.75 * row(near_x) + 0.25 * row(far_x)
    };
    (0..h * w).map(value).collect()
}

/// The rectangle that a grey thing covers: top, left, height and width. Its sides have the image's ratio.
pub(super) fn occluder([h, w]: [usize; 2], level: usize, stream: &Stream) -> [usize; 4] {
    let share = [0.05f32, 0.1, 0.2, 0.3, 0.4][level].sqrt();
    let side = |size: usize| ((size as f32 * share).round() as usize).clamp(1, size);
    let place = |size: usize, draw: u64| stream.below(draw, (size - side(size) + 1) as u64) as usize;
    [place(h, 0), place(w, 1), side(h), side(w)]
}

pub(super) fn occlude(picture: Picture, [top, left, rows, columns]: [usize; 4]) -> Picture {
    let (w, pixels) = (picture.width, picture.pixels());
    picture.each(|i, v| {
        let (y, x) = (i % pixels / w, i % w);
        if (top..top + rows).contains(&y) && (left..left + columns).contains(&x) { 0.5 } else { v }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_keeps_the_mean() {
        let flat = contrast(Picture::new([1, 1, 2], vec![0.2, 0.6]), 0).values;
        assert!((flat[0] - 0.32).abs() < 1e-6 && (flat[1] - 0.48).abs() < 1e-6, "{flat:?}");
    }

    #[test]
    fn pixels_are_means_of_blocks() {
        let picture = Picture::new([1, 4, 4], (0..16).map(|i| i as f32).collect());
        let blocks = pixelate(picture, 1).values;
        assert_eq!(blocks[..4], [2.5, 2.5, 4.5, 4.5]);
        assert_eq!((blocks[8], blocks[15]), (10.5, 12.5));
    }

    #[test]
    fn jpeg_keeps_a_flat_image_and_quantises_a_wave() {
        // A grey whose distance from 128 is a multiple of the first step over 8.
        let flat = Picture::new([3, 16, 24], vec![128.0 / 255.0; 3 * 384]);
        assert!(jpeg(flat.clone(), 4).values.iter().all(|v| (v - 128.0 / 255.0).abs() < 1e-6));
        assert_eq!((scaled(&LUMA, 25)[0], scaled(&LUMA, 7)[1], scaled(&CHROMA, 7)[63]), (32.0, 79.0, 255.0));
        // A whole cosine of the block survives at an amplitude that is a multiple of its step.
        let quality_step = scaled(&LUMA, 25)[2];
        let wave = |n: usize| (PI * (2 * n + 1) as f64 * 2.0 / 16.0).cos();
        // Its coefficient: amplitude · 8^½ · ½ · 4.
        let amplitude = 3.0 * quality_step / (8f64.sqrt() * 2.0);
        let plane: Vec<f64> = (0..64).map(|i| 128.0 + amplitude * wave(i % 8)).collect();
        let back = coded(&plane, [8, 8], &scaled(&LUMA, 25));
        assert!(back.iter().zip(&plane).all(|(a, b)| (a - b).abs() <= 0.5), "{back:?}");
        let weak: Vec<f64> = (0..64).map(|i| 128.0 + 0.1 * amplitude * wave(i % 8)).collect();
        assert!(coded(&weak, [8, 8], &scaled(&LUMA, 25)).iter().all(|v| *v == 128.0), "too weak to be kept");
    }

    #[test]
    fn an_elastic_image_moves_with_its_labels() {
        let size = [60, 80];
        let field = elastic_field(size, 4, &Stream::new(&[5]));
        let far = field.iter().enumerate().map(|(i, (y, x))| (y - (i / 80) as f32).hypot(x - (i % 80) as f32));
        let far = far.fold(0.0f32, f32::max);
        assert!(far > 0.5 && far < 10.0, "{far}");
        // A step edge: where the label changes the value passes a half.
        let labels: Vec<i32> = (0..4800).map(|i| i32::from(i % 80 >= 40)).collect();
        let picture = Picture::new([1, 60, 80], labels.iter().map(|l| *l as f32).collect());
        let moved = elastic(picture, &field).values;
        let moved_labels = elastic_labels(&labels, size, &field);
        for (value, label) in moved.iter().zip(moved_labels) {
            assert!((*value - 0.5).abs() < 1e-5 || (*value > 0.5) == (label == 1), "{value} {label}");
        }
    }

    #[test]
    fn the_occluder_covers_its_share() {
        for (level, share) in [0.05f32, 0.1, 0.2, 0.3, 0.4].into_iter().enumerate() {
            for seed in 0..20 {
                let [top, left, rows, columns] = occluder([90, 120], level, &Stream::new(&[seed]));
                assert!(top + rows <= 90 && left + columns <= 120);
                assert!(((rows * columns) as f32 / 10_800.0 - share).abs() < 0.01);
            }
        }
    }
}
