//! A picture to draw on: filled shapes, lines, text, with exact area coverage at the edges.
//!
//! Coordinates are CSS pixels with the origin at the top left; the picture has [`SCALE`] times as many. The font is part of
//! the crate, so figures look the same on every machine.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, ScaleFont};
use ab_glyph_rasterizer::{Rasterizer, point};
use image::{ImageEncoder, Rgb, RgbImage, codecs::png};

use crate::ReportError;

/// Picture pixels per CSS pixel.
pub const SCALE: u32 = 2;

/// A colour, RGB.
pub type Color = [u8; 3];

/// A place in CSS pixels.
pub type Point = (f32, f32);

static REGULAR: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("../assets/DejaVuSans-subset.ttf")).expect("the embedded font is valid")
});
static BOLD: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("../assets/DejaVuSans-Bold-subset.ttf")).expect("the embedded font is valid")
});

/// How text is set.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// Height of the font's em in CSS pixels.
    pub size: f32,
    /// Whether it is bold.
    pub bold: bool,
    /// Its colour.
    pub color: Color,
    /// Which part of the text stands at the given place.
    pub anchor: Anchor,
}

/// Which part of a text stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// The left end.
    Start,
    /// The middle.
    Middle,
    /// The right end.
    End,
}

impl Text {
    /// Regular text that starts at its place.
    pub fn new(size: f32, color: Color) -> Self {
        Self { size, bold: false, color, anchor: Anchor::Start }
    }

    /// The same in bold.
    pub fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// The same at another anchor.
    pub fn anchor(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// The width of `text` in CSS pixels.
    pub fn width(&self, text: &str) -> f32 {
        let font = self.font().as_scaled(self.pixels());
        text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum::<f32>() / SCALE as f32
    }

    /// `text`, cut with an ellipsis where it would be wider than `width` CSS pixels.
    pub fn fit(&self, text: &str, width: f32) -> String {
        if self.width(text) <= width {
            return text.to_owned();
        }
        let mut characters: Vec<char> = text.chars().collect();
        while characters.pop().is_some() {
            let cut: String = characters.iter().collect::<String>().trim_end().to_owned() + "…";
            if self.width(&cut) <= width {
                return cut;
            }
        }
        String::new()
    }

    fn font(&self) -> &'static FontRef<'static> {
        if self.bold { &BOLD } else { &REGULAR }
    }

    /// The font's scale: its height from ascent to descent in picture pixels, where [`Self::size`] is its em.
    fn pixels(&self) -> f32 {
        let font = self.font();
        let em = font.units_per_em().expect("the embedded font has an em");
        self.size * SCALE as f32 * font.height_unscaled() / em
    }
}

/// The picture.
///
/// ```
/// use fireproof_report::canvas::{Canvas, Text};
///
/// let mut canvas = Canvas::new(200.0, 60.0);
/// canvas.line(&[(10.0, 50.0), (190.0, 20.0)], 2.0, &[6.0, 4.0], [0, 114, 178]);
/// canvas.text((10.0, 20.0), Text::new(12.0, [33, 37, 41]).bold(), "mIoU (%)");
/// assert_eq!(canvas.pixels().dimensions(), (400, 120));
/// let png = canvas.png("an example")?;
/// # Ok::<(), fireproof_report::ReportError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Canvas {
    pixels: RgbImage,
}

impl Canvas {
    /// A white picture of `width × height` CSS pixels.
    pub fn new(width: f32, height: f32) -> Self {
        let side = |length: f32| ((length * SCALE as f32).ceil() as u32).max(1);
        Self { pixels: RgbImage::from_pixel(side(width), side(height), Rgb([255; 3])) }
    }

    /// The picture's pixels.
    pub fn pixels(&self) -> &RgbImage {
        &self.pixels
    }

    /// Fills closed outlines; where several overlap, the colour is laid on once.
    pub fn fill(&mut self, outlines: &[Vec<Point>], color: Color) {
        let points = outlines.iter().flatten();
        let low = points.clone().fold((f32::MAX, f32::MAX), |low, p| (low.0.min(p.0), low.1.min(p.1)));
        let high = points.fold((f32::MIN, f32::MIN), |high, p| (high.0.max(p.0), high.1.max(p.1)));
        if low.0 >= high.0 || low.1 >= high.1 {
            return;
        }
        let scale = SCALE as f32;
        let (left, top) = ((low.0 * scale).floor(), (low.1 * scale).floor());
        let (width, height) = ((high.0 * scale - left).ceil() as usize + 1, (high.1 * scale - top).ceil() as usize + 1);
        let mut rasterizer = Rasterizer::new(width, height);
        for outline in outlines {
            let mut corners: Vec<_> = outline.iter().map(|p| point(p.0 * scale - left, p.1 * scale - top)).collect();
            let next = |index: usize| (index + 1) % outline.len();
            let doubled_area: f32 =
                (0..outline.len()).map(|i| corners[i].x * corners[next(i)].y - corners[next(i)].x * corners[i].y).sum();
            // Equal orientation: the areas of overlapping outlines add up, instead of cancelling.
            if doubled_area < 0.0 {
                corners.reverse();
            }
            (0..corners.len()).for_each(|i| rasterizer.draw_line(corners[i], corners[next(i)]));
        }
        let mut covered = Vec::new();
        rasterizer.for_each_pixel_2d(|x, y, coverage| covered.push((x, y, coverage)));
        covered.into_iter().for_each(|(x, y, coverage)| {
            self.blend(left as i64 + i64::from(x), top as i64 + i64::from(y), color, coverage)
        });
    }

    /// A filled rectangle.
    pub fn rectangle(&mut self, (x, y): Point, width: f32, height: f32, color: Color) {
        self.fill(&[vec![(x, y), (x + width, y), (x + width, y + height), (x, y + height)]], color);
    }

    /// A filled circle.
    pub fn circle(&mut self, center: Point, radius: f32, color: Color) {
        self.fill(&[disc(center, radius)], color);
    }

    /// A line through points, with round ends; `dashes` gives the lengths of strokes and gaps in turn, none for a solid one.
    pub fn line(&mut self, points: &[Point], width: f32, dashes: &[f32], color: Color) {
        let mut outlines = Vec::new();
        for stroke in strokes(points, dashes) {
            for pair in stroke.windows(2) {
                let (dx, dy) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
                let half = width / 2.0 / dx.hypot(dy).max(f32::EPSILON);
                let (nx, ny) = (-dy * half, dx * half);
                outlines.push(vec![
                    (pair[0].0 + nx, pair[0].1 + ny),
                    (pair[1].0 + nx, pair[1].1 + ny),
                    (pair[1].0 - nx, pair[1].1 - ny),
                    (pair[0].0 - nx, pair[0].1 - ny),
                ]);
            }
            outlines.extend(stroke.iter().map(|&end| disc(end, width / 2.0)));
        }
        self.fill(&outlines, color);
    }

    /// A horizontal or vertical hairline of one picture pixel or more, on the pixel grid.
    pub fn rule(&mut self, from: Point, to: Point, width: f32, color: Color) {
        let grid = |value: f32| (value * SCALE as f32).round() / SCALE as f32;
        let (x, y) = (grid(from.0.min(to.0)), grid(from.1.min(to.1)));
        let (right, bottom) = (grid(from.0.max(to.0)), grid(from.1.max(to.1)));
        self.rectangle((x, y), (right - x).max(width), (bottom - y).max(width), color);
    }

    /// A line of text whose baseline is at `y`.
    pub fn text(&mut self, (x, y): Point, style: Text, text: &str) {
        let font = style.font().as_scaled(style.pixels());
        let shift = match style.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => style.width(text) / 2.0,
            Anchor::End => style.width(text),
        };
        let (mut x, y) = ((x - shift) * SCALE as f32, y * SCALE as f32);
        for c in text.chars() {
            let id = font.glyph_id(c);
            if let Some(outline) = font.outline_glyph(id.with_scale_and_position(font.scale(), ab_glyph::point(x, y))) {
                let bounds = outline.px_bounds();
                let (left, top) = (bounds.min.x as i64, bounds.min.y as i64);
                outline.draw(|dx, dy, coverage| {
                    self.blend(left + i64::from(dx), top + i64::from(dy), style.color, coverage);
                });
            }
            x += font.h_advance(id);
        }
    }

    /// Copies a picture pixel by pixel; `(x, y)` is its upper left corner.
    pub fn picture(&mut self, (x, y): Point, picture: &RgbImage) {
        let place = |value: f32| (value * SCALE as f32).round() as i64;
        image::imageops::replace(&mut self.pixels, picture, place(x), place(y));
    }

    /// The PNG file.
    ///
    /// # Errors
    /// [`ReportError::Draw`] when the encoder fails; `what` names the figure.
    pub fn png(&self, what: &str) -> Result<Vec<u8>, ReportError> {
        let mut bytes = Vec::new();
        png::PngEncoder::new_with_quality(&mut bytes, png::CompressionType::Best, png::FilterType::Adaptive)
            .write_image(
                self.pixels.as_raw(),
                self.pixels.width(),
                self.pixels.height(),
                image::ExtendedColorType::Rgb8,
            )
            .map_err(|error| ReportError::Draw { what: what.to_owned(), message: error.to_string() })?;
        Ok(bytes)
    }

    fn blend(&mut self, x: i64, y: i64, color: Color, coverage: f32) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if x < self.pixels.width() && y < self.pixels.height() {
            let coverage = coverage.clamp(0.0, 1.0);
            let pixel = self.pixels.get_pixel_mut(x, y);
            for (old, new) in pixel.0.iter_mut().zip(color) {
                *old = (f32::from(*old) + (f32::from(new) - f32::from(*old)) * coverage).round() as u8;
            }
        }
    }
}

fn disc((x, y): Point, radius: f32) -> Vec<Point> {
    const CORNERS: usize = 32;
    let corner = |i: usize| (i as f32 * std::f32::consts::TAU / CORNERS as f32).sin_cos();
    (0..CORNERS).map(corner).map(|(sin, cos)| (x + radius * cos, y + radius * sin)).collect()
}

/// Cuts a line into its visible strokes.
fn strokes(points: &[Point], dashes: &[f32]) -> Vec<Vec<Point>> {
    if dashes.is_empty() {
        return vec![points.to_vec()];
    }
    let mut strokes = Vec::new();
    let mut stroke: Vec<Point> = points.first().copied().into_iter().collect();
    let (mut index, mut left) = (0, dashes[0]);
    for pair in points.windows(2) {
        let (dx, dy) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
        let length = dx.hypot(dy);
        let mut walked = 0.0;
        while length - walked > left {
            walked += left;
            let place = (pair[0].0 + dx * walked / length, pair[0].1 + dy * walked / length);
            if index % 2 == 0 {
                stroke.push(place);
                strokes.push(std::mem::take(&mut stroke));
            } else {
                stroke = vec![place];
            }
            index = (index + 1) % dashes.len();
            left = dashes[index];
        }
        left -= length - walked;
        if index % 2 == 0 {
            stroke.push(pair[1]);
        }
    }
    if stroke.len() > 1 {
        strokes.push(stroke);
    }
    strokes
}
