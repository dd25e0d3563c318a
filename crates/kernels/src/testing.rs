//! Numbers and errors for the tests of this crate.

/// `count` numbers in `-1..1`, the same for the same seed.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| (hash(seed, i) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// SplitMix64 of the pair.
pub(crate) fn hash(seed: u64, index: u64) -> u64 {
    let mut z = seed
        .wrapping_mul(0xd134_2543_de82_ef95)
        .wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `max |a − b| / max |b|`; NaN in either makes it NaN, so that no comparison holds.
pub(crate) fn relative_error(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let worst = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(0.0f64, |m, x| if x.is_nan() || m.is_nan() { f64::NAN } else { m.max(x.abs()) })
    };
    let error = worst(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - b));
    let size = worst(&mut b.iter().copied());
    if error == 0.0 { 0.0 } else { error / size }
}
