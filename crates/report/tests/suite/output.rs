use std::fs;

use fireproof_report::{Check, Panel, REPORT_FILE, Results, Status, html, rewrite, write_all};

use crate::tables::results;

fn panel() -> Panel {
    Panel {
        caption: "unet · pgd".into(),
        height: 2,
        width: 2,
        range: [0.0, 1.0],
        image: vec![0.2; 12],
        adversarial: vec![0.3; 12],
        labels: vec![0; 4],
        before: vec![1; 4],
        after: vec![2; 4],
    }
}

#[test]
fn a_folder_gets_every_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("out");
    let written = write_all(&folder, &results(), &[panel()]).unwrap();
    let mut names: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected =
        ["curves-miou.png", "curves-misratio.png", "panels.png", "report.html", "results.csv", "results.json"];
    assert_eq!(names, expected);
    assert_eq!(written.len(), expected.len());
    assert_eq!(Results::read(&folder.join(Results::FILE)).unwrap(), results());
}

#[test]
fn a_report_can_be_made_again_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), &results(), &vec![panel(); 12]).unwrap();
    assert!(folder.path().join("panels-3.png").exists());
    let first = fs::read(folder.path().join(REPORT_FILE)).unwrap();
    fs::remove_file(folder.path().join(REPORT_FILE)).unwrap();
    fs::remove_file(folder.path().join("curves-miou.png")).unwrap();
    rewrite(folder.path()).unwrap();
    assert!(folder.path().join("curves-miou.png").exists());
    assert!(fs::read(folder.path().join(REPORT_FILE)).unwrap() == first);
}

#[test]
fn the_page_needs_no_other_file_and_no_script() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), &results(), &[panel()]).unwrap();
    let page = fs::read_to_string(folder.path().join(REPORT_FILE)).unwrap();
    assert!(!page.contains("<script") && !page.contains("<link") && !page.contains("url("));
    assert!(page.split("src=\"").skip(1).all(|rest| rest.starts_with("data:image/png;base64,")));
    assert_eq!(page.matches("<img").count(), 3);
    for text in ["cargo xtask bench", "0123abc", "2 cores", "prefers-color-scheme: dark", "@media print", "40.91"] {
        assert!(page.contains(text), "no {text}");
    }
}

#[test]
fn names_from_files_never_become_markup() {
    let evil = "<script>alert('1')</script>\" onload=\"x";
    let mut results = results();
    results.run.classes[0].name = evil.into();
    results.run.command = evil.into();
    results.run.commit = evil.into();
    results.run.machine = evil.into();
    results.run.device = evil.into();
    results.run.version = evil.into();
    results.run.unit = evil.into();
    results.run.weights.insert(evil.into(), evil.into());
    results.run.not_run.push(evil.into());
    results.run.sanity.push(Check { name: evil.into(), status: Status::Failed, detail: evil.into() });
    for row in &mut results.rows {
        for name in [&mut row.model, &mut row.training, &mut row.dataset, &mut row.split, &mut row.device] {
            *name = evil.into();
        }
        if !row.is_clean() {
            row.attack = format!("{evil}{}", row.steps);
            row.norm = Some(evil.into());
            row.start = Some(evil.into());
        }
    }
    let figure = |file: &str| fireproof_report::Figure { file: file.into(), caption: evil.into(), png: vec![1, 2, 3] };
    let page = html::page(&results, &[figure("a")], &[], &[figure("b")]);
    assert!(!page.contains("<script") && !page.contains("\" onload="));
    assert!(page.matches("&lt;script&gt;").count() > 20);
}

#[test]
fn sanity_checks_and_what_was_not_run_stand_in_the_page_when_there_are_any() {
    let mut results = results();
    let page = html::page(&results, &[], &[], &[]);
    assert!(!page.contains("Sanity checks") && !page.contains("<h2>Not run") && !page.contains("<h2>Convergence"));
    results.run.sanity = vec![Check { name: "restarts".into(), status: Status::NotRun, detail: "costs 3 h".into() }];
    results.run.not_run = vec!["Black-box attacks.".into()];
    let page = html::page(&results, &[], &[], &[]);
    assert!(page.contains("– not run") && page.contains("costs 3 h") && page.contains("<li>Black-box attacks.</li>"));
}

#[test]
fn two_equal_runs_differ_in_their_seconds_only() {
    let strip = |seconds: f64| {
        let mut results = results();
        results.rows.iter_mut().for_each(|row| row.seconds = seconds);
        let text = results.to_json();
        text.lines().filter(|line| !line.contains("\"seconds\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(strip(1.0), strip(2.5));
}
