use burn::tensor::{Device, Tensor, TensorData};
use fireproof_attacks::AttackConfig;
use fireproof_datasets::{Split, batch};
use fireproof_defenses::{
    stage::{BATCH, Describe, Hook, Moment, Pass, Prepare, Term, View},
    stages::{ClassWeights, CrossEntropy, Ema, InnerMax},
};
use fireproof_models::{Output, Taps};
use fireproof_tensor::{Batch, Targets, VOID};

use crate::common::{bits, network, scenes};

fn images(n: usize) -> Batch {
    let data = scenes(Split::Train, n);
    batch(&(0..n).map(|i| data.get(i).unwrap()).collect::<Vec<_>>(), &Device::flex()).unwrap()
}

fn view(batch: Batch) -> Vec<View> {
    vec![View::new(BATCH, batch)]
}

fn values(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Number of images, from the front, that the stage leaves as they are; all others must have changed.
fn untouched(share: f64, n: usize) -> usize {
    let network = network(0);
    let clean = images(n);
    let mut views = view(clean.clone());
    let attack = AttackConfig { steps: 2, ..AttackConfig::new("segpgd").unwrap() };
    let epsilon = attack.epsilon;
    InnerMax::new(attack, share, None).unwrap().prepare(&mut views, &Moment::new(&*network, 0, 1, 0, 7)).unwrap();
    let difference = values((views[0].batch.images.clone() - clean.images.clone()).abs());
    let largest: Vec<f32> =
        difference.chunks(difference.len() / n).map(|image| image.iter().copied().fold(0.0, f32::max)).collect();
    assert!(largest.iter().all(|&d| d <= epsilon + 1e-6), "{largest:?}");
    let count = largest.iter().take_while(|&&d| d == 0.0).count();
    assert!(largest[count..].iter().all(|&d| d > 0.0), "clean images are at the front: {largest:?}");
    assert_eq!(views[0].batch.ids, clean.ids);
    count
}

#[test]
fn the_second_half_of_a_batch_is_attacked_and_the_first_is_not() {
    assert_eq!(untouched(0.5, 4), 2);
    assert_eq!(untouched(0.5, 3), 1, "rounded up to whole images");
    assert_eq!(untouched(1.0, 2), 0);
}

#[test]
fn crafting_leaves_weights_and_running_statistics_bit_identical() {
    let mut network = network(0);
    network.train_mode();
    // Statistics other than the initial ones, so that evaluation and training mode differ.
    let batch = images(4);
    let mut taps = Taps::train();
    network.forward(batch.images.clone(), &mut taps);
    network.commit(&taps);
    let before = bits(&network.parameters());
    let attack = AttackConfig { steps: 2, ..AttackConfig::new("pgd").unwrap() };
    let mut stage = InnerMax::new(attack, 0.5, None).unwrap();
    let mut views = view(batch);
    let moment = Moment::new(&*network, 0, 1, 0, 7);
    stage.prepare(&mut views, &moment).unwrap();
    assert_eq!(moment.passes().forward, 4, "two steps on two images");
    assert_eq!(bits(&network.parameters()), before);

    // Made in evaluation mode: the same images come out whatever else is in the batch.
    let alone = view(images(4).slice(3..4));
    let mut alone = alone;
    let attack = AttackConfig { steps: 2, ..AttackConfig::new("pgd").unwrap() };
    let moment = Moment::new(&*network, 0, 1, 0, 7);
    InnerMax::new(attack, 1.0, None).unwrap().prepare(&mut alone, &moment).unwrap();
    let together = views[0].batch.slice(3..4).images;
    assert_eq!(values(alone[0].batch.images.clone()), values(together));
}

#[test]
fn adversarial_images_can_be_a_view_beside_the_untouched_batch() {
    let network = network(0);
    let clean = images(4);
    let mut views = view(clean.clone());
    let attack = AttackConfig { steps: 1, ..AttackConfig::new("pgd").unwrap() };
    let mut stage = InnerMax::new(attack, 0.5, Some("adversarial".into())).unwrap();
    stage.prepare(&mut views, &Moment::new(&*network, 0, 1, 0, 7)).unwrap();
    assert_eq!(values(views[0].batch.images.clone()), values(clean.images));
    assert_eq!((views[1].name.as_str(), &views[1].batch.ids[..]), ("adversarial", &clean.ids[2..]));
}

/// Logits of two pixels and three classes, with the probability of class `k` of pixel `i` given.
fn loss(probabilities: [[f32; 3]; 2], labels: [u8; 2], class_weights: ClassWeights, auxiliary: Option<f64>) -> f32 {
    let device = Device::flex();
    let planes: Vec<f32> = (0..3).flat_map(|k| probabilities.map(|pixel| pixel[k].ln())).collect();
    let logits = Tensor::<4>::from_data(TensorData::new(planes, [1, 3, 1, 2]), &device).autodiff();
    let data = Three;
    let mut stage = CrossEntropy::default();
    stage.class_weights = class_weights;
    stage.auxiliary = auxiliary.unwrap_or(0.0);
    let network = network(0);
    stage.begin(&*network, &data).unwrap();
    let batch = Batch::from_host(vec![0.0; 6], &labels, [1, 3, 1, 2], vec![0], &device).unwrap();
    let output = Output { auxiliary: auxiliary.map(|_| logits.clone()), ..logits.into() };
    let passes = [Pass { view: View::new(BATCH, batch), output }];
    let moment = Moment::new(&*network, 0, 1, 0, 7);
    stage.loss(&passes, &moment).unwrap().inner().into_scalar()
}

/// Three classes with 1, 2 and 5 pixels, and two void ones.
struct Three;

impl fireproof_datasets::Dataset for Three {
    fn name(&self) -> &str {
        "three"
    }
    fn split(&self) -> &str {
        "train"
    }
    fn len(&self) -> usize {
        1
    }
    fn classes(&self) -> &[fireproof_datasets::Class] {
        static CLASSES: std::sync::LazyLock<Vec<fireproof_datasets::Class>> = std::sync::LazyLock::new(|| {
            ["a", "b", "c"].map(|name| fireproof_datasets::Class { name: name.into(), color: [0; 3] }).into()
        });
        &CLASSES
    }
    fn channels(&self) -> usize {
        3
    }
    fn sample_name(&self, _: usize) -> String {
        "only".into()
    }
    fn stored_as(&self, _: usize) -> fireproof_datasets::Result<String> {
        Ok("in memory".into())
    }
    fn get(&self, _: usize) -> fireproof_datasets::Result<fireproof_datasets::Sample> {
        let data = vec![0, 1, 1, 2, 2, 2, 2, 2, VOID, VOID];
        Ok(fireproof_datasets::Sample {
            id: 0,
            name: "only".into(),
            image: fireproof_datasets::Image::zeros(3, 2, 5),
            mask: fireproof_datasets::Mask { height: 2, width: 5, data },
            case: None,
        })
    }
}

const PIXELS: [[f32; 3]; 2] = [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]];

fn close(found: f32, expected: f32) {
    assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
}

#[test]
fn cross_entropy_is_the_mean_over_valid_pixels() {
    let [a, b] = [-(0.5f32.ln()), -(0.8f32.ln())];
    close(loss(PIXELS, [0, 1], ClassWeights::Uniform, None), (a + b) / 2.0);
    close(loss(PIXELS, [0, VOID], ClassWeights::Uniform, None), a);
    close(loss(PIXELS, [VOID, VOID], ClassWeights::Uniform, None), 0.0);
    close(loss(PIXELS, [0, 1], ClassWeights::Uniform, Some(0.4)), 1.4 * (a + b) / 2.0);
}

#[test]
fn class_weights_divide_by_the_sum_of_weights_as_pytorch_does() {
    let [a, b] = [-(0.5f32.ln()), -(0.8f32.ln())];
    let given = ClassWeights::Given(vec![3.0, 1.0, 7.0]);
    close(loss(PIXELS, [0, 1], given.clone(), None), (3.0 * a + b) / 4.0);
    close(loss(PIXELS, [VOID, 1], given, None), b);
    // Shares 1/8 and 2/8 of the eight valid pixels of the data.
    let weight = |share: f32| 1.0 / (1.02 + share).ln();
    let (u, v) = (weight(0.125), weight(0.25));
    close(loss(PIXELS, [0, 1], ClassWeights::Frequency, None), (u * a + v * b) / (u + v));
}

#[test]
fn a_wrong_number_of_class_weights_is_refused() {
    let mut stage = CrossEntropy::default();
    stage.class_weights = ClassWeights::Given(vec![1.0; 4]);
    let message = stage.begin(&*network(0), &Three).unwrap_err().to_string();
    assert!(message.contains("4 numbers, expected 3, one a class of three"), "{message}");
}

#[test]
fn soft_targets_and_sample_weights_enter_the_mean() {
    let device = Device::flex();
    let logits = Tensor::<4>::from_data(
        TensorData::new(vec![0.5f32.ln(), 0.8f32.ln(), 0.5f32.ln(), 0.2f32.ln()], [2, 2, 1, 1]),
        &device,
    );
    // Sample 0: p = (0.5, 0.8) unnormalised; softmax gives 5/13, 8/13. Sample 1: 5/7, 2/7.
    let soft = Tensor::<4>::from_data(TensorData::new(vec![0.25f32, 0.75, 1.0, 0.0], [2, 2, 1, 1]), &device);
    let weight = Tensor::<1>::from_floats([1.0, 3.0], &device);
    let targets = Targets::from_labels(&[0, 0], [2, 1, 1], &device).unwrap().with_soft(soft).with_weight(weight);
    let batch = Batch::new(Tensor::zeros([2, 3, 1, 1], &device), targets, vec![0, 1]).unwrap();
    let passes = [Pass { view: View::new(BATCH, batch), output: Output::from(logits.autodiff()) }];
    let network = network(0);
    let moment = Moment::new(&*network, 0, 1, 0, 7);
    let found = CrossEntropy::default().loss(&passes, &moment).unwrap().inner().into_scalar::<f32>();
    let first = -(0.25 * (5.0f32 / 13.0).ln() + 0.75 * (8.0f32 / 13.0).ln());
    let second = -(5.0f32 / 7.0).ln();
    close(found, (first + 3.0 * second) / 4.0);
}

#[test]
fn the_moving_average_follows_its_formula_and_leaves_the_network_alone() {
    let mut live = network(0);
    let data = scenes(Split::Train, 1);
    let mut stage: Ema = serde_json::from_value(serde_json::json!({ "decay": 0.75 })).unwrap();
    stage.begin(&*live, &*data).unwrap();
    let start = live.parameters();
    let moved: Vec<_> = start
        .iter()
        .cloned()
        .map(|mut p| {
            p.values.iter_mut().for_each(|v| *v += 1.0);
            p
        })
        .collect();
    live.set_parameters(&moved).unwrap();
    let before = bits(&live.parameters());
    stage.after_step(&*live).unwrap();
    let average = stage.evaluated(&*live).unwrap().unwrap().parameters();
    for (average, start) in average.iter().zip(&start) {
        for (a, s) in average.values.iter().zip(&start.values) {
            assert!((a - (s + 0.25)).abs() < 1e-6, "{a} {s}");
        }
    }
    assert_eq!(bits(&live.parameters()), before);

    let mut other: Ema = serde_json::from_value(serde_json::json!({ "decay": 0.75 })).unwrap();
    other.begin(&*live, &*data).unwrap();
    other.restore(stage.state().into_iter().collect()).unwrap();
    assert_eq!(bits(&other.evaluated(&*live).unwrap().unwrap().parameters()), bits(&average));
    assert!(other.restore(stage.state().into_iter().skip(1).collect()).is_err());
}
