//! Renders a report with made-up numbers into a folder, to look at every table and figure without running an attack:
//! `cargo run --release -p fireproof-report --example gallery -- FOLDER`

use std::collections::BTreeMap;
use std::path::PathBuf;

use fireproof_metrics::ClassCounts;
use fireproof_report::{Check, Class, Format, Panel, Results, Row, RowKey, Run, Status, Table, write_all};

const CLASSES: [(&str, [u8; 3], f64); 8] = [
    ("road", [128, 64, 128], 0.97),
    ("sidewalk", [244, 35, 232], 0.83),
    ("building", [70, 70, 70], 0.91),
    ("vegetation", [107, 142, 35], 0.90),
    ("sky", [70, 130, 180], 0.95),
    ("car", [0, 0, 142], 0.86),
    ("pole", [190, 153, 153], 0.49),
    ("person", [220, 20, 60], 0.64),
];
const STEPS: [u32; 7] = [3, 5, 7, 10, 20, 40, 100];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("give a folder to write to")?);
    let results = results();
    let panels = [("standard", 1.0), ("segpgd3-at", 0.25), ("standard", 0.8)];
    let panels: Vec<Panel> = panels.iter().enumerate().map(|(i, &(name, harm))| panel(i, name, harm)).collect();
    for path in write_all(&folder, &results, &panels)? {
        println!("{}", path.display());
    }
    for format in [Format::Markdown, Format::Latex] {
        Table::miou(&results, true).iter().for_each(|table| println!("\n{}", table.render(format)));
    }
    Ok(())
}

fn results() -> Results {
    let mut rows = Vec::new();
    // The last value of each curve, and how far the first is above it.
    let models = [
        ("standard", 0.79, [0.031, 0.008, 0.012]),
        ("pgd3-at", 0.741, [0.29, 0.262, 0.27]),
        ("segpgd3-at", 0.735, [0.317, 0.301, 0.306]),
    ];
    for (training, clean, ends) in models {
        rows.push(row(training, "none", 0, clean));
        rows.push(row(training, "fgsm", 1, clean * if training == "standard" { 0.45 } else { 0.72 }));
        for (attack, end) in ["pgd", "segpgd", "cospgd"].into_iter().zip(ends) {
            let start = if training == "standard" { 0.11 + end } else { 0.2 + end };
            let at = |steps: u32| end + (start - end) * (3.0 / f64::from(steps)).powf(0.9);
            rows.extend(STEPS.map(|steps| row(training, attack, steps, at(steps))));
        }
    }
    let check = |name: &str, status, detail: &str| Check { name: name.into(), status, detail: detail.into() };
    let run = Run {
        version: "0.1.0".into(),
        commit: "51d0a1c".into(),
        command: "cargo xtask bench --data scenes --steps 3,5,7,10,20,40,100 --out out/gallery".into(),
        device: "flex".into(),
        machine: "2 cores, 8 GiB".into(),
        seed: 7,
        unit: "pixel".into(),
        range: [0.0, 1.0],
        weights: BTreeMap::from(models.map(|(name, ..)| (format!("unet-{name}.safetensors"), "0f3a".repeat(16)))),
        classes: CLASSES.map(|(name, color, _)| Class { name: name.into(), color }).into(),
        measured: Vec::new(),
        sanity: vec![
            check("Noise hurts less than attacks", Status::Passed, "noise 76.1 %, weakest attack 34.0 %"),
            check("Perturbation stays in the ball", Status::Passed, "largest 0.0313725, radius 0.0313725"),
            check(
                "Three attacks give three numbers",
                Status::Failed,
                "SegPGD and CosPGD agree to 0.01 points at 3 steps",
            ),
            check("Accuracy falls to zero as ε grows", Status::NotRun, "part of --preset masking"),
        ],
        not_run: vec![
            "Adaptive step sizes and worst case over several objectives (--preset standard).".into(),
            "Black-box attacks and transfer (--preset masking).".into(),
        ],
    };
    Results::new(run, rows)
}

/// A row whose mIoU is near `miou`, with hard classes falling first.
fn row(training: &str, attack: &str, steps: u32, miou: f64) -> Row {
    let pixels = 1_000_000u64;
    let power = miou.ln() / 0.819f64.ln();
    let intersections: Vec<u64> = CLASSES
        .iter()
        .map(|&(_, _, iou)| {
            let iou = iou.powf(power);
            (2.0 * iou / (1.0 + iou) * pixels as f64) as u64
        })
        .collect();
    let all = vec![pixels; CLASSES.len()];
    let counts = ClassCounts::from_parts(intersections, all.clone(), all).expect("consistent counts");
    let attacked = attack != "none";
    let epsilon = 8.0 / 255.0;
    let key = RowKey {
        model: "unet".into(),
        training: training.into(),
        weights: format!("unet-{training}.safetensors"),
        dataset: "scenes".into(),
        split: "test".into(),
        device: "flex".into(),
        precision: "f32".into(),
        attack: attack.into(),
        norm: attacked.then(|| "linf".into()),
        epsilon: attacked.then_some(epsilon),
        alpha: attacked.then_some(if steps == 1 { epsilon } else { 0.01 }),
        steps,
        restarts: u32::from(attacked),
        iterate: attacked.then(|| "last".into()),
        start: attacked.then(|| if steps == 1 { "zero" } else { "random" }.into()),
        targeted: false,
        seed: 7,
        options: BTreeMap::new(),
    };
    let images = 24;
    let passes = (images * u64::from(steps + 1), images * u64::from(steps));
    Row::new(&key, images, &counts, passes, 0.04 * (passes.0 + 2 * passes.1) as f64)
}

/// A street with a house and a car; `harm` is the share of the picture that the attack flips.
fn panel(index: usize, training: &str, harm: f32) -> Panel {
    let (height, width) = (120usize, 160usize);
    let noise = |x: usize, y: usize, c: usize| {
        let mut z = (x * 7919 + y * 104_729 + c * 1_299_709 + index * 15_485_863) as u64;
        z = (z ^ (z >> 13)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((z >> 40) & 0xff) as f32 / 255.0 - 0.5
    };
    let label = |x: usize, y: usize| -> u8 {
        let (u, v) = (x as f32 / width as f32 + 0.11 * index as f32, y as f32 / height as f32);
        match () {
            () if (0.30..0.315).contains(&u) && v > 0.25 => 6,
            () if (0.55..0.8).contains(&u) && (0.6..0.75).contains(&v) => 5,
            () if (u - 0.42).hypot(v - 0.6) < 0.05 => 7,
            () if v > 0.7 && v < 0.72 => 255,
            () if v > 0.72 => 0,
            () if v > 0.66 => 1,
            () if u < 0.28 && v > 0.2 => 2,
            () if (u - 0.85).hypot(v - 0.5) < 0.22 => 3,
            () => 4,
        }
    };
    let map =
        |f: &dyn Fn(usize, usize) -> u8| (0..height * width).map(|p| f(p % width, p / width)).collect::<Vec<u8>>();
    let labels = map(&label);
    let before = map(&|x, y| {
        let shifted = label((x + 1).min(width - 1), y);
        if shifted == 255 { 0 } else { shifted }
    });
    let after = map(&|x, y| {
        let wave = (x as f32 * 0.09 + index as f32).sin() * (y as f32 * 0.12).cos();
        let flip = wave.abs() < harm * 0.7;
        if flip { (((x / 23) * 5 + (y / 17) * 3) % 9) as u8 } else { before[y * width + x] }
    });
    let image: Vec<f32> = (0..3 * height * width)
        .map(|at| {
            let (c, p) = (at / (height * width), at % (height * width));
            let (x, y) = (p % width, p / width);
            let base = CLASSES.get(usize::from(labels[p])).map_or(90, |class| class.1[c]);
            (f32::from(base) / 255.0 * 0.8 + 0.1 + 0.08 * noise(x, y, c) - 0.1 * y as f32 / height as f32)
                .clamp(0.0, 1.0)
        })
        .collect();
    let adversarial = image
        .iter()
        .enumerate()
        .map(|(at, value)| {
            let p = at % (height * width);
            let sign = noise(p % width / 2, p / width / 2, 7 + at / (height * width)).signum();
            (value + sign * 8.0 / 255.0).clamp(0.0, 1.0)
        })
        .collect();
    Panel {
        caption: format!("unet · {training} · SegPGD20, ℓ∞ ε = 8/255 · scene {index:04}"),
        height,
        width,
        range: [0.0, 1.0],
        image,
        adversarial,
        labels,
        before,
        after,
    }
}
