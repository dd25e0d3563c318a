//! PNG and JPEG images: what is accepted has its pixels, all in the unit interval.
#![no_main]

use fireproof_datasets::read::{
    Limits,
    image::{Coding, decode, header},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let limits = Limits { pixels: 1 << 18, bytes: 1 << 22 };
    for channels in [1, 3] {
        if let Ok(image) = decode("x".as_ref(), content, Coding { channels, range: None }, &limits) {
            assert_eq!(image.data.len(), channels * image.height * image.width);
            assert!(image.data.iter().all(|value| (0.0..=1.0).contains(value)));
            assert_eq!(header("x".as_ref(), content, &limits).unwrap().0, image.size());
        }
    }
});
