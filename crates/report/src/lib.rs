//! What a robustness evaluation leaves behind: records, results, tables, curves, panels and one HTML page.
//!
//! | file | made by | for |
//! |---|---|---|
//! | `records.jsonl` | [`RecordWriter`] | one line per row and image; resume, shards, worst cases |
//! | `results.json` | [`Results`] | programs |
//!
//! Nothing here computes a prediction, so the crate builds without a tensor library.

mod error;
mod files;
pub mod records;
pub mod schema;

pub use error::ReportError;
pub use records::{Header, RECORDS_FILE, Record, RecordWriter, Records, Trace};
pub use schema::{Check, Class, Results, Row, RowKey, Run, Status};
