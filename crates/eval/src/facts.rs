//! What a results file says about the machine and the program.

/// The version of fireproof.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that this was built from, `unknown` outside a working copy; with a `+` where files had been changed.
pub const COMMIT: &str = env!("FIREPROOF_COMMIT");

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
