//! Exponential and rotation in plain arithmetic: the platform's own differ in the last bit, and augmentation is part of
//! what makes two runs equal.

/// `e^x` for `x ≤ 0`, relative error below 1e-12 down to -30.
pub(crate) fn exp(x: f64) -> f64 {
    // e^x = (e^(x/1024))^1024: the inner argument is small enough for a short series.
    let small = x / 1024.0;
    let series = (1..=6).rev().fold(1.0, |sum, order| 1.0 + small / f64::from(order) * sum);
    (0..10).fold(series, |power, _| power * power)
}

/// Sine and cosine of an angle in degrees, error below 1e-14 for up to 45°.
pub(crate) fn sin_cos(degrees: f64) -> (f64, f64) {
    let x = degrees * (std::f64::consts::PI / 180.0);
    let square = x * x;
    // Horner form of the Taylor series: each factor is -x² / (n (n + 1)).
    let series = |first: i32| {
        (0..8).rev().fold(1.0, |sum, index| {
            let n = f64::from(first + 2 * index);
            1.0 - square / (n * (n + 1.0)) * sum
        })
    };
    (x * series(2), series(1))
}

/// Sine and cosine of any angle in degrees, error below 1e-14.
pub(crate) fn turn(degrees: f64) -> (f64, f64) {
    let quarters = (degrees / 90.0).round();
    let (sin, cos) = sin_cos(degrees - 90.0 * quarters);
    match quarters.rem_euclid(4.0) as i32 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// Natural logarithm of a positive number, error below 1e-14 of the result or of one.
pub(crate) fn ln(x: f64) -> f64 {
    // x = m · 2^e with m between √½ and √2, by the number's own bits; ln m = 2 artanh((m − 1) / (m + 1)).
    let bits = x.to_bits();
    let (mut exponent, mut m) = ((bits >> 52) as i64 - 1023, f64::from_bits(bits & ((1 << 52) - 1) | (1023 << 52)));
    if m > std::f64::consts::SQRT_2 {
        (exponent, m) = (exponent + 1, 0.5 * m);
    }
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let series = (0..12).rev().fold(0.0, |sum, index| 1.0 / f64::from(2 * index + 1) + square * sum);
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_platform() {
        for step in 0..=100 {
            let x = -0.3 * f64::from(step);
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-11, "exp({x})");
            let degrees = 0.9 * f64::from(step) - 45.0;
            let (sin, cos) = sin_cos(degrees);
            let (expected_sin, expected_cos) = degrees.to_radians().sin_cos();
            assert!((sin - expected_sin).abs() < 1e-14 && (cos - expected_cos).abs() < 1e-14, "{degrees} degrees");
            let around = 8.0 * degrees;
            let ((sin, cos), (expected_sin, expected_cos)) = (turn(around), around.to_radians().sin_cos());
            assert!((sin - expected_sin).abs() < 1e-14 && (cos - expected_cos).abs() < 1e-14, "{around} degrees");
            let y = 1.37f64.powi(step - 60);
            assert!((ln(y) - y.ln()).abs() < 1e-14 * y.ln().abs().max(1.0), "ln({y})");
        }
    }
}
