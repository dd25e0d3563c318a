//! Data sets whose images and labels are idx arrays, held in memory as bytes.

use std::{collections::HashSet, path::Path};

use crate::{
    Class, Dataset, Error, Image, Manifest, Mask, Result, Sample, Split,
    manifest::SplitEntry,
    read::{self, Limits, idx::Array, mask::LabelCode},
};

/// A split of images and labels as a manifest's `[idx]` table describes them.
pub(crate) struct IdxDataset {
    name: String,
    split: String,
    names: Vec<String>,
    classes: Vec<Class>,
    channels: usize,
    range: [f32; 2],
    images: Array,
    labels: Array,
    code: Vec<u16>,
    labels_file: std::path::PathBuf,
    images_file: std::path::PathBuf,
}

impl IdxDataset {
    pub(crate) fn open(
        manifest: &Manifest,
        root: &Path,
        split: &Split,
        entry: &SplitEntry,
        limits: Limits,
    ) -> Result<Self> {
        let idx = manifest.idx.as_ref().expect("called for manifests with [idx]");
        let root = read::root(root)?;
        let stands_for = entry.path.as_deref().unwrap_or(split.as_str());
        let path = |pattern: &str| read::inside(&root, &pattern.replace("{split}", stands_for));
        let (images_file, labels_file) = (path(&idx.images)?, path(&idx.labels)?);
        let images = read::idx::read(&images_file, &limits)?;
        let labels = read::idx::read(&labels_file, &limits)?;
        let &[count, height, width] = images.shape.as_slice() else {
            return Err(Error::file(&images_file, format!("an array of {:?}", images.shape), "images: [N, H, W]"));
        };
        if labels.shape != [count, height, width] && labels.shape != [count] {
            let expected = format!("[{count}, {height}, {width}] or [{count}] as its images {}", images_file.display());
            return Err(Error::file(&labels_file, format!("an array of {:?}", labels.shape), expected));
        }
        if images.data.is_empty() {
            return Err(Error::EmptySplit {
                name: manifest.name.clone(),
                split: split.to_string(),
                source_of_names: images_file.display().to_string(),
            });
        }
        let names = match &idx.names {
            None => (0..count).map(|index| format!("{split}_{index:05}")).collect(),
            Some(pattern) => names(&path(pattern)?, count, &limits)?,
        };
        let LabelCode::Index(codes) = manifest.code() else { unreachable!("[idx] labels are values") };
        Ok(Self {
            name: manifest.name.clone(),
            split: split.to_string(),
            names,
            classes: manifest.class_list(),
            channels: manifest.channels,
            range: manifest.range.unwrap_or([0.0, 255.0]),
            images,
            labels,
            code: LabelCode::table(&codes),
            labels_file,
            images_file,
        })
    }
}

/// One name a line, as many as there are samples, each once.
fn names(file: &Path, count: usize, limits: &Limits) -> Result<Vec<String>> {
    let text = read::text(file, limits, "a text file with one name a line")?;
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if names.len() != count {
        return Err(Error::file(file, format!("{} names", names.len()), format!("{count}, one for each image")));
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(Error::file(file, format!("`{}` twice", twice.escape_debug()), "each name once")),
        None => Ok(names),
    }
}

impl Dataset for IdxDataset {
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
        self.channels
    }
    fn sample_name(&self, index: usize) -> String {
        self.names[index].clone()
    }
    fn stored_as(&self, _index: usize) -> Result<String> {
        Ok(format!("grey 8-bit idx, {} 8-bit idx", if self.labels.shape.len() == 1 { "label" } else { "mask" }))
    }
    fn get(&self, index: usize) -> Result<Sample> {
        let (height, width) = (self.images.shape[1], self.images.shape[2]);
        let stored = &self.images.data[index * height * width..][..height * width];
        let [low, high] = self.range;
        if let Some(outside) = stored.iter().find(|&&value| f32::from(value) < low || f32::from(value) > high) {
            let found = format!("the value {outside} in sample {index}");
            return Err(Error::file(&self.images_file, found, format!("values in {low}..={high}")));
        }
        let plane = stored.iter().map(|&value| (f32::from(value) - low) / (high - low));
        let data: Vec<f32> = (0..self.channels).flat_map(|_| plane.clone()).collect();
        let (rows, columns) = if self.labels.shape.len() == 1 { (1, 1) } else { (height, width) };
        let labels = &self.labels.data[index * rows * columns..][..rows * columns];
        let mut mask = Mask { height: rows, width: columns, data: Vec::with_capacity(labels.len()) };
        for (position, &label) in labels.iter().enumerate() {
            match self.code.get(usize::from(label)) {
                Some(&class) if class < 256 => mask.data.push(class as u8),
                _ => {
                    let (x, y) = (position % columns, position / columns);
                    let found = format!("label {label} in sample {index} (`{}`) at x {x}, y {y}", self.names[index]);
                    return Err(Error::file(&self.labels_file, found, "a label of the class list or void"));
                }
            }
        }
        let image = Image { channels: self.channels, height, width, data };
        Ok(Sample { id: index as u64, name: self.names[index].clone(), image, mask })
    }
}
