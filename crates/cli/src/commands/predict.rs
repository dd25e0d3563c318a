//! `predict`: one image through one model.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::options::{ModelOptions, folder};
use crate::picture;

/// Segment one image.
///
/// Writes NAME-classes.png (the class indices) and NAME-colors.png, at the image's size, and prints each class's share.
#[derive(Debug, Args)]
pub struct Predict {
    #[command(flatten)]
    model: ModelOptions,
    /// The weights file (.safetensors, .pth)
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The image (PNG, JPEG)
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// The output folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
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
        let image = picture::read(&self.image, &*network)?;
        let logits = network.victim().logits(picture::tensor(&image, &device))?;
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
}
