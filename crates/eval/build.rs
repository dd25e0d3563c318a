//! Tells the crate which commit it is built from: `FIREPROOF_COMMIT`, see `facts.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=FIREPROOF_COMMIT={}", commit(&here).unwrap_or_else(|| "unknown".into()));
}

/// The commit of the working copy, with a `+` where files were changed; `None` outside one. A package that lies in
/// somebody else's repository has no commit either.
fn commit(here: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(here).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    if git(&["rev-parse", "--show-prefix"])? != "crates/eval/" {
        return None;
    }
    let head = git(&["rev-parse", "--short=12", "HEAD"]).filter(|head| !head.is_empty())?;
    // Another commit, another branch, or a changed file: only the crates above this one are built anew for it, and only if
    // what is said here changes.
    let mut watched: Vec<PathBuf> = ["HEAD", "logs/HEAD", "packed-refs"]
        .iter()
        .filter_map(|file| git(&["rev-parse", "--git-path", file]))
        .map(|path| here.join(path))
        .collect();
    let workspace = here.parent()?.parent()?;
    watched.extend(["Cargo.toml", "Cargo.lock", "xtask/src"].map(|path| workspace.join(path)));
    watched.extend(std::fs::read_dir(here.parent()?).ok()?.filter_map(|entry| Some(entry.ok()?.path().join("src"))));
    for path in watched.iter().filter(|path| path.exists()) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|files| !files.is_empty());
    Some(if changed { head + "+" } else { head })
}
