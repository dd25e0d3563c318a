//! From linear light to an 8-bit picture: exposure, white balance, lens and sensor.

use super::{Canvas, quantised};
use crate::{
    Image,
    random::{self, Stream},
};

/// Exposes the canvas. Its colours are blurred in place.
pub(crate) fn expose(canvas: &mut Canvas, key: u64) -> Image {
    let mut stream = Stream::new(&[key, 2]);
    let (height, width) = (canvas.height, canvas.width);
    let gain = if stream.chance(0.15) { stream.range(0.4, 0.65) } else { stream.range(0.7, 1.2) };
    let balance = [stream.range(0.88, 1.12), stream.range(0.95, 1.05), stream.range(0.88, 1.12)];
    let contrast = stream.range(0.3, 1.2);
    let flare = stream.range(0.0, 0.08);
    let read_noise = stream.range(0.004, 0.018);
    let shot_noise = stream.range(0.004, 0.022);
    let vignette = stream.range(0.0, 0.35);
    let blur = stream.range(0.05, 0.2);
    soften(canvas, blur);
    let sensor = random::key(&[key, 3]);
    let (middle_x, middle_y) = (0.5 * width as f32, 0.5 * height as f32);
    let reach = 1.0 / (middle_x * middle_x + middle_y * middle_y);
    for y in 0..height {
        for x in 0..width {
            let pixel = y * width + x;
            let (dx, dy) = (x as f32 + 0.5 - middle_x, y as f32 + 0.5 - middle_y);
            let exposure = gain * (1.0 - vignette * (dx * dx + dy * dy) * reach);
            let color = &mut canvas.color[pixel];
            for c in 0..3 {
                let light = color[c] * exposure * balance[c] + flare;
                let tone = light * (1.0 + contrast * 0.5) / (1.0 + contrast * 0.5 * light);
                let deviation = read_noise + shot_noise * tone;
                color[c] = tone + deviation * normal(sensor, (3 * pixel + c) as u64);
            }
        }
    }
    let color = &canvas.color;
    quantised(height, width, |pixel, c| color[pixel][c])
}

/// Nearly normal with mean 0 and variance 1: the sum of four uniforms, which needs no logarithm.
fn normal(key: u64, counter: u64) -> f32 {
    let bits = random::mix(key ^ counter.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let sum = (bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48);
    // Each 16-bit uniform has variance (2^32 - 1) / 12; four have 37837.2 as standard deviation.
    (sum as f32 - 131_070.0) / 37_837.2
}

/// The lens: a 3 × 3 binomial blur with the given weight of each neighbour.
fn soften(canvas: &mut Canvas, side: f32) {
    let (height, width) = (canvas.height, canvas.width);
    let centre = 1.0 - 2.0 * side;
    let mut line = vec![[0.0f32; 3]; width];
    for y in 0..height {
        let row = &mut canvas.color[y * width..(y + 1) * width];
        line.copy_from_slice(row);
        for x in 0..width {
            let (left, right) = (line[x.saturating_sub(1)], line[(x + 1).min(width - 1)]);
            for c in 0..3 {
                row[x][c] = centre * line[x][c] + side * (left[c] + right[c]);
            }
        }
    }
    let mut above = canvas.color[..width].to_vec();
    for y in 0..height {
        let next = (y + 1).min(height - 1) * width;
        for x in 0..width {
            let (here, below) = (canvas.color[y * width + x], canvas.color[next + x]);
            for c in 0..3 {
                canvas.color[y * width + x][c] = centre * here[c] + side * (above[x][c] + below[c]);
            }
            above[x] = here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensor_noise_has_mean_zero_and_variance_one() {
        let count = 200_000;
        let values: Vec<f64> = (0..count).map(|counter| f64::from(normal(5, counter))).collect();
        let mean = values.iter().sum::<f64>() / count as f64;
        let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.01, "mean {mean}, variance {variance}");
    }
}
