//! Against SciPy: `tests/reference/make_binomial.py`, run once.

use fireproof_metrics::binomial::{at_least, lower_bound, normal_quantile, two_sided_half};
use proptest::prelude::*;
use serde_json::Value;

fn reference() -> Value {
    serde_json::from_str(include_str!("../reference/binomial.json")).unwrap()
}

fn close(found: f64, expected: f64, tolerance: f64, what: &Value) {
    // Below the smallest normal number neither side has digits left.
    let same = found == expected || (found - expected).abs() <= tolerance * expected.abs() || expected.abs() < 1e-300;
    assert!(same, "{what}: found {found}, expected {expected}");
}

#[test]
fn p_values_are_those_of_scipy() {
    let number = |case: &Value, name: &str| case[name].as_f64().unwrap();
    for case in reference()["tails"].as_array().unwrap() {
        let (k, n) = (case["k"].as_u64().unwrap(), case["n"].as_u64().unwrap());
        close(at_least(k, n, number(case, "p")), number(case, "tail"), 1e-9, case);
    }
    for case in reference()["halves"].as_array().unwrap() {
        let found = two_sided_half(case["a"].as_u64().unwrap(), case["b"].as_u64().unwrap());
        close(found, number(case, "p"), 1e-10, case);
    }
}

#[test]
fn lower_bounds_are_those_of_scipy() {
    for case in reference()["bounds"].as_array().unwrap() {
        let (k, n) = (case["k"].as_u64().unwrap(), case["n"].as_u64().unwrap());
        close(lower_bound(k, n, case["alpha"].as_f64().unwrap()), case["bound"].as_f64().unwrap(), 1e-9, case);
    }
}

#[test]
fn quantiles_are_those_of_scipy_and_the_published_radius_follows() {
    for case in reference()["quantiles"].as_array().unwrap() {
        close(normal_quantile(case["p"].as_f64().unwrap()), case["x"].as_f64().unwrap(), 1e-9, case);
    }
    assert!((0.25 * normal_quantile(0.75) - 0.168_622).abs() < 1e-6);
    assert!(normal_quantile(1.5).is_nan() && normal_quantile(f64::NAN).is_nan());
    assert_eq!((normal_quantile(0.0), normal_quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
}

#[test]
fn a_normal_approximation_would_be_caught() {
    // The planted bug of many a script: mean and standard deviation instead of the exact tail.
    let approximated = |k: f64, n: f64, p: f64| {
        let x = (k - 0.5 - n * p) / (n * p * (1.0 - p)).sqrt();
        0.5 * libm::erfc(x / std::f64::consts::SQRT_2)
    };
    assert!((approximated(100.0, 100.0, 0.75) / at_least(100, 100, 0.75) - 1.0).abs() > 0.5);
}

proptest! {
    #[test]
    fn a_bound_is_where_the_p_value_is_alpha(n in 1u64..400, share in 0.0f64..=1.0, alpha in 1e-6f64..0.2) {
        let k = ((n as f64 * share) as u64).max(1);
        let bound = lower_bound(k, n, alpha);
        prop_assert!((at_least(k, n, bound) / alpha - 1.0).abs() < 1e-6);
        prop_assert!(bound < k as f64 / n as f64);
    }

    #[test]
    fn both_tails_add_up(n in 1u64..200, at in 0.0f64..1.0, p in 0.01f64..0.99) {
        let k = 1 + (at * (n - 1) as f64) as u64;
        let mirrored = at_least(n - k + 1, n, 1.0 - p);
        prop_assert!((at_least(k, n, p) + mirrored - 1.0).abs() < 1e-9);
    }
}
