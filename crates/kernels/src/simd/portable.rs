//! Vectors as plain arrays: for processors without a path of their own, and for tests and sanitizers.

use super::{Kernel, Simd, sealed::Sealed};

const LANES: usize = 8;

#[derive(Clone, Copy)]
pub(super) struct Portable(());

#[derive(Clone, Copy)]
#[repr(align(32))]
pub(super) struct F32x8([f32; LANES]);

pub(super) fn enter<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Portable(()))
}

#[inline(always)]
fn map2(a: F32x8, b: F32x8, f: impl Fn(f32, f32) -> f32) -> F32x8 {
    let mut out = a;
    for i in 0..LANES {
        out.0[i] = f(a.0[i], b.0[i]);
    }
    out
}

#[inline(always)]
fn gather(f: impl Fn(usize) -> f32) -> F32x8 {
    F32x8(std::array::from_fn(f))
}

impl Sealed for Portable {}

impl Simd for Portable {
    type V = F32x8;
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> F32x8 {
        F32x8([x; LANES])
    }
    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> F32x8 {
        // SAFETY: the caller's promise; `[f32; 8]` has the alignment of `f32`.
        F32x8(unsafe { source.cast::<[f32; LANES]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, target: *mut f32, v: F32x8) {
        // SAFETY: as above.
        unsafe { target.cast::<[f32; LANES]>().write(v.0) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, source: *const f32, count: usize) -> F32x8 {
        let mut out = [0.0; LANES];
        // SAFETY: the caller's promise.
        out[..count].copy_from_slice(unsafe { std::slice::from_raw_parts(source, count) });
        F32x8(out)
    }
    #[inline(always)]
    unsafe fn store_partial(self, target: *mut f32, count: usize, v: F32x8) {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(target, count) }.copy_from_slice(&v.0[..count]);
    }
    #[inline(always)]
    fn add(self, a: F32x8, b: F32x8) -> F32x8 {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F32x8, b: F32x8) -> F32x8 {
        map2(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F32x8, b: F32x8) -> F32x8 {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn fma(self, a: F32x8, b: F32x8, c: F32x8) -> F32x8 {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn max(self, a: F32x8, b: F32x8) -> F32x8 {
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: F32x8, b: F32x8) -> F32x8 {
        map2(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn transpose4(self, v: [F32x8; 4]) -> [F32x8; 4] {
        std::array::from_fn(|i| gather(|lane| v[lane % 4].0[lane / 4 * 4 + i]))
    }
    #[inline(always)]
    fn unzip4(self, a: F32x8, b: F32x8) -> (F32x8, F32x8) {
        let pick = |lane: usize, odd: usize| {
            let index = lane / 4 * 4 + lane % 2 * 2 + odd;
            if lane % 4 < 2 { a.0[index] } else { b.0[index] }
        };
        (gather(|lane| pick(lane, 0)), gather(|lane| pick(lane, 1)))
    }
    #[inline(always)]
    fn zip4(self, a: F32x8, b: F32x8) -> (F32x8, F32x8) {
        let pick = |lane: usize, half: usize| {
            let index = lane / 4 * 4 + half + lane % 4 / 2;
            if lane.is_multiple_of(2) { a.0[index] } else { b.0[index] }
        };
        (gather(|lane| pick(lane, 0)), gather(|lane| pick(lane, 2)))
    }
    #[inline(always)]
    fn deinterleave(self, a: F32x8, b: F32x8) -> (F32x8, F32x8) {
        let pick = |index: usize| if index < LANES { a.0[index] } else { b.0[index - LANES] };
        (gather(|lane| pick(2 * lane)), gather(|lane| pick(2 * lane + 1)))
    }
    #[inline(always)]
    fn interleave(self, a: F32x8, b: F32x8) -> (F32x8, F32x8) {
        let pick = |index: usize| if index.is_multiple_of(2) { a.0[index / 2] } else { b.0[index / 2] };
        (gather(pick), gather(|lane| pick(lane + LANES)))
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
        for j in 0..columns {
            for i in 0..LANES {
                // SAFETY: the caller's promise: `i < rows` and `j < columns` in the source, `LANES` in a target row.
                unsafe {
                    let x = if i < rows { *source.add(i * stride + j) } else { 0.0 };
                    *target.add(j * target_stride + i) = x;
                }
            }
        }
    }
}
