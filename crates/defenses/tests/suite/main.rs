//! Tests of recipes, stages, the trainer and its checkpoints, on a tiny network and small scenes.

mod common;
mod finetune;
mod losses;
mod margin;
mod mixing;
mod optimizer;
mod recipes;
mod resume;
mod stages;
mod systems;
mod terms;
mod training;
