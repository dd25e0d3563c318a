//! Resizing images and masks to a common size.
//!
//! Images: bilinear with pixel centres at half-integers; when shrinking, the triangle widens with the factor, so every
//! source pixel counts and nothing aliases (the convention that PIL and torchvision call antialiased bilinear). Masks:
//! the label of the nearest pixel centre, never a mixture.

use crate::{Image, Mask};

/// Weights of the source pixels for each output pixel of one axis.
struct Axis {
    /// First source index and number of weights, for each output.
    spans: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

fn axis(from: usize, to: usize) -> Axis {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    let mut axis = Axis { spans: Vec::with_capacity(to), weights: Vec::new() };
    for output in 0..to {
        let centre = (output as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).floor().max(0.0) as usize;
        let last = ((centre + support + 0.5).floor() as usize).min(from);
        let weight = |source: usize| (1.0 - ((source as f64 + 0.5 - centre) / support).abs()).max(0.0);
        let total: f64 = (first..last).map(weight).sum();
        axis.weights.extend((first..last).map(|source| (weight(source) / total) as f32));
        axis.spans.push((first, last - first));
    }
    axis
}

/// The image at `height` × `width`.
///
/// # Panics
/// If a side is zero.
pub fn image(image: &Image, height: usize, width: usize) -> Image {
    assert!(height > 0 && width > 0, "an image of {height}x{width}");
    if image.size() == (height, width) {
        return image.clone();
    }
    let (columns, rows) = (axis(image.width, width), axis(image.height, height));
    let mut out = Image::zeros(image.channels, height, width);
    // Rows first: whole source rows are summed, which runs along memory.
    let mut line = vec![0.0f32; image.width];
    for channel in 0..image.channels {
        let plane = &image.data[channel * image.height * image.width..][..image.height * image.width];
        let mut used = 0;
        for (y, &(first, count)) in rows.spans.iter().enumerate() {
            line.fill(0.0);
            for (row, weight) in rows.weights[used..used + count].iter().enumerate() {
                let source = &plane[(first + row) * image.width..][..image.width];
                line.iter_mut().zip(source).for_each(|(sum, value)| *sum += weight * value);
            }
            used += count;
            let target = &mut out.data[(channel * height + y) * width..][..width];
            let mut from = 0;
            for (value, &(first, count)) in target.iter_mut().zip(&columns.spans) {
                let weights = &columns.weights[from..from + count];
                // Rounding may leave the interval by one ulp.
                *value = weights.iter().zip(&line[first..]).map(|(w, v)| w * v).sum::<f32>().clamp(0.0, 1.0);
                from += count;
            }
        }
    }
    out
}

/// The mask at `height` × `width`.
///
/// # Panics
/// If a side is zero.
pub fn mask(mask: &Mask, height: usize, width: usize) -> Mask {
    assert!(height > 0 && width > 0, "a mask of {height}x{width}");
    // The middle of output pixel i is at (2 i + 1) · from / (2 · to): integers, so no rounding decides a tie.
    let nearest = |output: usize, from: usize, to: usize| ((2 * output + 1) * from / (2 * to)).min(from - 1);
    let columns: Vec<usize> = (0..width).map(|x| nearest(x, mask.width, width)).collect();
    let mut data = Vec::with_capacity(height * width);
    for y in 0..height {
        let row = &mask.data[nearest(y, mask.height, height) * mask.width..][..mask.width];
        data.extend(columns.iter().map(|&x| row[x]));
    }
    Mask { height, width, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_averages_and_keeps_constants() {
        let ramp = Image { channels: 1, height: 1, width: 4, data: vec![0.0, 0.2, 0.4, 0.6] };
        let half = image(&ramp, 1, 2);
        // Triangle of half-width 2 at centres 1 and 3, cut at the borders: weights (.75, .75, .25)/1.75 and mirrored.
        let expected = [(0.2 * 0.75 + 0.4 * 0.25) / 1.75, (0.2 * 0.25 + 0.4 * 0.75 + 0.6 * 0.75) / 1.75];
        assert!(half.data.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", half.data);
        let flat = Image { channels: 3, height: 7, width: 5, data: vec![0.37; 105] };
        assert!(image(&flat, 3, 11).data.iter().all(|value| (value - 0.37).abs() < 1e-6));
    }

    #[test]
    fn enlarging_is_bilinear_between_centres() {
        let pair = Image { channels: 1, height: 1, width: 2, data: vec![0.0, 1.0] };
        assert_eq!(image(&pair, 1, 4).data, [0.0, 0.25, 0.75, 1.0]);
    }

    #[test]
    fn masks_take_the_nearest_centre() {
        let labels = Mask { height: 1, width: 5, data: vec![1, 2, 3, 4, 255] };
        assert_eq!(mask(&labels, 1, 3).data, [1, 3, 255]);
        assert_eq!(mask(&labels, 2, 5).data, [1, 2, 3, 4, 255, 1, 2, 3, 4, 255]);
    }
}
