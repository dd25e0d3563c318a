//! Single images: read, named, coloured.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor, TensorData};
use fireproof_datasets::read::{Limits, image::Coding};
use fireproof_datasets::{Image, Manifest};
use fireproof_models::Network;
use fireproof_report::Class;
use fireproof_tensor::Unit;

use crate::options::ModelOptions;

/// The network of a weights file.
pub fn network(weights: &Path, options: &ModelOptions, device: &Device) -> Result<Box<dyn Network>> {
    options.load(weights, device)
}

/// An image, with the channels that the network takes.
pub fn read(file: &Path, network: &dyn Network) -> Result<Image> {
    let channels = network.architecture().input_channels;
    anyhow::ensure!(
        network.architecture().normalisation.unit == Unit::Pixel,
        "{}: the model takes slices of volumes, normalised by mean and deviation of the volume, expected a .nii or .nii.gz",
        file.display()
    );
    anyhow::ensure!(
        matches!(channels, 1 | 3),
        "{}: the model takes {channels} channels, expected 1 or 3 for an image file",
        file.display()
    );
    Ok(fireproof_datasets::read::image::read(file, Coding { channels, range: None }, &Limits::default())?)
}

/// `[1, C, H, W]`.
pub fn tensor(image: &Image, device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(image.data.clone(), [1, image.channels, image.height, image.width]), device)
}

/// The model's classes, coloured as the data set of the same classes is, else by Pascal VOC's scheme.
pub fn classes(network: &dyn Network) -> Vec<Class> {
    let names = &network.architecture().classes;
    let known = Manifest::embedded().into_iter().find(|manifest| {
        let own: Vec<&String> = manifest.classes.iter().map(|class| &class.name).collect();
        own.len() <= names.len() && own.iter().zip(names).all(|(own, name)| *own == name)
    });
    let color = |index: usize| known.as_ref().and_then(|manifest| Some(manifest.classes.get(index)?.color));
    let named = names.iter().enumerate();
    named.map(|(index, name)| Class { name: name.clone(), color: color(index).unwrap_or(voc_color(index)) }).collect()
}

/// The bits of the index, spread over the high bits of red, green and blue; index 0 would be black, which is void here.
fn voc_color(index: usize) -> [u8; 3] {
    let index = index + 1;
    let channel = |first: usize| (0..8).map(|bit| ((index >> (3 * bit + first)) as u8 & 1) << (7 - bit)).sum();
    [channel(0), channel(1), channel(2)]
}

/// Writes an RGB or grey PNG of values in 0..=1.
pub fn write_png(path: &Path, channels: usize, height: usize, width: usize, values: &[f32]) -> Result<()> {
    let area = height * width;
    let byte = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
    let bytes: Vec<u8> = (0..area * channels).map(|at| byte(values[(at % channels) * area + at / channels])).collect();
    write_bytes(path, channels, height, width, &bytes)
}

/// Writes an RGB or grey PNG of interleaved bytes.
pub fn write_bytes(path: &Path, channels: usize, height: usize, width: usize, bytes: &[u8]) -> Result<()> {
    let color = if channels == 1 { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    image::ImageEncoder::write_image(encoder, bytes, width as u32, height as u32, color)
        .with_context(|| format!("{}: cannot encode", path.display()))?;
    crate::options::write(path, &png)
}

/// The file's name without its extension.
pub fn stem(file: &Path) -> String {
    file.file_stem().map_or_else(|| "image".into(), |stem| stem.to_string_lossy().into_owned())
}
