//! SEA, the segmentation ensemble attack: several losses, and of each image the worst that any of them has done.
//!
//! Croce, Singh, Hein. *Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models*, ECCV 2024.
//! <https://arxiv.org/abs/2306.12941>
//!
//! APGD with radius reduction (30, 30 and 40 % of the steps at 2 ε, 1.5 ε and ε), once with each of class-balanced masked
//! cross-entropy, masked cross-entropy and Jensen–Shannon. Models fall to different losses, so each image takes the run
//! that leaves it the lowest pixel accuracy. [`Adversarial::candidates`] holds every run's images, from which mIoU's worst
//! case can be put together: which run is worst for it depends on the other images.
//!
//! `sea+` adds the Tsallis loss (Matyasko et al., IJCNN 2026), whose schedule goes through all stages.
//!
//! Defaults: 300 steps a run. The authors balance classes by the pixels of the training set: give them as `counts`.

use fireproof_tensor::{Batch, Passes, Victim};

use super::{apgd::apgd, balanced, js::Js, masked_ce::MaskedCe, tsallis::Tsallis};
use crate::{
    Adversarial, Attack, AttackConfig, Candidate, Context, GradientAttack, Iterate, OptionSpec, Radii, Registration,
    Result, Trace,
    objective::{Objective, OfLabel, Weighted},
    stage,
    tracker::Best,
};

/// Runs of which each image keeps the worst.
struct Ensemble {
    name: String,
    runs: Vec<(&'static str, GradientAttack)>,
}

impl Attack for Ensemble {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let mut candidates = Vec::with_capacity(self.runs.len());
        let mut trace = context.trace.then(Trace::default);
        let mut passes = Passes::default();
        let mut best: Option<Best> = None;
        let mut restarts = 0;
        for (name, run) in &self.runs {
            let (found, score) = run.run_scored(victim, batch, context)?;
            let score = score.expect("a run that returns its best iterate knows its score");
            best = Some(Best::merge(best, found.images.clone(), score, false));
            passes = passes + found.passes;
            if let (Some(trace), Some(part)) = (&mut trace, found.trace) {
                // Every restart of every run has a number of its own.
                trace.rows.extend(part.rows.into_iter().map(|mut row| {
                    row.restart += restarts;
                    row
                }));
            }
            restarts += run.restarts;
            candidates.push(Candidate { name: (*name).to_string(), images: found.images, targets: None });
        }
        let images = best.expect("an ensemble has runs").images;
        Ok(Adversarial { candidates, trace, ..Adversarial::new(images, passes) })
    }
}

fn build(config: &AttackConfig, tsallis: bool) -> Result<Box<dyn Attack>> {
    if config.iterate != Iterate::BestAccuracy {
        return Err(config.setting("iterate", config.iterate, "best-accuracy, by which the runs are compared too"));
    }
    let radii = config.option("radii", Radii::shrinking(), stage::VALUES)?;
    let mut losses: Vec<(&'static str, Box<dyn Objective>)> = vec![
        ("balanced", balanced::objective(config)?),
        ("masked-ce", Box::new(Weighted(MaskedCe))),
        ("js", Box::new(OfLabel(Js))),
    ];
    if tsallis {
        losses.push(("tsallis", Box::new(OfLabel(Tsallis::default()))));
    }
    let run = |(name, loss): (&'static str, Box<dyn Objective>)| {
        // A name of its own, and with it random starts of its own.
        let part = AttackConfig { name: format!("{}.{name}", config.name), ..config.clone() };
        Ok((name, apgd(&part, loss, radii.clone())?))
    };
    let runs = losses.into_iter().map(run).collect::<Result<_>>()?;
    Ok(Box::new(Ensemble { name: config.name.clone(), runs }))
}

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "radii", values: "2,1.5,1, or other radii in units of epsilon that shrink to 1, or 1" },
    OptionSpec { name: "counts", values: balanced::VALUES },
];

fn defaults(config: &mut AttackConfig) {
    config.steps = 300;
    config.iterate = Iterate::BestAccuracy;
}

inventory::submit! {
    Registration {
        name: "sea",
        about: "the worst of three APGD runs with radius reduction: balanced and masked cross-entropy, JS",
        paper: "https://arxiv.org/abs/2306.12941",
        options: OPTIONS,
        defaults,
        build: |config| build(config, false),
    }
}

inventory::submit! {
    Registration {
        name: "sea+",
        about: "sea and a run of the Tsallis loss",
        paper: "https://arxiv.org/abs/2306.12941",
        options: OPTIONS,
        defaults,
        build: |config| build(config, true),
    }
}
