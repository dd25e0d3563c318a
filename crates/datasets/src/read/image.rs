//! PNG and JPEG images: grey, RGB, RGBA or palette, 8 or 16 bit.

use std::{io::Cursor, path::Path};

use ::image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader};

use super::{Limits, bytes, png_size};
use crate::{Error, Image, Result};

const EXPECTED: &str = "a PNG or JPEG image";

/// How stored values become `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coding {
    /// 1 (grey: RGB images become their luma, Rec. 601) or 3 (RGB: grey images are repeated).
    pub channels: usize,
    /// The stored values that mean 0 and 1; `None` is 0 and the largest value of the file's bit depth.
    pub range: Option<[f32; 2]>,
}

/// Reads an image file; see [`decode`].
///
/// # Errors
/// If it cannot be read, and as [`decode`].
pub fn read(file: &Path, coding: Coding, limits: &Limits) -> Result<Image> {
    decode(file, &bytes(file, limits, EXPECTED)?, coding, limits)
}

/// Decodes an image; `file` is only named in errors. Alpha is dropped, not blended: a transparent pixel keeps its colour.
///
/// # Errors
/// If the content is no PNG or JPEG, ends early, says a size over the limits, or has values outside `coding.range`.
pub fn decode(file: &Path, content: &[u8], coding: Coding, limits: &Limits) -> Result<Image> {
    assert!(matches!(coding.channels, 1 | 3), "1 or 3 channels, not {}", coding.channels);
    let (decoder, _) = open(file, content, limits)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    let color = decoder.color_type();
    let mut raw = vec![0u8; decoder.total_bytes() as usize];
    decoder.read_image(&mut raw).map_err(|error| broken(file, &error))?;
    let stored = color.channel_count() as usize;
    let pixels = width * height;
    let wide = color.bytes_per_pixel() as usize == 2 * stored;
    let value = |index: usize| -> u32 {
        if wide { u32::from(u16::from_ne_bytes([raw[2 * index], raw[2 * index + 1]])) } else { u32::from(raw[index]) }
    };
    let largest = if wide { 65535.0 } else { 255.0 };
    let colored = stored >= 3;
    let [low, high] = coding.range.unwrap_or([0.0, largest]);
    let mut data = vec![0.0f32; coding.channels * pixels];
    if coding.channels == 1 {
        for (pixel, out) in data.iter_mut().enumerate() {
            let at = pixel * stored;
            *out = if colored {
                // Integer weights, so that R = G = B stays exactly that value.
                (299 * value(at) + 587 * value(at + 1) + 114 * value(at + 2)) as f32 / 1000.0
            } else {
                value(at) as f32
            };
        }
    } else {
        for (channel, plane) in data.chunks_exact_mut(pixels).enumerate() {
            let offset = if colored { channel } else { 0 };
            for (pixel, out) in plane.iter_mut().enumerate() {
                *out = value(pixel * stored + offset) as f32;
            }
        }
    }
    if coding.range.is_some()
        && let Some(outside) = data.iter().find(|&&value| value < low || value > high)
    {
        return Err(Error::file(file, format!("the value {outside}"), format!("values in {low}..={high}")));
    }
    for value in &mut data {
        *value = (*value - low) / (high - low);
    }
    Ok(Image { channels: coding.channels, height, width, data })
}

/// Size `(height, width)` and kind of an image, from its header.
///
/// # Errors
/// As [`decode`], for what the header shows.
pub fn header(file: &Path, content: &[u8], limits: &Limits) -> Result<((usize, usize), String)> {
    let (decoder, format) = open(file, content, limits)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    let kind = match color {
        ColorType::L8 | ColorType::L16 => "grey",
        ColorType::La8 | ColorType::La16 => "grey+alpha",
        ColorType::Rgb8 | ColorType::Rgb16 => "RGB",
        _ => "RGBA",
    };
    let bits = 8 * color.bytes_per_pixel() / color.channel_count();
    Ok(((height as usize, width as usize), format!("{kind} {bits}-bit {format}")))
}

fn open<'a>(file: &Path, content: &'a [u8], limits: &Limits) -> Result<(Box<dyn ImageDecoder + 'a>, &'static str)> {
    let format = match ::image::guess_format(content) {
        Ok(ImageFormat::Png) => "PNG",
        Ok(ImageFormat::Jpeg) => "JPEG",
        Ok(other) => return Err(Error::file(file, format!("a {} file", other.to_mime_type()), EXPECTED)),
        Err(_) if content.is_empty() => return Err(Error::file(file, "an empty file", EXPECTED)),
        Err(_) => return Err(Error::file(file, "bytes that start like no image format", EXPECTED)),
    };
    if format == "JPEG" && !ends(content) {
        return Err(Error::file(
            file,
            format!("a JPEG that ends early, after {} bytes", content.len()),
            "its end marker",
        ));
    }
    png_size(file, content, limits)?;
    let mut reader = ImageReader::new(Cursor::new(content));
    reader.set_format(if format == "PNG" { ImageFormat::Png } else { ImageFormat::Jpeg });
    let mut allowed = ::image::Limits::default();
    // RGBA of 16 bit is the widest pixel; the decoder may hold the picture twice.
    allowed.max_alloc = Some(limits.pixels.saturating_mul(16).saturating_add(1 << 24));
    reader.limits(allowed);
    let decoder = reader.into_decoder().map_err(|error| broken(file, &error))?;
    let (width, height) = decoder.dimensions();
    limits.size(file, u64::from(width), u64::from(height))?;
    match decoder.color_type() {
        ColorType::L8
        | ColorType::La8
        | ColorType::Rgb8
        | ColorType::Rgba8
        | ColorType::L16
        | ColorType::La16
        | ColorType::Rgb16
        | ColorType::Rgba16 => Ok((Box::new(decoder), format)),
        other => Err(Error::file(file, format!("{other:?} pixels"), "grey, RGB or RGBA of 8 or 16 bit")),
    }
}

fn broken(file: &Path, error: &ImageError) -> Error {
    Error::file(file, format!("a broken file ({error})"), EXPECTED)
}

/// Whether a JPEG has an end marker after the start of its first scan. Decoders fill what is missing with grey, which
/// would train on pictures that are not there. The segments before the scan are skipped by their lengths, since an
/// embedded thumbnail has an end marker of its own; inside a scan `FF D9` cannot be data.
fn ends(content: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, ..]) = content.get(at..) {
        match marker {
            0xff => at += 1,
            0x01 | 0xd0..=0xd7 => at += 2,
            0xda => return content[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            _ => {
                let Some(length) = content.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
    false
}
