//! A few training steps of each recipe on the device that `FIREPROOF_TEST_DEVICE` names, against the CPU.

use std::sync::Arc;

use burn::tensor::Device;
use fireproof_datasets::{Dataset, Options, Split, open};
use fireproof_defenses::{Control, Display, Method, OptimizerConfig, Recipe, TrainConfig, Validation, train};
use fireproof_models::{Architecture, Parameter, build};
use fireproof_tensor::device;

/// Every recipe, with as few steps as its attack can have.
fn recipes() -> Vec<Recipe> {
    let named = ["pgd2-at", "segpgd2-at-full", "ima-dice"].map(|name| Recipe::preset(name).unwrap());
    let mut recipes: Vec<Recipe> =
        fireproof_defenses::recipes().into_iter().map(|(recipe, _)| recipe).chain(named).collect();
    for recipe in &mut recipes {
        // Not every recipe has each of them.
        for (option, value) in [
            ("inner-max.attack.steps", "2"),
            ("margin.steps", "2"),
            ("margin.halvings", "2"),
            ("awp.warmup", "0"),
            ("free.replays", "2"),
            ("selection.steps", "1"),
        ] {
            let _ = recipe.set(option, value);
        }
    }
    recipes
}

fn scenes(split: Split, length: usize) -> Arc<dyn Dataset> {
    let options = Options { size: Some((16, 16)), length: Some(length), seed: 1, ..Options::default() };
    open("scenes", None, split, options).unwrap().into()
}

/// The weights after two steps, and their validation mIoU.
fn trained(recipe: &Recipe, device: &Device) -> Vec<Parameter> {
    let classes: Vec<String> = scenes(Split::Train, 1).classes().iter().map(|class| class.name.clone()).collect();
    let mut architecture = Architecture::new("unet", &classes).unwrap();
    architecture.options.extend([("base".to_owned(), 4), ("levels".to_owned(), 2)]);
    let mut network = build(&architecture, 5, device).unwrap();
    let config = TrainConfig {
        epochs: 1,
        batch_size: 2,
        optimizer: OptimizerConfig {
            method: Method::Sgd { momentum: 0.9 },
            learning_rate: 0.05,
            ..OptimizerConfig::default()
        },
        validation: Validation { images: Some(2), batch_size: 2, ..Validation::default() },
        seed: 3,
        ..TrainConfig::new(recipe.clone())
    };
    let control = Control { display: Display::Silent, ..Control::default() };
    let out = tempfile::tempdir().unwrap();
    train(&config, &mut *network, scenes(Split::Train, 4), scenes(Split::Val, 2), out.path(), &control).unwrap();
    network.parameters()
}

#[test]
fn two_steps_of_each_recipe_end_where_they_do_on_the_cpu() {
    let Some(device) = device::under_test() else { return };
    for recipe in recipes() {
        let (found, expected) = (trained(&recipe, &device), trained(&recipe, &Device::flex()));
        let recipe = &recipe.name;
        let largest = expected.iter().flat_map(|p| &p.values).fold(0.0f32, |most, v| most.max(v.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            let pairs = found.values.iter().zip(&expected.values);
            let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest;
            assert!(difference < 1e-2, "{recipe}: {} differs by {difference}", found.name);
            assert!(found.values.iter().all(|value| value.is_finite()), "{recipe}: {} is not finite", found.name);
        }
    }
}
