//! Objectives by name, for attacks that go with any of them.

use super::Objective;
use crate::{AttackConfig, OptionSpec, Result};

/// Makes an objective known by name, so that `apgd.objective=js` finds it. One a file, with `inventory::submit!`:
///
/// ```
/// use fireproof_attacks::{inventory, methods::pgd::Pgd, objective::{NamedObjective, Weighted}};
///
/// inventory::submit! {
///     NamedObjective { name: "my-loss", options: &[], build: |_| Ok(Box::new(Weighted(Pgd))) }
/// }
/// # fn main() {}
/// ```
///
/// It is an inventory of its own, not a field of [`Registration`](crate::Registration): most attacks have no objective
/// that another could use.
pub struct NamedObjective {
    /// The name; that of the attack which pairs it with the step of PGD, where there is one.
    pub name: &'static str,
    /// The options that it reads. An attack with an `objective` option has those of the chosen objective too.
    pub options: &'static [OptionSpec],
    /// Builds it from the options.
    pub build: fn(&AttackConfig) -> Result<Box<dyn Objective>>,
}

inventory::collect!(NamedObjective);

/// The name of the option that chooses one.
pub(crate) const OPTION: &str = "objective";

/// What [`OptionSpec::values`] says of it.
pub(crate) const VALUES: &str = "ce, or the name of another objective, e.g. masked-ce, js, tsallis, segpgd";

/// The objective that the settings' option `objective` names; `ce`, plain cross-entropy, unless said.
///
/// ```
/// use fireproof_attacks::{AttackConfig, objective::chosen};
/// let mut config = AttackConfig::new("pgd")?;
/// config.options.insert("objective".into(), "dice".into());
/// let dice = chosen(&config)?;
/// # let _ = dice;
/// # Ok::<(), fireproof_attacks::Error>(())
/// ```
///
/// # Errors
/// [`Error::Setting`](crate::Error::Setting) with the names that exist.
pub fn chosen(config: &AttackConfig) -> Result<Box<dyn Objective>> {
    let name = config.options.get(OPTION).map_or("ce", String::as_str);
    match find(name) {
        Some(named) => (named.build)(config),
        None => {
            let mut known: Vec<_> = inventory::iter::<NamedObjective>.into_iter().map(|o| o.name).collect();
            known.sort_unstable();
            Err(config.setting(OPTION, format!("'{name}'"), &format!("one of {}", known.join(", "))))
        }
    }
}

/// The options of the objective that the settings name.
pub(crate) fn options(config: &AttackConfig) -> &'static [OptionSpec] {
    config.options.get(OPTION).and_then(|name| find(name)).map_or(&[], |named| named.options)
}

fn find(name: &str) -> Option<&'static NamedObjective> {
    inventory::iter::<NamedObjective>.into_iter().find(|o| o.name == name)
}
