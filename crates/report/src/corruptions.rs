//! The corruption rows: one table by kind and severity instead of a column for each.

use crate::layout::same_model;
use crate::table::{Line, Table};
use crate::{Results, Row};

/// Whether the row is about a kind and severity of corruption.
pub(crate) fn is(row: &Row) -> bool {
    row.attack == ATTACK && row.options.contains_key("kind") && row.options.contains_key("severity")
}

const ATTACK: &str = "corruption";

/// The mean of what is there.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// mIoU by kind and severity with the means over severities and over all, a table for each model and seed.
pub fn tables(results: &Results) -> Vec<Table> {
    let rows: Vec<&Row> = results.rows.iter().filter(|row| is(row)).collect();
    let mut firsts: Vec<&Row> = Vec::new();
    for row in &rows {
        if !firsts.iter().any(|first| same_model(first, row) && first.seed == row.seed) {
            firsts.push(row);
        }
    }
    let several = firsts.iter().any(|a| firsts.iter().any(|b| same_model(a, b) && a.seed != b.seed));
    let table = |first: &&Row| {
        let own: Vec<&Row> =
            rows.iter().filter(|row| same_model(first, row) && row.seed == first.seed).copied().collect();
        let distinct = |name: &str| {
            let mut values: Vec<&String> = Vec::new();
            own.iter().filter_map(|row| row.options.get(name)).for_each(|value| {
                if !values.contains(&value) {
                    values.push(value);
                }
            });
            values
        };
        let (kinds, mut severities) = (distinct("kind"), distinct("severity"));
        severities.sort();
        let miou = |kind: &String, severity: &String| {
            let of = |row: &&&Row| row.options["kind"] == *kind && row.options["severity"] == *severity;
            own.iter().find(of).and_then(|row| row.miou)
        };
        let line = |kind: &&String| {
            let mut scores: Vec<Option<f64>> = severities.iter().map(|severity| miou(kind, severity)).collect();
            scores.push(mean(scores.clone().into_iter()));
            Line { labels: vec![(*kind).clone()], swatch: None, scores, summary: false }
        };
        let mut lines: Vec<Line> = kinds.iter().map(line).collect();
        let columns = severities.len() + 1;
        let means = (0..columns).map(|column| mean(lines.iter().map(|line| line.scores[column]))).collect();
        lines.push(Line { labels: vec!["Mean".to_owned()], swatch: None, scores: means, summary: true });
        let clean = results.rows.iter().find(|row| row.is_clean() && same_model(first, row)).and_then(|row| row.miou);
        let clean = clean.map_or(String::new(), |clean| format!(" Clean: {:.2}.", 100.0 * clean));
        let seed = if several { format!(", seed {}", first.seed) } else { String::new() };
        Table {
            title: format!(
                "mIoU (%) under corruption of {} · {} on {}, {}, {} images{seed}",
                first.model, first.training, first.dataset, first.split, first.images
            ),
            label_head: vec!["Kind".to_owned()],
            score_head: severities.iter().map(|s| format!("severity {s}")).chain(["mean".to_owned()]).collect(),
            lines,
            notes: vec![format!("Each mIoU pools the images of one kind and severity; means are over those.{clean}")],
            bold_best: false,
            tinted: true,
        }
    };
    firsts.iter().map(table).collect()
}
