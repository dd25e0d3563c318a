//! PNG masks: class indices (grey or palette) or class colours.
//!
//! Palette masks such as Pascal VOC's are read as indices; a general image reader would expand them to colours.

use std::{collections::BTreeMap, collections::HashMap, io::Cursor, path::Path};

use png::{BitDepth, ColorType, Decoder, Transformations};

use super::{Limits, bytes, png_size};
use crate::{Error, Mask, Result, VOID};

/// What the values in a mask mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelCode {
    /// Grey value or palette index → class index or [`VOID`].
    Index(BTreeMap<u16, u8>),
    /// RGB colour → class index or [`VOID`].
    Color(HashMap<[u8; 3], u8>),
}

const NO_LABEL: u16 = 256;

impl LabelCode {
    /// The code in which `0..classes` are the classes and nothing is void.
    pub fn plain(classes: u8) -> Self {
        Self::Index((0..classes).map(|class| (u16::from(class), class)).collect())
    }

    /// Class index of each raw value, [`NO_LABEL`] where there is none.
    pub(crate) fn table(codes: &BTreeMap<u16, u8>) -> Vec<u16> {
        let len = codes.keys().last().map_or(0, |&last| usize::from(last) + 1);
        let mut table = vec![NO_LABEL; len];
        for (&raw, &label) in codes {
            table[usize::from(raw)] = u16::from(label);
        }
        table
    }

    /// What a mask may hold, in words.
    fn expected(&self) -> String {
        match self {
            Self::Index(codes) => ranges(codes.keys().copied()),
            Self::Color(codes) => format!("one of the {} colours of the classes and void", codes.len()),
        }
    }
}

/// `0..=10, 255`
pub(crate) fn ranges(values: impl Iterator<Item = u16>) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == value => *last = value,
            _ => runs.push((value, value)),
        }
    }
    let words: Vec<String> = runs
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}..={last}") })
        .collect();
    words.join(", ")
}

/// Reads a mask file; see [`decode`].
///
/// # Errors
/// If it cannot be read, and as [`decode`].
pub fn read(file: &Path, code: &LabelCode, limits: &Limits) -> Result<Mask> {
    decode(file, &bytes(file, limits, "a PNG mask")?, code, limits)
}

/// Decodes a PNG mask; `file` is only named in errors.
///
/// # Errors
/// If the content is no PNG, ends early, says a size over the limits, is coloured where indices are expected or the
/// other way round, or holds labels that `code` does not have (all of them are named).
pub fn decode(file: &Path, content: &[u8], code: &LabelCode, limits: &Limits) -> Result<Mask> {
    png_size(file, content, limits)?;
    let mut decoder = open(content, limits);
    decoder.set_transformations(match code {
        LabelCode::Index(_) => Transformations::IDENTITY,
        LabelCode::Color(_) => Transformations::EXPAND | Transformations::STRIP_16,
    });
    let mut reader = decoder.read_info().map_err(|error| broken(file, &error))?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    let (color, depth) = (reader.info().color_type, reader.info().bit_depth);
    let indexed = matches!(color, ColorType::Grayscale | ColorType::Indexed);
    match code {
        LabelCode::Index(_) if !indexed => {
            return Err(Error::file(file, kind(color, depth), "class indices: a grey or palette PNG"));
        }
        LabelCode::Color(_) if matches!(color, ColorType::Grayscale | ColorType::GrayscaleAlpha) => {
            return Err(Error::file(file, kind(color, depth), "class colours: an RGB, RGBA or palette PNG"));
        }
        _ => {}
    }
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| Error::file(file, format!("{width}x{height} pixels"), "a picture that fits into memory"))?;
    let mut raw = vec![0u8; size];
    let frame = reader.next_frame(&mut raw).map_err(|error| broken(file, &error))?;
    let mut data = Vec::with_capacity(width * height);
    let mut unknown = Unknown::default();
    match code {
        LabelCode::Index(codes) => {
            let table = LabelCode::table(codes);
            for y in 0..height {
                let row = &raw[y * frame.line_size..];
                for x in 0..width {
                    let value = sample(row, x, depth);
                    match table.get(usize::from(value)) {
                        Some(&label) if label != NO_LABEL => data.push(label as u8),
                        _ => {
                            unknown.count(x, y, || value.to_string());
                            data.push(VOID);
                        }
                    }
                }
            }
        }
        LabelCode::Color(codes) => {
            let stored = frame.color_type.samples();
            // Neighbours mostly share a colour, so most look-ups are one comparison.
            let mut last: Option<([u8; 3], Option<u8>)> = None;
            for y in 0..height {
                let row = &raw[y * frame.line_size..];
                for x in 0..width {
                    let at = x * stored;
                    let rgb = [row[at], row[at + 1], row[at + 2]];
                    let label = match last {
                        Some((same, label)) if same == rgb => label,
                        _ => codes.get(&rgb).copied(),
                    };
                    last = Some((rgb, label));
                    if label.is_none() {
                        unknown.count(x, y, || format!("colour ({}, {}, {})", rgb[0], rgb[1], rgb[2]));
                    }
                    data.push(label.unwrap_or(VOID));
                }
            }
        }
    }
    unknown.refuse(file, code)?;
    Ok(Mask { height, width, data })
}

/// Size `(height, width)` and kind of a mask, from its header.
///
/// # Errors
/// As [`decode`], for what the header shows.
pub fn header(file: &Path, content: &[u8], limits: &Limits) -> Result<((usize, usize), String)> {
    png_size(file, content, limits)?;
    let reader = open(content, limits).read_info().map_err(|error| broken(file, &error))?;
    let info = reader.info();
    Ok(((info.height as usize, info.width as usize), kind(info.color_type, info.bit_depth)))
}

fn open<'a>(content: &'a [u8], limits: &Limits) -> Decoder<Cursor<&'a [u8]>> {
    let bytes = usize::try_from(limits.pixels.saturating_mul(8).saturating_add(1 << 24)).unwrap_or(usize::MAX);
    Decoder::new_with_limits(Cursor::new(content), png::Limits { bytes })
}

/// The value of column `x` in a row of packed samples.
fn sample(row: &[u8], x: usize, depth: BitDepth) -> u16 {
    let packed = |bits: usize| {
        let per_byte = 8 / bits;
        let shift = 8 - bits - bits * (x % per_byte);
        u16::from((row[x / per_byte] >> shift) & ((1u16 << bits) - 1) as u8)
    };
    match depth {
        BitDepth::One => packed(1),
        BitDepth::Two => packed(2),
        BitDepth::Four => packed(4),
        BitDepth::Eight => u16::from(row[x]),
        BitDepth::Sixteen => u16::from_be_bytes([row[2 * x], row[2 * x + 1]]),
    }
}

fn kind(color: ColorType, depth: BitDepth) -> String {
    let color = match color {
        ColorType::Grayscale => "grey",
        ColorType::Rgb => "RGB",
        ColorType::Indexed => "palette",
        ColorType::GrayscaleAlpha => "grey+alpha",
        ColorType::Rgba => "RGBA",
    };
    format!("{color} {}-bit PNG", depth as u8)
}

fn broken(file: &Path, error: &png::DecodingError) -> Error {
    Error::file(file, format!("a broken file ({error})"), "a PNG mask")
}

/// Labels that the code does not have: how often, and where first.
#[derive(Default)]
struct Unknown(BTreeMap<String, (usize, usize, usize)>);

impl Unknown {
    /// More kinds than this are counted together; a photograph in the place of a mask has thousands.
    const NAMED: usize = 8;

    fn count(&mut self, x: usize, y: usize, name: impl FnOnce() -> String) {
        let name = name();
        let full = self.0.len() >= Self::NAMED && !self.0.contains_key(&name);
        let name = if full { "others".to_owned() } else { name };
        self.0.entry(name).or_insert((0, x, y)).0 += 1;
    }

    fn refuse(self, file: &Path, code: &LabelCode) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let found: Vec<String> = self
            .0
            .iter()
            .map(|(name, (count, x, y))| format!("{name} ({count} pixels, first at x {x}, y {y})"))
            .collect();
        Err(Error::file(file, format!("labels outside the class list: {}", found.join(", ")), code.expected()))
    }
}
