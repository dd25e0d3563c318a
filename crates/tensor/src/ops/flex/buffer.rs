//! Memory for results, used again.
//!
//! A network's pass allocates the same few dozen large tensors over and over. Fresh memory costs a page fault every
//! 4 KiB and zeroing on top, which measured a third of an attack step; here a freed buffer serves the next tensor of
//! its size. What is kept is bounded by what was in use at once.

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    sync::{LazyLock, Mutex},
};

use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

/// Smaller buffers are not worth a lock.
const SMALLEST: usize = 1 << 12;
/// Numbers kept for later at the most: 1 GiB of them.
const MOST: usize = 1 << 28;

static FREE: LazyLock<Mutex<Free>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Free {
    buffers: HashMap<usize, Vec<Vec<f32>>>,
    total: usize,
}

/// `f32` memory that goes back to the pool when it is dropped.
pub(super) struct Buffer {
    numbers: Vec<f32>,
}

impl Buffer {
    /// `len` numbers of arbitrary (initialised) value.
    pub(super) fn take(len: usize) -> Self {
        if len >= SMALLEST {
            let mut free = FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Some(numbers) = free.buffers.get_mut(&len).and_then(Vec::pop) {
                free.total -= len;
                return Self { numbers };
            }
        }
        Self { numbers: vec![0.0; len] }
    }

    pub(super) fn numbers_mut(&mut self) -> &mut [f32] {
        &mut self.numbers
    }

    pub(super) fn into_bytes(self) -> Bytes {
        let len = size_of_val(self.numbers.as_slice());
        // SAFETY: the controller owns `len` initialised bytes at a fixed address until it is dropped.
        unsafe { Bytes::from_controller(Box::new(self), len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        let len = numbers.len();
        if len < SMALLEST {
            return;
        }
        let mut free = FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if free.total + len > MOST {
            // Another size of image or batch filled the pool: start over rather than hold what nobody asks for.
            *free = Free::default();
        }
        free.total += len;
        free.buffers.entry(len).or_default().push(numbers);
    }
}

impl AllocationController for Buffer {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _policy: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes = size_of_val(self.numbers.as_slice());
        // SAFETY: the same memory seen as bytes; the caller writes initialised bytes only, and any bytes are a valid f32.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.numbers.as_mut_ptr().cast(), bytes) })
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes = size_of_val(self.numbers.as_slice());
        // SAFETY: the same initialised memory seen as bytes.
        Ok(unsafe { std::slice::from_raw_parts(self.numbers.as_ptr().cast(), bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_buffer_serves_the_next_of_its_size() {
        let len = SMALLEST + 17;
        let mut first = Buffer::take(len);
        first.numbers_mut().fill(3.0);
        let at = first.numbers.as_ptr();
        drop(first.into_bytes());
        let second = Buffer::take(len);
        assert_eq!(second.numbers.as_ptr(), at);
        assert_ne!(Buffer::take(len).numbers.as_ptr(), at, "a buffer in use is not given twice");
    }

    #[test]
    fn bytes_of_a_buffer_are_its_numbers() {
        let mut buffer = Buffer::take(3);
        buffer.numbers_mut().copy_from_slice(&[1.0, 2.0, 3.0]);
        let bytes = buffer.into_bytes();
        assert_eq!(bytemuck_cast(&bytes), [1.0, 2.0, 3.0]);
    }

    fn bytemuck_cast(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect()
    }
}
