//! Which shard this process is, from the variables that its launcher set: `--shard auto`.
//!
//! In this order, because the first that is there is the innermost that was asked for on purpose:
//!
//! | launcher | variables |
//! |---|---|
//! | Open MPI | `OMPI_COMM_WORLD_RANK` (from 0) of `OMPI_COMM_WORLD_SIZE` |
//! | Slurm job array | `SLURM_ARRAY_TASK_ID` from `SLURM_ARRAY_TASK_MIN` in steps of `SLURM_ARRAY_TASK_STEP`, of `SLURM_ARRAY_TASK_COUNT` |
//! | Slurm process (`srun`) | `SLURM_PROCID` (from 0) of `SLURM_NTASKS` |
//! | Kubernetes indexed job | `JOB_COMPLETION_INDEX` (from 0) of `--of N`: no variable says how many |
//!
//! Never by default: an array over seeds wants every image in every task.

use std::fmt;

use crate::{ReportError, Shard};

/// What a launcher said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// Which part of the images this process evaluates.
    pub shard: Shard,
    /// The launcher, for example `Slurm job array`.
    pub launcher: &'static str,
    /// The variables and their values, for example `SLURM_PROCID=1, SLURM_NTASKS=4`.
    pub variables: String,
}

impl fmt::Display for Launched {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "shard {} from {} ({})", self.shard, self.launcher, self.variables)
    }
}

/// The shard of this process. `lookup` gives a variable's value, `of` is what `--of` says.
///
/// ```
/// use fireproof_report::launcher;
///
/// let lookup = |name: &str| match name {
///     "SLURM_PROCID" => Some("1".to_owned()),
///     "SLURM_NTASKS" => Some("4".to_owned()),
///     _ => None,
/// };
/// let found = launcher::auto(lookup, None)?;
/// assert_eq!(found.to_string(), "shard 2/4 from Slurm process (SLURM_PROCID=1, SLURM_NTASKS=4)");
/// # Ok::<(), fireproof_report::ReportError>(())
/// ```
///
/// # Errors
/// [`ReportError::Shard`] when there is no launcher, one of its variables is missing or no number, an array is irregular, or
/// `of` contradicts it.
pub fn auto(lookup: impl Fn(&str) -> Option<String>, of: Option<u32>) -> Result<Launched, ReportError> {
    let variables = Variables { lookup: &lookup };
    for look in [open_mpi, slurm_array, slurm_process] {
        if let Some(found) = look(&variables)? {
            return match of {
                Some(of) if of != found.shard.of() => Err(ReportError::Shard {
                    found: format!("--of {of}, but {} for {}", found.variables, found.launcher),
                    expected: format!("no --of, or --of {}", found.shard.of()),
                }),
                _ => Ok(found),
            };
        }
    }
    if let Some(found) = kubernetes(&variables, of)? {
        return Ok(found);
    }
    let [mpi, array, process, pod] = ["OMPI_COMM_WORLD_RANK", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID", COMPLETION_INDEX];
    Err(ReportError::Shard {
        found: "auto without a launcher".into(),
        expected: format!("one of {mpi}, {array}, {process} and {pod} in the environment, or --shard i/n"),
    })
}

/// A warning for a run without `--shard` whose launcher started several processes; each of them would evaluate all images.
pub fn warning(lookup: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (launcher, variables) = match auto(&lookup, None) {
        Ok(found) if found.shard.of() > 1 => (found.launcher, found.variables),
        Ok(_) => return None,
        // Nobody says how many pods there are; one is rarely indexed.
        Err(_) => (KUBERNETES, format!("{COMPLETION_INDEX}={}", Variables { lookup: &lookup }.text(COMPLETION_INDEX)?)),
    };
    Some(format!(
        "this looks like one of several processes ({launcher}: {variables}), and each evaluates all images; --shard auto splits \
         them"
    ))
}

const COMPLETION_INDEX: &str = "JOB_COMPLETION_INDEX";
const KUBERNETES: &str = "Kubernetes indexed job";

fn open_mpi(variables: &Variables) -> Result<Option<Launched>, ReportError> {
    ranked(variables, "Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
}

fn slurm_process(variables: &Variables) -> Result<Option<Launched>, ReportError> {
    ranked(variables, "Slurm process", "SLURM_PROCID", "SLURM_NTASKS")
}

/// A rank from 0 and a size.
fn ranked(
    variables: &Variables,
    launcher: &'static str,
    rank: &str,
    size: &str,
) -> Result<Option<Launched>, ReportError> {
    let Some(index) = variables.number(rank)? else { return Ok(None) };
    let of = variables.needed(size)?;
    variables.launched(launcher, index, of, &[rank, size]).map(Some)
}

fn slurm_array(variables: &Variables) -> Result<Option<Launched>, ReportError> {
    let [id, min, max, step, count] =
        ["ID", "MIN", "MAX", "STEP", "COUNT"].map(|end| format!("SLURM_ARRAY_TASK_{end}"));
    let Some(task) = variables.number(&id)? else { return Ok(None) };
    let (first, of) = (variables.needed(&min)?, variables.needed(&count)?);
    // Without a step in the array, Slurm may leave the variable out.
    let stride = variables.number(&step)?.unwrap_or(1);
    let last = variables.number(&max)?;
    let regular = stride > 0
        && task >= first
        && (task - first).is_multiple_of(stride)
        && last.is_none_or(|last| last >= first && (last - first) / stride + 1 == of);
    if !regular {
        let shown = variables.shown(&[&id, &min, &max, &step, &count]);
        return Err(ReportError::Shard {
            found: format!("an irregular Slurm array ({shown})"),
            expected: "an array of equal steps such as --array=1-8, or --shard i/n".into(),
        });
    }
    let used: Vec<&str> = [&id, &min, &step, &count].into_iter().map(String::as_str).collect();
    variables.launched("Slurm job array", (task - first) / stride, of, &used).map(Some)
}

fn kubernetes(variables: &Variables, of: Option<u32>) -> Result<Option<Launched>, ReportError> {
    let Some(index) = variables.number(COMPLETION_INDEX)? else { return Ok(None) };
    let Some(of) = of else {
        return Err(ReportError::Shard {
            found: format!("{COMPLETION_INDEX}={index} without --of"),
            expected: "--of N, the job's `completions`, which Kubernetes tells no pod".into(),
        });
    };
    variables.launched(KUBERNETES, index, of, &[COMPLETION_INDEX]).map(Some)
}

struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    /// An empty variable is none.
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<u32>, ReportError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| ReportError::Shard {
            found: format!("{name}={text}"),
            expected: format!("a whole number in {name}"),
        })
    }

    fn needed(&self, name: &str) -> Result<u32, ReportError> {
        self.number(name)?.ok_or_else(|| ReportError::Shard {
            found: format!("no {name}"),
            expected: format!("the launcher to set {name} too, or --shard i/n"),
        })
    }

    fn shown(&self, names: &[&str]) -> String {
        let shown = names.iter().filter_map(|name| self.text(name).map(|value| format!("{name}={value}")));
        shown.collect::<Vec<_>>().join(", ")
    }

    /// `index` counts from 0.
    fn launched(&self, launcher: &'static str, index: u32, of: u32, names: &[&str]) -> Result<Launched, ReportError> {
        let variables = self.shown(names);
        if index >= of {
            return Err(ReportError::Shard {
                found: format!("process {index} of {of}, counted from 0 ({variables})"),
                expected: format!("one below {of}"),
            });
        }
        Ok(Launched { shard: Shard::new(index + 1, of)?, launcher, variables })
    }
}
