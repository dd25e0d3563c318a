//! What every network keeps to.

use burn::tensor::Tensor;
use fireproof_models::{Group, Kind, Taps, build};
use fireproof_tensor::Victim;
use fireproof_tensor::random::Stream;

use crate::common::{architectures, device, host, images, large_architectures, lively, relative, small_unet};

#[test]
fn logits_have_the_images_size_odd_sizes_too() {
    for architecture in architectures() {
        let network = build(&architecture, 0, &device()).unwrap();
        for size in [[17, 30], [9, 8]] {
            let output = network.forward(images([1, 3, size[0], size[1]], 3), &mut Taps::eval());
            assert_eq!(output.logits.dims(), [1, 5, size[0], size[1]], "{}", architecture.name);
            assert!(output.auxiliary.is_none(), "an auxiliary head answers in training only");
        }
    }
}

#[test]
fn a_victim_agrees_with_its_network_though_batch_norm_is_folded() {
    for architecture in architectures().into_iter().chain(large_architectures()) {
        let network = lively(&architecture);
        let x = images([2, 3, 24, 33], 4);
        let expected = host(network.forward(x.clone(), &mut Taps::eval()).logits);
        let found = host(network.victim().logits(x).unwrap());
        let error = relative(&found, &expected);
        assert!(error < 2e-5, "{}: {error}", architecture.name);
    }
}

#[test]
fn an_image_has_the_same_logits_and_gradient_in_any_batch() {
    for architecture in architectures() {
        let victim = lively(&architecture).victim();
        let x = images([3, 3, 16, 24], 5);
        let pull = |x: Tensor<4>| {
            let (z, g) = victim.pull_back(x, &mut |z| Ok(z.clone() * z)).unwrap();
            (host(z), host(g))
        };
        let (logits, gradient) = pull(x.clone());
        for i in 0..3 {
            let (z, g) = pull(x.clone().narrow(0, i, 1));
            assert_eq!(z, logits[i * z.len()..(i + 1) * z.len()], "{}: logits of image {i}", architecture.name);
            assert_eq!(g, gradient[i * g.len()..(i + 1) * g.len()], "{}: gradient of image {i}", architecture.name);
        }
    }
}

#[test]
fn the_input_gradient_of_a_victim_is_that_of_the_network() {
    for architecture in architectures() {
        let network = lively(&architecture);
        let x = images([1, 3, 16, 19], 6);
        let (_, found) = network.victim().pull_back(x.clone(), &mut |z| Ok(z.ones_like())).unwrap();
        let leaf = x.autodiff().require_grad();
        let loss = network.forward(leaf.clone(), &mut Taps::eval()).logits.sum();
        let expected = leaf.grad_remove(&mut loss.backward()).unwrap();
        let error = relative(&host(found), &host(expected));
        assert!(error < 1e-4, "{}: {error}", architecture.name);
    }
}

#[test]
fn every_site_can_be_read_and_perturbed() {
    for architecture in architectures() {
        let network = lively(&architecture);
        let sites = network.sites();
        assert_eq!(sites[0], "input");
        let x = images([1, 3, 16, 24], 7);
        let mut taps = sites.iter().fold(Taps::eval(), |taps, site| taps.record(site));
        let clean = host(network.forward(x.clone(), &mut taps).logits);
        for site in &sites {
            let features = taps.recorded(site).unwrap_or_else(|| panic!("{}: '{site}'", architecture.name)).clone();
            let delta = features.ones_like() * 0.5;
            let mut moved = Taps::eval().inject(site, delta.clone()).record(site);
            let logits = host(network.forward(x.clone(), &mut moved).logits);
            assert!(relative(&logits, &clean) > 1e-4, "{}: nothing happens at '{site}'", architecture.name);
            let read = host(moved.recorded(site).unwrap().clone());
            assert_eq!(
                read,
                host(features + delta),
                "{}: the record at '{site}' is after the injection",
                architecture.name
            );
        }
    }
}

#[test]
fn a_perturbation_of_features_has_a_gradient() {
    let network = lively(&small_unet());
    let delta = Tensor::<4>::zeros([1, 8, 8, 8], &device()).autodiff().require_grad();
    let mut taps = Taps::eval().inject("down.1", delta.clone());
    let loss = network.forward(images([1, 3, 16, 16], 8), &mut taps).logits.sum();
    let gradient = delta.grad_remove(&mut loss.backward()).unwrap();
    assert!(host(gradient).iter().any(|g| *g != 0.0));
}

#[test]
#[should_panic(expected = "has no site 'down.9'")]
fn a_site_that_does_not_exist_is_refused_loudly() {
    build(&small_unet(), 0, &device()).unwrap().forward(images([1, 3, 8, 8], 0), &mut Taps::eval().record("down.9"));
}

#[test]
fn initial_values_follow_from_the_seed_and_the_name_alone() {
    let values = |seed| build(&small_unet(), seed, &device()).unwrap().parameters();
    assert_eq!(values(3), values(3));
    assert_ne!(values(3), values(4));
    let mut deeper = small_unet();
    deeper.options.insert("levels".into(), 4);
    let deeper = build(&deeper, 3, &device()).unwrap();
    let of = |list: &[fireproof_models::Parameter], name: &str| list.iter().find(|p| p.name == name).cloned();
    assert_eq!(of(&values(3), "down.1.0.weight"), of(&deeper.parameters(), "down.1.0.weight"));
    let ids = |n: &dyn fireproof_models::Network| n.layout().iter().map(|p| p.id).collect::<Vec<_>>();
    assert_eq!(ids(&*deeper)[..6], ids(&*build(&small_unet(), 9, &device()).unwrap())[..6], "ids come from names");
}

#[test]
fn heads_and_backbones_are_told_apart() {
    for architecture in architectures() {
        let network = build(&architecture, 0, &device()).unwrap();
        let head: Vec<_> =
            network.layout().iter().filter(|p| p.group == Group::Head).map(|p| p.name.as_str()).collect();
        let backbone = |p: &&str| p.starts_with("backbone.") || p.starts_with("layer") || p.starts_with("down.");
        assert!(!head.is_empty() && !head.iter().any(|p| backbone(p) && *p != "level3_C.conv.weight"), "{head:?}");
        let statistics = network.layout().iter().filter(|p| p.kind == Kind::Statistic);
        assert_eq!(statistics.clone().count() > 0, architecture.name != "nnunet", "instance norm has none");
        assert!(statistics.clone().all(|p| p.name.ends_with("running_mean") || p.name.ends_with("running_var")));
    }
}

#[test]
fn dropout_draws_from_the_stream_of_the_pass_only() {
    let architecture = architectures().swap_remove(4);
    let network = build(&architecture, 0, &device()).unwrap();
    let logits = |taps: Taps| host(network.forward(images([2, 3, 16, 16], 9), &mut { taps }).logits);
    let with = |seed| logits(Taps::train_without_update().with_dropout(Stream::new(&[seed])));
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
    assert_eq!(logits(Taps::train_without_update()), logits(Taps::train()), "no stream, no dropout");
}
