/// What a caller can get wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A number that must be positive is zero.
    #[error("convolution: {what} is 0, expected at least 1")]
    Zero {
        /// The name of the number.
        what: &'static str,
    },
    /// Channels that the groups do not divide.
    #[error("convolution: {channels} {what} cannot be cut into {groups} equal groups")]
    Groups {
        /// `input channels` or `output channels`.
        what: &'static str,
        /// How many there are.
        channels: usize,
        /// The number of groups.
        groups: usize,
    },
    /// A kernel that reaches over the padded image, so that there is no output.
    #[error("convolution: the kernel covers {kernel} pixels of the {axis}, more than the padded input's {input}")]
    KernelTooLarge {
        /// `height` or `width`.
        axis: &'static str,
        /// Pixels that the dilated kernel covers.
        kernel: usize,
        /// Pixels of the input with its padding.
        input: usize,
    },
}
