//! The ten sanity checks: would the numbers betray a broken attack, or a model that masks its gradients?
//!
//! After Athalye, Carlini, Wagner. *Obfuscated Gradients Give a False Sense of Security*, ICML 2018,
//! <https://arxiv.org/abs/1802.00420>, and Carlini et al. *On Evaluating Adversarial Robustness*, 2019,
//! <https://arxiv.org/abs/1902.06705>. Each function here is arithmetic over numbers that were measured elsewhere; [`from_rows`]
//! takes those of five checks from the rows of a run, and [`judge`] joins them with what was measured for the checks alone. A
//! check that failed means: do not report the numbers.
//!
//! Accuracy is pixel accuracy, pooled. A *point* is a hundredth of it. The limits of half a point (restarts, the last
//! doubling of the iterations) are the protocol's; those of noise, of zero gradients and of "zero" are ours.

use fireproof_metrics::ClassCounts;

use crate::layout::{Group, same_model};
use crate::{Check, Measured, Row, Status, escape, labels};

/// Half a point: what restarts and a doubling of the iterations may still change, and what may be chance between two attacks.
pub const HALF_POINT: f64 = 0.005;

/// Noise may take at most this share of what the attack takes.
pub const NOISE_SHARE: f64 = 0.25;

/// The radius at which nothing should be left, in pixel units.
pub const LARGE_RADIUS: f64 = 64.0 / 255.0;

/// "Nothing": a hundredth of the pixels.
pub const NOTHING: f64 = 0.01;

/// More zeros than this among the values of the input's gradient say that the gradient is masked.
pub const ZERO_GRADIENTS: f64 = 0.1;

/// From so many iterations on, an attack should have converged.
pub const CONVERGED: u32 = 100;

/// Rounding of the sum of a pixel and a perturbation in `f32`.
pub const ROUNDING: f64 = 1e-6;

/// One of the ten checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// See [`noise`].
    Noise,
    /// See [`radius`].
    Radius,
    /// See [`iterations`].
    Iterations,
    /// See [`transfer`].
    Transfer,
    /// See [`different`].
    Different,
    /// See [`bounds`].
    Bounds,
    /// See [`batch`].
    Batch,
    /// See [`gradients`].
    Gradients,
    /// See [`restarts`].
    Restarts,
    /// See [`untouched`].
    Untouched,
}

impl Kind {
    /// All ten, in the protocol's order.
    pub const ALL: [Self; 10] = [
        Self::Noise,
        Self::Radius,
        Self::Iterations,
        Self::Transfer,
        Self::Different,
        Self::Bounds,
        Self::Batch,
        Self::Gradients,
        Self::Restarts,
        Self::Untouched,
    ];

    /// The [`Check::name`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Noise => "Noise hurts far less than attacks",
            Self::Radius => "Accuracy falls to 0 as ε grows",
            Self::Iterations => "More iterations never help the defender",
            Self::Transfer => "White box hurts at least as much as transfer and black box",
            Self::Different => "Three attacks give three different numbers",
            Self::Bounds => "Perturbations stay within ε and pixels within their range",
            Self::Batch => "The batch size does not matter",
            Self::Gradients => "The gradient is not zero",
            Self::Restarts => "Restarts change little",
            Self::Untouched => "The attack leaves the model as it was",
        }
    }

    /// The check, not run for a reason.
    pub fn not_run(self, why: impl Into<String>) -> Check {
        Check { name: self.name().into(), status: Status::NotRun, detail: why.into() }
    }

    fn verdict(self, passed: bool, detail: String) -> Check {
        let status = if passed { Status::Passed } else { Status::Failed };
        Check { name: self.name().into(), status, detail }
    }
}

/// All ten in order: the checks in `found`, and "not run" for the others. Of two of one kind the worse counts.
pub fn complete(found: &[Check]) -> Vec<Check> {
    let of = |kind: Kind| {
        let same = found.iter().filter(|check| check.name == kind.name());
        let rank =
            |check: &&Check| [Status::Failed, Status::NotRun, Status::Passed].map(|status| check.status != status);
        same.min_by_key(rank).cloned().unwrap_or_else(|| kind.not_run("Not part of this run."))
    };
    Kind::ALL.map(of).into()
}

/// What `--strict` complains about: every check that did not pass.
pub fn not_passed(checks: &[Check]) -> Vec<&Check> {
    checks.iter().filter(|check| check.status != Status::Passed).collect()
}

/// The checks as a Markdown list, for the terminal and for pages of results.
pub fn markdown(checks: &[Check]) -> String {
    let mut text = "**Sanity checks**\n\n".to_owned();
    for check in checks {
        let [name, detail] = [&check.name, &check.detail].map(|text| escape::markdown(text));
        text += &format!("- {}: {name}. {detail}\n", check.status.name());
    }
    text
}

/// Check 1. Random noise of size ε hurts far less than the attack, else the attack does no better than chance.
pub fn noise(clean: f64, noisy: f64, attacked: f64) -> Check {
    let (by_noise, by_attack) = (clean - noisy, clean - attacked);
    let detail = format!(
        "Noise takes {} of {} points of accuracy, the strongest attack {}.",
        points(by_noise),
        points(clean),
        points(by_attack)
    );
    if clean <= NOTHING {
        return Kind::Noise
            .not_run(format!("The clean accuracy is {} points: there is nothing to take.", points(clean)));
    }
    Kind::Noise.verdict(by_attack > 0.0 && by_noise <= NOISE_SHARE * by_attack, detail)
}

/// Check 2. As the radius grows the accuracy falls, to 0 where any image can become any other. `points` are radius and
/// accuracy under the strongest attack, in any order.
pub fn radius(points: &[(f64, f64)]) -> Check {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let told = sorted
        .iter()
        .map(|&(epsilon, accuracy)| format!("{} at {}", self::points(accuracy), labels::fraction(epsilon)));
    let told = told.collect::<Vec<_>>().join(", ");
    if let Some(pair) = sorted.windows(2).find(|pair| rises(pair[0].1, pair[1].1)) {
        let (from, to) = (labels::fraction(pair[0].0), labels::fraction(pair[1].0));
        let detail =
            format!("The accuracy rises from ε = {from} to {to}, though the larger ball holds the smaller: {told}.");
        return Kind::Radius.verdict(false, detail);
    }
    match sorted.last() {
        Some(&(epsilon, accuracy)) if epsilon >= LARGE_RADIUS * (1.0 - 1e-6) => Kind::Radius.verdict(
            accuracy <= NOTHING,
            format!("Accuracy in points: {told}; at most {} is expected at the end.", self::points(NOTHING)),
        ),
        _ => Kind::Radius.not_run(format!("No attack was run at ε = {} or more.", labels::fraction(LARGE_RADIUS))),
    }
}

/// Check 3. An attack with more iterations is at least as strong, and from 100 on a doubling changes less than half a point.
/// `points` are iterations and accuracy of one attack, in any order.
pub fn iterations(points: &[(u32, f64)]) -> Check {
    let mut sorted = points.to_vec();
    sorted.sort_by_key(|point| point.0);
    let told = sorted.iter().map(|&(steps, accuracy)| format!("{} after {steps}", self::points(accuracy)));
    let told = told.collect::<Vec<_>>().join(", ");
    let (Some(&(last, end)), true) = (sorted.last(), sorted.len() > 1) else {
        return Kind::Iterations.not_run("No attack was run at two numbers of iterations.");
    };
    if let Some(pair) = sorted.windows(2).find(|pair| rises(pair[0].1, pair[1].1)) {
        let (from, to) = (pair[0].0, pair[1].0);
        return Kind::Iterations.verdict(false, format!("From {from} to {to} iterations the accuracy rises: {told}."));
    }
    let half = sorted.iter().rev().find(|point| point.0 <= last / 2).filter(|point| point.0 > 0);
    match half {
        Some(&(steps, accuracy)) if last >= CONVERGED => {
            let doublings = (f64::from(last) / f64::from(steps)).log2();
            let change = (accuracy - end) / doublings;
            let detail =
                format!("Accuracy in points: {told}; {} for each doubling from {steps} on.", self::points(change));
            Kind::Iterations.verdict(change < HALF_POINT, detail)
        }
        _ => Kind::Iterations.verdict(true, format!("Accuracy in points: {told}; too few to tell convergence.")),
    }
}

/// Check 4. Whoever sees the gradient hurts at least as much as those who do not, else the gradient misleads. `others` are
/// name and accuracy of each transfer and black-box attack.
pub fn transfer(white_box: f64, others: &[(&str, f64)]) -> Check {
    let Some(&(name, least)) = others.iter().min_by(|a, b| a.1.total_cmp(&b.1)) else {
        return Kind::Transfer.not_run("No transfer or black-box attack was run.");
    };
    let detail = format!("White box leaves {} points of accuracy, {name} {}.", points(white_box), points(least));
    Kind::Transfer.verdict(white_box <= least + HALF_POINT, detail)
}

/// Check 5. Attacks with different losses give different numbers: equal ones say that a weight map multiplied a loss that was
/// reduced to a scalar before. `numbers` are name, accuracy and mIoU of at least three attacks with equal settings.
pub fn different(numbers: &[(&str, f64, f64)]) -> Check {
    if numbers.len() < 3 {
        return Kind::Different.not_run("Fewer than three attacks were run with the same few steps.");
    }
    if numbers.iter().all(|&(_, accuracy, _)| accuracy <= NOTHING) {
        return Kind::Different.not_run("Every attack leaves next to nothing, so equal numbers would say nothing.");
    }
    let pairs = numbers.iter().enumerate().flat_map(|(index, a)| numbers[index + 1..].iter().map(move |b| (a, b)));
    let mut equal = pairs.filter(|(a, b)| a.1 == b.1 && a.2 == b.2).map(|(a, b)| format!("{} and {}", a.0, b.0));
    let told = numbers
        .iter()
        .map(|&(name, accuracy, _)| format!("{} {name}", points(accuracy)))
        .collect::<Vec<_>>()
        .join(", ");
    match equal.next() {
        Some(pair) => Kind::Different.verdict(false, format!("{pair} give the same numbers to the last bit: {told}.")),
        None => Kind::Different.verdict(true, format!("Accuracy in points: {told}.")),
    }
}

/// Check 5 where an image has one label: weights of pixels change no sign of its gradient, so such attacks are one and the same.
pub fn same_by_design() -> Check {
    Kind::Different.not_run("One label an image: weights of pixels change no step, so the three attacks are the same.")
}

/// Check 6. The largest perturbation is within the radius, the smallest and the largest pixel within the valid range.
pub fn bounds(largest: f64, epsilon: f64, [lowest, highest]: [f64; 2], [low, high]: [f64; 2]) -> Check {
    let inside = largest <= epsilon + ROUNDING && lowest >= low && highest <= high;
    let detail = format!(
        "Largest perturbation {largest:.7} of {epsilon:.7}, pixels {lowest:.7} to {highest:.7} within {low} to {high}."
    );
    Kind::Bounds.verdict(inside, detail)
}

/// Check 7. An image gets the same result alone and in a batch. Both lists hold name and counts of the same images in the
/// same order; `tolerance` is the difference in an image's pixel accuracy that the device explains, 0 where it is exact.
pub fn batch(alone: &[(&str, &ClassCounts)], together: &[(&str, &ClassCounts)], tolerance: f64) -> Check {
    if alone.is_empty() {
        return Kind::Batch.not_run("No image was attacked alone.");
    }
    let names = |list: &[(&str, &ClassCounts)]| list.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
    if names(alone) != names(together) {
        return Kind::Batch.verdict(false, "Other images came back from the batch than went in alone.".into());
    }
    let accuracy = |counts: &ClassCounts| counts.pixel_accuracy().unwrap_or(0.0);
    let equal =
        |a: &ClassCounts, b: &ClassCounts| a == b || (accuracy(a) - accuracy(b)).abs() <= tolerance && tolerance > 0.0;
    match alone.iter().zip(together).find(|(a, b)| !equal(a.1, b.1)) {
        Some((a, b)) => {
            let (name, a, b) = (a.0, points(accuracy(a.1)), points(accuracy(b.1)));
            Kind::Batch.verdict(false, format!("Image {name} has {a} points of accuracy alone and {b} in a batch."))
        }
        None => {
            let images =
                if alone.len() == 1 { "1 image has".to_owned() } else { format!("{} images have", alone.len()) };
            Kind::Batch.verdict(true, format!("{images} the same counts alone and in a batch."))
        }
    }
}

/// Check 8. The gradient of the cross-entropy at the clean image is not zero in many of its `values`.
pub fn gradients(zeros: u64, values: u64) -> Check {
    if values == 0 {
        return Kind::Gradients.not_run("No gradient was looked at.");
    }
    let share = zeros as f64 / values as f64;
    let detail = format!(
        "{:.2} % of the gradient's values are zero; at most {:.0} % are expected.",
        100.0 * share,
        100.0 * ZERO_GRADIENTS
    );
    Kind::Gradients.verdict(share <= ZERO_GRADIENTS, detail)
}

/// Check 9. The worst of several random starts, image by image, is at most half a point below a single start.
pub fn restarts(one: f64, worst: f64, starts: u32) -> Check {
    if starts < 3 {
        return Kind::Restarts.not_run("Fewer than 3 random starts were run.");
    }
    let detail =
        format!("Accuracy in points: {} from one start, {} from the worst of {starts}.", points(one), points(worst));
    Kind::Restarts.verdict(one - worst <= HALF_POINT, detail)
}

/// Check 10. Parameters and running statistics have the same digest before and after the attack.
pub fn untouched(before: &str, after: &str) -> Check {
    let passed = before == after;
    let detail = match passed {
        true => format!("Parameters and statistics kept their digest {}.", short(before)),
        false => format!("Parameters or statistics changed: digest {} before, {} after.", short(before), short(after)),
    };
    Kind::Untouched.verdict(passed, detail)
}

/// Radius and accuracy.
type Points = Vec<(f64, f64)>;

/// Checks 1 to 5 as far as the rows of a run tell them, per model; a check that they tell nothing about is "not run".
///
/// A check passes when every model passed it somewhere and none failed it anywhere. Rows of images made elsewhere have no
/// radius and are left out; `transfer…` and attacks without a backward pass count as black box.
pub fn from_rows(rows: &[Row]) -> Vec<Check> {
    judge(rows, &[]).into_iter().take(FROM_ROWS.len()).collect()
}

/// All ten in order, from the rows of a run and what was measured besides, by the same rule.
pub fn judge(rows: &[Row], measured: &[Measured]) -> Vec<Check> {
    let mut found = by_model(rows);
    for one in measured {
        let same = |(model, _): &&mut (Model, Vec<Check>)| {
            let place = (one.device.as_str(), one.precision.as_str());
            (model.name, model.training, model.weights) == (&one.model, &one.training, &one.weights)
                && (model.device, model.precision) == place
        };
        match found.iter_mut().find(same) {
            Some((_, checks)) => checks.extend(one.checks.iter().cloned()),
            None => found.push((Model::measured(one), one.checks.clone())),
        }
    }
    Kind::ALL.map(|kind| over_models(kind, &found)).into()
}

/// What rows alone can tell.
const FROM_ROWS: [Kind; 5] = [Kind::Noise, Kind::Radius, Kind::Iterations, Kind::Transfer, Kind::Different];

/// Whether rows alone can tell it.
pub(crate) fn follows_from_rows(check: &Check) -> bool {
    FROM_ROWS.iter().any(|kind| kind.name() == check.name)
}

/// Which model a check is about.
struct Model<'a> {
    name: &'a str,
    training: &'a str,
    weights: &'a str,
    device: &'a str,
    precision: &'a str,
}

impl<'a> Model<'a> {
    fn of(row: &'a Row) -> Self {
        let (device, precision) = (&row.device, &row.precision);
        Self { name: &row.model, training: &row.training, weights: &row.weights, device, precision }
    }

    fn measured(one: &'a Measured) -> Self {
        let (device, precision) = (&one.device, &one.precision);
        Self { name: &one.model, training: &one.training, weights: &one.weights, device, precision }
    }
}

/// The checks that the rows of each model tell.
fn by_model(rows: &[Row]) -> Vec<(Model<'_>, Vec<Check>)> {
    let mut models: Vec<&Row> = Vec::new();
    for row in rows {
        if !models.iter().any(|model| same_model(model, row)) {
            models.push(row);
        }
    }
    let groups = Group::split(rows);
    let of_model = |model: &Row| {
        let mut found = Vec::new();
        let mut by_norm: Vec<(Option<&str>, Points)> = Vec::new();
        for group in groups.iter().filter(|group| group.threat().is_some_and(|row| row.epsilon.is_some())) {
            let rows: Vec<&Row> = group.rows().iter().filter(|row| same_model(row, model)).copied().collect();
            found.extend(of_threat(group, &rows));
            let attacked = rows.iter().filter(|row| !row.is_clean());
            let strongest = attacked.filter_map(|row| Some((row.epsilon?, row.pixel_accuracy?)));
            if let Some(point) = strongest.min_by(|a, b| a.1.total_cmp(&b.1)) {
                let norm = rows.iter().find(|row| !row.is_clean()).and_then(|row| row.norm.as_deref());
                match by_norm.iter_mut().find(|(known, _)| *known == norm) {
                    Some((_, points)) => points.push(point),
                    None => by_norm.push((norm, vec![point])),
                }
            }
        }
        // 64/255 is a large radius in ℓ∞ only.
        found.extend(by_norm.iter().filter(|(norm, _)| *norm == Some("linf")).map(|(_, points)| radius(points)));
        found
    };
    models.iter().map(|model| (Model::of(model), of_model(model))).collect()
}

/// The checks of one model under one threat.
fn of_threat(group: &Group, rows: &[&Row]) -> Vec<Check> {
    let accuracy = |row: &&Row| row.pixel_accuracy;
    let black_box = |row: &Row| row.backward_passes == 0 || row.attack.starts_with("transfer");
    let is_noise = |row: &Row| row.attack == "noise";
    let clean = rows.iter().find(|row| row.is_clean()).and_then(accuracy);
    let attacked: Vec<&Row> = rows.iter().filter(|row| !row.is_clean() && !is_noise(row)).copied().collect();
    let least =
        |rows: &mut dyn Iterator<Item = &&Row>| rows.filter_map(|row| row.pixel_accuracy).min_by(f64::total_cmp);
    let mut found = Vec::new();

    let noisy = rows.iter().find(|row| is_noise(row)).and_then(accuracy);
    if let (Some(clean), Some(noisy), Some(strongest)) = (clean, noisy, least(&mut attacked.iter())) {
        found.push(noise(clean, noisy, strongest));
    }
    let others: Vec<(String, f64)> = attacked
        .iter()
        .filter(|row| black_box(row))
        .filter_map(|row| Some((labels::attack(row), row.pixel_accuracy?)))
        .collect();
    if let Some(white_box) = least(&mut attacked.iter().filter(|row| !black_box(row))) {
        let others: Vec<(&str, f64)> = others.iter().map(|(name, accuracy)| (name.as_str(), *accuracy)).collect();
        found.push(transfer(white_box, &others));
    }
    if let Some(&line) = rows.first() {
        for series in group.series() {
            let points: Vec<(u32, f64)> =
                group.points(line, series).iter().filter_map(|row| Some((row.steps, row.pixel_accuracy?))).collect();
            let check = iterations(&points);
            let detail = format!("{}: {}", group.series_label(series), check.detail);
            found.push(Check { detail, ..check });
        }
    }
    // Attacks that differ in their loss alone: PGD, SegPGD and CosPGD with the same few steps.
    let three = |steps: u32| {
        let row = |name: &str| attacked.iter().find(|row| row.attack == name && row.steps == steps).copied();
        ["pgd", "segpgd", "cospgd"].map(row)
    };
    let mut steps: Vec<u32> = attacked.iter().map(|row| row.steps).filter(|steps| (3..=20).contains(steps)).collect();
    steps.sort_unstable();
    steps.dedup();
    for steps in steps {
        let rows: Vec<&Row> = three(steps).into_iter().flatten().collect();
        let names: Vec<String> = rows.iter().map(|row| labels::attack(row)).collect();
        let numbers = rows.iter().zip(&names);
        let numbers: Vec<(&str, f64, f64)> =
            numbers.filter_map(|(row, name)| Some((name.as_str(), row.pixel_accuracy?, row.miou?))).collect();
        if numbers.len() == 3 {
            found.push(different(&numbers));
        }
    }
    found
}

/// One verdict from those of several models, threats and attacks.
fn over_models(kind: Kind, found: &[(Model, Vec<Check>)]) -> Check {
    let of = |checks: &[Check], status: Status| -> Vec<String> {
        let same = checks.iter().filter(|check| check.name == kind.name() && check.status == status);
        same.map(|check| check.detail.clone()).collect()
    };
    let verdict = |checks: &[Check]| {
        [Status::Failed, Status::Passed]
            .into_iter()
            .find(|&status| !of(checks, status).is_empty())
            .unwrap_or(Status::NotRun)
    };
    let verdicts: Vec<Status> = found.iter().map(|(_, checks)| verdict(checks)).collect();
    let status = [Status::Failed, Status::NotRun, Status::Passed].into_iter().find(|status| verdicts.contains(status));
    let Some(status) = status else { return kind.not_run(missing(kind)) };
    let mut details: Vec<String> = Vec::new();
    for ((model, checks), _) in found.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == status) {
        let precision = if model.precision == "f32" { String::new() } else { format!(" in {}", model.precision) };
        let prefix = format!("{} {}{precision}: ", model.name, model.training);
        let prefix = if found.len() > 1 { prefix } else { String::new() };
        // Rows that tell nothing are no news where something was measured.
        let mut sentences = of(checks, status);
        sentences.dedup();
        if sentences.is_empty() {
            sentences.push(missing(kind).to_owned());
        }
        details.push(prefix + &sentences.join(" "));
    }
    Check { name: kind.name().into(), status, detail: details.join(" ") }
}

/// Why the rows say nothing.
fn missing(kind: Kind) -> &'static str {
    match kind {
        Kind::Noise => "No noise of the attack's radius was run.",
        Kind::Radius => "No attack was run at a large radius.",
        Kind::Iterations => "No attack was run at two numbers of iterations.",
        Kind::Transfer => "No transfer or black-box attack was run.",
        Kind::Different => "PGD, SegPGD and CosPGD were not run with the same 3 to 20 steps.",
        _ => "Not part of this run.",
    }
}

/// Whether an accuracy that should fall rose by more than chance, or is not a number.
fn rises(before: f64, after: f64) -> bool {
    before.is_nan() || after.is_nan() || after > before + HALF_POINT
}

/// A fraction in points.
fn points(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
