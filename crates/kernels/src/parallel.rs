//! Loops over independent jobs on rayon's current pool.
//!
//! A kernel cuts its work into jobs by its shape alone, each job writes its own part of the output, and sums that cross
//! jobs are added in the order of the jobs: results never depend on how many threads there are.

use rayon::prelude::*;
use std::marker::PhantomData;

/// Calls `job(0)`, …, `job(count - 1)`, in any order and on any thread.
pub fn for_each(count: usize, job: impl Fn(usize) + Sync + Send) {
    if count <= 1 || rayon::current_num_threads() == 1 {
        (0..count).for_each(job);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(job);
    }
}

/// Cuts `data` into chunks of `chunk` numbers (the last may be shorter) and calls `job(index, chunk)` for each.
///
/// # Panics
/// If `chunk` is zero.
pub fn for_each_chunk<T: Send>(data: &mut [T], chunk: usize, job: impl Fn(usize, &mut [T]) + Sync + Send) {
    if data.len() <= chunk || rayon::current_num_threads() == 1 {
        data.chunks_mut(chunk).enumerate().for_each(|(i, c)| job(i, c));
    } else {
        data.par_chunks_mut(chunk).with_max_len(1).enumerate().for_each(|(i, c)| job(i, c));
    }
}

/// Calls `job(index, plane)` for each part of `plane` elements, as [`for_each_chunk`] does, but hands a thread so many
/// neighbouring planes at once that the numbers it touches, `cost` per plane, pay for the hand-over.
///
/// # Panics
/// If `plane` is zero.
pub fn for_each_plane<T: Send>(data: &mut [T], plane: usize, cost: usize, job: impl Fn(usize, &mut [T]) + Sync + Send) {
    let together = (crate::vectorized::CHUNK / cost.max(1)).max(1);
    for_each_chunk(data, plane * together, |first, planes| {
        planes.chunks_mut(plane).enumerate().for_each(|(i, p)| job(first * together + i, p));
    });
}

/// `job(0)`, …, `job(count - 1)`, in order.
pub fn map<T: Send>(count: usize, job: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    if count <= 1 || rayon::current_num_threads() == 1 {
        (0..count).map(job).collect()
    } else {
        (0..count).into_par_iter().with_max_len(1).map(job).collect()
    }
}

/// A mutable slice whose parts are written by several jobs at once, for parts that are not contiguous.
#[derive(Clone, Copy)]
pub struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes only through `pointer`, whose users promise that jobs touch disjoint elements.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Borrows the slice for as long as jobs may write to it.
    pub fn new(slice: &'a mut [T]) -> Self {
        Shared { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// A pointer to the element at `offset`, valid up to the end of the slice. Two jobs must not touch the same element
    /// through it.
    ///
    /// # Panics
    /// If `offset` lies behind the end of the slice.
    pub fn pointer(self, offset: usize) -> *mut T {
        assert!(offset <= self.len, "offset {offset} behind the end of a slice of {} elements", self.len);
        // SAFETY: at most one past the end, as asserted.
        unsafe { self.start.add(offset) }
    }

    /// The `len` elements from `offset`.
    ///
    /// # Safety
    /// Nothing else touches these elements while the result lives.
    ///
    /// # Panics
    /// If they do not lie inside the slice.
    pub unsafe fn slice(self, offset: usize, len: usize) -> &'a mut [T] {
        assert!(len <= self.len - offset.min(self.len), "{len} elements at {offset} of a slice of {}", self.len);
        // SAFETY: inside the slice as asserted, alone by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(offset), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs_once_in_any_pool() {
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                for count in [0, 1, 2, 17] {
                    assert_eq!(map(count, |i| i * i), (0..count).map(|i| i * i).collect::<Vec<_>>());
                    let mut seen = vec![0u32; count];
                    let shared = Shared::new(&mut seen);
                    // SAFETY: job `i` writes element `i` only.
                    for_each(count, |i| unsafe { *shared.pointer(i) += 1 });
                    assert_eq!(seen, vec![1; count]);
                    for_each_chunk(&mut seen, 4, |i, chunk| chunk.fill(i as u32));
                    assert!(seen.iter().enumerate().all(|(i, &s)| s as usize == i / 4));
                    for_each_plane(&mut seen, 3, 20_000, |i, plane| plane.fill(i as u32));
                    for_each_plane(&mut seen, 1, 5, |i, plane| plane[0] += i as u32);
                    assert!(seen.iter().enumerate().all(|(i, &s)| s as usize == i / 3 + i));
                }
            });
        }
    }
}
