//! idx arrays, the format of MNIST: big-endian header, unsigned bytes, perhaps gzipped.

use std::{io::Read, path::Path};

use flate2::read::GzDecoder;

use super::{Limits, bytes};
use crate::{Error, Result};

const EXPECTED: &str = "an idx array of unsigned bytes (magic 00 00 08 and 1 to 4 dimensions)";

/// An array of unsigned bytes, last axis contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// The product of `shape` values.
    pub data: Vec<u8>,
}

/// Reads an idx file; see [`decode`].
///
/// # Errors
/// If it cannot be read, and as [`decode`].
pub fn read(file: &Path, limits: &Limits) -> Result<Array> {
    decode(file, &bytes(file, limits, EXPECTED)?, limits)
}

/// Decodes an idx array; gzip is recognised by its magic. `file` is only named in errors.
///
/// ```
/// use fireproof_datasets::read::{Limits, idx::decode};
///
/// let array = decode("labels".as_ref(), &[0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9], &Limits::default())?;
/// assert_eq!((array.shape, array.data), (vec![3], vec![7, 8, 9]));
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
///
/// # Errors
/// If the header is no idx header or of another type, or says another length than the file has. What the header says is
/// compared with the file's length before memory is allocated.
pub fn decode(file: &Path, content: &[u8], limits: &Limits) -> Result<Array> {
    if content.starts_with(&[0x1f, 0x8b]) {
        // Deflate cannot shrink more than 1032 times: a header that says more lies.
        let most = (content.len() as u64).saturating_mul(1032).min(limits.bytes);
        return body(file, GzDecoder::new(content), most);
    }
    body(file, content, content.len() as u64)
}

/// Reads header and values from a stream that can give at most `most` bytes.
fn body(file: &Path, mut stream: impl Read, most: u64) -> Result<Array> {
    let broken = |error: std::io::Error| Error::file(file, format!("a broken or short file ({error})"), EXPECTED);
    let mut magic = [0u8; 4];
    stream.read_exact(&mut magic).map_err(broken)?;
    let [0, 0, kind, axes] = magic else {
        return Err(Error::file(file, format!("the first bytes {magic:02x?}"), EXPECTED));
    };
    if kind != 8 || !(1..=4).contains(&axes) {
        return Err(Error::file(file, format!("element type {kind:#04x} with {axes} dimensions"), EXPECTED));
    }
    let mut shape = Vec::new();
    for _ in 0..axes {
        let mut extent = [0u8; 4];
        stream.read_exact(&mut extent).map_err(broken)?;
        shape.push(u32::from_be_bytes(extent) as usize);
    }
    let header = 4 + 4 * u64::from(axes);
    let count = shape.iter().try_fold(1u64, |count, &extent| count.checked_mul(extent as u64));
    let Some(count) = count.filter(|&count| count <= most.saturating_sub(header)) else {
        let found = format!("a header that says {shape:?}");
        return Err(Error::file(
            file,
            found,
            format!("at most the {} bytes that follow it", most.saturating_sub(header)),
        ));
    };
    let mut data = Vec::new();
    // One byte more than announced, to notice a longer file; the buffer grows with what really arrives.
    stream.take(count + 1).read_to_end(&mut data).map_err(broken)?;
    if data.len() as u64 != count {
        let found = if data.len() as u64 > count { "more".to_owned() } else { format!("only {}", data.len()) };
        return Err(Error::file(file, format!("{found} values"), format!("{count} as its header {shape:?} says")));
    }
    Ok(Array { shape, data })
}
