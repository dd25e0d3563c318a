//! `report.html`: one file with everything in it, for people.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::escape::html as escape;
use crate::layout::Group;
use crate::plots::Figure;
use crate::table::{Format, Table, swatch, threat_note};
use crate::{Results, Status, backends, corruptions, labels, minimal, seeds};

/// The whole page. It needs no script, no network and no other file, and prints on A4.
pub fn page(results: &Results, curves: &[Figure], smallest_curves: &[Figure], panels: &[Figure]) -> String {
    let groups = Group::split(&results.rows);
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    page += "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Robustness report</title>\n";
    write!(page, "<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n").expect("memory");
    page += &header(results, &groups);
    page += &section("At a glance", &glance(&groups));
    page += &section("Accuracy under attack", &rendered(&Table::miou(results, true)));
    page += &section("Dice of volumes", &rendered(&Table::dice(results)));
    page += &section("Worst case over the attacks", &rendered(&Table::worst_cases(results)));
    page += &section("Smallest perturbations", &smallest(results, smallest_curves));
    page += &section("Corruptions", &rendered(&corruptions::tables(results)));
    page += &section("Convergence of the attacks", &curves.iter().map(figure).collect::<String>());
    page += &section("What it looks like", &panels.iter().map(figure).collect::<String>());
    page += &section("All scores", &rendered(&Table::scores(results)));
    let spread = seeds::table(&seeds::spread(&results.rows));
    page += &section("Spread over seeds", &rendered(spread.as_slice()));
    page += &section("Devices and precisions", &rendered(backends::table(&results.rows).as_slice()));
    page += &section("IoU per class", &rendered(&Table::per_class(results)));
    page += &section("Threat model", &threats(results, &groups));
    page += &section("Sanity checks", &sanity(results));
    let item = |sentence: &String| format!("<li>{}</li>\n", escape(sentence));
    let missing: String = results.run.not_run.iter().map(item).collect();
    page += &section("Not run", &if missing.is_empty() { missing } else { format!("<ul>\n{missing}</ul>\n") });
    page += "</main>\n<footer>Made by <a href=\"https://github.com/fireproof-rs/fireproof\">fireproof</a> ";
    writeln!(
        page,
        "{}. The numbers are in results.json and results.csv, the counts of every image in records.jsonl.</footer>",
        escape(&results.run.version)
    )
    .expect("memory");
    page + "</body>\n</html>\n"
}

fn smallest(results: &Results, curves: &[Figure]) -> String {
    rendered(minimal::table(results).as_slice()) + &curves.iter().map(figure).collect::<String>()
}

fn rendered(tables: &[Table]) -> String {
    tables.iter().map(|table| table.render(Format::Html)).collect()
}

fn section(title: &str, body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("<section>\n<h2>{title}</h2>\n{body}</section>\n") }
}

fn header(results: &Results, groups: &[Group]) -> String {
    let run = &results.run;
    let mut data: Vec<String> = Vec::new();
    for group in groups {
        let first = group.rows()[0];
        let name = format!("{}, {}", first.dataset, first.split);
        if !data.contains(&name) {
            data.push(name);
        }
    }
    let mut seeds: Vec<u64> = results.rows.iter().map(|row| row.seed).chain([run.seed]).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let time = labels::duration(results.rows.iter().map(|row| row.seconds).sum());
    let mut facts = vec![
        ("Command", format!("<code>{}</code>", escape(&run.command))),
        ("Data", escape(&data.join("; "))),
        ("Version", format!("{}, commit <code>{}</code>", escape(&run.version), escape(&run.commit))),
        ("Device", escape(&run.device)),
        ("Machine", escape(&run.machine)),
        (if seeds.len() == 1 { "Seed" } else { "Seeds" }, seeds.join(", ")),
        ("Time", format!("{time}, summed over the rows")),
    ];
    if !run.weights.is_empty() {
        let weight = |(name, hash): (&String, &String)| {
            format!(
                "{} <code title=\"SHA-256\">{}</code>",
                escape(name),
                escape(&hash.chars().take(12).collect::<String>())
            )
        };
        facts.push(("Weights", run.weights.iter().map(weight).collect::<Vec<_>>().join("<br>")));
    }
    let facts: String = facts.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>\n")).collect();
    format!("<header>\n<h1>Robustness report</h1>\n<dl>\n{facts}</dl>\n</header>\n")
}

/// Two bars per model: clean, and under the attack that hurt most.
fn glance(groups: &[Group]) -> String {
    let mut text = String::new();
    for group in groups.iter().filter(|group| group.threat().is_some()) {
        write!(
            text,
            "<figure class=\"glance\">\n<p class=\"title\">mIoU (%) on {}</p>\n<div class=\"bars\">\n",
            escape(&group.title())
        )
        .expect("memory");
        for line in group.lines() {
            write!(text, "<div class=\"name\">{}</div>\n<div>", escape(&group.line_label(line))).expect("memory");
            let clean = group.clean(line).map(|row| ("clean", row.miou, "clean".to_owned()));
            let attacked = group
                .strongest(line)
                .map(|row| ("attacked", row.miou, format!("{}, the strongest here", labels::attack(row))));
            for (class, score, name) in clean.into_iter().chain(attacked) {
                let width = 100.0 * score.unwrap_or(0.0);
                write!(
                    text,
                    "<div class=\"bar {class}\"><span class=\"track\"><i style=\"width:{width:.2}%\"></i></span><b>{}</b> <span>{}</span></div>",
                    labels::percent(score),
                    escape(&name)
                )
                .expect("memory");
            }
            text.push_str("</div>\n");
        }
        text.push_str("</div>\n</figure>\n");
    }
    text
}

fn figure(figure: &Figure) -> String {
    // A PNG says its size in bytes 16 to 23; with it the page does not jump while it loads.
    let side = |at: usize| figure.png.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let size = match (side(16), side(20)) {
        (width, height) if width > 0 && height > 0 => format!(" width=\"{}\" height=\"{}\"", width / 2, height / 2),
        _ => String::new(),
    };
    let caption = escape(&figure.caption);
    let data = BASE64_STANDARD.encode(&figure.png);
    format!(
        "<figure class=\"picture\"><img{size} alt=\"{caption}\" src=\"data:image/png;base64,{data}\"><figcaption>{caption}</figcaption></figure>\n"
    )
}

fn threats(results: &Results, groups: &[Group]) -> String {
    let note = |group: &Group| {
        let note = threat_note(group, &results.run);
        format!("<li>{}</li>\n", escape(note.strip_prefix("Threat model: ").unwrap_or(&note)))
    };
    let notes: String = groups.iter().map(note).collect();
    let classes: String = results
        .run
        .classes
        .iter()
        .map(|class| format!("<span class=\"class\">{}{}</span> ", swatch(class.color), escape(&class.name)))
        .collect();
    format!(
        "<p>The attacker knows the model and its weights, and changes the pixels of one image within a ball around it. The labels \
         steer the attack, never the model. Scores pool the integer counts of all images and leave void pixels out; a class \
         that is neither labelled nor predicted has no IoU.</p>\n<ul>\n{notes}</ul>\n<p class=\"classes\">Classes: {classes}</p>\n"
    )
}

fn sanity(results: &Results) -> String {
    let mut text = String::new();
    for check in &results.run.sanity {
        let (class, sign) = match check.status {
            Status::Passed => ("passed", "✓"),
            Status::Failed => ("failed", "✗"),
            Status::NotRun => ("open", "–"),
        };
        writeln!(
            text,
            "<tr><th scope=\"row\">{}</th><td class=\"status {class}\">{sign} {}</td><td class=\"words\">{}</td></tr>",
            escape(&check.name),
            check.status.name(),
            escape(&check.detail)
        )
        .expect("memory");
    }
    if text.is_empty() {
        return text;
    }
    let head = "<thead><tr><th scope=\"col\" class=\"label\">Check</th><th scope=\"col\" class=\"label\">Result</th><th scope=\"col\" class=\"label\">Numbers</th></tr></thead>";
    format!(
        "<figure class=\"table\"><div class=\"wide\"><table class=\"checks\">\n{head}\n<tbody>\n{text}</tbody>\n</table></div></figure>\n"
    )
}

const STYLE: &str = include_str!("report.css");
