//! Objects, their sizes, and the pixels that each size is charged.

use fireproof_metrics::{ClassCounts, MetricError, ObjectSize, SizeCounts, VOID};
use proptest::prelude::*;

#[test]
fn the_limits_are_a_256th_and_a_32nd_of_the_image() {
    let sizes = [(3, 1024), (4, 1024), (31, 1024), (32, 1024), (1024, 1024), (1, 1)].map(|(area, all)| {
        let size = ObjectSize::of(area, all);
        size.name()
    });
    assert_eq!(sizes, ["small", "medium", "medium", "large", "large", "large"]);
}

/// A map of 16 × 64 with boxes `(class, top, left, height, width)` on class 0.
fn scene(boxes: &[(u8, usize, usize, usize, usize)]) -> Vec<u8> {
    let mut map = vec![0; 16 * 64];
    for &(class, top, left, height, width) in boxes {
        for row in top..top + height {
            map[row * 64 + left..row * 64 + left + width].fill(class);
        }
    }
    map
}

#[test]
fn a_wrong_prediction_counts_for_the_object_that_its_region_covers_most() {
    // A small object (3 pixels of 1024) and a medium one (6); a region of 4 × 5 covers 1 pixel of the small and 2 of the
    // medium object, and 17 others.
    let labels = scene(&[(1, 2, 2, 1, 3), (1, 4, 2, 2, 3)]);
    let predictions = scene(&[(1, 2, 4, 4, 5)]);
    let counts = SizeCounts::count(2, &labels, &predictions, 64).unwrap();
    assert_eq!(counts.objects(), [1, 1, 1]); // and the background, large
    assert_eq!(counts.intersections()[1], [1, 2, 0]);
    // The 17 go to the medium object.
    assert_eq!(counts.unions()[1], [3, 6 + 17, 0]);
    assert_eq!(counts.iou()[1], [Some(1.0 / 3.0), Some(2.0 / 23.0), None]);

    // A region that touches no object goes by its own area: 2 pixels are small.
    let predictions = scene(&[(1, 10, 30, 1, 2)]);
    let counts = SizeCounts::count(2, &labels, &predictions, 64).unwrap();
    assert_eq!(counts.unions()[1], [3 + 2, 6, 0]);
    assert_eq!(counts.intersections()[1], [0, 0, 0]);
}

#[test]
fn losing_small_objects_shows_in_the_small_score_only() {
    let labels = scene(&[(1, 2, 2, 1, 3), (1, 6, 20, 8, 20)]);
    let predictions = scene(&[(1, 6, 20, 8, 20)]);
    let counts = SizeCounts::count(2, &labels, &predictions, 64).unwrap();
    assert_eq!(counts.iou()[1], [Some(0.0), None, Some(1.0)]);
    let [small, medium, large] = counts.miou();
    // The lost pixels are wrong background too, which is large.
    assert_eq!((small, medium), (Some(0.0), None));
    assert!((0.99..1.0).contains(&large.unwrap()));
}

#[test]
fn diagonal_neighbours_are_one_object_and_void_parts_objects() {
    // 2 × 4, so every object is large; only the number of objects matters here.
    let count = |labels: [u8; 8]| SizeCounts::count(2, &labels, &labels, 4).unwrap().objects()[2];
    assert_eq!(count([1, 0, 0, 0, 0, 1, 1, 0]), 2);
    assert_eq!(count([1, VOID, 1, 1, 1, VOID, 1, 1]), 2);
    // The row's end is no neighbour of the next row's begin.
    assert_eq!(count([VOID, VOID, VOID, 1, 1, VOID, VOID, VOID]), 2);
}

#[test]
fn wrong_maps_are_named() {
    let count = |labels: &[u8], width| SizeCounts::count(2, labels, &[0u8; 6], width).unwrap_err();
    assert_eq!(count(&[0; 5], 3).to_string(), "predictions: found 6 values, expected 5, one per label");
    assert_eq!(count(&[0; 6], 4), MetricError::Width { width: 4, pixels: 6 });
    assert_eq!(count(&[0; 6], 0), MetricError::Width { width: 0, pixels: 6 });
    assert_eq!(count(&[0, 0, 0, 0, 7, 0], 3), MetricError::Label { label: 7, position: 4, classes: 2 });
    assert!(SizeCounts::new(0).is_err());
    assert!(SizeCounts::new(2).unwrap().merge(&SizeCounts::new(3).unwrap()).is_err());
    for text in [
        r#"{"objects":[0,0,0],"intersections":[[1,0,0]],"unions":[[0,0,0]]}"#,
        r#"{"objects":[0,0,0],"intersections":[],"unions":[[0,0,0]]}"#,
        r#"{"objects":[0,0,0],"intersections":[],"unions":[]}"#,
    ] {
        assert!(serde_json::from_str::<SizeCounts>(text).is_err(), "{text}");
    }
}

/// Labels 0..3 or void, predictions 0..5 (two outside the classes), 6 × 9.
fn maps() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let label = prop_oneof![6 => 0u8..3, 1 => Just(VOID)];
    (prop::collection::vec(label, 54), prop::collection::vec(0u8..5, 54))
}

proptest! {
    #[test]
    fn the_sizes_add_up_to_the_counts_without_sizes((labels, predictions) in maps()) {
        let sizes = SizeCounts::count(3, &labels, &predictions, 9).unwrap();
        let whole = ClassCounts::count(3, &labels, &predictions).unwrap();
        for class in 0..3 {
            prop_assert_eq!(sizes.intersections()[class].iter().sum::<u64>(), whole.intersections()[class]);
            prop_assert_eq!(sizes.unions()[class].iter().sum::<u64>(), whole.union(class));
        }
        for score in sizes.miou().into_iter().flatten() {
            prop_assert!((0.0..=1.0).contains(&score));
        }
    }

    #[test]
    fn a_perfect_prediction_has_iou_1_in_every_size_that_occurs((labels, _) in maps()) {
        let sizes = SizeCounts::count(3, &labels, &labels, 9).unwrap();
        for score in sizes.iou().into_iter().flatten().flatten() {
            prop_assert_eq!(score, 1.0);
        }
        let occurs = sizes.objects().map(|objects| objects > 0);
        prop_assert_eq!(sizes.miou().map(|score| score.is_some()), occurs);
    }

    #[test]
    fn merging_is_addition_and_survives_the_file(a in maps(), b in maps()) {
        let count = |(labels, predictions): &(Vec<u8>, Vec<u8>)| SizeCounts::count(3, labels, predictions, 9).unwrap();
        let (mut ab, mut ba) = (count(&a), count(&b));
        ab.merge(&count(&b)).unwrap();
        ba.merge(&count(&a)).unwrap();
        prop_assert_eq!(&ab, &ba);
        for class in 0..3 {
            let sum = count(&a).unions()[class].iter().chain(&count(&b).unions()[class]).sum::<u64>();
            prop_assert_eq!(ab.unions()[class].iter().sum::<u64>(), sum);
        }
        let text = serde_json::to_string(&ab).unwrap();
        prop_assert_eq!(serde_json::from_str::<SizeCounts>(&text).unwrap(), ab);
    }
}
