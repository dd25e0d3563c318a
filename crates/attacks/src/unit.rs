//! Runs an attack in the unit of its radius, whatever the unit of the images it is given.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, InUnit, Unit, Victim};

use crate::{Adversarial, Attack, AttackConfig, Candidate, Context, Learns, Minimal, Observer, Result, View};

/// An attack with the unit of its settings; every attack that is built by name is one.
///
/// The attack sees images, victim, start and radius in one unit, and what it finds goes back in that of the batch. Where the
/// units are the same, nothing happens.
pub(crate) struct OfUnit {
    pub(crate) attack: Box<dyn Attack>,
    pub(crate) unit: Unit,
    /// The valid range, in pixels.
    pub(crate) range: [f32; 2],
}

impl Attack for OfUnit {
    fn name(&self) -> &str {
        self.attack.name()
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        if batch.unit == self.unit {
            return self.attack.run(victim, batch, context);
        }
        let own = batch.in_unit(self.unit)?;
        let victim = InUnit::new(victim, batch, self.unit, batch.unit)?;
        let start = context.start.map(|start| batch.convert(start.clone(), batch.unit, self.unit)).transpose()?;
        let observer = context.observer.map(|observer| Translated { observer, batch, of: self });
        let observer = observer.as_ref().map(|translated| translated as &dyn Observer);
        let source = context.source.map(|source| InUnit::new(source, batch, self.unit, batch.unit)).transpose()?;
        let source = source.as_ref().map(|source| source as &dyn Victim);
        let found = self.attack.run(&victim, &own, &Context { start: start.as_ref(), observer, source, ..*context })?;
        let candidate = |one: Candidate| Candidate { images: self.back(batch, one.images), ..one };
        Ok(Adversarial {
            images: self.back(batch, found.images),
            candidates: found.candidates.into_iter().map(candidate).collect(),
            minimal: found.minimal.map(|one| Minimal { images: self.back(batch, one.images), ..one }),
            ..found
        })
    }

    fn step_size(&self) -> Option<f32> {
        self.attack.step_size()
    }

    fn contains_shorter_runs(&self) -> bool {
        self.attack.contains_shorter_runs()
    }

    fn bounded(&self) -> bool {
        self.attack.bounded()
    }

    fn source(&self) -> Option<&str> {
        self.attack.source()
    }

    fn variants(&self) -> Vec<AttackConfig> {
        self.attack.variants()
    }

    fn learns(&self) -> Option<&dyn Learns> {
        // Those that learn know pixels only.
        self.attack.learns()
    }
}

impl OfUnit {
    /// Images in the batch's own unit. A pixel at the end of the range must not leave it by the rounding.
    fn back(&self, batch: &Batch, images: Tensor<4>) -> Tensor<4> {
        let images = batch.convert(images, self.unit, batch.unit).expect("it went the other way before");
        let [low, high] = self.range;
        if batch.unit == Unit::Pixel { images.clamp(low, high) } else { images }
    }
}

/// Shows iterates in the unit of the batch.
struct Translated<'a> {
    observer: &'a dyn Observer,
    batch: &'a Batch,
    of: &'a OfUnit,
}

impl Observer for Translated<'_> {
    fn observe(&self, view: &View<'_>) {
        let images = self.of.back(self.batch, view.images.clone());
        self.observer.observe(&View { batch: self.batch, images: &images, ..*view });
    }
}
