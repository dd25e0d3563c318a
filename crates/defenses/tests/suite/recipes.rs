use fireproof_defenses::{Error, Recipe};

fn refused(toml: &str) -> String {
    Recipe::from_toml(toml).unwrap().resolved().unwrap_err().to_string()
}

#[test]
fn presets_take_any_attack_and_any_number_of_steps() {
    for (name, attack, steps, share) in
        [("pgd3-at", "pgd", 3, 0.5), ("segpgd7-at", "segpgd", 7, 0.5), ("cospgd10-at-full", "cospgd", 10, 1.0)]
    {
        let recipe = Recipe::preset(name).unwrap();
        assert_eq!(recipe.selection.as_ref().map(|a| (a.name.as_str(), a.steps)), Some((attack, steps)));
        assert_eq!(recipe.stages[0].options["share"], share);
        assert_eq!(recipe.resolved().unwrap(), recipe, "a preset has all defaults filled in");
    }
    assert_eq!(Recipe::preset("standard").unwrap().stages.len(), 1);
}

#[test]
fn an_unknown_recipe_gets_the_forms_that_are_known() {
    for name in ["segpgd3", "nothing3-at", "-at", "pgdx-at"] {
        let message = Recipe::preset(name).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("'pgd3-at'"), "{message}");
    }
}

#[test]
fn a_recipe_survives_json_and_a_file() {
    let recipe = Recipe::preset("segpgd3-at").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.json");
    std::fs::write(&path, serde_json::to_string(&recipe).unwrap()).unwrap();
    assert_eq!(Recipe::find(path.to_str().unwrap()).unwrap(), recipe);
}

#[test]
fn the_explanation_names_the_stages_in_order_and_their_passes() {
    let text = Recipe::preset("segpgd3-at").unwrap().explain().unwrap();
    let order = ["batch", "inner-max", "forward", "cross-entropy", "step", "keep"];
    let places: Vec<usize> = order.iter().map(|name| text.find(&format!("  {name}")).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    // Half of the batch attacked in three steps: 1.5 of each, beside the training step itself.
    assert!(text.contains("2.5 forward, 1.5 backward to the input, 1 backward to the parameters"), "{text}");
    assert!(text.contains("last 0.5 of the batch") && text.contains("segpgd (3 steps"), "{text}");
}

#[test]
fn an_unknown_stage_or_option_is_named_with_what_there_is() {
    let message = refused("name = 'mine'\n[[stages]]\nstage = 'cross-entropie'");
    assert!(
        message.contains("stage 1: unknown stage 'cross-entropie'")
            && ["cross-entropy, ", "ema, ", "inner-max, "].iter().all(|name| message.contains(name)),
        "{message}"
    );
    let message = refused("name = 'mine'\n[[stages]]\nstage = 'cross-entropy'\nwieght = 2");
    assert!(message.contains("'cross-entropy'") && message.contains("wieght"), "{message}");
    let message = refused("name = 'mine'\n[[stages]]\nstage = 'inner-max'\nshare = 1.5\nattack.name = 'pgd'");
    assert!(message.contains("share is 1.5, expected over 0 to 1"), "{message}");
    let message = refused("name = 'mine'\n[[stages]]\nstage = 'inner-max'\nattack = { name = 'pgd', epsilon = 8 }");
    assert!(message.contains("epsilon is 8"), "{message}");
}

#[test]
fn stages_that_contradict_each_other_are_refused_with_the_reason() {
    let ce = "[[stages]]\nstage = 'cross-entropy'\n";
    let inner = "[[stages]]\nstage = 'inner-max'\nattack.name = 'pgd'\n";
    let ema = "[[stages]]\nstage = 'ema'\n";
    for (stages, reason) in [
        (String::new(), "no term of the loss"),
        (format!("{ce}{inner}"), "'inner-max' prepares the batch, so it must come before 'cross-entropy'"),
        (format!("{ema}{ce}"), "'cross-entropy' is a term of the loss, so it must come before 'ema'"),
        (format!("{inner}{inner}{ce}"), "attacked in place already"),
        (format!("{ce}{ema}{ema}"), "two averages"),
        (format!("{ce}[[stages]]\nstage = 'cross-entropy'\nview = 'adversarial'\n"), "reads the view 'adversarial'"),
        (format!("{inner}into = 'batch'\n{ce}"), "makes the view 'batch', which is there already"),
    ] {
        let stages = if stages.is_empty() { "stages = []".to_string() } else { stages };
        let message = refused(&format!("name = 'mine'\n{stages}"));
        assert!(message.contains(reason), "expected '{reason}' in: {message}");
    }
}

#[test]
fn a_stage_of_another_crate_is_found_by_name() {
    let recipe = Recipe::from_toml(
        "name = 'pairs'\n[[stages]]\nstage = 'inner-max'\ninto = 'adversarial'\nattack.name = 'pgd'\n\
         [[stages]]\nstage = 'cross-entropy'\n[[stages]]\nstage = 'pair'\nother = 'adversarial'",
    );
    let text = recipe.unwrap().explain().unwrap();
    assert!(text.contains("squared distance") && text.contains("each of batch, adversarial"), "{text}");
}

#[test]
fn a_text_that_is_no_recipe_is_refused() {
    assert!(matches!(Recipe::from_toml("stages = 3"), Err(Error::Parse { .. })));
}
