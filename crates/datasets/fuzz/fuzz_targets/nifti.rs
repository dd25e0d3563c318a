//! NIfTI volumes, plain and gzipped: what is accepted has its voxels, all finite, and a place.
#![no_main]

use fireproof_datasets::read::{Limits, nifti::decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let limits = Limits { pixels: 1 << 18, bytes: 1 << 22 };
    if let Ok(volume) = decode("x".as_ref(), content, &limits) {
        let header = &volume.header;
        assert_eq!(header.channels * header.depth * header.height * header.width, volume.data.len());
        assert!(volume.data.iter().all(|value| value.is_finite()));
        assert!(header.spacing.iter().all(|&step| step > 0.0) && header.affine.concat().iter().all(|v| v.is_finite()));
        let mut letters: Vec<usize> =
            header.orientation().chars().map(|letter| "RLAPSI".find(letter).expect("a direction") / 2).collect();
        letters.sort_unstable();
        assert_eq!(letters, [0, 1, 2]);
    }
});
