//! How much the seed matters: rows that differ in it alone, side by side.

use fireproof_metrics::Spread;

use crate::layout::{same_model, same_settings, same_threat};
use crate::table::{Line, Table};
use crate::{Row, labels};

/// One experiment over several seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedSpread<'a> {
    /// The row of the lowest seed, which stands for all.
    pub row: &'a Row,
    /// The seeds, ascending.
    pub seeds: Vec<u64>,
    /// Of the pooled pixel accuracy.
    pub pixel_accuracy: Option<Spread>,
    /// Of the pooled mIoU.
    pub miou: Option<Spread>,
}

/// The attacks that were run with at least two seeds, in the order of their first rows; `rows` may come from several runs.
/// A seed that occurs twice counts once.
pub fn spread<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<SeedSpread<'a>> {
    let mut experiments: Vec<Vec<&Row>> = Vec::new();
    for row in rows.into_iter().filter(|row| !row.is_clean()) {
        match experiments.iter_mut().find(|known| same_but_seed(known[0], row)) {
            Some(known) if known.iter().any(|other| other.seed == row.seed) => {}
            Some(known) => known.push(row),
            None => experiments.push(vec![row]),
        }
    }
    experiments.retain(|rows| rows.len() > 1);
    let of = |mut rows: Vec<&'a Row>| {
        rows.sort_by_key(|row| row.seed);
        let spread = |score: fn(&Row) -> Option<f64>| {
            let scores: Option<Vec<f64>> = rows.iter().map(|row| score(row)).collect();
            Spread::of(&scores?)
        };
        SeedSpread {
            row: rows[0],
            seeds: rows.iter().map(|row| row.seed).collect(),
            pixel_accuracy: spread(|row| row.pixel_accuracy),
            miou: spread(|row| row.miou),
        }
    };
    experiments.into_iter().map(of).collect()
}

/// [`spread`] as a table: mean, standard deviation, lowest and highest in percent; `None` where no attack has two seeds.
pub fn table(spreads: &[SeedSpread]) -> Option<Table> {
    if spreads.is_empty() {
        return None;
    }
    let line = |spread: &SeedSpread| {
        let four = |spread: Option<Spread>| {
            let value = |of: fn(Spread) -> Option<f64>| spread.and_then(of);
            [value(|s| Some(s.mean)), value(|s| s.deviation), value(|s| Some(s.low)), value(|s| Some(s.high))]
        };
        let row = spread.row;
        let data = format!("{}, {}", row.dataset, row.split);
        let attack = labels::attack(row);
        let seeds = spread.seeds.len().to_string();
        Line {
            labels: vec![row.model.clone(), row.training.clone(), data, labels::threat(row), attack, seeds],
            swatch: None,
            scores: four(spread.miou).into_iter().chain(four(spread.pixel_accuracy)).collect(),
            summary: false,
        }
    };
    let head = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Some(Table {
        title: "Spread over seeds (%)".into(),
        label_head: head(&["Model", "Training", "Data", "Threat", "Attack", "Seeds"]),
        score_head: head(&["mIoU", "± mIoU", "mIoU min", "mIoU max", "aAcc", "± aAcc", "aAcc min", "aAcc max"]),
        lines: spreads.iter().map(line).collect(),
        notes: vec!["±: standard deviation over seeds, n − 1 in the denominator. aAcc: pixel accuracy, pooled.".into()],
        bold_best: false,
        tinted: false,
    })
}

fn same_but_seed(a: &Row, b: &Row) -> bool {
    same_model(a, b) && same_threat(a, b) && same_settings(a, b) && a.steps == b.steps && a.images == b.images
}
