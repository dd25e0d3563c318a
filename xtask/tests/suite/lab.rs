//! A folder with a tiny data set, tiny weights, and the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

const DATA: &str = r#"
name = "tiny"
title = "Tiny scenes"
origin = "generated"
licence = "MIT"
channels = 3
void = [255]
classes = [
    { name = "sky", color = [70, 130, 180] },
    { name = "building", color = [110, 70, 70] },
    { name = "road", color = [128, 64, 128] },
    { name = "pavement", color = [244, 35, 232] },
    { name = "tree", color = [107, 142, 35] },
    { name = "car", color = [0, 0, 142] },
    { name = "pedestrian", color = [220, 20, 60] },
    { name = "pole", color = [250, 170, 30] },
    { name = "sign", color = [220, 220, 0] },
]
[scenes]
size = [24, 32]
[splits.train]
length = 32
[splits.val]
length = 4
[splits.test]
length = 5
"#;

/// What a command left behind.
pub struct Ran {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The output of a command that must succeed.
    pub fn good(self) -> String {
        assert!(self.ok, "failed: {}\n{}", self.err, self.out);
        self.out
    }

    /// The message of a command that must fail, in one line that holds all of `parts`.
    pub fn bad(self, parts: &[&str]) {
        assert!(!self.ok, "succeeded: {}", self.out);
        let line = self.err.lines().find(|line| line.starts_with("error: "));
        let line = line.unwrap_or_else(|| panic!("no error line: {}", self.err));
        for part in parts {
            assert!(line.contains(part), "no '{part}' in: {line}");
        }
    }
}

/// Runs the binary in `folder`.
pub fn run_in(folder: &Path, arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .current_dir(folder)
        .args(arguments)
        // A backend that is not compiled in is an error here, and no reason to build.
        .env("FIREPROOF_REBUILT", "1")
        .output()
        .expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is text");
    Ran { ok: status.success(), out: text(stdout), err: text(stderr) }
}

/// Data and weights that all tests share, made once.
struct Shared {
    folder: tempfile::TempDir,
}

fn shared() -> &'static Path {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("tiny.toml"), DATA).unwrap();
        for (recipe, seed) in [("standard", "0"), ("segpgd3-at", "1")] {
            let arguments = [
                "train",
                "--recipe",
                recipe,
                "--data",
                "tiny.toml",
                "--set",
                "base=4",
                "--set",
                "levels=2",
                "--epochs",
                "16",
                "--batch",
                "8",
                "--lr",
                "0.05",
                "--head-factor",
                "1",
                "--val-every",
                "8",
                "--seed",
                seed,
                "--out",
                recipe,
                "--json",
            ];
            let summary: Value = serde_json::from_str(&run_in(folder.path(), &arguments).good()).unwrap();
            assert_eq!(summary["outcome"], "finished");
        }
        Shared { folder }
    };
    SHARED.get_or_init(make).folder.path()
}

/// A folder of a test's own.
pub struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        shared();
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        run_in(self.folder.path(), arguments)
    }

    /// `bench` on the tiny data with the weights of `recipes`.
    pub fn bench(&self, recipes: &[&str], arguments: &[&str]) -> Ran {
        let data = data();
        let weights: Vec<String> = recipes.iter().flat_map(|recipe| ["--weights".into(), weights(recipe)]).collect();
        let all = ["bench", "--data", &data]
            .into_iter()
            .chain(weights.iter().map(String::as_str))
            .chain(arguments.iter().copied());
        self.run(&all.collect::<Vec<_>>())
    }
}

/// The tiny data set's manifest.
pub fn data() -> String {
    shared().join("tiny.toml").display().to_string()
}

/// The weights that a recipe made.
pub fn weights(recipe: &str) -> String {
    shared().join(recipe).join("best.safetensors").display().to_string()
}

/// A results file without the times.
pub fn timeless(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut results: Value = serde_json::from_str(&text).unwrap();
    for row in results["rows"].as_array_mut().unwrap() {
        assert!(row["seconds"].as_f64().unwrap() > 0.0);
        row.as_object_mut().unwrap().remove("seconds");
    }
    results
}

/// An image of the tiny data and its mask, as PNG files in the lab.
pub fn picture(lab: &Lab) -> (String, String) {
    use fireproof_datasets::{Options, Split, open};
    let data = open(&data(), None, Split::Test, Options::default()).unwrap();
    let sample = data.get(0).unwrap();
    let (height, width) = sample.image.size();
    let area = height * width;
    let bytes: Vec<u8> =
        (0..3 * area).map(|at| (sample.image.data[(at % 3) * area + at / 3] * 255.0).round() as u8).collect();
    let save = |name: &str, bytes: &[u8], color| {
        let path = lab.path(name);
        image::save_buffer(&path, bytes, width as u32, height as u32, color).unwrap();
        path.display().to_string()
    };
    (save("scene.png", &bytes, image::ColorType::Rgb8), save("mask.png", &sample.mask.data, image::ColorType::L8))
}
