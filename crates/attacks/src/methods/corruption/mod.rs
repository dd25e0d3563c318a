//! Corruptions: noise, blur, weather and digital faults that nobody chose to do harm.
//!
//! Hendrycks, Dietterich. *Benchmarking Neural Network Robustness to Common Corruptions and Perturbations*, ICLR 2019.
//! <https://arxiv.org/abs/1903.12261>; the parameters of the five severities are those of the authors' code, as the package
//! imagecorruptions 1.1.2 has them for images of any size.
//!
//! Fourteen of the fifteen kinds: frost is made of photographs, which this crate does not have. `occlusion` is the fifteenth and
//! this crate's own: a grey rectangle over 5, 10, 20, 30 or 40 % of the image; labels under it are void. An elastic image moves
//! its labels along, by the nearest neighbour ([`Adversarial::targets`]).
//!
//! The same seed and sample give the same corruption. No model is looked at, and ε bounds nothing. `bench` makes a row of every
//! kind and severity. Without a kind or a severity each image takes one at random.
//!
//! | option | |
//! |---|---|
//! | `kind` | one of [`KINDS`], or `all`, the default |
//! | `severity` | 1 to 5, or `all`, the default |

mod blur;
mod digital;
mod noise;
mod picture;
mod weather;

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::{Batch, Passes, Targets, VOID, Victim, random::Stream};

use self::picture::Picture;
use crate::{
    Adversarial, Attack, AttackConfig, Context, Error, OptionSpec, Registration, Result, Start,
    host::{floats, integers},
};

/// The kinds, in the order of the paper.
pub const KINDS: [&str; 15] = [
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "defocus-blur",
    "glass-blur",
    "motion-blur",
    "zoom-blur",
    "snow",
    "fog",
    "brightness",
    "contrast",
    "elastic",
    "pixelate",
    "jpeg",
    "occlusion",
];

/// How many severities each kind has.
pub const SEVERITIES: usize = 5;

struct Corruption {
    config: AttackConfig,
    kind: Option<usize>,
    /// From 0.
    level: Option<usize>,
}

/// An image, corrupted, and its labels.
fn corrupt(picture: Picture, labels: &mut [i32], kind: usize, level: usize, stream: &Stream) -> Picture {
    let stream = &stream.child(KINDS[kind]);
    let size = [picture.height, picture.width];
    let dense = labels.len() == size[0] * size[1];
    match KINDS[kind] {
        "gaussian-noise" => noise::gaussian(picture, level, stream),
        "shot-noise" => noise::shot(picture, level, stream),
        "impulse-noise" => noise::impulse(picture, level, stream),
        "defocus-blur" => blur::defocus(picture, level),
        "glass-blur" => blur::glass(picture, level, stream),
        "motion-blur" => blur::motion(picture, level, stream),
        "zoom-blur" => blur::zoom(picture, level),
        "snow" => weather::snow(picture, level, stream),
        "fog" => weather::fog(picture, level, stream),
        "brightness" => weather::brightness(picture, level),
        "contrast" => digital::contrast(picture, level),
        "elastic" => {
            let field = digital::elastic_field(size, level, stream);
            if dense {
                labels.copy_from_slice(&digital::elastic_labels(labels, size, &field));
            }
            digital::elastic(picture, &field)
        }
        "pixelate" => digital::pixelate(picture, level),
        "jpeg" => digital::jpeg(picture, level),
        _ => {
            let place @ [top, left, rows, columns] = digital::occluder(size, level, stream);
            if dense {
                for y in top..top + rows {
                    labels[y * size[1] + left..y * size[1] + left + columns].fill(i32::from(VOID));
                }
            }
            digital::occlude(picture, place)
        }
    }
}

impl Attack for Corruption {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn run(&self, _victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let dims @ [_, c, h, w] = batch.dims();
        let [low, high] = self.config.range;
        let device = batch.images.device();
        let valid = batch.targets.valid().clone().equal_elem(0.0);
        let labels = batch.targets.labels().clone().mask_fill(valid, i32::from(VOID));
        let mut labels = integers(labels);
        let pixels = labels.len() / dims[0];
        let mut values = Vec::with_capacity(dims.iter().product());
        let clean = floats(batch.images.clone());
        for (image, (clean, labels)) in clean.chunks(c * h * w).zip(labels.chunks_mut(pixels)).enumerate() {
            if let Some(wrong) = clean.iter().find(|v| !(low - 1e-6..=high + 1e-6).contains(*v)) {
                let found = format!("{wrong} in sample {}", batch.ids[image]);
                return Err(Error::Argument { what: "images", found, expected: format!("pixels in {low}..={high}") });
            }
            let unit = clean.iter().map(|v| ((v - low) / (high - low)).clamp(0.0, 1.0)).collect();
            let stream = Stream::new(&[context.seed, batch.ids[image]]).child(&self.config.name);
            let any = stream.child("which");
            let kind = self.kind.unwrap_or_else(|| any.below(0, KINDS.len() as u64) as usize);
            let level = self.level.unwrap_or_else(|| any.below(1, SEVERITIES as u64) as usize);
            let corrupted = corrupt(Picture::new([c, h, w], unit), labels, kind, level, &stream);
            values.extend(corrupted.values.iter().map(|v| (low + v * (high - low)).clamp(low, high)));
        }
        let labels = Tensor::from_data(TensorData::new(labels, batch.targets.dims()), &device);
        let images = Tensor::from_data(TensorData::new(values, dims), &device);
        Ok(Adversarial { targets: Some(Targets::hard(labels)), ..Adversarial::new(images, Passes::default()) })
    }

    fn bounded(&self) -> bool {
        false
    }

    fn variants(&self) -> Vec<AttackConfig> {
        let kinds = self.kind.map_or((0..KINDS.len()).collect(), |kind| vec![kind]);
        let levels = self.level.map_or((0..SEVERITIES).collect(), |level| vec![level]);
        let one = |kind: usize, level: usize| {
            let options = [("kind", KINDS[kind].to_string()), ("severity", (level + 1).to_string())];
            let options = options.map(|(name, value)| (name.to_string(), value)).into();
            AttackConfig { options, ..self.config.clone() }
        };
        kinds.iter().flat_map(|&kind| levels.iter().map(move |&level| (kind, level))).map(|(k, l)| one(k, l)).collect()
    }
}

const KIND: &str = "all, or gaussian-noise, shot-noise, impulse-noise, defocus-blur, glass-blur, motion-blur, zoom-blur, snow, fog, \
     brightness, contrast, elastic, pixelate, jpeg, occlusion";
const SEVERITY: &str = "all, or 1 to 5";

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    config.check()?;
    config.in_pixels()?;
    if config.steps != 1 {
        return Err(config.setting("steps", config.steps, "1"));
    }
    if config.restarts != 1 {
        return Err(config.setting("restarts", config.restarts, "1, since nothing is chosen"));
    }
    let chosen = |name: &str| config.options.get(name).map(String::as_str).filter(|text| *text != "all");
    let kind = chosen("kind").map(|text| {
        KINDS.iter().position(|kind| *kind == text).ok_or_else(|| config.setting("kind", format!("'{text}'"), KIND))
    });
    let level = chosen("severity").map(|text| match text.parse::<usize>() {
        Ok(severity @ 1..=SEVERITIES) => Ok(severity - 1),
        _ => Err(config.setting("severity", format!("'{text}'"), SEVERITY)),
    });
    Ok(Box::new(Corruption { config: config.clone(), kind: kind.transpose()?, level: level.transpose()? }))
}

inventory::submit! {
    Registration {
        name: "corruption",
        about: "noise, blur, weather and digital faults of five severities: no attack, but what every model meets",
        paper: "https://arxiv.org/abs/1903.12261",
        options: &[OptionSpec { name: "kind", values: KIND }, OptionSpec { name: "severity", values: SEVERITY }],
        defaults: |config| {
            config.epsilon = 1.0;
            config.steps = 1;
            config.start = Start::Zero;
        },
        build,
    }
}
