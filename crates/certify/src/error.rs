/// What keeps a certificate from being made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting outside its range.
    #[error("{what}: found {found}, expected {expected}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A model whose logits are not numbers.
    #[error("the logits of draw {draw} are not finite")]
    NotFinite {
        /// Which noisy copy, from 0.
        draw: u64,
    },
    /// The model's error.
    #[error(transparent)]
    Tensor(#[from] fireproof_tensor::Error),
    /// Counts that contradict each other.
    #[error(transparent)]
    Metric(#[from] fireproof_metrics::MetricError),
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Refuses a setting that is not as expected.
pub(crate) fn ensure(fine: bool, what: &'static str, found: impl ToString, expected: &'static str) -> Result<()> {
    if fine { Ok(()) } else { Err(Error::Setting { what, found: found.to_string(), expected }) }
}
