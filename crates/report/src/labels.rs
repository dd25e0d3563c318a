//! How names and numbers are shown to people.

use crate::Row;

/// An attack's name as papers write it; an unknown name as it is.
pub fn attack_name(name: &str) -> &str {
    const KNOWN: [(&str, &str); 22] = [
        ("none", "Clean"),
        ("noise", "Noise"),
        ("fgsm", "FGSM"),
        ("segfgsm", "SegFGSM"),
        ("mi-fgsm", "MI-FGSM"),
        ("bim", "BIM"),
        ("pgd", "PGD"),
        ("segpgd", "SegPGD"),
        ("cospgd", "CosPGD"),
        ("apgd", "APGD"),
        ("padam", "PAdam"),
        ("sea", "SEA"),
        ("sea+", "SEA+"),
        ("dag", "DAG"),
        ("cw", "CW"),
        ("deepfool", "DeepFool"),
        ("alma-prox", "ALMA prox"),
        ("fmn", "FMN"),
        ("pdpgd", "PDPGD"),
        ("dla", "DLA"),
        ("di-fgsm", "DI-FGSM"),
        ("ti-fgsm", "TI-FGSM"),
    ];
    KNOWN.iter().find(|(known, _)| *known == name).map_or(name, |(_, shown)| shown)
}

/// Attack and steps as in the SegPGD paper's tables, `PGD20`; a name of our own gets a space, `square 500`.
pub fn attack(row: &Row) -> String {
    let name = attack_name(&row.attack);
    match row.steps {
        0 | 1 => name.to_owned(),
        steps if name == row.attack || name.ends_with(|c: char| !c.is_alphabetic()) => format!("{name} {steps}"),
        steps => format!("{name}{steps}"),
    }
}

/// The norm's sign: `linf` → `ℓ∞`.
pub fn norm(name: &str) -> &str {
    match name {
        "linf" => "ℓ∞",
        "l2" => "ℓ2",
        "l1" => "ℓ1",
        other => other,
    }
}

/// Whether the row's images were made elsewhere.
pub(crate) fn is_given(row: &Row) -> bool {
    row.attack == "given" || row.attack.starts_with("given ")
}

/// Norm and radius, `ℓ∞ ε = 8/255`; images that were made elsewhere and what no radius bounds (a patch) have neither.
pub fn threat(row: &Row) -> String {
    let norm = row.norm.as_deref().map_or("", norm);
    match row.epsilon {
        Some(epsilon) => format!("{norm} ε = {}", fraction(epsilon)).trim_start().to_owned(),
        None if is_given(row) => "images made elsewhere".to_owned(),
        None if norm.is_empty() => "no radius".to_owned(),
        None => norm.to_owned(),
    }
}

/// A multiple of 1/255 (or a quarter of it) as such; another number as a decimal.
///
/// ```
/// use fireproof_report::labels::fraction;
///
/// assert_eq!([fraction(8.0 / 255.0), fraction(0.5 / 255.0), fraction(0.03)], ["8/255", "0.5/255", "0.03"]);
/// ```
pub fn fraction(value: f64) -> String {
    let quarters = value * 255.0 * 4.0;
    let nearest = quarters.round();
    if value != 0.0
        && nearest != 0.0
        && (quarters - nearest).abs() < 1e-6 * nearest.abs()
        && nearest.abs() <= 4.0 * 255.0
    {
        format!("{}/255", nearest / 4.0)
    } else {
        significant(value)
    }
}

/// At most four significant digits, without trailing zeros.
pub fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A score in percent with two decimals; a dash where there is none.
pub fn percent(score: Option<f64>) -> String {
    score.map_or("–".to_owned(), |score| format!("{:.2}", 100.0 * score))
}

/// `0.42 s`, `3 min 05 s`, `2 h 10 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{} s", significant((seconds * 100.0).round() / 100.0)),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}
