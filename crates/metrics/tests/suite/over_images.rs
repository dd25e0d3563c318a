//! Means over images, intervals and spreads.

use fireproof_metrics::{ClassCounts, Spread, bootstrap, per_image};

fn image(correct: usize, pixels: usize) -> ClassCounts {
    let predictions: Vec<u8> = (0..pixels).map(|pixel| u8::from(pixel >= correct)).collect();
    ClassCounts::count(2, &vec![0u8; pixels], &predictions).unwrap()
}

#[test]
fn the_image_mean_weighs_images_equally_and_the_pooled_score_weighs_pixels() {
    let images = [image(1, 1), image(0, 3)];
    let mut pooled = images[0].clone();
    pooled.merge(&images[1]).unwrap();
    assert_eq!(per_image::mean(&images, ClassCounts::pixel_accuracy), Some(0.5));
    assert_eq!(pooled.pixel_accuracy(), Some(0.25));
    // Image 1 has class 0 only and all of it right; image 2 has IoU 0 for class 0 and for the class predicted instead.
    assert_eq!(per_image::mean(&images, ClassCounts::miou), Some(0.5));
    assert_eq!(pooled.miou(), Some((1.0 / 4.0 + 0.0) / 2.0));
}

#[test]
fn the_ratio_needs_a_clean_score_above_zero() {
    assert_eq!(per_image::ratio(Some(0.25), Some(0.5)), Some(0.5));
    assert_eq!(per_image::ratio(Some(0.0), Some(0.0)), None);
    assert_eq!(per_image::ratio(None, Some(0.5)), None);
}

#[test]
fn the_interval_of_an_image_mean_is_that_of_the_pooled_score_when_images_are_equally_large() {
    let images: Vec<ClassCounts> = (0..30).map(|index| image(index * 7 % 11, 10)).collect();
    let scores: Vec<f64> = images.iter().filter_map(ClassCounts::pixel_accuracy).collect();
    let mean = bootstrap::mean_interval(&scores, 300, 0.95, 5).unwrap();
    let pooled = bootstrap::interval(&images, ClassCounts::pixel_accuracy, 300, 0.95, 5).unwrap();
    assert!((mean.low - pooled.low).abs() < 1e-12 && (mean.high - pooled.high).abs() < 1e-12, "{mean:?} {pooled:?}");
    assert!(mean.low < mean.high);
    assert_eq!(bootstrap::mean_interval(&[], 300, 0.95, 5), None);
}

#[test]
fn the_interval_covers_the_true_mean_about_as_often_as_it_says() {
    // 300 experiments of 60 coin flips with p = 0.5: 95 % of the intervals hold 0.5, give or take 4 standard errors and the
    // percentile bootstrap's known shortfall.
    let covers = |experiment: u64| {
        let mut state = experiment.wrapping_mul(0x2545_F491_4F6C_DD1D) | 1;
        let mut flip = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from((state >> 40) as u8 & 1)
        };
        (0..20).for_each(|_| _ = flip());
        let scores: Vec<f64> = (0..60).map(|_| flip()).collect();
        let interval = bootstrap::mean_interval(&scores, 400, 0.95, experiment).unwrap();
        interval.low <= 0.5 && 0.5 <= interval.high
    };
    let share = (1..=300).filter(|&experiment| covers(experiment)).count() as f64 / 300.0;
    assert!((0.89..=0.99).contains(&share), "{share}");
}

#[test]
fn a_spread_over_one_seed_has_no_deviation() {
    assert_eq!(Spread::of(&[]), None);
    let one = Spread::of(&[0.3]).unwrap();
    assert_eq!((one.runs, one.mean, one.deviation, one.low, one.high), (1, 0.3, None, 0.3, 0.3));
    let equal = Spread::of(&[0.1; 3]).unwrap();
    assert_eq!((equal.mean, equal.deviation), (0.1, Some(0.0)));
}
