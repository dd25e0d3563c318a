//! What a robustness evaluation leaves behind: records, results, tables, curves, panels and one HTML page.
//!
//! | file | made by | for |
//! |---|---|---|
//! | `records.jsonl` | [`RecordWriter`] | one line per row and image; resume, shards, worst cases |
//! | `results.json` | [`Results`] | programs |
//! | `results.csv` | [`table::results_csv`] | spreadsheets |
//! | `success-*.png` | [`minimal::figures`] | success of minimal-norm attacks against the radius |
//! | `curves-*.png` | [`plots::curves`] | the convergence figure: mIoU and MisRatio against iterations |
//! | `panels*.png` | [`panels::sheet`] | what an attack does to a picture |
//! | `report.html` | [`html::page`] | people: all of this in one file |
//!
//! [`write_all`] makes everything but the records, and [`merge`](merge::merge_into) all of it from the folders of the shards of
//! a run. [`Table`] gives the paper's table as Markdown, LaTeX, HTML or CSV, and
//! [`canvas`] is what further figures are drawn with. Nothing here computes a prediction, so the crate builds without a
//! tensor library.

pub mod backends;
pub mod canvas;
pub mod corruptions;
pub mod dice;
mod error;
pub mod escape;
mod files;
pub mod html;
pub mod labels;
pub mod launcher;
pub mod layout;
mod measured;
pub mod merge;
pub mod minimal;
mod output;
pub mod panels;
pub mod plots;
pub mod records;
pub mod sanity;
pub mod schema;
pub mod seeds;
mod shard;
pub mod table;

pub use dice::DiceScores;
pub use error::ReportError;
pub use measured::{CHECKS_FILE, append as append_checks, read as read_checks};
pub use minimal::{Minimal, Smallest};
pub use output::{REPORT_FILE, rewrite, write_all};
pub use panels::Panel;
pub use plots::Figure;
pub use records::{Candidate, Header, RECORDS_FILE, Record, RecordWriter, Records, Trace};
pub use schema::{Check, Class, Measured, Results, Row, RowKey, Run, Status, WorstCase};
pub use shard::{Part, Shard};
pub use table::{Format, Table};
