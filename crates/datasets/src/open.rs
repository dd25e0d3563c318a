//! Data sets by name.

use std::path::Path;

use crate::{
    Dataset, Error, Manifest, Result, Split, dataset::Resized, folder::FolderDataset, idx::IdxDataset, msd::MsdDataset,
    read::Limits, scenes::Scenes,
};

/// How to open a data set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Height and width that every sample gets, see [`resize`](crate::resize); `None` keeps the files' own.
    pub size: Option<(usize, usize)>,
    /// Seed of generated data sets.
    pub seed: u64,
    /// Number of samples of generated data sets; `None` is the manifest's.
    pub length: Option<usize>,
    /// What files may ask for.
    pub limits: Limits,
}

/// Opens a split of a data set: by the name of an embedded manifest, by the path of a manifest of one's own, or by that of a
/// decathlon's `dataset.json`, see [`Manifest::find`].
///
/// Without `root`, a manifest of one's own describes the folder that it lies in.
///
/// ```
/// use fireproof_datasets::{Dataset, Options, Split, open};
///
/// let scenes = open("scenes", None, Split::Test, Options { length: Some(10), ..Options::default() })?;
/// assert_eq!((scenes.len(), scenes.classes()[2].name.as_str()), (10, "road"));
///
/// let error = open("camvid", None, Split::Test, Options::default()).err().unwrap().to_string();
/// assert!(error.contains("--root DIR"));
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
///
/// # Errors
/// If the name, the split or the root is not there, the manifest is wrong, or the split's list is empty, names a sample
/// twice or leaves the root. Samples themselves are read, and their errors found, by [`Dataset::get`] and
/// [`check`](crate::check()).
pub fn open(name: &str, root: Option<&Path>, split: Split, options: Options) -> Result<Box<dyn Dataset>> {
    let manifest = Manifest::find(name)?;
    let root = root.map(Path::to_path_buf).or_else(|| Manifest::folder_beside(name));
    open_manifest(&manifest, root.as_deref(), split, options)
}

/// Opens a split of the data set that a manifest describes; see [`open`].
///
/// # Errors
/// As [`open`].
pub fn open_manifest(
    manifest: &Manifest,
    root: Option<&Path>,
    split: Split,
    options: Options,
) -> Result<Box<dyn Dataset>> {
    let Some(entry) = manifest.splits.get(split.as_str()) else {
        let known = manifest.splits.keys().cloned().collect();
        return Err(Error::UnknownSplit { name: manifest.name.clone(), split: split.to_string(), known });
    };
    if let Some((height, width)) = options.size
        && ((height == 0 || width == 0) || height as u64 * width as u64 > options.limits.pixels)
    {
        let expected = format!("positive sides, at most {} pixels", options.limits.pixels);
        return Err(Error::argument("--size", format!("{height}x{width}"), expected));
    }
    if let Some(generator) = &manifest.scenes {
        let (height, width) = options.size.unwrap_or((generator.size[0], generator.size[1]));
        let length = options.length.or(entry.length).unwrap_or_default();
        return Ok(Box::new(Scenes::new(options.seed, split.as_str(), length, height, width)?));
    }
    let root = root.ok_or_else(|| Error::RootMissing { name: manifest.name.clone(), layout: layout(manifest) })?;
    let whole: Box<dyn Dataset> = if manifest.folder.is_some() {
        Box::new(FolderDataset::open(manifest, root, &split, entry, options.limits)?)
    } else if manifest.msd.is_some() {
        Box::new(MsdDataset::open(manifest, root, &split, entry, options.limits)?)
    } else {
        Box::new(IdxDataset::open(manifest, root, &split, entry, options.limits)?)
    };
    Ok(match options.size {
        Some((height, width)) => Box::new(Resized { whole, height, width }),
        None => whole,
    })
}

/// The embedded data sets, sorted by name.
pub fn list() -> Vec<Manifest> {
    Manifest::embedded()
}

fn layout(manifest: &Manifest) -> String {
    let files = match (&manifest.folder, &manifest.idx, &manifest.msd) {
        (Some(folder), _, _) => format!("images {} and masks {}", folder.images, folder.masks),
        (_, Some(idx), _) => format!("images {} and labels {}", idx.images, idx.labels),
        (_, _, Some(msd)) => format!("{} and the volumes that it lists", msd.dataset),
        _ => "its files".into(),
    };
    match &manifest.obtain {
        Some(how) => format!("{files} ({how})"),
        None => files,
    }
}
