//! Writes the first samples of a split, images over coloured masks, as one PNG.
//!
//! ```text
//! cargo run --release -p fireproof-datasets --no-default-features --example contact_sheet -- scenes train 24 sheet.png
//! cargo run --release -p fireproof-datasets --no-default-features --example contact_sheet -- camvid test 8 sheet.png DIR
//! ```

use std::{error::Error, fs::File, io::BufWriter, path::Path};

use fireproof_datasets::{Options, Sample, Split, VOID, open};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, split, count, file, root @ ..] = arguments.as_slice() else {
        return Err("expected NAME SPLIT COUNT FILE [ROOT]".into());
    };
    let root = root.first().map(Path::new);
    let split: Split = split.parse()?;
    let data = open(name, root, split, Options::default())?;
    let samples: Vec<Sample> =
        (0..count.parse::<usize>()?.min(data.len())).map(|index| data.get(index)).collect::<Result<_, _>>()?;
    let (height, width) = samples[0].image.size();
    let columns = samples.len().min(6);
    let rows = samples.len().div_ceil(columns);
    let stride = columns * (width + 2);
    let mut sheet = vec![0u8; 3 * stride * rows * 2 * (height + 2)];
    for (position, sample) in samples.iter().enumerate() {
        let (left, top) = (position % columns * (width + 2), position / columns * 2 * (height + 2));
        for y in 0..height {
            for x in 0..width {
                let pixel = y * width + x;
                let image = [0, 1, 2].map(|c| {
                    let channel = c.min(sample.image.channels - 1);
                    (sample.image.data[channel * height * width + pixel] * 255.0).round() as u8
                });
                let label = sample.mask.data[pixel];
                let color = if label == VOID { [255; 3] } else { data.classes()[usize::from(label)].color };
                let mut put = |row: usize, rgb: [u8; 3]| {
                    let at = 3 * ((top + row) * stride + left + x);
                    sheet[at..at + 3].copy_from_slice(&rgb);
                };
                put(y, image);
                put(height + 1 + y, color);
            }
        }
    }
    let mut encoder =
        png::Encoder::new(BufWriter::new(File::create(file)?), stride as u32, (rows * 2 * (height + 2)) as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&sheet)?;
    Ok(())
}
