//! What a file of no known layout is nearest to, and what keeps it from being that.

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::Device;

use super::{Shapes, check_shapes};
use crate::network::ParameterInfo;
use crate::{Architecture, Definition, Error, build};

/// The missing and misshapen parameters of the network of which the file lacks least; `None` if it has not even half of
/// any.
pub(super) fn nearest(path: &Path, shapes: &Shapes, candidates: &[&'static Definition]) -> Option<Error> {
    let mut best: Option<(usize, Error)> = None;
    for definition in candidates {
        for options in variants(definition) {
            for layout in layouts(definition, &options, shapes) {
                let Err(error) = check_shapes(path, definition.name, &layout, shapes, |name| Some(name.to_owned()))
                else {
                    continue;
                };
                let Error::Mismatch { problems, .. } = &error else { continue };
                let count = problems.len();
                if 2 * count < layout.len() && best.as_ref().is_none_or(|(least, _)| count < *least) {
                    best = Some((count, error));
                }
            }
        }
    }
    best.map(|(_, error)| error)
}

type Options = Vec<(String, usize)>;

/// The default options, with every setting of those that are switches. A head that only training needs is left out, as it
/// is of files that are recognised.
fn variants(definition: &Definition) -> Vec<Options> {
    definition.options.iter().fold(vec![Options::new()], |variants, option| {
        let values = match option.name {
            "auxiliary" => 0..=0,
            _ if option.range == (0..=1) => 0..=1,
            _ => option.default..=option.default,
        };
        let with = |variant: &Options, value| [&variant[..], &[(option.name.to_owned(), value)]].concat();
        variants.iter().flat_map(|variant| values.clone().map(move |value| with(variant, value))).collect()
    })
}

/// The parameters of the network with as many classes as the tensors of the file's head say, which may not agree.
fn layouts(definition: &Definition, options: &Options, shapes: &Shapes) -> Vec<Vec<ParameterInfo>> {
    let of = |classes: usize| {
        let architecture = Architecture {
            name: definition.name.to_owned(),
            options: options.iter().cloned().collect(),
            classes: (0..classes).map(|k| format!("class {k}")).collect(),
            input_channels: 3,
            normalisation: (definition.normalisation)(3),
        };
        // Parameters are lazy: this allocates none.
        Some(build(&architecture, 0, &Device::flex()).ok()?.layout().to_vec())
    };
    let (Some(two), Some(three)) = (of(2), of(3)) else { return Vec::new() };
    let counts: BTreeSet<usize> = two
        .iter()
        .zip(&three)
        .filter_map(|(a, b)| {
            let axis = a.shape.iter().zip(&b.shape).position(|(a, b)| a != b)?;
            shapes.get(&a.name).filter(|shape| shape.len() == a.shape.len()).map(|shape| shape[axis])
        })
        // An absurd count is a misshapen head like any other.
        .filter(|classes| (1..=1 << 12).contains(classes))
        .collect();
    if counts.is_empty() { vec![two] } else { counts.into_iter().filter_map(of).collect() }
}
