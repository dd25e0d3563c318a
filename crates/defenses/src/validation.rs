//! Scores on held-out data, clean and attacked.

use fireproof_attacks::{Attack, Context};
use fireproof_datasets::{Dataset, Sample, batch};
use fireproof_metrics::Confusion;
use fireproof_models::Network;
use fireproof_tensor::{Batch, Passes, Victim, host, ops::confusion};

use crate::{Error, Result};

/// mIoU on held-out data, as fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Score {
    pub(crate) clean: f64,
    pub(crate) robust: Option<f64>,
    pub(crate) passes: Passes,
}

/// Scores `images` of the data (all without a number), spread evenly over its list; `None` if `stop` says so in between.
pub(crate) fn score(
    network: &dyn Network,
    data: &dyn Dataset,
    images: Option<usize>,
    batch_size: usize,
    attack: Option<(&dyn Attack, u64)>,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Score>> {
    let victim = network.victim();
    let classes = data.classes().len();
    let (mut clean, mut robust) = (Confusion::new(classes)?, Confusion::new(classes)?);
    let mut passes = Passes::default();
    let mut pending: Vec<Sample> = Vec::new();
    let count = images.unwrap_or(usize::MAX).min(data.len());
    for position in 0..=count {
        let next = match position < count {
            true => Some(data.get(position * data.len() / count)?),
            false => None,
        };
        // Images of another size wait for a pass of their own.
        let fits = |sample: &Sample| pending.first().is_none_or(|first| first.image.size() == sample.image.size());
        if pending.len() == batch_size || !next.as_ref().is_some_and(fits) && !pending.is_empty() {
            if stop() {
                return Ok(None);
            }
            let batch = batch(&pending, &network.device())?.in_unit(network.architecture().normalisation.unit)?;
            pending.clear();
            count_pixels(&mut clean, &*victim, &batch, &mut passes)?;
            if let Some((attack, seed)) = attack {
                let adversarial = attack.run(&*victim, &batch, &Context::new(seed))?;
                passes = passes + adversarial.passes;
                count_pixels(&mut robust, &*victim, &batch.with_images(adversarial.images), &mut passes)?;
            }
        }
        pending.extend(next);
    }
    let miou = |table: Confusion| {
        table.class_counts().miou().ok_or_else(|| Error::Setting {
            what: "validation data",
            found: format!("{count} images of {} split '{}' without a labelled pixel", data.name(), data.split()),
            expected: "labels to score".into(),
        })
    };
    let robust = attack.map(|_| miou(robust)).transpose()?;
    Ok(Some(Score { clean: miou(clean)?, robust, passes }))
}

fn count_pixels(table: &mut Confusion, victim: &dyn Victim, batch: &Batch, passes: &mut Passes) -> Result<()> {
    let logits = victim.logits(batch.images.clone())?;
    *passes = *passes + Passes { forward: batch.len() as u64, backward: 0 };
    let predictions = logits.argmax(1).reshape(batch.targets.dims());
    Ok(table.add_tables(&host::integers(confusion(predictions, &batch.targets, table.classes())))?)
}
