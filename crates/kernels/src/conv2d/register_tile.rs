//! The inner loop: `M` output channels × `N` vectors of pixels in registers.

use crate::simd::Simd;

/// Output channels that share a block of packed weights.
pub(crate) const BLOCK: usize = 8;

/// The sum that a register tile computes: over `channels` channels and all taps.
#[derive(Clone, Copy)]
pub(crate) struct Sum<'a> {
    pub channels: usize,
    /// Distance of two channels in the input tile.
    pub plane: usize,
    /// Distance of two channels in the packed weights.
    pub weight_plane: usize,
    pub taps: &'a [TapOffset],
}

/// What a tap adds to the pointers of the input and of the weights.
#[derive(Clone, Copy)]
pub(crate) struct TapOffset {
    pub input: usize,
    pub weight: usize,
}

/// Computes `M` channels of the vectors at `inputs` and stores them (or adds them to what is there) at
/// `output + m · output_plane + v · LANES`.
///
/// # Safety
/// For all channels `c` and taps `t`, `LANES` numbers are readable at `inputs[v] + c · plane + t.input`, `M` at
/// `weights + c · weight_plane + t.weight`; the output is writable.
#[inline(always)]
pub(crate) unsafe fn register_tile<S: Simd, const M: usize, const N: usize>(
    s: S,
    sum: Sum<'_>,
    inputs: [*const f32; N],
    weights: *const f32,
    output: *mut f32,
    output_plane: usize,
    add: bool,
) {
    let mut acc = [[s.zero(); N]; M];
    // SAFETY: the caller's promise; the pointers step over `channels` planes. `wrapping_add` since the pointers move one
    // step behind the last channel.
    unsafe {
        let (mut inputs, mut weights) = (inputs, weights);
        if let [tap] = sum.taps {
            // A loop of its own: with one tap, the bookkeeping of the general one would cost as much as the products.
            for _ in 0..sum.channels {
                products(s, tap, inputs, weights, &mut acc);
                for input in &mut inputs {
                    *input = input.wrapping_add(sum.plane);
                }
                weights = weights.wrapping_add(sum.weight_plane);
            }
        } else {
            for _ in 0..sum.channels {
                for tap in sum.taps {
                    products(s, tap, inputs, weights, &mut acc);
                }
                for input in &mut inputs {
                    *input = input.wrapping_add(sum.plane);
                }
                weights = weights.wrapping_add(sum.weight_plane);
            }
        }
        for m in 0..M {
            for v in 0..N {
                let to = output.add(m * output_plane + v * S::LANES);
                let sum = if add { s.add(s.load(to), acc[m][v]) } else { acc[m][v] };
                s.store(to, sum);
            }
        }
    }
}

/// Adds one tap of one channel.
///
/// # Safety
/// As for [`register_tile`], of this tap and channel.
#[inline(always)]
unsafe fn products<S: Simd, const M: usize, const N: usize>(
    s: S,
    tap: &TapOffset,
    inputs: [*const f32; N],
    weights: *const f32,
    acc: &mut [[S::V; N]; M],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut x = [s.zero(); N];
        for v in 0..N {
            x[v] = s.load(inputs[v].add(tap.input));
        }
        let weights = weights.add(tap.weight);
        for m in 0..M {
            let w = s.splat(*weights.add(m));
            for v in 0..N {
                acc[m][v] = s.fma(w, x[v], acc[m][v]);
            }
        }
    }
}

/// Computes `channels <= BLOCK` output channels of all vectors that start at `starts` (relative to `input`), as
/// [`register_tile`] does; `first` is the number of the first vector in the output.
///
/// # Safety
/// As for [`register_tile`], with the weights of a whole block (zeros behind the channels that exist) and an output of
/// `BLOCK` planes.
#[inline(always)]
pub(crate) unsafe fn block<S: Simd>(
    s: S,
    sum: Sum<'_>,
    channels: usize,
    input: *const f32,
    starts: &[usize],
    weights: *const f32,
    output: *mut f32,
    output_plane: usize,
    add: bool,
) {
    let wide = S::REGISTERS >= 32;
    let mut i = 0;
    while i < starts.len() {
        let left = starts.len() - i;
        // SAFETY: the caller's promise; `i + n <= starts.len()` vectors in each arm.
        unsafe {
            let at = |v: usize| input.add(starts[i + v]);
            let out = output.add(i * S::LANES);
            macro_rules! tile {
                ($m:literal, $n:literal) => {{
                    let inputs: [*const f32; $n] = std::array::from_fn(at);
                    register_tile::<S, $m, $n>(s, sum, inputs, weights, out, output_plane, add);
                    i += $n;
                }};
            }
            macro_rules! halves {
                ($n:literal) => {{
                    let inputs: [*const f32; $n] = std::array::from_fn(at);
                    register_tile::<S, 4, $n>(s, sum, inputs, weights, out, output_plane, add);
                    let out = out.add(4 * output_plane);
                    register_tile::<S, 4, $n>(s, sum, inputs, weights.add(4), out, output_plane, add);
                    i += $n;
                }};
            }
            // With 16 registers, four channels times three vectors would leave none to spare, and the compiler would move sums to
            // the stack and back.
            match (channels, left) {
                (0..=1, 8..) => tile!(1, 8),
                (0..=1, 4..) => tile!(1, 4),
                (0..=1, 2..) => tile!(1, 2),
                (0..=1, _) => tile!(1, 1),
                (2..=4, 6..) if wide => tile!(4, 6),
                (2..=4, 3) | (2..=4, 5..) if wide => tile!(4, 3),
                (2..=4, 2..) => tile!(4, 2),
                (2..=4, _) => tile!(4, 1),
                (_, 3) | (_, 5..) if wide => tile!(8, 3),
                (_, 2..) if wide => tile!(8, 2),
                _ if wide => tile!(8, 1),
                (_, 2..) => halves!(2),
                _ => halves!(1),
            }
        }
    }
}
