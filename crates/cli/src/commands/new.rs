//! `new`: a crate to start from.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use crate::options::{folder, write};
use crate::workspace;

/// Start an attack, a defense, a model or a data set of one's own.
///
/// Writes the crate crates/NAME with a passing test, names it in xtask/Cargo.toml and in xtask/src/plugins.rs (the linker
/// drops what nothing names), so that every command knows it by name at once.
#[derive(Debug, Subcommand)]
pub enum New {
    /// An attack that is a weight map on the per-pixel loss
    Attack(Name),
    /// A stage of a training step, and a recipe that uses it
    Defense(Name),
    /// A network
    Model(Name),
    /// A data set described by a manifest
    Dataset(Name),
}

/// What to call it.
#[derive(Debug, Args)]
pub struct Name {
    /// Lower-case words joined by hyphens, for instance my-attack
    name: String,
}

/// What a kind of crate is made of.
struct Template {
    source: &'static str,
    about: &'static str,
    dependencies: &'static [&'static str],
    /// A further file.
    file: Option<(&'static str, &'static str)>,
}

impl New {
    fn parts(&self) -> (&str, Template) {
        match self {
            Self::Attack(Name { name }) => {
                let dependencies = &["burn", "fireproof-attacks", "fireproof-tensor"];
                let source = include_str!("../../templates/attack.rs");
                (name, Template { source, about: "An attack", dependencies, file: None })
            }
            Self::Defense(Name { name }) => {
                let dependencies = &["burn", "fireproof-defenses", "fireproof-tensor", "inventory", "serde"];
                let source = include_str!("../../templates/defense.rs");
                let file = Some(("recipe.toml", include_str!("../../templates/recipe.toml")));
                (name, Template { source, about: "A stage of adversarial training", dependencies, file })
            }
            Self::Model(Name { name }) => {
                let dependencies = &["burn", "fireproof-models", "inventory"];
                let source = include_str!("../../templates/model.rs");
                (name, Template { source, about: "A segmentation network", dependencies, file: None })
            }
            Self::Dataset(Name { name }) => {
                let dependencies = &["fireproof-datasets", "inventory"];
                let source = include_str!("../../templates/dataset.rs");
                let file = Some(("manifest.toml", include_str!("../../templates/manifest.toml")));
                (name, Template { source, about: "A data set", dependencies, file })
            }
        }
    }

    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let (name, template) = self.parts();
        check_name(name)?;
        let root = workspace::here()?;
        let crate_folder = root.join("crates").join(name);
        ensure!(!crate_folder.exists(), "{}: found a folder, expected none of that name", crate_folder.display());
        let import = format!("use {} as _;", name.replace('-', "_"));
        let plugins = Edit::new(root.join("xtask/src/plugins.rs"), |text| add_line(text, &import, |_| true))?;
        let line = format!("{name} = {{ path = \"../crates/{name}\" }}");
        let manifest = Edit::new(root.join("xtask/Cargo.toml"), |text| {
            let start = text.find("[dependencies]\n")? + "[dependencies]\n".len();
            let end = text[start..].find("\n[").map_or(text.len(), |end| start + end + 1);
            let section = add_line(&text[start..end], &line, |line| line.contains('='))?;
            Some(format!("{}{section}{}", &text[..start], &text[end..]))
        })?;

        folder(&crate_folder.join("src"))?;
        let filled = |text: &str| text.replace("TYPE", &type_name(name)).replace("NAME", name);
        write(&crate_folder.join("Cargo.toml"), cargo_toml(name, &template).as_bytes())?;
        write(&crate_folder.join("src/lib.rs"), filled(template.source).as_bytes())?;
        if let Some((file, text)) = template.file {
            write(&crate_folder.join(file), filled(text).as_bytes())?;
        }
        manifest.apply()?;
        plugins.apply()?;
        let mut out = std::io::stdout();
        writeln!(out, "{}", workspace::shown(&crate_folder.join("src/lib.rs")))?;
        writeln!(out, "try: cargo test --release -p {name}")?;
        Ok(())
    }
}

/// A file's text, changed in memory first, so that a problem with one file leaves all as they were.
struct Edit {
    path: PathBuf,
    text: String,
}

impl Edit {
    fn new(path: PathBuf, change: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        let text = change(&text).with_context(|| format!("{}: found no [dependencies]", path.display()))?;
        Ok(Self { path, text })
    }

    fn apply(self) -> Result<()> {
        write(&self.path, self.text.as_bytes())
    }
}

/// Adds a line to those that `belongs` accepts, in alphabetical order; it stays one if it is there.
fn add_line(text: &str, line: &str, belongs: impl Fn(&str) -> bool) -> Option<String> {
    let (head, mut lines): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("//") || line.trim().is_empty() || !belongs(line));
    if !lines.contains(&line) {
        lines.push(line);
        lines.sort_unstable();
    }
    let comments: Vec<&str> = head.iter().copied().filter(|line| !line.trim().is_empty()).collect();
    let gap = if comments.is_empty() { Vec::new() } else { vec![""] };
    let tail = if text.ends_with("\n\n") { "\n" } else { "" };
    let all: Vec<&str> = comments.into_iter().chain(gap).chain(lines).collect();
    Some(all.join("\n") + "\n" + tail)
}

fn check_name(name: &str) -> Result<()> {
    let words = name.split('-').all(|word| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    });
    ensure!(words, "NAME: found '{name}', expected lower-case words joined by hyphens, such as my-attack");
    Ok(())
}

/// `my-attack` → `MyAttack`.
fn type_name(name: &str) -> String {
    let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('-').map(capital).collect()
}

fn cargo_toml(name: &str, template: &Template) -> String {
    let about = template.about;
    let head = format!("[package]\nname = \"{name}\"\ndescription = \"{about} for fireproof.\"\n");
    let inherited =
        ["version", "edition", "rust-version", "license"].map(|field| format!("{field}.workspace = true\n")).concat();
    let dependencies: String = template.dependencies.iter().map(|name| format!("{name}.workspace = true\n")).collect();
    format!("{head}{inherited}publish = false\n\n[lints]\nworkspace = true\n\n[dependencies]\n{dependencies}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_types_and_bad_ones_are_refused() {
        assert_eq!(type_name("my-attack2"), "MyAttack2");
        for wrong in ["My-attack", "", "a--b", "../a", "2nd", "a_b"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_is_added_in_order_and_once() {
        let text = "//! Plugins.\n\nuse b as _;\n";
        let added = add_line(text, "use a as _;", |_| true).unwrap();
        assert_eq!(added, "//! Plugins.\n\nuse a as _;\nuse b as _;\n");
        assert_eq!(add_line(&added, "use b as _;", |_| true).unwrap(), added);
        assert_eq!(add_line("//! Plugins.\n", "use a as _;", |_| true).unwrap(), "//! Plugins.\n\nuse a as _;\n");
    }
}
