//! What an attack does to a picture: the image, the perturbation, the prediction before and after, the errors, the truth.

use image::RgbImage;
use image::imageops::{FilterType, resize};

use crate::canvas::{Anchor, Canvas, Color, SCALE, Text};
use crate::plots::Figure;
use crate::{Class, ReportError};

const INK: Color = [33, 37, 41];
const SOFT: Color = [98, 106, 115];
const VOID: Color = [0, 0, 0];
const OTHER: Color = [255, 255, 255];
const RIGHT: Color = [236, 238, 241];
const WRONG: Color = [197, 48, 32];
const UNSCORED: Color = [176, 182, 189];
const HEADINGS: [&str; 6] =
    ["image", "perturbation", "prediction before", "prediction after", "errors after", "ground truth"];

/// What a sheet shows, in a sentence.
pub const CAPTION: &str = "From left to right: the image, the perturbation amplified by the factor in the heading (grey is zero), \
    the prediction before and after the attack, where it is wrong after the attack, and the ground truth.";

const MARGIN: f32 = 16.0;
const GAP: f32 = 6.0;

/// One image under one attack. All pictures are `height × width`, row by row.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What is shown: model, attack, image.
    pub caption: String,
    /// Rows of pixels.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// The valid range, shown as black to white.
    pub range: [f32; 2],
    /// The clean image, `[C, H, W]`; one channel is shown grey, of three or more the first three as red, green, blue.
    pub image: Vec<f32>,
    /// The adversarial image, `[C, H, W]`.
    pub adversarial: Vec<f32>,
    /// The labels, `[H, W]`; 255 is void.
    pub labels: Vec<u8>,
    /// The prediction on the clean image, `[H, W]`.
    pub before: Vec<u8>,
    /// The prediction on the adversarial image, `[H, W]`.
    pub after: Vec<u8>,
}

/// Draws panels below one another, with headings and a legend of the classes.
///
/// The perturbation is shown around mid grey, amplified by one whole factor for all rows, such that the largest just fits.
///
/// # Errors
/// [`ReportError::Picture`] when a picture has not the size of its panel.
pub fn sheet(file: &str, panels: &[Panel], classes: &[Class]) -> Result<Figure, ReportError> {
    panels.iter().try_for_each(check)?;
    let factor = amplification(panels);
    let widest = panels.iter().map(|panel| fitted(panel).0).max().unwrap_or(1);
    let cell = widest as f32 / SCALE as f32;
    let columns = HEADINGS.len() as f32;
    let width = 2.0 * MARGIN + columns * cell + (columns - 1.0) * GAP;
    let caption = Text::new(12.0, INK);
    let caption_height = 24.0;
    let heights: Vec<f32> = panels.iter().map(|panel| fitted(panel).1 as f32 / SCALE as f32).collect();
    let head = MARGIN + 18.0;
    let body: f32 = heights.iter().map(|height| height + caption_height + 8.0).sum();
    let legend = Legend::new(panels, classes, width - 2.0 * MARGIN);
    let mut canvas = Canvas::new(width, head + body + legend.height() + MARGIN);
    let left = |column: usize| MARGIN + column as f32 * (cell + GAP);
    for (column, heading) in HEADINGS.iter().enumerate() {
        let text = if column == 1 { format!("{heading} × {factor}") } else { (*heading).to_owned() };
        let style = Text::new(12.0, SOFT).bold().anchor(Anchor::Middle);
        canvas.text((left(column) + cell / 2.0, MARGIN + 8.0), style, &style.fit(&text, cell));
    }
    let mut top = head;
    for (panel, height) in panels.iter().zip(heights) {
        canvas.text((MARGIN, top + 14.0), caption, &caption.fit(&panel.caption, width - 2.0 * MARGIN));
        let mask = |labels: &[u8]| paint(panel, |pixel| class_color(labels[pixel], classes));
        let errors = paint(panel, |pixel| match panel.labels[pixel] {
            255 => UNSCORED,
            label if label == panel.after[pixel] => RIGHT,
            _ => WRONG,
        });
        let pictures = [
            (photograph(panel), FilterType::Triangle),
            (perturbation(panel, factor), FilterType::Nearest),
            (mask(&panel.before), FilterType::Nearest),
            (mask(&panel.after), FilterType::Nearest),
            (errors, FilterType::Nearest),
            (mask(&panel.labels), FilterType::Nearest),
        ];
        let (wide, high) = fitted(panel);
        for (column, (picture, filter)) in pictures.iter().enumerate() {
            // Enlarged pixels stay squares; a photograph that shrinks is averaged.
            let filter = if wide as usize > panel.width { FilterType::Nearest } else { *filter };
            let offset = (cell - wide as f32 / SCALE as f32) / 2.0;
            canvas.picture((left(column) + offset, top + caption_height), &resize(picture, wide, high, filter));
        }
        top += height + caption_height + 8.0;
    }
    legend.draw(&mut canvas, (MARGIN, top + 4.0));
    Ok(Figure { file: file.to_owned(), caption: CAPTION.to_owned(), png: canvas.png(file)? })
}

fn check(panel: &Panel) -> Result<(), ReportError> {
    let area = panel.height * panel.width;
    let channels = (panel.image.len() / area.max(1)).max(1);
    for (what, found, expected) in [
        ("the image", panel.image.len(), channels * area),
        ("the adversarial image", panel.adversarial.len(), panel.image.len()),
        ("the label map", panel.labels.len(), area),
        ("the prediction before", panel.before.len(), area),
        ("the prediction after", panel.after.len(), area),
    ] {
        if found != expected || area == 0 {
            return Err(ReportError::Picture { panel: panel.caption.clone(), what, found, expected });
        }
    }
    Ok(())
}

/// The size in picture pixels at which a panel's pictures are shown: whole multiples where they are small.
fn fitted(panel: &Panel) -> (u32, u32) {
    const TARGET: usize = 400;
    let (width, height) = (panel.width, panel.height);
    let (wide, high) = if width <= TARGET {
        let factor = (TARGET / width).clamp(1, 16);
        (width * factor, height * factor)
    } else {
        (TARGET, (height * TARGET).div_ceil(width).max(1))
    };
    (wide as u32, high as u32)
}

/// The largest whole factor that keeps every perturbation within black and white.
fn amplification(panels: &[Panel]) -> u32 {
    let share = |panel: &Panel| {
        let span = panel.range[1] - panel.range[0];
        let deltas = panel.image.iter().zip(&panel.adversarial).map(|(clean, attacked)| (attacked - clean).abs());
        deltas.fold(0.0, f32::max) / span
    };
    let largest = panels.iter().map(share).fold(0.0, f32::max);
    // A hair of slack: 8/255 in rounded floats must give 15 wherever it was computed.
    if largest > 0.0 { ((0.5 / largest * (1.0 + 1e-4)) as u32).clamp(1, 1000) } else { 1 }
}

/// A picture whose pixels are given by their index.
fn paint(panel: &Panel, color: impl Fn(usize) -> Color) -> RgbImage {
    let width = panel.width;
    RgbImage::from_fn(width as u32, panel.height as u32, |x, y| image::Rgb(color(y as usize * width + x as usize)))
}

fn photograph(panel: &Panel) -> RgbImage {
    let [low, high] = panel.range;
    channels(panel, |at| (panel.image[at] - low) / (high - low))
}

fn perturbation(panel: &Panel, factor: u32) -> RgbImage {
    let span = panel.range[1] - panel.range[0];
    channels(panel, |at| 0.5 + factor as f32 * (panel.adversarial[at] - panel.image[at]) / span)
}

/// A picture whose values, 0 black to 1 white, are given by their index in `[C, H, W]`.
fn channels(panel: &Panel, value: impl Fn(usize) -> f32) -> RgbImage {
    let area = panel.height * panel.width;
    let colored = panel.image.len() / area >= 3;
    let byte = |at: usize| (value(at).clamp(0.0, 1.0) * 255.0).round() as u8;
    paint(panel, |pixel| [0, 1, 2].map(|channel| byte(if colored { channel * area + pixel } else { pixel })))
}

fn class_color(label: u8, classes: &[Class]) -> Color {
    match classes.get(usize::from(label)) {
        Some(class) => class.color,
        None if label == fireproof_metrics::VOID => VOID,
        None => OTHER,
    }
}

/// Classes, and the signs of the error map, in as many rows as they need.
struct Legend {
    entries: Vec<(f32, f32, Color, String)>,
    rows: usize,
}

impl Legend {
    const ROW: f32 = 20.0;

    fn new(panels: &[Panel], classes: &[Class], width: f32) -> Self {
        let mut wanted: Vec<(Color, String)> = classes.iter().map(|class| (class.color, class.name.clone())).collect();
        let predictions = || panels.iter().flat_map(|panel| panel.before.iter().chain(&panel.after));
        if panels.iter().any(|panel| panel.labels.contains(&fireproof_metrics::VOID)) {
            wanted.push((VOID, "void".to_owned()));
        }
        if predictions().any(|&label| usize::from(label) >= classes.len() && label != fireproof_metrics::VOID) {
            wanted.push((OTHER, "none of the classes".to_owned()));
        }
        let signs = [(WRONG, "error"), (RIGHT, "correct"), (UNSCORED, "not scored")];
        let signs = signs.map(|(color, name)| (color, name.to_owned()));
        let (mut x, mut row) = (0.0, 0);
        let mut entries = Vec::new();
        for (index, (color, name)) in wanted.iter().chain(&signs).enumerate() {
            let name = Text::new(11.5, INK).fit(name, width / 2.0);
            let needed = 20.0 + Text::new(11.5, INK).width(&name) + 18.0;
            // The error map's signs are another key than the classes.
            if index == wanted.len() || x > 0.0 && x + needed > width {
                (x, row) = (0.0, row + 1);
            }
            entries.push((x, row as f32 * Self::ROW, *color, name));
            x += needed;
        }
        Self { entries, rows: row + 1 }
    }

    fn height(&self) -> f32 {
        self.rows as f32 * Self::ROW + 4.0
    }

    fn draw(&self, canvas: &mut Canvas, (left, top): (f32, f32)) {
        for (x, y, color, name) in &self.entries {
            let (x, y) = (left + x, top + y);
            canvas.rectangle((x, y), 13.0, 13.0, UNSCORED);
            canvas.rectangle((x + 0.5, y + 0.5), 12.0, 12.0, *color);
            canvas.text((x + 19.0, y + 10.8), Text::new(11.5, INK), name);
        }
    }
}
