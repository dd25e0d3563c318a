//! Target maps of targeted attacks.

use burn::tensor::TensorData;
use fireproof_tensor::{Batch, Targets, VOID};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, host::integers};

/// What a targeted attack wants the victim to see, made from the true labels. Void pixels stay void.
///
/// Any other map is given in [`Context::target`](crate::Context::target).
///
/// In a settings file: `target = { class = 3 }`, `{ remove = 2 }` or `{ permute = [1, 2, 0] }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Every pixel of this class.
    Class(u8),
    /// Pixels of this class take the label of the nearest pixel of any other class (Metzen et al., ICCV 2017, the
    /// dynamic target). An image that holds nothing else has no target: all of it becomes void.
    Remove(u8),
    /// Pixels of class `k` take the label at position `k`.
    Permute(Vec<u8>),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Class(class) => write!(f, "class={class}"),
            Target::Remove(class) => write!(f, "remove={class}"),
            Target::Permute(table) => {
                let table: Vec<String> = table.iter().map(u8::to_string).collect();
                write!(f, "permute={}", table.join(","))
            }
        }
    }
}

impl std::str::FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let class = |text: &str| text.trim().parse::<u8>().ok().filter(|&class| class != VOID);
        let parsed = match text.split_once('=') {
            Some(("class", value)) => class(value).map(Target::Class),
            Some(("remove", value)) => class(value).map(Target::Remove),
            Some(("permute", value)) => value.split(',').map(class).collect::<Option<_>>().map(Target::Permute),
            _ => None,
        };
        parsed.ok_or_else(|| Error::Argument {
            what: "target",
            found: format!("'{text}'"),
            expected: "class=K, remove=K or permute=K0,K1,… with classes 0 to 254".into(),
        })
    }
}

impl Target {
    /// Refuses classes that a model with so many does not have.
    ///
    /// # Errors
    /// Names the class.
    pub fn check(&self, classes: usize) -> Result<()> {
        let named = match self {
            Target::Class(class) | Target::Remove(class) => std::slice::from_ref(class),
            Target::Permute(table) => table,
        };
        match named.iter().find(|&&class| usize::from(class) >= classes) {
            None => Ok(()),
            Some(class) => Err(Error::Argument {
                what: "target",
                found: format!("class {class} in {self}"),
                expected: format!("a class from 0 to {}", classes.saturating_sub(1)),
            }),
        }
    }

    /// The target map of a batch, `[N, H, W]`.
    ///
    /// # Errors
    /// If the batch holds a class for which a permutation has no entry.
    pub fn map(&self, batch: &Batch) -> Result<Targets> {
        let [n, height, width] = batch.targets.dims();
        let labels = integers(batch.targets.labels().clone());
        let void = i32::from(VOID);
        let mapped = match self {
            Target::Class(class) => labels.iter().map(|&l| if l == void { void } else { i32::from(*class) }).collect(),
            Target::Permute(table) => {
                let entry = |&label: &i32| match usize::try_from(label).ok().and_then(|l| table.get(l)) {
                    _ if label == void => Ok(void),
                    Some(class) => Ok(i32::from(*class)),
                    None => Err(Error::Argument {
                        what: "permutation of classes",
                        found: format!("{} entries", table.len()),
                        expected: format!("an entry for label {label}, which the batch holds"),
                    }),
                };
                labels.iter().map(entry).collect::<Result<Vec<_>>>()?
            }
            Target::Remove(class) => {
                let images = labels.chunks(height * width);
                images.flat_map(|image| fill(image, i32::from(*class), height, width)).collect()
            }
        };
        let device = batch.targets.labels().device();
        let map = Targets::hard(burn::tensor::Tensor::from_data(TensorData::new(mapped, [n, height, width]), &device));
        Ok(map.with_valid(batch.targets.valid().clone()))
    }
}

/// Replaces `class` by the label of the nearest pixel (Euclidean) that has another, valid one.
///
/// Exact: the nearest such pixel of each column first, then for each pixel the best column, searched outwards until the
/// columns alone are further away. Of equally near pixels the upper, then the left one counts.
fn fill(labels: &[i32], class: i32, height: usize, width: usize) -> Vec<i32> {
    let keeps = |l: i32| l != class && l != i32::from(VOID);
    // Distance and label of the nearest kept pixel in the same column.
    let mut column: Vec<Option<(usize, i32)>> = vec![None; labels.len()];
    for x in 0..width {
        let mut above: Option<usize> = None;
        for y in 0..height {
            if keeps(labels[y * width + x]) {
                above = Some(y);
            }
            column[y * width + x] = above.map(|s| (y - s, labels[s * width + x]));
        }
        let mut below: Option<usize> = None;
        for y in (0..height).rev() {
            if keeps(labels[y * width + x]) {
                below = Some(y);
            }
            if let Some(s) = below {
                let nearer = column[y * width + x].is_none_or(|(distance, _)| s - y < distance);
                if nearer {
                    column[y * width + x] = Some((s - y, labels[s * width + x]));
                }
            }
        }
    }
    let nearest = |y: usize, x: usize| {
        let mut best: Option<(usize, i32)> = None;
        for offset in 0..width {
            if best.is_some_and(|(distance, _)| offset * offset >= distance) {
                break;
            }
            let left = x.checked_sub(offset);
            let right = Some(x + offset).filter(|&r| r < width && offset > 0);
            for (dy, label) in [left, right].into_iter().flatten().filter_map(|x| column[y * width + x]) {
                let distance = dy * dy + offset * offset;
                if best.is_none_or(|(other, _)| distance < other) {
                    best = Some((distance, label));
                }
            }
        }
        best.map_or(i32::from(VOID), |(_, label)| label)
    };
    let pixel = |i: usize| if labels[i] == class { nearest(i / width, i % width) } else { labels[i] };
    (0..labels.len()).map(pixel).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    fn map(target: Target, labels: &[u8], dims: [usize; 3]) -> Result<Vec<i32>> {
        let device = Device::flex();
        let batch = Batch::new(
            Tensor::zeros([dims[0], 1, dims[1], dims[2]], &device),
            Targets::from_labels(labels, dims, &device)?,
            (0..dims[0] as u64).collect(),
        )?;
        Ok(integers(target.map(&batch)?.labels().clone()))
    }

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in ["class=3", "remove=0", "permute=1,0,2"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for wrong in ["", "class", "class=255", "class=-1", "permute=1,,2", "all=3"] {
            let error = wrong.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("class=K, remove=K or permute=K0,K1"), "{error}");
        }
    }

    #[test]
    fn a_target_must_be_a_class_that_exists() {
        assert!(Target::Permute(vec![1, 0]).check(2).is_ok());
        for wrong in [Target::Class(2), Target::Remove(9), Target::Permute(vec![0, 2])] {
            let error = wrong.check(2).unwrap_err().to_string();
            assert!(error.contains("a class from 0 to 1"), "{error}");
        }
    }

    #[test]
    fn one_class_everywhere_leaves_void_alone() {
        assert_eq!(map(Target::Class(3), &[0, VOID, 2], [1, 1, 3]).unwrap(), [3, 255, 3]);
    }

    #[test]
    fn a_permutation_must_cover_the_labels() {
        assert_eq!(map(Target::Permute(vec![1, 0]), &[0, 1, VOID], [1, 1, 3]).unwrap(), [1, 0, 255]);
        let error = map(Target::Permute(vec![1, 0]), &[0, 2], [1, 1, 2]).unwrap_err().to_string();
        assert!(error.contains("found 2 entries") && error.contains("label 2"), "{error}");
    }

    #[test]
    fn removing_a_class_agrees_with_brute_force() {
        let (height, width) = (13, 17);
        let stream = fireproof_tensor::random::Stream::new(&[5]);
        // Blobs of class 1 with holes, other classes and void around them.
        let labels: Vec<u8> = (0..(height * width) as u64)
            .map(|i| match stream.below(i, 10) {
                0 => 0,
                1 => 2,
                2 => VOID,
                _ => 1,
            })
            .collect();
        let filled = map(Target::Remove(1), &labels, [1, height, width]).unwrap();
        for i in 0..labels.len() {
            let distance = |j: usize| (i / width).abs_diff(j / width).pow(2) + (i % width).abs_diff(j % width).pow(2);
            if labels[i] != 1 {
                assert_eq!(filled[i], i32::from(labels[i]));
                continue;
            }
            let sources = (0..labels.len()).filter(|&j| labels[j] != 1 && labels[j] != VOID);
            let nearest = sources.clone().map(distance).min().unwrap();
            assert!(
                sources.filter(|&j| distance(j) == nearest).any(|j| i32::from(labels[j]) == filled[i]),
                "pixel {i} became {}",
                filled[i]
            );
        }
    }

    #[test]
    fn an_image_of_nothing_but_the_removed_class_has_no_target() {
        assert_eq!(map(Target::Remove(1), &[1, 1, 0, 1], [2, 1, 2]).unwrap(), [255, 255, 0, 0]);
    }
}
