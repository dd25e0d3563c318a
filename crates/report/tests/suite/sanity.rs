//! Each check on honest numbers, on planted failures and where it cannot tell.

use fireproof_metrics::ClassCounts;
use fireproof_report::sanity::{self, Kind};
use fireproof_report::{Check, Row, RowKey, Status};

use crate::fixtures::key;

const PASSED: Status = Status::Passed;
const FAILED: Status = Status::Failed;
const NOT_RUN: Status = Status::NotRun;

/// The status, having looked that the check says something.
fn status(check: Check) -> Status {
    assert!(check.detail.ends_with('.') && check.detail.len() > 10, "{check:?}");
    check.status
}

#[test]
fn noise_that_hurts_like_the_attack_is_caught() {
    assert_eq!(status(sanity::noise(0.9, 0.89, 0.2)), PASSED);
    assert_eq!(status(sanity::noise(0.9, 0.91, 0.2)), PASSED);
    // Planted: an attack that steps along random signs, a model that masks its gradients, an attack that helps.
    assert_eq!(status(sanity::noise(0.9, 0.85, 0.86)), FAILED);
    assert_eq!(status(sanity::noise(0.9, 0.89, 0.9)), FAILED);
    assert_eq!(status(sanity::noise(0.9, 0.92, 0.91)), FAILED);
    assert_eq!(status(sanity::noise(f64::NAN, 0.9, 0.2)), FAILED);
    assert_eq!(status(sanity::noise(0.005, 0.0, 0.0)), NOT_RUN);
}

#[test]
fn accuracy_that_stays_or_rises_as_the_radius_grows_is_caught() {
    let e = |k: f64| k / 255.0;
    assert_eq!(status(sanity::radius(&[(e(8.0), 0.4), (e(4.0), 0.7), (e(64.0), 0.0)])), PASSED);
    assert_eq!(status(sanity::radius(&[(f64::from(64.0f32 / 255.0), 0.01)])), PASSED);
    // Planted: masked gradients leave something at 64/255, and a larger ball that helps.
    assert_eq!(status(sanity::radius(&[(e(8.0), 0.5), (e(64.0), 0.3)])), FAILED);
    assert_eq!(status(sanity::radius(&[(e(4.0), 0.3), (e(8.0), 0.4), (e(64.0), 0.0)])), FAILED);
    assert_eq!(status(sanity::radius(&[(e(4.0), 0.3), (e(8.0), f64::NAN), (e(64.0), 0.0)])), FAILED);
    assert_eq!(status(sanity::radius(&[(e(8.0), 0.0)])), NOT_RUN);
    assert_eq!(status(sanity::radius(&[])), NOT_RUN);
}

#[test]
fn more_iterations_that_help_the_defender_are_caught() {
    assert_eq!(status(sanity::iterations(&[(20, 0.4), (3, 0.6), (10, 0.5)])), PASSED);
    assert_eq!(status(sanity::iterations(&[(20, 0.404), (100, 0.402), (300, 0.4)])), PASSED);
    // Chance may give back less than half a point.
    assert_eq!(status(sanity::iterations(&[(10, 0.4), (20, 0.404)])), PASSED);
    // Planted: a step size that overshoots, and an attack that is still falling after 300.
    assert_eq!(status(sanity::iterations(&[(10, 0.4), (20, 0.41)])), FAILED);
    assert_eq!(status(sanity::iterations(&[(100, 0.5), (300, 0.4)])), FAILED);
    assert_eq!(status(sanity::iterations(&[(10, 0.4), (20, f64::NAN)])), FAILED);
    assert_eq!(status(sanity::iterations(&[(10, 0.4)])), NOT_RUN);
    assert_eq!(status(sanity::iterations(&[])), NOT_RUN);
    let detail = sanity::iterations(&[(10, 0.4), (20, 0.3)]).detail;
    assert!(detail.contains("too few to tell convergence"), "{detail}");
}

#[test]
fn convergence_is_judged_per_doubling() {
    // 1.2 points from 50 to 200 are 0.6 for each of two doublings, 0.8 points are 0.4.
    assert_eq!(sanity::iterations(&[(50, 0.412), (200, 0.4)]).status, FAILED);
    assert_eq!(sanity::iterations(&[(50, 0.408), (200, 0.4)]).status, PASSED);
    // The last doubling counts, not what came before.
    assert_eq!(sanity::iterations(&[(10, 0.9), (100, 0.402), (200, 0.4)]).status, PASSED);
}

#[test]
fn a_transfer_attack_that_beats_the_white_box_is_caught() {
    assert_eq!(status(sanity::transfer(0.2, &[("transfer", 0.6), ("square", 0.5)])), PASSED);
    assert_eq!(status(sanity::transfer(0.5, &[("square", 0.499)])), PASSED);
    // Planted: the gradient of a quantised input is zero, so the white box gets nowhere.
    let caught = sanity::transfer(0.9, &[("transfer", 0.6), ("square", 0.7)]);
    assert!(caught.detail.contains("transfer 60.00"), "{}", caught.detail);
    assert_eq!(status(caught), FAILED);
    assert_eq!(status(sanity::transfer(f64::NAN, &[("square", 0.7)])), FAILED);
    assert_eq!(status(sanity::transfer(0.2, &[])), NOT_RUN);
}

#[test]
fn three_losses_with_one_number_are_caught() {
    assert_eq!(status(sanity::different(&[("PGD3", 0.5, 0.3), ("SegPGD3", 0.4, 0.2), ("CosPGD3", 0.3, 0.1)])), PASSED);
    // The same accuracy by chance, but another mIoU.
    assert_eq!(status(sanity::different(&[("PGD3", 0.5, 0.3), ("SegPGD3", 0.5, 0.2), ("CosPGD3", 0.3, 0.1)])), PASSED);
    // Planted: the weight map multiplies a scalar loss, so SegPGD is PGD.
    let caught = sanity::different(&[("PGD3", 0.5, 0.3), ("SegPGD3", 0.5, 0.3), ("CosPGD3", 0.3, 0.1)]);
    assert!(caught.detail.contains("PGD3 and SegPGD3"), "{}", caught.detail);
    assert_eq!(status(caught), FAILED);
    assert_eq!(status(sanity::different(&[("PGD3", 0.0, 0.0), ("SegPGD3", 0.0, 0.0), ("CosPGD3", 0.0, 0.0)])), NOT_RUN);
    assert_eq!(status(sanity::different(&[("PGD3", 0.5, 0.3), ("SegPGD3", 0.5, 0.3)])), NOT_RUN);
}

#[test]
fn a_perturbation_or_a_pixel_outside_is_caught() {
    let e = 8.0 / 255.0;
    assert_eq!(status(sanity::bounds(e, e, [0.0, 1.0], [0.0, 1.0])), PASSED);
    assert_eq!(status(sanity::bounds(e + 9e-7, e, [0.1, 0.9], [0.0, 1.0])), PASSED);
    for (largest, lowest, highest) in
        [(e + 2e-6, 0.0, 1.0), (e, -1e-9, 1.0), (e, 0.0, 1.1), (f64::NAN, 0.0, 1.0), (e, 0.0, f64::NAN)]
    {
        assert_eq!(status(sanity::bounds(largest, e, [lowest, highest], [0.0, 1.0])), FAILED);
    }
}

#[test]
fn an_image_whose_result_depends_on_its_neighbours_is_caught() {
    let count = |correct: usize| {
        let found: Vec<u8> = (0..1000).map(|pixel| u8::from(pixel >= correct)).collect();
        ClassCounts::count(2, &[0u8; 1000], &found).unwrap()
    };
    let (a, b, c) = (count(500), count(700), count(701));
    assert_eq!(status(sanity::batch(&[("a", &a), ("b", &b)], &[("a", &a), ("b", &b)], 0.0)), PASSED);
    // Planted: batch statistics move one pixel of the second image.
    let caught = sanity::batch(&[("a", &a), ("b", &b)], &[("a", &a), ("b", &c)], 0.0);
    assert!(caught.detail.contains("Image b has 70.00") && caught.detail.contains("70.10"), "{}", caught.detail);
    assert_eq!(status(caught), FAILED);
    // Where the device does not promise bits, a stated tolerance covers it, and no more.
    assert_eq!(status(sanity::batch(&[("b", &b)], &[("b", &c)], 0.0011)), PASSED);
    assert_eq!(status(sanity::batch(&[("a", &a)], &[("a", &c)], 0.0011)), FAILED);
    assert_eq!(status(sanity::batch(&[("a", &a)], &[("b", &a)], 0.0)), FAILED);
    assert_eq!(status(sanity::batch(&[], &[], 0.0)), NOT_RUN);
    // The same accuracy from other pixels is not the same result.
    let other = ClassCounts::from_parts(vec![500, 0], vec![1000, 0], vec![1000, 0]).unwrap();
    assert_eq!(other.pixel_accuracy(), a.pixel_accuracy());
    assert_eq!(status(sanity::batch(&[("a", &a)], &[("a", &other)], 0.0)), FAILED);
}

#[test]
fn a_gradient_of_zeros_is_caught() {
    assert_eq!(status(sanity::gradients(0, 1000)), PASSED);
    assert_eq!(status(sanity::gradients(100, 1000)), PASSED);
    // Planted: logits scaled until the softmax saturates, or a rounded input.
    assert_eq!(status(sanity::gradients(101, 1000)), FAILED);
    assert_eq!(status(sanity::gradients(1000, 1000)), FAILED);
    assert_eq!(status(sanity::gradients(0, 0)), NOT_RUN);
}

#[test]
fn restarts_that_change_much_are_caught() {
    assert_eq!(status(sanity::restarts(0.3, 0.296, 3)), PASSED);
    assert_eq!(status(sanity::restarts(0.3, 0.28, 3)), FAILED);
    assert_eq!(status(sanity::restarts(0.3, f64::NAN, 3)), FAILED);
    assert_eq!(status(sanity::restarts(0.3, 0.3, 2)), NOT_RUN);
}

#[test]
fn a_model_that_changed_under_attack_is_caught() {
    assert_eq!(status(sanity::untouched("ab12", "ab12")), PASSED);
    assert_eq!(status(sanity::untouched("ab12cd34ef56ab12", "ab12cd34ef56ab13")), FAILED);
}

#[test]
fn the_list_is_complete_in_order_and_the_worse_of_two_counts() {
    let found = [
        sanity::restarts(0.3, 0.3, 3),
        sanity::noise(0.9, 0.89, 0.2),
        sanity::noise(0.9, 0.5, 0.2),
        sanity::gradients(0, 10),
        sanity::gradients(0, 0),
    ];
    let checks = sanity::complete(&found);
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, Kind::ALL.map(Kind::name));
    let of = |kind: Kind| checks.iter().find(|check| check.name == kind.name()).unwrap().status;
    assert_eq!((of(Kind::Noise), of(Kind::Gradients), of(Kind::Restarts)), (FAILED, NOT_RUN, PASSED));
    assert_eq!(sanity::not_passed(&checks).len(), 9);
    assert_eq!(checks[1], Kind::Radius.not_run("Not part of this run."));
}

#[test]
fn the_checks_are_told_as_a_list() {
    let text = sanity::markdown(&[sanity::gradients(10, 10), Kind::Batch.not_run("one | two")]);
    let line =
        "- failed: The gradient is not zero. 100.00 % of the gradient's values are zero; at most 10 % are expected.";
    assert!(text.lines().any(|found| found == line), "{text}");
    assert!(text.contains("- not run: ") && text.contains(". one \\| two"), "{text}");
}

/// A row of two classes with so many of 100 pixels right; the attack sees the gradient unless it is a black box.
fn row(key: &RowKey, correct: u64) -> Row {
    let counts = ClassCounts::from_parts(vec![correct, 0], vec![100, 0], vec![100, 0]).unwrap();
    let gradients = if ["none", "noise", "square"].contains(&key.attack.as_str()) { 0 } else { 10 };
    Row::new(key, 2, &counts, (10, gradients), 0.5)
}

/// An honest run of one model: noise, three attacks at two numbers of steps, a black box, and a large radius.
fn honest(training: &str) -> Vec<Row> {
    let at = |attack: &str, steps: u32, correct: u64| row(&key(training, attack, steps), correct);
    let far = RowKey { epsilon: Some(64.0 / 255.0), ..key(training, "pgd", 10) };
    vec![
        at("none", 0, 90),
        at("noise", 1, 89),
        at("pgd", 3, 60),
        at("pgd", 10, 50),
        at("segpgd", 3, 50),
        at("segpgd", 10, 40),
        at("cospgd", 3, 45),
        at("cospgd", 10, 30),
        at("square", 500, 70),
        row(&far, 0),
    ]
}

fn statuses(rows: &[Row]) -> [Status; 5] {
    let checks = sanity::from_rows(rows);
    assert_eq!(
        checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(),
        Kind::ALL[..5].iter().map(|k| k.name()).collect::<Vec<_>>()
    );
    checks.iter().for_each(|check| assert!(check.detail.ends_with('.'), "{check:?}"));
    [0, 1, 2, 3, 4].map(|index| checks[index].status)
}

#[test]
fn rows_of_an_honest_run_pass_all_checks_that_they_can_tell() {
    assert_eq!(statuses(&honest("standard")), [PASSED; 5]);
    assert_eq!(statuses(&[honest("standard"), honest("pgd3-at")].concat()), [PASSED; 5]);
    assert_eq!(statuses(&[]), [NOT_RUN; 5]);
    assert_eq!(statuses(&honest("standard")[..1]), [NOT_RUN; 5]);
}

#[test]
fn a_failure_planted_in_one_row_fails_its_check_and_no_other() {
    let planted = |index: usize, correct: u64| {
        let mut rows = honest("standard");
        let key =
            RowKey { epsilon: rows[index].epsilon, ..key("standard", &rows[index].attack.clone(), rows[index].steps) };
        rows[index] = row(&key, correct);
        statuses(&rows)
    };
    assert_eq!(planted(1, 40), [FAILED, PASSED, PASSED, PASSED, PASSED], "noise like an attack");
    assert_eq!(planted(9, 20), [PASSED, FAILED, PASSED, PASSED, PASSED], "20 % left at 64/255");
    assert_eq!(planted(3, 62), [PASSED, PASSED, FAILED, PASSED, PASSED], "PGD10 weaker than PGD3");
    assert_eq!(planted(8, 10), [PASSED, PASSED, PASSED, FAILED, PASSED], "the black box beats the white box");
    assert_eq!(planted(4, 60), [PASSED, PASSED, PASSED, PASSED, FAILED], "SegPGD3 is PGD3");
}

#[test]
fn one_model_that_fails_is_named_and_one_that_was_not_looked_at_is_too() {
    let mut rows = [honest("standard"), honest("pgd3-at")].concat();
    rows[11] = row(&key("pgd3-at", "noise", 1), 40);
    let check = &sanity::from_rows(&rows)[0];
    assert!(check.status == FAILED && check.detail.starts_with("unet pgd3-at: Noise takes 50.00"), "{check:?}");
    rows.remove(11);
    let check = &sanity::from_rows(&rows)[0];
    assert_eq!(
        (check.status, check.detail.as_str()),
        (NOT_RUN, "unet pgd3-at: No noise of the attack's radius was run.")
    );
}

fn measured(training: &str, checks: Vec<Check>) -> fireproof_report::Measured {
    let key = key(training, "none", 0);
    fireproof_report::Measured {
        model: key.model,
        training: key.training,
        weights: key.weights,
        device: key.device,
        precision: "f32".into(),
        checks,
    }
}

#[test]
fn what_was_measured_joins_what_the_rows_tell_model_by_model() {
    let rows = [row(&key("standard", "none", 0), 90), row(&key("pgd3-at", "none", 0), 80)];
    let status = |checks: &[Check], kind: Kind| checks.iter().find(|check| check.name == kind.name()).unwrap().status;
    let fine = |training: &str| measured(training, vec![sanity::gradients(0, 100), sanity::noise(0.9, 0.89, 0.2)]);
    let both = sanity::judge(&rows, &[fine("standard"), fine("pgd3-at")]);
    assert_eq!(both.len(), 10);
    assert_eq!((status(&both, Kind::Gradients), status(&both, Kind::Noise)), (PASSED, PASSED));
    assert_eq!(status(&both, Kind::Restarts), NOT_RUN);
    // A model that nobody measured, and one that failed.
    let one = sanity::judge(&rows, &[fine("standard")]);
    assert_eq!(status(&one, Kind::Gradients), NOT_RUN);
    let bad = measured("pgd3-at", vec![sanity::gradients(50, 100)]);
    let failed = sanity::judge(&rows, &[fine("standard"), bad]);
    assert_eq!(status(&failed, Kind::Gradients), FAILED);
    let detail = &failed.iter().find(|check| check.name == Kind::Gradients.name()).unwrap().detail;
    assert!(detail.starts_with("unet pgd3-at: 50.00 %"), "{detail}");
    // A row that fails is not made good by a measurement.
    let noisy = [
        row(&key("standard", "none", 0), 90),
        row(&key("standard", "noise", 1), 40),
        row(&key("standard", "pgd", 3), 30),
    ];
    assert_eq!(status(&sanity::judge(&noisy, &[fine("standard")]), Kind::Noise), FAILED);
}

#[test]
fn a_radius_in_another_norm_is_not_held_to_the_limit_of_the_maximum_norm() {
    let l2 = |epsilon: f64| RowKey { norm: Some("l2".into()), epsilon: Some(epsilon), ..key("standard", "pgd", 10) };
    let rows = [row(&key("standard", "none", 0), 90), row(&l2(128.0 / 255.0), 60)];
    assert_eq!(statuses(&rows)[1], NOT_RUN);
}
