//! Pictures of a run, kept in its folder as they are made: a resumed run shows what the first one saw.

use std::path::{Path, PathBuf};

use fireproof_report::Panel;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const FOLDER: &str = "pictures";

/// [`Panel`], as a file holds it: floats as their bits in hexadecimal, so that a megapixel stays small and exact.
#[derive(Serialize, Deserialize)]
struct Stored {
    caption: String,
    height: usize,
    width: usize,
    range: [f32; 2],
    image: String,
    adversarial: String,
    labels: String,
    before: String,
    after: String,
}

fn path(folder: &Path, row: usize, position: usize) -> PathBuf {
    folder.join(FOLDER).join(format!("{row:04}-{position:04}.json"))
}

/// Keeps a panel.
pub(crate) fn write(folder: &Path, row: usize, position: usize, panel: &Panel) -> Result<()> {
    let floats = |values: &[f32]| crate::plan::hex(&values.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>());
    let stored = Stored {
        caption: panel.caption.clone(),
        height: panel.height,
        width: panel.width,
        range: panel.range,
        image: floats(&panel.image),
        adversarial: floats(&panel.adversarial),
        labels: crate::plan::hex(&panel.labels),
        before: crate::plan::hex(&panel.before),
        after: crate::plan::hex(&panel.after),
    };
    let path = path(folder, row, position);
    let parent = folder.join(FOLDER);
    std::fs::create_dir_all(&parent).map_err(|error| Error::file(&parent, error))?;
    let temporary = path.with_extension("tmp");
    let text = serde_json::to_string(&stored).expect("plain data has a JSON form");
    std::fs::write(&temporary, text).map_err(|error| Error::file(&temporary, error))?;
    std::fs::rename(&temporary, &path).map_err(|error| Error::file(&path, error))
}

/// The panels kept so far, model by model.
pub(crate) fn read(folder: &Path) -> Result<Vec<Panel>> {
    let parent = folder.join(FOLDER);
    let Ok(entries) = std::fs::read_dir(&parent) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .map_err(|error| Error::file(&parent, error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.iter().map(|path| panel(path)).collect()
}

fn panel(path: &Path) -> Result<Panel> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    let stored: Stored = serde_json::from_str(&text).map_err(|error| Error::file(path, error))?;
    let bytes = |text: &str| -> Result<Vec<u8>> {
        let pairs = text
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()));
        pairs
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| Error::file(path, "found a value that is no hexadecimal number"))
    };
    let floats = |text: &str| -> Result<Vec<f32>> {
        Ok(bytes(text)?.chunks_exact(4).map(|four| f32::from_be_bytes([four[0], four[1], four[2], four[3]])).collect())
    };
    Ok(Panel {
        caption: stored.caption,
        height: stored.height,
        width: stored.width,
        range: stored.range,
        image: floats(&stored.image)?,
        adversarial: floats(&stored.adversarial)?,
        labels: bytes(&stored.labels)?,
        before: bytes(&stored.before)?,
        after: bytes(&stored.after)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panel_comes_back_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        let panel = Panel {
            caption: "unet <standard>".into(),
            height: 1,
            width: 2,
            range: [0.0, 1.0],
            image: vec![0.1, 1.0 / 3.0],
            adversarial: vec![0.1 + 8.0 / 255.0, f32::MIN_POSITIVE],
            labels: vec![0, 255],
            before: vec![0, 1],
            after: vec![254, 1],
        };
        write(folder.path(), 3, 1, &panel).unwrap();
        let back = read(folder.path()).unwrap().remove(0);
        assert_eq!((back.caption, back.image, back.adversarial), (panel.caption, panel.image, panel.adversarial));
        assert_eq!((back.labels, back.before, back.after), (panel.labels, panel.before, panel.after));
    }
}
