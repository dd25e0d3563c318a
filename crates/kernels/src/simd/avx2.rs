//! AVX2 with FMA: 8 lanes.

use super::{Kernel, Simd, sealed::Sealed};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// # Safety
/// The machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// All bits set in the lanes below `count`.
#[inline(always)]
fn mask(count: usize) -> __m256i {
    static BITS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(count <= 8);
    // SAFETY: the eight entries from `8 - count` lie inside the table; only called where AVX2 exists.
    unsafe { _mm256_loadu_si256(BITS.as_ptr().add(8 - count).cast()) }
}

impl Avx2 {
    /// Row `i` of a matrix, zeros behind its columns and where the row does not exist.
    ///
    /// # Safety
    /// As for [`Simd::transpose`].
    #[inline(always)]
    unsafe fn load_row(self, source: *const f32, stride: usize, i: usize, rows: usize, columns: usize) -> __m256 {
        // SAFETY: the caller's promise.
        if i < rows { unsafe { self.load_partial(source.add(i * stride), columns) } } else { self.zero() }
    }
}

impl Sealed for Avx2 {}

// SAFETY of all blocks: an `Avx2` exists only inside `enter`, so the machine has the features; memory accesses are the
// caller's promise.
impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(source) }
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(target, v) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, source: *const f32, count: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(source, mask(count)) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, target: *mut f32, count: usize, v: __m256) {
        unsafe { _mm256_maskstore_ps(target, mask(count), v) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn transpose4(self, v: [__m256; 4]) -> [__m256; 4] {
        unsafe {
            let low = _mm256_castps_pd(_mm256_unpacklo_ps(v[0], v[1]));
            let high = _mm256_castps_pd(_mm256_unpackhi_ps(v[0], v[1]));
            let low2 = _mm256_castps_pd(_mm256_unpacklo_ps(v[2], v[3]));
            let high2 = _mm256_castps_pd(_mm256_unpackhi_ps(v[2], v[3]));
            [
                _mm256_castpd_ps(_mm256_unpacklo_pd(low, low2)),
                _mm256_castpd_ps(_mm256_unpackhi_pd(low, low2)),
                _mm256_castpd_ps(_mm256_unpacklo_pd(high, high2)),
                _mm256_castpd_ps(_mm256_unpackhi_pd(high, high2)),
            ]
        }
    }
    #[inline(always)]
    fn unzip4(self, a: __m256, b: __m256) -> (__m256, __m256) {
        unsafe { (_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xdd>(a, b)) }
    }
    #[inline(always)]
    fn zip4(self, a: __m256, b: __m256) -> (__m256, __m256) {
        unsafe { (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)) }
    }
    #[inline(always)]
    fn deinterleave(self, a: __m256, b: __m256) -> (__m256, __m256) {
        let (even, odd) = self.unzip4(a, b);
        // The blocks hold a, b, a, b: bring both halves of `a` to the front.
        unsafe {
            (
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(even))),
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(odd))),
            )
        }
    }
    #[inline(always)]
    fn interleave(self, a: __m256, b: __m256) -> (__m256, __m256) {
        let (low, high) = self.zip4(a, b);
        unsafe { (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)) }
    }
    #[inline(always)]
    unsafe fn transpose(
        self,
        source: *const f32,
        stride: usize,
        rows: usize,
        columns: usize,
        target: *mut f32,
        target_stride: usize,
    ) {
        unsafe {
            let top = self.transpose4([
                self.load_row(source, stride, 0, rows, columns),
                self.load_row(source, stride, 1, rows, columns),
                self.load_row(source, stride, 2, rows, columns),
                self.load_row(source, stride, 3, rows, columns),
            ]);
            let bottom = self.transpose4([
                self.load_row(source, stride, 4, rows, columns),
                self.load_row(source, stride, 5, rows, columns),
                self.load_row(source, stride, 6, rows, columns),
                self.load_row(source, stride, 7, rows, columns),
            ]);
            for j in 0..4 {
                if j < columns {
                    self.store(target.add(j * target_stride), _mm256_permute2f128_ps::<0x20>(top[j], bottom[j]));
                }
                if j + 4 < columns {
                    self.store(target.add((j + 4) * target_stride), _mm256_permute2f128_ps::<0x31>(top[j], bottom[j]));
                }
            }
        }
    }
}
