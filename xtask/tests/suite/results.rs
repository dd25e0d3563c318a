//! Pages of results say what the kept records say. `.ci/robust-training` and `.ci/margin-training` make the records,
//! `FIREPROOF_WRITE=1 cargo test --release -p xtask --test suite -- results::` tables and pictures.

use std::fs;

use serde_json::Value;

use crate::book::{read, replace, root, settle};
use crate::svg::{Axes, HEIGHT, PLOT, legend, picture};

/// The systems in the order of the survey, and what each is compared with.
const RECIPES: [(&str, &str); 24] = [
    ("standard", "baseline"),
    ("pgd10-at-full", "baseline"),
    ("trades", "baseline"),
    ("mart", "baseline"),
    ("alp", "baseline"),
    ("early-stopping", "1"),
    ("free-at", "2"),
    ("awp-at", "3"),
    ("awp-trades", "3"),
    ("cutmix-ema", "4"),
    ("iat", "5"),
    ("iat-manifold", "5"),
    ("oat", "6"),
    ("oat-standard", "6"),
    ("rlat", "7"),
    ("rlat-augmix", "7"),
    ("augmix-jsd", "7, baseline"),
    ("l2-small", "7, baseline"),
    ("linf-small", "7, baseline"),
    ("gauss-half", "7, baseline"),
    ("gauss-full", "7, baseline"),
    ("curriculum-at", "8"),
    ("adaptive-at", "8"),
    ("augrmix-at", "9"),
];

/// The records of a folder, by name.
fn records(folder: &str) -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let records: Vec<Value> =
        files.iter().map(|file| serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()).collect();
    for record in &records {
        assert!(!record["commit"].as_str().unwrap().contains('+'), "{}: made by changed files", record["name"]);
    }
    records
}

/// What an example said of several files of weights, a line each.
fn described(path: &str) -> Vec<Value> {
    read(path).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The runs of a name, one for each seed.
fn runs<'a>(all: &'a [Value], name: &str) -> Vec<&'a Value> {
    all.iter().filter(|run| text(run, "name").rsplit_once("-s").unwrap().0 == name).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn rows<'a>(record: &'a Value, attack: &'a str) -> impl Iterator<Item = &'a Value> {
    record["rows"].as_array().unwrap().iter().filter(move |row| row["attack"] == attack)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The mean of a field over the rows of an attack.
fn average(record: &Value, attack: &str, field: &str) -> f64 {
    let values: Vec<f64> = rows(record, attack).map(|row| row[field].as_f64().unwrap()).collect();
    assert!(!values.is_empty(), "{}: no row of {attack}", record["name"]);
    mean(&values)
}

/// Percent: the mean over seeds, and their standard deviation where there are several.
fn percent(values: &[f64]) -> String {
    let middle = mean(values);
    if values.len() < 2 {
        return format!("{:.1}", 100.0 * middle);
    }
    let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    let deviation = (squares / (values.len() - 1) as f64).sqrt();
    format!("{:.1} ± {:.1}", 100.0 * middle, 100.0 * deviation)
}

fn table(head: &[&str], lines: Vec<Vec<String>>) -> String {
    let rule = head.iter().map(|name| if name.is_empty() || *name == head[0] { ":--|" } else { "--:|" });
    let mut out = format!("| {} |\n|{}\n", head.join(" | "), rule.collect::<String>());
    for line in lines {
        out += &format!("| {} |\n", line.join(" | "));
    }
    out
}

/// Puts a table below a heading of a page.
fn put(page: &str, path: &str, heading: &str, table: &str) -> String {
    replace(page, path, &format!("## {heading}\n\n"), table)
}

/// The number of passes that a run made for its training.
fn passes(record: &Value) -> f64 {
    ["forward", "input_backward", "full_backward"].iter().map(|kind| record["passes"][kind].as_f64().unwrap()).sum()
}

struct Scored<'a> {
    recipe: &'a str,
    runs: Vec<&'a Value>,
}

impl Scored<'_> {
    fn of(&self, value: impl Fn(&Value) -> f64) -> Vec<f64> {
        self.runs.iter().map(|run| value(run)).collect()
    }
}

fn clean(run: &Value) -> f64 {
    average(run, "none", "pixel_accuracy")
}

fn worst(run: &Value) -> f64 {
    run["worst"][0].as_f64().unwrap()
}

#[test]
fn the_page_of_robust_training_says_what_its_records_say() {
    const FOLDER: &str = "docs/results/robust-training";
    const REMAKE: &str = "docs/results/robust-training: run .ci/robust-training";
    let all = records(FOLDER);
    let named = |prefix: &str| all.iter().filter(move |one| text(one, "name").starts_with(prefix)).collect::<Vec<_>>();
    let path = "docs/results/robust-training.md";
    let mut page = read(path);

    let in_table = named("table-");
    let scored: Vec<Scored> = RECIPES
        .iter()
        .map(|&(recipe, _)| Scored {
            recipe,
            runs: in_table.iter().copied().filter(|run| run["recipe"] == recipe).collect(),
        })
        .filter(|scored| !scored.runs.is_empty())
        .collect();
    assert_eq!(
        scored.iter().map(|scored| scored.runs.len()).sum::<usize>(),
        in_table.len(),
        "a recipe is not in the list"
    );
    let lines = scored.iter().map(|scored| {
        let system = RECIPES.iter().find(|(recipe, _)| *recipe == scored.recipe).unwrap().1;
        let percent = |value: &dyn Fn(&Value) -> f64| percent(&scored.of(value));
        vec![
            format!("`{}`", scored.recipe),
            system.to_owned(),
            scored.runs.len().to_string(),
            scored.runs[0]["epochs"].as_array().unwrap().last().unwrap()["epoch"].to_string(),
            format!("{:.2}", mean(&scored.of(passes)) / 1e6),
            percent(&clean),
            percent(&|run| average(run, "pgd", "pixel_accuracy")),
            percent(&worst),
            percent(&|run| average(run, "corruption", "pixel_accuracy")),
            percent(&|run| average(run, "none", "calibration_error")),
            percent(&|run| average(run, "pgd", "calibration_error")),
            percent(&|run| average(run, "corruption", "calibration_error")),
        ]
    });
    let head = [
        "recipe",
        "system",
        "seeds",
        "epochs",
        "passes, 10⁶",
        "clean",
        "PGD-50",
        "worst case",
        "corruptions",
        "ECE clean",
        "ECE PGD-50",
        "ECE corruptions",
    ];
    page = put(&page, path, "The table", &table(&head, lines.collect()));

    let lines = named("long-").into_iter().map(|run| {
        let of = |attack: &str, weights: &str| {
            let row = rows(run, attack).find(|row| text(row, "weights") == weights).expect("best and last weights");
            100.0 * row["pixel_accuracy"].as_f64().unwrap()
        };
        let [best, last] = ["best.safetensors", "checkpoint.safetensors"];
        vec![
            format!("`{}`", text(run, "recipe")),
            run["best"].to_string(),
            run["epochs"].as_array().unwrap().len().to_string(),
            format!("{:.1}", of("none", best)),
            format!("{:.1}", of("none", last)),
            format!("{:.1}", of("pgd", best)),
            format!("{:.1}", of("pgd", last)),
            format!("{:+.1}", of("pgd", last) - of("pgd", best)),
        ]
    });
    let head = ["recipe", "best epoch", "epochs", "clean: best", "last", "PGD-50: best", "last", "last − best"];
    page = put(&page, path, "Robust overfitting", &table(&head, lines.collect()));

    let lines = named("sigma-").into_iter().map(|run| {
        let mut line = vec![
            format!("`{}`", text(run, "recipe")),
            text(run, "name").rsplit_once('-').unwrap().1.to_owned(),
            format!("{:.1}", 100.0 * clean(run)),
        ];
        for severity in ["1", "2", "3", "4", "5"] {
            let row =
                rows(run, "corruption").find(|row| row["options"]["severity"] == severity).expect("five severities");
            line.push(format!("{:.1}", 100.0 * row["pixel_accuracy"].as_f64().unwrap()));
        }
        line
    });
    let head = ["recipe", "σ of training", "clean", "0.08", "0.12", "0.18", "0.26", "0.38"];
    page = put(&page, path, "Noise of another size", &table(&head, lines.collect()));

    let steps = named("step-");
    let lines = ["4", "8", "16"].map(|radius| {
        let mut line = vec![format!("{radius}/255")];
        for part in ["8", "4", "2", "1"] {
            let run = steps.iter().find(|run| text(run, "name") == format!("step-{radius}-{part}")).expect("all steps");
            line.push(format!("{:.1} / {:.1}", 100.0 * clean(run), 100.0 * average(run, "pgd", "pixel_accuracy")));
        }
        line
    });
    let head = ["radius ε", "step ε/8", "ε/4", "ε/2", "ε"];
    page = put(&page, path, "Step and radius", &table(&head, lines.to_vec()));
    settle(path, &page, REMAKE);

    let points: Vec<(String, [f64; 2])> = scored
        .iter()
        .map(|scored| (scored.recipe.to_owned(), [100.0 * mean(&scored.of(clean)), 100.0 * mean(&scored.of(worst))]))
        .collect();
    let axes = Axes {
        left: 0.0,
        title: "Fashion-MNIST, ℓ∞ 8/255",
        x: ("clean accuracy, %", 72.0, 92.0),
        y: ("accuracy in the worst case, %", 0.0, 80.0),
    };
    let drawn = [axes.points(&points), legend(PLOT + 4.0, points.iter().map(|point| point.0.as_str()), true)];
    settle("docs/images/robust-training-scatter.svg", &picture(PLOT + 170.0, HEIGHT + 14.0, &drawn), REMAKE);

    let curves: Vec<(String, Vec<[f64; 2]>)> = named("long-")
        .into_iter()
        .flat_map(|run| {
            [("robust_miou", "attacked"), ("clean_miou", "clean")].map(|(field, word)| {
                let epochs = run["epochs"].as_array().unwrap();
                let points =
                    epochs.iter().filter_map(|epoch| Some([epoch["epoch"].as_f64()?, 100.0 * epoch[field].as_f64()?]));
                (format!("{}, {word}", text(run, "recipe")), points.collect())
            })
        })
        .collect();
    let axes = Axes {
        left: 0.0,
        title: "200 images of the validation split, PGD-10",
        x: ("epoch", 0.0, 32.0),
        y: ("mIoU over classes, %", 20.0, 100.0),
    };
    let drawn = [axes.lines(&curves), legend(PLOT + 4.0, curves.iter().map(|curve| curve.0.as_str()), false)];
    settle("docs/images/robust-training-curves.svg", &picture(PLOT + 200.0, HEIGHT, &drawn), REMAKE);

    flatness();

    const SHOWN: [&str; 5] = ["standard", "pgd10-at-full", "trades", "cutmix-ema", "augmix-jsd"];
    let reliability = |row: usize| -> Vec<(String, Vec<[f64; 2]>)> {
        let of = |recipe: &str| {
            let runs = scored.iter().find(|scored| scored.recipe == recipe).map_or(&[][..], |scored| &scored.runs);
            let bins = runs.iter().flat_map(|run| run["bins"][row].as_array().unwrap().iter().enumerate());
            let mut sums = [[0.0; 3]; 32];
            for (bin, counts) in bins {
                sums[bin]
                    .iter_mut()
                    .zip(counts.as_array().unwrap())
                    .for_each(|(sum, count)| *sum += count.as_f64().unwrap());
            }
            // A bin of a few images says nothing.
            let points = sums.iter().filter(|sum| sum[0] >= 15.0);
            points
                .map(|[pixels, correct, confidence]| [confidence / pixels / f64::from(1 << 24), correct / pixels])
                .collect()
        };
        let mut lines: Vec<(String, Vec<[f64; 2]>)> =
            SHOWN.iter().map(|recipe| ((*recipe).to_owned(), of(recipe))).collect();
        lines.push(("confidence = accuracy".into(), vec![[0.0, 0.0], [1.0, 1.0]]));
        lines
    };
    let panel = |row: usize, left: f64, title: &'static str| {
        Axes { left, title, x: ("confidence", 0.0, 1.0), y: ("accuracy", 0.0, 1.0) }.lines(&reliability(row))
    };
    let names = reliability(0);
    let drawn = [
        panel(0, 0.0, "Clean"),
        panel(1, PLOT, "PGD-50, 8/255"),
        legend(2.0 * PLOT + 4.0, names.iter().map(|line| line.0.as_str()), false),
    ];
    settle("docs/images/robust-training-reliability.svg", &picture(2.0 * PLOT + 190.0, HEIGHT, &drawn), REMAKE);
}

/// The loss around the last weights: a table of its rise, and a picture.
fn flatness() {
    const REMAKE: &str = "docs/results/robust-training: run .ci/robust-training";
    const LINES: [(&str, &str); 6] = [
        ("pgd10-at-full", "table-pgd10-at-full"),
        ("awp-at", "table-awp-at"),
        ("trades", "table-trades"),
        ("awp-trades", "table-awp-trades"),
        ("pgd10-at-full, four times the budget", "long-pgd10-at-full"),
        ("awp-at, four times the budget", "long-awp-at"),
    ];
    let numbers = |value: &Value| value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
    let found = described("docs/results/robust-training/landscape.jsonl");
    let radii = numbers(&found[0]["radii"]);
    let lines = LINES.map(|(name, prefix)| {
        let of: Vec<Vec<f64>> = found
            .iter()
            .filter(|one| text(one, "weights").rsplit_once("-s").unwrap().0 == prefix)
            .map(|one| numbers(&one["loss"]))
            .collect();
        let at = |i: usize| mean(&of.iter().map(|loss| loss[i]).collect::<Vec<_>>());
        (name.to_owned(), of.len(), (0..radii.len()).map(at).collect::<Vec<_>>())
    });
    let rise = |loss: &[f64], radius: f64| {
        let at = radii.iter().position(|r| *r == radius).expect("a radius of the records");
        format!("{:+.2}", loss[at] - loss[0])
    };
    let rows = lines.iter().map(|(name, seeds, loss)| {
        let head = [name.clone(), seeds.to_string(), format!("{:.2}", loss[0])];
        [&head[..], &[0.1, 0.2, 0.3, 0.5].map(|radius| rise(loss, radius))].concat()
    });
    let path = "docs/results/robust-training.md";
    let head = ["last weights of", "seeds", "loss", "rise at 0.1", "0.2", "0.3", "0.5"];
    settle(path, &put(&read(path), path, "How flat the loss is", &table(&head, rows.collect())), REMAKE);
    let curves = lines.map(|(name, _, loss)| {
        (name, radii.iter().zip(loss).map(|(radius, loss)| [*radius, loss]).collect::<Vec<_>>())
    });
    let axes = Axes {
        left: 0.0,
        title: "Highest loss of ten directions",
        x: ("radius, share of each filter's length", 0.0, 0.5),
        y: ("cross-entropy under PGD-10", 0.0, 6.0),
    };
    let drawn = [axes.lines(&curves), legend(PLOT + 4.0, curves.iter().map(|curve| curve.0.as_str()), false)];
    settle("docs/images/robust-training-landscape.svg", &picture(PLOT + 260.0, HEIGHT, &drawn), REMAKE);
}

/// What was trained on the hippocampus, in the order of the table.
const MARGINS: [&str; 8] = ["standard", "sat-5", "sat-10", "sat-15", "trades-10", "ima", "amat", "regulated-finetune"];
/// ℓ2 noise as the paper counts it, and the radius that it is for 64×48 values.
const NOISE: [f64; 6] = [0.0, 1.0, 3.0, 5.0, 10.0, 15.0];

#[test]
fn the_page_of_the_hippocampus_says_what_its_records_say() {
    const REMAKE: &str = "docs/results/hippocampus: run .ci/margin-training";
    let all = records("docs/results/hippocampus");
    let path = "docs/results/hippocampus.md";
    let dice = |run: &Value, norm: &str, epsilon: f64| {
        let attack = if epsilon == 0.0 { "none" } else { "pgd" };
        let near = |row: &&Value| {
            epsilon == 0.0 || row["norm"] == norm && (row["epsilon"].as_f64().unwrap() / epsilon - 1.0).abs() < 1e-3
        };
        let row = rows(run, attack).find(near).unwrap_or_else(|| panic!("{}: no {norm} {epsilon}", run["name"]));
        row["dice"]["volume"]["nn-unet"].as_f64().unwrap()
    };
    let level = |noise: f64| noise * (3072.0f64 / 2240.0).sqrt();
    let scored: Vec<Scored> = MARGINS
        .iter()
        .map(|&name| Scored { recipe: name, runs: runs(&all, name) })
        .filter(|scored| !scored.runs.is_empty())
        .collect();
    let lines = scored.iter().map(|scored| {
        let mut line = vec![
            format!("`{}`", scored.recipe),
            scored.runs.len().to_string(),
            format!("{:.2}", mean(&scored.of(passes)) / 1e6),
        ];
        line.extend(NOISE.map(|noise| percent(&scored.of(|run| dice(run, "l2", level(noise))))));
        line.extend([4.0, 8.0].map(|parts| percent(&scored.of(|run| dice(run, "linf", parts / 255.0)))));
        line
    });
    let head = [
        "trained by",
        "seeds",
        "passes, 10⁶",
        "clean",
        "ℓ2 1",
        "ℓ2 3",
        "ℓ2 5",
        "ℓ2 10",
        "ℓ2 15",
        "ℓ∞ 4/255",
        "ℓ∞ 8/255",
    ];
    settle(path, &put(&read(path), path, "The table", &table(&head, lines.collect())), REMAKE);

    let curves: Vec<(String, Vec<[f64; 2]>)> = scored
        .iter()
        .map(|scored| {
            let point = |noise: f64| [noise, 100.0 * mean(&scored.of(|run| dice(run, "l2", level(noise))))];
            (scored.recipe.to_owned(), NOISE.map(point).to_vec())
        })
        .collect();
    let points: Vec<(String, [f64; 2])> = curves
        .iter()
        .map(|(name, points)| {
            let attacked: Vec<f64> = points[1..].iter().map(|point| point[1]).collect();
            (name.clone(), [points[0][1], mean(&attacked)])
        })
        .collect();
    let left = Axes {
        left: 0.0,
        title: "Against the size of the noise",
        x: ("ℓ2 noise, as the paper counts it", 0.0, 16.0),
        y: ("Dice of volumes, %", 0.0, 100.0),
    };
    let right = Axes {
        left: PLOT,
        title: "What robustness costs",
        x: ("clean Dice, %", 60.0, 92.0),
        y: ("mean Dice under noise 1 to 15, %", 0.0, 80.0),
    };
    let drawn = [
        left.lines(&curves),
        right.points(&points),
        legend(2.0 * PLOT + 4.0, points.iter().map(|point| point.0.as_str()), true),
    ];
    settle("docs/images/hippocampus.svg", &picture(2.0 * PLOT + 180.0, HEIGHT, &drawn), REMAKE);
    // As the paper counts noise, for 56 x 40 values.
    growth("hippocampus", ["ima", "amat"], 2240f64.sqrt(), "Margins of 1073 slices", REMAKE);
}

/// How the margins grew: what every epoch did, and their spread as curves. `unit` makes a margin what the page counts noise in.
fn growth(page: &str, names: [&str; 2], unit: f64, title: &str, remake: &str) {
    /// Of the quantiles that a record holds: 10 %, the median, 90 %.
    const CURVES: [(usize, &str); 3] = [(5, "90 %"), (3, "median"), (1, "10 %")];
    let found = described(&format!("docs/results/{page}/margins.jsonl"));
    let noise = |value: &Value| value.as_f64().unwrap() * unit;
    let (mut lines, mut curves) = (Vec::new(), Vec::new());
    for name in names {
        let recipe = name.trim_start_matches("margin-");
        let runs: Vec<&[Value]> = found
            .iter()
            .filter(|run| text(run, "weights").starts_with(&format!("{name}-s")))
            .map(|run| run["epochs"].as_array().unwrap().as_slice())
            .collect();
        let over = |epoch: usize, value: &dyn Fn(&Value) -> f64| {
            mean(&runs.iter().map(|run| value(&run[epoch])).collect::<Vec<_>>())
        };
        for epoch in 0..runs[0].len() {
            let count = |name: &str| format!("{:.0}", over(epoch, &|one| one[name].as_f64().unwrap()));
            let numbers = [1, 3, 5, 6].map(|at| format!("{:.1}", over(epoch, &|one| noise(&one["quantiles"][at]))));
            let head = [format!("`{recipe}`"), (epoch + 1).to_string()];
            lines.push([&head[..], &["expanded", "refined", "wrong"].map(count), &numbers].concat());
        }
        curves.extend(CURVES.map(|(at, quantile)| {
            let points =
                (0..runs[0].len()).map(|epoch| [epoch as f64 + 1.0, over(epoch, &|one| noise(&one["quantiles"][at]))]);
            (format!("{recipe}, {quantile}"), points.collect::<Vec<_>>())
        }));
    }
    let path = &format!("docs/results/{page}.md");
    let head = ["recipe", "epoch", "expanded", "refined", "wrong", "10 %", "median", "90 %", "largest"];
    settle(path, &put(&read(path), path, "How the margins grew", &table(&head, lines)), remake);
    let axes = Axes { left: 0.0, title, x: ("epoch", 1.0, 5.0), y: ("margin, as the paper counts noise", 0.0, 16.0) };
    let drawn = [axes.lines(&curves), legend(PLOT + 4.0, curves.iter().map(|curve| curve.0.as_str()), false)];
    settle(&format!("docs/images/{page}-margins-grown.svg"), &picture(PLOT + 130.0, HEIGHT, &drawn), remake);
}

#[test]
fn the_page_of_nuclei_says_what_its_records_say() {
    const REMAKE: &str = "docs/results/nuclei: run .ci/nuclei";
    const RECIPES: [&str; 18] = [
        "standard",
        "nnunet",
        "segpgd3-at",
        "segpgd3-at-full",
        "trades",
        "mart",
        "alp",
        "free-at",
        "awp-at",
        "awp-trades",
        "cutmix-ema",
        "iat",
        "iat-manifold",
        "oat",
        "rlat",
        "augmix-jsd",
        "curriculum-at",
        "augrmix-at",
    ];
    const MARGINS: [&str; 7] = ["sat-5", "sat-10", "sat-15", "trades-10", "ima", "amat", "regulated-finetune"];
    const FAST: [&str; 4] = ["segpgd", "cospgd", "masked-ce", "js"];
    let all = records("docs/results/nuclei");
    let path = "docs/results/nuclei.md";
    let worst = |run: &Value| run["worst"][0]["miou"].as_f64().unwrap();

    let scored: Vec<Scored> =
        RECIPES.iter().map(|&recipe| Scored { recipe, runs: runs(&all, &format!("recipe-{recipe}")) }).collect();
    let made: usize = scored.iter().map(|scored| scored.runs.len()).sum();
    assert_eq!(
        made,
        all.iter().filter(|run| text(run, "name").starts_with("recipe-")).count(),
        "a recipe is not in the list"
    );
    let lines = scored.iter().filter(|scored| !scored.runs.is_empty()).map(|scored| {
        let head = [
            format!("`{}`", scored.recipe),
            scored.runs.len().to_string(),
            scored.runs[0]["epochs"].as_array().unwrap().last().unwrap()["epoch"].to_string(),
            format!("{:.1}", mean(&scored.of(passes)) / 1e3),
            percent(&scored.of(|run| average(run, "none", "miou"))),
        ];
        let attacked = FAST.map(|attack| percent(&scored.of(|run| average(run, attack, "miou"))));
        let calibration =
            ["none", "segpgd"].map(|attack| percent(&scored.of(|run| average(run, attack, "calibration_error"))));
        [&head[..], &attacked, &[percent(&scored.of(worst))], &calibration].concat()
    });
    let head = [
        "recipe",
        "seeds",
        "epochs",
        "passes, 10³",
        "clean",
        "SegPGD",
        "CosPGD",
        "masked CE",
        "JS",
        "worst",
        "ECE clean",
        "ECE SegPGD",
    ];
    let mut page = put(&read(path), path, "Equal passes from random weights", &table(&head, lines.collect()));

    // Both classes' sums are those of all test images together; of two classes' IoU, Dice follows.
    let dice = |row: &Value| {
        let iou = row["per_class_iou"][1].as_f64().unwrap();
        2.0 * iou / (1.0 + iou)
    };
    let noisy = |run: &Value, noise: f64| {
        let epsilon = 256.0 * 0.0555 * noise / 2240f64.sqrt();
        let near =
            |row: &&Value| row["norm"] == "l2" && (row["epsilon"].as_f64().unwrap() / epsilon - 1.0).abs() < 1e-3;
        dice(rows(run, "pgd").find(near).expect("both levels of noise"))
    };
    let clean_dice = |run: &Value| dice(rows(run, "none").next().unwrap());
    let least = |run: &Value| FAST.iter().flat_map(|attack| rows(run, attack)).map(dice).fold(1.0, f64::min);
    let margins: Vec<Scored> = [("recipe-nnunet".to_owned(), "standard")]
        .into_iter()
        .chain(MARGINS.map(|name| (format!("margin-{name}"), name)))
        .map(|(name, recipe)| Scored { recipe, runs: runs(&all, &name) })
        .filter(|scored| !scored.runs.is_empty())
        .collect();
    let lines = margins.iter().map(|scored| {
        vec![
            format!("`{}`", scored.recipe),
            scored.runs.len().to_string(),
            format!("{:.1}", mean(&scored.of(passes)) / 1e3),
            percent(&scored.of(clean_dice)),
            percent(&scored.of(|run| noisy(run, 3.0))),
            percent(&scored.of(|run| noisy(run, 10.0))),
            percent(&scored.of(least)),
        ]
    });
    let head = ["trained by", "seeds", "passes, 10³", "clean", "ℓ2 3", "ℓ2 10", "ℓ∞ 4/255"];
    page = put(&page, path, "A radius for every sample", &table(&head, lines.collect()));
    settle(path, &page, REMAKE);

    let points =
        |scored: &[Scored], clean: &dyn Fn(&Value) -> f64, robust: &dyn Fn(&Value) -> f64| -> Vec<(String, [f64; 2])> {
            let point =
                |one: &Scored| (one.recipe.to_owned(), [100.0 * mean(&one.of(clean)), 100.0 * mean(&one.of(robust))]);
            scored.iter().filter(|one| !one.runs.is_empty()).map(point).collect()
        };
    let recipes = points(&scored, &|run| average(run, "none", "miou"), &worst);
    let left = Axes {
        left: 0.0,
        title: "Equal passes from random weights",
        x: ("clean mIoU, %", 65.0, 95.0),
        y: ("mIoU in the worst case, %", 45.0, 85.0),
    };
    let drawn = [left.points(&recipes), legend(PLOT + 4.0, recipes.iter().map(|point| point.0.as_str()), true)];
    settle("docs/images/nuclei-recipes.svg", &picture(PLOT + 170.0, HEIGHT + 14.0, &drawn), REMAKE);
    let tuned = points(&margins, &clean_dice, &|run| noisy(run, 10.0));
    let axes = Axes {
        left: 0.0,
        title: "Fine-tuned from the same weights",
        x: ("clean Dice, %", 60.0, 100.0),
        y: ("Dice under ℓ2 noise 10, %", 0.0, 80.0),
    };
    let drawn = [axes.points(&tuned), legend(PLOT + 4.0, tuned.iter().map(|point| point.0.as_str()), true)];
    settle("docs/images/nuclei-margins.svg", &picture(PLOT + 170.0, HEIGHT, &drawn), REMAKE);
    growth("nuclei", ["margin-ima", "margin-amat"], 2240f64.sqrt() / 0.0555, "Margins of 120 images", REMAKE);
}

#[test]
fn the_page_of_classification_says_what_its_records_say() {
    const REMAKE: &str = "docs/results/classification: run .ci/margin-classification";
    const NAMES: [&str; 7] = ["standard", "sat-0.5", "sat-1", "sat-1.5", "ima-ce", "ima-soft-margin", "mma"];
    let all = records("docs/results/classification");
    let path = "docs/results/classification.md";
    let left = |run: &Value, epsilon: f64| {
        let worst = run["worst"].as_array().unwrap().iter();
        let mut found = worst.filter(|one| (one["epsilon"].as_f64().unwrap() - epsilon).abs() < 1e-6);
        found.next().expect("every radius")["accuracy"].as_f64().unwrap()
    };
    let lines = NAMES.iter().filter_map(|&name| {
        let scored = Scored { recipe: name, runs: runs(&all, name) };
        (!scored.runs.is_empty()).then(|| {
            let head =
                [format!("`{name}`"), scored.runs.len().to_string(), format!("{:.2}", mean(&scored.of(passes)) / 1e6)];
            let attacked = [0.25, 0.5, 1.0, 1.5].map(|epsilon| percent(&scored.of(|run| left(run, epsilon))));
            let calibration = percent(&scored.of(|run| average(run, "none", "calibration_error")));
            [&head[..], &[percent(&scored.of(clean))], &attacked, &[calibration]].concat()
        })
    });
    let head = ["trained by", "seeds", "passes, 10⁶", "clean", "0.25", "0.5", "1", "1.5", "ECE clean"];
    settle(path, &put(&read(path), path, "The table", &table(&head, lines.collect())), REMAKE);
}
