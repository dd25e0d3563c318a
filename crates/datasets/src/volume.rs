//! Single medical volumes: a scan as 2-D images with its statistics, and labels written in a scan's place.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};

use crate::{
    Case, Error, Image, Result,
    read::{
        Limits,
        nifti::{self, Header},
    },
};

/// A scan whose values became `[0, 1]`, with mean and standard deviation of each channel.
///
/// Slices are those along `z`, as the file stores them: nothing is turned to another orientation, resampled or cropped.
///
/// ```no_run
/// use fireproof_datasets::{read::Limits, volume::{Scan, write_labels}};
///
/// let scan = Scan::read("heart.nii.gz".as_ref(), 1, None, &Limits::default())?;
/// let mut labels = Vec::new();
/// for z in 0..scan.header().depth {
///     labels.extend(scan.image(z).data.iter().map(|&value| u8::from(value > 0.5)));
/// }
/// write_labels("bright.nii.gz".as_ref(), scan.header(), &labels)?;
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    header: Header,
    /// `[C, D, H, W]`.
    data: Vec<f32>,
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Scan {
    /// Reads a NIfTI file of `channels` channels. The values of `range` become 0 and 1 and what lies outside is clipped, as
    /// with the window of a CT; without one, smallest and largest value of each channel do.
    ///
    /// # Errors
    /// As [`nifti::read`], and if the file has another number of channels.
    pub fn read(file: &Path, channels: usize, range: Option<[f32; 2]>, limits: &Limits) -> Result<Self> {
        let nifti::Volume { header, mut data } = nifti::read(file, limits)?;
        if header.channels != channels {
            let found = format!("a volume of {} channels", header.channels);
            return Err(Error::file(file, found, format!("{channels}, one for each modality")));
        }
        let (mut means, mut deviations) = (Vec::new(), Vec::new());
        for plane in data.chunks_exact_mut(header.depth * header.height * header.width) {
            let [low, high] = range.unwrap_or_else(|| {
                plane.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &v| [low.min(v), high.max(v)])
            });
            // In double precision: the difference of two large numbers of 32 bits may be infinite.
            let (low, width) = (f64::from(low), f64::from(high) - f64::from(low));
            for value in plane.iter_mut() {
                let part = if width > 0.0 { (f64::from(*value) - low) / width } else { 0.0 };
                *value = part.clamp(0.0, 1.0) as f32;
            }
            let count = plane.len() as f64;
            let mean = plane.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
            let square = plane.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
            means.push(mean as f32);
            deviations.push((square.sqrt() as f32).max(Case::SMALLEST));
        }
        Ok(Self { header, data, mean: means, std: deviations })
    }

    /// Extent, spacing, orientation.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Mean of each channel over all voxels, in the units of [`image`](Self::image).
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Standard deviation of each channel over all voxels, at least 1e-8, in the units of [`image`](Self::image).
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// Slice `z`: values in `[0, 1]`, rows along the file's second axis, columns along its first.
    ///
    /// # Panics
    /// If `z` is not below the depth.
    pub fn image(&self, z: usize) -> Image {
        let Header { channels, depth, height, width, .. } = self.header;
        assert!(z < depth, "slice {z} of {depth}");
        let plane = height * width;
        let mut data = Vec::with_capacity(channels * plane);
        for channel in 0..channels {
            data.extend_from_slice(&self.data[(channel * depth + z) * plane..][..plane]);
        }
        Image { channels, height, width, data }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        4 * self.data.len() as u64
    }
}

/// Writes a label volume that lies where the scan `like` lies: same extent, spacing and affine, one byte a voxel. `labels` are
/// `D · H · W` raw values, slice by slice, as a decathlon's label volumes hold them. A name that ends in `.gz` is compressed.
///
/// The file appears whole or not at all: it is written under a temporary name beside it and renamed.
///
/// # Errors
/// If there are not as many labels as voxels, or the file cannot be written.
pub fn write_labels(file: &Path, like: &Header, labels: &[u8]) -> Result<()> {
    let Header { depth, height, width, .. } = *like;
    if labels.len() != depth * height * width {
        let expected = format!("{}, for {width}x{height}x{depth} voxels", depth * height * width);
        return Err(Error::argument("labels", format!("{} values", labels.len()), expected));
    }
    let Some(name) = file.file_name() else {
        return Err(Error::file(file, "a path without a file name", "the file to write"));
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = file.with_file_name(temporary);
    let write = || -> std::io::Result<()> {
        let out = BufWriter::new(File::create(&temporary)?);
        let out = if file.extension().is_some_and(|extension| extension == "gz") {
            let mut encoder = GzEncoder::new(out, Compression::default());
            content(&mut encoder, like, labels)?;
            encoder.finish()?
        } else {
            let mut out = out;
            content(&mut out, like, labels)?;
            out
        };
        out.into_inner()?.sync_all()?;
        std::fs::rename(&temporary, file)
    };
    write().map_err(|error| {
        // What is half written is of no use; the first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
        Error::file(file, error.to_string(), "a file that can be written")
    })
}

/// Header, no extensions, voxels.
fn content(out: &mut impl Write, like: &Header, labels: &[u8]) -> std::io::Result<()> {
    out.write_all(&like.for_labels())?;
    out.write_all(&[0; 4])?;
    out.write_all(labels)
}
