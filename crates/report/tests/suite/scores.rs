//! What rows say beyond the pooled scores, and the worst case over attacks.

use fireproof_metrics::{Calibration, ClassCounts, SizeCounts, bootstrap, per_image, worst_case};
use fireproof_report::table::results_csv;
use fireproof_report::{Format, Header, Record, Records, Results, Table, WorstCase, html};

use crate::fixtures::{header, key, maps, record, run};

fn filled(header: Header, images: u64, change: impl Fn(Record) -> Record) -> Records {
    let mut records = Records::new(header);
    for row in 0..records.header.rows.len() {
        (0..images).for_each(|image| records.insert("records".as_ref(), change(record(row, image))).unwrap());
    }
    records
}

fn counts(records: &Records, row: usize) -> Vec<ClassCounts> {
    records.of_row(row).map(|record| record.counts.clone()).collect()
}

#[test]
fn rows_hold_the_image_means_the_ratio_and_the_intervals_of_their_records() {
    let records = filled(header(), 6, |record| record);
    let rows = records.rows();
    for (index, row) in rows.iter().enumerate() {
        let images = counts(&records, index);
        assert_eq!(row.image_accuracy, per_image::mean(&images, ClassCounts::pixel_accuracy));
        assert_eq!(row.image_miou, per_image::mean(&images, ClassCounts::miou));
        assert_ne!(row.image_miou, row.miou);
        let interval = bootstrap::interval(&images, ClassCounts::miou, 1000, 0.95, 7).unwrap();
        assert_eq!(row.miou_interval, Some(interval));
        assert!(interval.low < row.miou.unwrap() && row.miou.unwrap() < interval.high);
        assert!(row.pixel_accuracy_interval.is_some());
        assert_eq!((row.size_miou, row.calibration_error), (None, None));
    }
    assert_eq!(rows[0].iou_ratio, None);
    assert_eq!(rows[1].iou_ratio, Some(rows[1].miou.unwrap() / rows[0].miou.unwrap()));
}

#[test]
fn a_ratio_of_different_images_and_an_interval_of_one_image_are_left_out() {
    let mut records = filled(header(), 1, |record| record);
    assert_eq!(records.rows()[0].miou_interval, None);
    assert!(records.rows()[1].iou_ratio.is_some());
    records.insert("records".as_ref(), record(0, 5)).unwrap();
    assert_eq!(records.rows()[1].iou_ratio, None);
}

#[test]
fn sizes_and_calibration_are_pooled_when_every_image_has_them() {
    let sizes = |row, image| {
        let (labels, predictions) = maps(row, image);
        SizeCounts::count(3, &labels, &predictions, 8).unwrap()
    };
    let bins = |row, image| {
        let (labels, predictions) = maps(row, image);
        let mut bins = Calibration::new(15);
        bins.add(&labels, &predictions, &[0.8; 40]).unwrap();
        bins
    };
    let with = |record: Record| Record {
        sizes: Some(sizes(record.row, record.image)),
        calibration: (record.row != 1 || record.image != 3).then(|| bins(record.row, record.image)),
        ..record
    };
    let records = filled(header(), 5, with);
    let rows = records.rows();
    for (row, found) in rows.iter().enumerate() {
        let mut all = SizeCounts::new(3).unwrap();
        (0..5).for_each(|image| all.merge(&sizes(row, image)).unwrap());
        assert_eq!(found.size_miou, Some(all.miou()));
    }
    let accuracy = rows[0].pixel_accuracy.unwrap();
    assert!((rows[0].calibration_error.unwrap() - (accuracy - 0.8).abs()).abs() < 1e-6);
    assert_eq!(rows[1].calibration_error, None, "an image of it has none");
    // They survive the file.
    let text = serde_json::to_string(records.iter().next().unwrap()).unwrap();
    assert_eq!(&serde_json::from_str::<Record>(&text).unwrap(), records.iter().next().unwrap());
    let wrong = Record { sizes: Some(SizeCounts::new(4).unwrap()), ..record(0, 9) };
    let error = Records::new(header()).insert("records".as_ref(), wrong).unwrap_err().to_string();
    assert!(error.contains("sizes of 4 classes, expected 3"), "{error}");
}

#[test]
fn a_record_from_before_sizes_is_read_and_written_as_it_was() {
    let text = r#"{"row":0,"image":1,"name":"a","counts":{"intersections":[1,0,0],"labels":[1,0,0],"predictions":[1,0,0]},"forward_passes":1,"backward_passes":0,"seconds":0.5}"#;
    let record: Record = serde_json::from_str(text).unwrap();
    assert_eq!((&record.sizes, &record.calibration), (&None, &None));
    assert_eq!(serde_json::to_string(&record).unwrap(), text);
}

#[test]
fn the_worst_case_takes_the_attacks_of_one_model_threat_and_seed() {
    let mut header = header();
    header.rows.push(key("pgd3-at", "pgd", 10));
    header.rows.push(fireproof_report::RowKey { epsilon: Some(0.5), ..key("standard", "pgd", 10) });
    let given = fireproof_report::RowKey { epsilon: None, norm: None, ..key("standard", "given", 0) };
    header.rows.push(given);
    let records = filled(header, 6, |record| record);
    let found = records.worst_cases(&records.rows());
    let found: Vec<(&[usize], u64)> = found.iter().map(|worst| (worst.rows.as_slice(), worst.images)).collect();
    assert_eq!(found, [(&[1, 2][..], 6)]);
}

#[test]
fn the_worst_case_is_that_of_the_metrics_and_not_above_any_attack() {
    let records = filled(header(), 8, |record| record);
    let rows = records.rows();
    let found = records.worst_cases(&rows);
    let (a, b) = (counts(&records, 1), counts(&records, 2));
    let table = [a.iter().collect::<Vec<_>>(), b.iter().collect()];
    let pixels = worst_case::pixel_accuracy(&table).unwrap().unwrap();
    let miou = worst_case::miou(&table, 7).unwrap().unwrap();
    let WorstCase { image_accuracy, miou: found_miou, worst_on, iou_ratio, miou_interval, .. } = &found[0];
    assert_eq!((*image_accuracy, *found_miou), (Some(pixels.score), Some(miou.score)));
    assert_eq!(worst_on.iter().sum::<u64>(), 8);
    assert_eq!(worst_on[1], pixels.chosen.iter().filter(|&&attack| attack == 1).count() as u64);
    assert_eq!(*iou_ratio, Some(miou.score / rows[0].miou.unwrap()));
    assert!(miou_interval.is_some() && found[0].image_accuracy_interval.is_some());
    for row in &rows[1..] {
        assert!(miou.score <= row.miou.unwrap() && pixels.score <= row.image_accuracy.unwrap());
    }
}

#[test]
fn every_run_of_an_ensemble_takes_part_in_the_worst_case_and_an_ensemble_alone_has_one() {
    let mut header = header();
    header.rows.truncate(2);
    let run = |name: &str, row: usize, image: u64| {
        let (labels, predictions) = maps(row, image);
        fireproof_report::Candidate { name: name.into(), counts: ClassCounts::count(3, &labels, &predictions).unwrap() }
    };
    let with = |record: Record| Record {
        candidates: match record.row {
            0 => Vec::new(),
            _ => vec![run("js", 1, record.image), run("balanced", 2, record.image), run("tsallis", 3, record.image)],
        },
        ..record
    };
    let records = filled(header, 7, with);
    let found = records.worst_cases(&records.rows());
    assert_eq!((found.len(), found[0].rows.as_slice(), found[0].images), (1, &[1][..], 7));
    let counts = |row: usize| -> Vec<ClassCounts> { (0..7).map(|image| run("", row, image).counts).collect() };
    let runs = [counts(1), counts(2), counts(3)];
    let table: Vec<Vec<&ClassCounts>> = runs.iter().map(|run| run.iter().collect()).collect();
    assert_eq!(found[0].miou, worst_case::miou(&table, 7).unwrap().map(|worst| worst.score));
    assert_eq!(found[0].image_accuracy, worst_case::pixel_accuracy(&table).unwrap().map(|worst| worst.score));
    assert_eq!(found[0].worst_on, [7]);
    // Brute force over all assignments of runs to the first five images.
    let few: Vec<Vec<&ClassCounts>> = table.iter().map(|run| run[..5].to_vec()).collect();
    let least = (0..3usize.pow(5)).map(|code| {
        let mut sum = ClassCounts::new(3).unwrap();
        (0..5).for_each(|image| sum.merge(few[code / 3usize.pow(image as u32) % 3][image]).unwrap());
        sum.miou().unwrap()
    });
    let least = least.fold(f64::INFINITY, f64::min);
    let greedy = worst_case::miou(&few, 7).unwrap().unwrap().score;
    assert!(greedy >= least - 1e-12 && greedy - least < 2e-3, "{greedy} {least}");
    // They survive the file, and another number of classes is refused.
    let record = records.of_row(1).next().unwrap();
    assert_eq!(&serde_json::from_str::<Record>(&serde_json::to_string(record).unwrap()).unwrap(), record);
    let mut wrong = Record { image: 99, ..record.clone() };
    wrong.candidates[0].counts = ClassCounts::new(4).unwrap();
    let error = Records::new(records.header.clone()).insert("records".as_ref(), wrong).unwrap_err().to_string();
    assert!(error.contains("4 classes in run js, expected 3"), "{error}");
}

#[test]
fn an_unfinished_run_has_the_worst_case_of_the_images_that_all_attacks_have() {
    let whole = filled(header(), 8, |record| record);
    let mut part = Records::new(header());
    for record in whole.iter().filter(|record| record.row == 1 || record.image < 3) {
        part.insert("records".as_ref(), record.clone()).unwrap();
    }
    let rows = part.rows();
    assert_eq!(part.worst_cases(&rows)[0].images, 3);
    // Without the clean row the others move up in the results, and the indices with them.
    let mut attacked = Records::new(header());
    whole.iter().filter(|record| record.row > 0).for_each(|r| attacked.insert("records".as_ref(), r.clone()).unwrap());
    let rows = attacked.rows();
    assert_eq!(attacked.worst_cases(&rows)[0].rows, [0, 1]);
    assert_eq!(attacked.worst_cases(&rows)[0].iou_ratio, None);
}

#[test]
fn results_files_from_before_are_read_and_new_ones_come_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(Results::FILE);
    let results = Results::from_records(run(), &filled(header(), 4, |record| record));
    results.write(&path).unwrap();
    assert_eq!(Results::read(&path).unwrap(), results);
    // A file as earlier versions wrote it: nothing of the new fields, not even null.
    let old = Results::new(
        run(),
        results
            .rows
            .iter()
            .map(|row| fireproof_report::Row {
                image_accuracy: None,
                image_miou: None,
                iou_ratio: None,
                pixel_accuracy_interval: None,
                miou_interval: None,
                ..row.clone()
            })
            .collect(),
    );
    old.write(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("image_") && !text.contains("interval") && !text.contains("worst"), "{text}");
    assert_eq!(Results::read(&path).unwrap(), old);
    let complaint = |change: &dyn Fn(&mut Results)| {
        let mut results = results.clone();
        change(&mut results);
        results.write(&path).unwrap();
        Results::read(&path).unwrap_err().to_string()
    };
    assert!(complaint(&|r| r.rows[1].image_miou = Some(-0.5)).contains("rows[1] has the score -0.5"));
    assert!(complaint(&|r| r.rows[2].size_miou = Some([None, Some(2.0), None])).contains("rows[2] has the score 2"));
    assert!(complaint(&|r| r.worst_cases[0].rows[0] = 9).contains("worst_cases[0] names row 9, expected one below 3"));
    assert!(complaint(&|r| r.worst_cases[0].miou = Some(55.0)).contains("worst_cases[0] has the score 55"));
}

#[test]
fn an_attack_that_helps_has_a_ratio_above_one_and_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(Results::FILE);
    let mut results = Results::from_records(run(), &filled(header(), 4, |record| record));
    results.rows[1].iou_ratio = Some(1.25);
    results.write(&path).unwrap();
    assert_eq!(Results::read(&path).unwrap().rows[1].iou_ratio, Some(1.25));
}

#[test]
fn tables_csv_and_page_show_the_new_numbers() {
    let results = Results::from_records(run(), &filled(header(), 4, |record| record));
    let percent = |score: Option<f64>| format!("{:.2}", 100.0 * score.unwrap());
    let scores = &Table::scores(&results)[0];
    let heads = ["aAcc", "low", "high", "aAcc/image", "mAcc", "mIoU", "low", "high", "mIoU/image", "IoU ratio"];
    assert_eq!(scores.score_head, heads, "columns without values are left out");
    let text = scores.render(Format::Markdown);
    assert!(text.contains(&percent(results.rows[2].image_miou)) && text.contains("IoU ratio: mIoU over"), "{text}");
    assert!(!text.contains("ECE:") && !text.contains("small,"), "{text}");
    let worst = Table::worst_cases(&results);
    assert_eq!(worst.len(), 1);
    let text = worst[0].render(Format::Markdown);
    assert!(text.contains("**Worst case (%) on scenes, test, 4 images, ℓ∞ ε = 8/255**"), "{text}");
    assert!(text.contains("Over PGD3, PGD10.") && text.contains(&percent(results.worst_cases[0].miou)), "{text}");
    let csv = results_csv(&results);
    let mut lines = csv::Reader::from_reader(csv.as_bytes());
    let head = lines.headers().unwrap().clone();
    let row = lines.records().nth(2).unwrap().unwrap();
    let cell = |name: &str| row[head.iter().position(|found| found == name).unwrap()].to_owned();
    assert_eq!(cell("image_miou"), results.rows[2].image_miou.unwrap().to_string());
    assert_eq!(cell("miou_low"), results.rows[2].miou_interval.unwrap().low.to_string());
    assert_eq!((cell("miou_small"), cell("calibration_error")), (String::new(), String::new()));
    let page = html::page(&results, &[], &[], &[]);
    for heading in ["<h2>Worst case over the attacks</h2>", "<h2>All scores</h2>"] {
        assert!(page.contains(heading), "{heading}");
    }
    assert!(!page.contains("Spread over seeds"));
}

#[test]
fn results_that_are_kept_in_the_book_are_what_their_records_amount_to() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/results/camvid-espnet");
    if !folder.exists() {
        println!("skipped: no data at {}", folder.display());
        return;
    }
    let records = Records::read(&folder.join(fireproof_report::RECORDS_FILE)).unwrap();
    let kept = Results::read(&folder.join(Results::FILE)).unwrap();
    let again = Results::from_records(kept.run.clone(), &records);
    for (kept, again) in kept.rows.iter().zip(&again.rows) {
        assert_eq!((kept.miou, kept.mean_accuracy), (again.miou, again.mean_accuracy));
        assert_eq!((&kept.per_class_iou, kept.pixel_accuracy), (&again.per_class_iou, again.pixel_accuracy));
    }
    assert_eq!(kept.rows.len(), again.rows.len());
    let worst = &again.worst_cases[0];
    let attacked = || again.rows.iter().filter(|row| !row.is_clean());
    assert_eq!((worst.rows.len(), worst.images), (attacked().count(), 10));
    assert!(attacked().all(|row| worst.miou <= row.miou && worst.image_accuracy <= row.image_accuracy));
}
