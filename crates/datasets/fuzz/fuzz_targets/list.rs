//! Lists of names: what is accepted is relative, never upwards, and holds no name twice.
#![no_main]

use std::{collections::HashSet, path::Path};

use fireproof_datasets::read::list::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(names) = parse("x".as_ref(), text) {
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        for name in &names {
            let path = Path::new(name);
            assert!(path.is_relative() && !path.components().any(|part| part.as_os_str() == ".."));
        }
    }
});
