//! Tables as in the SegPGD paper: a line per model and training, a column per attack, mIoU in percent.

use std::fmt::Write;
use std::str::FromStr;

use fireproof_metrics::Interval;

use crate::layout::Group;
use crate::{Class, DiceScores, Results, Row, Run, WorstCase, escape, labels};

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A GitHub-flavoured Markdown table.
    Markdown,
    /// A LaTeX table in the style of the `booktabs` package.
    Latex,
    /// An HTML `<table>` with a caption.
    Html,
    /// Comma-separated values; notes are left out.
    Csv,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "markdown" => Ok(Self::Markdown),
            "latex" => Ok(Self::Latex),
            "html" => Ok(Self::Html),
            "csv" => Ok(Self::Csv),
            other => Err(format!("format {other}, expected markdown, latex, html or csv")),
        }
    }
}

/// A column's heading, and a row's value in it.
type Score = (&'static str, fn(&Row) -> Option<f64>);

/// The columns of [`Table::scores`].
const SCORES: [Score; 14] = [
    ("aAcc", |row| row.pixel_accuracy),
    ("low", |row| row.pixel_accuracy_interval.map(|interval| interval.low)),
    ("high", |row| row.pixel_accuracy_interval.map(|interval| interval.high)),
    ("aAcc/image", |row| row.image_accuracy),
    ("mAcc", |row| row.mean_accuracy),
    ("mIoU", |row| row.miou),
    ("low", |row| row.miou_interval.map(|interval| interval.low)),
    ("high", |row| row.miou_interval.map(|interval| interval.high)),
    ("mIoU/image", |row| row.image_miou),
    ("IoU ratio", |row| row.iou_ratio),
    ("small", |row| row.size_miou.and_then(|sizes| sizes[0])),
    ("medium", |row| row.size_miou.and_then(|sizes| sizes[1])),
    ("large", |row| row.size_miou.and_then(|sizes| sizes[2])),
    ("ECE", |row| row.calibration_error),
];

/// What the headings mean, as far as they occur.
fn score_notes(filled: &[&Score]) -> Vec<String> {
    let notes = [
        ("aAcc", "aAcc: pixel accuracy, mAcc: mean class accuracy, both pooled over images."),
        ("low", "low, high: 95 % bootstrap interval over images of the score before."),
        ("aAcc/image", "/image: mean of the images' own scores."),
        ("IoU ratio", "IoU ratio: mIoU over that of the clean images."),
        ("small", "small, medium, large: mIoU of objects below 1/256, below 1/32 and from 1/32 of the image's pixels."),
        ("ECE", "ECE: expected calibration error."),
    ];
    let there = notes.into_iter().filter(|(name, _)| filled.iter().any(|(head, _)| head == name));
    vec![there.map(|(_, note)| note).collect::<Vec<_>>().join(" ")]
}

/// A table of scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// What is compared on what.
    pub title: String,
    /// Headings of the label columns.
    pub label_head: Vec<String>,
    /// Headings of the score columns.
    pub score_head: Vec<String>,
    /// The lines.
    pub lines: Vec<Line>,
    /// Footnotes, a sentence each.
    pub notes: Vec<String>,
    /// Whether the highest score of each column is set in bold.
    pub bold_best: bool,
    /// Whether cells of the HTML form are tinted by their score.
    pub tinted: bool,
}

/// A line of a [`Table`].
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// One text per label column.
    pub labels: Vec<String>,
    /// A colour to show beside the last label.
    pub swatch: Option<[u8; 3]>,
    /// One fraction in 0..=1 per score column, where there is one.
    pub scores: Vec<Option<f64>>,
    /// Whether a rule sets the line apart from those above.
    pub summary: bool,
}

impl Table {
    /// The main tables: mIoU of every model under every attack, per data set, norm and radius; more columns than fit on a page
    /// go to further tables.
    pub fn miou(results: &Results, bold_best: bool) -> Vec<Self> {
        let mut tables = Vec::new();
        for group in Group::split(&results.rows) {
            let blocks = group.blocks();
            for (index, columns) in blocks.iter().enumerate() {
                let line = |line: &&Row| Line {
                    labels: group.line_labels(line),
                    swatch: None,
                    scores: columns.iter().map(|column| group.cell(line, column).and_then(|row| row.miou)).collect(),
                    summary: false,
                };
                let last = index + 1 == blocks.len();
                tables.push(Self {
                    title: format!("mIoU (%) on {}{}", group.title(), if index > 0 { ", continued" } else { "" }),
                    label_head: group.line_head().into_iter().map(str::to_owned).collect(),
                    score_head: columns.iter().map(|column| group.column_label(column)).collect(),
                    lines: group.lines().iter().map(line).collect(),
                    notes: if last { notes(&group, &results.run) } else { Vec::new() },
                    bold_best,
                    tinted: false,
                });
            }
        }
        tables
    }

    /// IoU of every class, clean and under each attack at its largest number of steps, per model; split like [`Self::miou`].
    pub fn per_class(results: &Results) -> Vec<Self> {
        let mut tables = Vec::new();
        for group in Group::split(&results.rows) {
            let blocks = group.final_blocks();
            for model in group.lines() {
                for (index, block) in blocks.iter().enumerate() {
                    let cell = |column: &&Row| group.cell(model, column).map(|cell| (group.column_label(column), cell));
                    let columns: Vec<(String, &Row)> = block.iter().filter_map(cell).collect();
                    let class = |(index, class): (usize, &Class)| Line {
                        labels: vec![class.name.clone()],
                        swatch: Some(class.color),
                        scores: columns
                            .iter()
                            .map(|(_, row)| row.per_class_iou.get(index).copied().flatten())
                            .collect(),
                        summary: false,
                    };
                    let mean = Line {
                        labels: vec!["mIoU".to_owned()],
                        swatch: None,
                        scores: columns.iter().map(|(_, row)| row.miou).collect(),
                        summary: true,
                    };
                    let continued = if index > 0 { ", continued" } else { "" };
                    tables.push(Self {
                        title: format!("IoU (%) of {} on {}{continued}", group.line_label(model), group.title()),
                        label_head: vec!["Class".to_owned()],
                        score_head: columns.iter().map(|(label, _)| label.clone()).collect(),
                        lines: results.run.classes.iter().enumerate().map(class).chain([mean]).collect(),
                        notes: Vec::new(),
                        bold_best: false,
                        tinted: true,
                    });
                }
            }
        }
        tables
    }

    /// All scores of every row, per model: accuracy pooled and averaged over images, mIoU with its interval, small to large
    /// objects, calibration. Columns without any value are left out.
    pub fn scores(results: &Results) -> Vec<Self> {
        let mut tables = Vec::new();
        for group in Group::split(&results.rows) {
            for model in group.lines() {
                let cell = |column: &&Row| group.cell(model, column).map(|cell| (group.column_label(column), cell));
                let rows: Vec<(String, &Row)> = group.columns().iter().filter_map(cell).collect();
                let filled: Vec<&Score> =
                    SCORES.iter().filter(|(_, score)| rows.iter().any(|(_, row)| score(row).is_some())).collect();
                let line = |(label, row): &(String, &Row)| Line {
                    labels: vec![label.clone()],
                    swatch: None,
                    scores: filled.iter().map(|(_, score)| score(row)).collect(),
                    summary: false,
                };
                tables.push(Self {
                    title: format!("Scores (%) of {} on {}", group.line_label(model), group.title()),
                    label_head: vec!["Attack".to_owned()],
                    score_head: filled.iter().map(|(name, _)| (*name).to_owned()).collect(),
                    lines: rows.iter().map(line).collect(),
                    notes: score_notes(&filled),
                    bold_best: false,
                    tinted: false,
                });
            }
        }
        tables
    }

    /// Dice of every row per slice, per volume and pooled, and per volume of each class, per model; only of rows whose images
    /// are slices of volumes.
    pub fn dice(results: &Results) -> Vec<Self> {
        let mut tables = Vec::new();
        for group in Group::split(&results.rows) {
            for model in group.lines() {
                let cell = |column: &&Row| {
                    let cell = group.cell(model, column)?;
                    Some((group.column_label(column), cell.dice.as_ref()?))
                };
                let rows: Vec<(String, &DiceScores)> = group.columns().iter().filter_map(cell).collect();
                let Some((_, first)) = rows.first() else { continue };
                let line = |(label, dice): &(String, &DiceScores)| {
                    let classes = dice.per_class.iter().skip(1).map(|class| class.volume);
                    Line {
                        labels: vec![label.clone()],
                        swatch: None,
                        scores: [dice.per_slice(), dice.per_volume(), dice.pooled].into_iter().chain(classes).collect(),
                        summary: false,
                    }
                };
                let heads = ["Slice", "Volume", "Pooled"].map(str::to_owned).into_iter();
                let classes = results.run.classes.iter().skip(1).map(|class| class.name.clone());
                tables.push(Self {
                    title: format!("Dice (%) of {} on {}", group.line_label(model), group.title()),
                    label_head: vec!["Attack".to_owned()],
                    score_head: heads.chain(classes).collect(),
                    lines: rows.iter().map(line).collect(),
                    notes: vec![
                        threat_note(&group, &results.run),
                        format!(
                            "Slice, Volume: mean over the slices or the {} volumes that have the class or a prediction of it \
                             (nnU-Net's rule; results.json has the others), then over classes without the background. Pooled: \
                             all slices as one. Columns of classes are per volume.",
                            first.volumes
                        ),
                    ],
                    bold_best: false,
                    tinted: false,
                });
            }
        }
        tables
    }

    /// The worst case over the attacks of each threat, a line per model.
    pub fn worst_cases(results: &Results) -> Vec<Self> {
        let mut tables = Vec::new();
        for group in Group::split(&results.rows) {
            let of_group = |worst: &&WorstCase| {
                let first = worst.rows.first().and_then(|&row| results.rows.get(row));
                first.is_some_and(|first| group.rows().iter().any(|row| std::ptr::eq(*row, first)))
            };
            let worst: Vec<&WorstCase> = results.worst_cases.iter().filter(of_group).collect();
            let Some(&any) = worst.first() else { continue };
            let end = |interval: Option<Interval>, end: fn(Interval) -> f64| interval.map(end);
            let line = |worst: &&WorstCase| {
                let first = &results.rows[worst.rows[0]];
                let clean = group.clean(first);
                Line {
                    labels: group.line_labels(first),
                    swatch: None,
                    scores: vec![
                        clean.and_then(|row| row.image_accuracy),
                        worst.image_accuracy,
                        end(worst.image_accuracy_interval, |interval| interval.low),
                        end(worst.image_accuracy_interval, |interval| interval.high),
                        clean.and_then(|row| row.miou),
                        worst.miou,
                        end(worst.miou_interval, |interval| interval.low),
                        end(worst.miou_interval, |interval| interval.high),
                        worst.iou_ratio,
                    ],
                    summary: false,
                }
            };
            let names: Vec<String> = any.rows.iter().map(|&row| group.column_label(&results.rows[row])).collect();
            let heads = ["aAcc clean", "aAcc", "low", "high", "mIoU clean", "mIoU", "low", "high", "IoU ratio"];
            tables.push(Self {
                title: format!("Worst case (%) on {}", group.title()),
                label_head: group.line_head().into_iter().map(str::to_owned).collect(),
                score_head: heads.map(str::to_owned).into(),
                lines: worst.iter().map(line).collect(),
                notes: vec![format!(
                    "Over {}. aAcc: mean over images of the smallest pixel accuracy; mIoU: pooled, attacks assigned to images \
                     greedily. low, high: 95 % bootstrap interval over images.",
                    names.join(", ")
                )],
                bold_best: false,
                tinted: false,
            });
        }
        tables
    }

    /// The table as text.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Markdown => self.markdown(),
            Format::Latex => self.latex(),
            Format::Html => self.html(),
            Format::Csv => self.csv(),
        }
    }

    /// Whether the score is its column's highest. Compared as shown: what looks equal is marked equally.
    fn is_best(&self, column: usize, score: Option<f64>) -> bool {
        let shown = |score: f64| (score * 1e4).round();
        let scores: Vec<f64> = self.lines.iter().filter_map(|line| line.scores[column]).map(shown).collect();
        let best = scores.iter().copied().fold(f64::MIN, f64::max);
        self.bold_best && scores.len() > 1 && score.is_some_and(|score| shown(score) == best)
    }

    fn cells<'a>(&'a self, line: &'a Line) -> impl Iterator<Item = (String, bool)> + 'a {
        let cell = |(column, &score): (usize, &Option<f64>)| (labels::percent(score), self.is_best(column, score));
        line.scores.iter().enumerate().map(cell)
    }

    fn head(&self) -> impl Iterator<Item = &String> {
        self.label_head.iter().chain(&self.score_head)
    }

    fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n|", escape::markdown(&self.title));
        self.head().for_each(|name| write!(text, " {} |", escape::markdown(name)).expect("memory"));
        text.push_str("\n|");
        self.label_head.iter().for_each(|_| text.push_str(" :-- |"));
        self.score_head.iter().for_each(|_| text.push_str(" --: |"));
        text.push('\n');
        for line in &self.lines {
            text.push('|');
            line.labels.iter().for_each(|label| write!(text, " {} |", escape::markdown(label)).expect("memory"));
            for (cell, best) in self.cells(line) {
                let mark = if best { "**" } else { "" };
                write!(text, " {mark}{cell}{mark} |").expect("memory");
            }
            text.push('\n');
        }
        self.notes.iter().for_each(|note| write!(text, "\n{}\n", escape::markdown(note)).expect("memory"));
        text
    }

    fn latex(&self) -> String {
        let columns = "l".repeat(self.label_head.len()) + &"r".repeat(self.score_head.len());
        let row = |cells: Vec<String>| format!("    {} \\\\\n", cells.join(" & "));
        let mut text = format!(
            "% needs \\usepackage{{booktabs}}\n\\begin{{table}}\n  \\centering\n  \\caption{{{}}}\n  \\begin{{tabular}}{{{columns}}}\n    \\toprule\n",
            escape::latex(&self.title)
        );
        text += &row(self.head().map(|name| escape::latex(name)).collect());
        text += "    \\midrule\n";
        for line in &self.lines {
            if line.summary {
                text += "    \\midrule\n";
            }
            let labels = line.labels.iter().map(|label| escape::latex(label));
            let scores = self.cells(line).map(|(cell, best)| {
                let cell = escape::latex(&cell);
                if best { format!("\\textbf{{{cell}}}") } else { cell }
            });
            text += &row(labels.chain(scores).collect());
        }
        text += "    \\bottomrule\n  \\end{tabular}\n";
        if !self.notes.is_empty() {
            let notes: Vec<String> = self.notes.iter().map(|note| escape::latex(note)).collect();
            write!(text, "\n  \\smallskip\n  {{\\footnotesize {}}}\n", notes.join(" ")).expect("memory");
        }
        text + "\\end{table}\n"
    }

    fn html(&self) -> String {
        let class = if self.tinted { " class=\"tinted\"" } else { "" };
        let mut text = format!(
            "<figure class=\"table\"><div class=\"wide\"><table{class}>\n<caption>{}</caption>\n<thead><tr>",
            escape::html(&self.title)
        );
        for (class, heads) in [(" class=\"label\"", &self.label_head), ("", &self.score_head)] {
            let cell = |name: &String| format!("<th scope=\"col\"{class}>{}</th>", escape::html(name));
            text.extend(heads.iter().map(cell));
        }
        text.push_str("</tr></thead>\n<tbody>\n");
        for line in &self.lines {
            text.push_str(if line.summary { "<tr class=\"summary\">" } else { "<tr>" });
            for (index, label) in line.labels.iter().enumerate() {
                let last = index + 1 == line.labels.len();
                let swatch = line.swatch.filter(|_| last).map(swatch).unwrap_or_default();
                write!(text, "<th scope=\"row\">{swatch}{}</th>", escape::html(label)).expect("memory");
            }
            for ((cell, best), score) in self.cells(line).zip(&line.scores) {
                let tint = score.filter(|_| self.tinted).map(|score| format!(" style=\"--score:{score:.3}\""));
                let (open, close) = if best { ("<b>", "</b>") } else { ("", "") };
                write!(text, "<td{}>{open}{cell}{close}</td>", tint.unwrap_or_default()).expect("memory");
            }
            text.push_str("</tr>\n");
        }
        text.push_str("</tbody>\n</table></div>\n");
        if !self.notes.is_empty() {
            text.push_str("<figcaption>");
            self.notes.iter().for_each(|note| write!(text, "<p>{}</p>", escape::html(note)).expect("memory"));
            text.push_str("</figcaption>");
        }
        text + "</figure>\n"
    }

    fn csv(&self) -> String {
        let line = |line: &Line| line.labels.iter().cloned().chain(self.cells(line).map(|(cell, _)| cell)).collect();
        csv_text(std::iter::once(self.head().cloned().collect()).chain(self.lines.iter().map(line)))
    }
}

/// A small square in a class's colour.
pub(crate) fn swatch([r, g, b]: [u8; 3]) -> String {
    format!("<i class=\"swatch\" style=\"background:#{r:02x}{g:02x}{b:02x}\"></i>")
}

/// `results.csv`: every row of the results, one column per class, an empty cell where there is no value.
pub fn results_csv(results: &Results) -> String {
    let fixed = [
        "model",
        "training",
        "weights",
        "dataset",
        "split",
        "images",
        "device",
        "precision",
        "attack",
        "norm",
        "epsilon",
        "alpha",
        "steps",
        "restarts",
        "iterate",
        "start",
        "targeted",
        "seed",
        "miou",
        "mean_accuracy",
        "pixel_accuracy",
        "forward_passes",
        "backward_passes",
        "seconds",
        "image_accuracy",
        "image_miou",
        "iou_ratio",
        "pixel_accuracy_low",
        "pixel_accuracy_high",
        "miou_low",
        "miou_high",
        "miou_small",
        "miou_medium",
        "miou_large",
        "calibration_error",
        "dice_slice",
        "dice_volume",
        "dice_pooled",
        "images_fooled",
        "apsr",
        "median_norm",
        "options",
    ];
    let classes = results.run.classes.iter().map(|class| format!("iou:{}", class.name));
    let head = fixed.iter().map(|name| (*name).to_owned()).chain(classes).collect();
    let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let line = |row: &Row| {
        let mut cells = vec![
            row.model.clone(),
            row.training.clone(),
            row.weights.clone(),
            row.dataset.clone(),
            row.split.clone(),
            row.images.to_string(),
            row.device.clone(),
            row.precision.clone(),
            row.attack.clone(),
            text(&row.norm),
            number(row.epsilon),
            number(row.alpha),
            row.steps.to_string(),
            row.restarts.to_string(),
            text(&row.iterate),
            text(&row.start),
            row.targeted.to_string(),
            row.seed.to_string(),
            number(row.miou),
            number(row.mean_accuracy),
            number(row.pixel_accuracy),
            row.forward_passes.to_string(),
            row.backward_passes.to_string(),
            row.seconds.to_string(),
        ];
        let [small, medium, large] = row.size_miou.unwrap_or_default();
        let further = [
            row.image_accuracy,
            row.image_miou,
            row.iou_ratio,
            row.pixel_accuracy_interval.map(|interval| interval.low),
            row.pixel_accuracy_interval.map(|interval| interval.high),
            row.miou_interval.map(|interval| interval.low),
            row.miou_interval.map(|interval| interval.high),
            small,
            medium,
            large,
            row.calibration_error,
            row.dice.as_ref().and_then(DiceScores::per_slice),
            row.dice.as_ref().and_then(DiceScores::per_volume),
            row.dice.as_ref().and_then(|dice| dice.pooled),
            row.minimal.as_ref().map(|minimal| minimal.fooled as f64),
            row.minimal.as_ref().map(|minimal| minimal.success),
            row.minimal.as_ref().and_then(|minimal| minimal.median_norm),
        ];
        cells.extend(further.map(number));
        cells.push(row.options.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "));
        cells.extend(row.per_class_iou.iter().copied().map(number));
        cells
    };
    csv_text(std::iter::once(head).chain(results.rows.iter().map(line)))
}

fn csv_text(lines: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    lines.for_each(|line| writer.write_record(line).expect("lines are equally long, memory does not fail"));
    String::from_utf8(writer.into_inner().expect("memory does not fail")).expect("made of strings")
}

fn notes(group: &Group, run: &Run) -> Vec<String> {
    let mut notes = vec![threat_note(group, run)];
    // Columns that cost the same share a clause: with every attack at every number of steps the list is long enough.
    let mut costs: Vec<(String, Vec<String>)> = Vec::new();
    for column in group.columns() {
        let cells: Vec<&Row> = group.lines().iter().filter_map(|line| group.cell(line, column)).collect();
        let range = |value: fn(&Row) -> u64| {
            let means = cells.iter().map(|row| value(row) as f64 / row.images.max(1) as f64);
            let low = labels::significant(means.clone().fold(f64::MAX, f64::min));
            let high = labels::significant(means.fold(0.0, f64::max));
            if low == high { low } else { format!("{low}–{high}") }
        };
        let cost = format!("{}/{}", range(|row| row.forward_passes), range(|row| row.backward_passes));
        let label = group.column_label(column);
        match costs.iter_mut().find(|(known, _)| *known == cost) {
            Some((_, names)) => names.push(label),
            None => costs.push((cost, vec![label])),
        }
    }
    let clauses: Vec<String> = costs.iter().map(|(cost, names)| format!("{cost} for {}", names.join(", "))).collect();
    notes.push(format!("Forward/backward passes per image: {}.", clauses.join("; ")));
    let seconds = group.rows().iter().map(|row| row.seconds).sum();
    notes.push(format!("Time, summed over the rows: {} on {}.", labels::duration(seconds), run.device));
    notes
}

/// The threat model in words.
pub(crate) fn threat_note(group: &Group, run: &Run) -> String {
    let Some(_) = group.threat() else { return "No attack was run.".to_owned() };
    let attacked: Vec<&&Row> = group.rows().iter().filter(|row| !row.is_clean()).collect();
    let mut parts = vec![labels::threat(attacked[0])];
    parts.push(format!(
        "in {} units, adversarial images within [{}, {}]{}",
        run.unit,
        labels::significant(run.range[0]),
        labels::significant(run.range[1]),
        if run.unit == "pixel" { "" } else { " in pixels, each case's mean and deviation held fixed" }
    ));
    let mut tell = |name: &str, value: &dyn Fn(&Row) -> Option<String>| {
        let mut values: Vec<String> = Vec::new();
        for value in attacked.iter().filter_map(|row| value(row)) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        if !values.is_empty() {
            parts.push(format!("{name} {}", values.join(" or ")));
        }
    };
    // A single step is as long as the radius; only the step size of iterations says something.
    tell("step size α =", &|row| row.alpha.filter(|_| row.steps > 1).map(labels::fraction));
    tell("start:", &|row| row.start.clone());
    tell("scored iterate:", &|row| row.iterate.clone());
    tell("restarts:", &|row| Some(row.restarts.to_string()));
    let aims = match (attacked.iter().any(|row| row.targeted), attacked.iter().any(|row| !row.targeted)) {
        (true, true) => "targeted and untargeted",
        (true, false) => "targeted",
        _ => "untargeted",
    };
    format!("Threat model: {}; {aims}. Void pixels may be perturbed but have no loss and no score.", parts.join("; "))
}
