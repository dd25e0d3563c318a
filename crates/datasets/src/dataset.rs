//! The trait that every data set implements, and views on one.

use std::{convert::Infallible, fmt, str::FromStr};

use crate::{Class, Error, Image, Mask, Result, Sample, Slice};

/// A split of a data set in host memory or on disk. Reading is random access and thread-safe.
pub trait Dataset: Send + Sync {
    /// The data set's name, as [`open`](crate::open) takes it.
    fn name(&self) -> &str;

    /// The split's name.
    fn split(&self) -> &str;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none; [`open`](crate::open) never returns an empty data set.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes in the order of their indices.
    fn classes(&self) -> &[Class];

    /// Channels of every image: 1, 3, or the modalities of a medical scan.
    fn channels(&self) -> usize;

    /// The name of a sample, known without reading it.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    fn sample_name(&self, index: usize) -> String;

    /// Position of a sample in the list of the whole split, see [`Sample::id`].
    fn id(&self, index: usize) -> u64 {
        index as u64
    }

    /// The volume that a sample is a slice of, known without reading it; `None` for pictures that belong to no volume.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    fn slice(&self, _index: usize) -> Option<Slice> {
        None
    }

    /// How the sample is stored, in words (`RGB 8-bit png, mask index 8-bit png`), from headers alone where possible.
    ///
    /// # Errors
    /// As [`get`](Self::get), for what the headers show.
    fn stored_as(&self, index: usize) -> Result<String>;

    /// Reads a sample.
    ///
    /// # Errors
    /// If a file is missing or broken, has other sizes than its partner, or labels outside the classes.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    fn get(&self, index: usize) -> Result<Sample>;
}

/// Which part of a data set to read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Split {
    /// What weights are fitted to.
    Train,
    /// What selects models and options.
    Val,
    /// What is reported, read once at the end.
    Test,
    /// Any other name that the manifest gives, such as VOC's `trainaug`.
    Named(String),
}

impl Split {
    /// The name in manifests.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::Named(name) => name,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Split {
    type Err = Infallible;

    fn from_str(name: &str) -> std::result::Result<Self, Infallible> {
        Ok(match name {
            "train" => Self::Train,
            "val" => Self::Val,
            "test" => Self::Test,
            other => Self::Named(other.to_owned()),
        })
    }
}

/// Some samples of a data set; they keep their ids and names.
///
/// ```
/// use fireproof_datasets::{Dataset, Options, Split, Subset, open};
///
/// let scenes = open("scenes", None, Split::Val, Options::default())?;
/// let few = Subset::first(scenes, 3)?;
/// assert_eq!((few.len(), few.get(2)?.id), (3, 2));
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
pub struct Subset {
    whole: Box<dyn Dataset>,
    indices: Vec<usize>,
}

impl Subset {
    /// The samples at `indices`, in that order.
    ///
    /// # Errors
    /// If there are none, one is out of range, or one occurs twice (its id would no longer name one sample).
    pub fn new(whole: Box<dyn Dataset>, indices: Vec<usize>) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::argument("subset", "no samples", "at least one"));
        }
        let mut seen = vec![false; whole.len()];
        for &index in &indices {
            match seen.get_mut(index) {
                None => {
                    return Err(Error::argument("subset", format!("index {index}"), format!("below {}", whole.len())));
                }
                Some(true) => return Err(Error::argument("subset", format!("index {index} twice"), "each once")),
                Some(unseen) => *unseen = true,
            }
        }
        Ok(Self { whole, indices })
    }

    /// The first `count` samples in list order; all of them if there are fewer.
    ///
    /// # Errors
    /// If `count` is zero.
    pub fn first(whole: Box<dyn Dataset>, count: usize) -> Result<Self> {
        let indices = (0..count.min(whole.len())).collect();
        Self::new(whole, indices)
    }

    /// The samples whose name the predicate accepts, in list order: how to hold out a video sequence.
    ///
    /// # Errors
    /// If it accepts none.
    pub fn filtered(whole: Box<dyn Dataset>, mut accept: impl FnMut(&str) -> bool) -> Result<Self> {
        let indices = (0..whole.len()).filter(|&index| accept(&whole.sample_name(index))).collect();
        Self::new(whole, indices)
    }

    /// The samples of these names, in the order of the names. A name may carry the file's extension.
    ///
    /// # Errors
    /// Lists every name that the data set does not have or that occurs twice.
    pub fn named(whole: Box<dyn Dataset>, names: &[String]) -> Result<Self> {
        let position: std::collections::HashMap<String, usize> =
            (0..whole.len()).map(|index| (whole.sample_name(index), index)).collect();
        let stem = |name: &str| name.rsplit_once('.').map_or(name.to_owned(), |(stem, _)| stem.to_owned());
        let found = |name: &String| position.get(name).or_else(|| position.get(&stem(name))).copied();
        let missing: Vec<&str> = names.iter().filter(|name| found(name).is_none()).map(String::as_str).collect();
        if !missing.is_empty() {
            let split = format!("names of {} split `{}`", whole.name(), whole.split());
            return Err(Error::argument("frames", missing.join(", "), split));
        }
        Self::new(whole, names.iter().filter_map(found).collect())
    }
}

impl Dataset for Subset {
    fn name(&self) -> &str {
        self.whole.name()
    }
    fn split(&self) -> &str {
        self.whole.split()
    }
    fn len(&self) -> usize {
        self.indices.len()
    }
    fn classes(&self) -> &[Class] {
        self.whole.classes()
    }
    fn channels(&self) -> usize {
        self.whole.channels()
    }
    fn sample_name(&self, index: usize) -> String {
        self.whole.sample_name(self.indices[index])
    }
    fn id(&self, index: usize) -> u64 {
        self.whole.id(self.indices[index])
    }
    fn slice(&self, index: usize) -> Option<Slice> {
        self.whole.slice(self.indices[index])
    }
    fn stored_as(&self, index: usize) -> Result<String> {
        self.whole.stored_as(self.indices[index])
    }
    fn get(&self, index: usize) -> Result<Sample> {
        self.whole.get(self.indices[index])
    }
}

/// A data set whose samples are resized on reading, see [`resize`](crate::resize).
pub(crate) struct Resized {
    pub(crate) whole: Box<dyn Dataset>,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Dataset for Resized {
    fn name(&self) -> &str {
        self.whole.name()
    }
    fn split(&self) -> &str {
        self.whole.split()
    }
    fn len(&self) -> usize {
        self.whole.len()
    }
    fn classes(&self) -> &[Class] {
        self.whole.classes()
    }
    fn channels(&self) -> usize {
        self.whole.channels()
    }
    fn sample_name(&self, index: usize) -> String {
        self.whole.sample_name(index)
    }
    fn id(&self, index: usize) -> u64 {
        self.whole.id(index)
    }
    fn slice(&self, index: usize) -> Option<Slice> {
        self.whole.slice(index)
    }
    fn stored_as(&self, index: usize) -> Result<String> {
        self.whole.stored_as(index)
    }
    fn get(&self, index: usize) -> Result<Sample> {
        let mut sample = self.whole.get(index)?;
        if let Some([_, y, x]) = sample.case.as_mut().and_then(|case| case.spacing.as_mut()) {
            *y *= sample.image.height as f64 / self.height as f64;
            *x *= sample.image.width as f64 / self.width as f64;
        }
        let image: Image = crate::resize::image(&sample.image, self.height, self.width);
        let mask: Mask = if sample.mask.is_single() {
            sample.mask
        } else {
            crate::resize::mask(&sample.mask, self.height, self.width)
        };
        Ok(Sample { image, mask, ..sample })
    }
}
