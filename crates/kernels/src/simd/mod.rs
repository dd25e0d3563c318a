//! Vectors of `f32` on every instruction set, chosen when the program runs.
//!
//! A kernel is a struct that implements [`Kernel`]: its `run` is generic over the instruction set `S:`[`Simd`], and
//! [`Isa::dispatch`] calls it inside a `#[target_feature]` function. All code between that function and the vector
//! operations must be inlined, otherwise each operation becomes a function call: mark helpers that are generic over `S`
//! with `#[inline(always)]`, and write them as functions rather than as closures.
//!
//! ```
//! use fireproof_kernels::simd::{Isa, Kernel, Simd};
//!
//! /// Doubles every number of a slice.
//! struct Double<'a>(&'a mut [f32]);
//!
//! impl Kernel for Double<'_> {
//!     type Output = ();
//!
//!     #[inline(always)]
//!     fn run<S: Simd>(self, s: S) {
//!         for chunk in self.0.chunks_mut(S::LANES) {
//!             // SAFETY: the chunk has `chunk.len() <= LANES` numbers.
//!             unsafe {
//!                 let v = s.load_partial(chunk.as_ptr(), chunk.len());
//!                 s.store_partial(chunk.as_mut_ptr(), chunk.len(), s.add(v, v));
//!             }
//!         }
//!     }
//! }
//!
//! let mut numbers = [1.0, 2.0, 3.0];
//! Isa::current().dispatch(Double(&mut numbers));
//! assert_eq!(numbers, [2.0, 4.0, 6.0]);
//! ```

use std::cell::Cell;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

/// The environment variable that selects an instruction set by name: `avx512`, `avx2`, `neon` or `portable`.
pub const ISA_VARIABLE: &str = "FIREPROOF_ISA";

/// More lanes than any vector has, for buffers on the stack.
pub const MAX_LANES: usize = 16;

/// Operations on one vector of [`LANES`](Simd::LANES) `f32`. A value of the type is the proof that the machine has the
/// instruction set, so that arithmetic is safe; only memory access is `unsafe`.
///
/// The trait is sealed: AVX-512 (16 lanes), AVX2 with FMA (8), NEON (4), and plain arrays (8).
pub trait Simd: sealed::Sealed + Copy + Send + Sync + 'static {
    /// A vector.
    type V: Copy;
    /// Numbers in a vector: a multiple of 4 up to [`MAX_LANES`].
    const LANES: usize;
    /// Vector registers, which bound the size of a register tile: 32 or 16.
    const REGISTERS: usize;

    /// Every lane is `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Every lane is zero.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }
    /// Reads `LANES` numbers; no alignment is needed.
    ///
    /// # Safety
    /// `source` is valid for reading `LANES` numbers.
    unsafe fn load(self, source: *const f32) -> Self::V;
    /// Writes `LANES` numbers; no alignment is needed.
    ///
    /// # Safety
    /// `target` is valid for writing `LANES` numbers.
    unsafe fn store(self, target: *mut f32, v: Self::V);
    /// Reads `count` numbers into the first lanes; the others are zero.
    ///
    /// # Safety
    /// `count <= LANES`, and `source` is valid for reading `count` numbers.
    unsafe fn load_partial(self, source: *const f32, count: usize) -> Self::V;
    /// Writes the first `count` lanes.
    ///
    /// # Safety
    /// `count <= LANES`, and `target` is valid for writing `count` numbers.
    unsafe fn store_partial(self, target: *mut f32, count: usize, v: Self::V);

    /// Asks for the cache line at `place`, which may be any address, to be brought near.
    #[inline(always)]
    fn prefetch(self, place: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch never faults, and SSE is part of the architecture.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(place.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = place;
    }

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, rounded once, except on the portable path, which rounds twice because an emulated fused
    /// multiply-add would be far slower.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `if a > b { a } else { b }` in every lane: `b` where one of the two is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }` in every lane: `b` where one of the two is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Rectifies: negative numbers become zero, NaN stays NaN.
    #[inline(always)]
    fn relu(self, v: Self::V) -> Self::V {
        self.max(self.zero(), v)
    }

    /// Cuts every vector into blocks of four lanes and transposes each 4×4 block: lane `4k + j` of result `i` is lane
    /// `4k + i` of vector `j`. It is its own inverse.
    fn transpose4(self, v: [Self::V; 4]) -> [Self::V; 4];
    /// The even and the odd lanes, block of four by block: block `k` of the results is `[a₀, a₂, b₀, b₂]` and
    /// `[a₁, a₃, b₁, b₃]` of the blocks `k` of `a` and `b`. Inverse of [`Simd::zip4`].
    fn unzip4(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// Block `k` of the results is `[a₀, b₀, a₁, b₁]` and `[a₂, b₂, a₃, b₃]` of the blocks `k` of `a` and `b`.
    /// Inverse of [`Simd::unzip4`].
    fn zip4(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// The even and the odd numbers of the sequence `a ‖ b`, in order. Inverse of [`Simd::interleave`].
    fn deinterleave(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// The sequence `a₀ b₀ a₁ b₁ …` as two vectors. Inverse of [`Simd::deinterleave`].
    fn interleave(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// Transposes a block of `rows × columns` numbers, each at most `LANES`. Row `i` is read at `source + i · stride`;
    /// column `j` is written as a whole vector, zeros behind its `rows` numbers, at `target + j · target_stride`.
    ///
    /// # Safety
    /// `rows` and `columns` are at most `LANES`; `columns` numbers are readable in every row, and `LANES` numbers
    /// writable in every one of the `columns` target rows.
    unsafe fn transpose(
        self,
        source: *const f32,
        stride: usize,
        rows: usize,
        columns: usize,
        target: *mut f32,
        target_stride: usize,
    );
}

mod sealed {
    pub trait Sealed {}
}

/// Work that is generic over the instruction set; see the [module](self) for an example.
pub trait Kernel {
    /// What the work returns.
    type Output;
    /// Does the work. Mark it `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set that this machine has.
///
/// Public functions of this crate read [`Isa::current`] once, on the thread that calls them, and use it on all threads
/// that they employ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Inner);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inner {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

thread_local! {
    static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
}

impl Isa {
    /// The instruction sets of this machine, fastest first; the portable one is always the last.
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            if avx2 && avx512 {
                found.push(Isa(Inner::Avx512));
            }
            if avx2 {
                found.push(Isa(Inner::Avx2));
            }
        }
        #[cfg(target_arch = "aarch64")]
        found.push(Isa(Inner::Neon));
        found.push(Isa(Inner::Portable));
        found
    }

    /// The instruction set of that name, where this machine has it.
    pub fn named(name: &str) -> Option<Isa> {
        Isa::available().into_iter().find(|isa| isa.name() == name)
    }

    /// `avx512`, `avx2`, `neon` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Inner::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Inner::Neon => "neon",
            Inner::Portable => "portable",
        }
    }

    /// What kernels called from this thread use: the one of [`Isa::force`], else the one that the environment variable
    /// [`ISA_VARIABLE`] names, else the fastest.
    ///
    /// # Panics
    /// If the environment variable names an instruction set that this machine does not have.
    pub fn current() -> Isa {
        static DEFAULT: OnceLock<Isa> = OnceLock::new();
        FORCED.get().unwrap_or_else(|| {
            *DEFAULT.get_or_init(|| match std::env::var(ISA_VARIABLE) {
                Ok(name) => Isa::named(&name).unwrap_or_else(|| {
                    let names: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
                    panic!("{ISA_VARIABLE}={name:?}: expected one of {names:?}, which this machine has")
                }),
                Err(_) => Isa::available()[0],
            })
        })
    }

    /// Runs `work` with this instruction set for all kernels that `work` calls on this thread.
    pub fn force<R>(self, work: impl FnOnce() -> R) -> R {
        struct Restore(Option<Isa>);
        impl Drop for Restore {
            fn drop(&mut self) {
                FORCED.set(self.0);
            }
        }
        let _restore = Restore(FORCED.replace(Some(self)));
        work()
    }

    /// Runs the kernel, compiled for this instruction set.
    #[inline]
    pub fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: an `Isa` comes only from `available`, which found the features.
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512 => unsafe { avx512::enter(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Inner::Avx2 => unsafe { avx2::enter(kernel) },
            #[cfg(target_arch = "aarch64")]
            Inner::Neon => neon::enter(kernel),
            Inner::Portable => portable::enter(kernel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation against its definition, lane by lane.
    struct Check;

    impl Kernel for Check {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let n = S::LANES;
            let numbers =
                |seed: usize| -> Vec<f32> { (0..n).map(|i| ((i * 7 + seed * 13) % 29) as f32 - 11.5).collect() };
            let load = |v: &[f32]| {
                assert!(v.len() >= n);
                // SAFETY: checked above.
                unsafe { s.load(v.as_ptr()) }
            };
            let read = |v: S::V| {
                let mut out = vec![0.0f32; n];
                // SAFETY: `out` has `LANES` numbers.
                unsafe { s.store(out.as_mut_ptr(), v) };
                out
            };
            let (av, bv, cv) = (numbers(1), numbers(2), numbers(3));
            let (a, b, c) = (load(&av), load(&bv), load(&cv));
            let map = |f: &dyn Fn(usize) -> f32| -> Vec<f32> { (0..n).map(f).collect() };
            assert_eq!(read(s.splat(2.5)), vec![2.5; n]);
            assert_eq!(read(s.zero()), vec![0.0; n]);
            assert_eq!(read(s.add(a, b)), map(&|i| av[i] + bv[i]));
            assert_eq!(read(s.sub(a, b)), map(&|i| av[i] - bv[i]));
            assert_eq!(read(s.mul(a, b)), map(&|i| av[i] * bv[i]));
            assert_eq!(read(s.fma(a, b, c)), map(&|i| av[i] * bv[i] + cv[i]));
            assert_eq!(read(s.max(a, b)), map(&|i| av[i].max(bv[i])));
            assert_eq!(read(s.min(a, b)), map(&|i| av[i].min(bv[i])));
            assert_eq!(read(s.relu(a)), map(&|i| av[i].max(0.0)));
            let nan = s.splat(f32::NAN);
            assert_eq!(read(s.max(nan, a)), av, "max takes its second argument where one is NaN");
            assert_eq!(read(s.min(nan, a)), av, "min takes its second argument where one is NaN");
            assert!(read(s.max(a, nan)).iter().chain(&read(s.min(a, nan))).all(|x| x.is_nan()));
            assert!(read(s.relu(nan)).iter().all(|x| x.is_nan()));

            for count in 0..=n {
                // SAFETY: `count <= LANES`.
                let part = read(unsafe { s.load_partial(av.as_ptr(), count) });
                assert_eq!(part, map(&|i| if i < count { av[i] } else { 0.0 }));
                let mut out = bv.clone();
                // SAFETY: as above.
                unsafe { s.store_partial(out.as_mut_ptr(), count, a) };
                assert_eq!(out, map(&|i| if i < count { av[i] } else { bv[i] }));
            }

            let rows: Vec<Vec<f32>> = (0..4).map(|k| numbers(k + 4)).collect();
            let transposed = s.transpose4([load(&rows[0]), load(&rows[1]), load(&rows[2]), load(&rows[3])]);
            for (i, v) in transposed.into_iter().enumerate() {
                assert_eq!(read(v), map(&|l| rows[l % 4][l / 4 * 4 + i]));
            }
            let (even, odd) = s.unzip4(a, b);
            let pick = |l: usize, odd: usize| {
                let (block, j) = (l / 4 * 4, l % 4);
                if j < 2 { av[block + 2 * j + odd] } else { bv[block + 2 * (j - 2) + odd] }
            };
            assert_eq!((read(even), read(odd)), (map(&|l| pick(l, 0)), map(&|l| pick(l, 1))));
            let (x, y) = s.zip4(even, odd);
            assert_eq!((read(x), read(y)), (av.clone(), bv.clone()));
            let both = [av.clone(), bv.clone()].concat();
            let (even, odd) = s.deinterleave(a, b);
            assert_eq!((read(even), read(odd)), (map(&|l| both[2 * l]), map(&|l| both[2 * l + 1])));
            let (x, y) = s.interleave(even, odd);
            assert_eq!((read(x), read(y)), (av.clone(), bv.clone()));

            for (height, width) in [(n, n), (1, n), (n, 1), (n - 1, 3), (2, n - 1)] {
                let stride = n + 3;
                let source: Vec<f32> = (0..n * stride).map(|i| i as f32).collect();
                let mut target = vec![-1.0f32; n * (n + 1)];
                // SAFETY: `source` has `n` rows of `stride >= n` numbers, `target` `n` rows of `n + 1`.
                unsafe { s.transpose(source.as_ptr(), stride, height, width, target.as_mut_ptr(), n + 1) };
                for j in 0..n {
                    for i in 0..n {
                        let want = match (j < width, i < height) {
                            (true, true) => source[i * stride + j],
                            (true, false) => 0.0,
                            _ => -1.0,
                        };
                        assert_eq!(target[j * (n + 1) + i], want, "{height}x{width}, column {j}, row {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_operation_of_every_instruction_set_follows_its_definition() {
        for isa in Isa::available() {
            isa.dispatch(Check);
        }
    }

    #[test]
    fn a_forced_instruction_set_ends_with_its_scope() {
        let before = Isa::current();
        let portable = Isa::named("portable").unwrap();
        assert_eq!(portable.force(Isa::current), portable);
        assert_eq!(Isa::current(), before);
        assert_eq!(Isa::named("no such thing"), None);
    }
}
