//! Exact statements about a probability from counted successes: tests and bounds without an approximation.

/// `P(X ≥ successes)` for `X` binomial with `trials` and probability `p`: the p-value of the one-sided test of "the probability
/// is at most `p`".
///
/// ```
/// use fireproof_metrics::binomial::at_least;
/// // 100 of 100 where 75 % were expected.
/// assert!((at_least(100, 100, 0.75) / 3.2072021853815054e-13 - 1.0).abs() < 1e-9);
/// assert_eq!(at_least(0, 10, 0.5), 1.0);
/// ```
///
/// # Panics
/// If `p` is no probability or there are more successes than trials.
pub fn at_least(successes: u64, trials: u64, p: f64) -> f64 {
    assert!((0.0..=1.0).contains(&p), "{p} is no probability");
    assert!(successes <= trials, "{successes} successes of {trials}");
    if successes == 0 || p == 1.0 {
        return 1.0;
    }
    if p == 0.0 {
        return 0.0;
    }
    // Of both tails the one with the smaller mass is summed, from its largest term on: that loses no digits.
    let mean = trials as f64 * p;
    if successes as f64 >= mean {
        tail(successes, trials, p)
    } else {
        1.0 - tail(trials - successes + 1, trials, 1.0 - p)
    }
}

/// `P(X ≥ k)` for `k` at or above the mean: terms fall from the first on.
fn tail(k: u64, n: u64, p: f64) -> f64 {
    let first = (ln_choose(n, k) + k as f64 * p.ln() + (n - k) as f64 * (-p).ln_1p()).exp();
    let odds = p / (1.0 - p);
    let (mut term, mut sum) = (1.0, 0.0);
    for x in k..=n {
        sum += term;
        if term < 1e-18 * sum {
            break;
        }
        term *= (n - x) as f64 / (x + 1) as f64 * odds;
    }
    (first * sum).min(1.0)
}

fn ln_choose(n: u64, k: u64) -> f64 {
    let ln_factorial = |n: u64| libm::lgamma(n as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Clopper and Pearson's lower bound: with probability `1 − alpha` the true probability is not below it.
///
/// Clopper, Pearson. *The use of confidence or fiducial limits illustrated in the case of the binomial*, Biometrika 1934.
///
/// ```
/// use fireproof_metrics::binomial::lower_bound;
/// assert_eq!(lower_bound(0, 100, 0.001), 0.0);
/// // All of them: alpha^(1/n).
/// assert!((lower_bound(100, 100, 0.001) - 0.001f64.powf(0.01)).abs() < 1e-12);
/// ```
///
/// # Panics
/// If `alpha` is outside `(0, 1)` or there are more successes than trials.
pub fn lower_bound(successes: u64, trials: u64, alpha: f64) -> f64 {
    assert!(alpha > 0.0 && alpha < 1.0, "{alpha} is no error probability");
    if successes == 0 {
        return 0.0;
    }
    // The p-value grows with p; the bound is where it is alpha.
    let (mut low, mut high) = (0.0, successes as f64 / trials as f64);
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            // The lower end keeps the promise whatever was rounded.
            return low;
        }
        if at_least(successes, trials, middle) > alpha { high = middle } else { low = middle }
    }
}

/// The two-sided p-value of "both are equally likely" for counts `a` and `b`.
///
/// # Panics
/// Never for counts that add up to less than 2⁶⁴.
pub fn two_sided_half(a: u64, b: u64) -> f64 {
    (2.0 * at_least(a.max(b), a + b, 0.5)).min(1.0)
}

/// `Φ⁻¹(p)`: the quantile of the standard normal distribution.
///
/// ```
/// use fireproof_metrics::binomial::normal_quantile;
/// assert!((normal_quantile(0.75) - 0.674_489_750_196_081_7).abs() < 1e-14);
/// assert_eq!(normal_quantile(0.5), 0.0);
/// ```
pub fn normal_quantile(p: f64) -> f64 {
    if p.is_nan() || p <= 0.0 || p >= 1.0 {
        return match p {
            0.0 => f64::NEG_INFINITY,
            1.0 => f64::INFINITY,
            _ => f64::NAN,
        };
    }
    if p == 0.5 {
        return 0.0;
    }
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    // Bisection on the lower tail, where erfc keeps all digits, then two steps of Newton.
    let below = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
    let (mut low, mut high) = (-40.0, 0.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if below(middle) < p { low = middle } else { high = middle }
    }
    let mut x = 0.5 * (low + high);
    for _ in 0..2 {
        let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let step = (below(x) - p) / density;
        if step.is_finite() {
            x -= step;
        }
    }
    x
}
