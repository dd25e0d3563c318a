//! Recipes: which stages a step of training has, as data.

use std::{fmt::Write, path::Path};

use fireproof_attacks::AttackConfig;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, presets,
    stage::{BATCH, Cost, Describe, Hook, Options, Prepare, Replay, Stage, StageConfig, Term, Weights, registered},
    stages::{CrossEntropy, DiceCe, InnerMax},
};

/// The stages of a step, in their order, and what selects the best weights.
///
/// A name of a preset, a TOML file and a JSON file are the same thing; a checkpoint stores the recipe with all defaults
/// filled in.
///
/// ```
/// use fireproof_defenses::Recipe;
///
/// let preset = Recipe::preset("segpgd3-at")?;
/// let written = Recipe::from_toml(
///     r#"
///     name = "segpgd3-at"
///     [selection]
///     name = "segpgd"
///     steps = 3
///     [[stages]]
///     stage = "inner-max"
///     share = 0.5
///     attack = { name = "segpgd", steps = 3 }
///     [[stages]]
///     stage = "cross-entropy"
///     auxiliary = 0.4
///     "#,
/// )?;
/// assert_eq!(preset.resolved()?, written.resolved()?);
/// # Ok::<(), fireproof_defenses::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What tables call it.
    pub name: String,
    /// The attack whose validation mIoU selects the best weights and stops early; without one the clean mIoU does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<AttackConfig>,
    /// Keeps only weights whose clean score stays near that of the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// The stages, in their order.
    pub stages: Vec<StageConfig>,
}

/// Which weights may be kept as the best: those whose clean validation mIoU is at least `reference − tolerance`.
///
/// The weights that a run begins with are scored too, and are the best ones until better ones may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// How much clean mIoU may be lost, as a fraction: 0.01 is a point.
    pub tolerance: f64,
    /// The clean mIoU to compare with, as a fraction; that of the start if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<f64>,
}

/// A recipe known by name wherever its crate is linked. Register it with `inventory::submit!`.
///
/// ```
/// inventory::submit! {
///     fireproof_defenses::RecipeEntry {
///         about: "adversarial training with a second opinion",
///         text: r#"
///             name = "my-at"
///             [selection]
///             name = "pgd"
///             [[stages]]
///             stage = "inner-max"
///             attack.name = "pgd"
///             [[stages]]
///             stage = "cross-entropy"
///         "#,
///     }
/// }
/// # fn main() { assert_eq!(fireproof_defenses::Recipe::preset("my-at").unwrap().stages.len(), 2); }
/// ```
pub struct RecipeEntry {
    /// What it is, in a few words, for lists.
    pub about: &'static str,
    /// The recipe as a TOML file holds it, with its name.
    pub text: &'static str,
}

inventory::collect!(RecipeEntry);

/// Every registered recipe with what it is in a few words, by name.
///
/// # Panics
/// If a registered text is no recipe; the message says what is wrong with it.
pub fn recipes() -> Vec<(Recipe, &'static str)> {
    let parse = |entry: &RecipeEntry| {
        (Recipe::from_toml(entry.text).unwrap_or_else(|error| panic!("{error} in:\n{}", entry.text)), entry.about)
    };
    let margin = presets::NAMES.iter().filter_map(|(name, about)| Some((presets::find(name)?, *about)));
    let mut recipes: Vec<_> = inventory::iter::<RecipeEntry>().map(parse).chain(margin).collect();
    recipes.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    recipes
}

/// The forms that [`Recipe::preset`] knows besides registered names.
const PRESETS: &str = "'{attack}{steps}-at' such as 'pgd3-at' or 'segpgd7-at' (half of each batch attacked), '{attack}{steps}-at-full' (all of \
                       it), a recipe of margins with '-classification', any recipe with '-dice' (nnU-Net's loss instead of cross-entropy), or the \
                       path of a .toml or .json file";

impl Recipe {
    /// A recipe by name: `standard`, `pgd3-at`, `segpgd7-at-full`, …, with radius 8/255 and step size 0.01 (the SegPGD
    /// paper: 0.03 and 0.01).
    ///
    /// `{attack}{steps}-at` replaces the second half of each batch by its adversarial images, as the SegPGD paper does;
    /// with `-full` all of it is replaced. Beside these forms there are the names that [`recipes`] lists. `-dice` behind any
    /// name puts Dice plus cross-entropy of each image in the place of cross-entropy: `ima-dice`, `segpgd3-at-full-dice`.
    ///
    /// ```
    /// let recipe = fireproof_defenses::Recipe::preset("trades-dice")?;
    /// let stages: Vec<_> = recipe.stages.iter().map(|stage| stage.stage.as_str()).collect();
    /// assert_eq!(stages, ["inner-max", "dice-ce", "trades"]);
    /// # Ok::<(), fireproof_defenses::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownRecipe`], or the attack's error for a name that is no attack.
    pub fn preset(name: &str) -> Result<Self> {
        let registered = recipes();
        if let Some((recipe, _)) = registered.iter().find(|(recipe, _)| recipe.name == name) {
            return Ok(recipe.clone());
        }
        let unknown = || {
            let names = registered.iter().map(|(recipe, _)| recipe.name.as_str()).collect::<Vec<_>>().join(", ");
            Error::UnknownRecipe { name: name.into(), expected: format!("one of {names}, or {PRESETS}") }
        };
        if let Some(recipe) = presets::find(name) {
            return Ok(recipe);
        }
        if let Some(plain) = name.strip_suffix("-dice") {
            return Self::preset(plain).map_err(|_| unknown())?.with_dice(name);
        }
        let (attacked, share) = match name.strip_suffix("-at-full") {
            Some(attacked) => (attacked, 1.0),
            None => (name.strip_suffix("-at").ok_or_else(unknown)?, 0.5),
        };
        let method = attacked.trim_end_matches(|c: char| c.is_ascii_digit());
        let mut attack = AttackConfig::new(method).map_err(|_| unknown())?;
        if method.len() < attacked.len() {
            attack.steps = attacked[method.len()..].parse().map_err(|_| unknown())?;
        }
        let inner = InnerMax::new(attack.clone(), share, None)?;
        let inner = stage("inner-max", crate::stage::options(&inner));
        let cross_entropy = stage("cross-entropy", crate::stage::options(&CrossEntropy::default()));
        Ok(Self { name: name.into(), selection: Some(attack), guard: None, stages: vec![inner, cross_entropy] })
    }

    /// The same with nnU-Net's loss of each image in the place of every cross-entropy.
    fn with_dice(mut self, name: &str) -> Result<Self> {
        self.name = name.into();
        let mut changed = 0;
        for term in self.stages.iter_mut().filter(|stage| stage.stage == "cross-entropy") {
            let mut dice = crate::stage::options(&DiceCe::default());
            dice.insert("batch_dice".into(), false.into());
            dice.extend(
                term.options
                    .iter()
                    .filter(|(key, _)| ["view", "weight", "mean_over"].contains(&key.as_str()))
                    .map(|(k, v)| (k.clone(), v.clone())),
            );
            *term = stage("dice-ce", dice);
            changed += 1;
        }
        let expected = || "a recipe with a stage 'cross-entropy' for '-dice' to replace".into();
        match changed {
            0 => Err(Error::Setting { what: "recipe", found: format!("'{name}'"), expected: expected() }),
            _ => Ok(self),
        }
    }

    /// A recipe by the path of a `.toml` or `.json` file, or by the name of a preset.
    ///
    /// # Errors
    /// Those of [`preset`](Self::preset) and [`from_toml`](Self::from_toml), or the file's.
    pub fn find(name_or_path: &str) -> Result<Self> {
        let path = Path::new(name_or_path);
        let read = || std::fs::read_to_string(path).map_err(Error::io("read the recipe", path));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => toml::from_str(&read()?).map_err(|error| parse_error(name_or_path, error)),
            Some("json") => serde_json::from_str(&read()?).map_err(|error| parse_error(name_or_path, error)),
            _ => Self::preset(name_or_path),
        }
    }

    /// Reads a recipe from TOML.
    ///
    /// # Errors
    /// [`Error::Parse`]. Stages are looked up by [`resolved`](Self::resolved) and when training begins.
    pub fn from_toml(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| parse_error("TOML", error))
    }

    /// Sets one option: `STAGE.OPTION` in every stage of that name, `selection.OPTION` of the selecting attack. The value is
    /// TOML or a quotient such as 8/255; anything else is taken as a word. Deeper options have further dots.
    ///
    /// ```
    /// use fireproof_defenses::Recipe;
    ///
    /// let mut recipe = Recipe::preset("segpgd3-at")?;
    /// recipe.set("inner-max.attack.epsilon", "0.03")?;
    /// recipe.set("inner-max.share", "1.0")?;
    /// assert_eq!(recipe.stages[0].options["share"], 1.0);
    /// # Ok::<(), fireproof_defenses::Error>(())
    /// ```
    ///
    /// # Errors
    /// If no stage has that name, or the selecting attack does not take the value. What stages take is checked by
    /// [`resolved`](Self::resolved).
    pub fn set(&mut self, path: &str, value: &str) -> Result<()> {
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
        let parsed = parsed.and_then(|mut table| table.remove("value"));
        let quotient =
            || Some(value.split_once('/')?.0.parse::<f64>().ok()? / value.split_once('/')?.1.parse::<f64>().ok()?);
        let json = match parsed {
            Some(value) => serde_json::to_value(value).unwrap_or_default(),
            None => quotient().map_or_else(|| value.into(), Into::into),
        };
        let wrong = |found: String, expected: String| Error::Setting { what: "recipe option", found, expected };
        let Some((head, rest)) = path.split_once('.') else {
            return Err(wrong(format!("'{path}'"), "STAGE.OPTION or selection.OPTION".into()));
        };
        if head == "selection" {
            let Some(attack) = &self.selection else {
                return Err(wrong(format!("'{path}'"), "a recipe with a selecting attack".into()));
            };
            let mut options = crate::stage::options(attack);
            place(&mut options, rest, json);
            let found = format!("'{path}' = {value}");
            let changed = crate::stage::parse(options).map_err(|reason| wrong(found, reason))?;
            self.selection = Some(changed);
            return Ok(());
        }
        let mut stages: Vec<_> = self.stages.iter_mut().filter(|stage| stage.stage == head).collect();
        if stages.is_empty() {
            let names: Vec<_> = self.stages.iter().map(|stage| stage.stage.as_str()).collect();
            return Err(wrong(format!("'{path}'"), format!("an option of {} or selection", names.join(", "))));
        }
        stages.iter_mut().for_each(|stage| place(&mut stage.options, rest, json.clone()));
        Ok(())
    }

    /// The same recipe with every stage's defaults filled in.
    ///
    /// # Errors
    /// For stages that are unknown, have wrong options, or contradict each other.
    pub fn resolved(&self) -> Result<Self> {
        Ok(Pipeline::build(self)?.recipe)
    }

    /// Passes of a step per image of the batch, as far as they are known before it: where a stage decides by what it sees, the
    /// most.
    ///
    /// # Errors
    /// As [`resolved`](Self::resolved).
    pub fn cost(&self) -> Result<Cost> {
        Ok(Pipeline::build(self)?.cost())
    }

    /// The stages in words, with the passes that a step is expected to cost.
    ///
    /// # Errors
    /// As [`resolved`](Self::resolved).
    pub fn explain(&self) -> Result<String> {
        let pipeline = Pipeline::build(self)?;
        let mut lines = vec![("batch".to_string(), "drawn and augmented by the loader's threads".to_string())];
        lines.extend(pipeline.prepare.iter().map(|named| (named.name.clone(), named.stage.explain())));
        let views = match pipeline.views.as_slice() {
            [_] => "one pass in training mode".to_string(),
            views => format!("a pass in training mode for each of {}", views.join(", ")),
        };
        lines.push(("forward".into(), views));
        if let Some(Named { name, stage }) = &pipeline.replay {
            // Before the pass, of which every replay has one.
            let at = lines.len() - 1;
            lines.insert(at, (name.clone(), stage.explain()));
        }
        lines.extend(pipeline.terms.iter().map(|named| (named.name.clone(), named.stage.explain())));
        lines.extend(pipeline.weights.iter().map(|named| (named.name.clone(), named.stage.explain())));
        lines.push(("step".into(), "gradients of the sum, optimizer, running statistics".into()));
        lines.extend(pipeline.hooks.iter().map(|named| (named.name.clone(), named.stage.explain())));
        let mut selection = match &self.selection {
            Some(attack) => format!("highest validation mIoU under {}", describe(attack)),
            None => "highest clean validation mIoU".into(),
        };
        if let Some(Guard { tolerance, reference }) = self.guard {
            let reference = reference.map_or("the start's".into(), |reference| reference.to_string());
            let _ = write!(selection, ", of weights whose clean mIoU is at most {tolerance} below {reference}");
        }
        lines.push(("keep".into(), selection));

        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = format!("{}\n", self.name);
        for (position, (name, words)) in lines.iter().enumerate() {
            let _ = writeln!(text, "{:3}  {name:width$}  {words}", position + 1);
        }
        let Cost { forward, input_backward, full_backward } = pipeline.cost();
        let _ = writeln!(
            text,
            "passes per image and step: {forward} forward, {input_backward} backward to the input, {full_backward} backward to \
             the parameters"
        );
        Ok(text)
    }
}

/// An attack in a few words.
pub(crate) fn describe(attack: &AttackConfig) -> String {
    format!(
        "{} ({} step{}, {} radius {:.5}, step size {:.5})",
        attack.name,
        attack.steps,
        if attack.steps == 1 { "" } else { "s" },
        attack.norm,
        attack.epsilon,
        attack.step()
    )
}

pub(crate) fn stage(name: &str, options: Options) -> StageConfig {
    StageConfig { stage: name.into(), options }
}

fn parse_error(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Parse { what: what.into(), reason: error.to_string() }
}

/// Puts a value at a dotted path, through maps that are made where they are missing.
fn place(options: &mut Options, path: &str, value: serde_json::Value) {
    match path.split_once('.') {
        None => drop(options.insert(path.into(), value)),
        Some((head, rest)) => {
            let below = options.entry(head).or_insert_with(|| Options::new().into());
            if !below.is_object() {
                *below = Options::new().into();
            }
            place(below.as_object_mut().expect("made an object just now"), rest, value);
        }
    }
}

/// A stage with its name in the recipe.
pub(crate) struct Named<T: ?Sized> {
    pub(crate) name: String,
    pub(crate) stage: Box<T>,
}

/// A recipe's stages, built and checked.
pub(crate) struct Pipeline {
    /// The recipe with all defaults filled in.
    pub(crate) recipe: Recipe,
    pub(crate) prepare: Vec<Named<dyn Prepare>>,
    pub(crate) replay: Option<Named<dyn Replay>>,
    pub(crate) terms: Vec<Named<dyn Term>>,
    pub(crate) weights: Vec<Named<dyn Weights>>,
    pub(crate) hooks: Vec<Named<dyn Hook>>,
    views: Vec<String>,
}

impl Pipeline {
    pub(crate) fn build(recipe: &Recipe) -> Result<Self> {
        let contradiction = |reason: String| Error::Contradiction { recipe: recipe.name.clone(), reason };
        if let Some(attack) = &recipe.selection {
            fireproof_attacks::build(attack)?;
        }
        if let Some(Guard { tolerance, reference }) = recipe.guard {
            for (what, value) in [("tolerance of the guard", Some(tolerance)), ("reference of the guard", reference)] {
                if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
                    return Err(Error::Setting { what, found: value.to_string(), expected: "0 to 1".into() });
                }
            }
        }
        let mut views = vec![BATCH.to_string()];
        let mut resolved: Vec<StageConfig> = Vec::new();
        let mut places: Vec<Place> = Vec::new();
        let mut pipeline = Self {
            recipe: recipe.clone(),
            prepare: Vec::new(),
            replay: None,
            terms: Vec::new(),
            weights: Vec::new(),
            hooks: Vec::new(),
            views: Vec::new(),
        };
        for (position, config) in recipe.stages.iter().enumerate() {
            let built = build_stage(recipe, position + 1, config)?;
            let describe = built.describe();
            if let Some(missing) = describe.reads().into_iter().find(|view| !views.contains(view)) {
                let there = views.join(", ");
                return Err(contradiction(format!(
                    "'{}' reads the view '{missing}', but before it there are only: {there}",
                    config.stage
                )));
            }
            if let Some(reason) = describe.contradiction(&resolved) {
                return Err(contradiction(format!("'{}' cannot stand here: {reason}", config.stage)));
            }
            if let Some(twice) = describe.makes().into_iter().find(|view| views.contains(view)) {
                return Err(contradiction(format!(
                    "'{}' makes the view '{twice}', which is there already",
                    config.stage
                )));
            }
            views.extend(describe.makes());
            let options = describe.options();
            let name = config.stage.clone();
            let place = Place::of(&built);
            if let Some(later) = places.iter().position(|earlier| *earlier > place) {
                let later: &StageConfig = &resolved[later];
                let what = place.in_words();
                return Err(contradiction(format!("'{name}' {what}, so it must come before '{}'", later.stage)));
            }
            places.push(place);
            match built {
                Stage::Prepare(stage) => pipeline.prepare.push(Named { name: name.clone(), stage }),
                Stage::Replay(stage) => {
                    if let Some(Named { name: first, .. }) = &pipeline.replay {
                        return Err(contradiction(format!(
                            "'{first}' and '{name}' both say how a batch is stepped on"
                        )));
                    }
                    if let [_, other, ..] = &views[..] {
                        return Err(contradiction(format!(
                            "'{name}' perturbs the batch by the gradient of the step itself, and knows nothing of the view \
                             '{other}'"
                        )));
                    }
                    pipeline.replay = Some(Named { name: name.clone(), stage });
                }
                Stage::Term(stage) => pipeline.terms.push(Named { name: name.clone(), stage }),
                Stage::Weights(stage) => pipeline.weights.push(Named { name: name.clone(), stage }),
                Stage::Hook(stage) => pipeline.hooks.push(Named { name: name.clone(), stage }),
            }
            resolved.push(StageConfig { stage: name, options });
        }
        if pipeline.terms.is_empty() {
            return Err(contradiction("it has no term of the loss, so there is nothing to descend".into()));
        }
        pipeline.recipe.stages = resolved;
        pipeline.views = views;
        Ok(pipeline)
    }

    /// Optimizer steps on each batch.
    pub(crate) fn replays(&self) -> usize {
        self.replay.as_ref().map_or(1, |named| named.stage.replays())
    }

    /// Passes of a step per image of the batch.
    pub(crate) fn cost(&self) -> Cost {
        let sum = |costs: &mut dyn Iterator<Item = Cost>| costs.fold(Cost::default(), |sum, cost| sum + cost);
        let prepare = sum(&mut self.prepare.iter().map(|named| named.stage.cost()));
        let terms = sum(&mut self.terms.iter().map(|named| named.stage.cost()));
        let others = sum(&mut self.weights.iter().map(|named| named.stage.cost()))
            + sum(&mut self.hooks.iter().map(|named| named.stage.cost()));
        // What a stage adds to the backward passes to the parameters is its views' passes.
        let views = 1.0 + prepare.full_backward;
        let looks: usize = self.weights.iter().map(|named| named.stage.looks()).sum();
        let passes = views * (1 + looks) as f64;
        let once = Cost { forward: prepare.forward - prepare.full_backward, full_backward: 0.0, ..prepare };
        let share = 1.0 / self.replays() as f64;
        let once = Cost { forward: share * once.forward, input_backward: share * once.input_backward, ..once };
        Cost { forward: passes, input_backward: 0.0, full_backward: passes } + once + terms + others
    }

    /// Every stage with its position and name in the recipe.
    pub(crate) fn stages(&mut self) -> impl Iterator<Item = (String, &mut dyn Describe)> {
        let prepare = self.prepare.iter_mut().map(|n| (&n.name, &mut *n.stage as &mut dyn Describe));
        let replay = self.replay.iter_mut().map(|n| (&n.name, &mut *n.stage as &mut dyn Describe));
        let terms = self.terms.iter_mut().map(|n| (&n.name, &mut *n.stage as &mut dyn Describe));
        let weights = self.weights.iter_mut().map(|n| (&n.name, &mut *n.stage as &mut dyn Describe));
        let hooks = self.hooks.iter_mut().map(|n| (&n.name, &mut *n.stage as &mut dyn Describe));
        let all = prepare.chain(replay).chain(terms).chain(weights).chain(hooks).enumerate();
        all.map(|(position, (name, stage))| (format!("{}-{name}", position + 1), stage))
    }
}

/// Where in a step a stage stands; a recipe lists its stages in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Prepare,
    Replay,
    Term,
    Weights,
    Hook,
}

impl Place {
    fn of(stage: &Stage) -> Self {
        match stage {
            Stage::Prepare(_) => Self::Prepare,
            Stage::Replay(_) => Self::Replay,
            Stage::Term(_) => Self::Term,
            Stage::Weights(_) => Self::Weights,
            Stage::Hook(_) => Self::Hook,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Prepare => "prepares the batch",
            Self::Replay => "replays the batch",
            Self::Term => "is a term of the loss",
            Self::Weights => "chooses where the gradient is taken",
            Self::Hook => "looks at the new weights",
        }
    }
}

fn build_stage(recipe: &Recipe, position: usize, config: &StageConfig) -> Result<Stage> {
    let entries = registered();
    let Some(entry) = entries.iter().find(|entry| entry.name == config.stage) else {
        return Err(Error::UnknownStage {
            recipe: recipe.name.clone(),
            position,
            name: config.stage.clone(),
            expected: entries.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "),
        });
    };
    (entry.build)(config.options.clone()).map_err(|reason| Error::StageOptions {
        recipe: recipe.name.clone(),
        position,
        name: config.stage.clone(),
        reason,
    })
}
