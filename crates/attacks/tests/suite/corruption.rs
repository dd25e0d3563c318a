//! Corruptions: as published, the same for the same seed and sample, with labels that follow.

use fireproof_attacks::{
    Adversarial, AttackConfig, Context, build,
    methods::corruption::{KINDS, SEVERITIES},
};
use fireproof_tensor::{Batch, Passes, Targets, VOID, victim};

use crate::support::{Golden, config, device, floats, tensor};

fn settings(kind: &str, severity: usize) -> AttackConfig {
    let options = [("kind", kind.to_string()), ("severity", severity.to_string())];
    AttackConfig { options: options.map(|(n, v)| (n.to_string(), v)).into(), ..config("corruption") }
}

/// Shapes on soft ground, 33 x 42, twice under different ids.
fn batch() -> Batch {
    let image = |i: usize| {
        let (c, y, x) = (i / (33 * 42), i / 42 % 33, i % 42);
        let ground = 0.5 + 0.3 * ((x as f32) / 5.0 + c as f32).sin() * ((y as f32) / 7.0).cos();
        if (5..15).contains(&y) && (8..20).contains(&x) { [0.9, 0.2, 0.3][c] } else { ground }
    };
    let one: Vec<f32> = (0..3 * 33 * 42).map(image).collect();
    let labels: Vec<u8> = (0..33 * 42)
        .map(|i| match (i / 42, i % 42) {
            (0, _) => VOID,
            (5..15, 8..20) => 1,
            _ => 0,
        })
        .collect();
    let targets = Targets::from_labels(&[labels.clone(), labels].concat(), [2, 33, 42], &device()).unwrap();
    Batch::new(tensor([one.clone(), one].concat(), [2, 3, 33, 42]), targets, vec![4, 9]).unwrap()
}

fn run(settings: &AttackConfig, batch: &Batch, seed: u64) -> Adversarial {
    let nobody = victim(|_| unreachable!("a corruption asks no model"));
    build(settings).unwrap().run(&nobody, batch, &Context::new(seed)).unwrap()
}

#[test]
fn kinds_without_chance_are_those_of_the_package() {
    let golden = Golden::reference("corruptions.safetensors");
    let image = golden.tensor::<3>("image").reshape([1, 3, 33, 42]);
    let targets = Targets::from_labels(&[0; 33 * 42], [1, 33, 42], &device()).unwrap();
    let batch = Batch::new(image, targets, vec![0]).unwrap();
    // Theirs are 8-bit images where the package goes through a file or PIL; JPEG's rounding is that of fixed-point arithmetic.
    let tolerance = [
        ("defocus-blur", 1e-4, 1e-3),
        ("zoom-blur", 1e-4, 1e-3),
        ("contrast", 1e-5, 1e-5),
        ("brightness", 1e-5, 1e-5),
        ("pixelate", 0.5 / 255.0, 1.01 / 255.0),
        // A coefficient halfway between two steps may fall on either side.
        ("jpeg", 1.0 / 255.0, 16.0 / 255.0),
    ];
    for (kind, mean, most) in tolerance {
        for severity in [1, 3, 5] {
            let found = floats(&run(&settings(kind, severity), &batch, 0).images);
            let theirs = golden.values(&format!("{kind}_{severity}"));
            let differences: Vec<f32> = found.iter().zip(theirs).map(|(a, b)| (a - b).abs()).collect();
            let average = differences.iter().sum::<f32>() / differences.len() as f32;
            let largest = differences.iter().copied().fold(0.0f32, f32::max);
            println!("{kind} {severity}: values differ by {average:.1e} on average, {largest:.1e} at most");
            assert!(average <= mean && largest <= most, "{kind} {severity}");
        }
    }
}

#[test]
fn every_kind_and_severity_is_a_variant_and_changes_the_image() {
    let batch = batch();
    let clean = floats(&batch.images);
    let all = build(&config("corruption")).unwrap().variants();
    assert_eq!(all.len(), KINDS.len() * SEVERITIES);
    assert_eq!(build(&settings("fog", 3)).unwrap().variants(), [settings("fog", 3)]);
    let mut moved = Vec::new();
    for variant in &all {
        let attack = build(variant).unwrap();
        assert!(!attack.bounded());
        let found = run(variant, &batch, 1);
        assert_eq!((found.passes, found.images.dims()), (Passes::default(), [2, 3, 33, 42]));
        let values = floats(&found.images);
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)), "{variant:?}");
        let by = values.iter().zip(&clean).map(|(a, b)| (a - b).abs()).sum::<f32>() / values.len() as f32;
        assert!(by > 0.002, "{variant:?} moves values by {by}");
        moved.push(by);
        assert_eq!(values, floats(&run(variant, &batch, 1).images), "the same seed gives the same image");
        let alone = floats(&run(variant, &batch.slice(1..2), 1).images);
        assert_eq!(alone, values[values.len() / 2..], "whatever the batch");
    }
    for (kind, moved) in KINDS.iter().zip(moved.chunks(SEVERITIES)) {
        println!("{kind}: moves values by {moved:.3?}");
        assert!(moved[4] > moved[0], "{kind} is worse at 5 than at 1: {moved:?}");
    }
    // Seeds and samples matter where there is chance.
    for kind in [
        "gaussian-noise",
        "shot-noise",
        "impulse-noise",
        "glass-blur",
        "motion-blur",
        "snow",
        "fog",
        "elastic",
        "occlusion",
    ] {
        let found = floats(&run(&settings(kind, 3), &batch, 1).images);
        assert_ne!(found[..found.len() / 2], found[found.len() / 2..], "{kind}: another sample");
        assert_ne!(found, floats(&run(&settings(kind, 3), &batch, 2).images), "{kind}: another seed");
    }
}

#[test]
fn labels_move_with_an_elastic_image_are_void_under_an_occluder_and_stay_otherwise() {
    let batch = batch();
    let labels = |found: &Adversarial| -> Vec<i32> {
        found.targets.as_ref().unwrap().labels().clone().try_into_vec_as().unwrap()
    };
    let own: Vec<i32> = batch.targets.labels().clone().try_into_vec_as().unwrap();
    for kind in KINDS {
        let found = run(&settings(kind, 5), &batch, 3);
        let moved = labels(&found);
        match kind {
            "elastic" => {
                assert_ne!(moved, own);
                assert!(moved.iter().all(|label| own.contains(label)));
            }
            "occlusion" => {
                let hidden = (0..own.len()).filter(|&i| moved[i] != own[i]).collect::<Vec<_>>();
                assert!(hidden.iter().all(|&i| moved[i] == i32::from(VOID)));
                let values = floats(&found.images);
                let grey = |i: usize| (0..3).all(|c| values[i / 1386 * 3 * 1386 + c * 1386 + i % 1386] == 0.5);
                assert!(hidden.iter().all(|&i| grey(i)), "what has no label any more is covered");
                assert!((900..1250).contains(&hidden.len()), "two fifths of two images: {}", hidden.len());
            }
            _ => assert_eq!(moved, own, "{kind}"),
        }
    }
}

#[test]
fn grey_images_other_ranges_and_classification_are_corrupted_too() {
    let pixels = |channels: usize| {
        let values = (0..channels * 400).map(|i| 0.2 + 0.6 * ((i * 37) % 101) as f32 / 101.0).collect();
        tensor(values, [1, channels, 20, 20])
    };
    for channels in [1, 3, 4] {
        for kind in KINDS {
            let targets = Targets::from_labels(&[2], [1, 1, 1], &device()).unwrap();
            let batch = Batch::new(pixels(channels), targets, vec![0]).unwrap();
            let found = run(&settings(kind, 2), &batch, 0);
            assert_eq!(found.images.dims(), [1, channels, 20, 20]);
            let stretched = batch.with_images(batch.images.clone() * 4.0 - 1.0);
            let wide = run(&AttackConfig { range: [-1.0, 3.0], ..settings(kind, 2) }, &stretched, 0);
            let (a, b) = (floats(&found.images), floats(&wide.images));
            assert!(a.iter().zip(&b).all(|(a, b)| (4.0 * a - 1.0 - b).abs() < 0.02), "{kind}: the range is scaled");
        }
    }
}

#[test]
fn unknown_kinds_and_severities_are_refused() {
    let refused = |options: &[(&str, &str)]| {
        let options = options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        build(&AttackConfig { options, ..config("corruption") }).err().expect("must be refused").to_string()
    };
    assert!(refused(&[("kind", "frost")]).contains("kind is 'frost', expected all, or gaussian-noise"));
    assert!(refused(&[("severity", "6")]).contains("severity is '6', expected all, or 1 to 5"));
    assert!(refused(&[("severity", "0")]).contains("severity is '0'"));
}
