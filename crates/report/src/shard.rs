//! One of several equal parts of a run's images, and which images it holds.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ReportError;

/// Part `index` of `of`, counted from 1: what `--shard 2/4` says.
///
/// ```
/// use fireproof_report::Shard;
///
/// let shard: Shard = "2/3".parse()?;
/// assert_eq!(shard.split(&[10, 3, 7, 40, 21]), [7, 40]);
/// assert!("0/3".parse::<Shard>().is_err());
/// # Ok::<(), fireproof_report::ReportError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    index: u32,
    of: u32,
}

/// More than any cluster starts at once; a slip of the keyboard is not worth listing a billion missing shards.
const MOST: u32 = 100_000;

impl Shard {
    /// Shard `index` of `of`.
    ///
    /// # Errors
    /// [`ReportError::Shard`] unless `1 ≤ index ≤ of ≤ 100 000`.
    pub fn new(index: u32, of: u32) -> Result<Self, ReportError> {
        if (1..=of).contains(&index) && of <= MOST {
            return Ok(Self { index, of });
        }
        let expected = format!("i/n with i from 1 to n and n at most {MOST}");
        Err(ReportError::Shard { found: format!("{index}/{of}"), expected })
    }

    /// Which one, from 1.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Of how many.
    pub fn of(self) -> u32 {
        self.of
    }

    /// The ids of this shard, ascending, of all `ids` of the run.
    ///
    /// Ids are dealt out in ascending order like cards. So the shards are disjoint and complete, differ by one image at most
    /// even where the ids are far from contiguous (every 30th frame of a video), and do not depend on the order of `ids`.
    pub fn split(self, ids: &[u64]) -> Vec<u64> {
        let sorted: BTreeSet<u64> = ids.iter().copied().collect();
        sorted.into_iter().skip(self.index as usize - 1).step_by(self.of as usize).collect()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        let expected = || "i/n with i from 1 to n, for example 2/4".to_owned();
        let numbers = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        let (index, of) = numbers.ok_or_else(|| ReportError::Shard { found: text.to_owned(), expected: expected() })?;
        Self::new(index, of)
    }
}

impl TryFrom<String> for Shard {
    type Error = ReportError;

    fn try_from(text: String) -> Result<Self, ReportError> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

/// What the header of a shard's records says beyond that of the whole run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which shard.
    pub shard: Shard,
    /// The ids of its images, as [`Shard::split`] gives them: what must be recorded in every row until the shard is complete.
    pub images: Vec<u64>,
}

impl Part {
    /// A shard of a run over all images of `ids`.
    pub fn new(shard: Shard, ids: &[u64]) -> Self {
        Self { shard, images: shard.split(ids) }
    }
}
