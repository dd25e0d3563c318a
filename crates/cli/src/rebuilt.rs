//! `cargo xtask … --device cuda:0` on a plain build: builds with the backend and starts over.

use std::process::{Command, ExitCode};

use fireproof_tensor::device;

use crate::workspace;

/// Set for the program that was built anew, so that a backend which is missing even then is an error and no loop.
const MARK: &str = "FIREPROOF_REBUILT";

/// Runs the same command in a binary that holds the backends which `--device` names, if this one is `cargo xtask` and lacks one.
pub fn with_backends() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    let program = std::path::Path::new(arguments.first()?).file_stem()?.to_str()? == "xtask";
    // Cargo says so to what it runs. `test` builds the backend itself.
    let by_cargo = std::env::var_os("CARGO").filter(|_| std::env::var_os("CARGO_MANIFEST_DIR").is_some())?;
    if !program || std::env::var_os(MARK).is_some() || arguments.get(1).is_some_and(|command| command == "test") {
        return None;
    }
    let features = missing(&arguments);
    if features.is_empty() {
        return None;
    }
    let root = workspace::root().ok()?;
    // Without it Burn convolves by its plainest kernel; on the devices that a WebGPU driver plays, measuring takes minutes.
    let tuned = features.iter().any(|name| ["cuda", "rocm"].contains(name)).then_some("autotune");
    let features = features.into_iter().chain(tuned).collect::<Vec<_>>().join(",");
    eprintln!("building with --features {features}; the first time takes a while");
    let mut command = Command::new(by_cargo);
    command.args(["run", "--quiet", "--release", "--package", "xtask", "--features", &features]);
    command.arg("--manifest-path").arg(root.join("Cargo.toml")).arg("--").args(&arguments[1..]).env(MARK, "1");
    match command.status() {
        Ok(status) => Some(status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8))),
        Err(error) => {
            eprintln!("error: cannot start cargo: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// The backends after `--device` that are known and not compiled in; with them those that are, or they would be lost.
fn missing(arguments: &[String]) -> Vec<&'static str> {
    let after = arguments.windows(2).filter(|pair| pair[0] == "--device").map(|pair| pair[1].as_str());
    let joined = arguments.iter().filter_map(|argument| argument.strip_prefix("--device="));
    let named: Vec<&str> = after.chain(joined).map(|name| name.split(':').next().unwrap_or(name)).collect();
    let known = device::backends();
    if !known.iter().any(|backend| !backend.compiled && named.contains(&backend.name)) {
        return Vec::new();
    }
    let wanted = known.iter().filter(|backend| backend.compiled || named.contains(&backend.name));
    wanted.map(|backend| backend.name).filter(|name| *name != "flex").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_that_are_named_and_not_there_are_missing() {
        let found = |text: &str| missing(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(found("xtask bench --device flex").is_empty());
        assert!(found("xtask bench --device gpu --device-like cuda").is_empty(), "that is for the error that follows");
        for backend in device::backends().iter().filter(|backend| !backend.compiled) {
            assert!(found(&format!("xtask bench --device flex --device {}:0", backend.name)).contains(&backend.name));
            assert!(found(&format!("xtask doctor --device={}", backend.name)).contains(&backend.name));
        }
    }
}
