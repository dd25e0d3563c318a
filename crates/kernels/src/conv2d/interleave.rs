//! A dilated convolution as a dense one: with dilation `d`, pixels whose rows and columns leave the same remainders modulo `d`
//! see only each other, so every image is `d · d` interleaved images under one dense kernel.

use super::Conv2dShape;
use crate::parallel;
use crate::simd::Isa;
use crate::vectorized::vectorized;

/// How a batch is cut into interleaved images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interleave {
    /// The same convolution of the parts: `batch · d · d` dense images of the next larger size, zeros behind the last pixels.
    pub dense: Conv2dShape,
    dilation: [usize; 2],
    images: usize,
}

impl Interleave {
    /// `None` where pixels of one remainder would be shifted to another (padding that is no multiple of the dilation, a
    /// stride), or nothing is dilated.
    pub fn new(shape: &Conv2dShape) -> Option<Self> {
        let dilation = shape.dilation;
        let output = [shape.out_height(), shape.out_width()];
        let mut dense = Conv2dShape { dilation: [1, 1], ..*shape };
        for axis in 0..2 {
            let d = dilation[axis];
            if shape.stride[axis] != 1 || !shape.padding[axis][0].is_multiple_of(d) {
                return None;
            }
            let before = shape.padding[axis][0] / d;
            let (input, output) = ([shape.height, shape.width][axis].div_ceil(d), output[axis].div_ceil(d));
            dense.padding[axis] = [before, (output + shape.kernel[axis] - 1).checked_sub(input + before)?];
            *[&mut dense.height, &mut dense.width][axis] = input;
        }
        dense.batch *= dilation[0] * dilation[1];
        (dilation != [1, 1]).then_some(Interleave { dense, dilation, images: shape.batch })
    }

    /// `[image, channel, row, column]` of `size` to `[image, remainders, channel, row, column]`; every number of `parts` is
    /// written.
    pub fn split(&self, size: [usize; 2], channels: usize, whole: &[f32], parts: &mut [f32]) {
        let (isa, plane) = (Isa::current(), size[0] * size[1]);
        let [rows, columns] = self.part(size);
        // The chunks of one image, of one remainder, and of one channel within both.
        let (count, part) = (self.dilation[0] * self.dilation[1], rows * columns);
        parallel::for_each_plane(parts, part, part, |index, target| {
            let (index, channel) = (index / channels, index % channels);
            let (image, remainder) = (index / count, index % count);
            let first = [remainder / self.dilation[1], remainder % self.dilation[1]];
            let source = &whole[(image * channels + channel) * plane..][..plane];
            gather(isa, self.dilation, size, first, columns, source, target);
        });
    }

    /// The inverse of [`Interleave::split`]; what lies behind the last pixels is dropped.
    pub fn join(&self, size: [usize; 2], channels: usize, parts: &[f32], whole: &mut [f32]) {
        let (isa, plane) = (Isa::current(), size[0] * size[1]);
        let [rows, columns] = self.part(size);
        let (count, part) = (self.dilation[0] * self.dilation[1], rows * columns);
        parallel::for_each_plane(whole, plane, plane, |index, target| {
            let (image, channel) = (index / channels, index % channels);
            for remainder in 0..count {
                let first = [remainder / self.dilation[1], remainder % self.dilation[1]];
                let source = &parts[((image * count + remainder) * channels + channel) * part..][..part];
                scatter(isa, self.dilation, size, first, columns, source, target);
            }
        });
    }

    /// Numbers in the parts of `channels` channels of `size`.
    pub fn len(&self, size: [usize; 2], channels: usize) -> usize {
        let [rows, columns] = self.part(size);
        self.images * self.dilation[0] * self.dilation[1] * channels * rows * columns
    }

    fn part(&self, size: [usize; 2]) -> [usize; 2] {
        [size[0].div_ceil(self.dilation[0]), size[1].div_ceil(self.dilation[1])]
    }
}

vectorized! {
    /// Reads the pixels from `first` on in steps of the dilation.
    fn gather<'a>(
        dilation: [usize; 2],
        size: [usize; 2],
        first: [usize; 2],
        columns: usize,
        source: &'a [f32],
        target: &'a mut [f32],
    ) {
        for (row, target) in target.chunks_exact_mut(columns).enumerate() {
            let y = first[0] + row * dilation[0];
            if y >= size[0] {
                target.fill(0.0);
                continue;
            }
            let source = &source[y * size[1]..][..size[1]];
            let inside = size[1].saturating_sub(first[1]).div_ceil(dilation[1]);
            target[inside..].fill(0.0);
            let source = &source[first[1].min(size[1])..];
            // The dilation as a constant lets the compiler vectorise those that networks have.
            match dilation[1] {
                1 => strided_read(source, 1, &mut target[..inside]),
                2 => strided_read(source, 2, &mut target[..inside]),
                4 => strided_read(source, 4, &mut target[..inside]),
                step => strided_read(source, step, &mut target[..inside]),
            }
        }
    }
}

vectorized! {
    /// The inverse of [`gather`].
    fn scatter<'a>(
        dilation: [usize; 2],
        size: [usize; 2],
        first: [usize; 2],
        columns: usize,
        source: &'a [f32],
        target: &'a mut [f32],
    ) {
        for (row, source) in source.chunks_exact(columns).enumerate() {
            let y = first[0] + row * dilation[0];
            if y >= size[0] {
                break;
            }
            let target = &mut target[y * size[1]..][..size[1]];
            for (value, target) in source.iter().zip(target.iter_mut().skip(first[1]).step_by(dilation[1])) {
                *target = *value;
            }
        }
    }
}

#[inline(always)]
fn strided_read(source: &[f32], step: usize, target: &mut [f32]) {
    for (target, value) in target.iter_mut().zip(source.iter().step_by(step)) {
        *target = *value;
    }
}
