//! What is written as PNG or idx is read back, whatever the kind of file.

use std::collections::{BTreeMap, HashMap};

use fireproof_datasets::{
    Options, Split, VOID, open,
    read::{
        Limits, idx,
        image::{self, Coding},
        list,
        mask::{self, LabelCode},
    },
    resize,
};
use png::{BitDepth, ColorType};
use proptest::prelude::*;

use crate::support::{MANIFEST, Toy, grey, png, rgb};

fn depth(bits: usize) -> BitDepth {
    match bits {
        1 => BitDepth::One,
        2 => BitDepth::Two,
        4 => BitDepth::Four,
        _ => BitDepth::Eight,
    }
}

/// Packs values of `bits` bits into rows of whole bytes.
fn packed(width: usize, bits: usize, values: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for row in values.chunks(width) {
        for part in row.chunks(8 / bits) {
            out.push(part.iter().enumerate().fold(0, |byte, (index, value)| byte | value << (8 - bits - index * bits)));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn masks_of_every_depth_grey_or_palette_come_back(
        width in 1usize..20, height in 1usize..20, log_bits in 0usize..4, palette: bool, seed: u64,
    ) {
        let bits = 1 << log_bits;
        let count = (1usize << bits).min(200);
        let value = |index: usize| (seed.rotate_left(index as u32 * 7) % count as u64) as u8;
        let values: Vec<u8> = (0..width * height).map(value).collect();
        let color = if palette { ColorType::Indexed } else { ColorType::Grayscale };
        let content = if palette {
            let mut out = Vec::new();
            let mut encoder = png::Encoder::new(&mut out, width as u32, height as u32);
            encoder.set_color(color);
            encoder.set_depth(depth(bits));
            encoder.set_palette((0..(1usize << bits) * 3).map(|index| index as u8).collect::<Vec<u8>>());
            encoder.write_header().unwrap().write_image_data(&packed(width, bits, &values)).unwrap();
            out
        } else {
            png(width as u32, height as u32, color, depth(bits), &packed(width, bits, &values))
        };
        let read = mask::decode("m".as_ref(), &content, &LabelCode::plain(200), &Limits::default()).unwrap();
        prop_assert_eq!((read.size(), read.data), ((height, width), values));
    }

    #[test]
    fn images_of_every_kind_and_depth_come_back(
        width in 1usize..12, height in 1usize..12, kind in 0usize..4, wide: bool, seed: u64,
    ) {
        let (color, stored) = [
            (ColorType::Grayscale, 1), (ColorType::GrayscaleAlpha, 2), (ColorType::Rgb, 3), (ColorType::Rgba, 4),
        ][kind];
        let values: Vec<u16> = (0..width * height * stored)
            .map(|index| (seed.rotate_left(index as u32 * 11) as u16) & if wide { 0xffff } else { 0xff })
            .collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| if wide { v.to_be_bytes().to_vec() } else { vec![*v as u8] }).collect();
        let content = png(width as u32, height as u32, color, if wide { BitDepth::Sixteen } else { BitDepth::Eight }, &bytes);
        let largest = if wide { 65535.0 } else { 255.0f32 };
        let limits = Limits::default();
        let read = image::decode("i".as_ref(), &content, Coding { channels: 3, range: None }, &limits).unwrap();
        for pixel in 0..width * height {
            for channel in 0..3 {
                let expected = f32::from(values[pixel * stored + if stored >= 3 { channel } else { 0 }]) / largest;
                prop_assert_eq!(read.data[channel * width * height + pixel], expected);
            }
        }
        let one = image::decode("i".as_ref(), &content, Coding { channels: 1, range: None }, &limits).unwrap();
        prop_assert_eq!((one.channels, one.size(), one.data.len()), (1, (height, width), width * height));
        prop_assert!(one.data.iter().all(|value| (0.0..=1.0).contains(value)));
        if stored < 3 {
            prop_assert_eq!(&one.data[..], &read.data[..width * height]);
        }
    }

    #[test]
    fn idx_arrays_come_back_plain_and_gzipped(shape in prop::collection::vec(0usize..9, 1..5), seed: u8) {
        let count: usize = shape.iter().product();
        let data: Vec<u8> = (0..count).map(|index| (index as u8).wrapping_mul(seed)).collect();
        let mut content = vec![0, 0, 8, shape.len() as u8];
        shape.iter().for_each(|&extent| content.extend((extent as u32).to_be_bytes()));
        content.extend(&data);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut gzip, &content).unwrap();
        for content in [content, gzip.finish().unwrap()] {
            let read = idx::decode("x".as_ref(), &content, &Limits::default()).unwrap();
            prop_assert_eq!(&read.shape, &shape);
            prop_assert_eq!(&read.data, &data);
        }
    }

    #[test]
    fn readers_never_panic_on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), png_start: bool) {
        let content = if png_start { [&grey(3, 3, |_| 0)[..33], &bytes].concat() } else { bytes };
        let limits = Limits { pixels: 1 << 16, bytes: 1 << 16 };
        let _ = mask::decode("m".as_ref(), &content, &LabelCode::plain(3), &limits);
        let _ = image::decode("i".as_ref(), &content, Coding { channels: 3, range: None }, &limits);
        let _ = idx::decode("x".as_ref(), &content, &limits);
        let _ = list::parse("l".as_ref(), &String::from_utf8_lossy(&content));
    }

    #[test]
    fn resizing_keeps_ranges_and_labels(
        from in (1usize..40, 1usize..40), to in (1usize..40, 1usize..40), seed: u64,
    ) {
        let data: Vec<u8> = (0..from.0 * from.1).map(|index| (seed.rotate_left(index as u32) % 5) as u8).collect();
        let image = fireproof_datasets::Image {
            channels: 1, height: from.0, width: from.1, data: data.iter().map(|&value| f32::from(value) / 4.0).collect(),
        };
        let (low, high) = image.data.iter().fold((1.0f32, 0.0f32), |(low, high), &v| (low.min(v), high.max(v)));
        let resized = resize::image(&image, to.0, to.1);
        prop_assert_eq!(resized.size(), to);
        prop_assert!(resized.data.iter().all(|&v| v >= low - 1e-6 && v <= high + 1e-6));
        let mask = resize::mask(&fireproof_datasets::Mask { height: from.0, width: from.1, data: data.clone() }, to.0, to.1);
        prop_assert_eq!(mask.size(), to);
        prop_assert!(mask.data.iter().all(|label| data.contains(label)));
    }
}

#[test]
fn grey_images_stored_as_colours_keep_their_exact_value() {
    let data: Vec<u8> = (0..=255u8).flat_map(|value| [value; 4]).collect();
    let content = png(16, 16, ColorType::Rgba, BitDepth::Eight, &data);
    let coding = Coding { channels: 1, range: None };
    let read = image::decode("i".as_ref(), &content, coding, &Limits::default()).unwrap();
    let expected: Vec<f32> = (0..=255u8).map(|value| f32::from(value) / 255.0).collect();
    assert_eq!(read.data, expected);
}

#[test]
fn sixteen_bit_masks_and_raw_label_values_are_mapped() {
    let values = [7u16, 8, 1000, 65535];
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
    let content = png(2, 2, ColorType::Grayscale, BitDepth::Sixteen, &bytes);
    let code = LabelCode::Index(BTreeMap::from([(7, 0), (8, 1), (1000, 0), (65535, VOID)]));
    let read = mask::decode("m".as_ref(), &content, &code, &Limits::default()).unwrap();
    assert_eq!(read.data, [0, 1, 0, VOID]);
}

#[test]
fn masks_of_colours_are_read_from_rgb_rgba_and_palettes() {
    let code = LabelCode::Color(HashMap::from([([0, 255, 7], 0), ([1, 254, 7], 1), ([2, 253, 7], VOID)]));
    let expected = [0, 1, VOID, 0];
    let limits = Limits::default();
    let palette = png(2, 2, ColorType::Indexed, BitDepth::Eight, &[0, 1, 2, 0]);
    let rgb: Vec<u8> = [0u8, 1, 2, 0].iter().flat_map(|&index| [index, 255 - index, 7]).collect();
    let rgba: Vec<u8> = [0u8, 1, 2, 0].iter().flat_map(|&index| [index, 255 - index, 7, 255]).collect();
    let rgb = png(2, 2, ColorType::Rgb, BitDepth::Eight, &rgb);
    let rgba = png(2, 2, ColorType::Rgba, BitDepth::Eight, &rgba);
    for content in [palette, rgb, rgba] {
        assert_eq!(mask::decode("m".as_ref(), &content, &code, &limits).unwrap().data, expected);
    }
}

#[test]
fn a_split_without_a_list_is_searched_in_subfolders_and_sorted() {
    let toy = Toy::new(0);
    let text = MANIFEST
        .replace("images/{name}.png", "left/{split}/{name}_left.png")
        .replace("masks/{name}.png", "fine/{split}/{name}_ids.png");
    toy.write("toy.toml", text);
    for name in ["b/two", "a/three", "b/one", "zero"] {
        toy.write(&format!("left/val/{name}_left.png"), rgb(4, 3, 0));
        toy.write(&format!("fine/val/{name}_ids.png"), grey(4, 3, |_| 1));
    }
    toy.write("left/val/a/notes.txt", "not an image");
    let data = toy.open(Split::Val).unwrap();
    let names: Vec<String> = (0..data.len()).map(|index| data.sample_name(index)).collect();
    assert_eq!(names, ["a/three", "b/one", "b/two", "zero"]);
    assert!((0..4).all(|index| data.get(index).unwrap().id == index as u64));
}

#[test]
fn the_voc_layout_reads_palette_indices_and_augmented_masks() {
    let toy = Toy::new(0);
    let mut jpeg = Vec::new();
    let grey_pixels = vec![128u8; 8 * 6 * 3];
    ::image::codecs::jpeg::JpegEncoder::new(&mut jpeg)
        .encode(&grey_pixels, 8, 6, ::image::ExtendedColorType::Rgb8)
        .unwrap();
    toy.write("JPEGImages/2007_000032.jpg", &jpeg);
    let indices: Vec<u8> = (0..48).map(|pixel| [0, 1, 15, 255][pixel % 4]).collect();
    toy.write("SegmentationClass/2007_000032.png", png(8, 6, ColorType::Indexed, BitDepth::Eight, &indices));
    toy.write("SegmentationClassAug/2007_000032.png", grey(8, 6, |_| 20));
    toy.write("ImageSets/Segmentation/val.txt", "2007_000032\n");
    toy.write("ImageSets/Segmentation/trainaug.txt", "2007_000032\n");
    let read = |split| open("voc2012", Some(toy.root()), split, Options::default()).unwrap();
    let val = read(Split::Val);
    assert_eq!((val.get(0).unwrap().mask.data, val.classes().len()), (indices, 21));
    assert_eq!(val.stored_as(0).unwrap(), "RGB 8-bit JPEG, mask palette 8-bit PNG");
    assert_eq!(read(Split::Named("trainaug".into())).get(0).unwrap().mask.data, [20; 48]);
}

#[test]
fn the_cityscapes_layout_maps_label_ids_to_training_classes() {
    let toy = Toy::new(0);
    toy.write("leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png", rgb(6, 6, 0));
    toy.write("gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png", grey(6, 6, |pixel| (pixel % 34) as u8));
    let data = open("cityscapes", Some(toy.root()), Split::Train, Options::default()).unwrap();
    let sample = data.get(0).unwrap();
    assert_eq!(sample.name, "aachen/aachen_000000_000019");
    // The public label table: which ids train, in order.
    let training = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];
    for (id, &label) in sample.mask.data.iter().enumerate().take(34) {
        let expected = training.iter().position(|&train| train == id).map_or(VOID, |class| class as u8);
        assert_eq!(label, expected, "label id {id}");
    }
    assert_eq!(data.classes().len(), 19);
}

#[test]
fn a_size_resizes_image_and_mask() {
    let toy = Toy::new(1);
    let name = toy.path("toy.toml");
    let options = Options { size: Some((6, 8)), ..Options::default() };
    let sample = open(name.to_str().unwrap(), None, Split::Train, options).unwrap().get(0).unwrap();
    assert_eq!((sample.image.size(), sample.mask.size()), ((6, 8), (6, 8)));
    assert_eq!(sample.mask.data[..8], [0, 0, 1, 1, 2, 2, VOID, VOID]);
}
