//! Random numbers that depend on nothing but their key.
//!
//! A [`Stream`] is a counter-based generator: value `i` of the stream with a key is a hash of both. So an image's
//! random start is the same in any batch, on any device, with any number of threads, and a resumed run continues
//! exactly where it stopped.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

/// Gaussian noise of standard deviation `sigma` on a plain device: value `i`, row major, is number `i` of the stream of `key`.
///
/// ```
/// use burn::tensor::Device;
/// use fireproof_tensor::random::{Stream, gaussian};
/// let noise: Vec<f32> = gaussian([1, 2, 3, 3], 0.25, &[7, 0], &Device::flex()).into_data().try_to_vec().unwrap();
/// assert_eq!(noise[5], 0.25 * Stream::new(&[7, 0]).normal(5));
/// ```
pub fn gaussian(dims: [usize; 4], sigma: f32, key: &[u64], device: &Device) -> Tensor<4> {
    let stream = Stream::new(key);
    let count: usize = dims.iter().product();
    let values: Vec<f32> = (0..count as u64).into_par_iter().map(|i| sigma * stream.normal(i)).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

/// A stream of random numbers keyed by a list of words, e.g. `(seed, sample id, attack, restart, step)`.
///
/// ```
/// use fireproof_tensor::random::Stream;
/// let a = Stream::new(&[7, 42]);
/// assert_eq!(a.uniform(3), Stream::new(&[7, 42]).uniform(3));
/// assert_ne!(a.uniform(3), a.uniform(4));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// A stream for this key. The order of the words matters.
    pub fn new(words: &[u64]) -> Self {
        let key = words.iter().fold(0x243f_6a88_85a3_08d3, |key: u64, &word| mix(key ^ mix(word)).wrapping_add(GOLDEN));
        Self { key }
    }

    /// A stream for a named purpose within this one.
    pub fn child(&self, name: &str) -> Self {
        let name =
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Self::new(&[self.key, name])
    }

    /// 64 random bits.
    pub fn bits(&self, counter: u64) -> u64 {
        mix(self.key.wrapping_add(counter.wrapping_mul(GOLDEN)))
    }

    /// Uniform in `[0, 1)`, 24 bits.
    pub fn uniform(&self, counter: u64) -> f32 {
        (self.bits(counter) >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[-1, 1)`, 24 bits.
    pub fn symmetric(&self, counter: u64) -> f32 {
        2.0 * self.uniform(counter) - 1.0
    }

    /// Standard normal (Box–Muller on two counters of its own).
    pub fn normal(&self, counter: u64) -> f32 {
        let radius = (1.0 - f64::from(self.uniform(2 * counter))).ln() * -2.0;
        let angle = f64::from(self.uniform(2 * counter + 1)) * std::f64::consts::TAU;
        (radius.sqrt() * angle.cos()) as f32
    }

    /// Uniform in `0..bound`.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&self, counter: u64, bound: u64) -> u64 {
        assert!(bound > 0, "bound must be positive");
        ((u128::from(self.bits(counter)) * u128::from(bound)) >> 64) as u64
    }

    /// A permutation of `0..n` (Fisher–Yates).
    pub fn permutation(&self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
        order
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let stream = Stream::new(&[1, 2, 3]);
        let n = 100_000;
        let mean = (0..n).map(|i| f64::from(stream.uniform(i))).sum::<f64>() / n as f64;
        let normals: Vec<f64> = (0..n).map(|i| f64::from(stream.normal(i))).collect();
        let m = normals.iter().sum::<f64>() / n as f64;
        let v = normals.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 5e-3, "{mean}");
        assert!(m.abs() < 1e-2 && (v - 1.0).abs() < 2e-2, "{m} {v}");
    }

    #[test]
    fn word_order_and_neighbouring_keys_give_unrelated_streams() {
        let first = |words: &[u64]| Stream::new(words).bits(0);
        assert_ne!(first(&[1, 2]), first(&[2, 1]));
        assert_ne!(first(&[1]), first(&[1, 0]));
        let equal = (0..64).filter(|i| (first(&[5]) ^ first(&[6])) >> i & 1 == 0).count();
        assert!((16..48).contains(&equal), "{equal} of 64 bits agree");
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Stream::new(&[9]).permutation(100);
        assert_ne!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
