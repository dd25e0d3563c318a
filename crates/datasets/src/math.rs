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
        }
    }
}
