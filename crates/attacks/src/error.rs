//! What a user of an attack can get wrong.

/// Errors of attacks and their settings. Every message names what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name under which no attack is registered.
    #[error("unknown attack '{name}': expected one of {known}")]
    UnknownAttack {
        /// The name as given.
        name: String,
        /// The registered names.
        known: String,
    },
    /// A setting outside its range.
    #[error("attack '{attack}': {field} is {found}, expected {expected}")]
    Setting {
        /// The attack's name.
        attack: String,
        /// The setting.
        field: String,
        /// Its value.
        found: String,
        /// The allowed values.
        expected: String,
    },
    /// An argument that does not fit the batch.
    #[error("{what}: found {found}, expected {expected}")]
    Argument {
        /// The argument at fault.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A loss or gradient that is NaN or infinite. Such a run has no result and is never scored.
    #[error("attack '{attack}' stopped: {what} of sample {sample} is not finite at step {step} of {steps} on {device}")]
    NotFinite {
        /// The attack's name.
        attack: String,
        /// The loss or the gradient.
        what: &'static str,
        /// Id of the sample in its data set.
        sample: u64,
        /// Step, from 0.
        step: usize,
        /// Steps of the run.
        steps: usize,
        /// The device.
        device: String,
    },
    /// The batch or the victim failed.
    #[error(transparent)]
    Tensor(#[from] fireproof_tensor::Error),
}

/// The result of everything here that can fail on user input.
pub type Result<T, E = Error> = std::result::Result<T, E>;
