//! What will be run, and what it will cost, before anything is.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use fireproof_attacks::{AttackConfig, Context, build};
use fireproof_datasets::{Dataset, Split};
use fireproof_report::{Class, Header, Part, RowKey};
use fireproof_tensor::{Affine, Batch, Counted, Passes, Precision, Unit, random::Stream, victim};
use sha2::{Digest, Sha256};

use crate::{
    Checks, DataSettings, Error, Result, Selection, Settings, Subject, Trial, Weights, adversarial::Given,
    settings::each_once,
};

/// Everything that is going to happen, in its order.
///
/// Equal settings give equal plans; a run is resumed only by a plan whose [`header`](Plan::header) is equal.
pub struct Plan {
    /// What a records file says of its run.
    pub header: Header,
    /// The work.
    pub jobs: Vec<Job>,
    /// The images, in the order in which they are attacked.
    pub images: Vec<PlannedImage>,
    /// The data's classes.
    pub classes: Vec<Class>,
    /// The models.
    pub subjects: Vec<Subject>,
    /// The models that transfer attacks look at, by the file's path as given.
    pub sources: BTreeMap<String, Subject>,
    /// Where attacks that learn from many images find them.
    pub(crate) training: DataSettings,
    /// The images' data set.
    pub dataset: Box<dyn Dataset>,
    /// All randomness derives from the seed of a row; this is the first of them, and that of the checks.
    pub seed: u64,
    /// The sanity checks that take runs of their own.
    pub checks: Checks,
}

/// An image of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedImage {
    /// Its id in the data set's split.
    pub id: u64,
    /// Its name.
    pub name: String,
}

/// One attack of one model on one device. A long run whose iterates are the results of shorter runs gives several rows.
#[derive(Clone, Debug)]
pub struct Job {
    /// Index into [`Plan::subjects`].
    pub subject: usize,
    /// The device's name.
    pub device: String,
    /// In which precision the model computes.
    pub precision: Precision,
    /// What is done; of several rows, the longest run.
    pub trial: Trial,
    /// All randomness derives from it.
    pub seed: u64,
    /// Index into the header's rows, and after how many steps the row is read; in ascending order.
    pub rows: Vec<(usize, usize)>,
    /// Passes that the job makes for each image.
    pub passes: Passes,
    /// Passes by which it learns before the first image, if it does. Every shard learns for itself, so no row counts them.
    pub learning: Passes,
}

impl Plan {
    /// Plans the evaluation: opens the data, reads and checks the weights, builds the attacks.
    ///
    /// # Errors
    /// Whatever in the settings cannot be followed.
    pub fn new(settings: &Settings) -> Result<Self> {
        let dataset = settings.data.open()?;
        let images: Vec<PlannedImage> = (0..dataset.len())
            .map(|index| PlannedImage { id: dataset.id(index), name: dataset.sample_name(index) })
            .collect();
        let ids: Vec<u64> = images.iter().map(|image| image.id).collect();
        if settings.weights.is_empty() {
            return Err(Error::setting("--weights", "none", "at least one file"));
        }
        if settings.trials.is_empty() {
            return Err(Error::setting("--attacks", "none", "at least one, or 'none' for clean images"));
        }
        if settings.precisions.is_empty() {
            return Err(Error::setting("--precision", "none", "at least one"));
        }
        let places = settings.devices.iter().flat_map(|device| settings.precisions.iter().map(move |p| (device, *p)));
        let places: Vec<(&String, Precision)> = places.collect();
        for (device, precision) in &places {
            precision.dtype(&fireproof_tensor::device::open(device)?)?;
        }
        for target in settings.trials.iter().filter_map(Trial::config).filter_map(|config| config.target.as_ref()) {
            target.check(dataset.classes().len())?;
        }
        let Some(&first_seed) = settings.seeds.first() else {
            return Err(Error::setting("--seed", "none", "at least one"));
        };
        each_once(&settings.trials)?;
        if let Some(config) = settings.trials.iter().filter_map(Trial::config).find(|c| c.unit != Unit::Pixel)
            && dataset.slice(0).is_none()
        {
            let expected = format!("pixel: {} has no volumes to normalise by", dataset.name());
            return Err(Error::setting("--unit", config.unit, expected));
        }
        let subjects = Subject::open_all(&settings.weights, dataset.as_ref())?;
        let sources = sources(settings, dataset.as_ref())?;
        let training = DataSettings { split: Split::Train, ..settings.data.clone() };
        let learning = learning(settings, &training)?;
        let groups = groups(&settings.trials)?;
        let shape = (dataset.channels(), dataset.classes().len());
        let costs = groups.iter().map(|group| cost(&settings.trials, group, shape)).collect::<Result<Vec<_>>>()?;

        let (mut rows, mut jobs) = (Vec::new(), Vec::new());
        for (device, precision) in places {
            for (subject, facts) in subjects.iter().enumerate() {
                let place = (device.as_str(), precision);
                for &seed in &settings.seeds {
                    // Without an attack there is nothing random.
                    let wanted = |trial: usize| seed == first_seed || settings.trials[trial].config().is_some();
                    let mut row_of = vec![0; settings.trials.len()];
                    for (index, trial) in settings.trials.iter().enumerate().filter(|(index, _)| wanted(*index)) {
                        row_of[index] = rows.len();
                        rows.push(key(trial, facts, dataset.as_ref(), place, seed));
                    }
                    for (group, cost) in groups.iter().zip(&costs).filter(|(group, _)| wanted(group.longest)) {
                        jobs.push(Job {
                            subject,
                            device: device.clone(),
                            precision,
                            trial: settings.trials[group.longest].clone(),
                            seed,
                            rows: group.rows.iter().map(|&(trial, steps)| (row_of[trial], steps)).collect(),
                            passes: cost.each,
                            learning: cost.learning,
                        });
                    }
                }
            }
        }
        let header = Header {
            version: env!("CARGO_PKG_VERSION").into(),
            plan: described(settings, dataset.as_ref(), &images, (&sources, learning))?,
            weights: subjects.iter().map(|subject| (subject.weights.clone(), subject.sha256.clone())).collect(),
            classes: dataset.classes().len(),
            rows,
            part: settings.shard.map(|shard| Part::new(shard, &ids)),
        };
        let classes = dataset.classes().iter();
        let classes = classes.map(|class| Class { name: class.name.clone(), color: class.color }).collect();
        // What half precision cannot hold becomes zero, which looks like a masked gradient: never without the check for it.
        let half = settings.precisions.iter().any(|precision| *precision != Precision::F32);
        let checks = if half && settings.checks == Checks::Off { Checks::Cheap } else { settings.checks };
        Ok(Self { header, jobs, images, classes, subjects, sources, training, dataset, seed: first_seed, checks })
    }

    /// Positions in [`images`](Plan::images) of those that this process evaluates: all, or those of its shard.
    pub fn own(&self) -> Vec<usize> {
        let part = self.header.part.as_ref();
        let here = |position: &usize| {
            // A shard's ids are ascending.
            part.is_none_or(|part| part.images.binary_search(&self.images[*position].id).is_ok())
        };
        (0..self.images.len()).filter(here).collect()
    }

    /// Passes of the whole plan, over all images that this process evaluates.
    pub fn passes(&self) -> Passes {
        let images = self.own().len() as u64;
        let total = self.jobs.iter().fold(Passes::default(), |sum, job| sum + job.passes);
        let learning = self.jobs.iter().fold(Passes::default(), |sum, job| sum + job.learning);
        Passes { forward: total.forward * images, backward: total.backward * images } + learning
    }
}

/// Settings that rows do not name, by the name of their option.
fn described(
    settings: &Settings,
    dataset: &dyn Dataset,
    images: &[PlannedImage],
    (sources, learning): (&BTreeMap<String, Subject>, Option<String>),
) -> Result<BTreeMap<String, String>> {
    let mut hash = Sha256::new();
    images.iter().for_each(|image| hash.update(format!("{} {}\n", image.id, image.name)));
    let list = format!("{} images, list {}", images.len(), &hex(&hash.finalize())[..12]);
    let size = settings.data.size.map_or("as stored".into(), |(height, width)| format!("{width}x{height}"));
    let mut plan = BTreeMap::from([
        ("data".to_owned(), dataset.name().to_owned()),
        ("split".to_owned(), dataset.split().to_owned()),
        ("images".to_owned(), list),
        ("size".to_owned(), size),
        ("seed".to_owned(), joined(&settings.seeds)),
        ("checks".to_owned(), settings.checks.to_string()),
        ("devices".to_owned(), settings.devices.join(", ")),
    ]);
    if settings.precisions != [Precision::F32] {
        let precisions: Vec<String> = settings.precisions.iter().map(ToString::to_string).collect();
        plan.insert("precision".into(), precisions.join(", "));
    }
    if dataset.name() == "scenes" {
        plan.insert("generator".into(), fireproof_datasets::scenes::VERSION.to_string());
    }
    // Rows hold all of this too, but a message about an option is easier to read than one about the third row.
    for config in settings.trials.iter().filter_map(Trial::config) {
        say(&mut plan, "attacks", config.name.clone());
        say(&mut plan, "eps", exact(config.epsilon).to_string());
        if config.unit != Unit::Pixel {
            say(&mut plan, "unit", config.unit.to_string());
        }
        say(&mut plan, "norm", config.norm.to_string());
        say(&mut plan, "restarts", config.restarts.to_string());
        if !is_single_step(config) {
            if let Some(alpha) = step_size(config) {
                say(&mut plan, "alpha", alpha.to_string());
            }
            say(&mut plan, "steps", config.steps.to_string());
        }
    }
    if let Some(learning) = learning {
        plan.insert("learning".into(), learning);
    }
    for source in sources.values() {
        say(&mut plan, "source", source.sha256.clone());
    }
    for trial in &settings.trials {
        match trial {
            Trial::Clean => {}
            Trial::Attack(config) => {
                for (name, value) in &config.options {
                    say(&mut plan, &format!("{}.{name}", config.name), value.clone());
                }
                if let Some(target) = &config.target {
                    plan.insert(format!("{}.target", config.name), target.to_string());
                }
                if config.range != [0.0, 1.0] {
                    plan.insert(format!("{}.range", config.name), format!("{:?}", config.range));
                }
            }
            Trial::Given { file, set } => {
                let digest = crate::subject::digest(file)?;
                plan.insert(format!("adversarial.{set}"), digest);
            }
        }
    }
    Ok(plan)
}

/// Adds a value to those of an option, each once.
fn say(plan: &mut BTreeMap<String, String>, option: &str, value: String) {
    let values = plan.entry(option.to_owned()).or_default();
    if !values.split(", ").any(|one| one == value) {
        *values += if values.is_empty() { "" } else { ", " };
        *values += &value;
    }
}

fn joined(values: &[u64]) -> String {
    values.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

fn key(
    trial: &Trial,
    subject: &Subject,
    dataset: &dyn Dataset,
    (device, precision): (&str, Precision),
    seed: u64,
) -> RowKey {
    let clean = RowKey {
        model: subject.model.clone(),
        training: subject.training.clone(),
        weights: subject.weights.clone(),
        dataset: dataset.name().to_owned(),
        split: dataset.split().to_owned(),
        device: device.to_owned(),
        precision: precision.to_string(),
        attack: "none".into(),
        norm: None,
        epsilon: None,
        alpha: None,
        steps: 0,
        restarts: 0,
        iterate: None,
        start: None,
        targeted: false,
        seed,
        options: BTreeMap::new(),
    };
    match trial {
        Trial::Clean => clean,
        Trial::Attack(config) => RowKey {
            attack: config.name.clone(),
            norm: bounded(config).then(|| config.norm.to_string()),
            epsilon: bounded(config).then(|| exact(config.epsilon)),
            alpha: step_size(config),
            steps: config.steps as u32,
            restarts: config.restarts as u32,
            iterate: Some(config.iterate.to_string()),
            start: Some(config.start.to_string()),
            targeted: config.target.is_some(),
            options: own_options(config),
            ..clean
        },
        Trial::Given { set, .. } => RowKey { attack: Given::attack_name(set), ..clean },
    }
}

/// Whether ε bounds what the attack does.
pub(crate) fn bounded(config: &AttackConfig) -> bool {
    build(config).is_ok_and(|attack| attack.bounded())
}

/// Options that are not the attack's defaults.
fn own_options(config: &AttackConfig) -> BTreeMap<String, String> {
    let default = AttackConfig::new(&config.name).map(|default| default.options).unwrap_or_default();
    config
        .options
        .iter()
        .filter(|(name, value)| default.get(*name) != Some(value))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

/// The length of the attack's steps, where they have one.
fn step_size(config: &AttackConfig) -> Option<f64> {
    build(config).ok()?.step_size().map(exact)
}

fn is_single_step(config: &AttackConfig) -> bool {
    AttackConfig::new(&config.name).is_ok_and(|default| default.steps == 1)
}

/// The number that a person meant by this `f32`: a quarter of 1/255 times a whole number, or the shortest decimal.
fn exact(value: f32) -> f64 {
    let quarters = f64::from(value) * 1020.0;
    let fraction = quarters.round() / 1020.0;
    if quarters.round() >= 1.0 && fraction as f32 == value {
        return fraction;
    }
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// Rows that one run serves, as indices into the trials.
struct Rows {
    longest: usize,
    rows: Vec<(usize, usize)>,
}

fn groups(trials: &[Trial]) -> Result<Vec<Rows>> {
    let mut groups: Vec<Rows> = Vec::new();
    for (index, trial) in trials.iter().enumerate() {
        let Trial::Attack(config) = trial else {
            groups.push(Rows { longest: index, rows: vec![(index, 0)] });
            continue;
        };
        let joins =
            |group: &&mut Rows| matches!(&trials[group.longest], Trial::Attack(other) if same_but_steps(config, other));
        let shares = build(config)?.contains_shorter_runs();
        match groups.iter_mut().find(joins).filter(|_| shares) {
            Some(group) => {
                group.rows.push((index, config.steps));
                group.rows.sort_by_key(|&(_, steps)| steps);
                group.longest = group.rows.last().map_or(index, |&(trial, _)| trial);
            }
            None => groups.push(Rows { longest: index, rows: vec![(index, config.steps)] }),
        }
    }
    Ok(groups)
}

fn same_but_steps(a: &AttackConfig, b: &AttackConfig) -> bool {
    AttackConfig { steps: b.steps, ..a.clone() } == *b
}

/// The images that attacks learn from, in words; `None` if none learns.
fn learning(settings: &Settings, training: &DataSettings) -> Result<Option<String>> {
    let mut most = 0;
    for config in settings.trials.iter().filter_map(Trial::config) {
        most = most.max(build(config)?.learns().map_or(0, |learns| learns.images()));
    }
    if most == 0 {
        return Ok(None);
    }
    let data = DataSettings { selection: Selection::AtMost(most), ..training.clone() }.open()?;
    let mut hash = Sha256::new();
    (0..data.len()).for_each(|index| hash.update(format!("{} {}\n", data.id(index), data.sample_name(index))));
    Ok(Some(format!("{}, {} images, list {}", data.split(), data.len(), &hex(&hash.finalize())[..12])))
}

/// The weights that transfer attacks look at.
fn sources(settings: &Settings, dataset: &dyn Dataset) -> Result<BTreeMap<String, Subject>> {
    let mut sources = BTreeMap::new();
    for config in settings.trials.iter().filter_map(Trial::config) {
        let attack = build(config)?;
        let Some(path) = attack.source() else { continue };
        if path.is_empty() {
            let option = format!("--attack-option {}.source", config.name);
            return Err(Error::setting(&option, "none", "the weights file of the model that the images are made for"));
        }
        if !sources.contains_key(path) {
            let open = |overrides| {
                let (inference, joined) = (Default::default(), Vec::new());
                let file = Weights { path: path.into(), overrides, inference, joined };
                Subject::open_all(&[file], dataset).map(|mut all| all.remove(0))
            };
            // What was said about the victims' files may hold for this one too, if it does not name its network itself.
            let said = settings.weights[0].overrides.clone();
            let source = open(Default::default()).or_else(|error| open(said).map_err(|_| error))?;
            sources.insert(path.to_owned(), source);
        }
    }
    Ok(sources)
}

/// What a job costs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// For each image, at most.
    pub(crate) each: Passes,
    /// Before the first one.
    pub(crate) learning: Passes,
    /// Runs of an ensemble that the attack tells of.
    pub(crate) runs: u64,
}

/// Passes at most: an attack that has nothing left to fool ends early. Each row is scored by one forward pass, and so is each
/// run of an ensemble.
fn cost(trials: &[Trial], group: &Rows, shape: (usize, usize)) -> Result<Cost> {
    let scoring = Passes { forward: group.rows.len() as u64, backward: 0 };
    let Trial::Attack(config) = &trials[group.longest] else { return Ok(Cost { each: scoring, ..Cost::default() }) };
    let cost = attack_cost(config, shape)?;
    Ok(Cost { each: cost.each + scoring + Passes { forward: cost.runs, backward: 0 }, ..cost })
}

/// What an attack costs without its scoring: it is run on a tiny image against a one-layer stand-in, which is never fooled
/// everywhere and so makes as many passes as any model.
pub(crate) fn attack_cost(config: &AttackConfig, (channels, classes): (usize, usize)) -> Result<Cost> {
    const SIDE: usize = 8;
    let device = Device::flex();
    let stream = Stream::new(&[0x706c_616e]);
    let pixels = (0..channels * SIDE * SIDE).map(|i| 0.25 + 0.5 * stream.uniform(i as u64)).collect();
    let labels: Vec<u8> = (0..SIDE * SIDE).map(|i| (i % classes) as u8).collect();
    let mut batch = Batch::from_host(pixels, &labels, [1, channels, SIDE, SIDE], vec![0], &device)?;
    let all = |value: f32| Tensor::full([1, channels], value, &device);
    batch.affine = Some(Affine { mean: all(0.5), std: all(0.25) });
    let scale: Tensor<4> =
        Tensor::<1>::from_floats((0..classes).map(|class| 1.0 + class as f32).collect::<Vec<_>>().as_slice(), &device)
            .reshape([1, classes, 1, 1]);
    let stand_in = victim(|images: Tensor<4>| images.mean_dim(1).repeat_dim(1, classes) * scale.clone());
    let mut attack = build(config)?;
    let mut learning = Passes::default();
    if let Some(learns) = attack.learns() {
        let (learned, one) = learns.learn(&stand_in, std::slice::from_ref(&batch), &Context::new(0))?;
        let images = learns.images() as u64;
        learning = Passes { forward: one.forward * images, backward: one.backward * images };
        attack = learns.with(learned)?;
    }
    let counted = Counted::new(&stand_in);
    let found = attack.run(&counted, &batch, &Context::new(0))?;
    Ok(Cost { each: counted.passes(), learning, runs: found.candidates.len() as u64 })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(name: &str, steps: usize) -> Trial {
        Trial::Attack(AttackConfig { steps, ..AttackConfig::new(name).unwrap() })
    }

    #[test]
    fn a_long_run_serves_shorter_rows_only_where_its_iterates_are_theirs() {
        let trials =
            [Trial::Clean, trial("pgd", 3), trial("segpgd", 3), trial("pgd", 10), trial("segpgd", 10), trial("pgd", 7)];
        let groups = groups(&trials).unwrap();
        let found: Vec<_> = groups.iter().map(|group| (group.longest, group.rows.clone())).collect();
        let expected = [(0, vec![(0, 0)]), (3, vec![(1, 3), (5, 7), (3, 10)]), (2, vec![(2, 3)]), (4, vec![(4, 10)])];
        assert_eq!(found, expected);
    }

    #[test]
    fn another_radius_is_another_run() {
        let other = AttackConfig { epsilon: 0.03, steps: 10, ..AttackConfig::new("pgd").unwrap() };
        assert_eq!(groups(&[trial("pgd", 3), Trial::Attack(other)]).unwrap().len(), 2);
    }

    #[test]
    fn passes_are_those_of_the_longest_run_and_one_a_row_to_score_it() {
        let trials = [trial("pgd", 3), trial("pgd", 10)];
        let groups = groups(&trials).unwrap();
        let passes = cost(&trials, &groups[0], (3, 5)).unwrap().each;
        assert_eq!((passes.forward, passes.backward), (12, 10));
    }

    #[test]
    fn numbers_are_written_as_people_say_them() {
        assert_eq!(exact(8.0 / 255.0), 8.0 / 255.0);
        assert_eq!(exact(0.5 / 255.0), 0.5 / 255.0);
        assert_eq!((exact(0.03), exact(0.01), exact(1.0)), (0.03, 0.01, 1.0));
    }
}
