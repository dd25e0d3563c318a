//! Follows a plan, image by image, and records what it finds.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_attacks::{Attack, AttackConfig, Context, Learns, Minimal, Observer, View, build};
use fireproof_datasets::{Mask, Sample, batch};
use fireproof_report::{Candidate, Panel, RECORDS_FILE, Record, RecordWriter, Records, Results, Run, Smallest, sanity};
use fireproof_tensor::{Batch, Counted, InUnit, Norm, Passes, Precision, Targets, Unit, VOID, Victim, host};

use crate::adversarial::{Given, Keep};
use crate::score::{Prediction, predict, values};
use crate::{DataSettings, Error, Job, Plan, Result, Selection, Trial, facts, pictures};

/// How a plan is run; no number depends on it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Goes on with the records that the folder holds.
    pub resume: bool,
    /// Images in a batch; `None` chooses by their size.
    pub batch: Option<usize>,
    /// Images of which pictures are made.
    pub pictures: usize,
    /// Where to write the adversarial images of all attacked rows, see [`adversarial`](crate::adversarial).
    pub save_adversarial: Option<PathBuf>,
    /// The command line, for the report.
    pub command: String,
    /// What a complete evaluation would hold and this one does not, for the report.
    pub not_run: Vec<String>,
}

/// Where a run is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Passes made and recorded so far, a backward pass counted as two; with those of an earlier run.
    pub done: u64,
    /// Passes of the plan, counted likewise.
    pub total: u64,
    /// Those of `done` that this process made.
    pub made: u64,
    /// What is being done.
    pub now: String,
}

impl Plan {
    /// Runs whatever is not recorded in `folder` yet, and writes the results and the report there.
    ///
    /// Records are appended image by image, so a run that was killed loses the batch it was working on. `watch` is told
    /// after every batch.
    ///
    /// # Errors
    /// When a folder holds another run, an attack or a model fails, or a file cannot be written.
    pub fn run(&self, folder: &Path, options: &Options, watch: &mut dyn FnMut(&Progress)) -> Result<Results> {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        let path = folder.join(RECORDS_FILE);
        let (writer, records) = if options.resume {
            RecordWriter::resume(&path, &self.header)?
        } else {
            (RecordWriter::create(&path, &self.header)?, Records::new(self.header.clone()))
        };
        let keep = options.save_adversarial.as_deref().map(|target| Keep::new(folder, target)).transpose()?;
        let total = weigh(self.passes());
        let progress = Progress { done: 0, total, made: 0, now: String::new() };
        let mut runner = Runner { plan: self, folder, path, writer, records, keep, options, progress, watch };
        runner.all()?;
        let Runner { records, keep, mut progress, watch, .. } = runner;
        let measured = self.check(folder, &mut |now| {
            now.clone_into(&mut progress.now);
            watch(&progress);
        })?;
        if let Some(keep) = keep {
            keep.finish(&self.header.rows, &self.images)?;
        }
        let mut results = Results::from_records(self.facts(options), &records);
        results.run.sanity = sanity::judge(&results.rows, &measured);
        results.run.measured = measured;
        fireproof_report::write_all(folder, &results, &pictures::read(folder)?)?;
        Ok(results)
    }

    fn facts(&self, options: &Options) -> Run {
        let mut devices: Vec<&str> = self.jobs.iter().map(|job| job.device.as_str()).collect();
        devices.dedup();
        Run {
            version: facts::VERSION.into(),
            commit: facts::COMMIT.into(),
            command: options.command.clone(),
            device: devices.join(", "),
            machine: facts::machine(),
            seed: self.seed,
            unit: self.unit().to_string(),
            range: [0.0, 1.0],
            weights: self.header.weights.clone(),
            classes: self.classes.clone(),
            sanity: Vec::new(),
            measured: Vec::new(),
            not_run: options.not_run.clone(),
        }
    }

    /// The unit of the plan's radii.
    fn unit(&self) -> Unit {
        self.jobs.iter().find_map(|job| job.trial.config()).map_or(Unit::Pixel, |config| config.unit)
    }

    /// The jobs whose result is worth a picture: of each model and device, the longest run of the last attack.
    fn pictured(&self, job: &Job) -> bool {
        let siblings = || {
            self.jobs.iter().filter(|other| {
                (other.subject, &other.device, other.precision) == (job.subject, &job.device, job.precision)
            })
        };
        let steps = |job: &Job| job.rows.last().map_or(0, |&(_, steps)| steps);
        let last = siblings().rev().find(|other| other.trial != Trial::Clean);
        let same = |other: &&Job| match (&other.trial, last.map(|last| &last.trial)) {
            (Trial::Attack(a), Some(Trial::Attack(b))) => a.name == b.name,
            (a, Some(b)) => a == b,
            _ => false,
        };
        siblings().filter(same).max_by_key(|other| steps(other)).is_some_and(|chosen| std::ptr::eq(chosen, job))
    }
}

/// A backward pass to the input costs about as much as the forward pass, and the forward pass under it is counted too.
pub(crate) fn weigh(passes: Passes) -> u64 {
    passes.forward + passes.backward
}

/// A batch of equally large images, and which rows each of them lacks.
struct Work {
    samples: Vec<Sample>,
    /// Their positions in the plan.
    positions: Vec<usize>,
}

struct Runner<'a> {
    plan: &'a Plan,
    folder: &'a Path,
    path: PathBuf,
    writer: RecordWriter,
    records: Records,
    keep: Option<Keep>,
    options: &'a Options,
    progress: Progress,
    watch: &'a mut dyn FnMut(&Progress),
}

/// Which model is loaded, where, and in which precision.
type Place<'a> = (usize, &'a str, Precision);

/// What one row found for a batch.
struct Found {
    row: usize,
    images: Tensor<4>,
    /// What each run of an ensemble made, by its name.
    runs: Vec<(String, Tensor<4>)>,
    /// The images' labels, where they are not the data's.
    targets: Option<Targets>,
    /// The smallest perturbations, of an attack that looks for them.
    minimal: Option<Minimal>,
    passes: Passes,
    seconds: f64,
}

impl Found {
    /// Images that no attack of ours made.
    fn plain(row: usize, images: Tensor<4>) -> Self {
        let (runs, passes) = (Vec::new(), Passes::default());
        Self { row, images, runs, targets: None, minimal: None, passes, seconds: 0.0 }
    }
}

impl Runner<'_> {
    fn all(&mut self) -> Result<()> {
        let done = self.records.done();
        let images = &self.plan.images;
        let missing =
            |job: &Job, position: &usize| job.rows.iter().any(|&(row, _)| !done.contains(&(row, images[*position].id)));
        let own = self.plan.own();
        for job in &self.plan.jobs {
            let recorded = own.iter().filter(|position| !missing(job, position)).count();
            self.progress.done += recorded as u64 * weigh(job.passes);
        }
        let mut loaded: Option<(Place, Device, Box<dyn Victim + Send + Sync>)> = None;
        for job in &self.plan.jobs {
            let positions: Vec<usize> = own.iter().copied().filter(|position| missing(job, position)).collect();
            if positions.is_empty() {
                self.progress.done += weigh(job.learning);
                continue;
            }
            let subject = &self.plan.subjects[job.subject];
            let place = (job.subject, job.device.as_str(), job.precision);
            if loaded.as_ref().is_none_or(|(known, ..)| *known != place) {
                let device = fireproof_tensor::device::open(&job.device)?;
                // The old victim goes first: two large models may not fit.
                drop(loaded.take());
                let victim = subject.victim(&*subject.load(&device)?, job.precision)?;
                loaded = Some((place, device, victim));
            }
            let (_, device, victim) = loaded.as_ref().expect("loaded above");
            self.progress.now = format!("{} {}: {}", subject.model, subject.training, label(job));
            let means = self.means(job, &**victim, device)?;
            let mut group = Work { samples: Vec::new(), positions: Vec::new() };
            for position in positions {
                let sample = self.plan.dataset.get(position)?;
                let shape = |sample: &Sample| (sample.image.channels, sample.image.size());
                let fits = group.samples.first().is_none_or(|first| shape(first) == shape(&sample));
                let full = |group: &Work| group.samples.len() >= batch_size(self.options.batch, &group.samples[0]);
                if !group.samples.is_empty() && (!fits || full(&group)) {
                    let work = std::mem::replace(&mut group, Work { samples: Vec::new(), positions: Vec::new() });
                    self.batch((job, means.as_ref()), &**victim, device, work, &done)?;
                }
                group.samples.push(sample);
                group.positions.push(position);
            }
            self.batch((job, means.as_ref()), &**victim, device, group, &done)?;
        }
        Ok(())
    }

    /// The attack of a job, ready to be run: with what it learns learned and the model that it looks at loaded.
    fn means(&mut self, job: &Job, victim: &dyn Victim, device: &Device) -> Result<Option<Means>> {
        let Some(config) = job.trial.config() else { return Ok(None) };
        let mut attack = build(config)?;
        let source = match attack.source() {
            Some(path) => {
                let subject = &self.plan.sources[path];
                Some((subject.load(device)?.victim(), subject.unit))
            }
            None => None,
        };
        let learned = match attack.learns() {
            Some(learns) => Some(learns.with(self.learned(job, learns, victim, device)?)?),
            None => None,
        };
        self.progress.done += weigh(job.learning);
        attack = learned.unwrap_or(attack);
        Ok(Some(Means { attack, source }))
    }

    /// What an attack learns, from the folder if it is there already.
    fn learned(&mut self, job: &Job, learns: &dyn Learns, victim: &dyn Victim, device: &Device) -> Result<Tensor<4>> {
        let path = self.folder.join("learned").join(format!("{}.safetensors", job.rows[0].0));
        if path.exists() {
            return crate::adversarial::tensor(&path, device);
        }
        let selection = Selection::AtMost(learns.images());
        let data = DataSettings { selection, ..self.plan.training.clone() }.open()?;
        let mut batches = Vec::new();
        let mut samples: Vec<Sample> = Vec::new();
        for index in 0..data.len() {
            samples.push(data.get(index)?);
            if samples.len() >= batch_size(self.options.batch, &samples[0]) || index + 1 == data.len() {
                batches.push(batch(&std::mem::take(&mut samples), device)?);
            }
        }
        let unit = self.plan.subjects[job.subject].unit;
        if unit != Unit::Pixel {
            let expected = "a model whose images are pixels";
            return Err(Error::setting("--attacks", format!("one that learns, and a model in {unit} units"), expected));
        }
        let (learned, _) = learns.learn(victim, &batches, &Context::new(job.seed))?;
        self.progress.made += weigh(job.learning);
        let shape = learned.dims();
        crate::adversarial::save(&path, &[(crate::adversarial::ONLY, &shape, &values(&learned).concat())])?;
        Ok(learned)
    }

    fn batch(
        &mut self,
        (job, means): (&Job, Option<&Means>),
        victim: &dyn Victim,
        device: &Device,
        work: Work,
        done: &BTreeSet<(usize, u64)>,
    ) -> Result<()> {
        let clean = batch(&work.samples, device)?;
        // Everything here is in pixels; what the model makes of them is its affair.
        let victim = &InUnit::new(victim, &clean, clean.unit, self.plan.subjects[job.subject].unit)?;
        let found = match &job.trial {
            Trial::Clean => {
                vec![Found::plain(job.rows[0].0, clean.images.clone())]
            }
            Trial::Given { file, set } => {
                vec![Found::plain(job.rows[0].0, self.given(file, set, &clean, &work)?)]
            }
            Trial::Attack(config) => {
                let means = means.expect("an attack's job has its means");
                let found = attacked(job, means, victim, &clean)?;
                for images in found.iter().flat_map(|one| one.runs.iter().map(|run| &run.1).chain([&one.images])) {
                    inside(config, means.attack.bounded(), &clean, images, &work)?;
                }
                found
            }
        };
        let n = work.samples.len() as u64;
        for Found { row, images, runs, targets, minimal, passes, seconds } in found {
            let moved = targets.map(|targets| relabelled(&work.samples, &targets));
            let judged = moved.as_deref().unwrap_or(&work.samples);
            let started = Instant::now();
            let counted = Counted::new(victim);
            let predictions = predict(&counted, &images)?;
            let runs: Vec<(String, Vec<Prediction>)> = runs
                .into_iter()
                .map(|(name, images)| Ok((name, predict(&counted, &images)?)))
                .collect::<Result<_>>()?;
            let passes = passes + counted.passes();
            let seconds = (seconds + started.elapsed().as_secs_f64()) / n as f64;
            self.pictures(job, row, victim, &clean, &images, &predictions, &work)?;
            let pixels = self.keep.is_some().then(|| values(&images));
            for (at, (sample, prediction)) in judged.iter().zip(&predictions).enumerate() {
                if done.contains(&(row, sample.id)) {
                    continue;
                }
                if !prediction.finite || runs.iter().any(|(_, predictions)| !predictions[at].finite) {
                    let key = &self.plan.header.rows[row];
                    return Err(Error::NotFinite {
                        model: key.weights.clone(),
                        device: key.device.clone(),
                        image: sample.name.clone(),
                        attack: key.attack.clone(),
                    });
                }
                if let (Some(keep), Some(pixels), true) = (&self.keep, &pixels, job.trial != Trial::Clean) {
                    let image = &sample.image;
                    keep.add(row, sample.id, [image.channels, image.height, image.width], &pixels[at])?;
                }
                let record = Record {
                    row,
                    image: sample.id,
                    name: sample.name.clone(),
                    volume: sample.case.as_ref().map(|case| case.slice.volume),
                    counts: prediction.count(sample, self.plan.header.classes)?,
                    sizes: Some(prediction.count_sizes(sample, self.plan.header.classes)?),
                    calibration: Some(prediction.calibration(sample)?),
                    candidates: runs
                        .iter()
                        .map(|(name, predictions)| {
                            let counts = predictions[at].count(sample, self.plan.header.classes)?;
                            Ok(Candidate { name: name.clone(), counts })
                        })
                        .collect::<Result<_>>()?,
                    minimal: minimal.as_ref().map(|found| Smallest {
                        norm: f64::from(found.norms[at]),
                        success: f64::from(found.success[at]),
                    }),
                    forward_passes: share(passes.forward, n, at as u64),
                    backward_passes: share(passes.backward, n, at as u64),
                    seconds,
                    trace: None,
                };
                self.writer.append(&record)?;
                self.records.insert(&self.path, record)?;
            }
        }
        let made = n * weigh(job.passes);
        self.progress.done += made;
        self.progress.made += made;
        (self.watch)(&self.progress);
        Ok(())
    }

    fn given(&self, file: &Path, set: &str, clean: &Batch, work: &Work) -> Result<Tensor<4>> {
        let given = Given::open(file)?;
        let mut pixels = Vec::new();
        for (sample, &position) in work.samples.iter().zip(&work.positions) {
            let shape = [sample.image.channels, sample.image.height, sample.image.width];
            let image = given.image(set, &self.plan.images, position, shape)?;
            if let Some(&wrong) = image.iter().find(|pixel| !(0.0..=1.0).contains(*pixel)) {
                let (attack, expected) = (Given::attack_name(set), "0 to 1".to_owned());
                return Err(Error::Outside {
                    attack,
                    image: sample.name.clone(),
                    what: "a pixel",
                    found: wrong,
                    expected,
                });
            }
            pixels.extend(image);
        }
        Ok(Tensor::from_data(TensorData::new(pixels, clean.dims()), &clean.images.device()))
    }

    #[allow(clippy::too_many_arguments)]
    fn pictures(
        &self,
        job: &Job,
        row: usize,
        victim: &dyn Victim,
        clean: &Batch,
        images: &Tensor<4>,
        after: &[Prediction],
        work: &Work,
    ) -> Result<()> {
        let longest = job.rows.last().is_some_and(|&(last, _)| last == row);
        let wanted: Vec<usize> =
            (0..work.samples.len()).filter(|&at| work.positions[at] < self.options.pictures).collect();
        if !longest || wanted.is_empty() || !self.plan.pictured(job) {
            return Ok(());
        }
        // The victim must see the whole batch: it may know each case's statistics.
        let before = predict(victim, &clean.images)?.into_iter().enumerate();
        let before = before.filter(|(at, _)| wanted.contains(at)).map(|(_, prediction)| prediction);
        let pixels = values(&clean.with_images(images.clone()).select(&wanted).images);
        for ((at, before), adversarial) in wanted.iter().copied().zip(before).zip(pixels) {
            let sample = &work.samples[at];
            let key = &self.plan.header.rows[row];
            let panel = Panel {
                caption: format!("{} {}, {}, image {}", key.model, key.training, label(job), sample.name),
                height: sample.image.height,
                width: sample.image.width,
                range: [0.0, 1.0],
                image: sample.image.data.clone(),
                adversarial,
                labels: sample.mask.data.clone(),
                before: before.bytes(),
                after: after[at].bytes(),
            };
            pictures::write(self.folder, row, work.positions[at], &panel)?;
        }
        Ok(())
    }
}

/// An attack that is ready to be run, and the model that it looks at in place of the victim.
struct Means {
    attack: Box<dyn Attack>,
    source: Option<(Box<dyn Victim + Send + Sync>, Unit)>,
}

/// Samples with the labels that belong to their changed images.
fn relabelled(samples: &[Sample], targets: &Targets) -> Vec<Sample> {
    let labels = targets.labels().clone().mask_fill(targets.void(), i32::from(VOID));
    let labels = host::integers(labels);
    let pixels = (labels.len() / samples.len()).max(1);
    let one = |(sample, labels): (&Sample, &[i32])| {
        // Labels are at most 255, as they were in the sample.
        let data = labels.iter().map(|&label| u8::try_from(label).unwrap_or(VOID)).collect();
        Sample { mask: Mask { data, ..sample.mask.clone() }, ..sample.clone() }
    };
    samples.iter().zip(labels.chunks(pixels)).map(one).collect()
}

/// Runs an attack once; rows of fewer steps are read on the way.
fn attacked(job: &Job, means: &Means, victim: &dyn Victim, clean: &Batch) -> Result<Vec<Found>> {
    let attack = &*means.attack;
    let counted = Counted::new(victim);
    // Whoever is asked, a pass is a pass.
    let source = means.source.as_ref().map(|(source, unit)| InUnit::new(&**source, clean, clean.unit, *unit));
    let source = source.transpose()?;
    let source = source.as_ref().map(|source| Counted::new(source));
    let passes = || counted.passes() + source.as_ref().map(Counted::passes).unwrap_or_default();
    let started = Instant::now();
    let rows: BTreeMap<usize, usize> = job.rows.iter().map(|&(row, steps)| (steps, row)).collect();
    let found: RefCell<Vec<Found>> = RefCell::default();
    // Passes made until the current iterate was known: all but the one that shows it.
    let before = RefCell::new(Passes::default());
    let observer = |view: &View<'_>| {
        let known = before.replace(passes());
        if let Some(&row) = rows.get(&view.step).filter(|_| view.step < view.steps) {
            let seconds = started.elapsed().as_secs_f64();
            found.borrow_mut().push(Found { passes: known, seconds, ..Found::plain(row, view.images.clone()) });
        }
    };
    let shared = rows.len() > 1;
    let observer: Option<&dyn Observer> = if shared { Some(&observer) } else { None };
    let context =
        Context { observer, source: source.as_ref().map(|source| source as &dyn Victim), ..Context::new(job.seed) };
    let result = attack.run(&counted, clean, &context)?;
    let seconds = started.elapsed().as_secs_f64();
    let row = job.rows.last().map_or(0, |&(row, _)| row);
    let mut found = found.take();
    let runs = result.candidates.into_iter().map(|run| (run.name, run.images)).collect();
    let (targets, minimal) = (result.targets, result.minimal);
    found.push(Found { row, images: result.images, runs, targets, minimal, passes: passes(), seconds });
    Ok(found)
}

/// Refuses images outside the threat model: outside the range, and outside the ball if there is one.
fn inside(config: &AttackConfig, bounded: bool, clean: &Batch, images: &Tensor<4>, work: &Work) -> Result<()> {
    let n = work.samples.len();
    let own = |images: Tensor<4>| clean.convert(images, clean.unit, config.unit);
    let norms = host::floats(config.norm.of(own(images.clone())? - own(clean.images.clone())?));
    let flat = images.clone().reshape([n as i32, -1]);
    let extremes = [flat.clone().min_dim(1), flat.max_dim(1)].map(host::floats);
    // Rounding: the sum of a pixel near one and the radius is exact to 6e-8; a root of a sum of squares to a few parts in 1e5.
    let slack = match config.norm {
        Norm::Linf if config.unit == Unit::Pixel => 1e-6,
        // A small standard deviation makes the rounding of a pixel as many times larger.
        Norm::Linf => 1e-4 * config.epsilon.max(0.1),
        Norm::L2 => 1e-4 * config.epsilon.max(1.0),
    };
    let [low, high] = config.range;
    for at in 0..n {
        let error = |what, found, expected| Error::Outside {
            attack: config.name.clone(),
            image: work.samples[at].name.clone(),
            what,
            found,
            expected,
        };
        if norms[at].is_nan() || bounded && norms[at] > config.epsilon + slack {
            return Err(error("the perturbation's norm", norms[at], format!("at most {}", config.epsilon)));
        }
        if let Some(&wrong) = extremes.iter().map(|values| &values[at]).find(|value| !(low..=high).contains(*value)) {
            return Err(error("a pixel", wrong, format!("{low} to {high}")));
        }
    }
    Ok(())
}

/// What image `at` of `n` contributes to a total.
fn share(total: u64, n: u64, at: u64) -> u64 {
    total / n + u64::from(at < total % n)
}

/// Large images one by one, small ones by as many as keep the cores busy.
pub(crate) fn batch_size(wanted: Option<usize>, sample: &Sample) -> usize {
    const PIXELS: usize = 8 * 96 * 128;
    wanted.unwrap_or((PIXELS / (sample.image.height * sample.image.width).max(1)).clamp(1, 16))
}

fn label(job: &Job) -> String {
    match &job.trial {
        Trial::Clean => "clean".into(),
        Trial::Attack(config) if config.steps > 1 => format!("{} with {} steps", config.name, config.steps),
        Trial::Attack(config) => config.name.clone(),
        Trial::Given { set, .. } => Given::attack_name(set),
    }
}
