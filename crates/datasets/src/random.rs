//! Counter-based randomness: every value is a hash of a key and a counter, so nothing depends on who asked first.

/// Finaliser of splitmix64: a bijection on `u64` whose output bits each depend on every input bit.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Folds the parts of a key, in order, into one number.
pub(crate) fn key(parts: &[u64]) -> u64 {
    parts.iter().fold(GOLDEN, |hash, part| mix(hash.wrapping_add(GOLDEN) ^ mix(part.wrapping_add(GOLDEN))))
}

/// Key of a name (FNV-1a), so that a split's stream depends on what it is called and on nothing else.
pub(crate) fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The sequence of hashes of one key.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    key: u64,
    counter: u64,
}

impl Stream {
    pub(crate) fn new(parts: &[u64]) -> Self {
        Self { key: key(parts), counter: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.counter += 1;
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GOLDEN)))
    }

    /// Uniform in `[0, 1)`; 24 bits, so the conversion is exact.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..bound`. The bias of the multiply-shift is below `bound / 2^32`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (((self.next() >> 32) * bound as u64) >> 32) as usize
    }

    /// True with the given probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }
}

/// Uniform permutation of `0..len` (Fisher–Yates) that is a function of the key alone.
pub(crate) fn permutation(parts: &[u64], len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    let mut stream = Stream::new(parts);
    for last in (1..len).rev() {
        order.swap(last, stream.below(last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_holds_every_index_once_and_depends_on_its_key() {
        let mut first = permutation(&[1, 2], 100);
        assert_ne!(first, permutation(&[1, 3], 100));
        assert_ne!(first, permutation(&[2, 1], 100), "the key's parts are ordered");
        first.sort_unstable();
        assert_eq!(first, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn units_fill_the_interval_evenly() {
        let mut stream = Stream::new(&[7]);
        let mut bins = [0usize; 10];
        for _ in 0..100_000 {
            bins[(stream.unit() * 10.0) as usize] += 1;
        }
        assert!(bins.iter().all(|&count| (9_600..10_400).contains(&count)), "{bins:?}");
    }
}
