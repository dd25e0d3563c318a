//! Aligned work memory that a thread keeps between calls, so that kernels neither allocate nor touch fresh pages.

use crate::parallel;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of every buffer in bytes: one cache line, and one AVX-512 vector.
pub const ALIGNMENT: usize = 64;

/// Buffers beyond this many bytes together are freed at once instead of kept by their thread.
pub const KEPT_BYTES: usize = 64 << 20;

/// Numbers that a job zeroes: 2 MB.
const ZEROED: usize = 1 << 19;

/// A buffer of `f32` borrowed from the thread's store; dropping it gives the memory back.
///
/// The numbers are what the last user left behind (zeros at first): initialise before reading.
///
/// ```
/// use fireproof_kernels::scratch::Scratch;
///
/// let mut buffer = Scratch::new(100);
/// buffer.fill(1.0);
/// assert_eq!(buffer.len(), 100);
/// ```
pub struct Scratch {
    /// Taken by `drop` alone.
    memory: Option<Memory>,
    start: *mut f32,
    len: usize,
}

// SAFETY: a `Scratch` owns its memory alone, as a `Vec<f32>` does.
unsafe impl Send for Scratch {}
// SAFETY: shared access only reads.
unsafe impl Sync for Scratch {}

struct Memory {
    start: NonNull<f32>,
    capacity: usize,
}

thread_local! {
    static KEPT: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity * size_of::<f32>(), ALIGNMENT).expect("scratch buffer below isize::MAX bytes")
    }

    fn new(capacity: usize) -> Self {
        let layout = Self::layout(capacity);
        // SAFETY: the capacity is at least one, so the layout is not empty.
        let start = unsafe { alloc(layout) }.cast::<f32>();
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: `capacity` numbers were allocated, which need no value as they may lack one.
        let numbers = unsafe { std::slice::from_raw_parts_mut(start.cast::<MaybeUninit<f32>>().as_ptr(), capacity) };
        // Zeros make the numbers initialised for every later user. All threads write a large buffer and share the faults of
        // its pages.
        parallel::for_each_chunk(numbers, ZEROED, |_, numbers| numbers.fill(MaybeUninit::new(0.0)));
        Memory { start, capacity }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.capacity)) }
    }
}

impl Scratch {
    /// A buffer of `len` numbers, from the memory that this thread has kept where one is large enough.
    pub fn new(len: usize) -> Self {
        let kept = KEPT
            .try_with(|kept| {
                let mut kept = kept.borrow_mut();
                let best = (0..kept.len()).filter(|&i| kept[i].capacity >= len).min_by_key(|&i| kept[i].capacity);
                // A small request must not occupy a huge buffer which the next call then misses.
                best.filter(|&i| kept[i].capacity <= 4 * len.max(4096)).map(|i| kept.swap_remove(i))
            })
            .ok()
            .flatten();
        // Rounding up to whole pages lets slightly different shapes share a buffer.
        let memory = kept.unwrap_or_else(|| Memory::new(len.max(1).next_multiple_of(1024)));
        Scratch { start: memory.start.as_ptr(), memory: Some(memory), len }
    }

    /// A buffer to be held for long, which takes no larger one from those that come and go.
    pub fn lasting(len: usize) -> Self {
        let memory = Memory::new(len.max(1));
        Scratch { start: memory.start.as_ptr(), memory: Some(memory), len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else { return };
        // While the thread ends its store may be gone; then the memory is freed here.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            kept.push(memory);
            // The oldest go first: they are the ones that recent calls did not ask for.
            while kept.iter().map(|m| m.capacity * size_of::<f32>()).sum::<usize>() > KEPT_BYTES {
                kept.remove(0);
            }
        });
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len <= capacity` numbers, all initialised in `Memory::new`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_reused_and_may_be_held_together() {
        let first = Scratch::new(5000);
        let second = Scratch::new(5000);
        assert_ne!(first.as_ptr(), second.as_ptr());
        for buffer in [&first, &second] {
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
        }
        let address = second.as_ptr();
        drop(second);
        assert_eq!(Scratch::new(4900).as_ptr(), address);
        assert!(Scratch::new(0).is_empty());
    }

    #[test]
    fn a_thread_keeps_no_more_than_its_bound() {
        let held: Vec<_> = (0..5).map(|_| Scratch::new(KEPT_BYTES / 16)).collect();
        drop(held);
        let kept = KEPT.with_borrow(|kept| kept.iter().map(|m| m.capacity * size_of::<f32>()).sum::<usize>());
        assert!(kept <= KEPT_BYTES, "{kept}");
    }
}
