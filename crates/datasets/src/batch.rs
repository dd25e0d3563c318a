//! From samples to tensors.

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_tensor::{Affine, Batch, Targets};

use crate::{Case, Error, Result, Sample};

/// Puts samples of one size on a device: images `[N, C, H, W]` in `[0, 1]`, labels `[N, H, W]` with void 255, and ids. Where
/// samples are slices of medical volumes, `affine` holds the volumes' statistics; images stay in `[0, 1]`.
///
/// ```
/// use burn::tensor::Device;
/// use fireproof_datasets::{Dataset, Options, Split, batch, open};
///
/// let scenes = open("scenes", None, Split::Val, Options::default())?;
/// let batch = batch(&[scenes.get(0)?, scenes.get(5)?], &Device::flex())?;
/// assert_eq!((batch.dims(), batch.ids), ([2, 3, 96, 128], vec![0, 5]));
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
///
/// # Errors
/// If there are no samples, or they differ in channels or size, or only some of them are slices of a volume.
pub fn batch(samples: &[Sample], device: &Device) -> Result<Batch> {
    let Some(first) = samples.first() else {
        return Err(Error::argument("batch", "no samples", "at least one"));
    };
    let shape = |sample: &Sample| (sample.image.channels, sample.image.size(), sample.mask.size());
    if let Some(other) = samples.iter().find(|sample| shape(sample) != shape(first)) {
        let found = format!("`{}` with {:?} and `{}` with {:?}", first.name, shape(first), other.name, shape(other));
        return Err(Error::argument("batch", found, "samples of one number of channels and one size"));
    }
    let image = &first.image;
    let mut pixels = Vec::with_capacity(samples.len() * image.data.len());
    let mut labels = Vec::with_capacity(samples.len() * first.mask.data.len());
    for sample in samples {
        pixels.extend_from_slice(&sample.image.data);
        labels.extend_from_slice(&sample.mask.data);
    }
    let ids = samples.iter().map(|sample| sample.id).collect();
    let dims = [samples.len(), image.channels, image.height, image.width];
    let unfit = |error| Error::argument("batch", error, "samples whose tensors fit together");
    // One label an image, or one a pixel.
    let (rows, columns) = first.mask.size();
    let targets = Targets::from_labels(&labels, [samples.len(), rows, columns], device).map_err(unfit)?;
    let images = Tensor::from_data(TensorData::new(pixels, dims), device);
    let mut batch = Batch::new(images, targets, ids).map_err(unfit)?;
    batch.affine = affine(samples, device)?;
    Ok(batch)
}

/// Mean and standard deviation of each sample's volume, `[N, C]`; `None` where no sample belongs to a volume.
fn affine(samples: &[Sample], device: &Device) -> Result<Option<Affine>> {
    let cases: Vec<&Case> = samples.iter().filter_map(|sample| sample.case.as_ref()).collect();
    if cases.is_empty() {
        return Ok(None);
    }
    let channels = samples[0].image.channels;
    let fits = |case: &&Case| case.mean.len() == channels && case.std.len() == channels;
    if cases.len() != samples.len() || !cases.iter().all(fits) {
        let found = format!("statistics of {channels} channels for {} of {} samples", cases.len(), samples.len());
        return Err(Error::argument("batch", found, "such statistics for all samples or for none"));
    }
    let tensor = |values: fn(&Case) -> &[f32]| {
        let data: Vec<f32> = cases.iter().flat_map(|case| values(case).iter().copied()).collect();
        Tensor::<2>::from_data(TensorData::new(data, [samples.len(), channels]), device)
    };
    Ok(Some(Affine { mean: tensor(|case| &case.mean), std: tensor(|case| &case.std) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, Mask, Slice, VOID};

    fn sample(id: u64, statistics: Option<[[f32; 2]; 2]>) -> Sample {
        let slice = Slice { volume: id, name: "v".into(), z: 0 };
        let case = statistics.map(|[mean, std]| Case { slice, spacing: None, mean: mean.into(), std: std.into() });
        let mask = Mask { height: 1, width: 1, data: vec![0] };
        Sample { id, name: format!("s{id}"), image: Image::zeros(2, 1, 1), mask, case }
    }

    #[test]
    fn one_label_an_image_stays_one() {
        let labelled = |label| Sample {
            image: Image::zeros(2, 4, 3),
            mask: Mask { height: 1, width: 1, data: vec![label] },
            ..sample(u64::from(label), None)
        };
        let batch = batch(&[labelled(3), labelled(VOID)], &Device::flex()).unwrap();
        assert_eq!((batch.dims(), batch.targets.dims()), ([2, 2, 4, 3], [2, 1, 1]));
        assert_eq!(batch.targets.valid().clone().into_data().try_to_vec::<f32>().unwrap(), [1.0, 0.0]);
    }

    #[test]
    fn slices_of_volumes_bring_the_statistics_of_their_volume() {
        let device = Device::flex();
        let samples = [sample(0, Some([[0.1, 0.2], [1.0, 2.0]])), sample(1, Some([[0.3, 0.4], [3.0, 4.0]]))];
        let affine = batch(&samples, &device).unwrap().affine.unwrap();
        assert_eq!((affine.mean.dims(), affine.std.dims()), ([2, 2], [2, 2]));
        assert_eq!(affine.mean.into_data().try_to_vec::<f32>().unwrap(), [0.1, 0.2, 0.3, 0.4]);
        assert_eq!(affine.std.into_data().try_to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert!(batch(&[sample(0, None)], &device).unwrap().affine.is_none());
        let mixed = [samples[0].clone(), sample(1, None)];
        let message = batch(&mixed, &device).unwrap_err().to_string();
        assert!(message.starts_with("batch: found statistics of 2 channels for 1 of 2 samples"), "{message}");
    }
}
