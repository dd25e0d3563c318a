//! Parameters with PyTorch's names, ids derived from the names, and values derived from a seed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::rc::Rc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use fireproof_tensor::random::Stream;

use crate::network::{Change, Erased, Group, Kind, Parameter, ParameterInfo, host};

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// One value.
    Constant(f32),
    /// Normal with this standard deviation.
    Normal(f32),
    /// Uniform in ± this bound.
    Uniform(f32),
}

/// Makes the parameters of a network; one builder for each place in the tree of names.
///
/// Values depend on the seed and the parameter's name alone, so adding a layer changes no other.
#[derive(Clone)]
pub struct Builder {
    seed: u64,
    device: Device,
    path: String,
    group: Group,
    blueprint: Rc<RefCell<Blueprint>>,
}

impl Builder {
    /// The root of a network's names.
    pub(crate) fn new(seed: u64, device: &Device) -> Self {
        Self { seed, device: device.clone(), path: String::new(), group: Group::Backbone, blueprint: Rc::default() }
    }

    /// The place called `name` below this one; `a.b` descends twice.
    pub fn at(&self, name: impl Display) -> Self {
        let path = if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Self { path, ..self.clone() }
    }

    /// The same place, for parameters of the head.
    pub fn head(&self) -> Self {
        Self { group: Group::Head, ..self.clone() }
    }

    /// A learned parameter.
    pub fn weight<const D: usize>(&self, name: &str, shape: [usize; D], init: Init) -> Param<Tensor<D>> {
        self.parameter(name, shape, init, Kind::Weight)
    }

    /// A running statistic.
    pub fn statistic<const D: usize>(&self, name: &str, shape: [usize; D], init: Init) -> Param<Tensor<D>> {
        self.parameter(name, shape, init, Kind::Statistic)
    }

    fn parameter<const D: usize>(&self, name: &str, shape: [usize; D], init: Init, kind: Kind) -> Param<Tensor<D>> {
        let name = self.at(name).path;
        let id = ParamId::from(Stream::new(&[]).child(&name).bits(0));
        let stream = Stream::new(&[self.seed]).child(&name);
        let mut blueprint = self.blueprint.borrow_mut();
        assert!(blueprint.parameters.iter().all(|p| p.name != name && p.id != id), "parameter '{name}' is made twice");
        blueprint.parameters.push(ParameterInfo { name, id, kind, group: self.group, shape: shape.to_vec() });
        // Lazy, so that a file can be checked against the shapes before anything is allocated.
        let make = move |device: &Device, require_grad: bool| {
            let value = |i: u64| match init {
                Init::Constant(c) => c,
                Init::Normal(deviation) => deviation * stream.normal(i),
                Init::Uniform(bound) => bound * stream.symmetric(i),
            };
            let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(value).collect();
            let tensor = Tensor::from_data(TensorData::new(values, shape), device);
            if require_grad { tensor.require_grad() } else { tensor }
        };
        Param::uninitialized(id, make, self.device.clone(), kind == Kind::Weight, shape.into())
    }

    /// Remembers a batch norm for [`Blueprint::fold`], with the convolution that it follows directly.
    pub(crate) fn fold(&self, fold: Fold) {
        self.blueprint.borrow_mut().folds.push(fold);
    }

    /// What was made.
    pub(crate) fn finish(self) -> Blueprint {
        self.blueprint.take()
    }
}

/// The list of a network's parameters, and which batch norms fold into what.
#[derive(Clone, Debug, Default)]
pub struct Blueprint {
    pub(crate) parameters: Vec<ParameterInfo>,
    folds: Vec<Fold>,
}

/// A batch norm, and the weight of the convolution before it.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub convolution: Option<ParamId>,
    pub weight: ParamId,
    pub bias: ParamId,
    pub mean: ParamId,
    pub variance: ParamId,
    pub epsilon: f64,
}

impl Blueprint {
    /// Ids of a group's weights.
    pub(crate) fn ids(&self, group: Group) -> Vec<ParamId> {
        self.parameters.iter().filter(|p| p.group == group && p.kind == Kind::Weight).map(|p| p.id).collect()
    }

    /// The parameters that have values here, in order.
    pub(crate) fn with_values(&self, values: &mut HashMap<ParamId, Vec<f32>>) -> Vec<Parameter> {
        let filled = self.parameters.iter().filter_map(|info| {
            let values = values.remove(&info.id)?;
            let ParameterInfo { name, kind, group, shape, .. } = info.clone();
            Some(Parameter { name, kind, group, shape, values })
        });
        filled.collect()
    }

    /// Turns every batch norm's weight and bias into scale and shift of its running statistics, and scales the
    /// convolution before it. The result is for passes with [`Taps::is_folded`](crate::Taps::is_folded).
    ///
    /// Scale and shift are computed in double precision, so that folding adds one rounding to each weight.
    pub(crate) fn fold<M: Module>(&self, module: M) -> M {
        let mut vectors = Vectors::default();
        module.visit(&mut vectors);
        let mut biases: HashMap<ParamId, Vec<f32>> = HashMap::new();
        let mut scales: HashMap<ParamId, Vec<f32>> = HashMap::new();
        for fold in &self.folds {
            let [weight, bias, mean, variance] =
                [fold.weight, fold.bias, fold.mean, fold.variance].map(|id| &vectors.0[&id]);
            let scale = |c: usize| f64::from(weight[c]) / (f64::from(variance[c]) + fold.epsilon).sqrt();
            let channels = 0..weight.len();
            let shift = |c: usize| (f64::from(bias[c]) - f64::from(mean[c]) * scale(c)) as f32;
            biases.insert(fold.bias, channels.clone().map(shift).collect());
            let scale: Vec<f32> = channels.map(|c| scale(c) as f32).collect();
            if let Some(id) = fold.convolution {
                scales.insert(id, scale.clone());
            }
            biases.insert(fold.weight, scale);
        }
        module.map(&mut Change(|id, old: Erased| {
            let old = old.vector();
            let vector = |values: &Vec<f32>| {
                Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), &old.device())
            };
            if let Some(values) = biases.get(&id) {
                return Some(vector(values).into());
            }
            let scale = vector(scales.get(&id)?);
            let ([n], [channels]) = (old.dims(), scale.dims());
            // A convolution's weight has its output channels outermost.
            let scaled = old.reshape([channels, n / channels]) * scale.reshape([channels, 1]);
            Some(scaled.reshape([n]).into())
        }))
    }
}

/// Reads the one-dimensional parameters.
#[derive(Default)]
struct Vectors(HashMap<ParamId, Vec<f32>>);

impl ModuleVisitor for Vectors {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 1 {
            self.0.insert(param.id, host(param.val()));
        }
    }
}
