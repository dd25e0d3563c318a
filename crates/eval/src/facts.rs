//! What a results file says about the machine and the program.

use std::process::Command;

/// The version of fireproof.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of the working copy that this was built in, `unknown` outside one; with a `+` where files were changed.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]).filter(|head| !head.is_empty()) else {
        return "unknown".into();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|files| !files.is_empty());
    if changed { head + "+" } else { head }
}

/// Processor, cores, memory.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.trim()));
    let memory = fireproof_tensor::memory::machine()
        .map(|(total, _)| format!(", {:.0} GiB", total as f64 / (1u64 << 30) as f64));
    let noun = if cores == 1 { "core" } else { "cores" };
    format!("{}, {cores} {noun}{}", model.unwrap_or(std::env::consts::ARCH), memory.unwrap_or_default())
}
