//! The builder that every part of the UNet is written with: operations with the parameters that Core ML's tools write,
//! weights by diffusers' names.

use mil::ops::Op;
use mil::{BuildError, Builder, Constant, DataType, Program, ValueId};

use super::{Options, value_name};
use crate::config::UnetConfig;
use crate::error::Error;
use crate::parameters::Parameters;

/// What follows a normalization.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    None,
    Silu,
}

pub(super) struct Graph<'a> {
    pub config: &'a UnetConfig,
    pub options: &'a Options,
    builder: Builder,
    parameters: &'a mut dyn Parameters,
}

impl<'a> Graph<'a> {
    pub(super) fn new(
        config: &'a UnetConfig,
        options: &'a Options,
        parameters: &'a mut dyn Parameters,
    ) -> Self {
        Graph {
            config,
            options,
            builder: Builder::new(options.opset),
            parameters,
        }
    }

    pub(super) fn input(&mut self, name: &str, dtype: DataType, shape: &[u64]) -> ValueId {
        self.builder.input(name, dtype, shape)
    }

    pub(super) fn finish(self, output: ValueId) -> Program {
        self.builder.finish(&[output])
    }

    pub(super) fn shape(&self, v: ValueId) -> Vec<u64> {
        self.builder.shape(v)
    }

    pub(super) fn channels(&self, v: ValueId) -> u64 {
        self.shape(v).get(1).copied().unwrap_or(0)
    }

    /// One operation; `name` is its value's, with dots.
    pub(super) fn op(
        &mut self,
        op: Op,
        name: &str,
        inputs: &[(&'static str, ValueId)],
    ) -> Result<ValueId, BuildError> {
        self.builder.op(op, &value_name(name), inputs)
    }

    /// As [`Graph::op`], for operations that take lists.
    pub(super) fn op_lists(
        &mut self,
        op: Op,
        name: &str,
        inputs: &[(&'static str, &[ValueId])],
    ) -> Result<ValueId, BuildError> {
        Ok(self.builder.op_many(op, &value_name(name), inputs)?[0])
    }

    pub(super) fn shared(&mut self, name: &str, value: Constant) -> ValueId {
        self.builder.shared(name, value)
    }

    /// The element type in which the program computes.
    pub(super) fn dtype(&self) -> DataType {
        self.parameters.dtype()
    }

    /// A number in that type.
    pub(super) fn number(&self, x: f64) -> Constant {
        match self.dtype() {
            DataType::Fp32 => Constant::fp32(x as f32),
            _ => Constant::fp16(x),
        }
    }

    pub(super) fn ints(&mut self, name: &str, values: &[i64]) -> ValueId {
        // Sizes beyond int32 have no place in a program; they saturate and shape inference refuses them.
        let values: Vec<i32> = values
            .iter()
            .map(|&n| i32::try_from(n).unwrap_or(i32::MAX))
            .collect();
        self.shared(name, Constant::ints(&values))
    }

    pub(super) fn int(&mut self, name: &str, value: i32) -> ValueId {
        self.shared(name, Constant::int(value))
    }

    pub(super) fn binary(
        &mut self,
        op: Op,
        name: &str,
        x: ValueId,
        y: ValueId,
    ) -> Result<ValueId, BuildError> {
        self.op(op, name, &[("x", x), ("y", y)])
    }

    pub(super) fn unary(&mut self, op: Op, name: &str, x: ValueId) -> Result<ValueId, BuildError> {
        self.op(op, name, &[("x", x)])
    }

    pub(super) fn cast(
        &mut self,
        name: &str,
        x: ValueId,
        dtype: DataType,
    ) -> Result<ValueId, BuildError> {
        let dtype = self.shared(&format!("to_{dtype}"), Constant::string(dtype.text()));
        self.op(Op::Cast, name, &[("x", x), ("dtype", dtype)])
    }

    pub(super) fn reshape(
        &mut self,
        name: &str,
        x: ValueId,
        shape: &[u64],
    ) -> Result<ValueId, BuildError> {
        let target: Vec<i64> = shape
            .iter()
            .map(|&n| i64::try_from(n).unwrap_or(i64::MAX))
            .collect();
        let shape = self.ints("shape", &target);
        self.op(Op::Reshape, name, &[("x", x), ("shape", shape)])
    }

    pub(super) fn transpose(
        &mut self,
        name: &str,
        x: ValueId,
        perm: &[i64],
    ) -> Result<ValueId, BuildError> {
        let perm = self.ints("perm", perm);
        self.op(Op::Transpose, name, &[("x", x), ("perm", perm)])
    }

    pub(super) fn concat(
        &mut self,
        name: &str,
        values: &[ValueId],
        axis: i32,
    ) -> Result<ValueId, BuildError> {
        let axis = self.int("axis", axis);
        let interleave = self.shared("interleave", Constant::bool(false));
        self.op_lists(
            Op::Concat,
            name,
            &[
                ("values", values),
                ("axis", &[axis]),
                ("interleave", &[interleave]),
            ],
        )
    }

    /// Pieces of equal length along an axis; the value itself where there is one.
    pub(super) fn split(
        &mut self,
        name: &str,
        x: ValueId,
        pieces: u64,
        axis: i32,
    ) -> Result<Vec<ValueId>, BuildError> {
        if pieces == 1 {
            return Ok(vec![x]);
        }
        let len = self.shape(x).get(axis as usize).copied().unwrap_or(0);
        let len = len.checked_div(pieces).unwrap_or(0);
        self.split_sizes(name, x, &vec![len as i64; pieces as usize], axis)
    }

    pub(super) fn split_sizes(
        &mut self,
        name: &str,
        x: ValueId,
        sizes: &[i64],
        axis: i32,
    ) -> Result<Vec<ValueId>, BuildError> {
        let sizes = self.ints("split_sizes", sizes);
        let axis = self.int("axis", axis);
        let inputs: [(&'static str, &[ValueId]); 3] =
            [("x", &[x]), ("split_sizes", &[sizes]), ("axis", &[axis])];
        self.builder.op_many(Op::Split, &value_name(name), &inputs)
    }

    pub(super) fn softmax(
        &mut self,
        name: &str,
        x: ValueId,
        axis: i32,
    ) -> Result<ValueId, BuildError> {
        let axis = self.int("axis", axis);
        self.op(Op::Softmax, name, &[("x", x), ("axis", axis)])
    }

    pub(super) fn upsample(&mut self, name: &str, x: ValueId) -> Result<ValueId, BuildError> {
        let two = self.shared("scale_factor", Constant::fp32(2.0));
        self.op(
            Op::UpsampleNearestNeighbor,
            name,
            &[
                ("x", x),
                ("scale_factor_height", two),
                ("scale_factor_width", two),
            ],
        )
    }

    /// A table that the builder computed, as a `const` of its own.
    pub(super) fn table(&mut self, name: &str, shape: &[u64], values: &[f32]) -> ValueId {
        let id = self.parameters.table(name, values);
        self.builder.constant(
            &value_name(name),
            Constant::weight(DataType::Fp32, shape, id),
        )
    }

    /// A square convolution that keeps the size (`stride` 1) or halves it (2).
    pub(super) fn conv(
        &mut self,
        name: &str,
        x: ValueId,
        channels: u64,
        kernel: u64,
        stride: i64,
    ) -> Result<ValueId, Error> {
        let shape = [channels, self.channels(x), kernel, kernel];
        let weight = self.parameters.take(&format!("{name}.weight"), &shape)?;
        let bias = self.parameters.take(&format!("{name}.bias"), &[channels])?;
        let pad = i64::try_from(kernel / 2).unwrap_or(0);
        let weight = self.weight(&format!("{name}.weight"), &shape, weight);
        let bias = self.weight(&format!("{name}.bias"), &[channels], bias);
        Ok(self.conv_op(name, x, weight, Some(bias), [pad; 4], [stride; 2])?)
    }

    /// A linear projection of the channels, as a 1x1 convolution; takes the bias where the checkpoint has one.
    pub(super) fn projection(
        &mut self,
        name: &str,
        x: ValueId,
        channels: u64,
    ) -> Result<ValueId, Error> {
        let weight = self
            .parameters
            .take(&format!("{name}.weight"), &[channels, self.channels(x)])?;
        let bias = self.parameters.take(&format!("{name}.bias"), &[channels])?;
        self.projected(name, x, channels, weight, Some(bias))
    }

    /// As [`Graph::projection`], without bias: queries, keys and values.
    pub(super) fn projection_without_bias(
        &mut self,
        name: &str,
        x: ValueId,
        channels: u64,
    ) -> Result<ValueId, Error> {
        let weight = self
            .parameters
            .take(&format!("{name}.weight"), &[channels, self.channels(x)])?;
        self.projected(name, x, channels, weight, None)
    }

    /// As [`Graph::projection`], stored as a matrix or as a 1x1 convolution.
    pub(super) fn projection_of_either_kind(
        &mut self,
        name: &str,
        x: ValueId,
        channels: u64,
    ) -> Result<ValueId, Error> {
        let weight = self.parameters.take_projection(
            &format!("{name}.weight"),
            channels,
            self.channels(x),
        )?;
        let bias = self.parameters.take(&format!("{name}.bias"), &[channels])?;
        self.projected(name, x, channels, weight, Some(bias))
    }

    fn projected(
        &mut self,
        name: &str,
        x: ValueId,
        channels: u64,
        weight: mil::WeightId,
        bias: Option<mil::WeightId>,
    ) -> Result<ValueId, Error> {
        let shape = [channels, self.channels(x), 1, 1];
        let weight = self.weight(&format!("{name}.weight"), &shape, weight);
        let bias = bias.map(|b| self.weight(&format!("{name}.bias"), &[channels], b));
        Ok(self.conv_op(name, x, weight, bias, [0; 4], [1; 2])?)
    }

    fn conv_op(
        &mut self,
        name: &str,
        x: ValueId,
        weight: ValueId,
        bias: Option<ValueId>,
        pad: [i64; 4],
        strides: [i64; 2],
    ) -> Result<ValueId, BuildError> {
        let pad_type = if pad == [0; 4] { "valid" } else { "custom" };
        let mut inputs = vec![
            ("x", x),
            ("weight", weight),
            ("strides", self.ints("strides", &strides)),
            (
                "pad_type",
                self.shared("pad_type", Constant::string(pad_type)),
            ),
            ("pad", self.ints("pad", &pad)),
            ("dilations", self.ints("dilations", &[1, 1])),
            ("groups", self.int("groups", 1)),
        ];
        inputs.extend(bias.map(|b| ("bias", b)));
        self.op(Op::Conv, name, &inputs)
    }

    fn weight(&mut self, name: &str, shape: &[u64], id: mil::WeightId) -> ValueId {
        let weight = Constant::weight(self.dtype(), shape, id);
        self.builder.constant(&value_name(name), weight)
    }

    fn epsilon(&mut self, epsilon: f64) -> ValueId {
        let epsilon = self.number(epsilon);
        self.shared("epsilon", epsilon)
    }

    /// Normalization over the channels of `[B, C, 1, S]`.
    pub(super) fn layer_norm(&mut self, name: &str, x: ValueId) -> Result<ValueId, Error> {
        /// `torch.nn.LayerNorm`'s default, which diffusers keeps.
        const EPSILON: f64 = 1e-5;
        let (gamma, beta) = self.affine(name, x, |c| vec![c])?;
        let axes = self.ints("axes", &[1]);
        let epsilon = self.epsilon(EPSILON);
        let inputs = [
            ("x", x),
            ("axes", axes),
            ("gamma", gamma),
            ("beta", beta),
            ("epsilon", epsilon),
        ];
        Ok(self.op(Op::LayerNorm, name, &inputs)?)
    }

    /// Normalization over groups of channels and all positions of `[B, C, h, w]`; the result has the shape `shape`.
    ///
    /// A group is a channel to `instance_norm` once its channels are laid over the rows: one operation, whose
    /// intermediate sums no `fp16` value holds.
    pub(super) fn group_norm(
        &mut self,
        name: &str,
        x: ValueId,
        epsilon: f64,
        shape: &[u64],
        activation: Activation,
    ) -> Result<ValueId, Error> {
        let groups = self.config.norm_num_groups;
        let (batch, channels) = (self.options.batch, self.channels(x));
        let (height, width) = match self.shape(x)[..] {
            [_, _, h, w] => (h, w),
            _ => (0, 0),
        };
        // Sizes that saturate are refused by the reshape, as in [`Graph::ints`].
        let rows = channels
            .checked_div(groups)
            .unwrap_or(0)
            .saturating_mul(height);
        let (gamma, beta) = self.affine(name, x, |c| vec![1, c, 1, 1])?;
        let grouped = self.reshape(&format!("{name}.groups"), x, &[batch, groups, rows, width])?;
        let epsilon = self.epsilon(epsilon);
        let normed = self.op(
            Op::InstanceNorm,
            &format!("{name}.normed"),
            &[("x", grouped), ("epsilon", epsilon)],
        )?;
        let normed = self.reshape(&format!("{name}.channels"), normed, shape)?;
        let scaled = self.binary(Op::Mul, &format!("{name}.scaled"), normed, gamma)?;
        let shifted = self.binary(Op::Add, name, scaled, beta)?;
        Ok(match activation {
            Activation::None => shifted,
            Activation::Silu => self.unary(Op::Silu, &format!("{name}.silu"), shifted)?,
        })
    }

    fn affine(
        &mut self,
        name: &str,
        x: ValueId,
        shape: impl Fn(u64) -> Vec<u64>,
    ) -> Result<(ValueId, ValueId), Error> {
        let channels = self.channels(x);
        let gamma = self
            .parameters
            .take(&format!("{name}.weight"), &[channels])?;
        let beta = self.parameters.take(&format!("{name}.bias"), &[channels])?;
        let gamma = self.weight(&format!("{name}.weight"), &shape(channels), gamma);
        Ok((
            gamma,
            self.weight(&format!("{name}.bias"), &shape(channels), beta),
        ))
    }
}
