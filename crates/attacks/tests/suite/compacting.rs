//! Images that are fooled everywhere stop making passes, and nobody's numbers change by it.

use fireproof_attacks::{AttackConfig, Context, Iterate, Start, build};
use fireproof_tensor::{Batch, Passes, Targets, Victim, victim};

use crate::support::{Network, batch, config, device, floats};

/// Three images: of the first and the last only one pixel is labelled, of the second nearly all are.
fn uneven(network: &Network) -> Batch {
    let model = victim(|x| network.forward(x));
    let whole = batch(4, &model, 5, [3, 3, 16, 20]);
    let seen: Vec<i32> = network.forward(whole.images.clone()).argmax(1).try_into_vec_as().unwrap();
    let mut labels: Vec<i32> = whole.targets.labels().clone().try_into_vec_as().unwrap();
    for (image, pixel) in [(0, 100), (2, 37)] {
        labels[image * 320..(image + 1) * 320].fill(255);
        labels[image * 320 + pixel] = seen[image * 320 + pixel];
    }
    let labels: Vec<u8> = labels.iter().map(|l| *l as u8).collect();
    Batch::new(whole.images, Targets::from_labels(&labels, [3, 16, 20], &device()).unwrap(), whole.ids).unwrap()
}

#[test]
fn a_batch_makes_exactly_the_passes_of_its_images_alone_and_gives_the_same_bits() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let batch = uneven(&network);
    // Objectives with a memory, updates with a memory, stages, ensembles, and loops of their own.
    let names = ["segpgd", "rp-pgd", "balanced", "uncertainty", "mi-fgsm", "padam", "apgd", "sea+", "square", "dag"];
    for name in names.into_iter().chain(["cw", "deepfool", "dla", "noise"]) {
        // From the clean image there is one run, and so it is where queries take the place of restarts; RP-PGD asks for the clean
        // logits of all images at every restart.
        let once = ["rp-pgd", "dla"].contains(&name) || config(name).start == Start::Zero;
        let (steps, restarts) = if name == "noise" { (1, 40) } else { (40, if once { 1 } else { 2 }) };
        // Chance finds less than a gradient.
        let epsilon = if ["dla", "noise"].contains(&name) { 0.6 } else { 0.2 };
        let settings = AttackConfig { steps, epsilon, restarts, iterate: Iterate::BestAccuracy, ..config(name) };
        let attack = build(&settings).unwrap();
        let run = |positions: &[usize]| attack.run(&model, &batch.select(positions), &Context::new(3)).unwrap();
        let together = run(&[0, 1, 2]);
        let alone = [run(&[0]), run(&[1]), run(&[2])];
        let sum = alone.iter().fold(Passes::default(), |sum, one| sum + one.passes);
        assert_eq!(together.passes, sum, "{name}");
        assert!(sum.forward < 3 * alone[1].passes.forward, "{name}: nobody was done before the others");
        let bits: Vec<f32> = alone.iter().flat_map(|one| floats(&one.images)).collect();
        assert_eq!(floats(&together.images), bits, "{name}");
        for (candidate, run) in together.candidates.iter().enumerate() {
            let bits: Vec<f32> = alone.iter().flat_map(|one| floats(&one.candidates[candidate].images)).collect();
            assert_eq!(floats(&run.images), bits, "{name}, {}", run.name);
        }
    }
}

#[test]
fn what_is_fooled_in_a_larger_ball_goes_on_in_the_smaller_one() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let batch = uneven(&network).select(&[0]);
    let settings = AttackConfig { steps: 100, epsilon: 0.2, ..config("sea") };
    let found = build(&settings).unwrap().run(&model, &batch, &Context::new(3)).unwrap();
    // Three runs of three stages, each of which looks after ten steps: 30, 30 and 40 would be all.
    assert_eq!((found.passes.forward, found.passes.backward), (90, 90));
    let accuracy = batch.targets.accuracy(&model.logits(found.images).unwrap());
    assert_eq!(accuracy, [0.0]);
}

#[test]
fn the_last_iterate_is_made_whatever_was_fooled_before() {
    let network = Network::random(3, 3, 5);
    let model = victim(|x| network.forward(x));
    let batch = uneven(&network);
    let settings = AttackConfig { steps: 40, epsilon: 0.2, ..config("pgd") };
    let found = build(&settings).unwrap().run(&model, &batch, &Context::new(3)).unwrap();
    assert_eq!(found.passes, Passes { forward: 120, backward: 120 });
}
