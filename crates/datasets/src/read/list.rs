//! List files: one sample name a line.

use std::{collections::HashMap, path::Path};

use super::{Limits, check_relative, text};
use crate::{Error, Result};

/// Reads a list file, see [`parse`].
///
/// # Errors
/// If it cannot be read, and as [`parse`].
pub fn read(file: &Path, limits: &Limits) -> Result<Vec<String>> {
    parse(file, &text(file, limits, "a text file with one name a line")?)
}

/// The names in a list: one a line, blank lines ignored. `file` is only named in errors.
///
/// ```
/// use fireproof_datasets::read::list::parse;
///
/// let names = parse("lists/train.txt".as_ref(), "a.png\n\nsequence/b.png\n")?;
/// assert_eq!(names, ["a.png", "sequence/b.png"]);
/// let error = parse("lists/train.txt".as_ref(), "a\n../b\na\n").unwrap_err().to_string();
/// assert!(error.contains("line 2: `../b` goes upwards") && error.contains("line 3: `a` is also line 1"));
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
///
/// # Errors
/// Lists every line that occurs twice or that is no relative path.
pub fn parse(file: &Path, text: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() {
            continue;
        }
        if let Err(problem) = check_relative(line) {
            problems.push(format!("line {number}: {problem}, expected a relative path"));
        } else if let Some(earlier) = first.insert(line, number) {
            problems.push(format!("line {number}: `{line}` is also line {earlier}, expected each name once"));
            first.insert(line, earlier);
        } else {
            names.push(line.to_owned());
        }
    }
    if problems.is_empty() { Ok(names) } else { Err(Error::Problems { file: file.to_path_buf(), problems }) }
}
