use crate::Error;

/// The shape of a 2-d convolution: input `[batch, in_channels, height, width]`, weights
/// `[out_channels, in_channels / groups, kernel[0], kernel[1]]`, output `[batch, out_channels, out_height, out_width]`.
///
/// Pairs are `[vertical, horizontal]`. End with [`checked`](Conv2dShape::checked):
///
/// ```
/// use fireproof_kernels::conv2d::Conv2dShape;
///
/// let shape = Conv2dShape { stride: [2, 2], ..Conv2dShape::new(1, 3, 64, [240, 176], [7, 7]).with_padding(3) }.checked()?;
/// assert_eq!((shape.out_height(), shape.out_width()), (120, 88));
/// # Ok::<(), fireproof_kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dShape {
    /// Images.
    pub batch: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Distance of neighbouring outputs in the input.
    pub stride: [usize; 2],
    /// Zeros around the input: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
    /// Distance of neighbouring taps of the kernel in the input.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Conv2dShape {
    /// A convolution with stride 1, dilation 1, one group and no padding.
    pub fn new(batch: usize, in_channels: usize, out_channels: usize, size: [usize; 2], kernel: [usize; 2]) -> Self {
        Conv2dShape {
            batch,
            in_channels,
            out_channels,
            height: size[0],
            width: size[1],
            kernel,
            stride: [1; 2],
            padding: [[0; 2]; 2],
            dilation: [1; 2],
            groups: 1,
        }
    }

    /// The same with `padding` zeros on all four sides.
    pub fn with_padding(self, padding: usize) -> Self {
        Conv2dShape { padding: [[padding; 2]; 2], ..self }
    }

    /// The shape itself where it is one that a convolution can have.
    ///
    /// # Errors
    /// Zero channels, groups, kernel, stride or dilation, groups that do not divide the channels, or a kernel larger
    /// than the padded input. An empty batch is fine.
    pub fn checked(self) -> Result<Self, Error> {
        let positive = [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("groups", self.groups),
            ("kernel height", self.kernel[0]),
            ("kernel width", self.kernel[1]),
            ("vertical stride", self.stride[0]),
            ("horizontal stride", self.stride[1]),
            ("vertical dilation", self.dilation[0]),
            ("horizontal dilation", self.dilation[1]),
        ];
        if let Some(&(what, _)) = positive.iter().find(|p| p.1 == 0) {
            return Err(Error::Zero { what });
        }
        for (what, channels) in [("input channels", self.in_channels), ("output channels", self.out_channels)] {
            if !channels.is_multiple_of(self.groups) {
                return Err(Error::Groups { what, channels, groups: self.groups });
            }
        }
        for (axis, name) in ["height", "width"].into_iter().enumerate() {
            let (kernel, input) = (self.reach(axis) + 1, self.padded(axis));
            if kernel > input {
                return Err(Error::KernelTooLarge { axis: name, kernel, input });
            }
        }
        Ok(self)
    }

    /// Rows of the output.
    ///
    /// # Panics
    /// May panic on a shape that [`checked`](Conv2dShape::checked) refuses; so may all methods below.
    pub fn out_height(&self) -> usize {
        (self.padded(0) - self.reach(0) - 1) / self.stride[0] + 1
    }

    /// Columns of the output.
    pub fn out_width(&self) -> usize {
        (self.padded(1) - self.reach(1) - 1) / self.stride[1] + 1
    }

    /// Numbers in the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.in_channels * self.height * self.width
    }

    /// Numbers in the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_channels * self.out_height() * self.out_width()
    }

    /// Numbers in the weights.
    pub fn weights_len(&self) -> usize {
        self.out_channels * (self.in_channels / self.groups) * self.kernel[0] * self.kernel[1]
    }

    /// Floating-point operations of one pass: two for every product.
    pub fn flops(&self) -> f64 {
        2.0 * (self.output_len() as f64) * ((self.in_channels / self.groups * self.kernel[0] * self.kernel[1]) as f64)
    }

    /// Distance between the first and the last tap.
    fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis]
    }

    fn padded(&self, axis: usize) -> usize {
        [self.height, self.width][axis] + self.padding[axis][0] + self.padding[axis][1]
    }
}
