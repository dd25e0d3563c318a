//! Files from strangers: whatever is in them, loading returns, and takes no more memory than the file could justify.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use fireproof_models::{Overrides, load, save};
use proptest::prelude::*;

use crate::common::{device, golden, lively, small_unet};

/// Remembers the largest request of this thread.
struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Loads the bytes as a file; the largest single allocation must stay near the file's size.
fn load_bytes(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    LARGEST.set(0);
    let _ = load(file.path(), &Overrides::default(), &device());
    let largest = LARGEST.get();
    assert!(largest <= 8 * bytes.len() + (4 << 20), "{largest} bytes asked for at once for a file of {}", bytes.len());
}

fn files() -> [Vec<u8>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    save(&*lively(&small_unet()), &path, &BTreeMap::new()).unwrap();
    [std::fs::read(golden("unet_base4.pth")).unwrap(), std::fs::read(path).unwrap()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048), kind in 0..4usize) {
        let start: &[u8] = [&b""[..], b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"\x40\0\0\0\0\0\0\0{"][kind];
        load_bytes(&[start, &bytes].concat());
    }

    #[test]
    fn cut_and_flipped_files_are_handled_without_a_panic(
        cut in 0.0..1.0f64,
        flips in proptest::collection::vec((0.0..1.0f64, any::<u8>()), 0..12),
        near_start in any::<bool>(),
    ) {
        for mut bytes in files() {
            bytes.truncate((bytes.len() as f64 * (1.0 - cut * cut * cut)) as usize);
            // Headers are at the start of safetensors and at the end of a zip file.
            let length = bytes.len();
            for (at, value) in &flips {
                let offset = (at * (length.min(4096)) as f64) as usize;
                let index = if near_start { offset } else { length.saturating_sub(1 + offset) };
                if let Some(byte) = bytes.get_mut(index) {
                    *byte = *value;
                }
            }
            load_bytes(&bytes);
        }
    }
}
