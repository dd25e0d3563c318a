//! Hand-computed tables, and the laws that make shards and resumed runs exact.

use fireproof_metrics::{Calibration, ClassCounts, Confusion, MetricError, VOID, bootstrap};
use proptest::prelude::*;

/// Labels down, predictions across:
/// `0 → 0 0 0 1`, `1 → 1 1 2`, `2 → 0`, class 3 nowhere, one void.
fn example() -> (Vec<u8>, Vec<u8>) {
    (vec![0, 0, 0, 0, 1, 1, 1, 2, VOID], vec![0, 0, 0, 1, 1, 1, 2, 0, 3])
}

#[test]
fn scores_equal_the_table_worked_out_by_hand() {
    let (labels, predictions) = example();
    let counts = ClassCounts::count(4, &labels, &predictions).unwrap();
    assert_eq!(counts.intersections(), [3, 2, 0, 0]);
    assert_eq!(counts.labels(), [4, 3, 1, 0]);
    assert_eq!(counts.predictions(), [4, 3, 1, 0]);
    assert_eq!(counts.iou(), [Some(3.0 / 5.0), Some(2.0 / 4.0), Some(0.0), None]);
    assert!((counts.miou().unwrap() - 1.1 / 3.0).abs() < 1e-15);
    assert!((counts.mean_accuracy().unwrap() - (3.0 / 4.0 + 2.0 / 3.0) / 3.0).abs() < 1e-15);
    assert_eq!(counts.pixel_accuracy(), Some(5.0 / 8.0));
    assert_eq!(counts.mis_ratio(), Some(3.0 / 8.0));
}

#[test]
fn a_class_that_is_only_predicted_counts_as_zero_and_one_that_is_nowhere_does_not_count() {
    let counts = ClassCounts::count(3, &[0u8, 0], &[0u8, 1]).unwrap();
    assert_eq!(counts.iou(), [Some(0.5), Some(0.0), None]);
    assert_eq!(counts.miou(), Some(0.25));
    assert_eq!(counts.class_accuracy(), [Some(0.5), None, None]);
    assert_eq!(counts.mean_accuracy(), Some(0.5));
}

#[test]
fn a_prediction_outside_the_classes_is_wrong_and_never_a_panic() {
    let table = Confusion::count(2, &[0u8, 0, 1, 1], &[0i64, 2, -1, 1000]).unwrap();
    assert_eq!((table.other(0), table.other(1)), (1, 2));
    let counts = table.class_counts();
    assert_eq!(counts.predictions(), [1, 0]);
    assert_eq!(counts.iou(), [Some(0.5), Some(0.0)]);
    assert_eq!(counts.pixel_accuracy(), Some(0.25));
}

#[test]
fn nothing_but_void_has_no_score() {
    let counts = ClassCounts::count(2, &[VOID; 3], &[0u8, 1, 0]).unwrap();
    assert_eq!((counts.valid(), counts.miou(), counts.pixel_accuracy(), counts.mis_ratio()), (0, None, None, None));
    assert_eq!(counts.mean_accuracy(), None);
}

#[test]
fn wrong_input_is_named_and_changes_nothing() {
    let mut table = Confusion::new(3).unwrap();
    let error = table.add(&[0u8, 1, 3], &[0u8, 0, 0]).unwrap_err();
    assert_eq!(error, MetricError::Label { label: 3, position: 2, classes: 3 });
    assert_eq!(error.to_string(), "label 3 at position 2: expected 0..3 or 255 for void");
    let error = table.add(&[0u8, 1], &[0u8]).unwrap_err();
    assert_eq!(error.to_string(), "predictions: found 1 values, expected 2, one per label");
    assert_eq!(table, Confusion::new(3).unwrap());
    assert!(Confusion::new(0).is_err() && Confusion::new(256).is_err());
    assert!(table.merge(&Confusion::new(2).unwrap()).is_err());
}

#[test]
fn counts_from_a_file_are_checked() {
    let read = |text: &str| serde_json::from_str::<ClassCounts>(text).map_err(|e| e.to_string());
    assert!(read(r#"{"intersections":[1,0],"labels":[1,1],"predictions":[1,1]}"#).is_ok());
    for (text, complaint) in [
        (r#"{"intersections":[2,0],"labels":[1,1],"predictions":[2,0]}"#, "class 0 has 2 correct pixels"),
        (r#"{"intersections":[0,0],"labels":[1,1],"predictions":[2,1]}"#, "3 pixels predicted"),
        (r#"{"intersections":[0],"labels":[1,1],"predictions":[0,1]}"#, "expected as many of each"),
        (r#"{"intersections":[],"labels":[],"predictions":[]}"#, "found 0 classes"),
        (r#"{"intersections":[0,0],"labels":[18446744073709551615,1],"predictions":[0,0]}"#, "64 bits"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn calibration_from_a_file_is_checked() {
    let mut bins = Calibration::new(2);
    bins.add(&[0u8, 0], &[0u8, 1], &[1.0, 0.25]).unwrap();
    let text = serde_json::to_string(&bins).unwrap();
    assert_eq!(serde_json::from_str::<Calibration>(&text).unwrap(), bins);
    for wrong in [
        text.replace("\"correct\":1", "\"correct\":2"),
        text.replace("16777216", "16777217"),
        r#"{"bins":[]}"#.to_owned(),
    ] {
        assert_ne!(wrong, text);
        assert!(serde_json::from_str::<Calibration>(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn calibration_error_equals_the_one_worked_out_by_hand() {
    let mut bins = Calibration::new(2);
    // (0, 0.5]: 0.25 and 0.5, one of two right → gap |0.5 − 0.375|; (0.5, 1]: 0.75, 1, 1, all wrong → gap 0.91666…
    bins.add(&[0u8, 0, 0, 0, 0, VOID], &[0u8, 1, 1, 1, 1, 0], &[0.25, 0.5, 0.75, 1.0, 1.0, 0.9]).unwrap();
    let expected = 2.0 / 5.0 * 0.125 + 3.0 / 5.0 * (2.75 / 3.0);
    assert!((bins.expected_error().unwrap() - expected).abs() < 1e-7);
    assert_eq!(Calibration::new(15).expected_error(), None);
    assert!(bins.add(&[0u8], &[0u8], &[f32::NAN]).unwrap_err().to_string().contains("NaN"));
    assert!(bins.add(&[0u8], &[0u8], &[1.1]).is_err());
}

#[test]
fn bootstrap_is_reproducible_brackets_the_score_and_narrows_with_more_images() {
    let image = |correct: usize| {
        let predictions: Vec<u8> = (0..100).map(|pixel| u8::from(pixel >= correct)).collect();
        ClassCounts::count(1, &[0u8; 100], &predictions).unwrap()
    };
    let images = |count: usize| (0..count).map(|index| image(index * 37 % 101)).collect::<Vec<_>>();
    let width = |count: usize, seed: u64| {
        let images = images(count);
        let interval = bootstrap::interval(&images, ClassCounts::pixel_accuracy, 500, 0.95, seed).unwrap();
        let mut pooled = ClassCounts::new(1).unwrap();
        images.iter().for_each(|image| pooled.merge(image).unwrap());
        let score = pooled.pixel_accuracy().unwrap();
        assert!(interval.low < score && score < interval.high);
        interval.high - interval.low
    };
    assert_eq!(width(50, 1), width(50, 1));
    assert_ne!(width(50, 1), width(50, 2));
    // The standard error falls with the root of the number of images: 16 times as many, a quarter of the width.
    let ratio = width(25, 3) / width(400, 3);
    assert!((3.0..5.5).contains(&ratio), "{ratio}");
    assert_eq!(bootstrap::interval(&[], ClassCounts::miou, 10, 0.95, 0), None);
}

/// Maps of equal length: labels 0..4 or void, predictions 0..6 (two of them outside the classes).
fn maps() -> impl Strategy<Value = Vec<(u8, u8)>> {
    let label = prop_oneof![4 => 0u8..4, 1 => Just(VOID)];
    prop::collection::vec((label, 0u8..6), 0..60)
}

fn count(pixels: &[(u8, u8)]) -> Confusion {
    let (labels, predictions): (Vec<u8>, Vec<u8>) = pixels.iter().copied().unzip();
    Confusion::count(4, &labels, &predictions).unwrap()
}

fn merged(parts: &[&Confusion]) -> Confusion {
    let mut sum = Confusion::new(4).unwrap();
    parts.iter().for_each(|part| sum.merge(part).unwrap());
    sum
}

proptest! {
    #[test]
    fn merging_is_associative_and_equals_counting_all_pixels_at_once(a in maps(), b in maps(), c in maps()) {
        let (x, y, z) = (count(&a), count(&b), count(&c));
        let all = count(&[a, b, c].concat());
        prop_assert_eq!(&merged(&[&merged(&[&x, &y]), &z]), &all);
        prop_assert_eq!(&merged(&[&x, &merged(&[&y, &z])]), &all);
    }

    #[test]
    fn the_order_of_images_never_matters(
        (images, shuffled) in prop::collection::vec(maps(), 1..6)
            .prop_flat_map(|images| (Just(images.clone()), Just(images).prop_shuffle()))
    ) {
        let pool = |images: &[Vec<(u8, u8)>]| {
            let mut pooled = ClassCounts::new(4).unwrap();
            images.iter().for_each(|image| pooled.merge(&count(image).class_counts()).unwrap());
            pooled
        };
        let (one, other) = (pool(&images), pool(&shuffled));
        prop_assert_eq!(one.miou().map(f64::to_bits), other.miou().map(f64::to_bits));
        prop_assert_eq!(one, other);
    }

    #[test]
    fn per_image_counts_pool_to_the_counts_of_the_pooled_table(a in maps(), b in maps()) {
        let mut pooled = count(&a).class_counts();
        pooled.merge(&count(&b).class_counts()).unwrap();
        prop_assert_eq!(&pooled, &count(&[a.clone(), b.clone()].concat()).class_counts());
        let valid = a.iter().chain(&b).filter(|(label, _)| *label != VOID);
        prop_assert_eq!(pooled.valid(), valid.clone().count() as u64);
        prop_assert_eq!(pooled.correct(), valid.filter(|(label, prediction)| label == prediction).count() as u64);
        for iou in pooled.iou().into_iter().flatten() {
            prop_assert!((0.0..=1.0).contains(&iou));
        }
    }

    #[test]
    fn calibration_does_not_depend_on_the_order_of_pixels(
        (pixels, shuffled) in prop::collection::vec((0u8..2, 0u8..2, 0.0f32..=1.0), 0..80)
            .prop_flat_map(|pixels| (Just(pixels.clone()), Just(pixels).prop_shuffle())),
        cut in 0usize..80,
    ) {
        let bins = |pixels: &[(u8, u8, f32)]| {
            let mut bins = Calibration::new(15);
            pixels.iter().for_each(|&(label, prediction, p)| bins.add(&[label], &[prediction], &[p]).unwrap());
            bins
        };
        let cut = cut.min(shuffled.len());
        let mut merged = bins(&shuffled[..cut]);
        merged.merge(&bins(&shuffled[cut..])).unwrap();
        prop_assert_eq!(merged, bins(&pixels));
    }
}
