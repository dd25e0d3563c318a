//! Volumes in the layout of the Medical Segmentation Decathlon, as a data set of 2-D slices.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use rayon::prelude::*;

use crate::{
    Case, Class, Dataset, Error, Manifest, Mask, Result, Sample, Slice, Split,
    manifest::SplitEntry,
    read::{
        self, Limits,
        mask::{LabelCode, ranges},
        msd::{self, Pair},
        nifti::{self, Header},
    },
    volume::Scan,
};

/// Volumes that are kept in memory, at most: a slice is much cheaper to cut than its volume to decompress.
const KEPT_BYTES: u64 = 1 << 29;

/// A split of volumes as a manifest's `[msd]` table describes them.
pub(crate) struct MsdDataset {
    name: String,
    split: String,
    root: PathBuf,
    volumes: Vec<Pair>,
    /// Volume and `z` of each sample.
    slices: Vec<(usize, usize)>,
    depths: Vec<usize>,
    classes: Vec<Class>,
    channels: usize,
    range: Option<[f32; 2]>,
    code: Vec<u16>,
    limits: Limits,
    kept: Mutex<Kept>,
    /// What `kept` may hold.
    kept_bytes: u64,
}

/// A scan with its labels, slice by slice.
struct Labelled {
    scan: Scan,
    labels: Vec<u8>,
}

/// Read once, by whoever comes first; the others wait for it.
type Place = Arc<OnceLock<Result<Labelled>>>;

/// The volumes in memory, the last used at the end.
#[derive(Default)]
struct Kept(VecDeque<(usize, Place)>);

impl MsdDataset {
    pub(crate) fn open(
        manifest: &Manifest,
        root: &Path,
        split: &Split,
        entry: &SplitEntry,
        limits: Limits,
    ) -> Result<Self> {
        let msd = manifest.msd.as_ref().expect("called for manifests with [msd]");
        let root = read::root(root)?;
        let file = read::inside(&root, &msd.dataset)?;
        let contents = msd::read(&file, &limits)?;
        let LabelCode::Index(codes) = manifest.code() else { unreachable!("[msd] labels are values") };
        let mut problems = Vec::new();
        if contents.modalities.len() != manifest.channels {
            let (found, expected) = (contents.modalities.len(), manifest.channels);
            problems.push(format!("{found} modalities, expected {expected} as `channels` of the manifest says"));
        }
        for (value, name) in contents.labels.iter().filter(|(value, _)| !codes.contains_key(value)) {
            problems.push(format!("the label {value} (`{name}`), expected labels that the manifest knows"));
        }
        if !problems.is_empty() {
            return Err(Error::Problems { file, problems });
        }
        let (volumes, source) = match &entry.list {
            None => (contents.training, file.clone()),
            Some(list) => {
                let stands_for = entry.path.as_deref().unwrap_or(split.as_str());
                let list = read::inside(&root, &list.replace("{split}", stands_for))?;
                (listed(contents.training, &list, &file, &limits)?, list)
            }
        };
        if volumes.is_empty() {
            return Err(Error::EmptySplit {
                name: manifest.name.clone(),
                split: split.to_string(),
                source_of_names: source.display().to_string(),
            });
        }
        let depth = |volume: &Pair| Ok(nifti::header(&read::inside(&root, &volume.image)?, &limits)?.depth);
        let depths: Vec<Result<usize>> = volumes.par_iter().map(depth).collect();
        let broken: Vec<String> = depths.iter().filter_map(|depth| Some(depth.as_ref().err()?.to_string())).collect();
        if !broken.is_empty() {
            return Err(Error::Problems { file, problems: broken });
        }
        let depths: Vec<usize> = depths.into_iter().collect::<Result<_>>()?;
        let slices = depths.iter().enumerate().flat_map(|(volume, &depth)| (0..depth).map(move |z| (volume, z)));
        Ok(Self {
            name: manifest.name.clone(),
            split: split.to_string(),
            root,
            slices: slices.collect(),
            volumes,
            depths,
            classes: manifest.class_list(),
            channels: manifest.channels,
            range: manifest.range,
            code: LabelCode::table(&codes),
            limits,
            kept: Mutex::default(),
            kept_bytes: KEPT_BYTES,
        })
    }

    /// A volume and its labels, from memory if they are there.
    fn volume(&self, volume: usize) -> Place {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match kept.0.iter().position(|(other, _)| *other == volume) {
            Some(position) => kept.0.remove(position).map(|(_, place)| place),
            None => None,
        };
        let place = place.unwrap_or_default();
        kept.0.push_back((volume, place.clone()));
        drop(kept);
        if place.get().is_none() {
            place.get_or_init(|| self.read(volume));
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).shrink(self.kept_bytes);
        }
        place
    }

    fn read(&self, volume: usize) -> Result<Labelled> {
        let pair = &self.volumes[volume];
        let image = read::inside(&self.root, &pair.image)?;
        let scan = Scan::read(&image, self.channels, self.range, &self.limits)?;
        let header = scan.header();
        if header.depth != self.depths[volume] {
            let expected = format!("{} as when the data set was opened", self.depths[volume]);
            return Err(Error::file(&image, format!("{} slices", header.depth), expected));
        }
        let file = read::inside(&self.root, &pair.label)?;
        let labels = nifti::read(&file, &self.limits)?;
        fits(&file, &labels.header, &image, header)?;
        let labels = self.labels(&file, &labels)?;
        Ok(Labelled { scan, labels })
    }

    /// Class indices of a label volume.
    fn labels(&self, file: &Path, volume: &nifti::Volume) -> Result<Vec<u8>> {
        let mut unknown: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut labels = Vec::with_capacity(volume.data.len());
        for (place, &value) in volume.data.iter().enumerate() {
            let whole = value as u16;
            match self.code.get(usize::from(whole)) {
                Some(&class) if f32::from(whole) == value && class < 256 => labels.push(class as u8),
                // A scan in the place of its labels has thousands of values; a few say enough.
                _ if unknown.len() < 8 || unknown.contains_key(&value.to_string()) => {
                    unknown.entry(value.to_string()).or_insert((0, place)).0 += 1;
                }
                _ => unknown.entry("others".into()).or_insert((0, place)).0 += 1,
            }
        }
        if unknown.is_empty() {
            return Ok(labels);
        }
        let Header { height, width, .. } = volume.header;
        let found = unknown.iter().map(|(value, (count, place))| {
            let [z, y, x] = [place / (height * width), place / width % height, place % width];
            format!("{value} ({count} voxels, first at x {x}, y {y}, z {z})")
        });
        let found = format!("labels outside the class list: {}", found.collect::<Vec<_>>().join(", "));
        let known = (0..=u16::MAX).zip(&self.code).filter(|(_, class)| **class < 256).map(|(value, _)| value);
        Err(Error::file(file, found, ranges(known)))
    }
}

/// The volumes that a list names, in its order.
fn listed(volumes: Vec<Pair>, list: &Path, dataset: &Path, limits: &Limits) -> Result<Vec<Pair>> {
    let mut known: HashMap<String, Pair> = volumes.into_iter().map(|pair| (pair.name.clone(), pair)).collect();
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for line in read::list::read(list, limits)? {
        match known.remove(msd::case_name(&line)) {
            Some(pair) => found.push(pair),
            None => problems.push(format!(
                "the volume `{}`, expected one of `training` in {}, each once",
                line.escape_debug(),
                dataset.display()
            )),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(Error::Problems { file: list.to_path_buf(), problems }) }
}

/// Labels must lie on the voxels of their image.
fn fits(file: &Path, labels: &Header, image_file: &Path, image: &Header) -> Result<()> {
    let as_image = |what: String| format!("{what} as its image {}", image_file.display());
    let shape = |header: &Header| format!("{}x{}x{}", header.width, header.height, header.depth);
    if labels.channels != 1 || shape(labels) != shape(image) {
        let found = format!("labels of {} voxels and {} channels", shape(labels), labels.channels);
        return Err(Error::file(file, found, as_image(format!("{} voxels and 1 channel", shape(image)))));
    }
    // Headers are rounded by the tools that write them, so only what cannot be rounding is refused.
    let far = labels.spacing.iter().zip(image.spacing).any(|(a, b)| (a - b).abs() > 0.01 * b);
    if far || labels.orientation() != image.orientation() {
        let words = |header: &Header| format!("{} mm (z, y, x), {}", join(&header.spacing), header.orientation());
        return Err(Error::file(file, format!("labels of voxels of {}", words(labels)), as_image(words(image))));
    }
    Ok(())
}

fn join(spacing: &[f64; 3]) -> String {
    spacing.map(|step| format!("{step:.4}")).join("x")
}

impl Kept {
    /// Forgets the longest unused volumes until the rest takes at most `most` bytes; the last one always stays.
    fn shrink(&mut self, most: u64) {
        let bytes = |place: &Place| match place.get() {
            Some(Ok(volume)) => volume.scan.bytes() + volume.labels.len() as u64,
            _ => 0,
        };
        let mut total: u64 = self.0.iter().map(|(_, place)| bytes(place)).sum();
        while total > most && self.0.len() > 1 {
            if let Some((_, place)) = self.0.pop_front() {
                total -= bytes(&place);
            }
        }
    }
}

impl Dataset for MsdDataset {
    fn name(&self) -> &str {
        &self.name
    }
    fn split(&self) -> &str {
        &self.split
    }
    fn len(&self) -> usize {
        self.slices.len()
    }
    fn classes(&self) -> &[Class] {
        &self.classes
    }
    fn channels(&self) -> usize {
        self.channels
    }
    fn sample_name(&self, index: usize) -> String {
        let (volume, z) = self.slices[index];
        format!("{} {z}", self.volumes[volume].name)
    }
    fn slice(&self, index: usize) -> Option<Slice> {
        let (volume, z) = self.slices[index];
        Some(Slice { volume: volume as u64, name: self.volumes[volume].name.clone(), z })
    }
    fn stored_as(&self, index: usize) -> Result<String> {
        let pair = &self.volumes[self.slices[index].0];
        let header = |path: &str| nifti::header(&read::inside(&self.root, path)?, &self.limits);
        let (image, label) = (header(&pair.image)?, header(&pair.label)?);
        Ok(format!("NIfTI {} {}, mask {}", image.kind.name(), image.orientation(), label.kind.name()))
    }
    fn get(&self, index: usize) -> Result<Sample> {
        let (volume, z) = self.slices[index];
        let place = self.volume(volume);
        let read = place.get().expect("it was just read").as_ref();
        let Labelled { scan, labels } = read.map_err(Clone::clone)?;
        let image = scan.image(z);
        let (height, width) = image.size();
        let data = labels[z * height * width..][..height * width].to_vec();
        let slice = Slice { volume: volume as u64, name: self.volumes[volume].name.clone(), z };
        let case =
            Case { slice, spacing: Some(scan.header().spacing), mean: scan.mean().to_vec(), std: scan.std().to_vec() };
        let mask = Mask { height, width, data };
        Ok(Sample { id: index as u64, name: self.sample_name(index), image, mask, case: Some(case) })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::volume::write_labels;

    /// Five volumes of 3 × 2 voxels and 4 slices, each its own labels.
    fn task() -> TempDir {
        let mut raw = [0u8; Header::BYTES];
        let fields: [(usize, &[u8]); 6] = [
            (0, &[0x5c, 1]),
            (40, &[3, 0, 3, 0, 2, 0, 4]),
            (70, &[2, 0, 8]),
            (108, &352f32.to_le_bytes()),
            (344, b"n+1"),
            (80, &[1f32.to_le_bytes(); 3].concat()),
        ];
        for (at, bytes) in fields {
            raw[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let header = Header::parse("made".as_ref(), raw, &Limits::default()).unwrap();
        let folder = TempDir::new().unwrap();
        let mut training = Vec::new();
        for number in 0..5u8 {
            let voxels: Vec<u8> = (0..24).map(|voxel| (voxel * (number + 1)) % 3).collect();
            write_labels(&folder.path().join(format!("{number}.nii.gz")), &header, &voxels).unwrap();
            training.push(format!("{{\"image\": \"{number}.nii.gz\", \"label\": \"{number}.nii.gz\"}}"));
        }
        let labels = "{\"0\": \"a\", \"1\": \"b\", \"2\": \"c\"}";
        let head = format!("\"name\": \"t\", \"modality\": {{\"0\": \"m\"}}, \"labels\": {labels}");
        let text = format!("{{{head}, \"training\": [{}]}}", training.join(","));
        std::fs::write(folder.path().join("dataset.json"), text).unwrap();
        folder
    }

    fn open(folder: &TempDir) -> MsdDataset {
        let manifest = Manifest::find(folder.path().join("dataset.json").to_str().unwrap()).unwrap();
        MsdDataset::open(&manifest, folder.path(), &Split::Train, &SplitEntry::default(), Limits::default()).unwrap()
    }

    #[test]
    fn what_is_forgotten_is_read_again_and_memory_stays_bounded() {
        let folder = task();
        let all = open(&folder);
        // A volume takes 24 voxels of 4 bytes and a label each: 120 bytes.
        let few = MsdDataset { kept_bytes: 250, ..open(&folder) };
        for index in (0..20).map(|step| step * 7 % 20) {
            assert_eq!(few.get(index).unwrap(), all.get(index).unwrap());
            let kept = few.kept.lock().unwrap();
            assert!(kept.0.len() <= 2 && kept.0.back().unwrap().0 == index / 4, "{} volumes", kept.0.len());
        }
        assert_eq!(all.kept.lock().unwrap().0.len(), 5);
    }

    #[test]
    fn threads_share_a_volume_and_read_what_one_reads() {
        let folder = task();
        let one = open(&folder);
        let many = MsdDataset { kept_bytes: 0, ..open(&folder) };
        (0..400).into_par_iter().for_each(|step| assert_eq!(many.get(step % 20).unwrap(), one.get(step % 20).unwrap()));
        assert_eq!(many.kept.lock().unwrap().0.len(), 1);
    }
}
