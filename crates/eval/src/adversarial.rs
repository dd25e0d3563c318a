//! Adversarial images as a file: what `--save-adversarial` writes and `--adversarial` reads.
//!
//! A safetensors file of F32 values in the model's pixel space. A list of images is one tensor `[N, C, H, W]` in the order
//! in which the images are evaluated; a file may hold several lists. Where images differ in size, a list is one tensor
//! `[C, H, W]` an image, named `LIST/NAME` by the image's name. A single list is called `images`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_report::RowKey;
use safetensors::{Dtype, View};
use serde::Deserialize;

use crate::{Error, Result, plan::PlannedImage};

/// The name of a file's only list.
pub const ONLY: &str = "images";

/// No header is longer: a few hundred bytes a tensor.
const MAX_HEADER: u64 = 64 << 20;

/// Images that somebody else made.
#[derive(Debug)]
pub struct Given {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Entry>,
    /// Where the values begin.
    start: u64,
}

impl Given {
    /// Opens a file, reading its header only.
    ///
    /// # Errors
    /// If it is no safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(|error| Error::file(path, error))?;
        let no_header = || Error::file(path, "found no header, expected a safetensors file");
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| no_header())?;
        let available = file.metadata().map_err(|error| Error::file(path, error))?.len();
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER.min(available.saturating_sub(8)) {
            return Err(no_header());
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(|_| no_header())?;
        let broken = |error: &dyn std::fmt::Display| {
            Error::file(path, format!("found a broken header ({error}), expected a safetensors file"))
        };
        let mut entries: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|error| broken(&error))?;
        entries.remove("__metadata__");
        let start = 8 + length;
        let mut tensors = BTreeMap::new();
        for (name, entry) in entries {
            let entry: Entry = serde_json::from_value(entry).map_err(|error| broken(&error))?;
            let needed = start.saturating_add(entry.data_offsets.1);
            if available < needed {
                let message =
                    format!("found {available} bytes, but tensor '{name}' ends at {needed}: the file is cut off");
                return Err(Error::file(path, message));
            }
            if entry.dtype == "F32" && entry.values().and_then(|n| n.checked_mul(4)) != entry.length() {
                return Err(broken(&format!("the bytes of '{name}' do not fit its shape")));
            }
            tensors.insert(name, entry);
        }
        Ok(Self { path: path.to_path_buf(), file, tensors, start })
    }

    /// The lists of the file, by name.
    ///
    /// # Errors
    /// If there are none.
    pub fn sets(&self) -> Result<Vec<String>> {
        if self.tensors.contains_key(ONLY) {
            return Ok(vec![ONLY.into()]);
        }
        let of_rank = |rank: usize| self.tensors.iter().filter(move |(_, entry)| entry.shape.len() == rank);
        let mut sets: Vec<String> = of_rank(4).map(|(name, _)| name.clone()).collect();
        sets.extend(of_rank(3).filter_map(|(name, _)| name.split_once('/')).map(|(set, _)| set.to_owned()));
        sets.dedup();
        if sets.is_empty() {
            let expected = "expected a tensor 'images' [N, C, H, W], or one 'LIST/NAME' [C, H, W] an image";
            let names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
            return Err(Error::file(&self.path, format!("found the tensors {}; {expected}", names.join(", "))));
        }
        Ok(sets)
    }

    /// What rows call the images of a list.
    pub(crate) fn attack_name(set: &str) -> String {
        if set == ONLY { "given".into() } else { format!("given {set}") }
    }

    /// The image that takes the place of `images[position]`, which is `[C, H, W]` of `shape`.
    ///
    /// # Errors
    /// If the file has none, or of another shape or type.
    pub fn image(&self, set: &str, images: &[PlannedImage], position: usize, shape: [usize; 3]) -> Result<Vec<f32>> {
        let single = format!("{set}/{}", images[position].name);
        let (name, entry, list) = match (self.tensors.get(&single), self.tensors.get(set)) {
            (Some(entry), _) => (single.as_str(), entry, false),
            (None, Some(entry)) => (set, entry, true),
            (None, None) => {
                return Err(Error::file(&self.path, format!("found no tensor '{set}' and no '{single}'")));
            }
        };
        let count = images.len();
        let expected: Vec<usize> = if list { [count].into_iter().chain(shape).collect() } else { shape.to_vec() };
        if entry.dtype != "F32" || entry.shape != expected {
            let found = format!("tensor '{name}' is {} {:?}", entry.dtype, entry.shape);
            return Err(Error::file(&self.path, format!("{found}, expected F32 {expected:?}")));
        }
        let bytes = shape.iter().product::<usize>() * 4;
        let offset = entry.data_offsets.0 + if list { (position * bytes) as u64 } else { 0 };
        let mut values = vec![0; bytes];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start + offset))
            .and_then(|_| file.read_exact(&mut values))
            .map_err(|error| Error::file(&self.path, error))?;
        Ok(floats(&values))
    }
}

/// A tensor, as the header describes it.
#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Entry {
    fn values(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent as u64))
    }

    fn length(&self) -> Option<u64> {
        self.data_offsets.1.checked_sub(self.data_offsets.0)
    }
}

/// Keeps adversarial images beside the records until all are there.
pub(crate) struct Keep {
    folder: PathBuf,
    target: PathBuf,
}

impl Keep {
    pub(crate) fn new(out: &Path, target: &Path) -> Result<Self> {
        let folder = out.join("adversarial");
        std::fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
        Ok(Self { folder, target: target.to_path_buf() })
    }

    fn part(&self, row: usize, id: u64) -> PathBuf {
        self.folder.join(format!("{row}-{id}.safetensors"))
    }

    /// Called before the image is recorded, so that whatever is recorded is kept.
    pub(crate) fn add(&self, row: usize, id: u64, shape: [usize; 3], values: &[f32]) -> Result<()> {
        let path = self.part(row, id);
        let raw = Raw { shape: shape.to_vec(), bytes: Cow::Owned(bytes(values)) };
        write(&path, vec![(ONLY.to_owned(), raw)])
    }

    /// Joins the parts of all attacked rows to one file, and drops them.
    pub(crate) fn finish(self, rows: &[RowKey], images: &[PlannedImage]) -> Result<()> {
        let attacked: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].attack != "none").collect();
        let mut lists = Vec::new();
        for &row in &attacked {
            let name = if attacked.len() == 1 { ONLY.to_owned() } else { list_name(&rows[row]) };
            let parts = images.iter().map(|image| {
                let path = self.part(row, image.id);
                let lost =
                    "its adversarial image was not kept: the run began without --save-adversarial; start it anew";
                if !path.exists() {
                    return Err(Error::file(&path, format!("image {}: {lost}", image.name)));
                }
                let shape = Given::open(&path)?.tensors.get(ONLY).map(|entry| entry.shape.clone()).unwrap_or_default();
                Ok((path, shape))
            });
            let parts: Vec<(PathBuf, Vec<usize>)> = parts.collect::<Result<_>>()?;
            if parts.iter().all(|(_, shape)| *shape == parts[0].1) {
                let shape = [parts.len()].into_iter().chain(parts[0].1.clone()).collect();
                lists.push((name, Joined { shape, parts: parts.into_iter().map(|(path, _)| path).collect() }));
            } else {
                let single = parts.into_iter().zip(images);
                lists.extend(single.map(|((path, shape), image)| {
                    (format!("{name}/{}", image.name), Joined { shape, parts: vec![path] })
                }));
            }
        }
        write(&self.target, lists)?;
        std::fs::remove_dir_all(&self.folder).map_err(|error| Error::file(&self.folder, error))
    }
}

fn list_name(row: &RowKey) -> String {
    let device = row.device.replace(':', "");
    format!("{}.{}.{device}.{}-{}", row.model, row.training, row.attack, row.steps).replace('/', "-")
}

/// Tensors that are read when they are written, one after the other.
struct Joined {
    shape: Vec<usize>,
    parts: Vec<PathBuf>,
}

impl View for Joined {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        // A part holds a single tensor, so its values are the end of the file.
        let length = self.data_len() / self.parts.len();
        let one = |path: &PathBuf| {
            let mut bytes = std::fs::read(path).expect("the part was opened a moment ago");
            bytes.split_off(bytes.len() - length)
        };
        self.parts.iter().flat_map(one).collect::<Vec<u8>>().into()
    }
    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * 4
    }
}

struct Raw<'a> {
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl View for Raw<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes.as_ref().into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes F32 tensors by name as a safetensors file, under a temporary name first.
///
/// # Errors
/// If the file cannot be written.
pub fn save(path: &Path, tensors: &[(&str, &[usize], &[f32])]) -> Result<()> {
    let tensors = tensors.iter().map(|(name, shape, values)| {
        ((*name).to_owned(), Raw { shape: shape.to_vec(), bytes: Cow::Owned(bytes(values)) })
    });
    write(path, tensors.collect())
}

/// The only tensor `[N, C, H, W]` of a file that [`save`] wrote.
pub(crate) fn tensor(path: &Path, device: &Device) -> Result<Tensor<4>> {
    let given = Given::open(path)?;
    let entry = given.tensors.get(ONLY).filter(|entry| entry.dtype == "F32");
    let shape: Option<[usize; 4]> = entry.and_then(|entry| entry.shape.clone().try_into().ok());
    let shape = shape.ok_or_else(|| Error::file(path, format!("found no tensor '{ONLY}' F32 [N, C, H, W]")))?;
    let all = std::fs::read(path).map_err(|error| Error::file(path, error))?;
    let values = floats(&all[given.start as usize..]);
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

fn write<V: View>(path: &Path, tensors: Vec<(String, V)>) -> Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or_else(|| Error::file(path, "found no file name"))?);
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    }
    let none: Option<HashMap<String, String>> = None;
    let words = |error: std::io::Error| error.to_string();
    let written = || {
        // safetensors replaces the file by one that only its owner may read; the umask decides, as for every other output.
        let usual = File::create(&temporary).and_then(|file| file.metadata()).map_err(words)?.permissions();
        safetensors::serialize_to_file(tensors, none, &temporary).map_err(|error| error.to_string())?;
        std::fs::set_permissions(&temporary, usual).map_err(words)?;
        std::fs::rename(&temporary, path).map_err(words)
    };
    written().map_err(|error| {
        // Nothing is lost if it stays: only a stray temporary file.
        let _ = std::fs::remove_file(&temporary);
        Error::file(path, format!("cannot write: {error}"))
    })
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Vec<PlannedImage> {
        ["a", "b"].iter().zip([4, 9]).map(|(name, id)| PlannedImage { id, name: (*name).into() }).collect()
    }

    fn row(attack: &str, steps: u32) -> RowKey {
        RowKey {
            model: "unet".into(),
            training: "standard".into(),
            weights: "w".into(),
            dataset: "scenes".into(),
            split: "test".into(),
            device: "flex".into(),
            precision: "f32".into(),
            attack: attack.into(),
            norm: None,
            epsilon: None,
            alpha: None,
            steps,
            restarts: 0,
            iterate: None,
            start: None,
            targeted: false,
            seed: 0,
            options: BTreeMap::new(),
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_written_file_may_be_read_by_whom_the_umask_says() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours.safetensors"), folder.path().join("plain"));
        save(&ours, &[("images", &[1], &[0.5])]).unwrap();
        std::fs::write(&plain, "").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn images_of_one_size_come_back_from_one_list() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("adv.safetensors");
        let keep = Keep::new(folder.path(), &file).unwrap();
        keep.add(1, 9, [1, 1, 2], &[0.3, 0.4]).unwrap();
        keep.add(1, 4, [1, 1, 2], &[0.1, 0.2]).unwrap();
        keep.finish(&[row("none", 0), row("pgd", 3)], &images()).unwrap();
        let given = Given::open(&file).unwrap();
        assert_eq!(given.sets().unwrap(), [ONLY]);
        assert_eq!(given.image(ONLY, &images(), 1, [1, 1, 2]).unwrap(), [0.3, 0.4]);
        let error = given.image(ONLY, &images(), 0, [1, 2, 2]).unwrap_err().to_string();
        assert!(error.contains("F32 [2, 1, 1, 2], expected F32 [2, 1, 2, 2]"), "{error}");
        assert!(!folder.path().join("adversarial").exists());
    }

    #[test]
    fn images_of_several_sizes_and_rows_come_back_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("adv.safetensors");
        let keep = Keep::new(folder.path(), &file).unwrap();
        for row in 0..2 {
            keep.add(row, 4, [1, 1, 1], &[row as f32]).unwrap();
            keep.add(row, 9, [1, 1, 2], &[0.5, row as f32]).unwrap();
        }
        keep.finish(&[row("pgd", 3), row("pgd", 10)], &images()).unwrap();
        let given = Given::open(&file).unwrap();
        let sets = given.sets().unwrap();
        assert_eq!(sets, ["unet.standard.flex.pgd-10", "unet.standard.flex.pgd-3"]);
        assert_eq!(given.image(&sets[0], &images(), 1, [1, 1, 2]).unwrap(), [0.5, 1.0]);
    }

    #[test]
    fn a_lost_image_and_a_cut_file_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("adv.safetensors");
        let keep = Keep::new(folder.path(), &file).unwrap();
        keep.add(0, 4, [1, 1, 1], &[0.5]).unwrap();
        let error = keep.finish(&[row("pgd", 3)], &images()).unwrap_err().to_string();
        assert!(error.contains("image b") && error.contains("--save-adversarial"), "{error}");
        save(&file, &[(ONLY, &[4], &[0.0; 4])]).unwrap();
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert!(Given::open(&file).unwrap_err().to_string().contains("cut off"));
        std::fs::write(&file, [255; 20]).unwrap();
        assert!(Given::open(&file).unwrap_err().to_string().contains("expected a safetensors file"));
    }
}
