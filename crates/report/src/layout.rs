//! Which rows stand together: one group per data set and threat, a line per model, a column per attack.

use crate::{Row, corruptions, labels};

/// A label column's name, and how a row fills it.
type Qualifier = (&'static str, fn(&Row) -> &str);

/// Rows that are compared with one another: same data, same norm and radius. Clean rows belong to every group of their data.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    rows: Vec<&'a Row>,
    lines: Vec<&'a Row>,
    columns: Vec<&'a Row>,
}

impl<'a> Group<'a> {
    /// Splits rows into groups, keeping the order of their first rows.
    pub fn split(rows: &'a [Row]) -> Vec<Self> {
        // Seventy-five columns of corruptions have tables of their own.
        let rows: Vec<&Row> = rows.iter().filter(|row| !corruptions::is(row)).collect();
        let mut attacked: Vec<&Row> = Vec::new();
        let mut clean: Vec<&Row> = Vec::new();
        for &row in &rows {
            let firsts = if row.is_clean() { &mut clean } else { &mut attacked };
            if !firsts.iter().any(|first| same_data(first, row) && same_threat(first, row)) {
                firsts.push(row);
            }
        }
        clean.retain(|first| !attacked.iter().any(|other| same_data(first, other)));
        let firsts = rows.iter().filter(|row| attacked.iter().chain(&clean).any(|first| std::ptr::eq(*first, **row)));
        firsts.map(|first| Self::of(&rows, first)).collect()
    }

    fn of(rows: &[&'a Row], first: &Row) -> Self {
        let belongs = |row: &&Row| same_data(first, row) && (row.is_clean() || same_threat(first, row));
        let rows: Vec<&Row> = rows.iter().copied().filter(belongs).collect();
        let (mut lines, mut columns): (Vec<&Row>, Vec<&Row>) = (Vec::new(), Vec::new());
        for row in &rows {
            if !lines.iter().any(|line| same_line(line, row)) {
                lines.push(row);
            }
            if !columns.iter().any(|column| same_column(column, row)) {
                columns.push(row);
            }
        }
        columns.sort_by_key(|column| !column.is_clean());
        Self { rows, lines, columns }
    }

    /// One row per model, standing for its line.
    pub fn lines(&self) -> &[&'a Row] {
        &self.lines
    }

    /// One row per attack, standing for its column; clean first.
    pub fn columns(&self) -> &[&'a Row] {
        &self.columns
    }

    /// All rows of the group.
    pub fn rows(&self) -> &[&'a Row] {
        &self.rows
    }

    /// The columns in blocks that fit on a page: clean comes first in each, and the steps of one attack stay together.
    pub fn blocks(&self) -> Vec<Vec<&'a Row>> {
        self.in_blocks(&self.columns)
    }

    /// As [`Self::blocks`], each attack at its largest number of steps only.
    pub fn final_blocks(&self) -> Vec<Vec<&'a Row>> {
        let last =
            |column: &&&Row| !self.columns.iter().any(|other| same_series(other, column) && other.steps > column.steps);
        self.in_blocks(&self.columns.iter().filter(last).copied().collect::<Vec<_>>())
    }

    /// Splits columns where a table would be wider than a page, between attacks as long as one attack fits.
    fn in_blocks(&self, columns: &[&'a Row]) -> Vec<Vec<&'a Row>> {
        /// Characters on a line of a printed page, with two between columns.
        const PAGE: usize = 116;
        let wide = |text: &str, least: usize| text.chars().count().max(least) + 2;
        let names: usize = (0..self.line_head().len())
            .map(|index| self.lines.iter().map(|line| wide(&self.line_labels(line)[index], 8)).max().unwrap_or(0))
            .sum();
        let width = |columns: &[&Row]| -> usize {
            names + columns.iter().map(|column| wide(&self.column_label(column), 5)).sum::<usize>()
        };
        let (clean, attacked): (Vec<&Row>, Vec<&Row>) = columns.iter().partition(|column| column.is_clean());
        let mut blocks = vec![clean.clone()];
        for run in attacked.chunk_by(|a, b| same_series(a, b)) {
            let whole = width(&[&clean, run].concat()) <= PAGE;
            for part in run.chunks(if whole { run.len() } else { 1 }) {
                let block = blocks.last_mut().expect("there is one block at least");
                // However long the names are, a block holds an attack.
                if block.len() == clean.len() || width(&[block.as_slice(), part].concat()) <= PAGE {
                    block.extend(part);
                } else {
                    blocks.push([clean.as_slice(), part].concat());
                }
            }
        }
        blocks
    }

    /// The row where a line and a column meet.
    pub fn cell(&self, line: &Row, column: &Row) -> Option<&'a Row> {
        self.rows.iter().find(|row| same_line(line, row) && same_column(column, row)).copied()
    }

    /// The attacked row of a line with the lowest mIoU.
    pub fn strongest(&self, line: &Row) -> Option<&'a Row> {
        let attacked = self.rows.iter().filter(|row| same_line(line, row) && !row.is_clean() && row.miou.is_some());
        attacked.min_by(|a, b| a.miou.unwrap_or(1.0).total_cmp(&b.miou.unwrap_or(1.0))).copied()
    }

    /// The clean row of a line.
    pub fn clean(&self, line: &Row) -> Option<&'a Row> {
        self.rows.iter().find(|row| same_line(line, row) && row.is_clean()).copied()
    }

    /// The first attacked row, which stands for the threat.
    pub fn threat(&self) -> Option<&'a Row> {
        self.rows.iter().find(|row| !row.is_clean()).copied()
    }

    /// For example `scenes, test, 24 images, ℓ∞ ε = 8/255`.
    pub fn title(&self) -> String {
        let first = self.rows[0];
        let counts: Vec<u64> = self.rows.iter().map(|row| row.images).collect();
        let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
        let images = if least == most { most.to_string() } else { format!("{least} to {most}") };
        let noun = if *most == 1 { "image" } else { "images" };
        let data = format!("{}, {}, {images} {noun}", first.dataset, first.split);
        match self.threat() {
            Some(row) => format!("{data}, {}", labels::threat(row)),
            None => data,
        }
    }

    /// Names of the line's label columns: model and training, and whatever else tells lines apart.
    pub fn line_head(&self) -> Vec<&'static str> {
        ["Model", "Training"].into_iter().chain(self.qualifiers().iter().map(|(name, _)| *name)).collect()
    }

    /// The line's labels, one per name of [`Self::line_head`].
    pub fn line_labels(&self, line: &Row) -> Vec<String> {
        let labels = [line.model.clone(), line.training.clone()];
        labels.into_iter().chain(self.qualifiers().iter().map(|(_, value)| value(line).to_owned())).collect()
    }

    /// The line's labels in one string.
    pub fn line_label(&self, line: &Row) -> String {
        self.line_labels(line).join(" · ")
    }

    fn qualifiers(&self) -> Vec<Qualifier> {
        let all: [Qualifier; 3] =
            [("Weights", |row| &row.weights), ("Device", |row| &row.device), ("Precision", |row| &row.precision)];
        let differs = |(_, value): &Qualifier| {
            self.lines.iter().any(|a| {
                self.lines.iter().any(|b| a.model == b.model && a.training == b.training && value(a) != value(b))
            })
        };
        all.into_iter().filter(differs).collect()
    }

    /// The column's heading: attack and steps, and whatever else tells columns of the same name apart.
    pub fn column_label(&self, column: &Row) -> String {
        let twins = |other: &&&Row| other.attack == column.attack && other.steps == column.steps;
        self.with_qualifiers(labels::attack(column), column, self.columns.iter().filter(twins).copied().collect())
    }

    /// The attacks that were read at several numbers of steps, one row each: the curves of the convergence figure.
    pub fn series(&self) -> Vec<&'a Row> {
        let mut series: Vec<&Row> = Vec::new();
        for column in self.columns.iter().filter(|column| !column.is_clean()) {
            let several = self.columns.iter().any(|other| same_series(other, column) && other.steps != column.steps);
            if several && !series.iter().any(|known| same_series(known, column)) {
                series.push(column);
            }
        }
        series
    }

    /// The points of a series on a line, by steps.
    pub fn points(&self, line: &Row, series: &Row) -> Vec<&'a Row> {
        let wanted = |row: &&&Row| same_line(line, row) && same_series(series, row);
        let mut points: Vec<&Row> = self.rows.iter().filter(wanted).copied().collect();
        points.sort_by_key(|row| row.steps);
        points
    }

    /// The series' name in the legend.
    pub fn series_label(&self, series: &Row) -> String {
        let all = self.series();
        let twins = all.into_iter().filter(|other| other.attack == series.attack).collect();
        self.with_qualifiers(labels::attack_name(&series.attack).to_owned(), series, twins)
    }

    fn with_qualifiers(&self, label: String, row: &Row, twins: Vec<&Row>) -> String {
        let optional = |text: &Option<String>, noun: &str| {
            text.as_ref().map_or(format!("no {noun}"), |text| format!("{text} {noun}"))
        };
        // Only the options that tell twins apart; one that has the attack's default says nothing.
        let own = |row: &Row| {
            let differs =
                |(name, value): &(&String, &String)| twins.iter().any(|twin| twin.options.get(*name) != Some(value));
            let told: Vec<String> =
                row.options.iter().filter(differs).map(|(name, value)| format!("{name} {value}")).collect();
            told.join(", ")
        };
        let all: [&dyn Fn(&Row) -> String; 7] = [
            &own,
            &|row| optional(&row.iterate, "iterate"),
            &|row| optional(&row.start, "start"),
            &|row| format!("{} restarts", row.restarts),
            &|row| row.alpha.map_or("no step size".to_owned(), |alpha| format!("α {}", labels::fraction(alpha))),
            &|row| if row.targeted { "targeted".to_owned() } else { "untargeted".to_owned() },
            &|row| format!("seed {}", row.seed),
        ];
        let told = all.iter().filter(|value| twins.iter().any(|twin| value(twin) != value(row)));
        let told: Vec<String> = told.map(|value| value(row)).filter(|text| !text.is_empty()).collect();
        if told.is_empty() { label } else { format!("{label} ({})", told.join(", ")) }
    }
}

/// Whether two rows are about the same model on the same data and device.
pub(crate) fn same_model(a: &Row, b: &Row) -> bool {
    same_data(a, b) && same_line(a, b)
}

pub(crate) fn same_data(a: &Row, b: &Row) -> bool {
    a.dataset == b.dataset && a.split == b.split
}

pub(crate) fn same_threat(a: &Row, b: &Row) -> bool {
    a.norm == b.norm && a.epsilon == b.epsilon && labels::is_given(a) == labels::is_given(b)
}

pub(crate) fn same_line(a: &Row, b: &Row) -> bool {
    a.model == b.model
        && a.training == b.training
        && a.weights == b.weights
        && a.device == b.device
        && a.precision == b.precision
}

pub(crate) fn same_column(a: &Row, b: &Row) -> bool {
    a.steps == b.steps && same_series(a, b)
}

fn same_series(a: &Row, b: &Row) -> bool {
    // Clean rows have no attack to tell apart, whatever seed they carry.
    a.is_clean() && b.is_clean() || same_settings(a, b) && a.seed == b.seed
}

/// The same attack with the same settings but for threat, steps and seed.
pub(crate) fn same_settings(a: &Row, b: &Row) -> bool {
    a.attack == b.attack
        && a.restarts == b.restarts
        && a.iterate == b.iterate
        && a.start == b.start
        && a.targeted == b.targeted
        && a.alpha == b.alpha
        && a.options == b.options
}
