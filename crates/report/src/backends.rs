//! The same plan on several devices, or in several precisions: whether the numbers agree, and what each takes.

use crate::layout::{same_column, same_data, same_threat};
use crate::table::{Line, Table};
use crate::{Row, labels};

/// How far scores of clean images may lie apart between devices, as fractions: a pixel whose two best logits are equal but for
/// rounding may go either way.
pub const CLEAN_TOLERANCE: f64 = 0.001;

/// The same under attack: a step follows signs, and a sign that rounding decides moves a pixel by the whole step.
pub const ATTACKED_TOLERANCE: f64 = 0.01;

/// A row beside that of the plan's first device, which it repeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison<'a> {
    /// The row of the first device and precision.
    pub reference: &'a Row,
    /// The same images, model and attack elsewhere.
    pub row: &'a Row,
}

impl Comparison<'_> {
    /// How far the pixel accuracies lie apart.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        Some((self.row.pixel_accuracy? - self.reference.pixel_accuracy?).abs())
    }

    /// How far the mIoUs lie apart.
    pub fn miou(&self) -> Option<f64> {
        Some((self.row.miou? - self.reference.miou?).abs())
    }

    /// Whether two devices agree in pixel accuracy; `None` for another precision, which may move the numbers.
    pub fn agrees(&self) -> Option<bool> {
        let tolerance = if self.row.is_clean() { CLEAN_TOLERANCE } else { ATTACKED_TOLERANCE };
        let same = self.row.precision == self.reference.precision;
        same.then(|| self.pixel_accuracy().is_none_or(|difference| difference <= tolerance))
    }
}

/// The rows that repeat an earlier one on another device or in another precision.
pub fn compare(rows: &[Row]) -> Vec<Comparison<'_>> {
    let repeats = |a: &Row, b: &Row| {
        (a.model == b.model && a.training == b.training && a.weights == b.weights && a.images == b.images)
            && same_data(a, b)
            && same_threat(a, b)
            && same_column(a, b)
    };
    let of = |(index, row): (usize, &'_ Row)| {
        let reference = rows[..index].iter().position(|earlier| repeats(earlier, row))?;
        Some((reference, index))
    };
    let pairs: Vec<(usize, usize)> = rows.iter().enumerate().filter_map(of).collect();
    pairs.into_iter().map(|(reference, row)| Comparison { reference: &rows[reference], row: &rows[row] }).collect()
}

/// [`compare`] as a table, a line per row and device; `None` where nothing was run twice.
pub fn table(rows: &[Row]) -> Option<Table> {
    let comparisons = compare(rows);
    if comparisons.is_empty() {
        return None;
    }
    let line = |row: &Row, verdict: &str, differences: [Option<f64>; 2]| {
        let seconds = row.seconds / row.images.max(1) as f64;
        let threat = if row.is_clean() { String::new() } else { labels::threat(row) };
        let place = [labels::attack(row), threat, row.device.clone(), row.precision.clone()];
        let names = [row.model.clone(), row.training.clone()].into_iter().chain(place);
        Line {
            labels: names.chain([labels::significant(seconds), verdict.to_owned()]).collect(),
            swatch: None,
            scores: [row.miou, row.pixel_accuracy].into_iter().chain(differences).collect(),
            summary: false,
        }
    };
    let mut lines = Vec::new();
    for reference in rows {
        let others: Vec<_> = comparisons.iter().filter(|c| std::ptr::eq(c.reference, reference)).collect();
        if others.is_empty() {
            continue;
        }
        lines.push(Line { summary: true, ..line(reference, "reference", [None, None]) });
        lines.extend(others.into_iter().map(|comparison| {
            let verdict = match comparison.agrees() {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            line(comparison.row, verdict, [comparison.miou(), comparison.pixel_accuracy()])
        }));
    }
    let head = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Some(Table {
        title: "Devices and precisions (%)".into(),
        label_head: head(&["Model", "Training", "Attack", "Threat", "Device", "Precision", "s/image", "Agrees"]),
        score_head: head(&["mIoU", "aAcc", "|Δ mIoU|", "|Δ aAcc|"]),
        lines,
        notes: vec![format!(
            "Agrees: the pixel accuracy (aAcc) lies within {} points of the first device's, {} for clean images; another precision \
             is not held to that.",
            100.0 * ATTACKED_TOLERANCE,
            100.0 * CLEAN_TOLERANCE
        )],
        bold_best: false,
        tinted: false,
    })
}

#[cfg(test)]
mod tests {
    use fireproof_metrics::ClassCounts;

    use super::*;
    use crate::{Format, RowKey};

    fn row(device: &str, precision: &str, attack: &str, right: u64) -> Row {
        let attacked = attack != "none";
        let key = RowKey {
            model: "unet".into(),
            training: "standard".into(),
            weights: "w".into(),
            dataset: "scenes".into(),
            split: "test".into(),
            device: device.into(),
            precision: precision.into(),
            attack: attack.into(),
            norm: attacked.then(|| "linf".into()),
            epsilon: attacked.then_some(8.0 / 255.0),
            alpha: attacked.then_some(0.01),
            steps: 3 * u32::from(attacked),
            restarts: u32::from(attacked),
            iterate: attacked.then(|| "last".into()),
            start: attacked.then(|| "random".into()),
            targeted: false,
            options: Default::default(),
            seed: 0,
        };
        let counts = ClassCounts::from_parts(vec![right], vec![10_000], vec![right]).unwrap();
        Row::new(&key, 2, &counts, (2, 0), 4.0)
    }

    #[test]
    fn devices_agree_within_the_tolerance_and_a_larger_gap_is_told() {
        let rows = [
            row("flex", "f32", "none", 9000),
            row("flex", "f32", "pgd", 3000),
            row("wgpu", "f32", "none", 9005),
            row("wgpu", "f32", "pgd", 3200),
            row("wgpu", "f16", "pgd", 4000),
        ];
        let found: Vec<_> = compare(&rows).iter().map(|c| (c.reference.device.as_str(), c.agrees())).collect();
        assert_eq!(found, [("flex", Some(true)), ("flex", Some(false)), ("flex", None)]);
        let text = table(&rows).unwrap().render(Format::Markdown);
        assert!(text.contains("| NO |") && text.contains("| reference |") && text.contains("| 2 |"), "{text}");
    }

    #[test]
    fn one_device_is_no_comparison() {
        assert_eq!(table(&[row("flex", "f32", "none", 9000), row("flex", "f32", "pgd", 3000)]), None);
    }
}
