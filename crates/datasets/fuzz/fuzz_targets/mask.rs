//! PNG masks, by index and by colour: what is accepted has a class or void in every pixel.
#![no_main]

use std::collections::HashMap;

use fireproof_datasets::{
    VOID,
    read::{
        Limits,
        mask::{LabelCode, decode, header},
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let limits = Limits { pixels: 1 << 18, bytes: 1 << 22 };
    let index = LabelCode::Index((0..=300).map(|value| (value, if value < 5 { value as u8 } else { VOID })).collect());
    let color = LabelCode::Color(HashMap::from([([0; 3], 0), ([255; 3], 4), ([128, 0, 0], VOID)]));
    for code in [index, color] {
        if let Ok(mask) = decode("x".as_ref(), content, &code, &limits) {
            assert_eq!(mask.data.len(), mask.height * mask.width);
            assert!(mask.data.iter().all(|&label| label < 5 || label == VOID));
            assert_eq!(header("x".as_ref(), content, &limits).unwrap().0, mask.size());
        }
    }
});
