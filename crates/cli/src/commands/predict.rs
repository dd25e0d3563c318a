//! `predict`: one image through one model.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use fireproof_datasets::{
    read::Limits,
    volume::{Scan, write_labels},
};
use fireproof_models::Network;
use fireproof_tensor::{Affine, Unit, Victim};
use serde_json::json;

use crate::options::{InferenceOptions, ModelOptions, folder};
use crate::picture;

/// Segment one image.
///
/// Writes NAME-classes.png (the class indices) and NAME-colors.png, at the image's size, and prints each class's share.
///
/// Of a NIfTI volume (.nii, .nii.gz) every slice along z is segmented, and NAME-classes.nii.gz is written: the class indices on
/// the volume's own voxels, with its spacing and orientation.
#[derive(Debug, Args)]
pub struct Predict {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    inference: InferenceOptions,
    /// The weights file (.safetensors, .pth)
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The image (PNG, JPEG), or a volume (.nii, .nii.gz)
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// The output folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Of a volume: the values that become 0 and 1, as with the window of a CT [default: its lowest and highest]
    #[arg(long, value_name = "LOW,HIGH", value_delimiter = ',', num_args = 1, allow_hyphen_values = true)]
    range: Vec<f32>,
    /// Also write the logits: a tensor 'logits', F32 [1, K, H, W], at the image's size
    #[arg(long, value_name = "FILE.safetensors")]
    save_logits: Option<PathBuf>,
    /// Device by name
    #[arg(long, default_value = "flex", value_name = "NAME")]
    device: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Predict {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let device = fireproof_tensor::device::open(&self.device)?;
        let network = picture::network(&self.weights, &self.model, &device)?;
        let victim = self.victim(&*network);
        if is_volume(&self.image) {
            return self.volume(&*network, &*victim, &device);
        }
        ensure!(self.range.is_empty(), "--range: found it beside {}, expected a volume", self.image.display());
        let image = picture::read(&self.image, &*network)?;
        let logits = victim.logits(picture::tensor(&image, &device))?;
        let dims = logits.dims();
        let predicted: Vec<i32> =
            logits.clone().argmax(1).into_data().convert::<i32>().try_to_vec().expect("integers convert to i32");
        let classes = picture::classes(&*network);
        folder(&self.out)?;
        let stem = picture::stem(&self.image);
        let path = |kind: &str| self.out.join(format!("{stem}-{kind}.png"));
        let (height, width) = image.size();
        let indices: Vec<u8> = predicted.iter().map(|&class| u8::try_from(class).unwrap_or(255)).collect();
        picture::write_bytes(&path("classes"), 1, height, width, &indices)?;
        let colors: Vec<u8> = predicted.iter().flat_map(|&class| classes[class as usize].color).collect();
        picture::write_bytes(&path("colors"), 3, height, width, &colors)?;
        let mut files = vec![path("classes"), path("colors")];
        if let Some(file) = &self.save_logits {
            let values: Vec<f32> = logits.into_data().convert::<f32>().try_to_vec().expect("floats convert to f32");
            fireproof_eval::adversarial::save(file, &[("logits", &dims, &values)])?;
            files.push(file.clone());
        }
        let mut counts = vec![0usize; classes.len()];
        predicted.iter().for_each(|&class| counts[class as usize] += 1);
        let share = |count: usize| count as f64 / predicted.len() as f64;
        let mut out = std::io::stdout();
        if self.json {
            let shares: serde_json::Map<_, _> =
                classes.iter().zip(&counts).map(|(class, &count)| (class.name.clone(), share(count).into())).collect();
            return Ok(writeln!(out, "{}", json!({ "size": [width, height], "shares": shares, "files": files }))?);
        }
        for (class, count) in classes.iter().zip(counts).filter(|(_, count)| *count > 0) {
            writeln!(out, "{:6.2} %  {}", 100.0 * share(count), class.name)?;
        }
        for file in files {
            writeln!(out, "{}", file.display())?;
        }
        Ok(())
    }

    fn victim(&self, network: &dyn Network) -> Box<dyn Victim + Send + Sync> {
        self.inference.settings(0).around(network.victim())
    }

    /// Every slice of a volume.
    fn volume(&self, network: &dyn Network, victim: &dyn Victim, device: &Device) -> Result<()> {
        ensure!(self.save_logits.is_none(), "--save-logits: found it beside a volume, expected an image");
        let range = match self.range[..] {
            [] => None,
            [low, high] if low < high => Some([low, high]),
            _ => bail!("--range: found {:?}, expected LOW,HIGH with the lower one first", self.range),
        };
        let architecture = network.architecture();
        let scan = Scan::read(&self.image, architecture.input_channels, range, &Limits::default())?;
        let classes = picture::classes(network);
        ensure!(
            classes.len() <= 256,
            "{}: found {} classes, expected at most 256",
            self.weights.display(),
            classes.len()
        );
        let row = |values: &[f32]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [1, values.len()]), device);
        let case = Affine { mean: row(scan.mean()), std: row(scan.std()) };
        let mut labels = Vec::new();
        for z in 0..scan.header().depth {
            let pixels = picture::tensor(&scan.image(z), device);
            let logits = victim.logits(case.convert(pixels, Unit::Pixel, architecture.normalisation.unit))?;
            let predicted: Vec<i32> =
                logits.argmax(1).into_data().convert::<i32>().try_to_vec().expect("integers convert to i32");
            labels.extend(predicted.into_iter().map(|class| class as u8));
        }
        folder(&self.out)?;
        let name = self.image.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = name.strip_suffix(".gz").unwrap_or(&name);
        let file = self.out.join(format!("{}-classes.nii.gz", stem.strip_suffix(".nii").unwrap_or(stem)));
        write_labels(&file, scan.header(), &labels)?;
        let share = |class: usize| {
            labels.iter().filter(|&&label| usize::from(label) == class).count() as f64 / labels.len() as f64
        };
        let mut out = std::io::stdout();
        if self.json {
            let shares: serde_json::Map<_, _> =
                classes.iter().enumerate().map(|(at, class)| (class.name.clone(), share(at).into())).collect();
            let header = scan.header();
            let size = [header.width, header.height, header.depth];
            return Ok(writeln!(out, "{}", json!({ "size": size, "shares": shares, "files": [file] }))?);
        }
        for (at, class) in classes.iter().enumerate().filter(|(at, _)| share(*at) > 0.0) {
            writeln!(out, "{:6.2} %  {}", 100.0 * share(at), class.name)?;
        }
        Ok(writeln!(out, "{}", file.display())?)
    }
}

fn is_volume(file: &Path) -> bool {
    let name = file.to_string_lossy().to_lowercase();
    name.ends_with(".nii") || name.ends_with(".nii.gz")
}
