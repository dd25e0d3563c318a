//! The one-dimensional transforms; the two-dimensional ones apply them to columns, then to rows.
//!
//! Arrays are as long as F(4×4) needs; F(2×2) uses the first entries and ignores the others.

use crate::simd::Simd;

/// The point ±1/√2.
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// The point ±√2.
const B: f32 = std::f32::consts::SQRT_2;

/// The number of frequencies of a tile in one dimension: `M` outputs of a filter of three taps.
pub(super) const fn points(m: usize) -> usize {
    m + 2
}

/// The matrix `G`: three filter taps to `M + 2` frequencies, one row each.
pub(super) const fn filter_matrix(m: usize) -> [[f32; 3]; 6] {
    if m == 2 {
        return [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0], [0.0; 3], [0.0; 3]];
    }
    // 1 / (p · Π (p − q)) over the other finite points q, which is −2/3 for p = ±1/√2; for ±√2 it is 1/6, here times −2,
    // which `output` takes back: so the values of `[g₂, g₁, g₀]` are those of `[g₀, g₁, g₂]` in another order, see
    // [`flipped`].
    let (a, b) = (-2.0 / 3.0, -1.0 / 3.0);
    [
        [1.0, 0.0, 0.0],
        [a, a * A, a * 0.5],
        [a, -a * A, a * 0.5],
        [b, b * B, b * 2.0],
        [b, -b * B, b * 2.0],
        [0.0, 0.0, 1.0],
    ]
}

/// Where the frequency `i` of a flipped filter stands among those of the filter itself: a polynomial with its coefficients in
/// reverse has at `p` the value at `1 / p` times a power of `p`, and the points come in pairs of inverses.
pub(super) const fn flipped(m: usize, i: usize) -> usize {
    if m == 2 { [3, 1, 2, 0][i] } else { [5, 3, 4, 1, 2, 0][i] }
}

/// `Bᵀ d`: `M + 2` input samples to frequencies.
#[inline(always)]
pub(super) fn input<S: Simd, const M: usize>(s: S, d: [S::V; 6]) -> [S::V; 6] {
    if M == 2 {
        return [s.sub(d[0], d[2]), s.add(d[1], d[2]), s.sub(d[2], d[1]), s.sub(d[1], d[3]), s.zero(), s.zero()];
    }
    let (minus_two, minus_half, minus_five_halves) = (s.splat(-2.0), s.splat(-0.5), s.splat(-2.5));
    let even_a = s.fma(minus_two, d[2], d[4]);
    let odd_a = s.mul(s.splat(A), s.fma(minus_two, d[1], d[3]));
    let even_b = s.fma(minus_half, d[2], d[4]);
    let odd_b = s.mul(s.splat(B), s.fma(minus_half, d[1], d[3]));
    [
        s.fma(minus_five_halves, d[2], s.add(d[0], d[4])),
        s.add(even_a, odd_a),
        s.sub(even_a, odd_a),
        s.add(even_b, odd_b),
        s.sub(even_b, odd_b),
        s.fma(minus_five_halves, d[3], s.add(d[1], d[5])),
    ]
}

/// `Aᵀ m`: `M + 2` frequencies to `M` outputs.
#[inline(always)]
pub(super) fn output<S: Simd, const M: usize>(s: S, m: [S::V; 6]) -> [S::V; 4] {
    let (sum_a, difference_a) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
    if M == 2 {
        return [s.add(m[0], sum_a), s.sub(difference_a, m[3]), s.zero(), s.zero()];
    }
    let (sum_b, difference_b) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
    [
        s.fma(s.splat(-0.5), sum_b, s.add(m[0], sum_a)),
        s.fma(s.splat(-0.5 * B), difference_b, s.mul(s.splat(A), difference_a)),
        s.sub(s.mul(s.splat(0.5), sum_a), sum_b),
        s.fma(s.splat(-B), difference_b, s.fma(s.splat(0.5 * A), difference_a, m[5])),
    ]
}

/// `A y`, the transpose of [`output`]: `M` output gradients to frequencies.
#[inline(always)]
pub(super) fn output_gradient<S: Simd, const M: usize>(s: S, y: [S::V; 4]) -> [S::V; 6] {
    if M == 2 {
        return [y[0], s.add(y[0], y[1]), s.sub(y[0], y[1]), s.sub(s.zero(), y[1]), s.zero(), s.zero()];
    }
    let (half, two, minus_half) = (s.splat(0.5), s.splat(2.0), s.splat(-0.5));
    let even_a = s.fma(half, y[2], y[0]);
    let odd_a = s.mul(s.splat(A), s.fma(half, y[3], y[1]));
    let even_b = s.sub(s.mul(minus_half, y[0]), y[2]);
    let odd_b = s.mul(s.splat(-0.5 * B), s.fma(two, y[3], y[1]));
    [y[0], s.add(even_a, odd_a), s.sub(even_a, odd_a), s.add(even_b, odd_b), s.sub(even_b, odd_b), y[3]]
}

/// `Gᵀ u`, the transpose of the filter transform: `M + 2` frequencies to the gradient of three taps.
#[inline(always)]
pub(super) fn filter_gradient<S: Simd, const M: usize>(s: S, u: [S::V; 6]) -> [S::V; 3] {
    let (sum_a, difference_a) = (s.add(u[1], u[2]), s.sub(u[1], u[2]));
    if M == 2 {
        let half = s.splat(0.5);
        return [s.fma(half, sum_a, u[0]), s.mul(half, difference_a), s.fma(half, sum_a, u[3])];
    }
    let (sum_b, difference_b) = (s.add(u[3], u[4]), s.sub(u[3], u[4]));
    let g = filter_matrix(4);
    [
        s.fma(s.splat(g[1][0]), sum_a, s.fma(s.splat(g[3][0]), sum_b, u[0])),
        s.fma(s.splat(g[1][1]), difference_a, s.mul(s.splat(g[3][1]), difference_b)),
        s.fma(s.splat(g[1][2]), sum_a, s.fma(s.splat(g[3][2]), sum_b, u[5])),
    ]
}

/// `G g`: three filter taps to frequencies.
#[inline(always)]
pub(super) fn filter<S: Simd, const M: usize>(s: S, g: [S::V; 3]) -> [S::V; 6] {
    if M == 2 {
        let half = s.splat(0.5);
        let even = s.mul(half, s.add(g[0], g[2]));
        let odd = s.mul(half, g[1]);
        return [g[0], s.add(even, odd), s.sub(even, odd), g[2], s.zero(), s.zero()];
    }
    let matrix = filter_matrix(4);
    let even_a = s.fma(s.splat(matrix[1][2]), g[2], s.mul(s.splat(matrix[1][0]), g[0]));
    let odd_a = s.mul(s.splat(matrix[1][1]), g[1]);
    let even_b = s.fma(s.splat(matrix[3][2]), g[2], s.mul(s.splat(matrix[3][0]), g[0]));
    let odd_b = s.mul(s.splat(matrix[3][1]), g[1]);
    [g[0], s.add(even_a, odd_a), s.sub(even_a, odd_a), s.add(even_b, odd_b), s.sub(even_b, odd_b), g[2]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, Kernel, MAX_LANES};

    /// One tile in one dimension: `y = Aᵀ (G g ⊙ Bᵀ d)`, and both of its gradients through the transposed transforms.
    struct OneTile<const M: usize>;

    impl<const M: usize> Kernel for OneTile<M> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let d: [f32; 6] = [0.3, -1.2, 0.7, 2.1, -0.4, 1.5];
            let g: [f32; 3] = [0.9, -0.6, 0.25];
            let y: [f32; 4] = [1.1, -0.2, 0.8, -1.7];
            let first = |v: S::V| {
                let mut lanes = [0.0; MAX_LANES];
                // SAFETY: `MAX_LANES` numbers.
                unsafe { s.store(lanes.as_mut_ptr(), v) };
                lanes[0]
            };
            let close = |found: f32, wanted: f32| assert!((found - wanted).abs() < 2e-6, "{found} is not {wanted}");
            let frequencies = input::<S, M>(s, d.map(|x| s.splat(x)));
            let taps = filter::<S, M>(s, g.map(|x| s.splat(x)));
            let products = std::array::from_fn(|i| s.mul(frequencies[i], taps[i]));
            let outputs = output::<S, M>(s, products);
            for i in 0..M {
                close(first(outputs[i]), (0..3).map(|k| d[i + k] * g[k]).sum());
            }
            let gradient = output_gradient::<S, M>(s, y.map(|x| s.splat(x)));
            let products = std::array::from_fn(|i| s.mul(frequencies[i], gradient[i]));
            for (k, found) in filter_gradient::<S, M>(s, products).into_iter().enumerate() {
                close(first(found), (0..M).map(|i| d[i + k] * y[i]).sum());
            }
            let flip = filter::<S, M>(s, [g[2], g[1], g[0]].map(|x| s.splat(x)));
            for i in 0..points(M) {
                close(first(flip[i]), first(taps[flipped(M, i)]));
            }
            for (i, row) in filter_matrix(M).iter().enumerate().take(points(M)) {
                close(first(taps[i]), row.iter().zip(g).map(|(m, g)| m * g).sum());
            }
        }
    }

    #[test]
    fn one_tile_is_a_correlation_and_its_transposes_are_the_gradients() {
        for isa in Isa::available() {
            isa.dispatch(OneTile::<2>);
            isa.dispatch(OneTile::<4>);
        }
    }
}
