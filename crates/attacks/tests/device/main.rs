//! Every registered attack on the device that `FIREPROOF_TEST_DEVICE` names, against the CPU.

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_attacks::{AttackConfig, Context, build};
use fireproof_tensor::{
    Batch, Targets, VOID, Victim, device, host,
    ops::{Conv2dOptions, conv2d, relu, resize_bilinear},
    random::Stream,
    victim,
};

const CLASSES: usize = 5;
const DIMS: [usize; 4] = [2, 3, 16, 16];

/// A strided convolution, a pointwise one, and a resize to the images' size, with the same weights on every device.
fn network(device: &Device) -> impl Victim {
    let draw = |name: &str, dims: [usize; 4], scale: f32| {
        let stream = Stream::new(&[11]).child(name);
        let values: Vec<f32> = (0..dims.iter().product::<usize>() as u64).map(|i| scale * stream.normal(i)).collect();
        Tensor::<4>::from_data(TensorData::new(values, dims), device)
    };
    let (first, second) = (draw("first", [8, 3, 3, 3], 0.6), draw("second", [CLASSES, 8, 1, 1], 1.0));
    victim(move |x: Tensor<4>| {
        let halved = Conv2dOptions { stride: 2, padding: 1, ..Conv2dOptions::default() };
        let x = relu(conv2d(x, first.clone(), None, halved));
        resize_bilinear(conv2d(x, second.clone(), None, Conv2dOptions::default()), [DIMS[2], DIMS[3]], false)
    })
}

/// Random images, labelled as the network sees them, a tenth of the pixels void.
fn batch(device: &Device) -> Batch {
    let stream = Stream::new(&[12]);
    let pixels: Vec<f32> = (0..DIMS.iter().product::<usize>() as u64).map(|i| stream.uniform(i)).collect();
    let images = |device: &Device| Tensor::<4>::from_data(TensorData::new(pixels.clone(), DIMS), device);
    let flex = Device::flex();
    let seen: Vec<i32> = network(&flex).logits(images(&flex)).unwrap().argmax(1).try_into_vec_as().unwrap();
    let label = |(i, &class): (usize, &i32)| if stream.below(i as u64, 10) == 0 { VOID } else { class as u8 };
    let labels: Vec<u8> = seen.iter().enumerate().map(label).collect();
    let targets = Targets::from_labels(&labels, [DIMS[0], DIMS[2], DIMS[3]], device).unwrap();
    Batch::new(images(device), targets, vec![100, 101]).unwrap()
}

/// Few steps, the same on both devices: a sign that rounding decides moves a pixel, so not every pixel is compared, but how
/// many are equal and how many are fooled.
#[test]
fn every_registered_attack_finds_what_it_finds_on_the_cpu() {
    let Some(device) = device::under_test() else { return };
    let mut wrong = Vec::new();
    for attack in fireproof_attacks::list() {
        let own = AttackConfig::new(attack.name).unwrap();
        let settings = AttackConfig { steps: own.steps.min(4), ..own };
        let run = |device: &Device| {
            let batch = batch(device);
            let found = build(&settings).unwrap().run(&network(device), &batch, &Context::new(3)).unwrap();
            let accuracy = batch.targets.accuracy(&network(device).logits(found.images.clone()).unwrap());
            let images: Vec<f32> = found.images.try_into_vec_as().unwrap();
            (images, accuracy)
        };
        let ((found, accuracy), (expected, on_cpu)) = (run(&device), run(&Device::flex()));
        let outside = found.iter().filter(|pixel| !(0.0..=1.0).contains(*pixel)).count();
        let apart = found.iter().zip(&expected).filter(|(a, b)| (**a - **b).abs() > 1e-3).count();
        let apart = apart as f32 / found.len() as f32;
        let gap = accuracy.iter().zip(&on_cpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if outside > 0 || apart > 0.05 || gap > 0.05 {
            wrong.push(format!("{}: {outside} pixels out of range, {apart} differ, accuracy by {gap}", attack.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Reads of the device by an attack of so many steps, without what waits for the result.
fn reads(name: &str, steps: usize, device: &Device) -> u64 {
    let own = AttackConfig::new(name).unwrap();
    let attack = build(&AttackConfig { steps, ..own }).unwrap();
    let (batch, victim) = (batch(device), network(device));
    let before = host::reads();
    attack.run(&victim, &batch, &Context::new(3)).unwrap();
    host::reads() - before
}

/// Attacks that decide by what an image became after each step, with the most reads that a step has: smallest perturbations, labels
/// alone, places of a patch.
const WAIT: [(&str, u64); 8] =
    [("alma-prox", 5), ("cw", 20), ("dag", 2), ("deepfool", 11), ("dla", 2), ("fmn", 7), ("patch", 3), ("pdpgd", 8)];

#[test]
fn no_step_of_an_attack_waits_for_the_device_but_where_its_method_decides_by_what_it_finds() {
    let Some(device) = device::under_test() else { return };
    for attack in fireproof_attacks::list() {
        let own = AttackConfig::new(attack.name).unwrap();
        if build(&AttackConfig { steps: 8, ..own.clone() }).is_err() {
            let one = reads(attack.name, own.steps, &device);
            assert!(one <= 2, "{}, whose steps are given: {one} reads", attack.name);
            continue;
        }
        // From four steps on SEA has all of its stages.
        let [few, many] = [4, 8].map(|steps| reads(attack.name, steps, &device));
        match WAIT.iter().find(|(name, _)| *name == attack.name) {
            Some((_, most)) => assert!(many - few <= 4 * most, "{}: {few} and {many} reads", attack.name),
            None => assert_eq!(few, many, "{}: reads of 4 and of 8 steps", attack.name),
        }
        let single = !["sea", "sea+"].contains(&attack.name) && WAIT.iter().all(|(name, _)| *name != attack.name);
        assert!(!single || few <= 4, "{}: {few} reads", attack.name);
    }
}
