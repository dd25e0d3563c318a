//! Random numbers from a counter: no state, so no draw depends on how many were made before.

/// A number in `0..count` from 64 random bits, without the bias of a remainder.
pub(crate) fn below(count: u64, bits: u64) -> u64 {
    ((u128::from(bits) * u128::from(count)) >> 64) as u64
}

/// The mixing function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a counter in, 64 random bits out.
pub(crate) fn hash(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The numbers `0..count` in an order that depends on `key` alone (Fisher and Yates).
pub(crate) fn shuffled(count: usize, key: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let other = below(last as u64 + 1, hash(hash(key) ^ last as u64));
        order.swap(last, other as usize);
    }
    order
}
