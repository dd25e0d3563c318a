//! Against sums in double precision.

use super::*;
use crate::epilogue::Activation;
use crate::simd::Isa;
use crate::testing::{Sums, difference, numbers};
use proptest::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;

/// Calls `visit(output, input, weight)` with the indices of every product of the convolution.
fn products(shape: &Conv2dShape, mut visit: impl FnMut(usize, usize, usize)) {
    let [[top, _], [left, _]] = shape.padding;
    let (oh, ow) = (shape.out_height(), shape.out_width());
    for n in 0..shape.batch {
        for o in 0..shape.out_channels {
            for c in 0..shape.in_channels {
                for (y, x, i, j) in (0..oh * ow * 9).map(|k| (k / 9 / ow, k / 9 % ow, k % 9 / 3, k % 3)) {
                    let (sy, sx) = ((y + i).wrapping_sub(top), (x + j).wrapping_sub(left));
                    if sy < shape.height && sx < shape.width {
                        let output = ((n * shape.out_channels + o) * oh + y) * ow + x;
                        let input = ((n * shape.in_channels + c) * shape.height + sy) * shape.width + sx;
                        visit(output, input, (o * shape.in_channels + c) * 9 + i * 3 + j);
                    }
                }
            }
        }
    }
}

fn limit(tile: Tile) -> f64 {
    match tile {
        Tile::F2 => 5e-6,
        Tile::F4 => 2e-5,
    }
}

fn any_shape() -> impl Strategy<Value = Conv2dShape> {
    let size = prop_oneof![4 => 1usize..12, 2 => 12usize..40, 1 => 60usize..70];
    let channels = prop_oneof![3 => 1usize..10, 2 => 10usize..40, 1 => 60usize..80];
    let padding = || prop::array::uniform2(prop::array::uniform2(0usize..=2));
    (1usize..4, channels.clone(), channels, size.clone(), size, padding()).prop_filter_map(
        "an output, and a reference of bearable length",
        |(batch, in_channels, out_channels, height, width, padding)| {
            let shape =
                Conv2dShape { padding, ..Conv2dShape::new(batch, in_channels, out_channels, [height, width], [3, 3]) };
            shape.checked().ok().filter(|s| s.flops() < 1.5e7)
        },
    )
}

fn any_tile() -> impl Strategy<Value = Tile> {
    prop_oneof![Just(Tile::F2), Just(Tile::F4)]
}

fn on_every_isa(mut check: impl FnMut(Isa)) {
    for isa in Isa::available() {
        isa.force(|| check(isa));
    }
}

fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    static POOLS: [OnceLock<ThreadPool>; 4] = [const { OnceLock::new() }; 4];
    POOLS[threads].get_or_init(|| ThreadPoolBuilder::new().num_threads(threads).build().unwrap()).install(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn forward_agrees_with_double_precision(shape in any_shape(), tile in any_tile(), seed: u64) {
        let x = numbers(seed, shape.input_len());
        let w = numbers(seed ^ 1, shape.weights_len());
        let bias = numbers(seed ^ 2, shape.out_channels);
        let slopes = numbers(seed ^ 3, shape.out_channels);
        let residual = numbers(seed ^ 4, shape.output_len());
        let plane = shape.out_height() * shape.out_width();
        let mut sums = Sums::new(shape.output_len());
        products(&shape, |o, i, k| sums.add(o, x[i], w[k]));
        let channel = |i: usize| i / plane % shape.out_channels;
        let wanted: Vec<Vec<f64>> = vec![
            sums.values.clone(),
            sums.values.iter().enumerate().map(|(i, v)| (v + bias[channel(i)] as f64).max(0.0)).collect(),
            sums.values.iter().enumerate().map(|(i, v)| {
                let v = v + bias[channel(i)] as f64 + residual[i] as f64;
                if v > 0.0 { v } else { v * slopes[channel(i)] as f64 }
            }).collect(),
        ];
        let epilogues = [
            Epilogue::default(),
            Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::default() },
            Epilogue { bias: Some(&bias), residual: Some(&residual), activation: Activation::PRelu(&slopes) },
        ];
        // Rounding is relative to the sum before bias and activation, which may cancel most of it.
        let scale = sums.size();
        on_every_isa(|isa| {
            let weights = TransformedWeights::new(tile, &w, shape.out_channels, shape.in_channels);
            for (wanted, epilogue) in wanted.iter().zip(epilogues) {
                let mut out = vec![f32::NAN; shape.output_len()];
                forward(&shape, &x, &weights, epilogue, &mut out);
                let error = difference(&out, wanted) / (scale + 1.0);
                assert!(error < limit(tile), "{isa:?} {tile:?} {shape:?} {epilogue:?}: {error:e}");
            }
        });
    }

    #[test]
    fn input_gradient_agrees_with_double_precision(shape in any_shape(), tile in any_tile(), seed: u64) {
        let (w, y) = (numbers(seed, shape.weights_len()), numbers(seed ^ 1, shape.output_len()));
        let mut wanted = Sums::new(shape.input_len());
        products(&shape, |o, i, k| wanted.add(i, y[o], w[k]));
        on_every_isa(|isa| {
            let weights = TransformedWeights::new(tile, &w, shape.out_channels, shape.in_channels);
            let mut found = vec![f32::NAN; shape.input_len()];
            input_gradient(&shape, &y, &weights, &mut found);
            let error = wanted.error(&found);
            assert!(error < limit(tile), "{isa:?} {tile:?} {shape:?}: {error:e}");
        });
    }

    #[test]
    fn weight_gradient_agrees_with_double_precision(shape in any_shape(), tile in any_tile(), seed: u64) {
        let (x, y) = (numbers(seed, shape.input_len()), numbers(seed ^ 1, shape.output_len()));
        let mut wanted = Sums::new(shape.weights_len());
        products(&shape, |o, i, k| wanted.add(k, y[o], x[i]));
        on_every_isa(|isa| {
            let mut found = vec![f32::NAN; shape.weights_len()];
            weight_gradient(&shape, tile, &x, &y, &mut found);
            let error = wanted.error(&found);
            assert!(error < limit(tile), "{isa:?} {tile:?} {shape:?}: {error:e}");
        });
    }

    #[test]
    fn an_image_has_the_same_bits_in_any_batch_and_with_any_number_of_threads(
        shape in any_shape(), tile in any_tile(), seed: u64,
    ) {
        let (x, w) = (numbers(seed, shape.input_len()), numbers(seed ^ 1, shape.weights_len()));
        let y = numbers(seed ^ 2, shape.output_len());
        on_every_isa(|isa| {
            let run = |threads: usize, shape: &Conv2dShape, x: &[f32], y: &[f32]| {
                with_threads(threads, || isa.force(|| {
                    let weights = TransformedWeights::new(tile, &w, shape.out_channels, shape.in_channels);
                    let (mut out, mut gradient) = (vec![0.0; shape.output_len()], vec![0.0; shape.input_len()]);
                    forward(shape, x, &weights, Epilogue::default(), &mut out);
                    input_gradient(shape, y, &weights, &mut gradient);
                    [out, gradient].map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
                }))
            };
            let whole = run(1, &shape, &x, &y);
            assert!(whole == run(2, &shape, &x, &y) && whole == run(3, &shape, &x, &y), "{isa:?} {tile:?} {shape:?}");
            let single = Conv2dShape { batch: 1, ..shape };
            let (input, output) = (single.input_len(), single.output_len());
            for n in 0..shape.batch {
                let alone = run(1, &single, &x[n * input..][..input], &y[n * output..][..output]);
                assert!(alone[0] == whole[0][n * output..][..output], "{isa:?} {tile:?} {shape:?}, image {n} forward");
                assert!(alone[1] == whole[1][n * input..][..input], "{isa:?} {tile:?} {shape:?}, image {n} backward");
            }
        });
    }

    #[test]
    fn nan_and_infinity_reach_every_output_that_depends_on_them(
        shape in any_shape(), tile in any_tile(), seed: u64, place: prop::sample::Index, infinite: bool,
    ) {
        let w = numbers(seed, shape.weights_len());
        let poison = if infinite { f32::INFINITY } else { f32::NAN };
        let (mut x, mut y) = (numbers(seed ^ 1, shape.input_len()), numbers(seed ^ 2, shape.output_len()));
        let (input, output) = (place.index(x.len()), place.index(y.len()));
        x[input] = poison;
        y[output] = poison;
        on_every_isa(|isa| {
            let weights = TransformedWeights::new(tile, &w, shape.out_channels, shape.in_channels);
            let (mut out, mut gradient) = (vec![0.0; shape.output_len()], vec![0.0; shape.input_len()]);
            let relu = Epilogue { activation: Activation::Relu, ..Epilogue::default() };
            let activation = if infinite { Epilogue::default() } else { relu };
            forward(&shape, &x, &weights, activation, &mut out);
            input_gradient(&shape, &y, &weights, &mut gradient);
            products(&shape, |o, i, _| {
                assert!(i != input || !out[o].is_finite(), "{isa:?} {tile:?} {shape:?}: output {o} hides {poison}");
                assert!(o != output || !gradient[i].is_finite(), "{isa:?} {tile:?} {shape:?}: gradient {i} hides {poison}");
            });
        });
    }
}

/// Blocks of whole tiles, blocks shared by threads, many channels: too large for random shapes.
#[test]
fn large_layers_agree_with_a_sampled_sum() {
    for (channels, size) in
        [((40, 24), [70, 130]), ((130, 72), [33, 40]), ((300, 200), [16, 16]), ((520, 136), [9, 11])]
    {
        let shape = Conv2dShape::new(2, channels.0, channels.1, size, [3, 3]).with_padding(1);
        let (x, w) = (numbers(1, shape.input_len()), numbers(2, shape.weights_len()));
        for tile in [Tile::F2, Tile::F4] {
            on_every_isa(|isa| {
                let weights = TransformedWeights::new(tile, &w, shape.out_channels, shape.in_channels);
                let mut out = vec![f32::NAN; shape.output_len()];
                forward(&shape, &x, &weights, Epilogue::default(), &mut out);
                let gradient = |threads| {
                    let mut gradient = vec![f32::NAN; shape.weights_len()];
                    with_threads(threads, || isa.force(|| weight_gradient(&shape, tile, &x, &out, &mut gradient)));
                    gradient
                };
                let found = gradient(1);
                assert!(found == gradient(2), "{isa:?} {tile:?} {shape:?}: weight gradients of 1 and 2 threads differ");
                for sample in (0..found.len()).step_by(found.len() / 23) {
                    let (o, c, i, j) = (sample / 9 / channels.0, sample / 9 % channels.0, sample % 9 / 3, sample % 3);
                    let (mut sum, mut squares) = (0.0, 0.0);
                    for (n, y0, x0) in
                        (0..2 * size[0] * size[1]).map(|k| (k / size[1] / size[0], k / size[1] % size[0], k % size[1]))
                    {
                        let (sy, sx) = ((y0 + i).wrapping_sub(1), (x0 + j).wrapping_sub(1));
                        if sy < size[0] && sx < size[1] {
                            let pixel = x[((n * channels.0 + c) * size[0] + sy) * size[1] + sx] as f64;
                            let product = pixel * out[((n * channels.1 + o) * size[0] + y0) * size[1] + x0] as f64;
                            sum += product;
                            squares += product * product;
                        }
                    }
                    let error = (found[sample] as f64 - sum).abs() / squares.sqrt();
                    assert!(error < limit(tile), "{isa:?} {tile:?} {shape:?}: weight {sample} is off by {error:e}");
                }
                let mut error = 0.0f64;
                for sample in (0..out.len()).step_by(977) {
                    let (x0, y0) = (sample % size[1], sample / size[1] % size[0]);
                    let (o, n) = (sample / size[1] / size[0] % channels.1, sample / size[1] / size[0] / channels.1);
                    let mut sum = 0.0;
                    for (c, i, j) in (0..channels.0 * 9).map(|k| (k / 9, k % 9 / 3, k % 3)) {
                        let (sy, sx) = ((y0 + i).wrapping_sub(1), (x0 + j).wrapping_sub(1));
                        if sy < size[0] && sx < size[1] {
                            let pixel = x[((n * channels.0 + c) * size[0] + sy) * size[1] + sx];
                            sum += pixel as f64 * w[(o * channels.0 + c) * 9 + i * 3 + j] as f64;
                        }
                    }
                    let difference = (out[sample] as f64 - sum).abs();
                    error = if difference <= error { error } else { difference };
                }
                let scale = (channels.0 as f64 * 9.0).sqrt();
                assert!(error / scale < limit(tile), "{isa:?} {tile:?} {shape:?}: {error:e}");
            });
        }
    }
}

/// Five images are cut into slices of channels or into whole blocks where one image is not: too large for random shapes.
#[test]
fn an_image_of_many_channels_has_the_same_bits_however_its_batch_is_cut() {
    for channels in [(600, 24), (250, 16)] {
        let shape = Conv2dShape::new(5, channels.0, channels.1, [33, 40], [3, 3]).with_padding(1);
        let single = Conv2dShape { batch: 1, ..shape };
        let (x, y) = (numbers(1, shape.input_len()), numbers(2, shape.output_len()));
        let (w, last) = (numbers(3, shape.weights_len()), shape.batch - 1);
        on_every_isa(|isa| {
            let weights = TransformedWeights::new(Tile::F4, &w, shape.out_channels, shape.in_channels);
            let run = |shape: &Conv2dShape, x: &[f32], y: &[f32]| {
                let (mut out, mut gradient) = (vec![0.0; shape.output_len()], vec![0.0; shape.input_len()]);
                forward(shape, x, &weights, Epilogue::default(), &mut out);
                input_gradient(shape, y, &weights, &mut gradient);
                [out, gradient].map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            };
            let whole = with_threads(2, || isa.force(|| run(&shape, &x, &y)));
            let (input, output) = (last * single.input_len(), last * single.output_len());
            let alone = with_threads(1, || isa.force(|| run(&single, &x[input..], &y[output..])));
            assert!(alone[0] == whole[0][output..], "{isa:?} {shape:?}: forward");
            assert!(alone[1] == whole[1][input..], "{isa:?} {shape:?}: input gradient");
        });
    }
}

/// Of the pass's own transforms, the first layer cuts the filters into parts, the second its channels into slices, the third
/// neither.
#[test]
fn filters_that_the_pass_transforms_give_the_bits_of_transformed_ones() {
    for (batch, channels, size) in [(2, (520, 515), [9, 11]), (5, (600, 24), [33, 40]), (2, (20, 19), [70, 130])] {
        let shape = Conv2dShape::new(batch, channels.0, channels.1, size, [3, 3]).with_padding(1);
        let (x, y) = (numbers(1, shape.input_len()), numbers(2, shape.output_len()));
        let w = numbers(3, shape.weights_len());
        for tile in [Tile::F2, Tile::F4] {
            on_every_isa(|isa| {
                let run = |weights: Weights| {
                    let (mut out, mut gradient) = (vec![0.0; shape.output_len()], vec![0.0; shape.input_len()]);
                    forward(&shape, &x, weights, Epilogue::default(), &mut out);
                    input_gradient(&shape, &y, weights, &mut gradient);
                    [out, gradient].map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
                };
                let filters = Filters::new(tile, &w, channels.1, channels.0);
                let before = run(Weights::Transformed(&filters.transform_all()));
                assert!(run(Weights::Plain(filters)) == before, "{isa:?} {tile:?} {shape:?}");
            });
        }
    }
}
