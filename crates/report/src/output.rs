//! A run's folder.

use std::path::{Path, PathBuf};

use crate::panels::{CAPTION, Panel, sheet};
use crate::plots::{Figure, curves};
use crate::table::results_csv;
use crate::{ReportError, Results, files, html, minimal};

/// The report's name in a run's folder.
pub const REPORT_FILE: &str = "report.html";

/// Panels on one sheet, so that a sheet fits on a page.
const SHEET: usize = 5;

/// Writes `results.json`, `results.csv`, the curves and panels as PNG, and `report.html`; each appears whole or not at all.
/// Gives the files in the order of writing.
///
/// # Errors
/// When a picture does not fit its panel or a file cannot be written.
pub fn write_all(folder: &Path, results: &Results, panels: &[Panel]) -> Result<Vec<PathBuf>, ReportError> {
    let sheets: Vec<&[Panel]> = panels.chunks(SHEET).collect();
    let name = |index| sheet_name(index, sheets.len());
    let sheets = sheets.iter().enumerate().map(|(index, panels)| sheet(&name(index), panels, &results.run.classes));
    write_figures(folder, results, sheets.collect::<Result<Vec<Figure>, _>>()?)
}

/// The file of sheet `index` of `count`.
pub(crate) fn sheet_name(index: usize, count: usize) -> String {
    if count == 1 { "panels.png".to_owned() } else { format!("panels-{}.png", index + 1) }
}

/// Writes the same from a `results.json` and the panels that are in the folder already, for a run whose images are gone.
///
/// # Errors
/// As [`write_all`], and as [`Results::read`].
pub fn rewrite(folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let results = Results::read(&folder.join(Results::FILE))?;
    write_figures(folder, &results, panels_in(folder)?)
}

/// The sheets of panels that a folder holds.
pub(crate) fn panels_in(folder: &Path) -> Result<Vec<Figure>, ReportError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(ReportError::io(folder, "list"))? {
        let name = entry.map_err(ReportError::io(folder, "list"))?.file_name().to_string_lossy().into_owned();
        if name.starts_with("panels") && name.ends_with(".png") {
            names.push(name);
        }
    }
    // By length first: panels-10 comes after panels-9.
    names.sort_by_key(|name| (name.len(), name.clone()));
    let mut panels = Vec::new();
    for file in names {
        let path = folder.join(&file);
        let png = std::fs::read(&path).map_err(ReportError::io(&path, "read"))?;
        panels.push(Figure { file, caption: CAPTION.to_owned(), png });
    }
    Ok(panels)
}

pub(crate) fn write_figures(
    folder: &Path,
    results: &Results,
    panels: Vec<Figure>,
) -> Result<Vec<PathBuf>, ReportError> {
    let curves = curves(results)?;
    let success = minimal::figures(results)?;
    let page = html::page(results, &curves, &success, &panels);
    let texts = [
        (Results::FILE.to_owned(), (results.to_json() + "\n").into_bytes()),
        ("results.csv".to_owned(), results_csv(results).into_bytes()),
    ];
    let pictures = curves.into_iter().chain(success).chain(panels).map(|figure| (figure.file, figure.png));
    let files = texts.into_iter().chain(pictures).chain([(REPORT_FILE.to_owned(), page.into_bytes())]);
    files
        .map(|(name, bytes)| {
            let path = folder.join(name);
            files::replace(&path, &bytes)?;
            Ok(path)
        })
        .collect()
}
