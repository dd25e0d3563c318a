//! No attack is plain PGD by another name.

use fireproof_attacks::{
    Attack, AttackConfig, Context, GradientAttack, build, fit, inventory, list, methods::pgd::Pgd, objective::Weighted,
};
use fireproof_tensor::{Batch, Victim, victim};

use crate::support::{Network, batch, config, floats};

/// What a file would register if it were replaced by PGD's: the same name, and with it the same random starts.
fn replaced(settings: &AttackConfig) -> Box<dyn Attack> {
    let settings = AttackConfig { options: Default::default(), ..settings.clone() };
    Box::new(GradientAttack::new(&settings, Weighted(Pgd)).unwrap())
}

/// Whether an attack and PGD with these settings give the same images.
fn is_pgd(settings: &AttackConfig, model: &dyn Victim, batch: &Batch) -> bool {
    let run = |attack: &dyn Attack| floats(&attack.run(model, batch, &Context::new(3)).unwrap().images);
    let mut attack = build(settings).unwrap();
    if attack.learns().is_some() {
        // One perturbation for the whole batch; without anything learned it is one an image, which is BIM.
        attack = fit(&*attack, model, std::slice::from_ref(batch), &Context::new(3)).unwrap();
    }
    let (own, pgd) = (run(&*attack), run(&*replaced(settings)));
    let differ = own.iter().zip(&pgd).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
    println!("{}: {differ} of {} values differ from PGD's", settings.name, own.len());
    differ <= own.len() / 200
}

/// The attack's own settings, with few steps where it takes many.
fn own(name: &str) -> AttackConfig {
    let own = config(name);
    AttackConfig { steps: own.steps.min(20), ..own }
}

#[test]
fn every_attack_is_told_from_plain_pgd_with_its_own_settings() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    // A fifth of the labels is wrong from the start: what looks at correct pixels alone differs at the first step.
    let batch = batch(7, &model, 4, [2, 3, 16, 20]);
    let mut same = Vec::new();
    for registration in list() {
        let settings = own(registration.name);
        if is_pgd(&settings, &model, &batch) {
            same.push(registration.name);
        }
    }
    // BIM is PGD with another start, told apart below; `from-elsewhere` is the planted bug, see `naming.rs`.
    assert_eq!(same, ["bim", "from-elsewhere", "pgd"]);
}

#[test]
fn bim_is_told_from_pgd_by_its_defaults() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let batch = batch(7, &model, 4, [2, 3, 16, 20]);
    // A file replaced as a whole would bring PGD's defaults along.
    let pgd = AttackConfig { name: "bim".into(), ..config("pgd") };
    let run = |attack: &dyn Attack| floats(&attack.run(&model, &batch, &Context::new(3)).unwrap().images);
    assert_ne!(run(&*build(&config("bim")).unwrap()), run(&*replaced(&pgd)));
}

#[test]
fn an_objective_by_name_is_not_cross_entropy() {
    let network = Network::diverse(3, 4);
    let model = victim(|x| network.forward(x));
    let batch = batch(7, &model, 4, [2, 3, 16, 20]);
    let run = |objective: &str| {
        let options = [("objective".to_string(), objective.to_string())].into();
        let settings = AttackConfig { steps: 6, options, ..config("apgd") };
        floats(&build(&settings).unwrap().run(&model, &batch, &Context::new(3)).unwrap().images)
    };
    let plain = run("ce");
    let objectives = inventory::iter::<fireproof_attacks::objective::NamedObjective>.into_iter();
    let same: Vec<&str> = objectives.map(|o| o.name).filter(|name| run(name) == plain).collect();
    assert_eq!(same, ["ce"]);
}
