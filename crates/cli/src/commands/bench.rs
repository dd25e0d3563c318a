//! `bench`: plan, run, report.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::Args;
use fireproof_datasets::Split;
use fireproof_eval::adversarial::Given;
use fireproof_eval::presets::{Entry, NO_ENSEMBLE, NO_TRANSFER, PRESETS, Preset, preset};
use fireproof_eval::{Estimate, Options, Plan, Selection, Settings, Trial, Weights};
use fireproof_report::{
    Check, Format, RECORDS_FILE, REPORT_FILE, Results, Shard, Status, Table, backends, corruptions, labels, launcher,
    minimal, sanity,
};
use fireproof_tensor::Precision;
use serde_json::json;

use crate::options::{AttackOptions, DataOptions, InferenceOptions, ModelOptions, tell_unused};
use crate::processes::Processes;
use crate::progress::Display;
use crate::workspace::{self, free_folder};

/// Attack models and write a table, curves, pictures and a report.
///
/// Without arguments: two small models that come with the repository, one trained normally and one adversarially, on
/// synthetic street scenes, under FGSM, PGD, SegPGD and CosPGD. With your own:
///
///   bench --data camvid --root DIR --weights runs/standard/best.safetensors --weights runs/segpgd3-at/best.safetensors
///
/// The output folder holds results.json, results.csv, curves and panels as PNG, report.html, and records.jsonl with every
/// image's counts, appended as they are made: an interrupted run goes on with --resume.
#[derive(Debug, Args)]
pub struct Bench {
    /// Which attacks and steps: quick, legacy, fast, standard, full or masking (see --list)
    #[arg(long, default_value = "quick", value_name = "NAME")]
    preset: String,
    #[command(flatten)]
    data: DataOptions,
    /// The split to attack
    #[arg(long, default_value = "test")]
    split: String,
    /// A weights file (.safetensors, .pth); repeat it to compare several
    #[arg(long, value_name = "FILE")]
    weights: Vec<PathBuf>,
    /// The weights files together are one model, which answers with the mean of their probabilities
    #[arg(long)]
    ensemble: bool,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    inference: InferenceOptions,
    /// Attacks by name, instead of the preset's; 'none' alone scores clean images
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    attacks: Vec<String>,
    /// Numbers of steps of the attacks that iterate [default: the preset's for the preset's attacks, else the attack's own]
    #[arg(long, value_name = "3,10,…", value_delimiter = ',')]
    steps: Vec<usize>,
    #[command(flatten)]
    attack: AttackOptions,
    /// Device by name; repeat it to run the same plan on several
    #[arg(long, default_value = "flex", value_name = "NAME")]
    device: Vec<String>,
    /// Number type of the models: f32, f16, bf16 or tf32, where the device has it; repeat it to compare. Attacks compute in f32
    #[arg(long, default_value = "f32", value_name = "TYPE")]
    precision: Vec<Precision>,
    /// The first so many images in list order [default: the preset's]
    #[arg(long, value_name = "N", conflicts_with = "frames")]
    images: Option<usize>,
    /// The images named in this file, one a line
    #[arg(long, value_name = "FILE")]
    frames: Option<PathBuf>,
    /// All randomness derives from it, image by image; several run every attack with each, for the spread
    #[arg(long, default_value = "0", value_name = "N,…", value_delimiter = ',')]
    seed: Vec<u64>,
    /// Evaluate one part of the images, i/n with i from 1, or what the launcher says (auto); `report DIR DIR … --out DIR`
    /// merges the parts
    #[arg(long, value_name = "i/n", conflicts_with = "save_adversarial")]
    shard: Option<String>,
    /// How many parts there are, where the launcher does not say (Kubernetes)
    #[arg(long, value_name = "N", requires = "shard")]
    of: Option<u32>,
    /// Fail if a sanity check failed or was not run
    #[arg(long)]
    strict: bool,
    /// Images in a batch; no number depends on it [default: by their size]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Images of which the report shows pictures
    #[arg(long, default_value_t = 2, value_name = "N")]
    pictures: usize,
    /// The output folder [default: runs/bench, or the first of bench-2, bench-3, … that is free]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the records in --out
    #[arg(long, requires = "out")]
    resume: bool,
    /// Write the adversarial images, F32 [N, C, H, W], in the order of the images
    #[arg(long, value_name = "FILE.safetensors")]
    save_adversarial: Option<PathBuf>,
    /// Score images made elsewhere: a tensor 'images' F32 [N, C, H, W] in the order of the images
    #[arg(long, value_name = "FILE.safetensors")]
    adversarial: Option<PathBuf>,
    /// List attacks, presets, networks and data sets, then stop
    #[arg(long)]
    list: bool,
    /// Print rows, passes, hours and memory, then stop
    #[arg(long)]
    plan: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Bench {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let mut out = std::io::stdout();
        if self.list {
            return Ok(write!(out, "{}", list(self.json)?)?);
        }
        let preset = preset(&self.preset)?;
        ensure!(self.batch != Some(0), "--batch: found 0, expected at least 1");
        if let Some(processes) = Processes::start().filter(|_| self.shard.is_none() && !self.plan) {
            return self.gathered(preset, &processes);
        }
        let folder = self.out.clone().unwrap_or_else(|| free_folder(Path::new("runs/bench"), RECORDS_FILE));
        // Before anything is read or measured: the mistake is seen at once.
        let records = folder.join(RECORDS_FILE);
        if records.exists() && !self.resume && !self.plan {
            return Err(fireproof_report::ReportError::Exists { path: records }.into());
        }
        let plan = Plan::new(&self.settings(preset, self.part()?)?)?;
        plan.subjects.iter().for_each(|subject| tell_unused(subject.path(), &subject.unused));
        if self.plan {
            return Ok(write!(out, "{}", self.planned(&plan)?)?);
        }
        if !self.json {
            eprintln!(
                "{} rows on {} images of {} into {}",
                plan.header.rows.len(),
                plan.own().len(),
                plan.dataset.name(),
                folder.display()
            );
            eprintln!("{}", costs(&plan, &plan.estimate(self.batch)?));
        }
        let results = self.evaluate(preset, &plan, &folder)?;
        self.tell(&results, &folder)
    }

    /// Runs a plan into a folder.
    fn evaluate(&self, preset: &Preset, plan: &Plan, folder: &Path) -> Result<Results> {
        let options = Options {
            resume: self.resume,
            batch: self.batch,
            pictures: self.pictures,
            save_adversarial: self.save_adversarial.clone(),
            command: command_line(),
            not_run: self.lacks(preset, plan),
        };
        let mut display = Display::new();
        let mut made = 0;
        let results = plan.run(folder, &options, &mut |progress| {
            made = progress.made;
            display.show(progress);
        });
        display.finish();
        if results.is_err() && made > 0 {
            eprintln!("what was found so far is kept; go on with --resume --out {}", folder.display());
        }
        Ok(results?)
    }

    /// One of the processes that `mpirun` started: each evaluates its shard, the first gathers them.
    fn gathered(&self, preset: &Preset, processes: &Processes) -> Result<()> {
        let ran = self.own_shard(preset, processes);
        // Everybody arrives here, whatever happened: nobody waits for one that failed.
        let all = processes.all_did(ran.is_ok());
        ran?;
        ensure!(all, "another process of this run failed; what was found so far is kept, go on with --resume");
        let out = self.out.as_deref().unwrap_or(Path::new(""));
        if processes.shard().index() > 1 {
            return Ok(());
        }
        let folders: Vec<PathBuf> = (1..=processes.shard().of()).map(|index| shard_folder(out, index)).collect();
        fireproof_report::merge::merge_into(&folders, out)?;
        self.tell(&Results::read(&out.join(Results::FILE))?, out)
    }

    fn own_shard(&self, preset: &Preset, processes: &Processes) -> Result<()> {
        let Some(out) = &self.out else { bail!("--out: found none, expected the folder that all processes share") };
        ensure!(self.save_adversarial.is_none(), "--save-adversarial: found it with several processes, expected one");
        let records = out.join(RECORDS_FILE);
        if records.exists() {
            return Err(fireproof_report::ReportError::Exists { path: records }.into());
        }
        let shard = processes.shard();
        let plan = Plan::new(&self.settings(preset, Some(shard))?)?;
        if shard.index() == 1 && !self.json {
            eprintln!("{} processes, {} images each at most", shard.of(), plan.own().len());
            eprintln!("each: {}", costs(&plan, &plan.estimate(self.batch)?));
        }
        self.evaluate(preset, &plan, &shard_folder(out, shard.index()))?;
        Ok(())
    }

    /// What was found, and the checks' say in how the command ends.
    fn tell(&self, results: &Results, folder: &Path) -> Result<()> {
        let mut out = std::io::stdout();
        if self.json {
            writeln!(out, "{}", results.to_json())?;
            return self.judge(results);
        }
        let further = Table::worst_cases(results).into_iter().chain(Table::dice(results));
        let further = further.chain(backends::table(&results.rows));
        let further = further.chain(minimal::table(results)).chain(corruptions::tables(results));
        for table in Table::miou(results, false).into_iter().chain(further) {
            writeln!(out, "{}", table.render(Format::Markdown))?;
        }
        writeln!(out, "{}", sanity::markdown(&results.run.sanity))?;
        let report = folder.join(REPORT_FILE);
        let report = report.canonicalize().unwrap_or(report);
        writeln!(out, "Report: {}", workspace::shown(&report))?;
        self.judge(results)
    }

    /// The sanity checks' say in how the command ends.
    fn judge(&self, results: &Results) -> Result<()> {
        let found = &results.run.sanity;
        let bad: Vec<&Check> = sanity::not_passed(found)
            .into_iter()
            .filter(|check| self.strict || check.status == Status::Failed)
            .collect();
        let told: Vec<String> = bad.iter().map(|check| format!("{}: {}", check.name, check.detail)).collect();
        if self.strict && !bad.is_empty() {
            bail!("--strict: {} of {} sanity checks did not pass\n  {}", bad.len(), found.len(), told.join("\n  "));
        }
        told.iter().for_each(|line| eprintln!("sanity check failed: {line}"));
        let half = results.rows.iter().any(|row| row.precision != Precision::F32.to_string());
        if let Some(hidden) = bad.iter().find(|check| half && check.name == sanity::Kind::Gradients.name()) {
            bail!("--precision: the gradient is hidden, so nothing here is a claim of robustness. {}", hidden.detail);
        }
        Ok(())
    }

    fn settings(&self, preset: &Preset, shard: Option<Shard>) -> Result<Settings> {
        let selection = match (&self.frames, self.images) {
            (Some(file), _) => Selection::Named(file.clone()),
            (None, Some(count)) => Selection::First(count),
            (None, None) => preset.images.map_or(Selection::All, Selection::AtMost),
        };
        let Ok(split) = self.split.parse::<Split>();
        let data = self.data.settings(split, selection);
        let files = if self.weights.is_empty() {
            let shipped = self.data.data == "scenes" && self.model.model.is_none();
            ensure!(
                shipped,
                "--weights: found none, expected at least one file (the shipped models are made for --data scenes)"
            );
            workspace::checkpoints()?
        } else {
            self.weights.clone()
        };
        let seed = self.seed.first().copied().unwrap_or(0);
        let mut weights: Vec<Weights> =
            files.iter().map(|file| self.model.weights(file, self.inference.settings(seed))).collect();
        if self.ensemble {
            ensure!(weights.len() > 1, "--ensemble: found one weights file, expected several");
            let joined = weights.split_off(1).into_iter().map(|file| file.path).collect();
            weights[0].joined = joined;
        }
        let trials = self.trials(preset)?;
        let (devices, precisions) = (self.device.clone(), self.precision.clone());
        let (seeds, checks) = (self.seed.clone(), preset.checks);
        Ok(Settings { data, weights, trials, devices, precisions, seeds, checks, shard })
    }

    /// What a complete evaluation would hold and this one does not.
    fn lacks(&self, preset: &Preset, plan: &Plan) -> Vec<String> {
        let ensemble =
            plan.jobs.iter().filter_map(|job| job.trial.config()).any(|config| config.name.starts_with("sea"));
        let made = |sentence: &str| match sentence {
            NO_ENSEMBLE => ensemble,
            NO_TRANSFER => !plan.sources.is_empty(),
            _ => false,
        };
        let known = preset.lacks.iter().filter(|sentence| !made(sentence));
        let mut lacks: Vec<String> = known.map(|sentence| (*sentence).to_owned()).collect();
        if self.attacks.is_empty() && self.adversarial.is_none() {
            let missing = preset.entries.iter().filter(|entry| !entry.exists());
            lacks.extend(missing.map(|entry| format!("This program has no attack '{}'.", entry.attack)));
        }
        lacks
    }

    fn part(&self) -> Result<Option<Shard>> {
        let lookup = |name: &str| std::env::var(name).ok();
        match self.shard.as_deref() {
            None => {
                if let Some(warning) = launcher::warning(lookup) {
                    eprintln!("warning: {warning}");
                }
                Ok(None)
            }
            Some("auto") => {
                let launched = launcher::auto(lookup, self.of)?;
                eprintln!("{launched}");
                Ok(Some(launched.shard))
            }
            Some(text) => {
                let shard: Shard = text.parse()?;
                ensure!(
                    self.of.is_none_or(|of| of == shard.of()),
                    "--of: found {}, expected {} as --shard says, or none",
                    self.of.unwrap_or_default(),
                    shard.of()
                );
                Ok(Some(shard))
            }
        }
    }

    fn trials(&self, preset: &Preset) -> Result<Vec<Trial>> {
        let mut trials = vec![Trial::Clean];
        if let Some(file) = &self.adversarial {
            let sets = Given::open(file)?.sets()?;
            trials.extend(sets.into_iter().map(|set| Trial::Given { file: file.clone(), set }));
        }
        let named: Vec<Entry>;
        let entries: Vec<Entry> = if !self.attacks.is_empty() {
            let names = self.attacks.iter().filter(|name| *name != "none");
            named = names.map(|name| Ok(Entry::new(known(name)?))).collect::<Result<_>>()?;
            // A preset's steps suit its own attacks; SEA with three steps would be none.
            let steps =
                |name: &str| preset.entries.iter().find(|own| own.attack == name).map_or(&[][..], |own| own.steps);
            named.into_iter().map(|entry| Entry { steps: steps(entry.attack), ..entry }).collect()
        } else if self.adversarial.is_some() {
            Vec::new()
        } else {
            // What looks at another model waits for the user to name it.
            let named = |entry: &&Entry| !entry.needs_source() || self.attack.gives(entry.attack, "source");
            preset.entries.iter().filter(|entry| entry.exists()).filter(named).copied().collect()
        };
        self.attack.check(&entries.iter().map(|entry| entry.attack.to_owned()).collect::<Vec<_>>())?;
        for entry in entries {
            let configs = entry.configs(preset.epsilon, &self.steps, |config| {
                config.unit = preset.unit;
                self.attack.adjust(config);
                Ok(())
            })?;
            trials.extend(configs.into_iter().map(Trial::Attack));
        }
        Ok(trials)
    }

    fn planned(&self, plan: &Plan) -> Result<String> {
        let estimate = plan.estimate(self.batch)?;
        if self.json {
            let rows = &plan.header.rows;
            return Ok(json!({ "images": plan.own().len(), "estimate": estimate, "rows": rows }).to_string() + "\n");
        }
        let mut text =
            format!("{} images of {}, split {}\n", plan.own().len(), plan.dataset.name(), plan.dataset.split());
        for job in &plan.jobs {
            let rows: Vec<String> = job.rows.iter().map(|&(row, _)| row_name(&plan.header.rows[row])).collect();
            let key = &plan.header.rows[job.rows[0].0];
            text += &format!(
                "  {} {} on {} in {}: {}  ({} forward, {} backward an image)\n",
                key.model,
                key.training,
                job.device,
                job.precision,
                rows.join(", "),
                job.passes.forward,
                job.passes.backward
            );
        }
        let memory = estimate.peak_memory_bytes.map_or("unknown".into(), |bytes| format!("{:.2} GiB", gib(bytes)));
        text += &format!("{}\nabout {memory} of memory\n", costs(plan, &estimate));
        Ok(text)
    }
}

/// Where one of several processes keeps its shard.
fn shard_folder(out: &Path, index: u32) -> PathBuf {
    out.join(format!("shard-{index}"))
}

/// Passes and hours in words.
fn costs(plan: &Plan, estimate: &Estimate) -> String {
    let mut text = format!("{} forward and {} backward passes", estimate.forward_passes, estimate.backward_passes);
    if estimate.check_forward_passes > 0 {
        text += &format!(
            ", and at most {} and {} for the sanity checks ({}) on {} images",
            estimate.check_forward_passes,
            estimate.check_backward_passes,
            plan.checks,
            plan.checked()
        );
    }
    text + &format!(
        "\nabout {} ({:.2} h), from one measured step a model",
        labels::duration(estimate.seconds),
        estimate.seconds / 3600.0
    )
}

/// The registered name.
fn known(name: &str) -> Result<&'static str> {
    let registered = fireproof_attacks::list().into_iter().find(|attack| attack.name == name);
    match registered {
        Some(attack) => Ok(attack.name),
        // The error lists the names.
        None => {
            Err(fireproof_attacks::AttackConfig::new(name).err().map_or_else(|| anyhow::anyhow!("{name}"), Into::into))
        }
    }
}

fn row_name(key: &fireproof_report::RowKey) -> String {
    match key.steps {
        0 => {
            if key.attack == "none" {
                "clean".into()
            } else {
                key.attack.clone()
            }
        }
        1 => key.attack.clone(),
        steps => format!("{}-{steps}", key.attack),
    }
}

/// Bytes in GiB.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

/// The command as typed, without what says where the results go: equal runs have equal results.
fn command_line() -> String {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let program = Path::new(&program).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut words = vec![if program == "xtask" { "cargo xtask".to_owned() } else { program }];
    let mut skip = false;
    for argument in arguments {
        let of_place = argument == "--out" || argument == "--save-adversarial";
        let joined =
            argument == "--resume" || argument.starts_with("--out=") || argument.starts_with("--save-adversarial=");
        if !skip && !of_place && !joined {
            words.push(if argument.contains(char::is_whitespace) { format!("'{argument}'") } else { argument });
        }
        skip = of_place;
    }
    words.join(" ")
}

/// What a preset runs: names, steps and options.
fn attacks_of(preset: &Preset) -> Vec<serde_json::Value> {
    let one = |entry: &Entry| {
        let options: serde_json::Map<_, _> =
            entry.options.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
        json!({ "name": entry.attack, "steps": entry.steps, "epsilon": entry.epsilon, "options": options })
    };
    preset.entries.iter().map(one).collect()
}

fn list(json: bool) -> Result<String> {
    let attacks = fireproof_attacks::list();
    let networks: Vec<_> = fireproof_models::definitions().collect();
    let data = fireproof_datasets::list();
    if json {
        let attacks: Vec<_> = attacks
            .iter()
            .map(|a| {
                let options: Vec<_> = a.options.iter().map(|o| json!({ "name": o.name, "values": o.values })).collect();
                json!({ "name": a.name, "about": a.about, "paper": a.paper, "options": options })
            })
            .collect();
        let presets: Vec<_> = PRESETS
            .iter()
            .map(|p| json!({ "name": p.name, "about": p.about, "attacks": attacks_of(p), "epsilon": p.epsilon, "checks": p.checks.to_string() }))
            .collect();
        let networks: Vec<_> = networks.iter().map(|n| json!({ "name": n.name, "about": n.about })).collect();
        let data: Vec<_> = data.iter().map(|d| json!({ "name": d.name, "title": d.title })).collect();
        let all = json!({ "attacks": attacks, "presets": presets, "models": networks, "data": data });
        return Ok(serde_json::to_string_pretty(&all)? + "\n");
    }
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<(String, String)>| {
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        text += &format!("{title}\n");
        lines.iter().for_each(|(name, about)| text += &format!("  {name:width$}  {about}\n"));
    };
    let about = |a: &&fireproof_attacks::Registration| {
        let options: Vec<String> = a.options.iter().map(|o| format!("{}: {}", o.name, o.values)).collect();
        let options = if options.is_empty() { String::new() } else { format!(" [{}]", options.join("; ")) };
        (a.name.to_owned(), format!("{}{options} <{}>", a.about, a.paper))
    };
    section("attacks", attacks.iter().map(about).collect());
    section("presets", PRESETS.iter().map(|p| (p.name.to_owned(), p.about.to_owned())).collect());
    section("models", networks.iter().map(|n| (n.name.to_owned(), n.about.to_owned())).collect());
    section("data", data.into_iter().map(|d| (d.name, d.title)).collect());
    if text.is_empty() {
        bail!("nothing is registered");
    }
    Ok(text)
}
