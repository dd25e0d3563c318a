//! AVX-512 (F, VL, BW, DQ): 16 lanes.

use super::{Kernel, Simd, sealed::Sealed};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// # Safety
/// The machine has AVX2, FMA and AVX-512 F, VL, BW and DQ.
#[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")]
pub(super) unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// One mask bit per lane below `count`.
#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    debug_assert!(count <= 16);
    ((1u32 << count) - 1) as __mmask16
}

impl Avx512 {
    /// Row `i` of a matrix, zeros behind its columns and where the row does not exist.
    ///
    /// # Safety
    /// As for [`Simd::transpose`].
    #[inline(always)]
    unsafe fn load_row(self, source: *const f32, stride: usize, i: usize, rows: usize, columns: usize) -> __m512 {
        // SAFETY: the caller's promise.
        if i < rows { unsafe { self.load_partial(source.add(i * stride), columns) } } else { self.zero() }
    }
}

impl Sealed for Avx512 {}

// SAFETY of all blocks: an `Avx512` exists only inside `enter`, so the machine has the features; memory accesses are the
// caller's promise.
impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(source) }
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(target, v) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, source: *const f32, count: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask(count), source) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, target: *mut f32, count: usize, v: __m512) {
        unsafe { _mm512_mask_storeu_ps(target, mask(count), v) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn transpose4(self, v: [__m512; 4]) -> [__m512; 4] {
        unsafe {
            let low = _mm512_castps_pd(_mm512_unpacklo_ps(v[0], v[1]));
            let high = _mm512_castps_pd(_mm512_unpackhi_ps(v[0], v[1]));
            let low2 = _mm512_castps_pd(_mm512_unpacklo_ps(v[2], v[3]));
            let high2 = _mm512_castps_pd(_mm512_unpackhi_ps(v[2], v[3]));
            [
                _mm512_castpd_ps(_mm512_unpacklo_pd(low, low2)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(low, low2)),
                _mm512_castpd_ps(_mm512_unpacklo_pd(high, high2)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(high, high2)),
            ]
        }
    }
    #[inline(always)]
    fn unzip4(self, a: __m512, b: __m512) -> (__m512, __m512) {
        unsafe { (_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b)) }
    }
    #[inline(always)]
    fn zip4(self, a: __m512, b: __m512) -> (__m512, __m512) {
        unsafe { (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)) }
    }
    #[inline(always)]
    fn deinterleave(self, a: __m512, b: __m512) -> (__m512, __m512) {
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            (_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b))
        }
    }
    #[inline(always)]
    fn interleave(self, a: __m512, b: __m512) -> (__m512, __m512) {
        unsafe {
            let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            (_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, second, b))
        }
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
            let zero = self.zero();
            // Blocks of four rows: lane 4L + k of `quad[b][j]` is row 4b + k, column 4L + j.
            let mut quad = [[zero; 4]; 4];
            for (b, q) in quad.iter_mut().enumerate() {
                *q = self.transpose4([
                    self.load_row(source, stride, 4 * b, rows, columns),
                    self.load_row(source, stride, 4 * b + 1, rows, columns),
                    self.load_row(source, stride, 4 * b + 2, rows, columns),
                    self.load_row(source, stride, 4 * b + 3, rows, columns),
                ]);
            }
            let mut out = [zero; 16];
            for j in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(quad[0][j], quad[1][j]);
                let odd = _mm512_shuffle_f32x4::<0xdd>(quad[0][j], quad[1][j]);
                let even2 = _mm512_shuffle_f32x4::<0x88>(quad[2][j], quad[3][j]);
                let odd2 = _mm512_shuffle_f32x4::<0xdd>(quad[2][j], quad[3][j]);
                out[j] = _mm512_shuffle_f32x4::<0x88>(even, even2);
                out[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
                out[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
                out[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
            }
            for (j, v) in out.into_iter().enumerate() {
                if j < columns {
                    self.store(target.add(j * target_stride), v);
                }
            }
        }
    }
}
