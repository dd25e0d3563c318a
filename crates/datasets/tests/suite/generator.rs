//! The synthetic scenes.

use fireproof_datasets::{Dataset, VOID, scenes::Scenes};
use sha2::{Digest, Sha256};

fn checksum(height: usize, width: usize) -> String {
    let scenes = Scenes::new(0, "train", 8, height, width).unwrap();
    let mut hash = Sha256::new();
    for index in 0..8 {
        let sample = scenes.get(index).unwrap();
        let bytes: Vec<u8> = sample.image.data.iter().map(|value| (value * 255.0).round() as u8).collect();
        hash.update(bytes);
        hash.update(sample.mask.data);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Shipped weights were trained on these pixels. Who changes them raises `scenes::VERSION` and trains again.
#[test]
fn scenes_are_the_same_bytes_on_every_platform() {
    assert_eq!([checksum(96, 128), checksum(200, 330)], ["37e206164652f7ac", "9f6d665ee52ebca7"]);
}

#[test]
fn pixels_are_eighth_bit_values_and_labels_are_classes_or_void() {
    for (height, width) in [(16, 16), (96, 128), (77, 201), (360, 480)] {
        let scenes = Scenes::new(3, "val", 4, height, width).unwrap();
        for index in 0..4 {
            let sample = scenes.get(index).unwrap();
            assert_eq!((sample.image.size(), sample.mask.size()), ((height, width), (height, width)));
            assert!(sample.image.data.iter().all(|v| (v * 255.0).round() / 255.0 == *v && (0.0..=1.0).contains(v)));
            assert!(sample.mask.data.iter().all(|&label| label == VOID || label < 9));
        }
    }
}

#[test]
fn seeds_splits_and_indices_give_different_scenes() {
    let scene = |seed, split, index| Scenes::new(seed, split, 10, 32, 40).unwrap().get(index).unwrap().image;
    let first = scene(0, "train", 0);
    assert_ne!(first, scene(1, "train", 0));
    assert_ne!(first, scene(0, "val", 0));
    assert_ne!(first, scene(0, "train", 1));
}

#[test]
fn classes_have_very_different_shares_and_all_occur() {
    let scenes = Scenes::new(0, "train", 200, 96, 128).unwrap();
    let mut pixels = [0u64; 256];
    for index in 0..200 {
        scenes.get(index).unwrap().mask.data.iter().for_each(|&label| pixels[usize::from(label)] += 1);
    }
    let all = (200 * 96 * 128) as f64;
    let share: Vec<f64> = (0..9).map(|class| pixels[class] as f64 / all).collect();
    let largest = share.iter().copied().fold(0.0, f64::max);
    let smallest = share.iter().copied().fold(1.0, f64::min);
    assert!(largest > 0.25 && smallest > 0.004 && largest / smallest > 10.0, "{share:?}");
    let void = pixels[255] as f64 / all;
    assert!((0.02..0.1).contains(&void), "void {void}");
}
