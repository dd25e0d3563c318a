//! Data sets whose images and masks are files in a folder.

use std::path::{Path, PathBuf};

use crate::{
    Class, Dataset, Error, Manifest, Result, Sample, Split,
    manifest::SplitEntry,
    read::{self, Limits, image::Coding, mask::LabelCode},
};

/// A split of images and masks as a manifest's `[folder]` table describes them.
pub(crate) struct FolderDataset {
    name: String,
    split: String,
    root: PathBuf,
    images: String,
    masks: String,
    names: Vec<String>,
    classes: Vec<Class>,
    coding: Coding,
    code: LabelCode,
    limits: Limits,
}

impl FolderDataset {
    pub(crate) fn open(
        manifest: &Manifest,
        root: &Path,
        split: &Split,
        entry: &SplitEntry,
        limits: Limits,
    ) -> Result<Self> {
        let folder = manifest.folder.as_ref().expect("called for manifests with [folder]");
        let root = read::root(root)?;
        let stands_for = entry.path.as_deref().unwrap_or(split.as_str());
        let images = folder.images.replace("{split}", stands_for);
        let masks = entry.masks.as_ref().unwrap_or(&folder.masks).replace("{split}", stands_for);
        let (names, source) = match &entry.list {
            Some(list) => {
                let file = read::inside(&root, &list.replace("{split}", stands_for))?;
                (listed(&images, read::list::read(&file, &limits)?, &file)?, file)
            }
            None => found(&root, &images)?,
        };
        if names.is_empty() {
            return Err(Error::EmptySplit {
                name: manifest.name.clone(),
                split: split.to_string(),
                source_of_names: source.display().to_string(),
            });
        }
        Ok(Self {
            name: manifest.name.clone(),
            split: split.to_string(),
            root,
            images,
            masks,
            names,
            classes: manifest.class_list(),
            coding: Coding { channels: manifest.channels, range: manifest.range },
            code: manifest.code(),
            limits,
        })
    }

    fn paths(&self, index: usize) -> Result<(PathBuf, PathBuf)> {
        let path = |pattern: &str| read::inside(&self.root, &pattern.replace("{name}", &self.names[index]));
        Ok((path(&self.images)?, path(&self.masks)?))
    }
}

/// The parts of a pattern before and after `{name}`.
fn around(pattern: &str) -> (&str, &str) {
    pattern.split_once("{name}").expect("checked when the manifest was parsed")
}

/// Listed names without the pattern's ending, which some lists carry.
fn listed(images: &str, lines: Vec<String>, file: &Path) -> Result<Vec<String>> {
    let (_, ending) = around(images);
    let names: Vec<String> =
        lines.into_iter().map(|line| line.strip_suffix(ending).map(str::to_owned).unwrap_or(line)).collect();
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::file(file, format!("`{}` with and without its ending", pair[0]), "each name once")),
        None => Ok(names),
    }
}

/// The names of the files that match the pattern, in byte order, and the folder that was searched.
fn found(root: &Path, images: &str) -> Result<(Vec<String>, PathBuf)> {
    let (before, ending) = around(images);
    let (folder, start) = before.rsplit_once('/').map_or(("", before), |(folder, start)| (folder, start));
    let top = if folder.is_empty() { root.to_path_buf() } else { read::inside(root, folder)? };
    let mut names = Vec::new();
    let mut pending = vec![(top.clone(), String::new())];
    while let Some((directory, prefix)) = pending.pop() {
        let unreadable = |error: std::io::Error| Error::file(&directory, error.to_string(), "a folder of images");
        for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let file_name = entry.file_name();
            let Some(file_name) = file_name.to_str() else {
                return Err(Error::file(entry.path(), "a file name that is no UTF-8", "UTF-8 names"));
            };
            let path = format!("{prefix}{file_name}");
            // Links to folders are not followed, so a loop of links cannot trap the search.
            if entry.file_type().map_err(unreadable)?.is_dir() {
                pending.push((entry.path(), format!("{path}/")));
            } else if let Some(name) = path.strip_prefix(start).and_then(|rest| rest.strip_suffix(ending)) {
                names.push(name.to_owned());
            }
        }
    }
    names.sort_unstable();
    Ok((names, top))
}

impl Dataset for FolderDataset {
    fn name(&self) -> &str {
        &self.name
    }
    fn split(&self) -> &str {
        &self.split
    }
    fn len(&self) -> usize {
        self.names.len()
    }
    fn classes(&self) -> &[Class] {
        &self.classes
    }
    fn channels(&self) -> usize {
        self.coding.channels
    }
    fn sample_name(&self, index: usize) -> String {
        self.names[index].clone()
    }
    fn stored_as(&self, index: usize) -> Result<String> {
        let (image, mask) = self.paths(index)?;
        let (_, image) = read::image::header(&image, &read::bytes(&image, &self.limits, "an image")?, &self.limits)?;
        let (_, mask) = read::mask::header(&mask, &read::bytes(&mask, &self.limits, "a mask")?, &self.limits)?;
        Ok(format!("{image}, mask {mask}"))
    }
    fn get(&self, index: usize) -> Result<Sample> {
        let (image_file, mask_file) = self.paths(index)?;
        let image = read::image::read(&image_file, self.coding, &self.limits)?;
        let mask = read::mask::read(&mask_file, &self.code, &self.limits)?;
        if image.size() != mask.size() {
            return Err(Error::file(
                &mask_file,
                format!("a mask of {}x{} pixels", mask.width, mask.height),
                format!("{}x{} as its image {}", image.width, image.height, image_file.display()),
            ));
        }
        Ok(Sample { id: index as u64, name: self.names[index].clone(), image, mask, case: None })
    }
}
