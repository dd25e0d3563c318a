//! Mixes of images and label maps.

use burn::tensor::{Device, Int, Tensor, TensorData};
use fireproof_datasets::Split;
use fireproof_defenses::{
    stage::{BATCH, Moment, Stage, View, registered},
    stages::mix::{CutMix, FMix, Mixer, Mixup, Overlay, Pairs, ResizeMix, mix},
};
use fireproof_models::{Change, Taps};
use fireproof_tensor::{Batch, Targets, VOID, random::Stream};

use crate::common::{network, scenes};

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data().convert::<f32>().try_to_vec().unwrap()
}

fn labels(tensor: &Tensor<3, Int>) -> Vec<i32> {
    tensor.to_data().convert::<i32>().try_to_vec().unwrap()
}

/// Two images of 2 × 2 pixels, of value 0 and 1, with labels that differ at every pixel.
fn two(labels: &[u8]) -> Batch {
    let pixels = [vec![0.0; 4], vec![1.0; 4]].concat();
    Batch::from_host(pixels, labels, [2, 1, 2, 2], vec![10, 11], &Device::flex()).unwrap()
}

fn pairs(keep: Vec<f32>) -> Pairs {
    Pairs { partners: vec![1, 0], overlays: vec![Overlay { keep, frame: None }; 2] }
}

#[test]
fn a_mask_of_zeros_and_ones_pastes_labels_exactly() {
    let mixed = mix(&two(&[0, 1, 2, VOID, 3, 3, VOID, 4]), &pairs(vec![1.0, 0.0, 0.0, 1.0]), 5);
    assert_eq!(floats(mixed.images.clone()), [0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    assert_eq!(labels(mixed.targets.labels()), [0, 3, 255, 255, 3, 1, 2, 4]);
    assert_eq!(floats(mixed.targets.valid().clone()), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    assert!(mixed.targets.soft().is_none(), "labels stay hard");
    assert_eq!(mixed.ids, [10, 11]);
}

#[test]
fn a_weighted_mean_of_label_maps_keeps_its_mass_and_void_adds_none() {
    let mixed = mix(&two(&[0, 1, 2, VOID, 3, 3, VOID, VOID]), &pairs(vec![0.75; 4]), 5);
    assert_eq!(floats(mixed.images.clone()), [0.25, 0.25, 0.25, 0.25, 0.75, 0.75, 0.75, 0.75]);
    // Sample 0: pixel 0 is 0.75 of class 0 and 0.25 of class 3; pixel 2 has a void partner; pixel 3 is void in both.
    let soft = floats(mixed.targets.soft().unwrap().clone().narrow(0, 0, 1));
    let at = |class: usize, pixel: usize| soft[4 * class + pixel];
    assert_eq!([at(0, 0), at(3, 0), at(2, 2), at(3, 2)], [0.75, 0.25, 0.75, 0.0]);
    let mass: Vec<f32> = (0..4).map(|pixel| (0..5).map(|class| at(class, pixel)).sum()).collect();
    assert_eq!(mass, [1.0, 1.0, 0.75, 0.0]);
    assert_eq!(floats(mixed.targets.valid().clone())[..4], [1.0, 1.0, 1.0, 0.0]);
    assert_eq!(labels(mixed.targets.labels())[..4], [0, 1, 2, 255], "the label is the larger part's");
    // Sample 1 has void pixels where its partner has labels.
    assert_eq!(labels(mixed.targets.labels())[4..], [3, 3, 2, 255]);
}

#[test]
fn one_label_an_image_is_mixed_by_the_share_that_is_really_pasted() {
    let device = Device::flex();
    let targets = Targets::from_labels(&[0, 1], [2, 1, 1], &device).unwrap();
    let images =
        Tensor::<4>::from_data(TensorData::new([vec![0.0f32; 16], vec![1.0; 16]].concat(), [2, 1, 4, 4]), &device);
    let batch = Batch::new(images, targets, vec![0, 1]).unwrap();
    let overlay = CutMix.overlay(0.3, &Stream::new(&[5]), [4, 4]);
    let share = overlay.keep.iter().sum::<f32>() / 16.0;
    let mixed = mix(&batch, &Pairs { partners: vec![1, 0], overlays: vec![overlay; 2] }, 2);
    let soft = floats(mixed.targets.soft().unwrap().clone());
    assert_eq!(soft, [share, 1.0 - share, 1.0 - share, share]);
    let pasted = floats(mixed.images.clone())[..16].iter().sum::<f32>() / 16.0;
    assert!((pasted - (1.0 - share)).abs() < 1e-6);
}

#[test]
fn every_mask_keeps_about_the_share_that_was_drawn() {
    let size = [24, 36];
    for seed in 0..40 {
        let stream = Stream::new(&[seed]);
        let lambda = f64::from(stream.child("lambda").uniform(0));
        let fmix = FMix::default().overlay(lambda, &stream, size);
        assert!((f64::from(fmix.share()) - lambda).abs() <= 0.5 / 864.0 + 1e-6, "the brightest pixels are counted");
        assert!(fmix.keep.iter().all(|&k| k == 0.0 || k == 1.0));
        let cut = CutMix.overlay(lambda, &stream, size);
        assert!(f64::from(cut.share()) >= lambda - 0.06, "cut off at the border, at most rounded up");
        let small = ResizeMix.overlay(lambda, &stream, size);
        let [top, left, h, w] = small.frame.unwrap();
        assert!(top + h <= 24 && left + w <= 36);
        assert!((small.share() - (1.0 - (h * w) as f32 / 864.0)).abs() < 1e-6, "one minus the area");
        assert_eq!(Mixup.overlay(lambda, &stream, size).keep, vec![lambda as f32; 864]);
    }
    // Blobs, not dust: neighbours are of one image far more often than by chance.
    let keep = FMix::default().overlay(0.5, &Stream::new(&[1]), size).keep;
    let equal = (0..864).filter(|i| i % 36 != 35).filter(|&i| keep[i] == keep[i + 1]).count();
    assert!(equal > 24 * 35 * 8 / 10, "{equal}");
}

#[test]
fn a_framed_partner_brings_its_labels_smaller() {
    let device = Device::flex();
    let pixels: Vec<f32> = [vec![0.0; 16], (0..16).map(|i| if i % 4 < 2 { 0.25 } else { 0.75 }).collect()].concat();
    let map: Vec<u8> = [vec![9; 16], (0..16).map(|i| if i % 4 < 2 { 1 } else { 2 }).collect()].concat();
    let batch = Batch::from_host(pixels, &map, [2, 1, 4, 4], vec![0, 1], &device).unwrap();
    let mut keep = vec![1.0; 16];
    for pixel in [5, 6, 9, 10] {
        keep[pixel] = 0.0;
    }
    let overlay = Overlay { keep, frame: Some([1, 1, 2, 2]) };
    let mixed = mix(&batch, &Pairs { partners: vec![1, 0], overlays: vec![overlay; 2] }, 10);
    let found = labels(mixed.targets.labels());
    assert_eq!([found[5], found[6], found[9], found[10], found[0]], [1, 2, 1, 2, 9]);
    let images = floats(mixed.images);
    assert_eq!([images[5], images[6], images[0]], [0.25, 0.75, 0.0]);
}

fn prepare(name: &str, options: serde_json::Value, views: &mut Vec<View>, seed: u64) {
    let entry = registered().into_iter().find(|entry| entry.name == name).unwrap();
    let Stage::Prepare(mut stage) = (entry.build)(options.as_object().unwrap().clone()).unwrap() else { panic!() };
    let network = network(0);
    stage.prepare(views, &Moment::new(&*network, 0, 1, 0, seed)).unwrap();
}

fn batch(n: usize) -> Batch {
    let data = scenes(Split::Train, n);
    fireproof_datasets::batch(&(0..n).map(|i| data.get(i).unwrap()).collect::<Vec<_>>(), &Device::flex()).unwrap()
}

#[test]
fn two_views_are_mixed_by_draws_of_their_own_and_steps_differ() {
    let views = |seed| {
        let mut views = vec![View::new(BATCH, batch(4)), View::new("adversarial", batch(4))];
        prepare("mixup", serde_json::json!({}), &mut views, seed);
        prepare("mixup", serde_json::json!({ "view": "adversarial" }), &mut views, seed);
        views.into_iter().map(|view| floats(view.batch.images)).collect::<Vec<_>>()
    };
    let first = views(1);
    assert!(first[0] != first[1] && first != views(2));
    assert_eq!(first, views(1), "the same step is mixed the same way again");
}

#[test]
fn one_draw_for_the_whole_batch_pastes_the_same_box_everywhere() {
    let mut views = vec![View::new(BATCH, two(&[0, 0, 0, 0, 1, 1, 1, 1]))];
    for seed in 0..20 {
        prepare("cutmix", serde_json::json!({ "per": "batch" }), &mut views, seed);
        let found = floats(views[0].batch.images.clone());
        let (a, b) = found.split_at(4);
        assert!(a.iter().zip(b).all(|(x, y)| x + y == 1.0), "{found:?}");
    }
}

#[test]
fn every_kind_of_random_mix_is_drawn_and_conserves_the_mass_of_labels() {
    let (mut hard, mut soft) = (0, 0);
    for seed in 0..24 {
        let mut views = vec![View::new(BATCH, batch(3))];
        prepare("random-mix", serde_json::json!({}), &mut views, seed);
        let targets = &views[0].batch.targets;
        match targets.soft() {
            None => hard += 1,
            Some(map) => {
                soft += 1;
                let mass = floats(map.clone().sum_dim(1));
                assert!(mass.iter().all(|m| *m <= 1.0 + 1e-5));
            }
        }
    }
    assert!(hard > 8 && soft > 1, "{hard} {soft}: a quarter is mixup");
}

#[test]
fn features_are_mixed_where_manifold_mixup_says() {
    let network = network(3);
    let mut views = vec![View::new(BATCH, batch(4))];
    prepare("manifold-mixup", serde_json::json!({ "sites": ["down.1"] }), &mut views, 3);
    let (site, change) = &views[0].features[0];
    let Change::Mix { partners, keep } = change else { panic!() };
    let images = views[0].batch.images.clone();
    let read = |taps: Taps| {
        let mut taps = taps.record("down.1");
        network.forward(images.clone(), &mut taps);
        floats(taps.recorded("down.1").unwrap().clone())
    };
    let plain = read(Taps::eval());
    let mixed = read(Taps::eval().change(site, change.clone()));
    let size = plain.len() / 4;
    for i in 0..4 {
        for j in 0..size {
            let expected = keep[i] * plain[i * size + j] + (1.0 - keep[i]) * plain[partners[i] * size + j];
            assert!((mixed[i * size + j] - expected).abs() < 1e-5);
        }
    }
    let mass = floats(views[0].batch.targets.soft().unwrap().clone().sum_dim(1));
    assert!(mass.iter().all(|m| *m <= 1.0 + 1e-5));
}
