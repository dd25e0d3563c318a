//! NIfTI-1 volumes in one file (`.nii`, `.nii.gz`): header, voxels as `f32`, byte order and scaling resolved.

mod header;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;

pub use header::{Header, Kind};

use super::{Limits, bytes, length};
use crate::{Error, Result};

const EXPECTED: &str = "a NIfTI-1 volume (.nii or .nii.gz)";
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Deflate cannot shrink more than this: a header that says more lies.
const MOST_DEFLATED: u64 = 1032;

/// A volume in memory, as its file stores it: no axis is turned or resampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Extent, spacing, orientation.
    pub header: Header,
    /// `C · D · H · W` values after the header's scaling, index `((c · D + z) · H + y) · W + x`; all are finite.
    pub data: Vec<f32>,
}

/// Reads a volume; see [`decode`].
///
/// # Errors
/// If it cannot be read, and as [`decode`].
pub fn read(file: &Path, limits: &Limits) -> Result<Volume> {
    decode(file, &bytes(file, limits, EXPECTED)?, limits)
}

/// Decodes a volume; gzip is recognised by its magic, byte order by the header. `file` is only named in errors.
///
/// # Errors
/// If the header is wrong (see [`Header`]), says more voxels than the file can hold or `limits` allow, if the file is longer
/// or shorter than it says or its gzip checksum is wrong, and if a value is not finite. What the header says is compared with
/// the file's length before memory is allocated.
pub fn decode(file: &Path, content: &[u8], limits: &Limits) -> Result<Volume> {
    if content.starts_with(&GZIP) {
        return body(file, MultiGzDecoder::new(content), deflated(content.len() as u64, limits), limits);
    }
    body(file, content, content.len() as u64, limits)
}

/// Reads the header of a file alone, without its voxels.
///
/// # Errors
/// If the file cannot be read, or its header is wrong or says more voxels than the file can hold or `limits` allow.
pub fn header(file: &Path, limits: &Limits) -> Result<Header> {
    let most = length(file, limits, EXPECTED)?;
    let mut content = BufReader::new(File::open(file).map_err(|error| broken(file, &error))?);
    if content.fill_buf().map_err(|error| broken(file, &error))?.starts_with(&GZIP) {
        return prologue(file, &mut MultiGzDecoder::new(content), deflated(most, limits), limits);
    }
    prologue(file, &mut content, most, limits)
}

fn deflated(length: u64, limits: &Limits) -> u64 {
    length.saturating_mul(MOST_DEFLATED).min(limits.bytes)
}

fn broken(file: &Path, error: &std::io::Error) -> Error {
    Error::file(file, format!("a broken or short file ({error})"), EXPECTED)
}

/// Reads the header from a stream that can give at most `most` bytes.
fn prologue(file: &Path, stream: &mut impl Read, most: u64, limits: &Limits) -> Result<Header> {
    let mut raw = [0u8; Header::BYTES];
    stream.read_exact(&mut raw).map_err(|error| broken(file, &error))?;
    let header = Header::parse(file, raw, limits)?;
    let end = header.offset() + header.stored_bytes();
    if end > most {
        let found = format!("a header that says {} from byte {}", header.shape_in_words(), header.offset());
        return Err(Error::file(file, found, format!("at most the {most} bytes that the file can hold")));
    }
    Ok(header)
}

fn body(file: &Path, mut stream: impl Read, most: u64, limits: &Limits) -> Result<Volume> {
    let header = prologue(file, &mut stream, most, limits)?;
    // Between header and voxels lie extensions, which nothing here needs.
    let gap = header.offset() - Header::BYTES as u64;
    let skipped = std::io::copy(&mut (&mut stream).take(gap), &mut std::io::sink());
    let skipped = skipped.map_err(|error| broken(file, &error))?;
    let count = header.stored_bytes();
    let mut raw = Vec::new();
    // One byte more than announced, to notice a longer file; the buffer grows with what really arrives.
    stream.take(count + 1).read_to_end(&mut raw).map_err(|error| broken(file, &error))?;
    if skipped != gap || raw.len() as u64 != count {
        let found = if raw.len() as u64 > count { "more".to_owned() } else { format!("only {}", raw.len()) };
        let expected = format!("{count} as its header ({}) says", header.shape_in_words());
        return Err(Error::file(file, format!("{found} bytes of voxels"), expected));
    }
    let data = header.values(&raw);
    if let Some(place) = data.iter().position(|value| !value.is_finite()) {
        let [z, y, x] = header.place(place);
        return Err(Error::file(file, format!("the value {} at x {x}, y {y}, z {z}", data[place]), "finite values"));
    }
    Ok(Volume { header, data })
}
