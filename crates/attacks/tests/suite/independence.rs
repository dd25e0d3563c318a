//! An image's perturbation depends on the image, its id and the seed, and on nothing else.

use fireproof_attacks::{AttackConfig, Context, Iterate, Start, build};
use fireproof_tensor::Norm;
use proptest::prelude::*;

use crate::support::{Network, batch, config, floats, knows, several_steps, suited};

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn neither_the_size_nor_the_order_of_the_batch_matters_to_the_last_bit(
        name in prop::sample::select(several_steps()),
        norm in prop::sample::select(vec![Norm::Linf, Norm::L2]),
        iterate in prop::sample::select(vec![Iterate::Last, Iterate::BestAccuracy, Iterate::BestLoss]),
        restarts in 1usize..3,
        seed in 0u64..1000,
    ) {
        prop_assume!(knows(name, norm));
        let victim = Network::random(seed, 3, 4).victim();
        let batch = batch(seed, &victim, 4, [3, 3, 14, 10]);
        let attack = AttackConfig { norm, iterate, restarts, steps: 3, start: Start::Random, ..config(name) };
        let attack = build(&suited(attack)).unwrap();
        let run = |positions: &[usize]| {
            let found = attack.run(&victim, &batch.select(positions), &Context::new(seed)).unwrap();
            let values = floats(&found.images);
            values.chunks(values.len() / positions.len()).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        let (all, turned) = (run(&[0, 1, 2]), run(&[2, 0, 1]));
        prop_assert_eq!(&turned, &[all[2].clone(), all[0].clone(), all[1].clone()]);
        for i in 0..3 {
            prop_assert_eq!(&run(&[i])[0], &all[i]);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_images_and_another_seed_or_attack_others() {
    let victim = Network::random(1, 3, 4).victim();
    let batch = batch(2, &victim, 4, [2, 3, 12, 12]);
    let run = |name: &str, seed| {
        let attack = build(&AttackConfig { steps: 2, step_size: Some(1e-4), ..config(name) }).unwrap();
        floats(&attack.run(&victim, &batch, &Context::new(seed)).unwrap().images)
    };
    assert_eq!(run("pgd", 7), run("pgd", 7));
    assert_ne!(run("pgd", 7), run("pgd", 8));
    assert_ne!(run("pgd", 7), run("cospgd", 7));
    assert_eq!(run("bim", 7), run("bim", 8), "from the clean image there is nothing random");
}
