//! What a user of this crate can get wrong.

/// Errors of devices, batches and victims. Every message names what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A device name that is not one of the names this binary knows.
    #[error("unknown device '{name}': expected one of {expected}")]
    UnknownDevice {
        /// The name as given.
        name: String,
        /// The names that this binary can open.
        expected: String,
    },
    /// A backend that is not compiled in, or that does not answer on this machine.
    #[error("device '{name}' is not available: {reason}; available here: {available}")]
    UnavailableDevice {
        /// The name as given.
        name: String,
        /// Why the device cannot be opened.
        reason: String,
        /// The names that do answer.
        available: String,
    },
    /// Tensors of a batch that do not fit together.
    #[error("{what}: found {found}, expected {expected}")]
    Shape {
        /// The tensor or argument at fault.
        what: &'static str,
        /// Its shape.
        found: String,
        /// The shape it should have.
        expected: String,
    },
    /// A number outside its range.
    #[error("{what} is {found}, expected {expected}")]
    Range {
        /// The argument at fault.
        what: &'static str,
        /// Its value.
        found: String,
        /// The allowed range.
        expected: &'static str,
    },
    /// A text that does not parse as the named thing.
    #[error("cannot read {what} from '{found}': expected {expected}")]
    Parse {
        /// What was to be read.
        what: &'static str,
        /// The text.
        found: String,
        /// The accepted forms.
        expected: &'static str,
    },
    /// A tensor beyond what the device can bind, however small the batch.
    #[error("{what} makes a tensor of {bytes} bytes, but the device takes at most {limit} in one; use smaller images")]
    TooLarge {
        /// What makes it.
        what: String,
        /// Its size.
        bytes: u64,
        /// The device's limit.
        limit: u64,
    },
    /// A number type that a device does not have.
    #[error("precision '{precision}' is not available on {device}: {reason}")]
    Precision {
        /// The precision as given.
        precision: String,
        /// The device.
        device: String,
        /// Why.
        reason: String,
    },
    /// A victim failed for a reason of its own (a remote model, a full device).
    #[error("victim failed: {0}")]
    Victim(String),
}

/// The result of everything here that can fail on user input.
pub type Result<T, E = Error> = std::result::Result<T, E>;
