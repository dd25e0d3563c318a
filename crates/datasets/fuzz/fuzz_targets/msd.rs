//! `dataset.json`: what is accepted has modalities and labels, and names volumes once and inside the root.
#![no_main]

use std::{collections::HashSet, path::Path};

use fireproof_datasets::read::msd::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(contents) = parse("x".as_ref(), text) {
        assert!(!contents.modalities.is_empty() && !contents.labels.is_empty());
        let names: HashSet<&String> = contents.training.iter().map(|pair| &pair.name).collect();
        assert_eq!(names.len(), contents.training.len());
        for path in contents.training.iter().flat_map(|pair| [&pair.image, &pair.label]) {
            let path = Path::new(path);
            assert!(path.is_relative() && !path.components().any(|part| part.as_os_str() == ".."));
        }
    }
});
