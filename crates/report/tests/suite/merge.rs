use std::fs;
use std::path::{Path, PathBuf};

use fireproof_report::merge::{merge, merge_into};
use fireproof_report::{
    Check, Header, Part, RECORDS_FILE, RecordWriter, Records, ReportError, Results, Row, Run, Shard, Status,
};
use proptest::prelude::*;

use crate::fixtures::{header, record, run};

const IDS: [u64; 7] = [40, 2, 3, 5, 8, 13, 21];

/// A run's folder: records of `images` in all rows, and what follows from them.
fn folder(path: &Path, header: &Header, images: &[u64], run: &Run) {
    let mut writer = RecordWriter::create(&path.join(RECORDS_FILE), header).unwrap();
    for row in 0..header.rows.len() {
        images.iter().for_each(|&image| writer.append(&record(row, image)).unwrap());
    }
    drop(writer);
    let records = Records::read(&path.join(RECORDS_FILE)).unwrap();
    Results::from_records(run.clone(), &records).write(&path.join(Results::FILE)).unwrap();
}

fn shard_header(shard: Shard, ids: &[u64]) -> Header {
    Header { part: Some(Part::new(shard, ids)), ..header() }
}

/// The folders of all shards of a run over `ids`.
fn shards(root: &Path, of: u32, ids: &[u64]) -> Vec<PathBuf> {
    let one = |index: u32| {
        let shard = Shard::new(index, of).unwrap();
        let path = root.join(format!("shard-{index}"));
        let command = format!("cargo xtask bench --shard {shard} --seed 7");
        let run = Run { command, machine: format!("node {index}"), ..run() };
        folder(&path, &shard_header(shard, ids), &shard.split(ids), &run);
        path
    };
    (1..=of).map(one).collect()
}

fn timeless(rows: &[Row]) -> Vec<Row> {
    rows.iter().map(|row| Row { seconds: 0.0, ..row.clone() }).collect()
}

fn refusal(folders: &[PathBuf]) -> String {
    merge(folders).unwrap_err().to_string()
}

#[test]
fn shards_merge_to_the_records_and_numbers_of_one_run() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    let mut sorted = IDS;
    sorted.sort_unstable();
    folder(&whole, &header(), &sorted, &Run { command: "cargo xtask bench --seed 7".into(), ..run() });
    let mut folders = shards(root.path(), 3, &IDS);
    folders.rotate_left(1);
    let out = root.path().join("merged");
    merge_into(&folders, &out).unwrap();
    // The same bytes, seconds and all: here every record took the same time.
    assert_eq!(fs::read(out.join(RECORDS_FILE)).unwrap(), fs::read(whole.join(RECORDS_FILE)).unwrap());
    let (merged, alone) =
        (Results::read(&out.join(Results::FILE)).unwrap(), Results::read(&whole.join(Results::FILE)).unwrap());
    assert_eq!(merged.rows, alone.rows);
    assert_eq!(merged.worst_cases, alone.worst_cases);
    assert_eq!(merged.worst_cases.len(), 1);
    assert_eq!(merged.run.command, alone.run.command);
    assert_eq!(merged.run.machine, "node 1; node 2; node 3");
    for file in ["report.html", "results.csv", "curves-miou.png"] {
        assert!(out.join(file).exists(), "{file}");
    }
    assert!(matches!(merge_into(&folders, &out), Err(ReportError::Exists { .. })));
    // The merged folder is one of a whole run, which can be continued and not be merged again.
    assert!(RecordWriter::resume(&out.join(RECORDS_FILE), &header()).is_ok());
    assert!(refusal(&[out]).contains("holds a whole run, expected a shard"));
}

#[test]
fn more_shards_than_images_leave_some_empty_and_merge_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let folders = shards(root.path(), 4, &[1, 2]);
    assert_eq!(Results::read(&folders[3].join(Results::FILE)).unwrap().rows, []);
    let merged = merge(&folders).unwrap();
    assert_eq!(merged.results.rows[0].images, 2);
}

#[test]
fn missing_and_doubled_shards_are_named() {
    let root = tempfile::tempdir().unwrap();
    let folders = shards(root.path(), 4, &IDS);
    assert_eq!(refusal(&[folders[0].clone(), folders[2].clone()]), "missing: shard 2/4, shard 4/4");
    let doubled = refusal(&[&folders[..], &folders[1..2]].concat());
    assert!(doubled.starts_with("shard 2/4 is there twice: ") && doubled.matches("shard-2").count() == 2, "{doubled}");
    assert!(refusal(&[]).contains("found no folder"));
    let nowhere = refusal(&[folders[0].clone(), root.path().join("nowhere")]);
    assert!(nowhere.contains("nowhere") && nowhere.contains("cannot read"), "{nowhere}");
}

#[test]
fn a_shard_that_was_interrupted_is_named_with_its_first_missing_image() {
    let root = tempfile::tempdir().unwrap();
    let folders = shards(root.path(), 2, &IDS);
    let path = folders[1].join(RECORDS_FILE);
    let text = fs::read_to_string(&path).unwrap();
    // The shard has the images 3, 8 and 21; the last row loses two of them, one by half a line.
    let lines: Vec<&str> = text.lines().collect();
    fs::write(&path, lines[..lines.len() - 2].join("\n") + "\n{\"row\":2,\"ima").unwrap();
    let error = refusal(&folders);
    assert!(error.contains("shard 2/2 is not finished: 2 records are missing"), "{error}");
    assert!(
        error.contains("image 8 in row 2 (pgd)") && error.contains("shard-2") && error.contains("--resume"),
        "{error}"
    );
}

#[test]
fn shards_of_different_runs_are_refused_with_the_field_that_differs() {
    let refused = |change_header: &dyn Fn(&mut Header), change_run: &dyn Fn(&mut Run)| {
        let root = tempfile::tempdir().unwrap();
        let folders = shards(root.path(), 2, &IDS);
        fs::remove_dir_all(&folders[1]).unwrap();
        let shard = Shard::new(2, 2).unwrap();
        let (mut header, mut run) = (shard_header(shard, &IDS), run());
        change_header(&mut header);
        change_run(&mut run);
        folder(&folders[1], &header, &shard.split(&IDS), &run);
        match merge(&folders) {
            Err(ReportError::OtherRun { path, field, found, first, expected }) => {
                assert!(path.starts_with(&folders[1]) && first.starts_with(&folders[0]));
                format!("{field}: {found}, not {expected}")
            }
            other => panic!("not refused: {other:?}"),
        }
    };
    let same = |_: &mut Run| ();
    assert_eq!(refused(&|h| h.version = "0.2.0".into(), &same), r#"version: "0.2.0", not "0.1.0""#);
    assert_eq!(refused(&|h| drop(h.plan.insert("steps".into(), "3".into())), &same), r#"plan.steps: "3", not "3,10""#);
    let weights = "weights.standard.safetensors: \"cd34\", not \"ab12\"";
    assert_eq!(refused(&|h| drop(h.weights.insert("standard.safetensors".into(), "cd34".into())), &same), weights);
    assert_eq!(refused(&|h| h.rows[1].seed = 8, &same), "rows[1].seed: 8, not 7");
    assert_eq!(refused(&|_| (), &|run| run.commit = "ffff".into()), r#"run.commit: "ffff", not "0123abc""#);
    assert_eq!(refused(&|_| (), &|run| run.range = [0.0, 255.0]), "run.range[1]: 255.0, not 1.0");
}

#[test]
fn shards_of_another_number_or_cut_from_another_list_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let halves = shards(&root.path().join("halves"), 2, &IDS);
    let thirds = shards(&root.path().join("thirds"), 3, &IDS);
    assert!(refusal(&[halves[0].clone(), thirds[1].clone()]).contains("the number of shards is 3 there, but 2 in"));
    // A second half of other images: the header's plan would differ too, unless somebody changed it by hand.
    let others = shards(&root.path().join("others"), 2, &[1, 4, 6, 9]);
    let error = refusal(&[halves[0].clone(), others[1].clone()]);
    assert!(error.contains("its images are not those of shard"), "{error}");
}

#[test]
fn a_record_of_another_shard_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let folders = shards(root.path(), 2, &IDS);
    let path = folders[0].join(RECORDS_FILE);
    let foreign = serde_json::to_string(&record(0, 3)).unwrap();
    fs::write(&path, fs::read_to_string(&path).unwrap() + &foreign + "\n").unwrap();
    assert!(refusal(&folders).contains("image 3 does not belong to shard 1/2"));
}

#[test]
fn a_shard_is_continued_by_the_same_shard_only() {
    let root = tempfile::tempdir().unwrap();
    let folders = shards(root.path(), 2, &IDS);
    let path = folders[0].join(RECORDS_FILE);
    let resume = |header: &Header| RecordWriter::resume(&path, header).map(|_| ()).map_err(|error| error.to_string());
    let [one, two] = [1, 2].map(|index| shard_header(Shard::new(index, 2).unwrap(), &IDS));
    assert_eq!(resume(&one), Ok(()));
    assert!(resume(&two).unwrap_err().contains("shard is 1/2 there, but 2/2 now"));
    assert!(resume(&header()).unwrap_err().contains("shard is 1/2 there, but all images now"));
}

#[test]
fn the_panels_of_all_shards_come_along_under_new_names() {
    let root = tempfile::tempdir().unwrap();
    let folders = shards(root.path(), 2, &IDS);
    fs::write(folders[0].join("panels.png"), b"first").unwrap();
    fs::write(folders[1].join("panels.png"), b"second").unwrap();
    let out = root.path().join("merged");
    merge_into(&folders, &out).unwrap();
    assert_eq!(fs::read(out.join("panels-1.png")).unwrap(), b"first");
    assert_eq!(fs::read(out.join("panels-2.png")).unwrap(), b"second");
}

#[test]
fn a_check_failed_by_one_shard_is_failed_and_one_that_rows_tell_is_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let check = |name: &str, status, detail: &str| Check { name: name.into(), status, detail: detail.into() };
    let iterations = "More iterations never help the defender";
    let lists = [
        vec![
            check("a", Status::Passed, "fine."),
            check("b", Status::Passed, "fine."),
            check("c", Status::Passed, "fine."),
            check(iterations, Status::NotRun, "stale"),
        ],
        vec![
            check("a", Status::Passed, "fine."),
            check("b", Status::Failed, "image 3."),
            check("c", Status::NotRun, "no time."),
            check(iterations, Status::NotRun, "stale"),
        ],
    ];
    let folders = shards(root.path(), 2, &IDS);
    for (folder, sanity) in folders.iter().zip(lists) {
        let path = folder.join(Results::FILE);
        let mut results = Results::read(&path).unwrap();
        results.run.sanity = sanity;
        results.run.not_run = vec!["Black box.".into()];
        results.write(&path).unwrap();
    }
    let run = merge(&folders).unwrap().results.run;
    let told: Vec<String> =
        run.sanity[..3].iter().map(|c| format!("{} {} {}", c.name, c.status.name(), c.detail)).collect();
    assert_eq!(told, ["a passed fine.", "b failed image 3.", "c not run no time."]);
    assert!(run.sanity[3].status != Status::NotRun && run.sanity[3].detail.contains("after 10"), "{:?}", run.sanity[3]);
    assert_eq!(run.not_run, ["Black box."]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_number_of_shards_in_any_order_gives_the_rows_of_one_run(
        ids in prop::collection::btree_set(0u64..500, 1..14),
        of in 1u32..6,
        turn in 0usize..6,
    ) {
        let ids: Vec<u64> = ids.into_iter().collect();
        let root = tempfile::tempdir().unwrap();
        let mut folders = shards(root.path(), of, &ids);
        folders.rotate_left(turn % of as usize);
        let mut whole = Records::new(header());
        for row in 0..3 {
            ids.iter().for_each(|&image| whole.insert(root.path(), record(row, image)).unwrap());
        }
        let merged = merge(&folders).unwrap();
        prop_assert_eq!(&merged.records, &whole);
        let alone = Results::from_records(run(), &whole);
        prop_assert_eq!(timeless(&merged.results.rows), timeless(&alone.rows));
        prop_assert_eq!(merged.results.worst_cases, alone.worst_cases);
    }
}
