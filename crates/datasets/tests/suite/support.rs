//! Small data sets on disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fireproof_datasets::{Dataset, Error, Options, Split, open};
use tempfile::TempDir;

/// Manifest of three classes with void 9, in `images/`, `masks/` and `list.txt`.
pub const MANIFEST: &str = r#"
name = "toy"
title = "Toy"
origin = "made here"
licence = "CC0 1.0"
channels = 3
void = [9]
classes = [
    { name = "a", color = [1, 2, 3] },
    { name = "b", color = [4, 5, 6] },
    { name = "c", color = [7, 8, 9] },
]
[folder]
images = "images/{name}.png"
masks = "masks/{name}.png"
[splits.train]
list = "list.txt"
[splits.val]
"#;

/// A folder with `toy.toml` and what tests put beside it.
pub struct Toy(TempDir);

impl Toy {
    /// Samples `s0`, `s1`, … of 4 × 3 pixels, all as they should be.
    pub fn new(count: usize) -> Self {
        let toy = Self(TempDir::new().unwrap());
        toy.write("toy.toml", MANIFEST);
        let names: Vec<String> = (0..count).map(|index| format!("s{index}")).collect();
        for (index, name) in names.iter().enumerate() {
            toy.write(&format!("images/{name}.png"), rgb(4, 3, index as u8));
            toy.write(&format!("masks/{name}.png"), grey(4, 3, |pixel| [0, 1, 2, 9][pixel % 4]));
        }
        toy.write("list.txt", names.join("\n"));
        toy
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn open(&self, split: Split) -> Result<Box<dyn Dataset>, Error> {
        open(self.path("toy.toml").to_str().unwrap(), None, split, Options::default())
    }

    pub fn train(&self) -> Box<dyn Dataset> {
        self.open(Split::Train).unwrap()
    }
}

/// A PNG with the given rows.
pub fn png(width: u32, height: u32, color: png::ColorType, depth: png::BitDepth, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette((0..=255u8).flat_map(|index| [index, 255 - index, 7]).collect::<Vec<u8>>());
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    out
}

pub fn grey(width: u32, height: u32, value: impl Fn(usize) -> u8) -> Vec<u8> {
    let data: Vec<u8> = (0..(width * height) as usize).map(value).collect();
    png(width, height, png::ColorType::Grayscale, png::BitDepth::Eight, &data)
}

pub fn rgb(width: u32, height: u32, shift: u8) -> Vec<u8> {
    let data: Vec<u8> =
        (0..(3 * width * height) as usize).map(|index| (index as u8).wrapping_mul(5).wrapping_add(shift)).collect();
    png(width, height, png::ColorType::Rgb, png::BitDepth::Eight, &data)
}
