//! Attacks by name, their settings, and the errors of wrong ones.

use fireproof_attacks::{
    AttackConfig, Context, GradientAttack, Iterate, Registration, Start, Target, build, inventory, list,
    methods::pgd::Pgd, objective::Weighted,
};
use fireproof_tensor::Norm;

use crate::support::config;

inventory::submit! {
    Registration {
        name: "from-elsewhere",
        about: "an attack of another crate",
        paper: "none",
        options: &[],
        defaults: |config| config.steps = 3,
        build: |config| Ok(Box::new(GradientAttack::new(config, Weighted(Pgd))?)),
    }
}

#[test]
fn every_attack_of_the_issue_and_of_other_crates_is_listed() {
    let names: Vec<_> = list().iter().map(|r| r.name).collect();
    let expected = [
        "alma-prox",
        "apgd",
        "balanced",
        "bim",
        "cosine",
        "corruption",
        "cospgd",
        "cw",
        "dag",
        "deepfool",
        "dice",
        "di-fgsm",
        "dla",
        "dlr",
        "ds-fgsm",
        "eroseg",
        "fgsm",
        "fmn",
        "from-elsewhere",
        "indirect",
        "js",
        "kl",
        "margin",
        "masked-ce",
        "mi-fgsm",
        "noise",
        "padam",
        "patch",
        "pdpgd",
        "pgd",
        "rp-pgd",
        "sea",
        "sea+",
        "segfgsm",
        "segpgd",
        "spherical",
        "square",
        "ti-fgsm",
        "transfer",
        "tsallis",
        "uncertainty",
        "universal",
    ];
    for name in expected {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert!(names.windows(2).all(|w| w[0] < w[1]), "sorted, and no name twice: {names:?}");
    for registration in list() {
        let settings = config(registration.name);
        assert_eq!(build(&settings).unwrap().name(), registration.name);
        assert!(!registration.about.is_empty());
    }
    assert_eq!(config("from-elsewhere").steps, 3);
}

#[test]
fn an_unknown_name_gets_the_list_of_names() {
    let message = AttackConfig::new("sgepgd").unwrap_err().to_string();
    assert!(
        message.starts_with("unknown attack 'sgepgd'") && message.contains("segfgsm, segpgd, soft-margin, spherical"),
        "{message}"
    );
}

#[test]
fn the_defaults_are_those_of_the_papers() {
    let pgd = config("pgd");
    assert_eq!((pgd.epsilon, pgd.step(), pgd.start, pgd.iterate), (8.0 / 255.0, 0.01, Start::Random, Iterate::Last));
    assert_eq!(config("bim").start, Start::Zero);
    assert_eq!((config("fgsm").steps, config("segfgsm").steps), (1, 1));
    let l2 = AttackConfig { norm: Norm::L2, epsilon: 0.5, ..pgd };
    assert!((l2.step() - 0.2).abs() < 1e-6);
}

#[test]
fn fgsm_steps_by_epsilon() {
    let model = fireproof_tensor::victim(|x| x * 3.0);
    let images = crate::support::tensor(vec![0.5; 8], [1, 2, 2, 2]);
    let targets = fireproof_tensor::Targets::from_labels(&[0, 1, 0, 1], [1, 2, 2], &crate::support::device()).unwrap();
    let batch = fireproof_tensor::Batch::new(images, targets, vec![0]).unwrap();
    let settings = AttackConfig { epsilon: 0.03, ..config("fgsm") };
    let found = build(&settings).unwrap().run(&model, &batch, &Context::new(0)).unwrap();
    let found = crate::support::floats(&found.images);
    assert!(found.iter().all(|v| ((v - 0.5).abs() - 0.03).abs() < 1e-6), "{found:?}");
    let message = build(&AttackConfig { steps: 10, ..settings }).err().unwrap().to_string();
    assert_eq!(message, "attack 'fgsm': steps is 10, expected 1, since it is a single-step attack");
}

#[test]
fn a_file_needs_only_the_name_and_says_the_rest_in_words() {
    let read = |text: &str| toml::from_str::<AttackConfig>(text);
    assert_eq!(read("name = 'bim'").unwrap(), config("bim"));
    let full = read(
        "name = 'segpgd'\nnorm = 'l2'\nepsilon = 0.5\nsteps = 40\niterate = 'best-accuracy'\n\
         target = { remove = 2 }\noptions = { lambda = 'logarithmic' }",
    )
    .unwrap();
    assert_eq!((full.norm, full.steps, full.iterate), (Norm::L2, 40, Iterate::BestAccuracy));
    assert_eq!(full.target, Some(Target::Remove(2)));
    build(&full).unwrap();
    let again: AttackConfig = serde_json::from_str(&serde_json::to_string(&full).unwrap()).unwrap();
    assert_eq!(again, full);
    assert!(read("name = 'pgd'\nepsylon = 0.1").unwrap_err().to_string().contains("epsylon"));
    assert!(read("name = 'nope'").unwrap_err().to_string().contains("unknown attack 'nope'"));
    assert!(read("name = 'pgd'\nepsilon = -0.1").unwrap_err().to_string().contains("epsilon is -0.1"));
}

#[test]
fn settings_outside_their_range_are_named_with_what_was_expected() {
    let message = |change: fn(&mut AttackConfig)| {
        let mut settings = config("segpgd");
        change(&mut settings);
        build(&settings).err().expect("must be refused").to_string()
    };
    assert!(message(|c| c.epsilon = 0.0).starts_with("attack 'segpgd': epsilon is 0, expected a positive"));
    assert!(message(|c| c.epsilon = f32::NAN).contains("epsilon is NaN"));
    assert!(message(|c| c.epsilon = 8.0).contains("units of 1/255"));
    assert!(message(|c| c.step_size = Some(-0.1)).contains("step_size is -0.1"));
    assert!(message(|c| c.steps = 0).contains("steps is 0, expected at least 1"));
    assert!(message(|c| c.restarts = 0).contains("restarts is 0"));
    assert!(
        message(|c| (c.restarts, c.start) = (2, Start::Zero)).contains("every run from the clean image is the same")
    );
    assert!(message(|c| c.range = [1.0, 0.0]).contains("range is [1.0, 0.0]"));
    let option = |name: &str, value: &str| {
        let options = [(name.to_string(), value.to_string())].into();
        build(&AttackConfig { options, ..config("segpgd") }).err().expect("must be refused").to_string()
    };
    assert!(option("lambda", "cubic").contains("lambda is 'cubic', expected linear, exponential"));
    assert!(option("lambda", "1.5").contains("a number in 0..=1"));
    assert!(option("gamma", "1").contains("expected lambda (linear"));
}
