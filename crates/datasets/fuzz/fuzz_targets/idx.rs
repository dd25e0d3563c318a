//! idx arrays, plain and gzipped: what is accepted is as long as its header says.
#![no_main]

use fireproof_datasets::read::{Limits, idx::decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let limits = Limits { pixels: 1 << 20, bytes: 1 << 22 };
    if let Ok(array) = decode("x".as_ref(), content, &limits) {
        assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
    }
});
