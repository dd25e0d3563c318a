//! Where the workspace is: the shipped weights, the plugins.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder of the workspace: at or above the current one, else where this binary was built.
///
/// # Errors
/// When neither is one.
pub fn root() -> Result<PathBuf> {
    let current = std::env::current_dir().context("cannot tell the current folder")?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_root = |folder: &&Path| folder.join("xtask/src/main.rs").is_file() && folder.join("Cargo.toml").is_file();
    let found = current.ancestors().chain(built.ancestors()).find(is_root).map(Path::to_path_buf);
    found.with_context(|| {
        format!(
            "{}: found no fireproof workspace here or above, expected a folder with xtask/src/main.rs",
            current.display()
        )
    })
}

/// The folder of the workspace at or above the current one: what a command that writes into a workspace needs.
///
/// # Errors
/// When there is none.
pub fn here() -> Result<PathBuf> {
    let current = std::env::current_dir().context("cannot tell the current folder")?;
    let found = root()?;
    anyhow::ensure!(
        current.starts_with(&found),
        "{}: found no fireproof workspace here or above, expected a folder with xtask/src/main.rs",
        current.display()
    );
    Ok(found)
}

/// The weights that come with the repository, the standard model first.
///
/// # Errors
/// When there are none.
pub fn checkpoints() -> Result<Vec<PathBuf>> {
    let folder = root()?.join("crates/models/checkpoints");
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("{}: found no shipped weights", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    let is_standard = |file: &PathBuf| file.file_stem().is_some_and(|stem| stem.to_string_lossy().contains("standard"));
    files.sort_by_key(|file| (!is_standard(file), file.clone()));
    anyhow::ensure!(
        !files.is_empty(),
        "{}: found no .safetensors file, expected the shipped weights",
        folder.display()
    );
    Ok(files)
}

/// The path as seen from the current folder, where that is shorter to read.
pub fn shown(path: &Path) -> String {
    let current = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(current).unwrap_or(path).display().to_string()
}

/// `stem`, or the first of `stem-2`, `stem-3`, … that holds no file of this name.
pub fn free_folder(stem: &Path, file: &str) -> PathBuf {
    let numbered = |number: usize| match number {
        1 => stem.to_path_buf(),
        _ => PathBuf::from(format!("{}-{number}", stem.display())),
    };
    (1..).map(numbered).find(|folder| !folder.join(file).exists()).expect("some number is free")
}
