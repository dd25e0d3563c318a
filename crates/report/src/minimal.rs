//! What attacks that look for the smallest perturbation have found: norms, success, and success against the radius.

use serde::{Deserialize, Serialize};

use crate::canvas::{Anchor, Canvas, Color, Point, Text};
use crate::plots::{Figure, nice_step};
use crate::table::{Line, Table};
use crate::{ReportError, Results, Row, labels};

/// Share of the valid pixels that must be fooled for an image to count as fooled.
pub const FOOLED: f64 = 0.99;

/// The smallest perturbation of one image, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Smallest {
    /// Its norm in [`Run::unit`](crate::Run::unit); that of the most successful perturbation where `success` is below [`FOOLED`].
    pub norm: f64,
    /// The share of valid pixels that it fools (APSR), 0..=1.
    pub success: f64,
}

/// The smallest perturbations of a row's images. Not those that the row scores: they are clipped to the radius.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Minimal {
    /// How many images are fooled at some radius.
    pub fooled: u64,
    /// Mean share of valid pixels fooled (APSR).
    pub success: f64,
    /// The median norm over all images, those that are not fooled counting as infinite; absent where they are half or more.
    pub median_norm: Option<f64>,
    /// The norms of the fooled images, ascending: at the radius of entry `k` (from 1) `k` images are fooled.
    pub norms: Vec<f64>,
}

impl Minimal {
    /// Of a row's images; `None` without any.
    pub fn new(found: &[Smallest]) -> Option<Self> {
        if found.is_empty() {
            return None;
        }
        let mut norms: Vec<f64> = found.iter().filter(|one| one.success >= FOOLED).map(|one| one.norm).collect();
        norms.sort_by(f64::total_cmp);
        let n = found.len();
        // Of an even number the mean of the two in the middle, which must both be there.
        let median_norm = norms.get(n / 2).map(|upper| 0.5 * (upper + norms[(n - 1) / 2]));
        let success = found.iter().map(|one| one.success).sum::<f64>() / n as f64;
        Some(Self { fooled: norms.len() as u64, success, median_norm, norms })
    }

    /// The share of `images` that a perturbation of norm `radius` fools.
    pub fn at(&self, radius: f64, images: u64) -> f64 {
        self.norms.partition_point(|norm| *norm <= radius) as f64 / images.max(1) as f64
    }
}

/// How a row is called beside others of all groups.
fn name(row: &Row) -> String {
    format!("{} · {} · {}", row.model, row.training, labels::attack(row))
}

/// A norm as people write it: ℓ∞ in units of 1/255.
fn shown(row: &Row, norm: f64) -> String {
    match row.norm.as_deref() {
        Some("linf") => format!("{}/255", labels::significant(norm * 255.0)),
        _ => labels::significant(norm),
    }
}

/// One line a row.
pub fn table(results: &Results) -> Option<Table> {
    let rows: Vec<(&Row, &Minimal)> =
        results.rows.iter().filter_map(|row| row.minimal.as_ref().map(|minimal| (row, minimal))).collect();
    let line = |(row, minimal): &(&Row, &Minimal)| Line {
        labels: vec![
            row.model.clone(),
            row.training.clone(),
            labels::attack(row),
            row.norm.as_deref().map_or(String::new(), |norm| labels::norm(norm).to_owned()),
            minimal.median_norm.map_or("–".to_owned(), |norm| shown(row, norm)),
        ],
        swatch: None,
        scores: vec![Some(minimal.fooled as f64 / row.images.max(1) as f64), Some(minimal.success)],
        summary: false,
    };
    let lines: Vec<Line> = rows.iter().map(line).collect();
    (!lines.is_empty()).then(|| Table {
        title: "Smallest perturbations".to_owned(),
        label_head: ["Model", "Training", "Attack", "Norm", "Median norm"].map(str::to_owned).into(),
        score_head: vec!["Fooled (%)".to_owned(), "APSR (%)".to_owned()],
        lines,
        notes: vec![
            "Fooled: images of which 99 % of the valid pixels are fooled, at whatever radius. APSR: mean share of valid pixels \
             fooled. The median counts images that are not fooled as infinite. Rows of mIoU score the same perturbations clipped \
             to the radius."
                .to_owned(),
        ],
        bold_best: false,
        tinted: false,
    })
}

const INK: Color = [33, 37, 41];
const SOFT: Color = [98, 106, 115];
const GRID: Color = [228, 231, 235];
const COLORS: [Color; 7] =
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [40, 40, 40], [86, 180, 233], [230, 159, 0]];
const DASHES: [&[f32]; 3] = [&[], &[7.0, 4.5], &[1.5, 4.5]];

/// One figure a norm: the share of fooled images against the radius, a curve a row.
///
/// # Errors
/// When a PNG cannot be encoded.
pub fn figures(results: &Results) -> Result<Vec<Figure>, ReportError> {
    let mut figures = Vec::new();
    for norm in ["linf", "l2"] {
        let rows: Vec<(&Row, &Minimal)> = results
            .rows
            .iter()
            .filter(|row| row.norm.as_deref() == Some(norm))
            .filter_map(|row| row.minimal.as_ref().map(|minimal| (row, minimal)))
            .collect();
        let largest = rows.iter().filter_map(|(_, minimal)| minimal.norms.last()).copied().fold(0.0, f64::max);
        if largest > 0.0 {
            let file = format!("success-{norm}.png");
            let png = figure(&rows, norm, largest).png(&file)?;
            let caption = format!(
                "Success of attacks that look for the smallest perturbation: share of images of which 99 % of the pixels are fooled, \
                 against the radius in {}.",
                labels::norm(norm)
            );
            figures.push(Figure { file, caption, png });
        }
    }
    Ok(figures)
}

fn figure(rows: &[(&Row, &Minimal)], norm: &str, largest: f64) -> Canvas {
    // Names below the chart, one a line.
    let (width, height) = (640.0, 330.0 + 20.0 * rows.len() as f32);
    let mut canvas = Canvas::new(width, height);
    let (left, right, upper, lower) = (60.0, width - 24.0, 46.0, 270.0);
    canvas.text((18.0, 28.0), Text::new(15.0, INK).bold(), "Images fooled (%) against the radius");
    let scale = if norm == "linf" { 255.0 } else { 1.0 };
    let end = largest * scale * 1.05;
    let at = |radius: f64, share: f64| -> Point {
        (left + (radius / end) as f32 * (right - left), lower - share as f32 * (lower - upper))
    };
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let (_, y) = at(0.0, share);
        canvas.rule((left, y), (right, y), 0.5, GRID);
        let style = Text::new(11.0, SOFT).anchor(Anchor::End);
        canvas.text((left - 8.0, y + 4.0), style, &labels::significant(100.0 * share));
    }
    let step = nice_step(end / 6.0);
    for tick in 0..=(end / step) as u32 {
        let (x, _) = at(f64::from(tick) * step, 0.0);
        canvas.rule((x, lower), (x, lower + 4.0), 0.5, SOFT);
        let style = Text::new(11.0, SOFT).anchor(Anchor::Middle);
        canvas.text((x, lower + 18.0), style, &labels::significant(f64::from(tick) * step));
    }
    let unit = if norm == "linf" { "radius in ℓ∞, in units of 1/255" } else { "radius in ℓ2" };
    canvas.text(((left + right) / 2.0, lower + 38.0), Text::new(11.5, SOFT).anchor(Anchor::Middle), unit);
    for (index, (row, minimal)) in rows.iter().enumerate() {
        let (color, dashes) = (COLORS[index % COLORS.len()], DASHES[index / COLORS.len() % DASHES.len()]);
        let mut points = vec![at(0.0, 0.0)];
        for (below, radius) in minimal.norms.iter().enumerate() {
            let share = |count: usize| count as f64 / row.images.max(1) as f64;
            points.push(at(radius * scale, share(below)));
            points.push(at(radius * scale, share(below + 1)));
        }
        points.push(at(end, minimal.at(largest, row.images)));
        canvas.line(&points, 2.0, dashes, color);
        let y = lower + 62.0 + 20.0 * index as f32;
        canvas.line(&[(left, y), (left + 36.0, y)], 2.0, dashes, color);
        let style = Text::new(12.0, INK);
        canvas.text((left + 44.0, y + 4.0), style, &style.fit(&name(row), right - left - 44.0));
    }
    canvas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[(f64, f64)]) -> Minimal {
        Minimal::new(&values.iter().map(|&(norm, success)| Smallest { norm, success }).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn success_rises_with_the_radius_and_images_that_stand_are_infinitely_far() {
        let minimal = found(&[(0.3, 1.0), (0.1, 0.995), (0.2, 0.5), (0.4, 0.99)]);
        assert_eq!((minimal.fooled, &minimal.norms[..]), (3, &[0.1, 0.3, 0.4][..]));
        assert_eq!([0.0, 0.1, 0.2, 0.35, 9.0].map(|radius| minimal.at(radius, 4)), [0.0, 0.25, 0.25, 0.5, 0.75]);
        // 0.1, 0.3, 0.4, ∞.
        assert!((minimal.median_norm.unwrap() - 0.35).abs() < 1e-12);
        assert!((minimal.success - 0.87125).abs() < 1e-12);
        assert_eq!(found(&[(0.1, 1.0), (0.2, 0.5)]).median_norm, None, "half of them stand");
        assert_eq!(found(&[(0.1, 1.0), (0.2, 0.5), (0.3, 1.0)]).median_norm, Some(0.3));
        assert_eq!(found(&[(0.1, 0.0)]).median_norm, None);
        assert_eq!(Minimal::new(&[]), None);
    }
}
