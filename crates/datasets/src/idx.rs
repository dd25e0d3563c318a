//! Data sets whose images and labels are idx arrays, held in memory as bytes.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use crate::{
    Case, Class, Dataset, Error, Image, Manifest, Mask, Result, Sample, Slice, Split, VOID,
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
    /// Position in the arrays of the first sample.
    first: usize,
    /// What volume each sample is a slice of; empty where there are none.
    slices: Vec<Slice>,
    /// Mean and standard deviation of each volume, in the units of images.
    statistics: Vec<[f32; 2]>,
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
        let [first, end] = entry.range.unwrap_or([0, count]);
        if first >= end || end > count {
            let found = format!("the range {first}..{end} of split `{split}`");
            return Err(Error::file(&images_file, found, format!("a part of its {count} images")));
        }
        let names = names[first..end].to_vec();
        let LabelCode::Index(codes) = manifest.code() else { unreachable!("[idx] labels are values") };
        let slices = match &idx.names {
            Some(_) if idx.volumes && labels.shape.len() == 1 => {
                return Err(Error::file(
                    &labels_file,
                    "one label an image",
                    "masks: the samples are slices of volumes",
                ));
            }
            Some(pattern) if idx.volumes => slices(&path(pattern)?, &names)?,
            _ => Vec::new(),
        };
        let mut data = Self {
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
            first,
            slices,
            statistics: Vec::new(),
        };
        data.statistics = data.statistics();
        Ok(data)
    }

    /// Mean and standard deviation of each volume over all pixels that are not void, from integer sums.
    fn statistics(&self) -> Vec<[f32; 2]> {
        let volumes = self.slices.iter().map(|slice| slice.volume + 1).max().unwrap_or(0) as usize;
        let mut sums = vec![[0u64; 3]; volumes];
        let plane = self.images.shape[1] * self.images.shape[2];
        let pixels = self.images.data.chunks_exact(plane).zip(self.labels.data.chunks_exact(plane)).skip(self.first);
        for (slice, (values, labels)) in self.slices.iter().zip(pixels) {
            let [count, sum, squares] = &mut sums[slice.volume as usize];
            for (&value, &label) in values.iter().zip(labels) {
                if self.code.get(usize::from(label)) != Some(&u16::from(VOID)) {
                    *count += 1;
                    *sum += u64::from(value);
                    *squares += u64::from(value) * u64::from(value);
                }
            }
        }
        let [low, high] = self.range.map(f64::from);
        let statistics = |[count, sum, squares]: [u64; 3]| {
            let count = count.max(1);
            let spread = u128::from(count) * u128::from(squares) - u128::from(sum) * u128::from(sum);
            let mean = (sum as f64 / count as f64 - low) / (high - low);
            let deviation = (spread as f64).sqrt() / count as f64 / (high - low);
            [mean as f32, (deviation as f32).max(Case::SMALLEST)]
        };
        sums.into_iter().map(statistics).collect()
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

/// The slices that names of the form `VOLUME Z` stand for; volumes are numbered as they first appear.
fn slices(file: &Path, names: &[String]) -> Result<Vec<Slice>> {
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    let mut slices = Vec::with_capacity(names.len());
    for line in names {
        let parts = line.rsplit_once(' ').and_then(|(name, z)| Some((name, z, z.parse::<usize>().ok()?)));
        // The spelling is checked too: `a 1` and `a 01` would be one slice.
        let Some((name, _, z)) = parts.filter(|(name, text, z)| z.to_string() == *text && !name.is_empty()) else {
            let found = format!("the name `{}`", line.escape_debug());
            return Err(Error::file(file, found, "`VOLUME Z`, such as `patient_07 12`"));
        };
        let next = numbers.len() as u64;
        slices.push(Slice { volume: *numbers.entry(name).or_insert(next), name: name.to_owned(), z });
    }
    Ok(slices)
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
    fn id(&self, index: usize) -> u64 {
        (self.first + index) as u64
    }
    fn slice(&self, index: usize) -> Option<Slice> {
        self.slices.get(index).cloned()
    }
    fn stored_as(&self, _index: usize) -> Result<String> {
        Ok(format!("grey 8-bit idx, {} 8-bit idx", if self.labels.shape.len() == 1 { "label" } else { "mask" }))
    }
    fn get(&self, index: usize) -> Result<Sample> {
        let (height, width) = (self.images.shape[1], self.images.shape[2]);
        let place = self.first + index;
        let stored = &self.images.data[place * height * width..][..height * width];
        let [low, high] = self.range;
        if let Some(outside) = stored.iter().find(|&&value| f32::from(value) < low || f32::from(value) > high) {
            let found = format!("the value {outside} in sample {place}");
            return Err(Error::file(&self.images_file, found, format!("values in {low}..={high}")));
        }
        let plane = stored.iter().map(|&value| (f32::from(value) - low) / (high - low));
        let data: Vec<f32> = (0..self.channels).flat_map(|_| plane.clone()).collect();
        let (rows, columns) = if self.labels.shape.len() == 1 { (1, 1) } else { (height, width) };
        let labels = &self.labels.data[place * rows * columns..][..rows * columns];
        let mut mask = Mask { height: rows, width: columns, data: Vec::with_capacity(labels.len()) };
        for (position, &label) in labels.iter().enumerate() {
            match self.code.get(usize::from(label)) {
                Some(&class) if class < 256 => mask.data.push(class as u8),
                _ => {
                    let (x, y) = (position % columns, position / columns);
                    let found = format!("label {label} in sample {place} (`{}`) at x {x}, y {y}", self.names[index]);
                    return Err(Error::file(&self.labels_file, found, "a label of the class list or void"));
                }
            }
        }
        let image = Image { channels: self.channels, height, width, data };
        let case = self.slices.get(index).map(|slice| {
            let [mean, std] = self.statistics[slice.volume as usize];
            let repeated = |value: f32| vec![value; self.channels];
            Case { slice: slice.clone(), spacing: None, mean: repeated(mean), std: repeated(std) }
        });
        Ok(Sample { id: place as u64, name: self.names[index].clone(), image, mask, case })
    }
}
