//! Parameters that fine-tuning leaves alone.

use std::collections::HashSet;

use fireproof_datasets::Dataset;
use fireproof_models::{Group, Network, ParameterInfo};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    stage::{Describe, Moment, Options, Prepare, Stage, StageEntry, View, options, parse},
};

/// Keeps every parameter as it is that one of the options names. Running statistics count as parameters.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Freeze {
    /// `backbone`, `head`: all parameters of these groups.
    pub groups: Vec<Group>,
    /// Parameters whose name begins so: `["down."]` is the encoder of `unet`.
    pub prefixes: Vec<String>,
    /// So many blocks at the front of the network. A block is what a name says up to its first number: `down.0` of `unet`.
    pub first: usize,
    /// Weight and bias of every norm layer.
    pub norm_affine: bool,
}

inventory::submit! {
    StageEntry { name: "freeze", about: "parameters that training leaves alone", build: |given| {
        let stage: Freeze = parse(given)?;
        match stage.groups.is_empty() && stage.prefixes.is_empty() && stage.first == 0 && !stage.norm_affine {
            true => Err("nothing to freeze, expected groups, prefixes, first or norm_affine".into()),
            false => Ok(Stage::Prepare(Box::new(stage))),
        }
    } }
}

/// The name up to its first number.
fn block(name: &str) -> &str {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if part.ends_with(|c: char| c.is_ascii_digit()) {
            return &name[..end];
        }
        end += 1;
    }
    name.rsplit_once('.').map_or(name, |(layer, _)| layer)
}

impl Freeze {
    fn names(&self, layout: &[ParameterInfo]) -> Vec<String> {
        let mut blocks: Vec<&str> = Vec::new();
        for name in layout.iter().map(|info| block(&info.name)) {
            if !blocks.contains(&name) {
                blocks.push(name);
            }
        }
        blocks.truncate(self.first);
        // A norm's weight is a vector; a convolution's is not, and the bias beside it has another name.
        let norms: HashSet<&str> = layout
            .iter()
            .filter(|info| info.shape.len() == 1)
            .filter_map(|info| info.name.strip_suffix(".weight"))
            .collect();
        let affine = |name: &str| {
            name.rsplit_once('.')
                .is_some_and(|(layer, kind)| norms.contains(layer) && matches!(kind, "weight" | "bias"))
        };
        let chosen = |info: &&ParameterInfo| {
            self.groups.contains(&info.group)
                || self.prefixes.iter().any(|prefix| info.name.starts_with(prefix))
                || blocks.contains(&block(&info.name))
                || self.norm_affine && affine(&info.name)
        };
        layout.iter().filter(chosen).map(|info| info.name.clone()).collect()
    }
}

impl Describe for Freeze {
    fn explain(&self) -> String {
        let mut what = Vec::new();
        if !self.groups.is_empty() {
            what.push(format!("the groups {:?}", self.groups).to_lowercase());
        }
        if !self.prefixes.is_empty() {
            what.push(format!("what begins with {}", self.prefixes.join(", ")));
        }
        if self.first > 0 {
            what.push(format!("the first {} blocks", self.first));
        }
        if self.norm_affine {
            what.push("weight and bias of the norms".into());
        }
        format!("never changed: {}", what.join("; "))
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn begin(&mut self, network: &dyn Network, _train: &dyn Dataset) -> Result<()> {
        let layout = network.layout();
        let unknown = self.prefixes.iter().find(|prefix| !layout.iter().any(|info| info.name.starts_with(*prefix)));
        let all = self.names(layout).len() == layout.len();
        match unknown.cloned().or(all.then(|| "every parameter".into())) {
            Some(found) => Err(Error::Setting {
                what: "freeze",
                found,
                expected: "beginnings of some of the network's parameters, not all of them".into(),
            }),
            None => Ok(()),
        }
    }

    fn frozen(&self, network: &dyn Network) -> Vec<String> {
        self.names(network.layout())
    }
}

impl Prepare for Freeze {
    fn prepare(&mut self, _views: &mut Vec<View>, _moment: &Moment<'_>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::block;

    #[test]
    fn blocks_end_at_the_first_number() {
        let names = ["down.0.3.weight", "head.weight", "backbone.layer2.1.conv1.weight", "merge.1.0.weight"];
        assert_eq!(names.map(block), ["down.0", "head", "backbone.layer2", "merge.1"]);
    }
}
