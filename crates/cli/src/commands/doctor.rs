//! `doctor`: what this machine and this binary offer.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use fireproof_attacks::{AttackConfig, Context, build};
use fireproof_eval::facts;
use fireproof_models::Architecture;
use fireproof_tensor::{Batch, Precision, Victim, device, memory, random::Stream, selftest};
use serde_json::json;

use crate::commands::bench::gib;
use crate::workspace;

/// Say what this machine and this binary offer, and why a backend is missing.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long, conflicts_with = "device")]
    json: bool,
    /// Check every operation on this device against the CPU, run a small bench there, and print a block to paste into a report
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Side of the bench's images in pixels
    #[arg(long, default_value_t = 64, value_name = "N", requires = "device")]
    side: usize,
}

impl Doctor {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        if let Some(name) = &self.device {
            return examine(name, self.side);
        }
        let probes = device::probe();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let kept = memory::keep_freed_memory();
        let instructions = instructions();
        let shipped = workspace::checkpoints();
        let mut out = std::io::stdout();
        if self.json {
            let backends: Vec<_> = probes
                .iter()
                .map(|probe| {
                    let (answer, reason) = (probe.answer.as_ref().ok(), probe.answer.as_ref().err());
                    json!({
                        "name": probe.backend.name, "about": probe.backend.about, "compiled": probe.backend.compiled,
                        "answers": probe.answer.is_ok(), "device": answer, "reason": reason,
                    })
                })
                .collect();
            let all = json!({
                "version": facts::VERSION, "commit": facts::COMMIT, "burn": BURN, "machine": facts::machine(), "threads": threads,
                "instructions": instructions, "freed_memory_kept": kept,
                "memory_bytes": memory::machine().map(|(total, _)| total),
                "memory_available_bytes": memory::machine().map(|(_, available)| available),
                "backends": backends,
                "shipped_weights": shipped.as_ref().ok().map(|files| files.iter().map(|f| workspace::shown(f)).collect::<Vec<_>>()),
            });
            return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?);
        }
        writeln!(out, "fireproof {}, commit {}, Burn {BURN}", facts::VERSION, facts::COMMIT)?;
        writeln!(out, "machine    {}", facts::machine())?;
        writeln!(out, "threads    {threads}")?;
        writeln!(
            out,
            "vectors    {}",
            if instructions.is_empty() { "portable".into() } else { instructions.join(", ") }
        )?;
        if let Some((total, available)) = memory::machine() {
            writeln!(out, "memory     {:.1} GiB, {:.1} GiB available", gib(total), gib(available))?;
        }
        writeln!(
            out,
            "allocator  {}",
            if kept { "keeps freed memory" } else { "the system's; freed memory may be returned, which costs time" }
        )?;
        writeln!(out, "backends")?;
        for probe in &probes {
            let answer = match &probe.answer {
                Ok(word) => format!("ready, {word}"),
                Err(reason) => format!("missing: {reason}"),
            };
            writeln!(out, "  {:7} {:34} {answer}", probe.backend.name, probe.backend.about)?;
        }
        match shipped {
            Ok(files) => {
                for file in files {
                    writeln!(out, "weights    {}", workspace::shown(Path::new(&file)))?;
                }
            }
            Err(error) => writeln!(out, "weights    none shipped: {error:#}")?,
        }
        Ok(())
    }
}

/// Checks a device and says what it found, in one block.
fn examine(name: &str, side: usize) -> Result<()> {
    ensure!((16..=4096).contains(&side), "--side: found {side}, expected 16 to 4096");
    let device = device::open(name)?;
    let mut out = std::io::stdout();
    writeln!(out, "```text")?;
    writeln!(out, "fireproof {}, commit {}, Burn {BURN}", facts::VERSION, facts::COMMIT)?;
    writeln!(out, "machine    {}", facts::machine())?;
    writeln!(out, "device     {name}: {}", device::identity(&device))?;
    if let Some(bytes) = device::largest_tensor(&device) {
        writeln!(out, "limit      {:.0} MiB in one tensor", bytes as f64 / f64::from(1 << 20))?;
    }
    let halves = [Precision::F16, Precision::Bf16].into_iter().filter(|half| half.dtype(&device).is_ok());
    let precisions: Vec<String> = [Precision::F32].into_iter().chain(halves).map(|one| one.to_string()).collect();
    writeln!(out, "precisions {}", precisions.join(", "))?;
    out.flush()?;
    let started = Instant::now();
    let checks = selftest::run(&device);
    let wrong: Vec<_> = checks.iter().filter(|check| !check.passed()).collect();
    let worst = checks.iter().filter_map(|check| check.difference.as_ref().ok()).fold(0.0f32, |a, &b| a.max(b));
    writeln!(
        out,
        "operations {} of {} operations right, largest relative error {worst:.1e}, {:.1} s with compiling",
        checks.len() - wrong.len(),
        checks.len(),
        started.elapsed().as_secs_f64()
    )?;
    for check in &wrong {
        let what = match &check.difference {
            Ok(difference) => format!("differs by {difference:.1e}, at most {:.1e} passes", check.tolerance),
            Err(message) => message.lines().next().unwrap_or("it panicked").to_owned(),
        };
        writeln!(out, "  WRONG    {}: {what}", check.name)?;
    }
    out.flush()?;
    let (here, cpu) = (small_bench(&device, side)?, small_bench(&Device::flex(), side)?);
    let equal = here.classes.iter().zip(&cpu.classes).filter(|(a, b)| a == b).count();
    writeln!(
        out,
        "bench      unet (base 16), 2 images of {side}x{side}: forward {:.4} s, SegPGD step {:.4} s; flex {:.4} s, {:.4} s",
        here.forward, here.step, cpu.forward, cpu.step
    )?;
    writeln!(
        out,
        "agreement  {:.2} % of the predictions equal flex's; accuracy after 5 steps {:.2} %, on flex {:.2} %",
        100.0 * equal as f64 / cpu.classes.len() as f64,
        100.0 * here.accuracy,
        100.0 * cpu.accuracy
    )?;
    writeln!(out, "```")?;
    ensure!(wrong.is_empty(), "{} of {} operations are wrong on {name}", wrong.len(), checks.len());
    Ok(())
}

/// What the small bench measured on one device.
struct Measured {
    classes: Vec<i32>,
    /// Share of the pixels that keep their clean class under attack.
    accuracy: f32,
    forward: f64,
    step: f64,
}

/// A U-Net with random weights: labels are what it says of the clean images, on the CPU.
fn small_bench(device: &Device, side: usize) -> Result<Measured> {
    const STEPS: usize = 5;
    let names: Vec<String> = (0..12).map(|class| format!("class {class}")).collect();
    let mut architecture = Architecture::new("unet", &names)?;
    architecture.options.insert("base".into(), 16);
    let dims = [2, 3, side, side];
    let stream = Stream::new(&[0xd0c]);
    let pixels: Vec<f32> = (0..dims.iter().product::<usize>()).map(|at| stream.uniform(at as u64)).collect();
    let predict = |device: &Device| -> Result<Vec<i32>> {
        let images = Tensor::<4>::from_data(TensorData::new(pixels.clone(), dims), device);
        let logits = fireproof_models::build(&architecture, 0, device)?.victim().logits(images)?;
        Ok(logits.argmax(1).into_data().convert::<i32>().try_to_vec().expect("integers convert to i32"))
    };
    let labels: Vec<u8> = predict(&Device::flex())?.iter().map(|&class| class as u8).collect();
    let classes = predict(device)?;
    let batch = Batch::from_host(pixels.clone(), &labels, dims, vec![0, 1], device)?;
    let victim = fireproof_models::build(&architecture, 0, device)?.victim();
    let attack = build(&AttackConfig { steps: STEPS, ..AttackConfig::new("segpgd")? })?;
    let timed = |action: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
        // The first run compiles.
        action()?;
        device.sync().map_err(|error| anyhow!("{error:?}"))?;
        let started = Instant::now();
        action()?;
        device.sync().map_err(|error| anyhow!("{error:?}"))?;
        Ok(started.elapsed().as_secs_f64())
    };
    let forward = timed(&mut || {
        victim.logits(batch.images.clone())?;
        Ok(())
    })?;
    let mut images = batch.images.clone();
    let attacked = timed(&mut || {
        images = attack.run(&victim, &batch, &Context::new(0))?.images;
        Ok(())
    })?;
    let accuracy = batch.targets.accuracy(&victim.logits(images)?);
    let accuracy = accuracy.iter().sum::<f32>() / accuracy.len() as f32;
    Ok(Measured { classes, accuracy, forward, step: attacked / STEPS as f64 })
}

/// The version of Burn that the workspace names.
const BURN: &str = "0.22.1";

/// The vector instructions that our kernels choose from.
fn instructions() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let all = [
            ("AVX2", is_x86_feature_detected!("avx2")),
            ("FMA", is_x86_feature_detected!("fma")),
            ("AVX-512", is_x86_feature_detected!("avx512f")),
        ];
        all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }
    #[cfg(target_arch = "aarch64")]
    {
        vec!["NEON"]
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        Vec::new()
    }
}
