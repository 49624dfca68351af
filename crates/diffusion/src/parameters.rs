//! Where a builder takes its weights from.

use mil::{DataType, WeightId};

use crate::error::Error;

/// A trained tensor that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// diffusers' name.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<u64>,
}

/// Gives a builder its weights, by diffusers' names.
pub trait Parameters {
    /// The element type of the weights, and so of what the builder's program computes: `fp16`, or `fp32` for a program that others
    /// are compared with.
    fn dtype(&self) -> DataType {
        DataType::Fp16
    }

    /// The weight called `name`, which has the shape `shape`.
    ///
    /// # Errors
    /// There is none, or it has another shape.
    fn take(&mut self, name: &str, shape: &[u64]) -> Result<WeightId, Error>;

    /// A 1x1 projection, stored as `[out, in]` or as `[out, in, 1, 1]`.
    ///
    /// # Errors
    /// As [`Parameters::take`].
    fn take_projection(&mut self, name: &str, outputs: u64, inputs: u64)
    -> Result<WeightId, Error>;

    /// An `fp32` table that the builder computed.
    fn table(&mut self, name: &str, values: &[f32]) -> WeightId;
}

/// Records what a model needs instead of giving it: the list of its tensors.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// Every tensor, in the order in which the program uses them.
    pub parameters: Vec<Parameter>,
    /// Projections in and out of transformers as 1x1 convolutions, as SD 1.5 has them.
    pub conv_projections: bool,
    tables: u32,
}

impl Recorder {
    fn next(&self) -> WeightId {
        WeightId(self.parameters.len() as u32 + self.tables)
    }
}

impl Parameters for Recorder {
    fn take(&mut self, name: &str, shape: &[u64]) -> Result<WeightId, Error> {
        let id = self.next();
        self.parameters.push(Parameter {
            name: name.to_owned(),
            shape: shape.to_vec(),
        });
        Ok(id)
    }

    fn take_projection(
        &mut self,
        name: &str,
        outputs: u64,
        inputs: u64,
    ) -> Result<WeightId, Error> {
        if self.conv_projections {
            self.take(name, &[outputs, inputs, 1, 1])
        } else {
            self.take(name, &[outputs, inputs])
        }
    }

    fn table(&mut self, _name: &str, _values: &[f32]) -> WeightId {
        let id = self.next();
        self.tables += 1;
        id
    }
}
