//! Telling a network by the names and shapes of its parameters.

use std::collections::BTreeMap;

/// Names and shapes of the tensors in a file.
#[derive(Clone, Debug, Default)]
pub struct Shapes(BTreeMap<String, Vec<usize>>);

/// What a file without a description is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// Number of classes, from the head's shape.
    pub classes: usize,
    /// Channels of the images, from the first layer's shape.
    pub input_channels: usize,
    /// Options that differ from the defaults.
    pub options: Vec<(&'static str, usize)>,
}

impl Shapes {
    pub(super) fn new(shapes: BTreeMap<String, Vec<usize>>) -> Self {
        Self(shapes)
    }

    /// The shape of a tensor, if it is there.
    pub fn get(&self, name: &str) -> Option<&Vec<usize>> {
        self.0.get(name)
    }

    /// The shape of a convolution's weight `[Co, Ci, K, K]`, if it is there.
    pub fn convolution(&self, name: &str) -> Option<[usize; 4]> {
        self.get(name)?.as_slice().try_into().ok()
    }

    /// How many of `pattern` with `{}` = 0, 1, 2, … are there.
    pub fn count(&self, pattern: &str) -> usize {
        (0..).take_while(|i: &usize| self.0.contains_key(&pattern.replace("{}", &i.to_string()))).count()
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
