//! `doctor`: what this machine and this binary offer.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use clap::Args;
use fireproof_eval::facts;
use fireproof_tensor::{device, memory};
use serde_json::json;

use crate::commands::bench::gib;
use crate::workspace;

/// Say what this machine and this binary offer, and why a backend is missing.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
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
