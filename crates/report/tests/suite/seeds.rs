use fireproof_report::{Format, Results, Row, RowKey, html, seeds};

use crate::fixtures::{key, run};
use crate::tables::row;

fn rows() -> Vec<Row> {
    let of = |seed, share| row(&RowKey { seed, ..key("standard", "pgd", 10) }, share);
    let other = row(&RowKey { seed: 9, ..key("standard", "pgd", 3) }, 50);
    // IoU s / (200 − s) of one class in two; out of order, with a seed that comes twice.
    vec![row(&key("standard", "none", 0), 90), of(8, 40), other, of(7, 20), of(9, 60), of(8, 40)]
}

#[test]
fn rows_that_differ_in_their_seed_alone_give_mean_deviation_and_range() {
    let rows = rows();
    let spreads = seeds::spread(&rows);
    assert_eq!(spreads.len(), 1);
    assert_eq!((spreads[0].seeds.as_slice(), spreads[0].row.seed), (&[7, 8, 9][..], 7));
    let accuracy = spreads[0].pixel_accuracy.unwrap();
    assert!((accuracy.mean - 0.2).abs() < 1e-12 && (accuracy.deviation.unwrap() - 0.1).abs() < 1e-12);
    assert_eq!((accuracy.low, accuracy.high, accuracy.runs), (0.1, 0.3, 3));
    let text = seeds::table(&spreads).unwrap().render(Format::Markdown);
    assert!(text.contains("| unet | standard | scenes, test | ℓ∞ ε = 8/255 | PGD10 | 3 |"), "{text}");
    assert!(text.contains("| 20.00 | 10.00 | 10.00 | 30.00 |"), "{text}");
    assert!(html::page(&Results::new(run(), rows), &[], &[], &[]).contains("<h2>Spread over seeds</h2>"));
}

#[test]
fn other_settings_or_other_images_are_no_other_seed() {
    let base = row(&key("standard", "pgd", 10), 20);
    let differs = |change: &dyn Fn(&mut Row)| {
        let mut other = base.clone();
        other.seed = 8;
        change(&mut other);
        seeds::spread([&base, &other]).is_empty()
    };
    assert!(!differs(&|_| ()));
    assert!(differs(&|row| row.images = 3));
    assert!(differs(&|row| row.epsilon = Some(0.03)));
    assert!(differs(&|row| row.alpha = Some(0.02)));
    assert!(differs(&|row| row.steps = 20));
    assert!(differs(&|row| row.weights = "other".into()));
    assert!(differs(&|row| row.seed = 7));
    assert_eq!(seeds::table(&[]), None);
}
