//! One description for the forward pass and the input gradient.

use super::Conv2dShape;
use std::ops::Range;

/// A sum over taps on a grid: for every grid point `q` and every output phase `p`,
/// `target[q · out_stride + p] = Σ weight[tap] · source[q · in_stride + offset(tap)]`.
///
/// A forward pass has one phase and `in_stride = stride`. The gradient of a convolution of stride `s` at its input is
/// `s·s` sub-convolutions of stride 1, one per phase of the input's pixels: `out_stride = stride`, and every tap of the
/// kernel belongs to exactly one phase per axis.
#[derive(Clone, Debug)]
pub(super) struct Stencil {
    pub batch: usize,
    pub groups: usize,
    /// Channels of one group on both sides.
    pub in_channels: usize,
    pub out_channels: usize,
    pub in_size: [usize; 2],
    pub out_size: [usize; 2],
    pub in_stride: [usize; 2],
    pub out_stride: [usize; 2],
    /// Grid points: outputs of phase 0.
    pub grid: [usize; 2],
    /// Taps of phase `p_y · out_stride_x + p_x`; those that meet nothing but padding are left out.
    pub phases: Vec<Vec<Tap>>,
    /// Taps of the whole kernel.
    pub kernel_taps: usize,
}

/// A tap: where it reads relative to the grid point, and which of the kernel's weights it multiplies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    pub offset: [isize; 2],
    pub weight: usize,
}

impl Tap {
    /// The grid points of an axis, among some, where the tap meets the input: `0 <= q · stride + offset < size`.
    pub fn inside(&self, stencil: &Stencil, axis: usize, points: Range<usize>) -> Range<usize> {
        let step = stencil.in_stride[axis] as isize;
        let first = |edge: usize| {
            let q = (edge as isize - self.offset[axis] + step - 1).div_euclid(step);
            q.clamp(points.start as isize, points.end as isize) as usize
        };
        first(0)..first(stencil.in_size[axis])
    }
}

impl Stencil {
    pub fn forward(shape: &Conv2dShape) -> Self {
        let mut stencil = Stencil {
            batch: shape.batch,
            groups: shape.groups,
            in_channels: shape.in_channels / shape.groups,
            out_channels: shape.out_channels / shape.groups,
            in_size: [shape.height, shape.width],
            out_size: [shape.out_height(), shape.out_width()],
            in_stride: shape.stride,
            out_stride: [1, 1],
            grid: [shape.out_height(), shape.out_width()],
            phases: vec![
                taps(shape)
                    .map(|(y, x)| Tap { offset: [at(shape, 0, y), at(shape, 1, x)], weight: y * shape.kernel[1] + x })
                    .collect(),
            ],
            kernel_taps: shape.kernel[0] * shape.kernel[1],
        };
        stencil.drop_taps_in_padding();
        stencil.flatten_if_pointwise();
        stencil
    }

    pub fn input_gradient(shape: &Conv2dShape) -> Self {
        let [sy, sx] = shape.stride;
        let mut phases = vec![Vec::new(); sy * sx];
        for (y, x) in taps(shape) {
            // Input row `i` got tap `y` of output row `o` where `i = o · stride + at(y)`: with `i = q · stride + p` this is
            // `o = q + (p − at(y)) / stride`, for the one phase `p` where the division has no remainder.
            let (ay, ax) = (at(shape, 0, y), at(shape, 1, x));
            let (py, px) = (ay.rem_euclid(sy as isize), ax.rem_euclid(sx as isize));
            let offset = [(py - ay) / sy as isize, (px - ax) / sx as isize];
            phases[py as usize * sx + px as usize].push(Tap { offset, weight: y * shape.kernel[1] + x });
        }
        let mut stencil = Stencil {
            batch: shape.batch,
            groups: shape.groups,
            in_channels: shape.out_channels / shape.groups,
            out_channels: shape.in_channels / shape.groups,
            in_size: [shape.out_height(), shape.out_width()],
            out_size: [shape.height, shape.width],
            in_stride: [1, 1],
            out_stride: shape.stride,
            grid: [shape.height.div_ceil(sy), shape.width.div_ceil(sx)],
            phases,
            kernel_taps: shape.kernel[0] * shape.kernel[1],
        };
        stencil.drop_taps_in_padding();
        stencil.flatten_if_pointwise();
        stencil
    }

    fn drop_taps_in_padding(&mut self) {
        let (grid, stride, size) = (self.grid, self.in_stride, self.in_size);
        for phase in &mut self.phases {
            phase.retain(|tap| (0..2).all(|a| meets(tap.offset[a], 0, grid[a], stride[a], size[a])));
        }
    }

    /// Where every output sees only the input at its own place, rows mean nothing: one long row cuts into better tiles.
    fn flatten_if_pointwise(&mut self) {
        let one = self.phases.len() == 1 && self.in_stride == [1, 1] && self.in_size == self.out_size;
        if one && self.phases[0].iter().all(|tap| tap.offset == [0, 0]) {
            let row = [1, self.grid[0] * self.grid[1]];
            (self.in_size, self.out_size, self.grid) = (row, row, row);
        }
    }
}

/// Whether a tap reads anything but padding for the grid points `from..to` of an axis.
pub(super) fn meets(offset: isize, from: usize, to: usize, stride: usize, size: usize) -> bool {
    let (first, last) = ((from * stride) as isize + offset, ((to - 1) * stride) as isize + offset);
    last >= 0 && first < size as isize
}

fn taps(shape: &Conv2dShape) -> impl Iterator<Item = (usize, usize)> + use<> {
    let [height, width] = shape.kernel;
    (0..height).flat_map(move |y| (0..width).map(move |x| (y, x)))
}

/// Where tap `tap` of an axis reads, relative to the input under the output.
fn at(shape: &Conv2dShape, axis: usize, tap: usize) -> isize {
    (tap * shape.dilation[axis]) as isize - shape.padding[axis][0] as isize
}
