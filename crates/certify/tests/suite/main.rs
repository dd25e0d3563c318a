//! Radii against a closed form, corrections against their definitions, and what abstains.

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_certify::{Cohen, Correction, SegCertify};
use fireproof_metrics::binomial::{at_least, lower_bound, normal_quantile};
use fireproof_tensor::{Counted, Victim, victim};

fn image(values: &[f32], dims: [usize; 4]) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), &Device::flex())
}

/// A linear classifier of an image of two pixels: class 1 where `3 x − 4 y > 0`. Its distance to the boundary is known.
fn linear() -> impl Victim {
    victim(|x: Tensor<4>| {
        let weights = image(&[3.0, -4.0], [1, 1, 1, 2]);
        let lead = (x * weights).sum_dim(3);
        Tensor::cat(vec![lead.zeros_like(), lead], 1)
    })
}

#[test]
fn the_radius_of_a_linear_classifier_is_its_distance_from_the_boundary() {
    // (3 · 0.5 − 4 · 0.3) / 5 = 0.06 from the boundary: under noise of deviation σ the class has probability Φ(0.06 / σ).
    let (sigma, distance) = (0.05f32, 0.06);
    let x = image(&[0.5, 0.3], [1, 1, 1, 2]);
    let cohen = Cohen { n: 20_000, batch: 500, ..Cohen::new(sigma) };
    let verdict = cohen.certify(&linear(), &x, 3).unwrap().unwrap();
    assert_eq!(verdict.class, 1);
    assert!(verdict.radius < distance, "a certificate never promises more than there is");
    // The bound at n = 20 000 costs about 3 · √(p (1 − p) / n) of the probability.
    assert!(verdict.radius > 0.92 * distance, "{} of {distance}", verdict.radius);
    // Planted: the two-sided radius σ Φ⁻¹ of the point estimate plus the same again, which some codes print.
    assert!(2.0 * verdict.radius > distance);
    assert_eq!(cohen.predict(&linear(), &x, 3).unwrap(), Some(1));
    // On the boundary nothing is certain.
    let boundary = image(&[0.4, 0.3], [1, 1, 1, 2]);
    assert_eq!(cohen.certify(&linear(), &boundary, 3).unwrap(), None);
    assert_eq!(Cohen { n: 200, ..cohen }.predict(&linear(), &boundary, 3).unwrap(), None);
}

/// A pixel is class 1 above one half, else class 0: four linear classifiers side by side.
fn pixels() -> impl Victim {
    victim(|x: Tensor<4>| Tensor::cat(vec![x.zeros_like() + 0.5, x], 1))
}

#[test]
fn each_pixels_radius_stays_below_its_distance_and_comes_near_it() {
    let values = [0.9f32, 0.7, 0.5, 0.1];
    let x = image(&values, [1, 1, 2, 2]);
    let method = SegCertify { n: 4000, n0: 50, batch: 100, ..SegCertify::new(0.2, 0.75) };
    let found = method.certify(&pixels(), &x, 1).unwrap();
    let radii = found.radii();
    for (at, value) in values.iter().enumerate() {
        let distance = f64::from((value - 0.5).abs());
        assert!(radii[at] <= distance, "pixel {at}: {} of {distance}", radii[at]);
        // Up to the most that n copies can tell at this error.
        let most = 0.2 * normal_quantile(lower_bound(4000, 4000, method.alpha / 4.0));
        assert!(radii[at] > 0.85 * distance.min(most) - 0.02, "pixel {at}: {} of {distance}", radii[at]);
    }
    assert_eq!(found.classes(), [Some(1), Some(1), None, Some(0)]);
    assert_eq!(found.abstained(), 0.25);
    assert_eq!(found.radius, f64::from(0.2f32) * normal_quantile(0.75));
}

#[test]
fn certified_pixels_survive_every_perturbation_of_the_radius_that_was_tried() {
    let x = image(&[0.9, 0.7, 0.52, 0.1], [1, 1, 2, 2]);
    let method = SegCertify { n: 1000, ..SegCertify::new(0.2, 0.75) };
    let found = method.certify(&pixels(), &x, 1).unwrap();
    // The worst direction for a pixel is along itself.
    for (at, class) in found.classes().iter().enumerate() {
        let Some(class) = class else { continue };
        let mut moved: Vec<f32> = x.clone().into_data().try_to_vec().unwrap();
        moved[at] += if *class == 1 { -(found.radius as f32) } else { found.radius as f32 } * 0.999;
        let again = method.certify(&pixels(), &image(&moved, [1, 1, 2, 2]), 2).unwrap();
        assert_eq!(again.top[at], *class);
    }
}

#[test]
fn hundred_of_hundred_pass_whatever_the_number_of_pixels_and_the_published_numbers_hold() {
    assert!((at_least(100, 100, 0.75) - 3.2072e-13).abs() < 1e-17);
    let method = SegCertify { n: 100, ..SegCertify::new(0.25, 0.75) };
    assert!((method.radius() - 0.168622).abs() < 1e-6);
    let million =
        SegCertify { correction: Correction::Bonferroni, ..method }.judge(vec![0; 1_000_000], vec![100; 1_000_000]);
    assert_eq!(million.abstained(), 0.0);
    // 90 of 100 convince for one pixel, not for a thousand.
    let one = method.judge(vec![0], vec![90]);
    let thousand = method.judge(vec![0; 1000], vec![90; 1000]);
    assert_eq!((one.abstained(), thousand.abstained()), (0.0, 1.0));
}

#[test]
fn holm_rejects_in_order_until_the_first_that_fails_and_never_less_than_bonferroni() {
    // 0.02 is below 0.05 / 2, but 0.017 before it fails against 0.05 / 3.
    assert_eq!(Correction::Holm.reject(&[0.02, 0.017, 0.001, 0.9], 0.05), [false, false, true, false]);
    assert_eq!(Correction::Holm.reject(&[0.0166, 0.02, 0.001, 0.9], 0.05), [true, true, true, false]);
    let stream = fireproof_tensor::random::Stream::new(&[1]);
    for case in 0..200 {
        let p: Vec<f64> = (0..8).map(|i| f64::from(stream.uniform(case * 8 + i)).powi(4)).collect();
        let (holm, bonferroni) = (Correction::Holm.reject(&p, 0.05), Correction::Bonferroni.reject(&p, 0.05));
        assert!(holm.iter().zip(&bonferroni).all(|(holm, bonferroni)| *holm || !bonferroni));
        // By the definition, from the smallest on.
        let mut sorted = p.clone();
        sorted.sort_by(f64::total_cmp);
        let passing = sorted.iter().enumerate().take_while(|(i, p)| **p <= 0.05 / (8 - i) as f64).count();
        assert_eq!(holm.iter().filter(|rejected| **rejected).count(), passing);
    }
    assert_eq!(Correction::Holm.reject(&[], 0.05), Vec::<bool>::new());
}

#[test]
fn the_family_wise_error_is_kept() {
    // 400 images of 20 pixels whose class has exactly the probability τ: a certificate for any pixel is wrong.
    let method = SegCertify { n: 100, alpha: 0.05, ..SegCertify::new(0.25, 0.75) };
    let stream = fireproof_tensor::random::Stream::new(&[7]);
    let wrong = (0..400u64).filter(|case| {
        let hits =
            |pixel: u64| (0..100).filter(|i| stream.uniform((case * 20 + pixel) * 100 + i) < 0.75).count() as u64;
        let found = method.judge(vec![0; 20], (0..20).map(hits).collect());
        found.abstained() < 1.0
    });
    // Binomial with 400 and at most 0.05: more than 36 has a probability below 0.0002.
    assert!(wrong.count() <= 36);
    // Planted: without a correction most images have a wrong pixel.
    let uncorrected = (0..400u64).filter(|case| {
        let hits =
            |pixel: u64| (0..100).filter(|i| stream.uniform((case * 20 + pixel) * 100 + i) < 0.75).count() as u64;
        (0..20).any(|pixel| at_least(hits(pixel), 100, 0.75) <= 0.05)
    });
    assert!(uncorrected.count() > 150);
}

#[test]
fn batches_change_nothing_and_passes_are_n0_and_n() {
    let x = image(&[0.9, 0.55, 0.5, 0.1], [1, 1, 2, 2]);
    let model = pixels();
    let run = |batch| {
        let counted = Counted::new(&model);
        let found = SegCertify { n: 50, batch, ..SegCertify::new(0.2, 0.75) }.certify(&counted, &x, 4).unwrap();
        assert_eq!((counted.passes().forward, counted.passes().backward), (60, 0));
        (found.top.clone(), found.hits)
    };
    assert_eq!(run(1), run(7));
    assert_eq!(run(7), run(1000));
    let other = SegCertify { n: 50, seed: 1, ..SegCertify::new(0.2, 0.75) }.certify(&model, &x, 4).unwrap();
    assert_ne!(other.hits, run(7).1);
}

#[test]
fn abstained_pixels_count_as_wrong_and_void_ones_not_at_all() {
    let method = SegCertify { n: 100, ..SegCertify::new(0.25, 0.75) };
    let found = method.judge(vec![0, 1, 1, 0], vec![100, 100, 60, 100]);
    let counts = found.counts(&[0, 1, 1, 255], 2).unwrap();
    assert_eq!((counts.correct(), counts.valid()), (2, 3));
    assert_eq!(counts.iou(), [Some(1.0), Some(0.5)]);
    // All of 100 at a quarter of alpha: (alpha / 4)^(1/100) is the bound.
    let most = 0.25 * normal_quantile((0.001f64 / 4.0).powf(0.01));
    assert!((found.median_radius(&[0, 1, 1, 255]).unwrap() - most).abs() < 1e-9);
    assert_eq!(found.median_radius(&[255; 4]), None);
    assert!(found.counts(&[0, 1], 2).is_err());
}

#[test]
fn settings_and_models_that_cannot_be_certified_are_refused_in_words() {
    let x = image(&[0.9, 0.55, 0.5, 0.1], [1, 1, 2, 2]);
    let error = |method: SegCertify| method.certify(&pixels(), &x, 0).unwrap_err().to_string();
    let good = SegCertify::new(0.25, 0.75);
    assert_eq!(error(SegCertify { tau: 0.4, ..good }), "tau: found 0.4, expected at least 0.5 and below 1, e.g. 0.75");
    for (method, word) in [
        (SegCertify { sigma: 0.0, ..good }, "sigma"),
        (SegCertify { alpha: 1.0, ..good }, "alpha"),
        (SegCertify { n: 0, ..good }, "n:"),
        (SegCertify { n0: 0, ..good }, "n0"),
        (SegCertify { batch: 0, ..good }, "batch"),
    ] {
        assert!(error(method).starts_with(word), "{word}");
    }
    let cohen = Cohen { n: 20, ..Cohen::new(0.25) };
    assert!(cohen.certify(&pixels(), &x, 0).unwrap_err().to_string().contains("found 4 labels an image"));
    let broken = victim(|x: Tensor<4>| Tensor::cat(vec![x.clone() * f32::NAN, x], 1));
    assert_eq!(good.certify(&broken, &x, 0).unwrap_err().to_string(), "the logits of draw 0 are not finite");
}

#[test]
fn for_an_image_with_one_label_the_pixel_by_pixel_certificate_is_cohens() {
    // The same copies; a test at tau passes exactly where Clopper and Pearson's bound reaches tau.
    for (case, x) in [[0.5f32, 0.3], [0.5, 0.36], [0.1, 0.3], [0.41, 0.3]].iter().enumerate() {
        let x = image(x, [1, 1, 1, 2]);
        let cohen = Cohen { n: 500, n0: 10, batch: 50, ..Cohen::new(0.05) };
        let verdict = cohen.certify(&linear(), &x, case as u64).unwrap();
        let radius = verdict.map_or(0.0, |verdict| verdict.radius);
        for tau in [0.5, 0.6, 0.75, 0.9, 0.95, 0.99] {
            let method = SegCertify { n: 500, n0: 10, batch: 50, ..SegCertify::new(0.05, tau) };
            let found = method.certify(&linear(), &x, case as u64).unwrap();
            assert_eq!(found.certified[0], verdict.is_some() && method.radius() <= radius, "case {case}, tau {tau}");
            assert!((found.radii()[0] - radius).abs() < 1e-12);
            assert!(verdict.is_none_or(|verdict| verdict.class == found.top[0]));
        }
    }
}
