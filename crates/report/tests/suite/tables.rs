use fireproof_metrics::ClassCounts;
use fireproof_report::{Format, Results, Row, RowKey, Table, table::results_csv};

use crate::fixtures::{key, run};

/// A row of two images whose three classes have the IoU `share`, 0 and none.
pub fn row(key: &RowKey, share: u64) -> Row {
    let counts = ClassCounts::from_parts(vec![share, 0, 0], vec![100, 100, 0], vec![100, 0, 0]).unwrap();
    let steps = u64::from(key.steps);
    Row::new(key, 2, &counts, (2 * (steps + 1), 2 * steps), 0.5)
}

pub fn results() -> Results {
    let rows =
        [("standard", [90, 40, 20, 10]), ("pgd3-at", [80, 60, 50, 50])].into_iter().flat_map(|(training, shares)| {
            let attacks = [("none", 0), ("fgsm", 1), ("pgd", 3), ("pgd", 10)];
            attacks
                .into_iter()
                .zip(shares)
                .map(move |((attack, steps), share)| row(&key(training, attack, steps), share))
        });
    Results::new(run(), rows.collect())
}

fn only(tables: Vec<Table>) -> Table {
    assert_eq!(tables.len(), 1);
    tables.into_iter().next().unwrap()
}

#[test]
fn the_markdown_table_is_the_papers() {
    let expected = "\
**mIoU (%) on scenes, test, 2 images, ℓ∞ ε = 8/255**

| Model | Training | Clean | FGSM | PGD3 | PGD10 |
| :-- | :-- | --: | --: | --: | --: |
| unet | standard | **40.91** | 12.50 | 5.56 | 2.63 |
| unet | pgd3-at | 33.33 | **21.43** | **16.67** | **16.67** |

Threat model: ℓ∞ ε = 8/255; in pixel units, adversarial images within \\[0, 1\\]; step size α = 0.01; start: random; \
scored iterate: last; restarts: 1; untargeted. Void pixels may be perturbed but have no loss and no score.

Forward/backward passes per image: 1/0 for Clean; 2/1 for FGSM; 4/3 for PGD3; 11/10 for PGD10.

Time, summed over the rows: 4 s on flex.
";
    assert_eq!(only(Table::miou(&results(), true)).render(Format::Markdown), expected);
}

#[test]
fn the_latex_table_has_rules_bold_and_escaped_signs() {
    let mut results = results();
    results.rows.iter_mut().for_each(|row| row.model = "u_net & 50%".into());
    let text = only(Table::miou(&results, true)).render(Format::Latex);
    for line in [
        "  \\caption{mIoU (\\%) on scenes, test, 2 images, $\\ell_\\infty$ $\\varepsilon$ = 8/255}",
        "  \\begin{tabular}{llrrrr}",
        "    Model & Training & Clean & FGSM & PGD3 & PGD10 \\\\",
        "    u\\_net \\& 50\\% & standard & \\textbf{40.91} & 12.50 & 5.56 & 2.63 \\\\",
        "    \\bottomrule",
        "\\end{table}",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
    }
    assert!(text.is_ascii(), "pdflatex would stumble over {text}");
}

#[test]
fn the_csv_table_and_the_csv_of_all_rows_quote_what_needs_quotes() {
    let mut results = results();
    results.rows.iter_mut().for_each(|row| row.model = "u,\"net".into());
    results.run.classes[0].name = "road, wet".into();
    let text = only(Table::miou(&results, false)).render(Format::Csv);
    assert_eq!(text.lines().nth(1), Some("\"u,\"\"net\",standard,40.91,12.50,5.56,2.63"));
    let text = results_csv(&results);
    let mut lines = csv::Reader::from_reader(text.as_bytes());
    let head = lines.headers().unwrap().clone();
    let first = lines.records().next().unwrap().unwrap();
    let cell = |name: &str| &first[head.iter().position(|found| found == name).unwrap()];
    assert_eq!((cell("model"), cell("norm"), cell("steps")), ("u,\"net", "", "0"));
    assert_eq!((cell("iou:road, wet"), cell("iou:sky"), cell("iou:pole")), ("0.8181818181818182", "0", ""));
    assert_eq!(text.lines().count(), 9);
}

#[test]
fn classes_without_pixels_show_a_dash_and_the_mean_closes_the_table() {
    let tables = Table::per_class(&results());
    assert_eq!(tables.len(), 2);
    let text = tables[0].render(Format::Markdown);
    for line in [
        "| Class | Clean | FGSM | PGD10 |",
        "| road | 81.82 | 25.00 | 5.26 |",
        "| pole | – | – | – |",
        "| mIoU | 40.91 | 12.50 | 2.63 |",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
    }
}

#[test]
fn equal_names_are_told_apart_by_what_differs() {
    let mut rows = Vec::new();
    for iterate in ["last", "best"] {
        for weights in ["a.safetensors", "b.safetensors"] {
            let key = RowKey { iterate: Some(iterate.into()), weights: weights.into(), ..key("standard", "pgd", 10) };
            rows.push(row(&key, 10));
        }
    }
    let table = only(Table::miou(&Results::new(run(), rows), true));
    assert_eq!(table.label_head, ["Model", "Training", "Weights"]);
    assert_eq!(table.score_head, ["PGD10 (last iterate)", "PGD10 (best iterate)"]);
    assert_eq!(table.lines[1].labels, ["unet", "standard", "b.safetensors"]);
    assert!(table.lines.iter().all(|line| line.scores.iter().all(Option::is_some)));
}

#[test]
fn every_radius_and_data_set_has_its_table_and_clean_rows_stand_in_each() {
    let mut rows = vec![row(&key("standard", "none", 0), 90)];
    for epsilon in [4.0 / 255.0, 0.03] {
        rows.push(row(&RowKey { epsilon: Some(epsilon), ..key("standard", "pgd", 3) }, 10));
    }
    rows.push(row(&RowKey { dataset: "camvid".into(), ..key("standard", "none", 0) }, 50));
    let tables = Table::miou(&Results::new(run(), rows), true);
    let titles: Vec<&str> = tables.iter().map(|table| table.title.as_str()).collect();
    let expected = [
        "mIoU (%) on scenes, test, 2 images, ℓ∞ ε = 4/255",
        "mIoU (%) on scenes, test, 2 images, ℓ∞ ε = 0.03",
        "mIoU (%) on camvid, test, 2 images",
    ];
    assert_eq!(titles, expected);
    assert_eq!(tables[1].score_head, ["Clean", "PGD3"]);
    assert_eq!(tables[2].score_head, ["Clean"]);
}

#[test]
fn many_columns_are_split_between_attacks_with_clean_in_each_part() {
    let mut rows = vec![row(&key("standard", "none", 0), 90)];
    for attack in ["pgd", "segpgd"] {
        rows.extend([3, 5, 7, 10, 20, 40, 100].map(|steps| row(&key("standard", attack, steps), 10)));
    }
    let heads: Vec<Vec<String>> =
        Table::miou(&Results::new(run(), rows), true).into_iter().map(|t| t.score_head).collect();
    assert_eq!(heads.len(), 2);
    assert_eq!((heads[0].len(), heads[1].len()), (8, 8));
    assert_eq!((heads[0][0].as_str(), heads[0][7].as_str()), ("Clean", "PGD100"));
    assert_eq!((heads[1][0].as_str(), heads[1][1].as_str()), ("Clean", "SegPGD3"));
}

#[test]
fn columns_that_do_not_fit_beside_long_names_are_split_and_none_is_lost() {
    let attacks: Vec<(&str, u32)> =
        ["pgd", "segpgd"].into_iter().flat_map(|attack| [3, 5, 7, 10, 20].map(|steps| (attack, steps))).collect();
    let heads = |model: &str| -> Vec<Vec<String>> {
        let rows = [("none", 0)].iter().chain(&attacks);
        let rows =
            rows.map(|(attack, steps)| row(&RowKey { model: model.into(), ..key("standard", attack, *steps) }, 10));
        Table::miou(&Results::new(run(), rows.collect()), true).into_iter().map(|table| table.score_head).collect()
    };
    assert_eq!(heads("unet").len(), 1);
    for length in [60, 90, 200] {
        let heads = heads(&"x".repeat(length));
        assert!(heads.len() > 1 && heads.iter().all(|head| head[0] == "Clean" && head.len() > 1), "{heads:?}");
        let attacked: Vec<&String> = heads.iter().flat_map(|head| &head[1..]).collect();
        assert_eq!(attacked.len(), attacks.len());
    }
}

#[test]
fn the_best_of_one_is_not_bold() {
    let rows = vec![row(&key("standard", "none", 0), 90), row(&key("pgd3-at", "fgsm", 1), 10)];
    let text = only(Table::miou(&Results::new(run(), rows), true)).render(Format::Markdown);
    assert!(text.contains("| unet | standard | 40.91 | – |"), "{text}");
}

#[test]
fn no_rows_give_no_table() {
    assert_eq!(Table::miou(&Results::new(run(), Vec::new()), true), []);
}
