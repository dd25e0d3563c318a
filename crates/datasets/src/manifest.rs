//! Manifests: what a data set is, where its files lie, and what its values mean.
//!
//! One TOML file describes one data set. It names the data set's origin and licence, its classes, its splits, and in
//! exactly one table (`[folder]`, `[idx]`, `[msd]` or `[scenes]`) the format that holds it. Paths are relative to the root folder
//! and may not leave it.
//!
//! ```toml
//! name = "my-roads"
//! title = "Roads of our town"
//! origin = "own photographs, 2024"
//! licence = "CC-BY-4.0"
//! channels = 3
//! void = [255]
//! classes = [
//!     { name = "background", color = [0, 0, 0] },
//!     { name = "road", color = [128, 64, 128], values = [7] },
//! ]
//!
//! [folder]
//! images = "{split}/images/{name}.jpg"
//! masks = "{split}/masks/{name}.png"
//!
//! [splits.train]
//! list = "lists/train.txt"
//! [splits.val]
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    Class, Error, Result, VOID,
    read::{self, Limits, check_relative, mask::LabelCode, msd::Contents},
};

/// A data set's description.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What [`open`](crate::open) calls it.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// Where it comes from: repository, paper, host.
    pub origin: String,
    /// Its licence, as its authors state it.
    pub licence: String,
    /// What its authors want cited.
    pub citation: Option<String>,
    /// How to get it, for the error where its folder is not named or not there.
    pub obtain: Option<String>,
    /// Channels that images are read as: 1 or 3; with `[msd]`, the number of modalities.
    pub channels: usize,
    /// The stored values that become 0 and 1; by default 0 and the largest value of the file's bit depth, with `[msd]` the
    /// smallest and largest value of the volume. Values outside are an error, with `[msd]` they are clipped.
    pub range: Option<[f32; 2]>,
    /// The classes in the order of their indices.
    pub classes: Vec<ClassEntry>,
    /// Raw mask values that are void.
    #[serde(default)]
    pub void: Vec<u16>,
    /// Mask colours that are void, for masks that hold colours.
    #[serde(default)]
    pub void_colors: Vec<[u8; 3]>,
    /// Images and masks as files.
    pub folder: Option<Folder>,
    /// All images of a split in one array file.
    pub idx: Option<Idx>,
    /// Volumes in the layout of the Medical Segmentation Decathlon.
    pub msd: Option<Msd>,
    /// The built-in generator.
    pub scenes: Option<Generator>,
    /// The splits by name.
    pub splits: BTreeMap<String, SplitEntry>,
    /// SHA-256 of files, lower-case hexadecimal by relative path; compared by [`check`](crate::check()).
    #[serde(default)]
    pub checksums: BTreeMap<String, String>,
}

/// A class in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassEntry {
    /// Its name.
    pub name: String,
    /// 8-bit RGB: for pictures, and what masks that hold colours show.
    pub color: [u8; 3],
    /// Raw mask values that mean this class; by default the class's index.
    pub values: Option<Vec<u16>>,
}

/// Images and masks as files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// Path of an image, with `{name}` and perhaps `{split}`.
    pub images: String,
    /// Path of its mask.
    pub masks: String,
    /// What mask pixels hold.
    #[serde(default)]
    pub encoding: Encoding,
}

/// What mask pixels hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// A grey value or palette index.
    #[default]
    Index,
    /// The class's colour.
    Color,
}

/// All images of a split in one array file, as MNIST has them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idx {
    /// Path of the images, `[N, H, W]`, with `{split}`; gzip is recognised.
    pub images: String,
    /// Path of the labels: `[N, H, W]` masks, or `[N]` one label an image.
    pub labels: String,
    /// Path of a text file with one sample name a line; without it samples are numbered.
    pub names: Option<String>,
    /// Whether samples are slices of volumes: a name is then `VOLUME Z`, and samples carry their [`Case`](crate::Case).
    #[serde(default)]
    pub volumes: bool,
}

/// Volumes in the layout of the Medical Segmentation Decathlon, read as 2-D slices; a split's list names volumes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Msd {
    /// Path of the file that lists the volumes.
    #[serde(default = "Msd::dataset")]
    pub dataset: String,
}

impl Msd {
    fn dataset() -> String {
        "dataset.json".into()
    }
}

/// The built-in generator, see [`scenes`](crate::scenes).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Height and width of a scene.
    pub size: [usize; 2],
}

/// A split in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitEntry {
    /// What `{split}` stands for; by default the split's name.
    pub path: Option<String>,
    /// Path of a list of names; without it the folder is searched and sorted by name.
    pub list: Option<String>,
    /// Path of the masks of this split, where it differs.
    pub masks: Option<String>,
    /// Number of samples, for generators.
    pub length: Option<usize>,
    /// First sample and the one after the last, of the arrays of `[idx]`; by default all. Samples keep their ids.
    pub range: Option<[usize; 2]>,
}

/// The embedded manifests.
const EMBEDDED: [&str; 7] = [
    include_str!("../manifests/camvid.toml"),
    include_str!("../manifests/cityscapes.toml"),
    include_str!("../manifests/fashion-mnist.toml"),
    include_str!("../manifests/hippocampus-slices.toml"),
    include_str!("../manifests/nuclei.toml"),
    include_str!("../manifests/scenes.toml"),
    include_str!("../manifests/voc2012.toml"),
];

/// A manifest of a crate of one's own, known by its name wherever that crate is linked. Register it with `inventory::submit!`.
///
/// ```
/// inventory::submit! {
///     fireproof_datasets::Registration {
///         manifest: r#"
///             name = "my-roads"
///             title = "Roads of our town"
///             origin = "own photographs"
///             licence = "CC-BY-4.0"
///             channels = 3
///             classes = [{ name = "road", color = [128, 64, 128] }]
///             folder = { images = "{name}.jpg", masks = "{name}.png" }
///             splits = { test = {} }
///         "#,
///     }
/// }
/// # fn main() { assert!(fireproof_datasets::Manifest::find("my-roads").is_ok()); }
/// ```
pub struct Registration {
    /// The text of the manifest.
    pub manifest: &'static str,
}

inventory::collect!(Registration);

impl Manifest {
    /// The manifests that this binary holds, ours and those of linked crates, sorted by name.
    ///
    /// # Panics
    /// If a [`Registration`] holds no manifest; the message says what is wrong with it.
    pub fn embedded() -> Vec<Self> {
        let own = EMBEDDED.iter().copied();
        let all = own.chain(inventory::iter::<Registration>.into_iter().map(|registration| registration.manifest));
        let parse = |text| Self::parse(Path::new("embedded manifest"), text).unwrap_or_else(|error| panic!("{error}"));
        let mut manifests: Vec<Self> = all.map(parse).collect();
        manifests.sort_by(|a, b| a.name.cmp(&b.name));
        manifests
    }

    /// The embedded manifest of that name, or the file if `name` ends in `.toml`, or the manifest of the volumes that a
    /// decathlon's `dataset.json` lists, if it ends in `.json`: all of them are the split `train`.
    ///
    /// # Errors
    /// If there is none, and as [`parse`](Self::parse).
    pub fn find(name: &str) -> Result<Self> {
        let limits = Limits { bytes: 1 << 24, ..Limits::default() };
        match Path::new(name).extension().and_then(|extension| extension.to_str()) {
            Some("toml") => {
                return Self::parse(Path::new(name), &read::text(Path::new(name), &limits, "a manifest")?);
            }
            Some("json") => return Self::of_volumes(Path::new(name), read::msd::read(Path::new(name), &limits)?),
            _ => {}
        }
        let embedded = Self::embedded();
        let known = embedded.iter().map(|manifest| manifest.name.clone()).collect();
        embedded
            .into_iter()
            .find(|manifest| manifest.name == name)
            .ok_or_else(|| Error::UnknownDataset { name: name.to_owned(), known })
    }

    /// The folder that a manifest given by its path describes unless another is named: the one that it lies in.
    pub fn folder_beside(name: &str) -> Option<PathBuf> {
        let file = Path::new(name);
        let given = file.extension().is_some_and(|extension| extension == "toml" || extension == "json");
        let folder = file.parent().filter(|_| given)?;
        Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_path_buf() })
    }

    /// The manifest that a `dataset.json` amounts to.
    fn of_volumes(file: &Path, contents: Contents) -> Result<Self> {
        let classes = contents.labels.into_iter().enumerate();
        let manifest = Self {
            title: format!("{}, 2-D slices", contents.name),
            name: contents.name,
            origin: file.display().to_string(),
            licence: contents.licence.unwrap_or_else(|| "not said".into()),
            citation: None,
            obtain: None,
            channels: contents.modalities.len(),
            range: None,
            classes: classes
                .map(|(index, (value, name))| ClassEntry { name, color: color(index), values: Some(vec![value]) })
                .collect(),
            void: Vec::new(),
            void_colors: Vec::new(),
            folder: None,
            idx: None,
            msd: Some(Msd {
                dataset: file.file_name().map_or_else(Msd::dataset, |name| name.to_string_lossy().into()),
            }),
            scenes: None,
            splits: BTreeMap::from([("train".to_owned(), SplitEntry::default())]),
            checksums: BTreeMap::new(),
        };
        manifest.checked(file)
    }

    /// Parses a manifest; `file` is only named in errors.
    ///
    /// # Errors
    /// If the text is no manifest; everything that is wrong with a well-formed one is listed.
    pub fn parse(file: &Path, text: &str) -> Result<Self> {
        let manifest: Self = toml::from_str(text).map_err(|error| {
            Error::file(file, format!("text that is no manifest ({})", error.to_string().trim()), "a manifest")
        })?;
        manifest.checked(file)
    }

    fn checked(self, file: &Path) -> Result<Self> {
        let problems = self.problems();
        if problems.is_empty() { Ok(self) } else { Err(Error::Problems { file: file.to_path_buf(), problems }) }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        require(!self.name.is_empty(), "`name` is empty".into());
        let (possible, expected) = match self.msd {
            Some(_) => (1..=255, "1 to 255 modalities"),
            None => (1..=3, "1 or 3"),
        };
        let possible = possible.contains(&self.channels) && (self.msd.is_some() || self.channels != 2);
        require(possible, format!("`channels` is {}, expected {expected}", self.channels));
        let count = self.classes.len();
        require((1..=255).contains(&count), format!("`classes` has {count} entries, expected 1 to 255"));
        if let Some([low, high]) = self.range {
            let finite = low.is_finite() && high.is_finite() && low < high;
            require(finite, format!("`range` is [{low}, {high}], expected a smaller and a larger value"));
        }
        let formats = [self.folder.is_some(), self.idx.is_some(), self.msd.is_some(), self.scenes.is_some()];
        let formats = formats.iter().filter(|&&there| there).count();
        require(formats == 1, format!("{formats} of the tables [folder], [idx], [msd] and [scenes], expected one"));
        require(!self.splits.is_empty(), "no [splits.…] table, expected at least one".into());
        let mut paths: Vec<(String, &str, bool)> = Vec::new();
        if let Some(folder) = &self.folder {
            paths.push(("folder.images".into(), &folder.images, true));
            paths.push(("folder.masks".into(), &folder.masks, true));
        }
        if let Some(idx) = &self.idx {
            paths.push(("idx.images".into(), &idx.images, false));
            paths.push(("idx.labels".into(), &idx.labels, false));
            paths.extend(idx.names.iter().map(|names| ("idx.names".to_owned(), names.as_str(), false)));
            let named = !idx.volumes || idx.names.is_some();
            require(named, "`idx.volumes` without `idx.names`, expected a list with one `VOLUME Z` a line".into());
        }
        if let Some(msd) = &self.msd {
            paths.push(("msd.dataset".into(), &msd.dataset, false));
        }
        for (name, split) in &self.splits {
            let masks = split.masks.iter().map(|masks| (format!("splits.{name}.masks"), masks.as_str(), true));
            let list = split.list.iter().map(|list| (format!("splits.{name}.list"), list.as_str(), false));
            let path = split.path.iter().map(|path| (format!("splits.{name}.path"), path.as_str(), false));
            paths.extend(masks.chain(list).chain(path));
        }
        paths.extend(self.checksums.keys().map(|path| ("checksums".to_owned(), path.as_str(), false)));
        for (field, path, named) in paths {
            if let Err(problem) = check_relative(path) {
                require(false, format!("`{field}`: {problem}, expected a path inside the root folder"));
            }
            let names = path.matches("{name}").count();
            require(
                names == usize::from(named),
                format!("`{field}` has `{{name}}` {names} times, expected {}", usize::from(named)),
            );
        }
        problems.extend(self.labels().err());
        problems
    }

    /// The classes without their raw values.
    pub fn class_list(&self) -> Vec<Class> {
        self.classes.iter().map(|class| Class { name: class.name.clone(), color: class.color }).collect()
    }

    /// What the values in masks mean.
    pub(crate) fn code(&self) -> LabelCode {
        self.labels().expect("checked when the manifest was parsed")
    }

    fn labels(&self) -> std::result::Result<LabelCode, String> {
        let encoding = self.folder.as_ref().map_or(Encoding::Index, |folder| folder.encoding);
        let classes = self.classes.iter().zip(0u8..=254);
        if encoding == Encoding::Color {
            let void = self.void_colors.iter().map(|&color| (color, VOID));
            return unique(classes.map(|(class, index)| (class.color, index)).chain(void)).map(LabelCode::Color);
        }
        let mut pairs: Vec<(u16, u8)> = self.void.iter().map(|&value| (value, VOID)).collect();
        for (class, index) in classes {
            match &class.values {
                Some(values) => pairs.extend(values.iter().map(|&value| (value, index))),
                None => pairs.push((u16::from(index), index)),
            }
        }
        let codes: HashMap<u16, u8> = unique(pairs.into_iter())?;
        Ok(LabelCode::Index(codes.into_iter().collect()))
    }
}

/// A colour of a class that has none: the bits of its index, spread over the high bits of red, green and blue.
fn color(index: usize) -> [u8; 3] {
    let channel = |first: usize| (0..3).map(|bit| ((index >> (3 * bit + first)) as u8 & 1) << (7 - bit)).sum();
    [channel(0), channel(1), channel(2)]
}

/// The map of the pairs, or which key has two meanings.
fn unique<K: Copy + Eq + std::hash::Hash + std::fmt::Debug>(
    pairs: impl Iterator<Item = (K, u8)>,
) -> std::result::Result<HashMap<K, u8>, String> {
    let mut map = HashMap::new();
    for (key, label) in pairs {
        if let Some(other) = map.insert(key, label) {
            let name = |label: u8| if label == VOID { "void".to_owned() } else { format!("class {label}") };
            return Err(format!("the mask value {key:?} means {} and {}, expected one", name(other), name(label)));
        }
    }
    Ok(map)
}
