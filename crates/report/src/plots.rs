//! The convergence figure of the SegPGD paper: a score against the attack's iterations, one small chart per model.
//!
//! The charts of a figure share the axis of iterations; each has its own axis of scores, because the figure is about how the
//! attacks differ on one model, which a scale wide enough for all models would hide. Attacks differ by colour (Okabe and Ito's
//! palette, which colour-blind readers can tell apart), by marker and by dash, so that the figure survives a grey printer.

use crate::canvas::{Anchor, Canvas, Color, Point, Text};
use crate::layout::Group;
use crate::{ReportError, Results, Row, labels};

const INK: Color = [33, 37, 41];
const SOFT: Color = [98, 106, 115];
const GRID: Color = [228, 231, 235];
const AXIS: Color = [140, 147, 155];

const CHART_WIDTH: f32 = 400.0;
const CHART_HEIGHT: f32 = 330.0;
/// Room inside a chart around its plotting area: left, top, right, bottom.
const INSET: (f32, f32, f32, f32) = (46.0, 66.0, 22.0, 50.0);
const MARGIN: f32 = 18.0;

/// What a curve shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// Mean IoU: the attack's aim is down.
    Miou,
    /// Share of wrong pixels: the attack's aim is up.
    MisRatio,
}

impl Score {
    /// Both, in the order of the paper.
    pub const ALL: [Self; 2] = [Self::Miou, Self::MisRatio];

    /// As in a file's name.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Miou => "miou",
            Self::MisRatio => "misratio",
        }
    }

    /// As on an axis.
    pub fn name(self) -> &'static str {
        match self {
            Self::Miou => "mIoU",
            Self::MisRatio => "MisRatio",
        }
    }

    /// The row's value in percent.
    fn percent(self, row: &Row) -> Option<f64> {
        match self {
            Self::Miou => row.miou.map(|score| 100.0 * score),
            Self::MisRatio => row.pixel_accuracy.map(|score| 100.0 * (1.0 - score)),
        }
    }
}

/// A picture and what it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// The file's name, with `.png`.
    pub file: String,
    /// What it shows, in a sentence.
    pub caption: String,
    /// The file.
    pub png: Vec<u8>,
}

/// One figure per group and score; none for a group whose attacks were read at one number of steps only.
///
/// # Errors
/// When a PNG cannot be encoded.
pub fn curves(results: &Results) -> Result<Vec<Figure>, ReportError> {
    let groups: Vec<Group> =
        Group::split(&results.rows).into_iter().filter(|group| !group.series().is_empty()).collect();
    let mut figures = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        for score in Score::ALL {
            let number = if groups.len() > 1 { format!("-{}", index + 1) } else { String::new() };
            let file = format!("curves-{}{number}.png", score.slug());
            let png = figure(group, score).png(&file)?;
            let aim = match score {
                Score::Miou => "mIoU (lower is a stronger attack)",
                Score::MisRatio => "MisRatio, the share of wrong pixels (higher is a stronger attack),",
            };
            figures.push(Figure {
                file,
                caption: format!(
                    "{aim} against iterations on {}; each chart has its own vertical scale.",
                    group.title()
                ),
                png,
            });
        }
    }
    Ok(figures)
}

/// Draws one figure.
fn figure(group: &Group, score: Score) -> Canvas {
    let series = group.series();
    let lines: Vec<&&Row> = group
        .lines()
        .iter()
        .filter(|line| series.iter().any(|attack| !group.points(line, attack).is_empty()))
        .collect();
    let columns = lines.len().clamp(1, 3);
    let legend = Legend::new(group, &series, columns as f32 * CHART_WIDTH);
    let top = 40.0 + legend.height();
    let (width, height) = (
        columns as f32 * CHART_WIDTH + 2.0 * MARGIN,
        lines.len().div_ceil(columns) as f32 * CHART_HEIGHT + top + MARGIN,
    );
    let mut canvas = Canvas::new(width.max(520.0), height);
    let title = Text::new(15.0, INK).bold();
    let text = format!("{} against attack iterations", score.name());
    canvas.text((MARGIN, 28.0), title, &text);
    let after = MARGIN + title.width(&text) + 12.0;
    let data = Text::new(12.0, SOFT);
    let room = width.max(520.0) - after - MARGIN;
    canvas.text((after, 28.0), data, &data.fit(&group.title(), room));
    legend.draw(&mut canvas, (MARGIN, 52.0));
    let mut steps: Vec<u32> = series
        .iter()
        .flat_map(|attack| lines.iter().flat_map(|line| group.points(line, attack)))
        .map(|row| row.steps)
        .collect();
    steps.sort_unstable();
    steps.dedup();
    for (index, line) in lines.iter().enumerate() {
        let place = (MARGIN + (index % columns) as f32 * CHART_WIDTH, top + (index / columns) as f32 * CHART_HEIGHT);
        let axes = Axes::new(group, line, &series, &steps, score);
        chart(&mut canvas, place, group, line, &series, &axes, score);
    }
    canvas
}

/// One chart, its upper left corner at `(x, y)`.
fn chart(canvas: &mut Canvas, (x, y): Point, group: &Group, line: &Row, series: &[&Row], axes: &Axes, score: Score) {
    let (left, right) = (x + INSET.0, x + CHART_WIDTH - INSET.2);
    let (upper, lower) = (y + INSET.1, y + CHART_HEIGHT - INSET.3);
    let label = group.line_label(line);
    let mut name = Text::new(13.5, INK).bold();
    // The end of a long name is what tells models apart: smaller letters before fewer.
    while name.size > 9.0 && name.width(&label) > right - left {
        name.size -= 0.5;
    }
    canvas.text((left, y + 26.0), name, &name.fit(&label, right - left));
    let clean = group.clean(line).and_then(|row| score.percent(row));
    let unit = format!("{} (%)", score.name());
    canvas.text((left, y + 46.0), Text::new(11.5, SOFT), &unit);
    if let Some(clean) = clean {
        let style = Text::new(11.5, SOFT).anchor(Anchor::End);
        canvas.text((right, y + 46.0), style, &format!("clean: {clean:.1} %"));
    }

    let at = |(u, v): (f32, f32)| (left + u * (right - left), lower - v * (lower - upper));
    for &tick in &axes.vertical {
        let (_, height) = at((0.0, axes.v(tick)));
        canvas.rule(
            (left, height),
            (right, height),
            if tick == axes.low { 1.0 } else { 0.5 },
            if tick == axes.low { AXIS } else { GRID },
        );
        let style = Text::new(11.0, SOFT).anchor(Anchor::End);
        canvas.text((left - 8.0, height + 4.0), style, &labels::significant(tick));
    }
    let style = Text::new(11.0, SOFT).anchor(Anchor::Middle);
    let mut free_from = f32::MIN;
    for &steps in &axes.horizontal {
        let (place, _) = at((axes.u(steps), 0.0));
        canvas.rule((place, lower), (place, lower + 4.0), 0.5, AXIS);
        let text = steps.to_string();
        let half = style.width(&text) / 2.0;
        if place - half >= free_from {
            canvas.text((place, lower + 18.0), style, &text);
            free_from = place + half + 5.0;
        }
    }
    canvas.text(
        ((left + right) / 2.0, lower + 37.0),
        Text::new(11.5, SOFT).anchor(Anchor::Middle),
        "attack iterations (logarithmic)",
    );

    for (index, attack) in series.iter().enumerate() {
        let value = |row: &&Row| score.percent(row).map(|value| at((axes.u(row.steps), axes.v(value))));
        let points: Vec<Point> = group.points(line, attack).iter().filter_map(value).collect();
        let style = Style::of(index);
        canvas.line(&points, 2.0, style.dashes, style.color);
        points.iter().for_each(|&place| style.marker(canvas, place));
    }
}

/// A chart's axes.
struct Axes {
    low: f64,
    high: f64,
    vertical: Vec<f64>,
    horizontal: Vec<u32>,
}

impl Axes {
    fn new(group: &Group, line: &Row, series: &[&Row], steps: &[u32], score: Score) -> Self {
        let rows = series.iter().flat_map(|attack| group.points(line, attack));
        let values: Vec<f64> = rows.filter_map(|row| score.percent(row)).collect();
        let least = values.iter().copied().fold(f64::MAX, f64::min).min(100.0);
        let most = values.iter().copied().fold(0.0, f64::max);
        // From zero where zero is near; elsewhere it would flatten the curves.
        let low = if least > 0.4 * most { least } else { 0.0 };
        let step = nice_step((most - low).max(1.0) / 5.0);
        let (low, high) = ((low / step).floor() * step, ((most / step).ceil() * step).max(step));
        let high = if high - low < step / 2.0 { low + step } else { high };
        let count = ((high - low) / step).round() as usize;
        let vertical = (0..=count).map(|index| low + index as f64 * step).collect();
        Self { low, high, vertical, horizontal: steps.to_vec() }
    }

    /// Steps → 0..=1, leaving room at both ends for markers.
    fn u(&self, steps: u32) -> f32 {
        let (first, last) = (self.horizontal[0], *self.horizontal.last().expect("a series has steps"));
        let place = |steps: u32| f64::from(steps.max(1)).ln();
        let share = (place(steps) - place(first)) / (place(last) - place(first)).max(1e-9);
        0.04 + 0.92 * share as f32
    }

    /// Percent → 0..=1.
    fn v(&self, value: f64) -> f32 {
        ((value - self.low) / (self.high - self.low)) as f32
    }
}

/// 1, 2, 5 or 10 times a power of ten, at least `least`.
pub(crate) fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|&step| step >= least * 0.999)
        .unwrap_or(10.0 * power)
}

/// The attacks' signs, above the charts where they cover nothing.
struct Legend {
    entries: Vec<(f32, f32, String)>,
    rows: usize,
}

impl Legend {
    const ROW: f32 = 22.0;

    fn new(group: &Group, series: &[&Row], width: f32) -> Self {
        let (mut x, mut row) = (0.0, 0);
        let mut entries = Vec::new();
        for attack in series {
            let label = group.series_label(attack);
            let needed = 44.0 + Text::new(12.5, INK).width(&label) + 24.0;
            if x > 0.0 && x + needed > width {
                (x, row) = (0.0, row + 1);
            }
            entries.push((x, row as f32 * Self::ROW, label));
            x += needed;
        }
        Self { entries, rows: row + 1 }
    }

    fn height(&self) -> f32 {
        self.rows as f32 * Self::ROW
    }

    fn draw(&self, canvas: &mut Canvas, (left, top): Point) {
        for (index, (x, y, label)) in self.entries.iter().enumerate() {
            let style = Style::of(index);
            let (x, y) = (left + x, top + y);
            canvas.line(&[(x, y), (x + 36.0, y)], 2.0, style.dashes, style.color);
            style.marker(canvas, (x + 18.0, y));
            canvas.text((x + 44.0, y + 4.5), Text::new(12.5, INK), label);
        }
    }
}

/// How an attack's curve looks.
struct Style {
    color: Color,
    dashes: &'static [f32],
    shape: usize,
}

impl Style {
    fn of(index: usize) -> Self {
        const COLORS: [Color; 7] =
            [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [40, 40, 40], [86, 180, 233], [230, 159, 0]];
        const DASHES: [&[f32]; 4] = [&[], &[7.0, 4.5], &[1.5, 4.5], &[9.0, 4.0, 1.5, 4.0]];
        Self { color: COLORS[index % COLORS.len()], dashes: DASHES[index % DASHES.len()], shape: index % 5 }
    }

    /// A marker with a white rim, so that it stands out where curves cross.
    fn marker(&self, canvas: &mut Canvas, place: Point) {
        canvas.fill(&[self.outline(place, 5.4)], [255; 3]);
        canvas.fill(&[self.outline(place, 4.1)], self.color);
    }

    fn outline(&self, (x, y): Point, radius: f32) -> Vec<Point> {
        // Corners, the first one's angle, and the radius that makes all shapes look equally large.
        let (corners, turn, size): (usize, f32, f32) = match self.shape {
            0 => (32, 0.0, 1.0),
            1 => (4, 0.125, 1.22),
            2 => (3, 0.75, 1.3),
            3 => (4, 0.0, 1.25),
            _ => (3, 0.25, 1.3),
        };
        let corner = |index: usize| ((index as f32 / corners as f32 + turn) * std::f32::consts::TAU).sin_cos();
        (0..corners).map(corner).map(|(sin, cos)| (x + radius * size * cos, y + radius * size * sin)).collect()
    }
}
