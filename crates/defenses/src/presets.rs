//! Recipes by name that are settings of the stage `margin`, and adversarial fine-tuning.
//!
//! `docs/recipes/margin.md` has the sources of the numbers, and what differs from the released code.

use fireproof_attacks::AttackConfig;
use fireproof_metrics::EmptyClass;
use fireproof_tensor::Norm;
use serde_json::json;

use crate::{
    Guard, Radius, Recipe, Regulator,
    margin::{Bracket, Criterion, Expand, Keep, Over, Refine, Update},
    recipe::stage,
    stage::{BATCH, StageConfig, options},
    stages::{Active, Clean, CleanActive, CrossEntropy, InnerMax, Margin, MeanOver, StartRadius, Unit},
};

const ADVERSARIAL: &str = "adversarial";

/// Names of these recipes for segmentation, with what they are in a few words; but for the last one, each exists with
/// `-classification` too.
pub(crate) const NAMES: [(&str, &str); 9] = [
    ("ima", "each sample within its own margin"),
    ("amat", "each sample within its own margin, for segmentation"),
    ("ame", "each sample within its own margin"),
    ("iaat", "each sample within a radius of its own"),
    ("sat", "a fixed radius on the margin engine"),
    ("fat", "attacks that stop where they have just succeeded"),
    ("gairat", "samples near the boundary count more"),
    ("mma", "each sample within its own margin, maximised"),
    ("regulated-finetune", "fine-tuning whose radius is regulated by the clean loss"),
];

/// The recipe of that name, if it is one of these.
pub(crate) fn find(name: &str) -> Option<Recipe> {
    if name == "regulated-finetune" {
        return regulated_finetune(name);
    }
    let (method, task) = match name.strip_suffix("-classification") {
        Some(method) => (method, Task::Classification),
        None => (name, Task::Segmentation),
    };
    let (margin, mix) = settings(method, task)?;
    let mut stages = vec![stage("margin", options(&margin))];
    if let Some(clean) = mix.clean {
        stages.push(cross_entropy(BATCH, clean, MeanOver::Samples));
    }
    stages.push(cross_entropy(ADVERSARIAL, mix.adversarial, mix.over));
    Some(Recipe { name: name.into(), selection: None, guard: None, stages })
}

#[derive(Clone, Copy, PartialEq)]
enum Task {
    Segmentation,
    Classification,
}

/// Weights of the loss of both views, and what the adversarial one is divided by.
struct Mix {
    clean: Option<f64>,
    adversarial: f64,
    over: MeanOver,
}

/// The settings of a method. Segmentation has IMA's numbers for the hippocampus, per root of the image's values; classification those
/// for CIFAR-10.
fn settings(method: &str, task: Task) -> Option<(Margin, Mix)> {
    let half = |over| Mix { clean: Some(0.5), adversarial: 0.5, over };
    let alone = || Mix { clean: None, adversarial: 1.0, over: MeanOver::Weights };
    let segmentation = task == Task::Segmentation;
    let dice = |threshold| Criterion::Dice { threshold, over: Over::Max, empty: EmptyClass::Monai };
    // ℓ2 radii of 15 and 2 for images of 56 x 40 values.
    let base = match task {
        Task::Segmentation => Margin {
            unit: Unit::Rms,
            delta: 0.0423,
            cap: Some(0.317),
            start: StartRadius::Inner,
            criterion: dice(Some(0.6)),
            bracket: Bracket::Crossing,
            active: Active::Right,
            ..Margin::default()
        },
        Task::Classification => {
            Margin { delta: 0.03, cap: Some(3.0), objective: "soft-margin".into(), ..Margin::default() }
        }
    };
    let fixed = |base: Margin| Margin {
        initial: base.cap,
        bracket: Bracket::None,
        active: Active::All,
        update: Update::Fixed,
        start: StartRadius::Full,
        ..base
    };
    let grow = |expand, refine, patience| Update::Grow { expand, refine, freeze_after: None, patience };
    Some(match method {
        "ima" => {
            let over = if segmentation { MeanOver::Weights } else { MeanOver::Samples };
            (base, half(over))
        }
        "amat" => {
            let margin = Margin {
                delta: if segmentation { 0.0106 } else { base.delta },
                cap: None,
                criterion: if segmentation { dice(None) } else { Criterion::Label },
                clean: Clean::Always,
                bracket: Bracket::None,
                active: Active::All,
                update: grow(Expand::Constant, Refine::None, None),
                ..base
            };
            (margin, half(MeanOver::Weights))
        }
        "ame" => {
            let margin = Margin {
                norm: Norm::Linf,
                unit: Unit::Image,
                delta: 2.0 / 255.0,
                cap: None,
                keep: Keep::Right,
                update: grow(Expand::Decayed, Refine::Mean, Some(5)),
                ..base
            };
            (margin, half(MeanOver::Samples))
        }
        "iaat" => {
            let gamma = base.delta;
            let margin = Margin {
                bracket: Bracket::None,
                active: Active::All,
                update: Update::Probe { gamma, smooth: 0.1 },
                ..base
            };
            (margin, alone())
        }
        "sat" => (fixed(base), alone()),
        "fat" => (Margin { stop_after: Some(1), ..fixed(base) }, alone()),
        "gairat" => (Margin { active: Active::Geometry { lambda: 0.0 }, ..fixed(base) }, alone()),
        "mma" => {
            let bracket = base.bracket;
            let margin = Margin { bracket, active: Active::Right, clean_active: CleanActive::Wrong, ..fixed(base) };
            (margin, Mix { clean: Some(1.0), adversarial: 1.0, over: MeanOver::Samples })
        }
        _ => return None,
    })
}

fn cross_entropy(view: &str, weight: f64, mean_over: MeanOver) -> StageConfig {
    let mut term = CrossEntropy::default();
    (term.view, term.weight, term.mean_over) = (view.into(), weight, mean_over);
    stage("cross-entropy", options(&term))
}

/// Clean and adversarial loss in equal parts, the adversary regulated by the clean loss, running statistics those of clean
/// images, and of the weights the most robust ones that lose at most a point of clean mIoU.
fn regulated_finetune(name: &str) -> Option<Recipe> {
    let attack = AttackConfig { steps: 10, ..AttackConfig::new("pgd").ok()? };
    let radius =
        Radius::Regulated { by: Regulator::CleanLoss, rate: 0.05, tolerance: 0.1, reference: None, least: 0.05 };
    let inner = InnerMax::new(attack.clone(), 1.0, Some(ADVERSARIAL.into())).ok()?.with_radius(radius);
    let mode = json!({ "view": ADVERSARIAL, "mode": "train-without-update" });
    let serde_json::Value::Object(mode) = mode else { return None };
    Some(Recipe {
        name: name.into(),
        selection: Some(attack),
        guard: Some(Guard { tolerance: 0.01, reference: None }),
        stages: vec![
            stage("inner-max", options(&inner)),
            stage("batch-norm", mode),
            cross_entropy(BATCH, 0.5, MeanOver::Weights),
            cross_entropy(ADVERSARIAL, 0.5, MeanOver::Weights),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_recipe_whose_stages_fit() {
        for method in ["ima", "amat", "ame", "iaat", "sat", "fat", "gairat", "mma"] {
            for name in [method.to_string(), format!("{method}-classification")] {
                let recipe = find(&name).unwrap();
                let resolved = recipe.resolved().unwrap();
                assert_eq!(resolved, resolved.resolved().unwrap(), "{name}");
                let written = toml::to_string(&resolved).unwrap();
                assert_eq!(Recipe::from_toml(&written).unwrap(), resolved, "{name}");
            }
        }
        assert!(find("regulated-finetune").unwrap().explain().unwrap().contains("clean loss stays below"));
        assert!(find("regulated-finetune-classification").is_none() && find("nothing").is_none());
    }

    #[test]
    fn a_step_of_ima_announces_the_passes_of_its_paper() {
        let words = find("ima-classification").unwrap().explain().unwrap();
        // 21 of PGD, 10 halvings, the clean and the adversarial pass.
        assert!(words.contains("33 forward, 20 backward to the input, 2 backward to the parameters"), "{words}");
    }
}
