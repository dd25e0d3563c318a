//! TYPE: train on images with uniform noise.
//!
//! Put here: authors, title, year, a link, and what is new in the method. A stage is one of three: Prepare changes the batch,
//! Term adds to the loss, Hook runs after the optimizer's step. `recipe.toml` beside this crate's manifest uses it:
//! `cargo xtask train --recipe crates/NAME/recipe.toml`.

use burn::tensor::{Tensor, TensorData};
use fireproof_defenses::{
    Error,
    stage::{Describe, Moment, Options, Prepare, Stage, StageEntry, View, options, parse},
};
use fireproof_tensor::random::Stream;
use serde::{Deserialize, Serialize};

/// Uniform noise on every image.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TYPE {
    /// Largest change of a pixel.
    pub epsilon: f32,
}

impl Default for TYPE {
    fn default() -> Self {
        Self { epsilon: 8.0 / 255.0 }
    }
}

inventory::submit! {
    StageEntry { name: "NAME", about: "uniform noise on every image", build: |given| {
        let stage: TYPE = parse(given)?;
        if stage.epsilon >= 0.0 { Ok(Stage::Prepare(Box::new(stage))) } else { Err("epsilon is negative".into()) }
    } }
}

impl Describe for TYPE {
    fn explain(&self) -> String {
        format!("images get uniform noise of at most {}", self.epsilon)
    }

    fn options(&self) -> Options {
        options(self)
    }
}

impl Prepare for TYPE {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<(), Error> {
        for view in views {
            let dims = view.batch.dims();
            let length = dims[1] * dims[2] * dims[3];
            // Keyed by sample and step: neither the batch nor a resumed run changes an image's noise.
            let noise = view.batch.ids.iter().flat_map(|&id| {
                let stream = Stream::new(&[moment.seed, moment.step, id]);
                (0..length as u64).map(move |at| stream.symmetric(at))
            });
            let noise = TensorData::new(noise.collect::<Vec<f32>>(), dims);
            let noise: Tensor<4> = Tensor::from_data(noise, &view.batch.images.device());
            view.batch.images = (view.batch.images.clone() + noise * self.epsilon).clamp(0.0, 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_recipe_beside_this_crate_uses_the_stage() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/recipe.toml");
        let recipe = fireproof_defenses::Recipe::find(file).unwrap();
        assert!(recipe.explain().unwrap().contains("images get uniform noise of at most 0.03"));
    }
}
