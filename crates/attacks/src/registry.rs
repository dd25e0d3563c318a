//! Attacks by name.

use crate::{Attack, AttackConfig, Error, Result, objective::named, unit::OfUnit};

/// What makes an attack known by name. One a file, with `inventory::submit!`:
///
/// ```
/// use fireproof_attacks::{GradientAttack, Registration, inventory, objective::Weighted, methods::pgd::Pgd};
///
/// inventory::submit! {
///     Registration {
///         name: "my-pgd",
///         about: "PGD by another name",
///         paper: "https://arxiv.org/abs/1706.06083",
///         options: &[],
///         defaults: |config| config.steps = 20,
///         build: |config| Ok(Box::new(GradientAttack::new(config, Weighted(Pgd))?)),
///     }
/// }
/// # fn main() { assert!(fireproof_attacks::list().iter().any(|a| a.name == "my-pgd")); }
/// ```
///
/// The linker drops a crate that nothing refers to: a binary names it once, `use my_attack as _;`.
pub struct Registration {
    /// The name on the command line.
    pub name: &'static str,
    /// One line on what it does.
    pub about: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    /// Settings that only this attack has.
    pub options: &'static [OptionSpec],
    /// Sets what differs from [`AttackConfig::new`]'s general defaults.
    pub defaults: fn(&mut AttackConfig),
    /// Puts the attack together. The settings have passed [`AttackConfig::check`].
    pub build: fn(&AttackConfig) -> Result<Box<dyn Attack>>,
}

/// A setting that only one attack has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// The name in [`AttackConfig::options`].
    pub name: &'static str,
    /// The accepted values, the default first.
    pub values: &'static str,
}

inventory::collect!(Registration);

/// Every registered attack, by name.
pub fn list() -> Vec<&'static Registration> {
    let mut all: Vec<_> = inventory::iter::<Registration>.into_iter().collect();
    all.sort_by_key(|r| r.name);
    all
}

/// The option that names the attack which another one is wrapped around.
pub(crate) const INNER: &str = "attack";

/// Builds a registered attack.
///
/// # Errors
/// [`Error::UnknownAttack`] with the names that exist, [`Error::Setting`] for a setting outside its range or an option
/// that the attack does not have.
pub fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    let registration = find(&config.name)?;
    config.check()?;
    let mut options: Vec<&OptionSpec> = registration.options.iter().collect();
    if options.iter().any(|o| o.name == INNER) {
        // An attack around another one has that one's options too.
        let inner = config.options.get(INNER).and_then(|name| find(name).ok());
        options.extend(inner.map_or(&[][..], |inner| inner.options));
    }
    if options.iter().any(|o| o.name == named::OPTION) {
        options.extend(named::options(config));
    }
    if let Some((name, value)) = config.options.iter().find(|(n, _)| options.iter().all(|o| o.name != *n)) {
        let known: Vec<_> = options.iter().map(|o| format!("{} ({})", o.name, o.values)).collect();
        let expected = if known.is_empty() { "no options".to_string() } else { known.join(", ") };
        return Err(config.setting("options", format!("{name} = '{value}'"), &expected));
    }
    Ok(Box::new(OfUnit { attack: (registration.build)(config)?, unit: config.unit, range: config.range }))
}

pub(crate) fn find(name: &str) -> Result<&'static Registration> {
    inventory::iter::<Registration>.into_iter().find(|r| r.name == name).ok_or_else(|| Error::UnknownAttack {
        name: name.to_string(),
        known: list().iter().map(|r| r.name).collect::<Vec<_>>().join(", "),
    })
}
