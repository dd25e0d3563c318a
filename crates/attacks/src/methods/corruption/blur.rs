//! Blur.

use fireproof_tensor::random::Stream;

use super::picture::{Edge, Picture, enlarged, filter, gaussian};

/// A disk, softened at its rim.
pub(super) fn defocus(picture: Picture, level: usize) -> Picture {
    let (radius, soft) = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)][level];
    let kernel = disk(radius, soft);
    let size = [picture.height, picture.width];
    picture.each_plane(|plane| filter(plane, size, &kernel, Edge::Mirror)).clipped()
}

fn disk(radius: i32, soft: f32) -> Vec<f32> {
    let (reach, ends) = if radius <= 8 { (8, 1.0) } else { (radius, 2.0) };
    let side = (2 * reach + 1) as usize;
    let span = || -reach..=reach;
    let disk: Vec<f32> =
        span().flat_map(|y| span().map(move |x| f32::from(u8::from(x * x + y * y <= radius * radius)))).collect();
    let total: f32 = disk.iter().sum();
    let disk: Vec<f32> = disk.iter().map(|v| v / total).collect();
    gaussian(&disk, [side, side], [soft, soft], (ends + 0.01) / soft, Edge::Mirror)
}

/// Pixels that take the value of one nearby, between two Gaussians.
///
/// In the authors' code the two pixels of a swap both end up with the second's value; so they do here.
pub(super) fn glass(picture: Picture, level: usize, stream: &Stream) -> Picture {
    let (sigma, reach, rounds) = [(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][level];
    let size @ [h, w] = [picture.height, picture.width];
    let soft = |picture: Picture| picture.each_plane(|plane| gaussian(plane, size, [sigma; 2], 4.0, Edge::Nearest));
    let mut picture = soft(picture);
    let pixels = picture.pixels();
    let mut draw = 0;
    let mut offset = || {
        draw += 1;
        stream.below(draw, 2 * reach as u64) as usize
    };
    for _ in 0..rounds {
        for y in (reach + 1..=h.saturating_sub(reach)).rev() {
            for x in (reach + 1..=w.saturating_sub(reach)).rev() {
                let (dx, dy) = (offset(), offset());
                let (from, to) = ((y + dy - reach) * w + x + dx - reach, y * w + x);
                if from < pixels && to < pixels {
                    (0..picture.channels)
                        .for_each(|c| picture.values[c * pixels + to] = picture.values[c * pixels + from]);
                }
            }
        }
    }
    soft(picture).clipped()
}

/// Moved along a line, at an angle within 45 degrees.
pub(super) fn motion(picture: Picture, level: usize, stream: &Stream) -> Picture {
    let (radius, sigma) = [(10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)][level];
    let angle = 45.0 * stream.symmetric(0);
    let size = [picture.height, picture.width];
    picture.each_plane(|plane| moved(plane, size, radius, sigma, angle)).clipped()
}

/// The sum of copies that are each a pixel further along the line, weighted by half a Gaussian.
pub(super) fn moved(plane: &[f32], [h, w]: [usize; 2], radius: usize, sigma: f32, degrees: f32) -> Vec<f32> {
    let width = 2 * radius + 1;
    let weights: Vec<f32> = (0..width).map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp()).collect();
    let total: f32 = weights.iter().sum();
    let (sin, cos) = f64::from(degrees).to_radians().sin_cos();
    let mut sum = vec![0.0; plane.len()];
    for (i, weight) in weights.iter().enumerate() {
        // Where a pixel of this copy comes from.
        let by = |part: f64| (i as f64 * part - 0.5).ceil() as isize;
        let (dy, dx) = (by(sin), by(cos));
        if dy.unsigned_abs() >= h || dx.unsigned_abs() >= w {
            break;
        }
        for y in 0..h {
            let row = (y as isize + dy).clamp(0, h as isize - 1) as usize * w;
            for x in 0..w {
                sum[y * w + x] += weight / total * plane[row + (x as isize + dx).clamp(0, w as isize - 1) as usize];
            }
        }
    }
    sum
}

/// The mean of the image and its enlargements.
pub(super) fn zoom(picture: Picture, level: usize) -> Picture {
    // Of NumPy's ranges the first and the fourth have one element more and one less than their ends suggest.
    let (count, by) = [(12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)][level];
    let size = [picture.height, picture.width];
    picture
        .each_plane(|plane| {
            let mut sum = plane.to_vec();
            for i in 0..count {
                let enlarged = enlarged(plane, size, 1.0 + by * i as f32);
                sum.iter_mut().zip(enlarged).for_each(|(s, v)| *s += v);
            }
            sum.iter().map(|s| s / (count + 1) as f32).collect()
        })
        .clipped()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_sums_to_one_and_ends_at_its_radius() {
        // Those that reach the kernel's edge lose a little where they are softened.
        for (radius, soft, loss) in [(3, 0.1, 1e-5), (8, 0.5, 0.02), (10, 0.5, 0.02)] {
            let disk = disk(radius, soft);
            assert!((disk.iter().sum::<f32>() - 1.0).abs() < loss, "{radius}");
            let side = disk.len().isqrt();
            assert_eq!(side, if radius <= 8 { 17 } else { 21 });
            let middle = side / 2;
            assert!(disk[middle * side + middle] > 0.0 && disk[0] == 0.0);
        }
    }

    #[test]
    fn a_point_is_drawn_out_along_the_line() {
        let mut plane = vec![0.0; 50 * 50];
        plane[25 * 50 + 40] = 1.0;
        let drawn = moved(&plane, [50, 50], 10, 3.0, 0.0);
        let weights: Vec<f32> = (0..21).map(|i| (-0.5 * (i as f32 / 3.0).powi(2)).exp()).collect();
        let total: f32 = weights.iter().sum();
        // A copy `i` pixels further reads from the right, so the point lies to the left of where it was.
        for (i, weight) in weights.iter().enumerate() {
            assert!((drawn[25 * 50 + 40 - i] - weight / total).abs() < 1e-6, "{i}");
        }
        assert_eq!(drawn.iter().filter(|v| **v > 0.0).count(), 21);
    }
}
