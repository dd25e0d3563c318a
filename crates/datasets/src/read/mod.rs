//! Readers, one per format. Files are untrusted: sizes are checked before anything is allocated for them.

pub mod idx;
pub mod image;
pub mod list;
pub mod mask;
pub mod msd;
pub mod nifti;

use std::{
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
};

use crate::{Error, Result};

/// What a file may ask for at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of one image or mask.
    pub pixels: u64,
    /// Bytes of one file, and of one decompressed file.
    pub bytes: u64,
}

impl Default for Limits {
    /// 64 megapixels, 2 GiB.
    fn default() -> Self {
        Self { pixels: 1 << 26, bytes: 1 << 31 }
    }
}

impl Limits {
    /// Checks a header's size, before memory is allocated for it.
    pub(crate) fn size(&self, file: &Path, width: u64, height: u64) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::file(file, format!("{width}x{height} pixels"), "at least 1x1"));
        }
        match width.checked_mul(height) {
            Some(pixels) if pixels <= self.pixels => Ok(()),
            _ => Err(Error::file(
                file,
                format!("a header that says {width}x{height} pixels"),
                format!("at most {} pixels", self.pixels),
            )),
        }
    }
}

/// Checks the size in a PNG's header before a decoder sees it: decoders refuse absurd sizes too, but do not say the size.
pub(crate) fn png_size(file: &Path, content: &[u8], limits: &Limits) -> Result<()> {
    match content {
        [
            0x89,
            b'P',
            b'N',
            b'G',
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            b'I',
            b'H',
            b'D',
            b'R',
            w0,
            w1,
            w2,
            w3,
            h0,
            h1,
            h2,
            h3,
            ..,
        ] => {
            let (width, height) = ([*w0, *w1, *w2, *w3], [*h0, *h1, *h2, *h3]);
            limits.size(file, u64::from(u32::from_be_bytes(width)), u64::from(u32::from_be_bytes(height)))
        }
        _ => Ok(()),
    }
}

/// The length of a regular file of at most `limits.bytes`.
pub(crate) fn length(file: &Path, limits: &Limits, what: &str) -> Result<u64> {
    // Asked before opening, because opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(file).map_err(|error| unreadable(file, what, &error))?;
    if !metadata.is_file() {
        return Err(Error::file(file, "something that is not a file", what));
    }
    if metadata.len() > limits.bytes {
        let (found, expected) = (format!("{} bytes", metadata.len()), format!("at most {} bytes", limits.bytes));
        return Err(Error::file(file, found, expected));
    }
    Ok(metadata.len())
}

fn unreadable(file: &Path, what: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::file(file, "no such file", what),
        _ => Error::file(file, error.to_string(), what),
    }
}

/// Reads a regular file of at most `limits.bytes`.
pub(crate) fn bytes(file: &Path, limits: &Limits, what: &str) -> Result<Vec<u8>> {
    let mut content = Vec::with_capacity(length(file, limits, what)? as usize);
    let opened = File::open(file).and_then(|opened| opened.take(limits.bytes + 1).read_to_end(&mut content));
    opened.map_err(|error| unreadable(file, what, &error))?;
    if content.len() as u64 > limits.bytes {
        return Err(Error::file(file, "more", format!("at most {} bytes", limits.bytes)));
    }
    Ok(content)
}

/// Reads a UTF-8 text file of at most `limits.bytes`.
pub(crate) fn text(file: &Path, limits: &Limits, what: &str) -> Result<String> {
    String::from_utf8(bytes(file, limits, what)?).map_err(|error| {
        Error::file(file, format!("bytes that are no UTF-8 at {}", error.utf8_error().valid_up_to()), what)
    })
}

/// Checks the spelling of a path that a manifest or list names: relative, with `/`, never upwards.
///
/// # Errors
/// In words: what is wrong with it.
pub(crate) fn check_relative(path: &str) -> std::result::Result<(), String> {
    let outside = |what: &str| Err(format!("`{}` {what}", path.escape_debug()));
    if path.is_empty() {
        return outside("is empty");
    }
    if path.contains(['\\', '\0', '\n']) || path.chars().nth(1) == Some(':') {
        return outside("holds a character that relative paths with `/` do not have");
    }
    for component in Path::new(path).components() {
        match component {
            Component::Normal(_) | Component::CurDir => {}
            Component::ParentDir => return outside("goes upwards"),
            Component::RootDir | Component::Prefix(_) => return outside("is absolute"),
        }
    }
    Ok(())
}

/// Joins a relative path to the root. Symbolic links are followed and must end inside the root.
pub(crate) fn inside(root: &Path, relative: &str) -> Result<PathBuf> {
    let joined = root.join(relative);
    let expected = || format!("a relative path inside {}", root.display());
    check_relative(relative).map_err(|found| Error::file(root, found, "relative paths inside this folder"))?;
    match joined.canonicalize() {
        // A file that is missing is reported by whoever reads it, who knows what it should be.
        Err(_) => Ok(joined),
        Ok(real) if real.starts_with(root) => Ok(joined),
        Ok(real) => Err(Error::file(&joined, format!("a symbolic link to {}", real.display()), expected())),
    }
}

/// The root folder with all links resolved, as [`inside`] needs it.
pub(crate) fn root(root: &Path) -> Result<PathBuf> {
    match root.canonicalize() {
        Ok(real) if real.is_dir() => Ok(real),
        Ok(_) => Err(Error::file(root, "a file", "the data set's root folder")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::file(root, "no such folder", "the data set's root folder"))
        }
        Err(error) => Err(Error::file(root, error.to_string(), "the data set's root folder")),
    }
}
