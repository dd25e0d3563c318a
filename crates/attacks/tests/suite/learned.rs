//! Attacks that are no perturbation of every pixel of one image: universal, patch, indirect.

use burn::tensor::Tensor;
use fireproof_attacks::{AttackConfig, Context, Target, build, fit};
use fireproof_tensor::{Batch, Norm, Passes, Targets, VOID, Victim, ops::weighted_cross_entropy, victim};

use crate::support::{Network, batch, config, device, floats, tensor};

fn settings(name: &str, options: &[(&str, &str)]) -> AttackConfig {
    AttackConfig { options: options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(), ..config(name) }
}

fn mean_accuracy(network: &Network, batch: &Batch, images: Tensor<4>) -> f32 {
    batch.targets.accuracy(&network.forward(images)).iter().sum::<f32>() / batch.len() as f32
}

/// The change of each image.
fn deltas(found: &Tensor<4>, clean: &Tensor<4>) -> Vec<Vec<f32>> {
    let n = clean.dims()[0];
    let all: Vec<f32> = floats(found).iter().zip(floats(clean)).map(|(f, c)| f - c).collect();
    all.chunks(all.len() / n).map(<[f32]>::to_vec).collect()
}

/// Far from the ends of the range, so that no clamp hides a δ.
fn grey(network: &Network, seed: u64, n: usize) -> Batch {
    let batch = batch(seed, &victim(|x| network.forward(x)), 4, [n, 3, 16, 16]);
    let images = batch.images * 0.4 + 0.3;
    let seen: Vec<i32> = network.forward(images.clone()).argmax(1).try_into_vec_as().unwrap();
    let labels: Vec<u8> = seen.iter().map(|s| *s as u8).collect();
    let targets = Targets::from_labels(&labels, [n, 16, 16], &device()).unwrap();
    Batch::new(images, targets, batch.ids).unwrap()
}

#[test]
fn a_universal_perturbation_is_one_for_all_images_and_fools_others_too() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let (data, unseen) = (grey(&network, 61, 8), grey(&network, 62, 6));
    let attack = build(&AttackConfig { epsilon: 0.06, step_size: Some(0.01), ..config("universal") }).unwrap();
    assert_eq!(attack.learns().unwrap().images(), 32);
    let fitted = fit(&*attack, &model, std::slice::from_ref(&data), &Context::new(0)).unwrap();
    let found = fitted.run(&model, &unseen, &Context::new(0)).unwrap();
    assert_eq!(found.passes, Passes::default(), "what is learned costs nothing to apply");
    let deltas = deltas(&found.images, &unseen.images);
    for delta in &deltas {
        assert!(delta.iter().zip(&deltas[0]).all(|(a, b)| (a - b).abs() < 1e-6), "δ is the same for every image");
        assert!(delta.iter().all(|d| d.abs() <= 0.06 + 1e-6) && delta.iter().any(|d| d.abs() > 0.05));
    }
    let noise = build(&AttackConfig { epsilon: 0.06, ..config("noise") }).unwrap();
    let noise = noise.run(&model, &unseen, &Context::new(0)).unwrap();
    let (universal, noise) =
        (mean_accuracy(&network, &unseen, found.images), mean_accuracy(&network, &unseen, noise.images));
    println!("unseen images: accuracy {noise} under noise, {universal} under a universal perturbation");
    assert!(universal < noise - 0.05);
    // PGD's perturbations differ from image to image.
    let pgd = build(&AttackConfig { epsilon: 0.06, ..config("pgd") }).unwrap();
    let pgd = pgd.run(&model, &unseen, &Context::new(0)).unwrap();
    let pgd = super::learned::deltas(&pgd.images, &unseen.images);
    assert!(pgd[0].iter().zip(&pgd[1]).any(|(a, b)| (a - b).abs() > 0.05));
}

#[test]
fn a_universal_perturbation_is_that_of_a_plain_loop_however_the_data_is_batched() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let data = grey(&network, 63, 4);
    let steps = 5;
    let attack = build(&AttackConfig { steps, ..config("universal") }).unwrap();
    let learn = |parts: &[Batch]| {
        let (delta, passes) = attack.learns().unwrap().learn(&model, parts, &Context::new(0)).unwrap();
        assert_eq!(passes, Passes { forward: 20, backward: 20 });
        floats(&delta)
    };
    let whole = learn(std::slice::from_ref(&data));
    assert_eq!(whole, learn(&[data.slice(0..1), data.slice(1..4)]));
    let (epsilon, alpha) = (10.0 / 255.0, 1.0 / 255.0);
    let mut delta = Tensor::<4>::zeros([1, 3, 16, 16], &device());
    for _ in 0..steps {
        let images = (data.images.clone() + delta.clone().expand([4, 3, 16, 16])).clamp(0.0, 1.0);
        let cotangent = &mut |logits: Tensor<4>| Ok(weighted_cross_entropy(&logits, &data.targets, None).gradient);
        let gradient = model.pull_back(images, cotangent).unwrap().1;
        delta = (delta + gradient.sum_dim(0).sign() * alpha).clamp(-epsilon, epsilon);
    }
    let differ = whole.iter().zip(floats(&delta)).filter(|(a, b)| (*a - b).abs() > 1e-6).count();
    assert!(differ <= 2, "{differ} of 768 values differ");
}

#[test]
fn a_class_is_removed_from_all_images_by_one_perturbation() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let (data, unseen) = (grey(&network, 64, 8), grey(&network, 65, 6));
    let labels: Vec<i32> = unseen.targets.labels().clone().try_into_vec_as().unwrap();
    let class = (0..4).max_by_key(|class| labels.iter().filter(|l| *l == class).count()).unwrap();
    let pixels = |images: &Tensor<4>| {
        let seen: Vec<i32> = network.forward(images.clone()).argmax(1).try_into_vec_as().unwrap();
        seen.iter().zip(&labels).filter(|(s, l)| **l == class && **s == class).count()
    };
    let settings = AttackConfig {
        epsilon: 0.12,
        step_size: Some(0.01),
        target: Some(Target::Remove(class as u8)),
        ..config("universal")
    };
    let attack = build(&settings).unwrap();
    let fitted = fit(&*attack, &model, &[data], &Context::new(0)).unwrap();
    let found = fitted.run(&model, &unseen, &Context::new(0)).unwrap();
    let (before, after) = (pixels(&unseen.images), pixels(&found.images));
    println!("class {class}: {before} pixels before, {after} after");
    assert!(after * 2 < before);
}

#[test]
fn what_was_learned_fits_images_of_its_size_only() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let data = grey(&network, 66, 2);
    let other = batch(67, &model, 4, [1, 3, 12, 16]);
    for (name, options) in [("universal", vec![]), ("patch", vec![("images", "2")])] {
        let attack = build(&AttackConfig { steps: 2, ..settings(name, &options) }).unwrap();
        let fitted = fit(&*attack, &model, std::slice::from_ref(&data), &Context::new(0)).unwrap();
        let error = fitted.run(&model, &other, &Context::new(0)).unwrap_err().to_string();
        assert!(error.contains("found [1, 3,") && error.contains("12, 16"), "{error}");
        let error = fit(&*attack, &model, &[data.clone(), other.clone()], &Context::new(0)).err().unwrap().to_string();
        assert!(error.starts_with("images to learn from") && error.contains("one size"), "{error}");
        assert!(fit(&*attack, &model, &[], &Context::new(0)).is_err());
    }
    let error = fit(&*build(&config("pgd")).unwrap(), &model, &[data], &Context::new(0)).err().unwrap().to_string();
    assert!(error.contains("'pgd'") && error.contains("learns from many images"), "{error}");
}

#[test]
fn a_patch_changes_a_square_and_hurts_what_lies_around_it() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let batch = grey(&network, 68, 4);
    let options = [("size", "0.5"), ("scale", "0"), ("place", "0.5,0.5")];
    let attack = build(&AttackConfig { steps: 40, step_size: Some(0.05), ..settings("patch", &options) }).unwrap();
    assert!(!attack.bounded());
    let found = attack.run(&model, &batch, &Context::new(1)).unwrap();
    assert_eq!(found.passes, Passes { forward: 4 * 80, backward: 4 * 80 });
    let inside = |i: usize| (4..12).contains(&(i % 256 / 16)) && (4..12).contains(&(i % 16));
    for delta in deltas(&found.images, &batch.images) {
        assert!((0..768).all(|i| inside(i) || delta[i] == 0.0), "outside the square nothing changes");
        assert!(delta.iter().any(|d| d.abs() > 8.0 / 255.0), "no ball holds it");
    }
    let targets = found.targets.unwrap();
    let valid = floats(targets.valid());
    assert!((0..1024).all(|i| (valid[i] == 0.0) == inside(i)), "labels under it are void");
    // Another patch of random pixels does not hurt as much.
    let start = build(&AttackConfig { steps: 1, step_size: Some(1e-6), ..settings("patch", &options) }).unwrap();
    let random = start.run(&model, &batch, &Context::new(1)).unwrap().images;
    let share = |images: Tensor<4>| targets.accuracy(&network.forward(images)).iter().sum::<f32>() / 4.0;
    let (random, learned) = (share(random), share(found.images));
    println!("around the patch: accuracy {random} random, {learned} learned");
    assert!(learned < random - 0.05);
}

#[test]
fn one_patch_for_all_images_is_shown_under_transformations_it_has_not_seen() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let (data, unseen) = (grey(&network, 69, 6), grey(&network, 70, 6));
    let options = [("size", "0.5"), ("turn", "15"), ("images", "6")];
    let attack = build(&AttackConfig { steps: 30, step_size: Some(0.05), ..settings("patch", &options) }).unwrap();
    let learns = attack.learns().unwrap();
    let (patch, _) = learns.learn(&model, std::slice::from_ref(&data), &Context::new(2)).unwrap();
    assert_eq!(patch.dims(), [1, 3, 8, 8]);
    let (parts, _) = learns.learn(&model, &[data.slice(0..4), data.slice(4..6)], &Context::new(2)).unwrap();
    let close = floats(&patch).iter().zip(floats(&parts)).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(close, "which images share a batch does not matter");
    let shown = learns.with(patch).unwrap().run(&model, &unseen, &Context::new(2)).unwrap();
    let covered = |i: usize| {
        let valid = floats(shown.targets.as_ref().unwrap().valid());
        (0..256).filter(|p| valid[i * 256 + p] == 0.0).collect::<Vec<_>>()
    };
    assert_ne!(covered(0), covered(1), "every image has the patch elsewhere");
    assert!((0..6).all(|i| (30..120).contains(&covered(i).len())), "8 x 8 pixels, a fifth larger or smaller");
    let random = build(&AttackConfig { steps: 1, step_size: Some(1e-6), ..settings("patch", &options[..2]) }).unwrap();
    let random = random.run(&model, &unseen, &Context::new(2)).unwrap();
    let share = |found: &fireproof_attacks::Adversarial| {
        let targets = found.targets.as_ref().unwrap();
        targets.accuracy(&network.forward(found.images.clone())).iter().sum::<f32>() / 6.0
    };
    let (random, learned) = (share(&random), share(&shown));
    println!("around a common patch: accuracy {random} random, {learned} learned");
    assert!(learned < random);
}

#[test]
fn an_indirect_attack_changes_a_region_that_it_does_not_touch() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let batch = grey(&network, 71, 4);
    let box_of = |i: usize| (4..12).contains(&(i % 256 / 16)) && (4..12).contains(&(i % 16));
    let region: Vec<f32> = (0..1024).map(|i| if box_of(i) { 1.0 } else { 0.0 }).collect();
    let region = batch.targets.clone().with_valid(tensor(region, [4, 16, 16]));
    let share = |images: Tensor<4>| region.accuracy(&network.forward(images)).iter().sum::<f32>() / 4.0;
    for (share_of_blocks, block) in [("1", "8"), ("0.25", "2")] {
        let options = [("share", share_of_blocks), ("block", block)];
        let attack = build(&AttackConfig { epsilon: 0.3, ..settings("indirect", &options) }).unwrap();
        let found = attack.run(&model, &batch, &Context::new(1)).unwrap();
        let mut blocks = 0;
        for delta in deltas(&found.images, &batch.images) {
            assert!((0..768).all(|i| !box_of(i) || delta[i] == 0.0), "the region itself is not touched");
            let changed = |b: usize| (0..768).any(|i| i % 256 / 32 * 8 + i % 16 / 2 == b && delta[i] != 0.0);
            blocks += (0..64).filter(|&b| changed(b)).count();
        }
        let (before, after) = (share(batch.images.clone()), share(found.images));
        println!(
            "{share_of_blocks} of the blocks: accuracy in the region {before} → {after}, {blocks} of 192 blocks changed"
        );
        assert!(after < before);
        let most = if share_of_blocks == "1" { 192 } else { 48 };
        assert!(blocks <= most && blocks > most / 2, "{blocks}");
    }
}

#[test]
fn an_indirect_attack_keeps_a_gap_and_aims_at_classes() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let batch = grey(&network, 72, 2);
    let mut labels: Vec<i32> = batch.targets.labels().clone().try_into_vec_as().unwrap();
    // A 4 x 4 square of another class in the first image; the second has none of it.
    (0..256).filter(|i| i / 16 >= 12 && i % 16 >= 12).for_each(|i| labels[i] = 7);
    labels[0] = i32::from(VOID);
    let labels: Vec<u8> = labels.iter().map(|l| *l as u8).collect();
    let targets = Targets::from_labels(&labels, [2, 16, 16], &device()).unwrap();
    let batch = Batch::new(batch.images, targets, batch.ids).unwrap();
    // Label 7 has no logit, so aim at a class that has one in the loss: a target map.
    let options = [("change", "classes=7"), ("gap", "2"), ("share", "1")];
    let attack = AttackConfig { target: Some(Target::Class(1)), epsilon: 0.3, ..settings("indirect", &options) };
    let found = build(&attack).unwrap().run(&model, &batch, &Context::new(1)).unwrap();
    let deltas = deltas(&found.images, &batch.images);
    let near = |i: usize| i % 256 / 16 >= 10 && i % 16 >= 10;
    assert!((0..768).all(|i| !near(i) || deltas[0][i] == 0.0), "two pixels around the square stay");
    assert!(deltas[0].iter().any(|d| *d != 0.0));
    let pgd = build(&AttackConfig { start: fireproof_attacks::Start::Zero, ..attack.clone() }).unwrap();
    let pgd = pgd.run(&model, &batch, &Context::new(1)).unwrap();
    let nothing = super::learned::deltas(&pgd.images, &batch.images);
    assert!(nothing[1].iter().all(|d| *d == 0.0), "an image without the class has nothing to gain");
    for (name, value) in [("change", "sky"), ("block", "0"), ("share", "0"), ("gap", "-1")] {
        let error = build(&settings("indirect", &[(name, value)])).err().expect("must be refused").to_string();
        assert!(error.contains(&format!("{name} is ")), "{error}");
    }
}

#[test]
fn patches_and_universal_perturbations_refuse_what_they_do_not_have() {
    let refused = |name: &str, option: &str, value: &str| {
        build(&settings(name, &[(option, value)])).err().expect("must be refused").to_string()
    };
    for (option, value) in
        [("size", "0"), ("scale", "1"), ("turn", "200"), ("balance", "2"), ("views", "0"), ("place", "x")]
    {
        assert!(refused("patch", option, value).contains(&format!("{option} is ")));
    }
    assert!(refused("universal", "hide", "1").contains("hide is 1"));
    let l2 = AttackConfig { norm: Norm::L2, ..config("patch") };
    assert!(build(&l2).err().unwrap().to_string().contains("norm is l2, expected linf"));
}
