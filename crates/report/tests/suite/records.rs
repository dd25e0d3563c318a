use std::fs;
use std::path::{Path, PathBuf};

use fireproof_metrics::Confusion;
use fireproof_report::{RECORDS_FILE, RecordWriter, Records, ReportError};

use crate::fixtures::{header, maps, record};

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(RECORDS_FILE);
    (folder, path)
}

fn write(path: &Path, keys: &[(usize, u64)]) {
    let mut writer = RecordWriter::create(path, &header()).unwrap();
    keys.iter().for_each(|&(row, image)| writer.append(&record(row, image)).unwrap());
}

#[test]
fn records_come_back_as_they_were_written() {
    let (_folder, path) = folder();
    write(&path, &[(0, 4), (2, 4), (0, 1)]);
    let records = Records::read(&path).unwrap();
    assert_eq!(records.header, header());
    assert_eq!(records.iter().cloned().collect::<Vec<_>>(), [record(0, 1), record(0, 4), record(2, 4)]);
    assert_eq!(records.done(), [(0, 1), (0, 4), (2, 4)].into());
}

#[test]
fn rows_equal_counting_all_pixels_at_once_whatever_the_order_of_the_records() {
    let keys: Vec<(usize, u64)> = (0..3).flat_map(|row| (0..5).map(move |image| (row, image))).collect();
    let (_folder, path) = folder();
    write(&path, &keys);
    let rows = Records::read(&path).unwrap().rows();
    assert_eq!(rows.len(), 3);
    for (index, row) in rows.iter().enumerate() {
        let mut table = Confusion::new(3).unwrap();
        (0..5).for_each(|image| {
            let (labels, predictions) = maps(index, image);
            table.add(&labels, &predictions).unwrap();
        });
        let counts = table.class_counts();
        assert_eq!(
            (row.miou, row.pixel_accuracy, row.mean_accuracy),
            (counts.miou(), counts.pixel_accuracy(), counts.mean_accuracy())
        );
        assert_eq!(row.per_class_iou, counts.iou());
        assert_eq!((row.images, row.steps), (5, header().rows[index].steps));
        assert_eq!((row.forward_passes, row.backward_passes), (5 * (index as u64 * 3 + 1), 5 * index as u64 * 3));
    }
    let (_other, reversed) = folder_with_reversed(&keys);
    assert_eq!(Records::read(&reversed).unwrap().rows(), rows);
}

fn folder_with_reversed(keys: &[(usize, u64)]) -> (tempfile::TempDir, PathBuf) {
    let (folder, path) = folder();
    write(&path, &keys.iter().rev().copied().collect::<Vec<_>>());
    (folder, path)
}

#[test]
fn a_file_cut_at_any_byte_of_its_last_line_loses_that_line_only_and_can_be_continued() {
    let (folder, path) = folder();
    write(&path, &[(0, 1), (1, 1), (2, 1)]);
    let whole = fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    for cut in last..whole.len() {
        // A new file each time: shortening one again and again makes some file systems wait for the disk.
        let path = folder.path().join(format!("{cut}.jsonl"));
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(Records::read(&path).unwrap().done(), [(0, 1), (1, 1)].into(), "cut at {cut}");
        let (mut writer, records) = RecordWriter::resume(&path, &header()).unwrap();
        assert_eq!(records.done(), [(0, 1), (1, 1)].into());
        writer.append(&record(2, 1)).unwrap();
        drop(writer);
        assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
    }
}

#[test]
fn a_file_cut_inside_its_header_starts_anew() {
    let (_folder, path) = folder();
    write(&path, &[(0, 1)]);
    let whole = fs::read(&path).unwrap();
    for cut in [0, 1, 40] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(Records::read(&path).unwrap_err().to_string().contains("no complete header"));
        let (mut writer, records) = RecordWriter::resume(&path, &header()).unwrap();
        assert!(records.done().is_empty());
        writer.append(&record(0, 1)).unwrap();
        drop(writer);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn a_broken_line_in_the_middle_is_an_error_that_names_the_line() {
    let (_folder, path) = folder();
    write(&path, &[(0, 1), (1, 1)]);
    let text = fs::read_to_string(&path).unwrap().replacen("{\"row\":0", "{\"row\":zero", 1);
    fs::write(&path, text).unwrap();
    let error = Records::read(&path).unwrap_err().to_string();
    assert!(error.contains("records.jsonl, line 2:"), "{error}");
}

#[test]
fn records_that_fit_no_row_or_come_twice_are_refused() {
    let (_folder, path) = folder();
    write(&path, &[(0, 1), (0, 1)]);
    assert!(matches!(Records::read(&path), Err(ReportError::Doubled { row: 0, image: 1, .. })));
    fs::remove_file(&path).unwrap();
    let mut writer = RecordWriter::create(&path, &header()).unwrap();
    writer.append(&record(3, 1)).unwrap();
    assert!(Records::read(&path).unwrap_err().to_string().contains("row 3, expected a row below 3"));
}

#[test]
fn another_run_is_refused_with_the_field_that_differs() {
    let (_folder, path) = folder();
    write(&path, &[(0, 1)]);
    let refused = |change: &dyn Fn(&mut fireproof_report::Header)| {
        let mut other = header();
        change(&mut other);
        match RecordWriter::resume(&path, &other) {
            Err(ReportError::Mismatch { field, found, expected, .. }) => format!("{field}: {found} → {expected}"),
            other => panic!("not refused: {other:?}"),
        }
    };
    assert_eq!(refused(&|h| h.version = "0.2.0".into()), r#"version: "0.1.0" → "0.2.0""#);
    assert_eq!(refused(&|h| drop(h.plan.insert("steps".into(), "3".into()))), r#"plan.steps: "3,10" → "3""#);
    assert_eq!(refused(&|h| drop(h.plan.insert("eps".into(), "1".into()))), r#"plan.eps: missing → "1""#);
    let weights = "weights.standard.safetensors: \"ab12\" → \"cd34\"";
    assert_eq!(refused(&|h| drop(h.weights.insert("standard.safetensors".into(), "cd34".into()))), weights);
    assert_eq!(refused(&|h| h.rows[2].epsilon = Some(0.5)), "rows[2].epsilon: 0.03137254901960784 → 0.5");
    assert_eq!(refused(&|h| drop(h.rows.pop())), "the length of rows: 3 → 2");
    assert!(RecordWriter::resume(&path, &header()).is_ok());
}

#[test]
fn a_new_run_never_writes_over_the_records_of_another() {
    let (_folder, path) = folder();
    write(&path, &[(0, 1)]);
    assert!(matches!(RecordWriter::create(&path, &header()), Err(ReportError::Exists { .. })));
    assert_eq!(Records::read(&path).unwrap().done().len(), 1);
}

#[test]
fn two_writers_of_one_file_are_refused() {
    let (_folder, path) = folder();
    let _first = RecordWriter::create(&path, &header()).unwrap();
    assert!(matches!(RecordWriter::resume(&path, &header()), Err(ReportError::Busy { .. })));
}

#[test]
fn parts_merge_to_the_whole_and_doubled_or_foreign_parts_are_refused() {
    let keys: Vec<(usize, u64)> = (0..3).flat_map(|row| (0..6).map(move |image| (row, image))).collect();
    let part = |odd: u64| {
        let (folder, path) = folder();
        write(&path, &keys.iter().copied().filter(|(_, image)| image % 2 == odd).collect::<Vec<_>>());
        (Records::read(&path).unwrap(), path, folder)
    };
    let (_folder, path) = folder();
    write(&path, &keys);
    let (mut merged, _, _keep) = part(0);
    let (odd, odd_path, _keep_too) = part(1);
    merged.merge(&odd_path, odd.clone()).unwrap();
    assert_eq!(merged, Records::read(&path).unwrap());
    assert!(matches!(merged.merge(&odd_path, odd.clone()), Err(ReportError::Doubled { .. })));
    let mut foreign = odd;
    foreign.header.plan.insert("seed".into(), "8".into());
    assert!(matches!(merged.merge(&odd_path, foreign), Err(ReportError::Mismatch { .. })));
}
