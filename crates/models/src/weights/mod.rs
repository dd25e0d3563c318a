//! Weight files: reading and writing, and telling what network a file is for.
//!
//! | format | read | written |
//! |---|---|---|
//! | safetensors with our metadata | yes | yes |
//! | safetensors without | yes, the layout is recognised by its names and shapes | |
//! | PyTorch `.pth`/`.pt` state dict, zip and legacy | yes, likewise; nothing in a pickle is ever run | |
//!
//! Files are untrusted: sizes are checked against the file's length and shapes against the network's before a
//! tensor is allocated, and a network comes out whole or not at all.

mod nearest;
mod pytorch;
mod recognise;
mod safetensors;
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;

pub use recognise::{Recognised, Shapes};
use source::Source;

use crate::network::{Group, Network, Parameter, ParameterInfo};
use crate::{Architecture, Definition, Error, Result, build, definition, definitions};

/// What the caller knows better than the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// The model's name; an error if the file says another.
    pub name: Option<String>,
    /// Options to set, e.g. `auxiliary` = 1 to read the auxiliary head of a file without metadata.
    pub options: BTreeMap<String, usize>,
    /// Names of the classes; as many as the head has.
    pub classes: Option<Vec<String>>,
    /// Mean of each channel, see [`Normalisation`](crate::Normalisation).
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel.
    pub std: Option<Vec<f32>>,
}

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// True if the file said what it is, false if its layout was recognised.
    pub described: bool,
    /// Names in the file that nothing was read from.
    pub unused: Vec<String>,
    /// What the writer added to the metadata.
    pub extra: BTreeMap<String, String>,
}

/// A network with the weights of a file.
pub struct Loaded {
    /// The network, on the plain device.
    pub network: Box<dyn Network>,
    /// What was found.
    pub report: Report,
}

/// Reads a network.
///
/// Without metadata, the network is recognised by the names in the file, the number of classes read from the head's
/// shape (they are called `class 0`, …), and the normalisation is the architecture's default. Names that the network has no use
/// for (`num_batches_tracked`, `aux_classifier.*`) are reported.
///
/// # Errors
/// [`Error::Io`] and [`Error::Format`] for the file, [`Error::Mismatch`] with every missing and misshapen
/// parameter, [`Error::UnknownArchitecture`] and [`Error::Architecture`] for what the overrides ask.
pub fn load(path: impl AsRef<Path>, overrides: &Overrides, device: &Device) -> Result<Loaded> {
    let path = path.as_ref();
    let file = Source::open(path)?;
    let shapes = file.shapes();
    let (architecture, described) = architecture(path, &file, &shapes, overrides)?;
    // Parameters are lazy: building checks nothing and allocates nothing yet.
    let mut network = build(&architecture, 0, device)?;
    check_shapes(path, &architecture.name, network.layout(), &shapes, |name| Some(name.to_string()))?;
    let values = read(&file, network.layout(), |name| Some(name.to_string()))?;
    network.set_parameters(&values)?;
    let used: std::collections::HashSet<&str> = network.layout().iter().map(|p| p.name.as_str()).collect();
    let unused = shapes.names().filter(|name| !used.contains(name)).map(String::from);
    let unused = unused.chain(file.ignored()).collect();
    Ok(Loaded { network, report: Report { described, unused, extra: file.extra() } })
}

/// Fills a network's backbone from a torchvision (or semseg) ResNet classifier; the head stays as it is.
///
/// # Errors
/// As [`load`]; also if the network has no ResNet.
pub fn load_backbone(network: &mut dyn Network, path: impl AsRef<Path>) -> Result<Report> {
    let path = path.as_ref();
    let file = Source::open(path)?;
    let shapes = file.shapes();
    let name = network.architecture().name.clone();
    let backbone: Vec<ParameterInfo> =
        network.layout().iter().filter(|p| p.group == Group::Backbone).cloned().collect();
    if backbone.iter().any(|p| classifier_name(&p.name).is_none()) {
        return Err(Error::Architecture {
            architecture: name,
            what: "backbone".into(),
            found: "no ResNet".into(),
            expected: "one of pspnet-*, deeplabv3-*, fcn-*".into(),
        });
    }
    check_shapes(path, &name, &backbone, &shapes, classifier_name)?;
    let mut values = network.parameters();
    for new in read(&file, &backbone, classifier_name)? {
        let slot = values.iter_mut().find(|p| p.name == new.name);
        *slot.expect("the backbone is part of the network") = new;
    }
    network.set_parameters(&values)?;
    let used: std::collections::HashSet<String> = backbone.iter().filter_map(|p| classifier_name(&p.name)).collect();
    let unused = shapes.names().filter(|name| !used.contains(*name)).map(String::from);
    Ok(Report { described: false, unused: unused.chain(file.ignored()).collect(), extra: file.extra() })
}

/// The name that a ResNet classifier has for a backbone parameter.
fn classifier_name(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("backbone.") {
        return Some(rest.to_string());
    }
    if name.split('.').next().is_some_and(|stage| ["layer1", "layer2", "layer3", "layer4"].contains(&stage)) {
        return Some(name.to_string());
    }
    let (index, rest) = name.strip_prefix("layer0.")?.split_once('.')?;
    let index: usize = index.parse().ok()?;
    let kind = ["conv", "bn"].get(index % 3)?;
    Some(format!("{kind}{}.{rest}", index / 3 + 1))
}

/// Writes a network's parameters under PyTorch's names, with everything needed to read it back, and `extra`.
///
/// The file appears whole: it is written under a temporary name in the same folder and renamed. Equal networks give
/// equal bytes.
///
/// # Errors
/// [`Error::Io`].
pub fn save(network: &dyn Network, path: impl AsRef<Path>, extra: &BTreeMap<String, String>) -> Result<()> {
    safetensors::write(path.as_ref(), network.architecture(), &network.parameters(), extra)
}

/// The architecture that a file is for, and whether the file said so itself.
fn architecture(path: &Path, file: &Source, shapes: &Shapes, overrides: &Overrides) -> Result<(Architecture, bool)> {
    let described = file.architecture();
    let is_described = described.is_some();
    let mut architecture = match described {
        Some(architecture) => architecture,
        None => recognise(path, shapes, overrides.name.as_deref())?,
    };
    if let Some(name) = &overrides.name
        && *name != architecture.name
    {
        definition(name)?;
        let found = format!("the weights are of model '{}'", architecture.name);
        return Err(Error::format(path, found, format!("'{name}'")));
    }
    architecture.options.extend(overrides.options.clone());
    if let Some(classes) = &overrides.classes {
        if classes.len() != architecture.classes.len() {
            let found = format!("the head has {} classes", architecture.classes.len());
            return Err(Error::format(path, found, format!("{}", classes.len())));
        }
        architecture.classes.clone_from(classes);
    }
    if let Some(mean) = &overrides.mean {
        architecture.normalisation.mean.clone_from(mean);
    }
    if let Some(std) = &overrides.std {
        architecture.normalisation.std.clone_from(std);
    }
    architecture.check()?;
    Ok((architecture, is_described))
}

/// Asks every definition, or the named one, whether the layout is its own.
fn recognise(path: &Path, shapes: &Shapes, name: Option<&str>) -> Result<Architecture> {
    let named = name.map(definition).transpose()?;
    let candidates: Vec<&'static Definition> = match named {
        Some(definition) => vec![definition],
        None => definitions().collect(),
    };
    let mut found = candidates.iter().filter_map(|d| Some((*d, (d.recognise)(shapes)?)));
    let Some((definition, Recognised { classes, input_channels, options })) = found.next() else {
        if let Some(mismatch) = nearest::nearest(path, shapes, &candidates) {
            return Err(mismatch);
        }
        let some: Vec<&str> = shapes.names().take(4).collect();
        let names: Vec<&str> = candidates.iter().map(|d| d.name).collect();
        return Err(Error::format(
            path,
            format!("{} tensors of no known layout ({}, …)", shapes.len(), some.join(", ")),
            format!("weights of one of: {}", names.join(", ")),
        ));
    };
    let mut architecture = Architecture {
        name: definition.name.to_string(),
        options: definition.options.iter().map(|o| (o.name.to_string(), o.default)).collect(),
        classes: (0..classes).map(|k| format!("class {k}")).collect(),
        input_channels,
        normalisation: (definition.normalisation)(input_channels),
    };
    architecture.options.extend(options.into_iter().map(|(name, value)| (name.to_string(), value)));
    Ok(architecture)
}

/// Compares the shapes in a file with a layout; every problem is listed.
fn check_shapes(
    path: &Path,
    architecture: &str,
    layout: &[ParameterInfo],
    shapes: &Shapes,
    name_in_file: impl Fn(&str) -> Option<String>,
) -> Result<()> {
    let problem = |info: &ParameterInfo| {
        let name = name_in_file(&info.name)?;
        match shapes.get(&name) {
            None => Some(format!("'{name}' {:?} is missing", info.shape)),
            Some(shape) if *shape != info.shape => {
                Some(format!("'{name}' has shape {shape:?}, expected {:?}", info.shape))
            }
            Some(_) => None,
        }
    };
    let problems: Vec<String> = layout.iter().filter_map(problem).collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Mismatch { origin: path.display().to_string(), architecture: architecture.to_string(), problems })
}

/// Reads the values of a layout whose shapes were checked.
fn read(
    file: &Source,
    layout: &[ParameterInfo],
    name_in_file: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Parameter>> {
    let value = |info: &ParameterInfo| {
        let ParameterInfo { name, kind, group, shape, .. } = info.clone();
        let values = file.values(&name_in_file(&name).unwrap_or_default())?;
        Ok(Parameter { name, kind, group, shape, values })
    };
    layout.iter().map(value).collect()
}
