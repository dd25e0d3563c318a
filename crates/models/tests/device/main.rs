//! A small network of every architecture on the device that `FIREPROOF_TEST_DEVICE` names, against the CPU.

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_models::{Architecture, Taps, build, definitions};
use fireproof_tensor::{Precision, Victim, device, ops, random::Stream};

/// Each architecture as small as its options allow. One that is new here is built with its defaults.
fn architectures() -> Vec<Architecture> {
    let small = |name: &str| -> &[(&str, usize)] {
        match name {
            "unet" => &[("base", 4), ("levels", 3)],
            "nnunet" => &[("base", 4), ("stages", 3)],
            "espnet" => &[("p", 1), ("q", 2)],
            _ if name.starts_with("pspnet") => &[("hidden", 16)],
            _ => &[],
        }
    };
    let shrunk = |name: &str| {
        let mut architecture = Architecture::new(name, &["a", "b", "c", "d", "e"]).unwrap();
        architecture.options.extend(small(name).iter().map(|(option, value)| ((*option).to_owned(), *value)));
        architecture
    };
    // Those with bottlenecks are made of the same layers, and take long to compile.
    definitions().map(|definition| definition.name).filter(|name| !name.ends_with("50")).map(shrunk).collect()
}

fn images(dims: [usize; 4], device: &Device) -> Tensor<4> {
    let stream = Stream::new(&[7]);
    let values: Vec<f32> = (0..dims.iter().product::<usize>() as u64).map(|i| stream.uniform(i)).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

fn host(x: Tensor<4>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_to_vec().unwrap()
}

/// max|a − b| / max|b|.
fn relative(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().all(|value| value.is_finite()), "not finite");
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    difference / expected.iter().map(|b| b.abs()).fold(1e-6, f32::max)
}

#[test]
fn logits_and_input_gradient_are_those_of_the_cpu() {
    let Some(device) = device::under_test() else { return };
    for architecture in architectures() {
        let run = |device: &Device| {
            let victim = build(&architecture, 1, device).unwrap().victim();
            let (logits, gradient) =
                victim.pull_back(images([2, 3, 24, 17], device), &mut |z| Ok(z.clone() * z)).unwrap();
            [host(logits), host(gradient)]
        };
        let (found, expected) = (run(&device), run(&Device::flex()));
        for (what, (found, expected)) in ["logits", "input gradient"].into_iter().zip(found.iter().zip(&expected)) {
            let error = relative(found, expected);
            assert!(error < 1e-3, "{}: the {what} differ by {error}", architecture.name);
        }
    }
}

#[test]
fn the_gradients_of_all_parameters_are_those_of_the_cpu() {
    let Some(device) = device::under_test() else { return };
    for architecture in architectures() {
        let run = |device: &Device| {
            let mut network = build(&architecture, 1, device).unwrap();
            network.train_mode();
            let output = network.forward(images([2, 3, 24, 17], device).autodiff(), &mut Taps::train());
            // A classifier gives one label an image.
            let [n, _, height, width] = output.logits.dims();
            let labels: Vec<u8> = (0..n * height * width).map(|pixel| (pixel / 5 % 5) as u8).collect();
            let targets = fireproof_tensor::Targets::from_labels(&labels, [n, height, width], device).unwrap();
            network.gradients(&ops::cross_entropy(output.logits, &targets).mean().backward())
        };
        let (found, expected) = (run(&device), run(&Device::flex()));
        assert_eq!(found.len(), expected.len());
        // One scale for all: a gradient that is zero but for rounding has none of its own.
        let largest = expected.iter().flat_map(|p| &p.values).fold(0.0f32, |most, v| most.max(v.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            let pairs = found.values.iter().zip(&expected.values);
            let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest;
            assert!(difference < 2e-3, "{}: the gradient of {} differs by {difference}", architecture.name, found.name);
        }
    }
}

/// Of all numbers together, the length of the difference over the length.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    let length = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
    length(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / length(&mut expected.iter().copied())
}

#[test]
fn half_precision_says_about_what_single_precision_does() {
    use std::io::Write;
    let Some(device) = device::under_test() else { return };
    // Logits and gradient: twice the largest that was found on the CPU (0.006 and 0.16 in f16, 0.024 and 0.27 in bf16) and more.
    // Where rounding decides on which side of a ReLU or in which window of a pool a number falls, whole paths of the gradient go with
    // it. A wrong scale or a lost gradient is off by nearly all of its length.
    for (precision, tolerances) in [(Precision::F16, [0.02, 0.3]), (Precision::Bf16, [0.15, 0.6])] {
        if let Err(error) = precision.dtype(&device) {
            let _ = writeln!(std::io::stderr(), "skipped: half precision: {error}");
            continue;
        }
        for architecture in architectures() {
            let network = build(&architecture, 1, &device).unwrap();
            let run = |precision| {
                let victim = network.victim_in(precision).unwrap();
                // As small as the gradient of a mean over a large image.
                let cotangent = &mut |z: Tensor<4>| Ok(z.clone() * 1e-6);
                let (logits, gradient) = victim.pull_back(images([2, 3, 24, 17], &device), cotangent).unwrap();
                [host(logits), host(gradient)]
            };
            let (found, expected) = (run(precision), run(Precision::F32));
            let names = ["logits", "gradient"].into_iter().zip(tolerances);
            for ((what, tolerance), (found, expected)) in names.zip(found.iter().zip(&expected)) {
                let error = distance(found, expected);
                assert!(error < tolerance, "{} in {precision}: the {what} is {error} off", architecture.name);
                assert_eq!(found.iter().all(|&value| value == 0.0), expected.iter().all(|&value| value == 0.0));
            }
        }
    }
}

#[test]
fn a_batch_beyond_what_the_device_binds_passes_in_parts_and_an_image_beyond_it_is_refused() {
    use std::io::Write;
    let Some(device) = device::under_test() else { return };
    let Some(limit) = device::largest_tensor(&device).filter(|limit| *limit <= 256 << 20) else {
        let _ =
            writeln!(std::io::stderr(), "skipped: the device binds tensors as large as its memory, or above 256 MiB");
        return;
    };
    let mut architecture = Architecture::new("unet", &["a", "b"]).unwrap();
    architecture.options.extend([("base".to_owned(), 4), ("levels".to_owned(), 1)]);
    let victim = build(&architecture, 1, &device).unwrap().victim();
    // The largest tensor has four or eight channels of the image's size.
    let side = |values: u64| ((values as f64).sqrt() as usize) / 16 * 16;
    let fits = side(limit / 4 * 3 / 4 / 8);
    let pair = images([2, 3, fits, fits], &device);
    let alone: Vec<f32> = (0..2).flat_map(|i| host(victim.logits(pair.clone().narrow(0, i, 1)).unwrap())).collect();
    assert_eq!(host(victim.logits(pair).unwrap()), alone);
    let beyond = side(limit / 4 / 3);
    let error = victim.logits(Tensor::zeros([1, 3, beyond, beyond], &device)).unwrap_err().to_string();
    assert!(error.contains(&format!("3x{beyond}x{beyond}")) && error.contains(&limit.to_string()), "{error}");
}
