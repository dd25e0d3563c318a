//! What happens to a convolution's result while it is written: bias, residual, activation.

/// `activation(result + bias + residual)`, in the pass that writes the result, so that it costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Epilogue<'a> {
    /// One number per output channel.
    pub bias: Option<&'a [f32]>,
    /// Added to the result; same shape as the output (the shortcut of a residual block).
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation<'a>,
}

/// An activation function, in every case one that lets NaN through.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation<'a> {
    /// The identity.
    #[default]
    None,
    /// `max(0, x)`.
    Relu,
    /// `x` where it is positive, else the channel's slope times `x`. One slope per output channel.
    PRelu(&'a [f32]),
}
