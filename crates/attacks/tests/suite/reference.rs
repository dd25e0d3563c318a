//! Adversarial images of other implementations: packages, the authors' own code, APGD written down a second time; see
//! `tests/reference`.

use burn::tensor::{Tensor, module::conv2d, ops::ConvOptions};
use fireproof_attacks::{AttackConfig, Context, Iterate, Target, build};
use fireproof_tensor::{Batch, Norm, Victim, ops::cross_entropy, victim};

use crate::{
    oracle::differing,
    support::{Golden, Network, config, floats},
};

/// Cross-entropy of each image.
fn losses(model: &dyn Victim, batch: &Batch, images: Tensor<4>) -> Vec<f32> {
    let loss = cross_entropy(model.logits(images).unwrap(), &batch.targets);
    let [n, height, width] = loss.dims();
    floats(&loss.reshape([n, height * width]).sum_dim(1))
}

#[test]
fn apgd_is_that_of_torchattacks_on_maps_of_one_pixel() {
    let golden = Golden::reference("reference.safetensors");
    let network = Network::golden(&golden);
    let model = victim(|x| network.forward(x).mean_dim(2).mean_dim(3));
    let labels = golden.labels("class_labels");
    let batch = Batch::new(golden.tensor("class_images"), labels, (0..6).collect()).unwrap();
    for (norm, epsilon) in [(Norm::Linf, 4.0 / 255.0), (Norm::L2, 0.5)] {
        let start = golden.tensor(&format!("apgd_{norm}_start"));
        for steps in [4, 20, 100] {
            let settings = AttackConfig { norm, epsilon, steps, iterate: Iterate::BestLoss, ..config("apgd") };
            let context = Context { start: Some(&start), ..Context::new(0) };
            let found = build(&settings).unwrap().run(&model, &batch, &context).unwrap();
            let theirs: Tensor<4> = golden.tensor(&format!("apgd_{norm}_{steps}"));
            let differ = differing(&floats(&found.images), &floats(&theirs));
            let (ours, theirs) = (losses(&model, &batch, found.images), losses(&model, &batch, theirs));
            let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / b).fold(0.0, f32::max);
            println!("apgd {norm} {steps}: {differ} of 4608 values differ, loss by {worst:.1e} at most");
            // A sign is a coin toss where the gradient is within rounding of zero, and the ways part there.
            assert!(worst < 5e-5, "{norm} {steps}: {ours:?} {theirs:?}");
            assert!(steps > 4 || differ < 46, "{norm} {steps}: {differ} values differ");
        }
    }
}

#[test]
fn mi_di_and_ti_fgsm_are_those_of_torchattacks_on_maps_of_one_pixel() {
    let golden = Golden::reference("reference.safetensors");
    let network = Network::golden(&golden);
    let model = victim(|x| network.forward(x).mean_dim(2).mean_dim(3));
    let labels = golden.labels("class_labels");
    let batch = Batch::new(golden.tensor("class_images"), labels, (0..6).collect()).unwrap();
    for name in ["mi-fgsm", "di-fgsm", "ti-fgsm"] {
        for steps in [1, 5, 20] {
            let settings = AttackConfig { steps, ..config(name) };
            let found = build(&settings).unwrap().run(&model, &batch, &Context::new(0)).unwrap();
            let differ = differing(&floats(&found.images), golden.values(&format!("{name}_{steps}")));
            println!("{name} {steps}: {differ} of 4608 values differ");
            assert!(differ <= 2 * steps, "{name} {steps}: {differ} values differ");
        }
    }
}

#[test]
fn dense_apgd_with_radius_reduction_is_the_one_written_down_from_the_papers() {
    let golden = Golden::reference("reference.safetensors");
    let network = Network::golden(&golden);
    let model = victim(|x| network.forward(x));
    let batch = Batch::new(golden.tensor("dense_images"), golden.labels("dense_labels"), vec![0, 1]).unwrap();
    let cases = [
        ("ce", Norm::Linf, 4.0 / 255.0, "1"),
        ("ce", Norm::L2, 0.7, "1"),
        ("js", Norm::Linf, 4.0 / 255.0, "2,1.5,1"),
        ("masked-ce", Norm::Linf, 4.0 / 255.0, "2,1.5,1"),
        ("balanced", Norm::Linf, 4.0 / 255.0, "2,1.5,1"),
    ];
    for (objective, norm, epsilon, radii) in cases {
        for steps in [10, 60] {
            let options = [("objective", objective), ("radii", radii)];
            let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            let settings = AttackConfig { norm, epsilon, steps, options, ..config("apgd") };
            let context = Context { start: Some(&batch.images), ..Context::new(0) };
            let found = build(&settings).unwrap().run(&model, &batch, &context).unwrap();
            let theirs: Tensor<4> = golden.tensor(&format!("dense_{objective}_{norm}_{steps}"));
            let differ = differing(&floats(&found.images), &floats(&theirs));
            let accuracy = |images: Tensor<4>| batch.targets.accuracy(&network.forward(images));
            let (ours, theirs) = (accuracy(found.images), accuracy(theirs));
            println!(
                "{objective} {norm} {steps}: {differ} of 1920 values differ; accuracy {ours:?}, theirs {theirs:?}"
            );
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!((ours - theirs).abs() < 0.004, "{objective} {norm} {steps}: {ours} {theirs}");
            }
            assert!(steps > 10 || differ < 20, "{objective} {norm} {steps}: {differ} values differ");
        }
    }
}

#[test]
fn dag_and_alma_prox_are_those_of_adv_lib() {
    let golden = Golden::reference("minimal.safetensors");
    let weight: Tensor<4> = golden.tensor("weight");
    let model = victim(|x| conv2d(x, weight.clone(), None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1)));
    let batch = Batch::new(golden.tensor("images"), golden.labels("labels"), vec![0, 1]).unwrap();
    let cases = [
        ("dag", "dag_linf", Norm::Linf, 0.005, 100),
        ("dag", "dag_l2", Norm::L2, 0.05, 100),
        ("alma-prox", "alma", Norm::Linf, 0.001, 150),
    ];
    for (name, key, norm, step, steps) in cases {
        for (goal, target) in [("away", None), ("target", Some(Target::Class(1)))] {
            let epsilon = if norm == Norm::Linf { 1.0 } else { 30.0 };
            let settings =
                AttackConfig { norm, epsilon, steps, step_size: Some(step), target: target.clone(), ..config(name) };
            let found = build(&settings).unwrap().run(&model, &batch, &Context::new(0)).unwrap().minimal.unwrap();
            let theirs: Tensor<4> = golden.tensor(&format!("{key}_{goal}"));
            let differ = differing(&floats(&found.images), &floats(&theirs));
            let norms = floats(&norm.of(theirs - batch.images.clone()));
            println!(
                "{name} {norm} {goal}: {differ} of 864 values differ; norms {:?}, theirs {norms:?}; success {:?}",
                found.norms, found.success
            );
            for i in 0..2 {
                // Where 99 % is out of reach adv-lib's DAG returns the clean image; here it is the best iterate.
                if name == "dag" && found.success[i] < 0.99 {
                    assert!(norms[i] == 0.0 && found.norms[i] > 0.0);
                    continue;
                }
                let tolerance = if name == "dag" { 1e-4 } else { 0.02 };
                assert!((found.norms[i] / norms[i] - 1.0).abs() < tolerance, "{name} {goal} image {i}");
            }
        }
    }
}

#[test]
fn cw_and_deepfool_are_those_of_torchattacks_on_maps_of_one_pixel() {
    let golden = Golden::reference("reference.safetensors");
    let network = Network::golden(&golden);
    let model = victim(|x| network.forward(x).mean_dim(2).mean_dim(3));
    let images: Tensor<4> = golden.tensor("class_images");
    let batch = Batch::new(images.clone(), golden.labels("class_labels"), (0..6).collect()).unwrap();
    let option = |name: &str, value: &str| (name.to_string(), value.to_string());
    for (name, key, options) in [
        ("cw", "cw_1", vec![option("c", "1"), option("rounds", "1")]),
        ("cw", "cw_10", vec![option("c", "10"), option("rounds", "1")]),
        ("deepfool", "deepfool", vec![]),
    ] {
        let options = options.into_iter().collect();
        let settings = AttackConfig { norm: Norm::L2, epsilon: 9.0, options, ..config(name) };
        let found = build(&settings).unwrap().run(&model, &batch, &Context::new(0)).unwrap().minimal.unwrap();
        let theirs: Tensor<4> = golden.tensor(key);
        let norms = floats(&Norm::L2.of(theirs.clone() - images.clone()));
        let accuracy = batch.targets.accuracy(&model.logits(theirs.clone()).unwrap());
        let fooled: Vec<bool> = accuracy.iter().map(|a| *a == 0.0).collect();
        let (mut differ, mut compared) = (0, 0);
        for i in 0..6 {
            // Where nothing is found theirs is the clean or the last image; here it is the most successful one.
            assert_eq!(fooled[i], found.success[i] == 1.0, "{key} image {i}");
            if fooled[i] {
                let of = |images: &Tensor<4>| floats(&images.clone().narrow(0, i, 1));
                differ += differing(&of(&found.images), &of(&theirs));
                compared += 768;
                assert!((found.norms[i] / norms[i] - 1.0).abs() < 1e-4, "{key} image {i}");
            }
        }
        println!("{key}: {differ} of {compared} values differ; norms {:?}, theirs {norms:?}", found.norms);
        assert!(differ <= compared / 100, "{key}");
    }
}

#[test]
fn fmn_is_that_of_adv_lib_on_maps_of_one_pixel() {
    let golden = Golden::reference("reference.safetensors");
    let network = Network::golden(&golden);
    let model = victim(|x| network.forward(x).mean_dim(2).mean_dim(3));
    let images: Tensor<4> = golden.tensor("class_images");
    let batch = Batch::new(images.clone(), golden.labels("class_labels"), (0..6).collect()).unwrap();
    for (norm, epsilon) in [(Norm::Linf, 1.0), (Norm::L2, 9.0)] {
        for steps in [10, 60] {
            let settings = AttackConfig { norm, epsilon, steps, ..config("fmn") };
            let found = build(&settings).unwrap().run(&model, &batch, &Context::new(0)).unwrap().minimal.unwrap();
            let theirs: Tensor<4> = golden.tensor(&format!("fmn_{norm}_{steps}"));
            let differ = differing(&floats(&found.images), &floats(&theirs));
            let norms = floats(&norm.of(theirs - images.clone()));
            println!("fmn {norm} {steps}: {differ} of 4608 values differ; norms {:?}, theirs {norms:?}", found.norms);
            let close = found.norms.iter().zip(&norms).all(|(a, b)| (a / b - 1.0).abs() < 1e-5);
            assert!(close && (steps > 10 || differ == 0), "{norm} {steps}");
        }
    }
}

#[test]
fn pdpgd_is_that_of_adv_lib() {
    let golden = Golden::reference("minimal.safetensors");
    let weight: Tensor<4> = golden.tensor("weight");
    let model = victim(|x| conv2d(x, weight.clone(), None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1)));
    let batch = Batch::new(golden.tensor("images"), golden.labels("labels"), vec![0, 1]).unwrap();
    for (norm, epsilon) in [(Norm::Linf, 1.0), (Norm::L2, 9.0)] {
        for (goal, target) in [("away", None), ("target", Some(Target::Class(1)))] {
            let settings = AttackConfig { norm, epsilon, steps: 150, target: target.clone(), ..config("pdpgd") };
            let found = build(&settings).unwrap().run(&model, &batch, &Context::new(0)).unwrap().minimal.unwrap();
            let theirs: Tensor<4> = golden.tensor(&format!("pdpgd_{norm}_{goal}"));
            let differ = differing(&floats(&found.images), &floats(&theirs));
            let norms = floats(&norm.of(theirs - batch.images.clone()));
            println!(
                "pdpgd {norm} {goal}: {differ} of 864 values differ; norms {:?}, theirs {norms:?}; success {:?}",
                found.norms, found.success
            );
            let close = found.norms.iter().zip(&norms).all(|(a, b)| (a / b - 1.0).abs() < 1e-5);
            assert!(close && differ <= 8, "{norm} {goal}");
        }
    }
}

/// The classifier and its six images, on maps of one pixel.
fn classification(golden: &Golden) -> (Network, Batch) {
    let network = Network::golden(golden);
    let batch = Batch::new(golden.tensor("class_images"), golden.labels("class_labels"), (0..6).collect()).unwrap();
    (network, batch)
}

#[test]
fn apgd_is_that_of_autoattack_on_maps_of_one_pixel() {
    let authors = Golden::reference("authors.safetensors");
    let (network, batch) = classification(&Golden::reference("reference.safetensors"));
    let model = victim(|x| network.forward(x).mean_dim(2).mean_dim(3));
    for (norm, epsilon) in [(Norm::Linf, 4.0 / 255.0), (Norm::L2, 0.5)] {
        for steps in [4, 20, 100] {
            let settings = AttackConfig { norm, epsilon, steps, iterate: Iterate::BestLoss, ..config("apgd") };
            let context = Context { start: Some(&batch.images), ..Context::new(0) };
            let found = build(&settings).unwrap().run(&model, &batch, &context).unwrap();
            let theirs: Tensor<4> = authors.tensor(&format!("apgd_{norm}_{steps}"));
            let differ = differing(&floats(&found.images), &floats(&theirs));
            let (ours, theirs) = (losses(&model, &batch, found.images), losses(&model, &batch, theirs));
            let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / b).fold(0.0, f32::max);
            println!("AutoAttack, apgd {norm} {steps}: {differ} of 4608 values differ, loss by {worst:.1e} at most");
            assert!(worst < 5e-5, "{norm} {steps}: {ours:?} {theirs:?}");
            assert!(steps > 20 || differ < 46, "{norm} {steps}: {differ} values differ");
        }
    }
}

#[test]
fn square_is_that_of_autoattack_on_maps_of_one_pixel() {
    let authors = Golden::reference("authors.safetensors");
    let (network, batch) = classification(&Golden::reference("reference.safetensors"));
    let model = victim(|x| network.forward(x).mean_dim(2).mean_dim(3));
    for queries in [50, 1000] {
        let settings = AttackConfig { steps: queries, ..config("square") };
        let attack = build(&settings).unwrap();
        let theirs: Tensor<4> = authors.tensor(&format!("square_{queries}"));
        let used = authors.values(&format!("square_{queries}_used"));
        let mut differ = 0;
        for (image, used) in used.iter().enumerate() {
            let found = attack.run(&model, &batch.select(&[image]), &Context::new(0)).unwrap();
            // Whether an image is fooled is looked at every ten queries.
            let passes = (1 + (*used as usize - 1).div_ceil(10) * 10) as u64;
            assert_eq!(found.passes.forward, passes, "image {image}");
            differ += differing(&floats(&found.images), &floats(&theirs.clone().narrow(0, image, 1)));
        }
        println!("AutoAttack, square {queries}: {differ} of 4608 values differ; {used:?} queries");
        // The last squares are single pixels, of which some move the loss by no more than a rounding.
        assert!(differ <= 10, "{queries}: {differ} values differ");
    }
}

#[test]
fn sea_is_that_of_its_authors() {
    let authors = Golden::reference("authors.safetensors");
    let golden = Golden::reference("reference.safetensors");
    let network = Network::golden(&golden);
    let model = victim(|x| network.forward(x));
    let batch = Batch::new(golden.tensor("dense_images"), authors.labels("labels"), vec![0, 1]).unwrap();
    let accuracy = |images: Tensor<4>| batch.targets.accuracy(&network.forward(images));
    for steps in [10, 100] {
        let options = [("counts".to_string(), "700,20,250,30,110".to_string())].into();
        let settings = AttackConfig { epsilon: 4.0 / 255.0, steps, options, ..config("sea") };
        let context = Context { start: Some(&batch.images), ..Context::new(0) };
        let found = build(&settings).unwrap().run(&model, &batch, &context).unwrap();
        let mut worst = [1.0f32; 2];
        for run in &found.candidates {
            let theirs: Tensor<4> = authors.tensor(&format!("sea_{}_{steps}", run.name));
            let differ = differing(&floats(&run.images), &floats(&theirs));
            let (ours, theirs) = (accuracy(run.images.clone()), accuracy(theirs));
            println!("SEA {} {steps}: {differ} of 1920 values differ; accuracy {ours:?}, theirs {theirs:?}", run.name);
            assert!(steps > 10 || differ == 0, "{} {steps}: {differ} values differ", run.name);
            for image in 0..2 {
                assert!((ours[image] - theirs[image]).abs() < 0.01, "{} {steps}", run.name);
                worst[image] = worst[image].min(theirs[image]);
            }
        }
        let ours = accuracy(found.images);
        println!("SEA {steps}: accuracy {ours:?}, theirs {worst:?}");
        assert!(ours.iter().zip(&worst).all(|(a, b)| (a - b).abs() < 0.01));
    }
}
