//! Overlap and surface scores: against the values of other implementations (`tests/reference/medical.py`), against brute
//! force, and by their laws.

use fireproof_metrics::{
    ByVolume, ClassCounts, EmptyClass, Grid, MetricError, Overlap, Summary, SurfaceDistances, VOID, distance_transform,
};
use proptest::prelude::*;
use serde_json::Value;

fn reference() -> Vec<Value> {
    let text = include_str!("../reference/medical.json");
    serde_json::from_str::<Value>(text).unwrap()["cases"].as_array().unwrap().clone()
}

fn digits(value: &Value) -> Vec<u8> {
    value.as_str().unwrap().bytes().map(|digit| digit - b'0').collect()
}

fn numbers(value: &Value) -> Vec<Option<f64>> {
    let number = |value: &Value| if value == "infinite" { Some(f64::INFINITY) } else { value.as_f64() };
    value.as_array().unwrap().iter().map(number).collect()
}

fn grid(case: &Value) -> Grid {
    let shape: Vec<usize> = case["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
    let spacing: Vec<f64> = numbers(&case["spacing"]).into_iter().flatten().collect();
    match (shape.as_slice(), spacing.as_slice()) {
        (&[h, w], &[y, x]) => Grid::image([h, w], [y, x]).unwrap(),
        (&[d, h, w], &[z, y, x]) => Grid::volume([d, h, w], [z, y, x]).unwrap(),
        _ => panic!("{shape:?}"),
    }
}

/// Equal up to the reference's single precision, in which its percentiles find their place between two distances too.
fn close(what: &str, found: &[Option<f64>], expected: &[Option<f64>]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let equal = match (found, expected) {
            (Some(a), Some(b)) => a == b || (a - b).abs() <= 5e-6 * b.abs().max(1.0),
            (a, b) => a.is_none() && b.is_none(),
        };
        assert!(equal, "{what}: found {found:?}, expected {expected:?}");
    }
}

#[test]
fn dice_and_iou_are_monai_s_with_and_without_empty_classes() {
    for case in reference() {
        let counts = ClassCounts::count(3, &digits(&case["labels"]), &digits(&case["predictions"])).unwrap();
        for (overlap, empty, key) in [
            (Overlap::Dice, EmptyClass::Monai, "dice_ignore_empty"),
            (Overlap::Dice, EmptyClass::MonaiKeepEmpty, "dice_keep_empty"),
            (Overlap::Iou, EmptyClass::Monai, "iou_ignore_empty"),
            (Overlap::Iou, EmptyClass::MonaiKeepEmpty, "iou_keep_empty"),
        ] {
            close(&format!("{}, {key}", case["name"]), &overlap.of(&counts, empty), &numbers(&case[key]));
        }
    }
}

#[test]
fn surface_distances_are_monai_s() {
    for case in reference() {
        let (labels, predictions) = (digits(&case["labels"]), digits(&case["predictions"]));
        let distances: Vec<SurfaceDistances> = (0..3)
            .map(|class| SurfaceDistances::of_class(&grid(&case), class, &labels, &predictions).unwrap())
            .collect();
        let check = |key: &str, score: &dyn Fn(&SurfaceDistances) -> Option<f64>, expected: &[Option<f64>]| {
            let found: Vec<Option<f64>> = distances.iter().map(score).collect();
            close(&format!("{}, {key}", case["name"]), &found, expected);
        };
        let whole = numbers(&case["hausdorff"]);
        check("hausdorff", &|distances| distances.hausdorff(100.0), &whole);
        // Where the distance is infinite, MONAI interpolates between two infinite numbers, which is none.
        let infinite = |(hd95, &whole): (Option<f64>, &Option<f64>)| hd95.or(whole.filter(|mm| mm.is_infinite()));
        let hd95: Vec<Option<f64>> = numbers(&case["hd95"]).into_iter().zip(&whole).map(infinite).collect();
        check("hd95", &SurfaceDistances::hd95, &hd95);
        check("average", &SurfaceDistances::average, &numbers(&case["average"]));
        check("symmetric", &SurfaceDistances::average_symmetric, &numbers(&case["average_symmetric"]));
        for row in case["surface_dice"].as_array().unwrap() {
            let tolerance = row["tolerance"].as_f64().unwrap();
            check("surface dice", &|distances| distances.surface_dice(tolerance), &numbers(&row["values"]));
        }
    }
}

#[test]
fn the_distance_transform_is_scipy_s() {
    for case in reference() {
        let feature: Vec<bool> = digits(&case["labels"]).iter().map(|&label| label == 1).collect();
        let found: Vec<Option<f64>> =
            distance_transform(&grid(&case), &feature).unwrap().into_iter().step_by(7).map(Some).collect();
        close(&case["name"].to_string(), &found, &numbers(&case["distance_to_class_1"]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_distance_transform_equals_brute_force(
        depth in 1usize..6, height in 1usize..9, width in 1usize..9, flat: bool, density in 0.0f64..0.5,
        spacing in prop::array::uniform3(prop::sample::select(vec![0.01f64, 0.62, 1.0, 2.0, 3.6, 1e4])), seed: u64,
    ) {
        let depth = if flat { 1 } else { depth };
        let grid = if flat {
            Grid::image([height, width], [spacing[1], spacing[2]]).unwrap()
        } else {
            Grid::volume([depth, height, width], spacing).unwrap()
        };
        let mut state = seed | 1;
        let feature: Vec<bool> = (0..depth * height * width)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f64 / (1u64 << 24) as f64 <= density
            })
            .collect();
        let place = |index: usize| [index / (height * width), index / width % height, index % width];
        let found = distance_transform(&grid, &feature).unwrap();
        for (index, &found) in found.iter().enumerate() {
            let square = |other: usize| -> f64 {
                let steps = place(index).into_iter().zip(place(other)).map(|(a, b)| a.abs_diff(b) as f64);
                steps.zip(spacing).map(|(steps, mm)| (steps * mm) * (steps * mm)).sum()
            };
            let expected =
                (0..feature.len()).filter(|&other| feature[other]).map(square).fold(f64::INFINITY, f64::min).sqrt();
            prop_assert!(
                found == expected || (found - expected).abs() <= 1e-12 * expected, "{} at {}, not {}", found, index, expected
            );
        }
    }

    #[test]
    fn surface_scores_are_symmetric_and_do_not_see_empty_margins(
        maps in prop::collection::vec((0u8..3, 0u8..3), 6 * 7), margin in 0usize..3, spacing in 0.3f64..3.0,
    ) {
        let (labels, predictions): (Vec<u8>, Vec<u8>) = maps.into_iter().unzip();
        let small = Grid::image([6, 7], [spacing, 1.0]).unwrap();
        let distances = SurfaceDistances::of_class(&small, 1, &labels, &predictions).unwrap();
        let swapped = SurfaceDistances::of_class(&small, 1, &predictions, &labels).unwrap();
        prop_assert_eq!(distances.hd95(), swapped.hd95());
        prop_assert_eq!(distances.surface_dice(1.0), swapped.surface_dice(1.0));
        let (height, width) = (6 + 2 * margin, 7 + 2 * margin);
        let padded = |map: &[u8]| {
            let mut out = vec![0u8; height * width];
            for y in 0..6 {
                out[(y + margin) * width + margin..][..7].copy_from_slice(&map[7 * y..][..7]);
            }
            out
        };
        let large = Grid::image([height, width], [spacing, 1.0]).unwrap();
        let again = SurfaceDistances::of_class(&large, 1, &padded(&labels), &padded(&predictions)).unwrap();
        prop_assert_eq!(distances, again);
    }
}

#[test]
fn every_convention_for_absent_classes_does_what_its_row_says() {
    // Class 1 nowhere, class 2 only predicted, class 3 only labelled.
    let counts = ClassCounts::count(4, &[0u8, 0, 3], &[0u8, 2, 0]).unwrap();
    for (empty, expected) in [
        (EmptyClass::NnUnet, [None, Some(0.0)]),
        (EmptyClass::Monai, [None, None]),
        (EmptyClass::MonaiKeepEmpty, [Some(1.0), Some(0.0)]),
        (EmptyClass::Rog, [Some(1.0), Some(0.0)]),
        (EmptyClass::RogAttack, [Some(0.0), Some(0.0)]),
        (EmptyClass::ImaOnline, [Some(0.0), Some(0.0)]),
    ] {
        for overlap in [Overlap::Dice, Overlap::Iou] {
            let scores = overlap.of(&counts, empty);
            assert_eq!(scores[1..], [expected[0], expected[1], Some(0.0)], "{empty:?}");
        }
        let name = serde_json::to_value(empty).unwrap();
        assert_eq!(serde_json::from_value::<EmptyClass>(name).unwrap(), empty);
    }
    assert_eq!(serde_json::to_value(EmptyClass::ALL).unwrap()[2], "monai-keep-empty");
}

#[test]
fn dice_per_slice_per_volume_and_pooled_differ_as_they_should() {
    // Volume 1: a slice that is right and one with half of its object; volume 2: a slice whose object is missed.
    let slices: [(u64, [u8; 4], [u8; 4]); 3] =
        [(1, [1, 0, 0, 0], [1, 0, 0, 0]), (1, [1, 1, 1, 1], [1, 1, 0, 0]), (2, [1, 1, 0, 0], [0, 0, 0, 0])];
    let mut volumes = ByVolume::default();
    let mut rows = Vec::new();
    for (volume, labels, predictions) in slices {
        let counts = ClassCounts::count(2, &labels, &predictions).unwrap();
        volumes.add(volume, &counts).unwrap();
        rows.push(Overlap::Dice.of(&counts, EmptyClass::NnUnet));
    }
    let per_slice = Summary::of(&rows).unwrap();
    assert_eq!(per_slice.foreground(), Some((1.0 + 4.0 / 6.0 + 0.0) / 3.0));
    let rows = volumes.iter().map(|(_, counts)| Overlap::Dice.of(counts, EmptyClass::NnUnet));
    assert_eq!(Summary::of(rows).unwrap().foreground(), Some((6.0 / 8.0 + 0.0) / 2.0));
    let pooled = volumes.pooled().unwrap().unwrap();
    assert_eq!(Overlap::Dice.of(&pooled, EmptyClass::NnUnet)[1], Some(6.0 / 10.0));
}

#[test]
fn volumes_of_shards_merge_to_those_of_the_whole() {
    let counts = |label: u8| ClassCounts::count(3, &[label, 1], &[1u8, 1]).unwrap();
    let (mut whole, mut left, mut right) = (ByVolume::default(), ByVolume::default(), ByVolume::default());
    for (slice, volume) in [0u64, 0, 1, 2, 2, 2].into_iter().enumerate() {
        whole.add(volume, &counts(slice as u8 % 3)).unwrap();
        if slice % 2 == 0 { &mut left } else { &mut right }.add(volume, &counts(slice as u8 % 3)).unwrap();
    }
    left.merge(&right).unwrap();
    assert_eq!((left.len(), &left), (3, &whole));
    let text = serde_json::to_string(&whole).unwrap();
    assert_eq!(serde_json::from_str::<ByVolume>(&text).unwrap(), whole);
    let error = whole.add(7, &ClassCounts::new(2).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "cannot merge counts of 2 classes into counts of 3");
    assert_eq!(whole.len(), 3);
}

#[test]
fn infinite_distances_are_counted_beside_the_mean() {
    let cases = [[Some(1.0), Some(f64::INFINITY)], [Some(2.0), Some(4.0)], [None, None]];
    let summary = Summary::of(cases).unwrap();
    assert_eq!((&summary.classes[..], &summary.cases[..]), (&[Some(1.5), Some(4.0)][..], &[2, 1][..]));
    assert_eq!((&summary.infinite[..], summary.mean()), (&[0, 1][..], Some(2.75)));
    assert_eq!(Summary::of(Vec::<Vec<Option<f64>>>::new()).unwrap().mean(), None);
    assert!(Summary::of([vec![None], vec![None, None]]).is_err());
}

#[test]
fn void_pixels_belong_to_no_surface() {
    let grid = Grid::image([1, 5], [1.0, 1.0]).unwrap();
    let labels = [1u8, 1, 0, VOID, VOID];
    let near = SurfaceDistances::of_class(&grid, 1, &labels, &[1u8, 1, 0, 1, 1]).unwrap();
    assert_eq!(near.hausdorff(100.0), Some(0.0));
}

#[test]
fn shapes_and_spacings_that_cannot_be_are_refused() {
    let message = |result: Result<Grid, MetricError>| result.unwrap_err().to_string();
    let expected = "shape: found [0, 3], expected positive extents whose product fits into memory";
    assert_eq!(message(Grid::image([0, 3], [1.0; 2])), expected);
    assert!(message(Grid::volume([usize::MAX, 2, 2], [1.0; 3])).starts_with("shape: found ["));
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-200, 1e200] {
        assert!(message(Grid::image([2, 2], [1.0, wrong])).starts_with("spacing: found [1.0, "), "{wrong}");
    }
    let grid = Grid::image([2, 2], [1.0; 2]).unwrap();
    let error = SurfaceDistances::of_class(&grid, 0, &[0u8; 4], &[0u8; 3]).unwrap_err().to_string();
    assert_eq!(error, "predictions: found 3 values, expected 4, one for each pixel or voxel of the grid");
}
