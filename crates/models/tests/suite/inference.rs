//! Victims that look more than once: logits against sums made by hand, gradients against one autodiff graph of everything and
//! against finite differences.

use burn::tensor::{Tensor, TensorData};
use fireproof_models::inference::{
    Ensemble, MultiScale, Preprocessed, Preprocessor, SlidingWindow, Smoothed, Through, Views, Weights,
};
use fireproof_models::{Architecture, build};
use fireproof_tensor::{Counted, Passes, Result, Victim, random::Stream, victim};

use crate::common::{device, host};

fn tensor(seed: u64, dims: [usize; 4]) -> Tensor<4> {
    let stream = Stream::new(&[seed]);
    let values = (0..dims.iter().product::<usize>() as u64).map(|i| stream.uniform(i)).collect::<Vec<f32>>();
    Tensor::from_data(TensorData::new(values, dims), &device())
}

fn network(seed: u64) -> Box<dyn Victim + Send + Sync> {
    let mut architecture = Architecture::new("unet", &["a", "b", "c"]).unwrap();
    architecture.options.insert("base".into(), 4);
    architecture.options.insert("levels".into(), 2);
    build(&architecture, seed, &device()).unwrap().victim()
}

/// The same victim without its own gradient: what autodiff makes of one graph of everything.
struct Whole<'a>(&'a dyn Victim);

impl Victim for Whole<'_> {
    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        self.0.logits(images)
    }
}

fn relative(found: &[f32], expected: &[f32]) -> f32 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
    square(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / square(&mut expected.iter().copied()).max(1e-12)
}

/// Logits and gradient for a cotangent that depends on the logits, as every attack's does.
fn at(model: &dyn Victim, images: &Tensor<4>) -> (Vec<f32>, Vec<f32>) {
    let (logits, gradient) = model.pull_back(images.clone(), &mut |z| Ok(z.clone() * z)).unwrap();
    (host(logits), host(gradient))
}

fn agrees_with_one_graph(model: &dyn Victim, images: &Tensor<4>) {
    let (logits, gradient) = at(model, images);
    let (expected_logits, expected) = at(&Whole(model), images);
    assert!(relative(&logits, &expected_logits) < 1e-5);
    assert!(relative(&gradient, &expected) < 1e-4, "{}", relative(&gradient, &expected));
    assert!(expected.iter().any(|v| *v != 0.0));
}

fn window(weights: Weights) -> SlidingWindow {
    SlidingWindow { window: [16, 24], stride: [12, 16], weights }
}

#[test]
fn every_view_has_the_gradient_of_one_graph_of_everything() {
    let images = tensor(1, [2, 3, 32, 40]);
    agrees_with_one_graph(&window(Weights::Uniform).around(network(0)), &images);
    agrees_with_one_graph(&window(Weights::Gaussian).around(network(0)), &images);
    agrees_with_one_graph(&MultiScale { scales: vec![0.75, 1.0, 1.25], mirrored: true }.around(network(0)), &images);
    agrees_with_one_graph(&Smoothed { sigma: 0.1, draws: 3, seed: 5 }.around(network(0)), &images);
    let blur = Preprocessed { preprocessor: Preprocessor::Blur(1.0), straight_through: false };
    agrees_with_one_graph(&blur.around(network(0)), &images);
    agrees_with_one_graph(&Ensemble::new(vec![network(0), network(1)]).unwrap(), &images);
    // And of each other: windows behind two scales.
    let both =
        MultiScale { scales: vec![1.0, 1.5], mirrored: false }.around(window(Weights::Gaussian).around(network(0)));
    agrees_with_one_graph(&both, &images);
}

#[test]
fn a_gradient_taken_crop_by_crop_without_the_stitched_logits_would_be_caught() {
    // Planted: each window's own logits choose the cotangent, as an attack on every crop for itself would.
    struct PerCrop<V>(Through<SlidingWindow, V>, V, SlidingWindow);
    impl<V: Victim> Victim for PerCrop<V> {
        fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
            self.0.logits(images)
        }
        fn pull_back(
            &self,
            images: Tensor<4>,
            cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
        ) -> Result<(Tensor<4>, Tensor<4>)> {
            let mut sum = images.zeros_like();
            for view in 0..self.2.count([32, 40])? {
                let (_, gradient) = self.1.pull_back(self.2.show(view, images.clone()), cotangent)?;
                sum = sum + self.2.unshow(view, images.clone(), gradient);
            }
            Ok((self.0.logits(images)?, sum))
        }
    }
    let images = tensor(1, [1, 3, 32, 40]);
    let windows = window(Weights::Uniform);
    let planted = PerCrop(windows.around(network(0)), network(0), windows);
    assert!(relative(&at(&planted, &images).1, &at(&Whole(&planted.0), &images).1) > 0.05);
}

#[test]
fn gradients_are_finite_differences() {
    let images = tensor(2, [1, 2, 12, 14]);
    let smooth = || victim(|x: Tensor<4>| Tensor::cat(vec![x.clone() * x.clone(), x.clone().sin() * 2.0, x], 1));
    let models: Vec<Box<dyn Victim>> = vec![
        Box::new(SlidingWindow { window: [6, 8], stride: [4, 5], weights: Weights::Gaussian }.around(smooth())),
        Box::new(MultiScale { scales: vec![0.5, 1.25], mirrored: true }.around(smooth())),
        Box::new(Preprocessed { preprocessor: Preprocessor::Blur(0.8), straight_through: false }.around(smooth())),
        Box::new(Ensemble::new(vec![smooth(), smooth()]).unwrap()),
    ];
    for (which, model) in models.iter().enumerate() {
        let weights = tensor(3, [1, 6, 12, 14]);
        let value = |x: &[f32]| -> f64 {
            let x = Tensor::from_data(TensorData::new(x.to_vec(), [1, 2, 12, 14]), &device());
            host(model.logits(x).unwrap() * weights.clone()).iter().map(|v| f64::from(*v)).sum()
        };
        let (_, gradient) = model.pull_back(images.clone(), &mut |_| Ok(weights.clone())).unwrap();
        let (gradient, pixels) = (host(gradient), host(images.clone()));
        for i in [0, 77, 130, 200, 335] {
            let moved = |by: f32| {
                let mut pixels = pixels.clone();
                pixels[i] += by;
                value(&pixels)
            };
            let difference = (moved(0.01) - moved(-0.01)) / 0.02;
            assert!(
                (difference - f64::from(gradient[i])).abs() < 0.02,
                "model {which} at {i}: {difference}, {}",
                gradient[i]
            );
        }
    }
}

#[test]
fn stitched_logits_are_the_weighted_mean_over_windows_made_by_hand() {
    let images = tensor(4, [1, 3, 32, 40]);
    let model = network(0);
    let stitched = host(window(Weights::Uniform).around(network(0)).logits(images.clone()).unwrap());
    let (mut sum, mut count) = (vec![0.0f64; 3 * 32 * 40], vec![0.0f64; 32 * 40]);
    for top in [0, 12, 16] {
        for left in [0, 16] {
            let crop = images.clone().slice([0..1, 0..3, top..top + 16, left..left + 24]);
            let logits = host(model.logits(crop).unwrap());
            for y in 0..16 {
                for x in 0..24 {
                    count[(top + y) * 40 + left + x] += 1.0;
                    for k in 0..3 {
                        sum[(k * 32 + top + y) * 40 + left + x] += f64::from(logits[(k * 16 + y) * 24 + x]);
                    }
                }
            }
        }
    }
    let by_hand: Vec<f32> = sum.iter().enumerate().map(|(i, sum)| (sum / count[i % (32 * 40)]) as f32).collect();
    assert!(relative(&stitched, &by_hand) < 1e-5);
    // An image that is no larger than a window is the model itself.
    let small = tensor(5, [1, 3, 16, 20]);
    assert_eq!(
        host(window(Weights::Gaussian).around(network(0)).logits(small.clone()).unwrap()),
        host(network(0).logits(small).unwrap())
    );
}

#[test]
fn a_step_is_two_forward_passes_and_a_backward_pass_a_view_and_memory_is_one_window() {
    let model = network(0);
    let counted = Counted::new(&*model);
    struct Widest<'a>(&'a dyn Victim, std::cell::Cell<usize>);
    impl Victim for Widest<'_> {
        fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
            let [n, _, h, w] = images.dims();
            self.1.set(self.1.get().max(n * h * w));
            self.0.logits(images)
        }
    }
    let widest = Widest(&counted, std::cell::Cell::new(0));
    let whole = window(Weights::Uniform).around(&widest as &dyn Victim);
    at(&whole, &tensor(6, [1, 3, 32, 40]));
    // Six windows; the planted stand-in takes its gradient through autodiff, which asks for logits.
    assert_eq!(counted.passes(), Passes { forward: 12, backward: 0 });
    assert_eq!(widest.1.get(), 16 * 24, "no pass saw more than a window");
}

#[test]
fn noise_is_fixed_by_its_seed_and_the_same_for_every_image_of_a_batch() {
    let smoothed = |seed| Smoothed { sigma: 0.2, draws: 2, seed }.around(network(0));
    let (a, b) = (tensor(7, [1, 3, 16, 16]), tensor(8, [1, 3, 16, 16]));
    let together = host(smoothed(1).logits(Tensor::cat(vec![a.clone(), b.clone()], 0)).unwrap());
    let alone = [host(smoothed(1).logits(a.clone()).unwrap()), host(smoothed(1).logits(b).unwrap())].concat();
    assert_eq!(together, alone);
    assert_ne!(host(smoothed(2).logits(a.clone()).unwrap()), alone[..alone.len() / 2]);
    let silent = Smoothed { sigma: 0.0, draws: 1, seed: 1 }.around(network(0));
    assert_eq!(host(silent.logits(a.clone()).unwrap()), host(network(0).logits(a).unwrap()));
}

#[test]
fn rounding_hides_the_gradient_unless_it_passes_straight_through() {
    let images = tensor(9, [1, 3, 16, 16]);
    let bits = |straight_through| {
        Preprocessed { preprocessor: "bits=3".parse().unwrap(), straight_through }.around(network(0))
    };
    assert!(at(&bits(false), &images).1.iter().all(|v| *v == 0.0));
    let (logits, through) = at(&bits(true), &images);
    let rounded = (images * 7.0).round() / 7.0;
    assert_eq!((logits, through), at(&*network(0), &rounded));
}

#[test]
fn an_ensemble_answers_with_the_mean_of_the_probabilities() {
    let images = tensor(10, [1, 3, 16, 16]);
    let soft = |z: Tensor<4>| host(burn::tensor::activation::softmax(z, 1));
    let joined = Ensemble::new(vec![network(0), network(1)]).unwrap().logits(images.clone()).unwrap();
    let (a, b) = (soft(network(0).logits(images.clone()).unwrap()), soft(network(1).logits(images).unwrap()));
    let mean: Vec<f32> = a.iter().zip(&b).map(|(a, b)| (a + b) / 2.0).collect();
    assert!(relative(&soft(joined), &mean) < 1e-5);
    assert!(Ensemble::<Box<dyn Victim>>::new(Vec::new()).is_err());
}

#[test]
fn settings_that_show_nothing_are_refused_in_words() {
    let images = tensor(11, [1, 3, 8, 8]);
    let error = |victim: &dyn Victim| victim.logits(images.clone()).unwrap_err().to_string();
    let gap = SlidingWindow { window: [4, 4], stride: [5, 4], weights: Weights::Uniform };
    assert!(error(&gap.around(network(0))).contains("4 pixels every 5, expected"));
    assert!(
        error(&MultiScale { scales: vec![], mirrored: false }.around(network(0))).contains("expected at least one")
    );
    assert!(error(&MultiScale { scales: vec![-1.0], mirrored: false }.around(network(0))).contains("found -1"));
    assert!(error(&Smoothed { sigma: 0.1, draws: 0, seed: 0 }.around(network(0))).contains("0 draws"));
    for wrong in ["bits=0", "bits=9", "blur=0", "blur", "jpeg=3", "bits=x"] {
        assert!(wrong.parse::<Preprocessor>().is_err(), "{wrong}");
    }
}
