//! Data that is not part of the repository; a machine without it skips these tests and says so.

use std::path::{Path, PathBuf};

use fireproof_datasets::{CheckReport, Options, Split, check, open};

/// The folder of a data set: under `$FIREPROOF_SHARED`, or `../shared` beside the repository.
fn shared(folder: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = std::env::var_os("FIREPROOF_SHARED").map_or_else(beside, PathBuf::from).join("data").join(folder);
    if !root.is_dir() {
        eprintln!("skipped: no data at {}", root.display());
        return None;
    }
    Some(root)
}

fn report(name: &str, root: &Path, split: Split) -> CheckReport {
    let data = open(name, Some(root), split, Options::default()).unwrap();
    let report = check(data.as_ref());
    assert!(report.problems.is_empty(), "{report}");
    report
}

fn shares(report: &CheckReport) -> Vec<f64> {
    report.classes.iter().map(|class| 100.0 * class.pixels as f64 / report.valid_pixels() as f64).collect()
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected}");
    }
}

#[test]
fn camvid_has_its_counts_and_class_shares() {
    let Some(root) = shared("camvid") else { return };
    let train = report("camvid", &root, Split::Train);
    let expected = [17.54, 24.21, 1.02, 32.96, 4.67, 10.12, 1.22, 1.17, 6.11, 0.67, 0.30];
    assert_eq!(train.samples, 367);
    close(&shares(&train), &expected, 0.0051);
    close(&[100.0 * train.void_share()], &[3.95], 0.0051);
    close(&train.mean, &[0.4119, 0.4251, 0.4327], 6e-5);
    close(&train.std, &[0.3071, 0.3116, 0.3072], 6e-5);
    let val = report("camvid", &root, Split::Val);
    assert_eq!(val.samples, 21);
    close(&shares(&val), &[9.38, 26.48, 0.61, 29.40, 8.85, 16.57, 0.92, 3.13, 1.78, 0.65, 2.24], 0.0051);
    let test = report("camvid", &root, Split::Test);
    assert_eq!((test.samples, test.sizes["480x360"]), (100, 100));
    // Counted once with another PNG reader over these 100 frames.
    close(&shares(&test), &[17.80, 25.32, 1.25, 26.81, 9.69, 11.70, 1.03, 1.24, 4.26, 0.69, 0.20], 0.0051);
    close(&[100.0 * test.void_share()], &[3.9187], 0.0001);
    assert_eq!(report("camvid", &root, Split::Named("small_train".into())).samples, 60);
}

#[test]
fn nuclei_are_one_channel_with_few_foreground_pixels() {
    let Some(root) = shared("nuclei-dsb2018") else { return };
    for (split, samples, foreground) in [(Split::Train, 120, 8.4), (Split::Val, 30, 7.8), (Split::Test, 50, 5.9)] {
        let report = report("nuclei", &root, split);
        assert_eq!((report.samples, report.mean.len(), report.void_pixels), (samples, 1, 0));
        close(&[shares(&report)[1]], &[foreground], 0.051);
    }
    // The unit of noise in docs/results/nuclei.md.
    let train = open("nuclei", Some(&root), Split::Train, Options::default()).unwrap();
    let deviation = |index| {
        let pixels = train.get(index).unwrap().image.data;
        let mean = pixels.iter().map(|&pixel| f64::from(pixel)).sum::<f64>() / pixels.len() as f64;
        (pixels.iter().map(|&pixel| (f64::from(pixel) - mean).powi(2)).sum::<f64>() / pixels.len() as f64).sqrt()
    };
    let mut deviations: Vec<f64> = (0..train.len()).map(deviation).collect();
    deviations.sort_by(f64::total_cmp);
    close(&[(deviations[59] + deviations[60]) / 2.0], &[0.0555], 0.00006);
}

#[test]
fn hippocampus_slices_have_their_counts_and_names() {
    let Some(root) = shared("hippocampus-slices") else { return };
    for (split, samples, foreground) in [(Split::Train, 5749, 4101), (Split::Val, 1402, 992), (Split::Test, 2119, 1530)]
    {
        let data = open("hippocampus-slices", Some(&root), split, Options::default()).unwrap();
        let with_foreground = (0..data.len())
            .filter(|&index| data.get(index).unwrap().mask.data.iter().any(|&label| label == 1 || label == 2))
            .count();
        assert_eq!((data.len(), with_foreground), (samples, foreground));
    }
    let train = open("hippocampus-slices", Some(&root), Split::Train, Options::default()).unwrap();
    assert_eq!(train.sample_name(1), "hippocampus_001 1");
    assert_eq!(train.get(0).unwrap().image.size(), (64, 48));
}

#[test]
fn hippocampus_slices_are_grouped_by_volume_and_have_its_z_score() {
    let Some(root) = shared("hippocampus-slices") else { return };
    for (split, volumes) in [(Split::Train, 160), (Split::Val, 40), (Split::Test, 60)] {
        let data = open("hippocampus-slices", Some(&root), split, Options::default()).unwrap();
        let mut sums = vec![[0.0f64; 3]; volumes];
        for index in 0..data.len() {
            let sample = data.get(index).unwrap();
            let case = sample.case.unwrap();
            assert_eq!(format!("{} {}", case.slice.name, case.slice.z), sample.name);
            for (value, _) in sample.image.data.iter().zip(&sample.mask.data).filter(|(_, label)| **label != 255) {
                let normalised = f64::from((value - case.mean[0]) / case.std[0]);
                let [count, sum, squares] = &mut sums[case.slice.volume as usize];
                (*count, *sum, *squares) = (*count + 1.0, *sum + normalised, *squares + normalised * normalised);
            }
        }
        for [count, sum, squares] in sums {
            assert!(count > 0.0, "every volume has slices");
            close(&[sum / count, squares / count], &[0.0, 1.0], 1e-5);
        }
    }
}
