//! An image on the host, and the filters that several corruptions share.

/// Values in `[0, 1]`, channel after channel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
}

/// What lies beyond the edge.
#[derive(Clone, Copy)]
pub(super) enum Edge {
    /// The last value again and again: `a a a | a b c`.
    Nearest,
    /// Mirrored without the last value: `c b | a b c`.
    Mirror,
    /// Mirrored with it: `b a | a b c`.
    Reflect,
}

impl Edge {
    fn index(self, at: isize, size: usize) -> usize {
        let n = size as isize;
        let at = match self {
            Self::Nearest => at.clamp(0, n - 1),
            Self::Mirror if n == 1 => 0,
            Self::Mirror => {
                let at = at.rem_euclid(2 * (n - 1));
                if at < n { at } else { 2 * (n - 1) - at }
            }
            Self::Reflect => {
                let at = at.rem_euclid(2 * n);
                if at < n { at } else { 2 * n - 1 - at }
            }
        };
        at as usize
    }
}

impl Picture {
    pub(super) fn new([channels, height, width]: [usize; 3], values: Vec<f32>) -> Self {
        debug_assert_eq!(values.len(), channels * height * width);
        Self { channels, height, width, values }
    }

    pub(super) fn pixels(&self) -> usize {
        self.height * self.width
    }

    pub(super) fn planes(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks(self.pixels())
    }

    /// Every value by itself, told its position in the list.
    pub(super) fn each(mut self, mut change: impl FnMut(usize, f32) -> f32) -> Self {
        self.values.iter_mut().enumerate().for_each(|(i, v)| *v = change(i, *v));
        self
    }

    /// Every channel by itself.
    pub(super) fn each_plane(mut self, change: impl Fn(&[f32]) -> Vec<f32>) -> Self {
        self.values = self.planes().flat_map(change).collect();
        self
    }

    pub(super) fn clipped(self) -> Self {
        self.each(|_, v| v.clamp(0.0, 1.0))
    }

    /// Luma of three channels, else their mean.
    pub(super) fn gray(&self) -> Vec<f32> {
        let weights = if self.channels == 3 {
            vec![0.299, 0.587, 0.114]
        } else {
            vec![1.0 / self.channels as f32; self.channels]
        };
        let mut gray = vec![0.0; self.pixels()];
        for (plane, weight) in self.planes().zip(weights) {
            gray.iter_mut().zip(plane).for_each(|(g, v)| *g += weight * v);
        }
        gray
    }
}

/// Correlates a plane with a square kernel.
pub(super) fn filter(plane: &[f32], [h, w]: [usize; 2], kernel: &[f32], edge: Edge) -> Vec<f32> {
    let side = kernel.len().isqrt();
    let reach = (side / 2) as isize;
    let mut filtered = vec![0.0; plane.len()];
    let taps: Vec<(isize, isize, f32)> = kernel
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight != 0.0)
        .map(|(i, weight)| ((i / side) as isize - reach, (i % side) as isize - reach, *weight))
        .collect();
    for y in 0..h {
        let row = &mut filtered[y * w..(y + 1) * w];
        for &(dy, dx, weight) in &taps {
            let from = edge.index(y as isize + dy, h) * w;
            let source = &plane[from..from + w];
            for (x, value) in row.iter_mut().enumerate() {
                let at = x as isize + dx;
                let at = if at >= 0 && at < w as isize { at as usize } else { edge.index(at, w) };
                *value += weight * source[at];
            }
        }
    }
    filtered
}

/// A Gaussian of these deviations in rows and columns that ends at `truncate` of them.
pub(super) fn gaussian(plane: &[f32], [h, w]: [usize; 2], sigma: [f32; 2], truncate: f32, edge: Edge) -> Vec<f32> {
    let taps = |sigma: f32| -> Vec<f32> {
        let reach = (truncate * sigma + 0.5) as i32;
        let taps: Vec<f32> = (-reach..=reach).map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp()).collect();
        let total: f32 = taps.iter().sum();
        taps.iter().map(|t| t / total).collect()
    };
    let along = |source: &[f32], taps: &[f32], vertical: bool| -> Vec<f32> {
        let reach = (taps.len() / 2) as isize;
        let value = |i: usize| {
            let (y, x) = (i / w, i % w);
            let tap = |(t, weight): (usize, &f32)| {
                let by = t as isize - reach;
                let at = match vertical {
                    true => edge.index(y as isize + by, h) * w + x,
                    false => y * w + edge.index(x as isize + by, w),
                };
                weight * source[at]
            };
            taps.iter().enumerate().map(tap).sum()
        };
        (0..h * w).map(value).collect()
    };
    let rows = along(plane, &taps(sigma[0]), true);
    along(&rows, &taps(sigma[1]), false)
}

/// The value at a position between pixels, bilinear.
pub(super) fn between(plane: &[f32], [h, w]: [usize; 2], y: f32, x: f32, edge: Edge) -> f32 {
    let (top, left) = (y.floor(), x.floor());
    let (dy, dx) = (y - top, x - left);
    let at = |y: f32, x: f32| plane[edge.index(y as isize, h) * w + edge.index(x as isize, w)];
    let row = |y: f32| at(y, left) * (1.0 - dx) + at(y, left + 1.0) * dx;
    row(top) * (1.0 - dy) + row(top + 1.0) * dy
}

/// The nearest pixel to a position.
pub(super) fn nearest([h, w]: [usize; 2], y: f32, x: f32, edge: Edge) -> usize {
    edge.index(y.round() as isize, h) * w + edge.index(x.round() as isize, w)
}

/// The middle of a plane, enlarged by `zoom`; what reaches beyond its size on the right and at the bottom is cut off.
pub(super) fn enlarged(plane: &[f32], [h, w]: [usize; 2], zoom: f32) -> Vec<f32> {
    let part = |size: usize| {
        let cut = (size as f32 / zoom).ceil() as usize;
        let whole = (cut as f32 * zoom).round() as usize;
        (cut, (size - cut) / 2, (cut - 1) as f32 / (whole.max(2) - 1) as f32)
    };
    let ((rows, top, down), (columns, left, across)) = (part(h), part(w));
    let inner: Vec<f32> = (0..rows * columns).map(|i| plane[(top + i / columns) * w + left + i % columns]).collect();
    let value =
        |i: usize| between(&inner, [rows, columns], (i / w) as f32 * down, (i % w) as f32 * across, Edge::Nearest);
    (0..h * w).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_repeat_or_mirror() {
        let at = |edge: Edge| (-3..6).map(|i| edge.index(i, 3)).collect::<Vec<_>>();
        assert_eq!(at(Edge::Nearest), [0, 0, 0, 0, 1, 2, 2, 2, 2]);
        assert_eq!(at(Edge::Mirror), [1, 2, 1, 0, 1, 2, 1, 0, 1]);
        assert_eq!(at(Edge::Reflect), [2, 1, 0, 0, 1, 2, 2, 1, 0]);
        assert_eq!(Edge::Mirror.index(-4, 1), 0);
    }

    #[test]
    fn filters_keep_a_constant_and_their_sum() {
        let flat = vec![0.3; 35];
        let near = |found: Vec<f32>| assert!(found.iter().all(|v| (v - 0.3).abs() < 1e-6), "{found:?}");
        near(gaussian(&flat, [5, 7], [1.3, 0.7], 4.0, Edge::Reflect));
        near(filter(&flat, [5, 7], &[1.0 / 9.0; 9], Edge::Mirror));
        near(enlarged(&flat, [5, 7], 1.3));
        let mut point = vec![0.0; 441];
        point[220] = 1.0;
        let spread = gaussian(&point, [21, 21], [1.0, 1.0], 4.0, Edge::Nearest);
        assert!((spread.iter().sum::<f32>() - 1.0).abs() < 1e-5 && (spread[220] - 0.15915).abs() < 1e-3);
    }

    #[test]
    fn no_enlargement_changes_nothing() {
        let plane: Vec<f32> = (0..35).map(|i| i as f32).collect();
        assert_eq!(enlarged(&plane, [5, 7], 1.0), plane);
    }
}
