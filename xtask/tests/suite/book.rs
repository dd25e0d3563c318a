//! The book says what the kept results say, and has a page for everything that `bench --list` names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::lab::run_in;

/// Files in which `.ci/attack-numbers` keeps what every attack did to the shipped models.
const KEPT: [&str; 2] = ["ball", "search"];
const MODELS: [&str; 2] = ["standard", "segpgd3-at"];
const REMAKE: &str = "docs/results/attacks: run .ci/attack-numbers";
const HEADING: &str = "## Our numbers\n\n";

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The attacks of the program, by name.
fn attacks() -> Vec<String> {
    let list: Value = serde_json::from_str(&run_in(&root(), &["bench", "--list", "--json"]).good()).unwrap();
    list["attacks"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// The page of each attack, from the table of the attacks' README.
fn pages() -> BTreeMap<String, String> {
    let text = read("docs/attacks/README.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let mut pages = BTreeMap::new();
    for row in rows {
        let names = row.split('|').nth(1).unwrap();
        let page = row.rsplit_once("](").unwrap().1.split_once(')').unwrap().0;
        for name in names.split('`').skip(1).step_by(2) {
            pages.insert(name.to_owned(), page.to_owned());
        }
    }
    pages
}

/// What one attack did to one model.
#[derive(Clone, Copy, Default)]
struct Found {
    rows: f64,
    steps: u64,
    accuracy: f64,
    miou: f64,
    forward: f64,
    backward: f64,
    /// ℓ2, else ℓ∞.
    l2: bool,
    /// Images fooled, and the median norm, of an attack that looks for the smallest.
    fooled: Option<u64>,
    median: Option<f64>,
}

/// By attack and model, the mean over the rows of an attack that has several.
fn found() -> BTreeMap<(String, String), Found> {
    let mut all: BTreeMap<(String, String), Found> = BTreeMap::new();
    for kept in KEPT {
        let results: Value = serde_json::from_str(&read(&format!("docs/results/attacks/{kept}.json"))).unwrap();
        assert!(!results["run"]["commit"].as_str().unwrap().contains('+'), "{kept}: made by changed files");
        for row in results["rows"].as_array().unwrap() {
            let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            let number = |field: &str| row[field].as_f64().unwrap();
            let images = number("images");
            let one = all.entry((text("attack"), text("training"))).or_default();
            one.rows += 1.0;
            one.steps = row["steps"].as_u64().unwrap();
            one.accuracy += number("pixel_accuracy");
            one.miou += number("miou");
            one.forward += number("forward_passes") / images;
            one.backward += number("backward_passes") / images;
            one.l2 = text("norm") == "l2";
            one.fooled = row["minimal"]["fooled"].as_u64();
            one.median = row["minimal"]["median_norm"].as_f64();
        }
    }
    for one in all.values_mut() {
        for sum in [&mut one.accuracy, &mut one.miou, &mut one.forward, &mut one.backward] {
            *sum /= one.rows;
        }
    }
    all
}

fn steps(one: &Found) -> String {
    if one.steps > 1 { one.steps.to_string() } else { String::new() }
}

fn norm(one: &Found) -> String {
    match (one.fooled, one.median) {
        (None, _) => String::new(),
        (Some(fooled), None) => format!("{fooled} of 8 fooled"),
        (Some(_), Some(median)) if one.l2 => format!("{median:.3}"),
        (Some(_), Some(median)) => format!("{:.2}/255", 255.0 * median),
    }
}

/// The table of some attacks, a line for each.
fn table(names: &[&str], found: &BTreeMap<(String, String), Found>, link: impl Fn(&str) -> String) -> String {
    let mut text = String::from(
        "| attack | steps | passes an image, forward/backward | standard: aAcc | mIoU | median norm | segpgd3-at: aAcc | mIoU | median norm |\n\
         |:--|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for name in names {
        let of = |model: &str| {
            *found
                .get(&((*name).to_owned(), model.to_owned()))
                .unwrap_or_else(|| panic!("no row of {name} against {model}"))
        };
        let [plain, robust] = MODELS.map(of);
        let mean = |value: fn(&Found) -> f64| (value(&plain) + value(&robust)) / 2.0;
        let minimal = |one: &Found| format!("{:.2} | {:.2} | {}", 100.0 * one.accuracy, 100.0 * one.miou, norm(one));
        text += &format!(
            "| {} | {} | {:.0}/{:.0} | {} | {} |\n",
            link(name),
            steps(&plain),
            mean(|one| one.forward),
            mean(|one| one.backward),
            minimal(&plain),
            minimal(&robust)
        );
    }
    // An empty cell has one space.
    text.replace("|  |", "| |").replace("|  |", "| |")
}

/// Where in a page a text begins and ends: the section of our numbers, or the table after a line.
pub fn replace(page: &str, path: &str, begin: &str, fresh: &str) -> String {
    let at = page.find(begin).unwrap_or_else(|| panic!("{path}: no '{}'", begin.trim())) + begin.len();
    let rest = &page[at..];
    let end = rest.find("\n\n").map_or(rest.len(), |end| end + 1);
    format!("{}{fresh}{}", &page[..at], &rest[end..])
}

/// Compares a page with what it should be, or writes it where somebody asked for that.
pub fn settle(path: &str, fresh: &str, remake: &str) {
    if std::env::var_os("FIREPROOF_WRITE").is_some() {
        fs::write(root().join(path), fresh).unwrap();
    }
    assert!(read(path) == fresh, "{path} does not say what it is made of, {remake}");
}

#[test]
fn every_attack_has_a_page_with_formula_source_defaults_use_and_our_numbers() {
    let (attacks, pages, found) = (attacks(), pages(), found());
    let mut of_page: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in &attacks {
        let page = pages.get(name).unwrap_or_else(|| panic!("{name} is not in the table of docs/attacks/README.md"));
        of_page.entry(page).or_default().push(name);
    }
    let summary = read("docs/SUMMARY.md");
    for (page, names) in of_page {
        let path = format!("docs/attacks/{page}");
        let text = read(&path);
        assert!(summary.contains(&format!("(attacks/{page})")), "{page} is not in docs/SUMMARY.md");
        for part in ["```text\n", "Source:", "| default |", "**Good for:**", "## Run it"] {
            // Corruptions are a table of kinds, and no formula.
            assert!(
                text.contains(part) || page == "corruption.md" && part == "```text\n",
                "{path}: no '{}'",
                part.trim()
            );
        }
        let numbers = table(&names, &found, |name| format!("`{name}`"));
        settle(&path, &replace(&text, &path, HEADING, &numbers), REMAKE);
        assert!(text.contains("(../results/attacks.md)"), "{path} does not say where its numbers come from");
    }
}

#[test]
fn one_page_of_results_holds_every_attack() {
    let (attacks, pages, found) = (attacks(), pages(), found());
    let clean = table(&["none"], &found, |_| "clean".into());
    let names: Vec<&str> = attacks.iter().map(String::as_str).collect();
    let all = table(&names, &found, |name| format!("[`{name}`](../attacks/{})", pages[name]));
    let line = clean.lines().last().unwrap();
    let head: Vec<&str> = all.lines().take(2).collect();
    let rows: Vec<&str> = all.lines().skip(2).collect();
    let fresh = [&head[..], &[line], &rows].concat().join("\n") + "\n";
    let path = "docs/results/attacks.md";
    settle(path, &replace(&read(path), path, "## Numbers\n\n", &fresh), REMAKE);
}
