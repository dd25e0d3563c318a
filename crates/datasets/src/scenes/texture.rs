//! Value noise on an integer lattice, and arithmetic on colours.

/// A colour in linear RGB.
pub(crate) type Color = [f32; 3];

/// 32-bit hash of a lattice point, as a fraction in `[0, 1)`.
pub(crate) fn lattice(x: i32, y: i32, seed: u32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x85eb_ca6b) ^ (y as u32).wrapping_mul(0xc2b2_ae35) ^ seed;
    h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
    h = (h ^ (h >> 15)).wrapping_mul(0x846c_a68b);
    h ^= h >> 16;
    (h >> 8) as f32 / 16_777_216.0
}

/// Smooth noise in `[0, 1)` with features of size one.
pub(crate) fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (fx, fy) = (x.floor(), y.floor());
    let (ix, iy) = (fx as i32, fy as i32);
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (smooth(x - fx), smooth(y - fy));
    let row = |j: i32| {
        let (a, b) = (lattice(ix, j, seed), lattice(ix.wrapping_add(1), j, seed));
        a + (b - a) * u
    };
    let (top, bottom) = (row(iy), row(iy.wrapping_add(1)));
    top + (bottom - top) * v
}

/// `a` for `t = 0`, `b` for `t = 1`.
pub(crate) fn blend(a: Color, b: Color, t: f32) -> Color {
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]
}

/// The colour times a brightness.
pub(crate) fn shade(color: Color, factor: f32) -> Color {
    [color[0] * factor, color[1] * factor, color[2] * factor]
}
