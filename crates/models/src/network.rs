//! A network at run time, and what a concrete one implements.
//!
//! [`build`](crate::build) and [`load`](crate::load) return parameters on the plain device, where forward passes
//! build no graph. A trainer calls [`Network::train_mode`] once, which puts them on the autodiff device; it may go
//! back with [`Network::eval_mode`]. Attacks and evaluation use [`Network::victim`], whatever the mode.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, FloatDType, Gradients, Tensor, TensorData};
use fireproof_tensor::{HalfPrecision, Precision, Sizes, Split, Victim};
use serde::{Deserialize, Serialize};

use crate::layers::{Blueprint, Builder, pad_to_multiple};
use crate::{Architecture, Error, Result, Taps};

/// What a network says, at the images' size.
#[derive(Clone, Debug)]
pub struct Output {
    /// `[N, K, H, W]`.
    pub logits: Tensor<4>,
    /// An auxiliary head's logits `[N, K, H, W]`, in the training modes, if the network has one.
    pub auxiliary: Option<Tensor<4>>,
    /// Logits of coarser heads, the finest first, in the training modes, if the network has deep supervision.
    pub coarse: Vec<Coarse>,
}

/// What a head at a lower resolution says.
#[derive(Clone, Debug)]
pub struct Coarse {
    /// `[N, K, ⌈H / stride⌉, ⌈W / stride⌉]`.
    pub logits: Tensor<4>,
    /// How many pixels of the image, along each axis, one of these stands for.
    pub stride: usize,
}

impl From<Tensor<4>> for Output {
    fn from(logits: Tensor<4>) -> Self {
        Self { logits, auxiliary: None, coarse: Vec::new() }
    }
}

/// What a concrete network implements: a Burn module made of [`layers`](crate::layers).
pub trait Forward: Module + Sync + 'static {
    /// Normalised images `[N, C, H, W]` → logits of the same height and width.
    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output;

    /// The sites that `forward` passes, in order.
    fn sites(&self) -> Vec<String>;

    /// Height and width of the images that `forward` sees are multiples of this: others are padded with zeros
    /// (after normalising) at the bottom and right, and the logits cropped.
    fn size_multiple(&self) -> usize {
        1
    }
}

/// Whether a gradient changes a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Learned by gradient steps.
    Weight,
    /// A running statistic, changed by [`Network::commit`] only.
    Statistic,
}

/// Which part of the network a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The feature extractor, which may come from a classifier.
    Backbone,
    /// What turns features into logits; usually learns ten times faster.
    Head,
}

/// What a parameter is, without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Its name in PyTorch's state dict.
    pub name: String,
    /// Derived from the name, so that an optimizer's record fits after a resume.
    pub id: ParamId,
    /// Weight or statistic.
    pub kind: Kind,
    /// Backbone or head.
    pub group: Group,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
}

/// A parameter's values in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name in PyTorch's state dict.
    pub name: String,
    /// Weight or statistic.
    pub kind: Kind,
    /// Backbone or head.
    pub group: Group,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Row major.
    pub values: Vec<f32>,
}

/// Learning rates of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRates {
    /// Of [`Group::Backbone`].
    pub backbone: f64,
    /// Of [`Group::Head`].
    pub head: f64,
}

impl From<f64> for LearningRates {
    fn from(rate: f64) -> Self {
        Self { backbone: rate, head: rate }
    }
}

/// The gradients of a network's weights by parameter, ready for an optimizer: those of the backbone and of the head.
pub struct Updates([GradientsParams; 2]);

/// A network whose concrete type is known at run time only.
pub trait Network: Send + Sync {
    /// Name, options, classes and normalisation.
    fn architecture(&self) -> &Architecture;

    /// The plain device of the parameters.
    fn device(&self) -> Device;

    /// Names that [`Taps::inject`] and [`Taps::record`] know. The first is always `input`, the normalised images.
    fn sites(&self) -> Vec<String>;

    /// Images `[N, C, H, W]` in pixel space `[0, 1]` → logits at their size.
    ///
    /// On the autodiff graph if images or parameters are (see the [module's text](self)).
    ///
    /// # Panics
    /// If the images have another number of channels, or `taps` names a site that the network does not have.
    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output;

    /// Applies the batch-norm statistics collected in [`BatchNormMode::Train`](crate::BatchNormMode::Train) with
    /// PyTorch's momentum of 0.1.
    fn commit(&mut self, taps: &Taps);

    /// A frozen copy for attacks and evaluation: plain parameters, running statistics folded into the convolutions. Batches whose
    /// tensors the device could not bind pass in parts, see [`Split`].
    fn victim(&self) -> Box<dyn Victim + Send + Sync>;

    /// The same with parameters of another type: see [`HalfPrecision`].
    ///
    /// # Errors
    /// [`fireproof_tensor::Error::Precision`] if the device does not have it.
    fn victim_in(&self, precision: Precision) -> fireproof_tensor::Result<Box<dyn Victim + Send + Sync>>;

    /// A copy that shares no state with this one: what happens to one never shows in the other.
    fn deep_clone(&self) -> Box<dyn Network>;

    /// Puts the parameters on the autodiff device, weights requiring gradients.
    fn train_mode(&mut self);

    /// Puts the parameters back on the plain device.
    fn eval_mode(&mut self);

    /// Keeps the parameters of these names as they are: no [`step`](Network::step) and no [`commit`](Network::commit)
    /// changes them. Replaces what was frozen before.
    ///
    /// # Errors
    /// [`Error::Mismatch`] lists names that the network does not have.
    fn freeze(&mut self, names: &[String]) -> Result<()>;

    /// One step of the optimizer with gradients of a loss of [`forward`](Network::forward) in train mode.
    fn step(&mut self, optimizer: &mut ModuleOptimizer, rates: LearningRates, gradients: Gradients) {
        let updates = self.collect(gradients);
        self.apply(optimizer, rates, updates);
    }

    /// The gradients of this network's weights. They fit every network of the same layout, so a gradient can be taken at
    /// other weights than those that it changes.
    fn collect(&self, gradients: Gradients) -> Updates;

    /// One step of the optimizer with gradients that a network of this layout [collected](Network::collect).
    fn apply(&mut self, optimizer: &mut ModuleOptimizer, rates: LearningRates, updates: Updates);

    /// The parameters, in a fixed order, without their values.
    fn layout(&self) -> &[ParameterInfo];

    /// The parameters with their values, in the order of [`layout`](Network::layout).
    fn parameters(&self) -> Vec<Parameter>;

    /// The gradients of the weights, in the order of [`layout`](Network::layout); weights without one are left out.
    fn gradients(&self, gradients: &Gradients) -> Vec<Parameter>;

    /// Sets every parameter, or none.
    ///
    /// # Errors
    /// [`Error::Mismatch`] lists missing, unknown and misshapen parameters.
    fn set_parameters(&mut self, values: &[Parameter]) -> Result<()>;

    /// The weights of one group, for optimizers that treat groups differently.
    fn group(&self, group: Group) -> ParamGroup {
        let weights = self.layout().iter().filter(|p| p.group == group && p.kind == Kind::Weight);
        ParamGroup::from_ids(weights.map(|p| p.id).collect())
    }
}

/// Checks values against a layout and orders them; every problem is listed.
pub(crate) fn match_layout(
    architecture: &Architecture,
    layout: &[ParameterInfo],
    values: &[Parameter],
    origin: &str,
) -> Result<()> {
    let given: HashMap<&str, &Parameter> = values.iter().map(|p| (p.name.as_str(), p)).collect();
    let mut problems = Vec::new();
    for info in layout {
        match given.get(info.name.as_str()) {
            None => problems.push(format!("'{}' {:?} is missing", info.name, info.shape)),
            Some(p) if p.shape != info.shape => {
                problems.push(format!("'{}' has shape {:?}, expected {:?}", info.name, p.shape, info.shape));
            }
            Some(p) if p.values.len() != info.shape.iter().product::<usize>() => {
                problems.push(format!("'{}' has {} values for shape {:?}", info.name, p.values.len(), info.shape));
            }
            Some(_) => {}
        }
    }
    let known: HashSet<&str> = layout.iter().map(|p| p.name.as_str()).collect();
    let unknown = values.iter().filter(|p| !known.contains(p.name.as_str()));
    problems.extend(unknown.map(|p| format!("'{}' is not a parameter of the model", p.name)));
    if given.len() != values.len() {
        problems.push(format!("{} parameters, but only {} names", values.len(), given.len()));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Mismatch { origin: origin.to_string(), architecture: architecture.name.clone(), problems })
}

/// The one implementation of [`Network`].
#[derive(Clone)]
pub struct Trained<M> {
    module: M,
    architecture: Architecture,
    blueprint: Arc<Blueprint>,
    device: Device,
    frozen: HashSet<ParamId>,
    /// Sizes of tensors, which follow from the architecture alone.
    sizes: Arc<Sizes>,
}

impl<M: Forward> Trained<M> {
    /// The victim, split where the device binds no tensor as large as a batch may make.
    fn fitting(&self, victim: impl Victim + Send + Sync + 'static) -> Box<dyn Victim + Send + Sync> {
        match fireproof_tensor::device::largest_tensor(&self.device) {
            Some(limit) => Box::new(Split::with_limit(victim, limit).sharing(self.sizes.clone())),
            None => Box::new(victim),
        }
    }

    /// Assembles a network: `make` builds the module, its parameters get their names, ids and values from the builder.
    pub fn assemble(
        architecture: &Architecture,
        seed: u64,
        device: &Device,
        make: impl FnOnce(&Builder) -> M,
    ) -> Box<dyn Network> {
        let device = device.clone().inner();
        let builder = Builder::new(seed, &device);
        let module = make(&builder);
        let blueprint = Arc::new(builder.finish());
        Box::new(Self {
            module,
            architecture: architecture.clone(),
            blueprint,
            device,
            frozen: HashSet::new(),
            sizes: Arc::default(),
        })
    }

    /// Replaces the module by a function of itself.
    fn replace(&mut self, f: impl FnOnce(M) -> M) {
        // A clone is a handful of reference counts; the old value goes as soon as the new one is there.
        self.module = f(self.module.clone());
    }
}

/// The pass that a network and its victim share.
fn pass<M: Forward>(module: &M, architecture: &Architecture, images: Tensor<4>, taps: &mut Taps) -> Output {
    let [_, _, height, width] = images.dims();
    let x = architecture.normalisation.apply(images);
    let x = taps.site("input", x);
    let x = pad_to_multiple(x, module.size_multiple());
    let padded = x.dims()[2..] != [height, width];
    let mut output = module.forward(x, taps);
    if padded {
        let crop =
            |y: Tensor<4>, stride: usize| y.narrow(2, 0, height.div_ceil(stride)).narrow(3, 0, width.div_ceil(stride));
        let coarse = output.coarse.into_iter();
        let coarse = coarse.map(|Coarse { logits, stride }| Coarse { logits: crop(logits, stride), stride });
        output = Output {
            logits: crop(output.logits, 1),
            auxiliary: output.auxiliary.map(|y| crop(y, 1)),
            coarse: coarse.collect(),
        };
    }
    if let Some(site) = taps.unreached() {
        panic!(
            "model '{}' has no site '{site}' in this pass; it has: {}",
            architecture.name,
            module.sites().join(", ")
        );
    }
    output
}

impl<M: Forward> Network for Trained<M> {
    fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn sites(&self) -> Vec<String> {
        std::iter::once("input".to_string()).chain(self.module.sites()).collect()
    }

    fn forward(&self, images: Tensor<4>, taps: &mut Taps) -> Output {
        pass(&self.module, &self.architecture, images, taps)
    }

    fn commit(&mut self, taps: &Taps) {
        const MOMENTUM: f64 = 0.1;
        let mut update: HashMap<ParamId, Vec<Tensor<1>>> = HashMap::new();
        for s in taps.statistics().iter().filter(|s| !self.frozen.contains(&s.running_mean)) {
            update.entry(s.running_mean).or_default().push(s.mean.clone());
            update.entry(s.running_variance).or_default().push(s.variance.clone());
        }
        self.replace(|m| {
            m.map(&mut Change(|id, old: Erased| match update.get(&id) {
                Some(batches) => {
                    let running = batches
                        .iter()
                        .fold(old.vector(), |running, batch| running * (1.0 - MOMENTUM) + batch.clone() * MOMENTUM);
                    Some(Erased::from(running))
                }
                None => None,
            }))
        });
    }

    fn victim(&self) -> Box<dyn Victim + Send + Sync> {
        let module = self.blueprint.fold(self.module.valid());
        self.fitting(Frozen { module, architecture: self.architecture.clone() })
    }

    fn victim_in(&self, precision: Precision) -> fireproof_tensor::Result<Box<dyn Victim + Send + Sync>> {
        let dtype = precision.dtype(&self.device)?;
        if dtype == FloatDType::F32 {
            return Ok(self.victim());
        }
        let module = self.blueprint.fold(self.module.valid()).map(&mut Cast(dtype));
        let frozen = Frozen { module, architecture: self.architecture.clone() };
        Ok(self.fitting(HalfPrecision::new(frozen, dtype)))
    }

    fn deep_clone(&self) -> Box<dyn Network> {
        // Parameters are values and no layer holds anything else, so a clone shares nothing that can change.
        Box::new(self.clone())
    }

    fn train_mode(&mut self) {
        self.replace(Module::train);
    }

    fn eval_mode(&mut self) {
        self.module = self.module.valid();
    }

    fn freeze(&mut self, names: &[String]) -> Result<()> {
        let known: HashMap<&str, ParamId> = self.layout().iter().map(|info| (info.name.as_str(), info.id)).collect();
        let missing: Vec<&String> = names.iter().filter(|name| !known.contains_key(name.as_str())).collect();
        if !missing.is_empty() {
            return Err(Error::Mismatch {
                origin: "the list of frozen parameters".into(),
                architecture: self.architecture.name.clone(),
                problems: missing.iter().map(|name| format!("'{name}' is not a parameter of the model")).collect(),
            });
        }
        let frozen = names.iter().map(|name| known[name.as_str()]).collect();
        self.frozen = frozen;
        Ok(())
    }

    fn collect(&self, mut gradients: Gradients) -> Updates {
        Updates([Group::Backbone, Group::Head].map(|group| {
            let mut ids: Vec<ParamId> = self.blueprint.ids(group);
            ids.retain(|id| !self.frozen.contains(id));
            GradientsParams::from_params(&mut gradients, &self.module, &ids)
        }))
    }

    fn apply(&mut self, optimizer: &mut ModuleOptimizer, rates: LearningRates, Updates(parts): Updates) {
        for (part, rate) in parts.into_iter().zip([rates.backbone, rates.head]) {
            self.replace(|m| optimizer.step(rate, m, part));
        }
    }

    fn layout(&self) -> &[ParameterInfo] {
        &self.blueprint.parameters
    }

    fn parameters(&self) -> Vec<Parameter> {
        let mut values = Values::default();
        self.module.visit(&mut values);
        self.blueprint.with_values(&mut values.0)
    }

    fn gradients(&self, gradients: &Gradients) -> Vec<Parameter> {
        let mut values = GradientValues { gradients, values: HashMap::new() };
        self.module.visit(&mut values);
        self.blueprint.with_values(&mut values.values)
    }

    fn set_parameters(&mut self, values: &[Parameter]) -> Result<()> {
        match_layout(&self.architecture, self.layout(), values, "the list of parameters")?;
        let by_name: HashMap<&str, &Parameter> = values.iter().map(|p| (p.name.as_str(), p)).collect();
        let by_id: HashMap<ParamId, &Parameter> =
            self.layout().iter().map(|info| (info.id, by_name[info.name.as_str()])).collect();
        self.replace(|m| m.map(&mut Assign(by_id)));
        Ok(())
    }
}

/// The frozen copy of a network.
struct Frozen<M> {
    module: M,
    architecture: Architecture,
}

impl<M: Forward> Victim for Frozen<M> {
    fn logits(&self, images: Tensor<4>) -> fireproof_tensor::Result<Tensor<4>> {
        Ok(pass(&self.module, &self.architecture, images, &mut Taps::folded()).logits)
    }
}

/// Gives every parameter another type.
struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        Param::initialized(id, param.val().inner().cast(self.0))
    }
}

/// A plain tensor of any rank, flattened.
pub(crate) struct Erased {
    flat: Tensor<1>,
}

impl Erased {
    pub(crate) fn vector(self) -> Tensor<1> {
        self.flat
    }
}

impl From<Tensor<1>> for Erased {
    fn from(flat: Tensor<1>) -> Self {
        Self { flat }
    }
}

/// Maps every parameter through a function of its plain value; the training state stays.
pub(crate) struct Change<F>(pub(crate) F);

impl<F: FnMut(ParamId, Erased) -> Option<Erased>> ModuleMapper for Change<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dims = param.lazy_shape().dims::<D>();
        let flat = param.val().inner().reshape([dims.iter().product::<usize>()]);
        match (self.0)(param.id, Erased { flat }) {
            Some(new) => replaced(param, new.flat.reshape(dims)),
            None => param,
        }
    }
}

/// Sets parameters from host memory.
struct Assign<'a>(HashMap<ParamId, &'a Parameter>);

impl ModuleMapper for Assign<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(new) = self.0.get(&param.id) else { return param };
        let data = TensorData::new(new.values.clone(), new.shape.clone());
        let value = Tensor::from_data(data, &param.lazy_device().inner());
        replaced(param, value)
    }
}

/// The parameter with another value, on the same device and in the same training state.
fn replaced<const D: usize>(param: Param<Tensor<D>>, value: Tensor<D>) -> Param<Tensor<D>> {
    let value = if param.lazy_device().is_autodiff() { Tensor::from_inner(value) } else { value };
    let id = param.id;
    param.transform_for_load(value, id)
}

/// Reads every parameter into host memory.
#[derive(Default)]
struct Values(HashMap<ParamId, Vec<f32>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.insert(param.id, host(param.val()));
    }
}

struct GradientValues<'a> {
    gradients: &'a Gradients,
    values: HashMap<ParamId, Vec<f32>>,
}

impl ModuleVisitor for GradientValues<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.values.insert(param.id, host(gradient));
        }
    }
}

/// A tensor's values, row major.
pub(crate) fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    fireproof_tensor::host::floats(x.inner())
}
