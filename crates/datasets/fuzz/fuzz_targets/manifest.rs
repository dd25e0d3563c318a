//! Manifests: what is accepted has classes and exactly one format.
#![no_main]

use fireproof_datasets::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(manifest) = Manifest::parse("x".as_ref(), text) {
        assert!((1..=255).contains(&manifest.class_list().len()));
        let formats = [manifest.folder.is_some(), manifest.idx.is_some(), manifest.msd.is_some(), manifest.scenes.is_some()];
        assert_eq!(formats.iter().filter(|&&there| there).count(), 1);
    }
});
