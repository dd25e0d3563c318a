//! Where an attack begins.

use fireproof_tensor::random::Stream;
use serde::{Deserialize, Serialize};

use crate::{Context, Error};

/// The first iterate. Images given in [`Context::start`] replace it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// The clean images.
    Zero,
    /// A random point of the threat model.
    Random,
}

impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Start::Zero => "zero",
            Start::Random => "random",
        })
    }
}

impl std::str::FromStr for Start {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "zero" => Ok(Start::Zero),
            "random" => Ok(Start::Random),
            _ => Err(Error::Argument {
                what: "start",
                found: format!("'{text}'"),
                expected: "'zero' or 'random'".into(),
            }),
        }
    }
}

/// The random numbers of one restart: a stream a sample, whatever batch the sample is in.
#[derive(Clone, Copy, Debug)]
pub struct Seeds<'a> {
    attack: &'a str,
    seed: u64,
    restart: usize,
}

impl<'a> Seeds<'a> {
    pub(crate) fn new(attack: &'a str, context: &Context, restart: usize) -> Self {
        Self { attack, seed: context.seed, restart }
    }

    /// The stream of the sample with this id.
    pub fn stream(&self, id: u64) -> Stream {
        Stream::new(&[self.seed, id, self.restart as u64]).child(self.attack)
    }
}
