//! `checks.jsonl`: what the sanity checks with runs of their own found, one line per model and device.
//!
//! Appended like records, so a run that is continued does not measure a model twice.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use crate::{Measured, ReportError};

/// The file's name in a run's folder.
pub const CHECKS_FILE: &str = "checks.jsonl";

/// What the file holds; nothing where there is none. An unfinished last line is dropped.
///
/// # Errors
/// When the file cannot be read or a complete line is none of these.
pub fn read(path: &Path) -> Result<Vec<Measured>, ReportError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).map_err(ReportError::io(path, "read"))?;
    let end = text.rfind('\n').map_or(0, |last| last + 1);
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| ReportError::Parse {
            path: path.to_owned(),
            line: index + 1,
            message: error.to_string(),
        })
    };
    text[..end].lines().enumerate().map(parse).collect()
}

/// Adds a line to the file, behind the last complete one.
///
/// # Errors
/// When it cannot be written.
pub fn append(path: &Path, measured: &Measured) -> Result<(), ReportError> {
    let fail = || ReportError::io(path, "append to");
    let mut file =
        OpenOptions::new().create(true).append(true).read(true).open(path).map_err(ReportError::io(path, "open"))?;
    let text = std::fs::read_to_string(path).map_err(ReportError::io(path, "read"))?;
    file.set_len(text.rfind('\n').map_or(0, |last| last as u64 + 1)).map_err(fail())?;
    file.write_all(&line(measured)).map_err(fail())
}

/// The line of a file.
pub(crate) fn line(measured: &Measured) -> Vec<u8> {
    let mut line = serde_json::to_vec(measured).expect("plain data has a JSON form");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sanity::Kind;

    #[test]
    fn lines_come_back_and_a_torn_one_is_dropped_and_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CHECKS_FILE);
        assert_eq!(read(&path).unwrap(), []);
        let measured = |training: &str| Measured {
            model: "unet".into(),
            training: training.into(),
            weights: "w".into(),
            device: "flex".into(),
            precision: "f32".into(),
            checks: vec![Kind::Batch.not_run("No image.")],
        };
        append(&path, &measured("a")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[..9]].concat()).unwrap();
        assert_eq!(read(&path).unwrap(), [measured("a")]);
        append(&path, &measured("b")).unwrap();
        assert_eq!(read(&path).unwrap(), [measured("a"), measured("b")]);
        std::fs::write(&path, "{}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains(CHECKS_FILE));
    }
}
