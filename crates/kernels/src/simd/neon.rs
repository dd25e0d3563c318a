//! NEON, which every 64-bit ARM processor has: 4 lanes.

use super::{Kernel, Simd, sealed::Sealed};
use std::arch::aarch64::*;

#[derive(Clone, Copy)]
pub(super) struct Neon(());

pub(super) fn enter<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

impl Neon {
    /// Row `i` of a matrix, zeros behind its columns and where the row does not exist.
    ///
    /// # Safety
    /// As for [`Simd::transpose`].
    #[inline(always)]
    unsafe fn load_row(self, source: *const f32, stride: usize, i: usize, rows: usize, columns: usize) -> float32x4_t {
        // SAFETY: the caller's promise.
        if i < rows { unsafe { self.load_partial(source.add(i * stride), columns) } } else { self.zero() }
    }
}

impl Sealed for Neon {}

// SAFETY of all blocks: NEON is part of the architecture; memory accesses are the caller's promise.
#[allow(unused_unsafe, reason = "register-only intrinsics are safe where their feature is enabled by default")]
impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(source) }
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32, v: float32x4_t) {
        unsafe { vst1q_f32(target, v) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, source: *const f32, count: usize) -> float32x4_t {
        let mut buffer = [0.0f32; 4];
        unsafe {
            buffer[..count].copy_from_slice(std::slice::from_raw_parts(source, count));
            vld1q_f32(buffer.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_partial(self, target: *mut f32, count: usize, v: float32x4_t) {
        let mut buffer = [0.0f32; 4];
        unsafe {
            vst1q_f32(buffer.as_mut_ptr(), v);
            std::slice::from_raw_parts_mut(target, count).copy_from_slice(&buffer[..count]);
        }
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
    }
    #[inline(always)]
    fn transpose4(self, v: [float32x4_t; 4]) -> [float32x4_t; 4] {
        unsafe {
            let low = vreinterpretq_f64_f32(vzip1q_f32(v[0], v[1]));
            let high = vreinterpretq_f64_f32(vzip2q_f32(v[0], v[1]));
            let low2 = vreinterpretq_f64_f32(vzip1q_f32(v[2], v[3]));
            let high2 = vreinterpretq_f64_f32(vzip2q_f32(v[2], v[3]));
            [
                vreinterpretq_f32_f64(vzip1q_f64(low, low2)),
                vreinterpretq_f32_f64(vzip2q_f64(low, low2)),
                vreinterpretq_f32_f64(vzip1q_f64(high, high2)),
                vreinterpretq_f32_f64(vzip2q_f64(high, high2)),
            ]
        }
    }
    #[inline(always)]
    fn unzip4(self, a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
        unsafe { (vuzp1q_f32(a, b), vuzp2q_f32(a, b)) }
    }
    #[inline(always)]
    fn zip4(self, a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
        unsafe { (vzip1q_f32(a, b), vzip2q_f32(a, b)) }
    }
    #[inline(always)]
    fn deinterleave(self, a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
        self.unzip4(a, b)
    }
    #[inline(always)]
    fn interleave(self, a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
        self.zip4(a, b)
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
            let out = self.transpose4([
                self.load_row(source, stride, 0, rows, columns),
                self.load_row(source, stride, 1, rows, columns),
                self.load_row(source, stride, 2, rows, columns),
                self.load_row(source, stride, 3, rows, columns),
            ]);
            for (j, v) in out.into_iter().enumerate() {
                if j < columns {
                    self.store(target.add(j * target_stride), v);
                }
            }
        }
    }
}
