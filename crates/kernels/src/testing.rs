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

/// Sums of products in double precision, with the size that each would have if its products did not cancel.
pub(crate) struct Sums {
    pub values: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    pub fn new(count: usize) -> Self {
        Sums { values: vec![0.0; count], squares: vec![0.0; count] }
    }

    /// Adds a product to a sum.
    pub fn add(&mut self, index: usize, a: impl Into<f64>, b: impl Into<f64>) {
        let product = a.into() * b.into();
        self.values[index] += product;
        self.squares[index] += product * product;
    }

    /// The largest of the sums and of the root sums of squares: where there are few sums, all may come out near zero, and rounding
    /// does not follow them there.
    pub fn size(&self) -> f64 {
        let root = self.squares.iter().fold(0.0f64, |m, s| m.max(*s)).sqrt();
        self.values.iter().fold(root, |m, v| m.max(v.abs()))
    }

    /// `max |a − b| / size`; NaN in `found` makes it NaN.
    pub fn error(&self, found: &[f32]) -> f64 {
        let error = difference(found, &self.values);
        if error == 0.0 { 0.0 } else { error / self.size() }
    }
}

/// `max |a − b|`; NaN in either makes it NaN.
pub(crate) fn difference(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    largest(a.iter().zip(b).map(|(&a, &b)| f64::from(a) - b))
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0f64, |m, x| if x.is_nan() || m.is_nan() { f64::NAN } else { m.max(x.abs()) })
}

/// `max |a − b| / max |b|`; NaN in either makes it NaN, so that no comparison holds.
pub(crate) fn relative_error(a: &[f32], b: &[f64]) -> f64 {
    let (error, size) = (difference(a, b), largest(b.iter().copied()));
    if error == 0.0 { 0.0 } else { error / size }
}
