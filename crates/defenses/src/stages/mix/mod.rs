//! Mixing the images of a batch with each other, and their label maps with them.
//!
//! Whether a mix comes before or after an attack is the order of the recipe: an attack that comes later attacks the mixed
//! images with the mixed labels (Rebuffi et al.), a mix that comes later mixes adversarial images (interpolated adversarial
//! training). Each kind of mix is a file here; what happens to labels is written once, below.

mod cutmix;
mod fmix;
mod manifold;
mod mixup;
mod resizemix;

use burn::tensor::{Int, Tensor, TensorData};
use fireproof_tensor::{Batch, Targets, VOID, ops::resize_bilinear, random::Stream};
use serde::{Deserialize, Serialize};

pub use cutmix::CutMix;
pub use fmix::FMix;
pub use manifold::ManifoldMixup;
pub(super) use manifold::known_sites;
pub use mixup::Mixup;
pub use resizemix::ResizeMix;

use crate::{
    Result, draw,
    stage::{BATCH, Describe, Moment, Options, Prepare, Stage, StageEntry, View, options, parse, view},
};

/// A rule by which two images of one size become one.
pub trait Mixer: Send {
    /// The name in recipes.
    fn name(&self) -> &'static str;

    /// Draws how images of `[height, width]` are mixed; `lambda` in 0 to 1 is the share that is to remain of the first.
    fn overlay(&self, lambda: f64, stream: &Stream, size: [usize; 2]) -> Overlay;
}

/// How two images become one.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    /// What each pixel keeps of its own image, 0 to 1, row major; the rest comes from the partner.
    pub keep: Vec<f32>,
    /// Where the partner is shown, made smaller: top, left, height, width. Without it each pixel takes the partner's at the
    /// same place.
    pub frame: Option<[usize; 4]>,
}

impl Overlay {
    /// Share of the image that is its own.
    pub fn share(&self) -> f32 {
        (self.keep.iter().map(|&k| f64::from(k)).sum::<f64>() / self.keep.len() as f64) as f32
    }

    fn is_binary(&self) -> bool {
        self.keep.iter().all(|&k| k == 0.0 || k == 1.0)
    }
}

/// Over what one draw is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Every image has a draw of its own.
    #[default]
    Sample,
    /// One draw for all images of a batch.
    Batch,
}

/// Mixes every image of a view with another one of it, drawn by a permutation. The share that remains is
/// Beta(`alpha`, `alpha`).
pub struct Mix<M> {
    mixer: M,
    settings: Settings,
}

/// What all kinds of mixes have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The view that is mixed.
    pub view: String,
    /// Both parameters of the Beta distribution; 1 is uniform.
    pub alpha: f64,
    /// Over what one draw is shared.
    pub per: Per,
}

impl Default for Settings {
    fn default() -> Self {
        Self { view: BATCH.into(), alpha: 1.0, per: Per::Sample }
    }
}

/// Builds the stage of a mixer, for [`StageEntry::build`].
fn build<M: Mixer + 'static>(mixer: M, given: Options) -> Result<Stage, String> {
    let settings: Settings = parse(given)?;
    check_alpha(settings.alpha)?;
    Ok(Stage::Prepare(Box::new(Mix { mixer, settings })))
}

fn check_alpha(alpha: f64) -> Result<(), String> {
    match alpha > 0.0 && alpha.is_finite() {
        true => Ok(()),
        false => Err(format!("alpha is {alpha}, expected a positive number")),
    }
}

inventory::submit! { StageEntry { name: "mixup", about: "weighted means of images and labels", build: |given| build(Mixup, given) } }
inventory::submit! { StageEntry { name: "cutmix", about: "a box of another image", build: |given| build(CutMix, given) } }
inventory::submit! { StageEntry { name: "fmix", about: "blobs of another image", build: |given| build(FMix::default(), given) } }
inventory::submit! { StageEntry { name: "resizemix", about: "another image, made smaller", build: |given| build(ResizeMix, given) } }

impl<M: Mixer> Describe for Mix<M> {
    fn explain(&self) -> String {
        let Settings { view, alpha, per } = &self.settings;
        let per = match per {
            Per::Sample => "each",
            Per::Batch => "alike",
        };
        format!(
            "images of '{view}' mixed in pairs by {}, {per} with a share of Beta({alpha}, {alpha})",
            self.mixer.name()
        )
    }

    fn options(&self) -> Options {
        options(&self.settings)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.settings.view.clone()]
    }
}

impl<M: Mixer> Prepare for Mix<M> {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()> {
        let classes = moment.network.architecture().classes.len();
        let view = view(views, &self.settings.view)?;
        let stream = Stream::new(&[moment.seed]).child(&view.name).child(self.mixer.name());
        let pairs = pairs(&view.batch, &stream, &self.settings, &|lambda, stream, size| {
            self.mixer.overlay(lambda, stream, size)
        });
        view.batch = mix(&view.batch, &pairs, classes);
        Ok(())
    }
}

/// Draws one of several kinds of mixes for every batch. RandomMix (Liu, Shen, Zhao, Nie, 2022), whose policies AugRmixAT uses.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RandomMix {
    view: String,
    of: Vec<String>,
    alpha: f64,
    per: Per,
}

impl Default for RandomMix {
    fn default() -> Self {
        let Settings { view, alpha, per } = Settings::default();
        Self { view, of: ["mixup", "cutmix", "fmix", "resizemix"].map(String::from).into(), alpha, per }
    }
}

fn mixer(name: &str) -> Option<Box<dyn Mixer>> {
    let known: [Box<dyn Mixer>; 4] =
        [Box::new(Mixup), Box::new(CutMix), Box::new(FMix::default()), Box::new(ResizeMix)];
    known.into_iter().find(|mixer| mixer.name() == name)
}

inventory::submit! {
    StageEntry { name: "random-mix", about: "one of several mixes, drawn for every batch", build: |given| {
        let stage: RandomMix = parse(given)?;
        check_alpha(stage.alpha)?;
        if stage.of.is_empty() {
            return Err("'of' is empty, expected names of mixes".into());
        }
        match stage.of.iter().find(|name| mixer(name).is_none()) {
            Some(name) => Err(format!("of: found '{name}', expected mixup, cutmix, fmix or resizemix")),
            None => Ok(Stage::Prepare(Box::new(stage))),
        }
    } }
}

impl Describe for RandomMix {
    fn explain(&self) -> String {
        let Self { view, of, alpha, .. } = self;
        format!("images of '{view}' mixed in pairs by one of {}, a share of Beta({alpha}, {alpha})", of.join(", "))
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.view.clone()]
    }
}

impl Prepare for RandomMix {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()> {
        let stream = Stream::new(&[moment.seed]).child(&self.view).child("random-mix");
        let drawn = &self.of[stream.below(0, self.of.len() as u64) as usize];
        let mixer = mixer(drawn).expect("checked when the stage was built");
        let settings = Settings { view: self.view.clone(), alpha: self.alpha, per: self.per };
        let view = view(views, &self.view)?;
        let pairs = pairs(&view.batch, &stream, &settings, &|lambda, stream, size| mixer.overlay(lambda, stream, size));
        view.batch = mix(&view.batch, &pairs, moment.network.architecture().classes.len());
        Ok(())
    }
}

/// Each image's partner and overlay.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// Position in the batch of each image's partner.
    pub partners: Vec<usize>,
    /// How each image is mixed with it.
    pub overlays: Vec<Overlay>,
}

fn pairs(
    batch: &Batch,
    stream: &Stream,
    settings: &Settings,
    overlay: &dyn Fn(f64, &Stream, [usize; 2]) -> Overlay,
) -> Pairs {
    let [n, _, height, width] = batch.dims();
    let draw = |key: u64| {
        let stream = Stream::new(&[stream.bits(key)]).child("overlay");
        overlay(draw::beta(&stream.child("lambda"), settings.alpha), &stream, [height, width])
    };
    let overlays = match settings.per {
        Per::Batch => vec![draw(0); n],
        Per::Sample => (0..n as u64).map(draw).collect(),
    };
    Pairs { partners: stream.child("partners").permutation(n), overlays }
}

/// Mixes images and labels of a batch.
///
/// Where labels lie on the images' pixels and an overlay takes each pixel from one image, labels stay hard. Everywhere else
/// they become a soft map over `classes`: `λ` of one and `1 − λ` of the other at each pixel, or of each image where it has one
/// label. A void pixel adds nothing to the map; a pixel is void where all that it is made of is.
///
/// Ids stay those of the first images.
pub fn mix(batch: &Batch, pairs: &Pairs, classes: usize) -> Batch {
    let [n, channels, height, width] = batch.dims();
    let device = batch.images.device();
    let partner = batch.select(&pairs.partners);
    let plane =
        |values: Vec<f32>, [h, w]: [usize; 2]| Tensor::<4>::from_data(TensorData::new(values, [n, 1, h, w]), &device);
    let keep = plane(pairs.overlays.iter().flat_map(|o| o.keep.iter().copied()).collect(), [height, width]);
    let framed = pairs.overlays.iter().any(|overlay| overlay.frame.is_some());
    let shown = |i: usize| partner.images.clone().narrow(0, i, 1);
    let other = match framed {
        false => partner.images.clone(),
        true => Tensor::cat(
            pairs
                .overlays
                .iter()
                .enumerate()
                .map(|(i, overlay)| match overlay.frame {
                    None => shown(i),
                    Some([top, left, h, w]) => {
                        let small = resize_bilinear(shown(i), [h, w], false);
                        shown(i).zeros_like().slice_assign([0..1, 0..channels, top..top + h, left..left + w], small)
                    }
                })
                .collect(),
            0,
        ),
    };
    let images = batch.images.clone() * keep.clone() + other * (keep.clone() * -1.0 + 1.0);

    let [_, rows, columns] = batch.targets.dims();
    let dense = [rows, columns] == [height, width];
    let keep = match dense {
        true => keep,
        false => plane(pairs.overlays.iter().flat_map(|o| vec![o.share(); rows * columns]).collect(), [rows, columns]),
    };
    let others = if dense && framed { in_frames(&partner.targets, &pairs.overlays) } else { partner.targets };
    let hard = dense && batch.targets.soft().is_none() && pairs.overlays.iter().all(Overlay::is_binary);
    let targets = mix_targets(&batch.targets, &others, keep, (!hard).then_some(classes));
    let targets = match (batch.targets.weight(), others.weight()) {
        (Some(own), Some(other)) => {
            let shares: Vec<f32> = pairs.overlays.iter().map(Overlay::share).collect();
            let share = Tensor::<1>::from_data(TensorData::new(shares, [n]), &device);
            targets.with_weight(own.clone() * share.clone() + other.clone() * (share * -1.0 + 1.0))
        }
        _ => targets,
    };
    Batch { images, targets, ..batch.clone() }
}

/// The targets of partners that are shown in frames, by the nearest pixel centre; what lies outside a frame is never taken.
fn in_frames(targets: &Targets, overlays: &[Overlay]) -> Targets {
    let [_, height, width] = targets.dims();
    let device = targets.labels().device();
    let nearest = |start: usize, small: usize, whole: usize| {
        let source = |i: usize| {
            let inside = (i as i64 - start as i64).clamp(0, small as i64 - 1) as f64;
            (((inside + 0.5) * whole as f64 / small as f64) as usize).min(whole - 1) as i32
        };
        let indices: Vec<i32> = (0..whole).map(source).collect();
        Tensor::<1, Int>::from_data(TensorData::new(indices, [whole]), &device)
    };
    let axes = |overlay: &Overlay| {
        let [top, left, h, w] = overlay.frame.unwrap_or([0, 0, height, width]);
        (nearest(top, h, height), nearest(left, w, width))
    };
    let axes: Vec<_> = overlays.iter().map(axes).collect();
    let labels = axes.iter().enumerate().map(|(i, (rows, columns))| {
        targets.labels().clone().narrow(0, i, 1).select(1, rows.clone()).select(2, columns.clone())
    });
    let valid = axes.iter().enumerate().map(|(i, (rows, columns))| {
        targets.valid().clone().narrow(0, i, 1).select(1, rows.clone()).select(2, columns.clone())
    });
    let labels = Tensor::cat(labels.collect(), 0);
    let mut framed = Targets::hard(labels).with_valid(Tensor::cat(valid.collect(), 0));
    if let Some(soft) = targets.soft() {
        let soft = axes.iter().enumerate().map(|(i, (rows, columns))| {
            soft.clone().narrow(0, i, 1).select(2, rows.clone()).select(3, columns.clone())
        });
        framed = framed.with_soft(Tensor::cat(soft.collect(), 0));
    }
    match targets.weight() {
        Some(weight) => framed.with_weight(weight.clone()),
        None => framed,
    }
}

/// `keep` `[N, 1, H, W]` of `own` and the rest of `other`; as a soft map over so many classes, or as hard labels.
pub(super) fn mix_targets(own: &Targets, other: &Targets, keep: Tensor<4>, classes: Option<usize>) -> Targets {
    let [n, rows, columns] = own.dims();
    let flat = keep.clone().reshape([n, rows, columns]);
    let rest = flat.clone() * -1.0 + 1.0;
    // The label is that of the larger part which is not void.
    let (a, b) = (flat * own.valid().clone(), rest * other.valid().clone());
    let first = a.clone().greater_equal(b.clone()).int();
    let labels = own.labels().clone() * first.clone() + other.labels().clone() * (first * -1 + 1);
    let valid = (a + b).greater_elem(0.0);
    let labels = labels.mask_fill(valid.clone().bool_not(), i32::from(VOID));
    let targets = Targets::hard(labels).with_valid(valid.float());
    let Some(classes) = classes else { return targets };
    let map = |targets: &Targets| {
        let valid = targets.valid().clone().reshape([n, 1, rows, columns]);
        targets.soft().cloned().unwrap_or_else(|| targets.one_hot(classes)) * valid
    };
    targets.with_soft(map(own) * keep.clone() + map(other) * (keep * -1.0 + 1.0))
}
