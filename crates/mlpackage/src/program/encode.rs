//! From a program to messages.

use std::collections::BTreeMap;

use mil::{
    BlockId, Constant, Data, Dim, Elements, Function, Operand, Operation, Program, TensorType,
    ValueId, ValueType, WeightId,
};
use prost::Message;
use prost::bytes::Bytes;

use super::scope::Scope;
use super::weights::BlobPlace;
use super::{At, Depth, undefined, within, within_name};
use crate::error::{Problem, ProgramError};
use crate::proto::mil_spec as proto;

/// Gives the place of a weight in a blob file; asked in the order of the program, again at every further use.
type Place<'a> = dyn FnMut(WeightId, &TensorType) -> Result<BlobPlace, Problem> + 'a;

/// The program as messages.
///
/// `place` gives the place of each weight, and is asked in the order of the program: operations in order, in each its
/// attributes by name, then its operands by name, then its blocks.
///
/// # Errors
/// The program would not be the same when read back: a value is used where its name does not stand for it, something is
/// nested too deeply, or `place` knows no place.
pub fn encode(
    program: &Program,
    place: &mut dyn FnMut(WeightId, &TensorType) -> Result<BlobPlace, Problem>,
) -> Result<proto::Program, ProgramError> {
    let mut constants = ConstantEncoder { place };
    let attributes = constants
        .map(&program.attributes, Depth::TOP)
        .map_err(|p| At::PROGRAM.error(p))?;
    let mut functions = BTreeMap::new();
    for (name, f) in &program.functions {
        let mut encoder = FunctionEncoder {
            f,
            at: At::function(name),
            scope: Scope::default(),
            constants: &mut constants,
        };
        functions.insert(name.clone(), encoder.function()?);
    }
    Ok(proto::Program {
        version: program.version,
        functions,
        doc_string: program.doc.clone(),
        attributes,
    })
}

struct FunctionEncoder<'p, 'c, 'w> {
    f: &'p Function,
    at: At<'p>,
    scope: Scope<&'p str>,
    constants: &'c mut ConstantEncoder<'w>,
}

impl<'p> FunctionEncoder<'p, '_, '_> {
    fn function(&mut self) -> Result<proto::Function, ProgramError> {
        let at = self.at;
        let attributes = self.constants.map(&self.f.attributes, Depth::TOP);
        let attributes = attributes.map_err(|p| at.error(p))?;
        let inputs = self
            .define(&self.f.inputs, Depth::TOP)
            .map_err(|p| at.error(p))?;
        let mut block_specializations = BTreeMap::new();
        for (opset, &body) in &self.f.specializations {
            let block = self.block(body, Depth::TOP)?;
            block_specializations.insert(opset.clone(), block);
        }
        Ok(proto::Function {
            inputs,
            opset: self.f.opset.clone(),
            block_specializations,
            attributes,
        })
    }

    fn block(&mut self, block: BlockId, depth: Depth) -> Result<proto::Block, ProgramError> {
        let (at, block) = (self.at, self.f.block(block));
        let mark = self.scope.enter();
        let attributes = self
            .constants
            .map(&block.attributes, depth)
            .map_err(|p| at.error(p))?;
        let inputs = self.define(&block.inputs, depth).map_err(|p| at.error(p))?;
        let mut operations = Vec::with_capacity(block.ops.len());
        for (index, &op) in block.ops.iter().enumerate() {
            let message = self.operation(self.f.op(op), index, depth)?;
            operations.push(Bytes::from(message.encode_to_vec()));
        }
        let outputs = block.outputs.iter().map(|&v| self.name(v)).collect();
        let outputs = within("block output", outputs).map_err(|p| at.error(p))?;
        self.scope.leave(mark);
        Ok(proto::Block {
            inputs,
            outputs,
            operations,
            attributes,
        })
    }

    fn operation(
        &mut self,
        op: &'p Operation,
        index: usize,
        depth: Depth,
    ) -> Result<proto::Operation, ProgramError> {
        let f = self.f;
        let output = op.outputs.first().map_or("", |&v| &f.value(v).name);
        let at = self.at.operation(index, output, op.kind.name());
        let attributes = self.constants.map(&op.attributes, depth);
        let attributes = attributes.map_err(|p| at.error(p))?;
        let mut inputs = BTreeMap::new();
        for (name, operands) in &op.inputs {
            let argument = within_name(name, self.argument(operands, depth));
            inputs.insert(name.to_string(), argument.map_err(|p| at.error(p))?);
        }
        let mut blocks = Vec::new();
        for &nested in &op.blocks {
            let deeper = depth.deeper().map_err(|p| at.error(p))?;
            blocks.push(self.block(nested, deeper)?);
        }
        let outputs = self.define(&op.outputs, depth).map_err(|p| at.error(p))?;
        Ok(proto::Operation {
            r#type: op.kind.name().to_owned(),
            inputs,
            outputs,
            blocks,
            attributes,
        })
    }

    fn argument(&mut self, operands: &[Operand], depth: Depth) -> Result<proto::Argument, Problem> {
        use proto::argument::{Binding, binding};
        let mut arguments = Vec::with_capacity(operands.len());
        for operand in operands {
            let binding = match operand {
                Operand::Value(v) => binding::Binding::Name(self.name(*v)?),
                Operand::Constant(c) => binding::Binding::Value(self.constants.value(c, depth)?),
            };
            arguments.push(Binding {
                binding: Some(binding),
            });
        }
        Ok(proto::Argument { arguments })
    }

    fn define(
        &mut self,
        values: &[ValueId],
        depth: Depth,
    ) -> Result<Vec<proto::NamedValueType>, Problem> {
        let mut named = Vec::with_capacity(values.len());
        for &v in values {
            let info = self.f.value(v);
            let ty = self.constants.value_type(&info.ty, depth)?;
            named.push(proto::NamedValueType {
                name: info.name.clone(),
                r#type: Some(ty),
            });
            self.scope.define(&info.name, v);
        }
        Ok(named)
    }

    /// The name of a value, if it stands for that value here.
    fn name(&self, v: ValueId) -> Result<String, Problem> {
        let name = &self.f.value(v).name;
        match self.scope.get(name) {
            Some(found) if found == v => Ok(name.clone()),
            _ => Err(undefined(name)),
        }
    }
}

struct ConstantEncoder<'w> {
    place: &'w mut Place<'w>,
}

impl ConstantEncoder<'_> {
    fn map<'c, K: AsRef<str> + 'c>(
        &mut self,
        constants: impl IntoIterator<Item = (&'c K, &'c Constant)>,
        depth: Depth,
    ) -> Result<BTreeMap<String, proto::Value>, Problem> {
        let mut values = BTreeMap::new();
        for (name, constant) in constants {
            let name = name.as_ref();
            values.insert(
                name.to_owned(),
                within_name(name, self.value(constant, depth))?,
            );
        }
        Ok(values)
    }

    fn value(&mut self, constant: &Constant, depth: Depth) -> Result<proto::Value, Problem> {
        use proto::value::immediate_value::Value as Immediate;
        use proto::value::{BlobFileValue, ImmediateValue, Value};
        let immediate = |value| Some(Value::ImmediateValue(ImmediateValue { value: Some(value) }));
        let r#type = Some(self.value_type(&constant.ty, depth)?);
        let value = match &constant.data {
            Data::Missing => None,
            Data::Tensor(elements) => immediate(Immediate::Tensor(tensor_value(elements))),
            Data::Tuple(parts) => {
                let values = self.values(parts, depth.deeper()?)?;
                immediate(Immediate::Tuple(proto::TupleValue { values }))
            }
            Data::List(elements) => {
                let values = self.values(elements, depth.deeper()?)?;
                immediate(Immediate::List(proto::ListValue { values }))
            }
            Data::Dictionary(entries) => {
                let values = self.entries(entries, depth.deeper()?)?;
                immediate(Immediate::Dictionary(proto::DictionaryValue { values }))
            }
            Data::Weight(weight) => {
                let ty = constant
                    .ty
                    .as_tensor()
                    .ok_or_else(|| Problem::new("type of a weight", "a tensor", &constant.ty))?;
                let place = (self.place)(*weight, ty)?;
                Some(Value::BlobFileValue(BlobFileValue {
                    file_name: place.file_name,
                    offset: place.offset_bytes,
                }))
            }
        };
        Ok(proto::Value {
            doc_string: constant.doc.clone(),
            r#type,
            value,
        })
    }

    fn values(
        &mut self,
        constants: &[Constant],
        depth: Depth,
    ) -> Result<Vec<proto::Value>, Problem> {
        constants.iter().map(|c| self.value(c, depth)).collect()
    }

    fn entries(
        &mut self,
        entries: &[(Constant, Constant)],
        depth: Depth,
    ) -> Result<Vec<proto::dictionary_value::KeyValuePair>, Problem> {
        let mut pairs = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            pairs.push(proto::dictionary_value::KeyValuePair {
                key: Some(self.value(key, depth)?),
                value: Some(self.value(value, depth)?),
            });
        }
        Ok(pairs)
    }

    fn value_type(&mut self, ty: &ValueType, depth: Depth) -> Result<proto::ValueType, Problem> {
        use proto::value_type::Type;
        let ty = match ty {
            ValueType::Tensor(t) => Type::TensorType(self.tensor_type(t, depth)?),
            ValueType::List { element, length } => Type::ListType(Box::new(proto::ListType {
                r#type: self.inner_type(element, depth)?,
                length: Some(dimension(*length)),
            })),
            ValueType::Tuple(types) => {
                let depth = depth.deeper()?;
                let types: Result<_, _> = types.iter().map(|t| self.value_type(t, depth)).collect();
                Type::TupleType(proto::TupleType { types: types? })
            }
            ValueType::Dictionary { key, value } => {
                Type::DictionaryType(Box::new(proto::DictionaryType {
                    key_type: self.inner_type(key, depth)?,
                    value_type: self.inner_type(value, depth)?,
                }))
            }
            ValueType::State(inner) => Type::StateType(Box::new(proto::StateType {
                wrapped_type: self.inner_type(inner, depth)?,
            })),
        };
        Ok(proto::ValueType { r#type: Some(ty) })
    }

    fn inner_type(
        &mut self,
        ty: &ValueType,
        depth: Depth,
    ) -> Result<Option<Box<proto::ValueType>>, Problem> {
        Ok(Some(Box::new(self.value_type(ty, depth.deeper()?)?)))
    }

    fn tensor_type(&mut self, ty: &TensorType, depth: Depth) -> Result<proto::TensorType, Problem> {
        let attributes = match ty.attributes.is_empty() {
            true => BTreeMap::new(),
            false => self.map(&ty.attributes, depth.deeper()?)?,
        };
        let rank = i64::try_from(ty.dims.len())
            .map_err(|_| Problem::new("rank", i64::MAX, ty.dims.len()))?;
        Ok(proto::TensorType {
            data_type: ty.dtype.number(),
            rank,
            dimensions: ty.dims.iter().map(|&d| dimension(d)).collect(),
            attributes,
        })
    }
}

fn dimension(dim: Dim) -> proto::Dimension {
    use proto::dimension::{ConstantDimension, Dimension, UnknownDimension};
    let dimension = match dim {
        Dim::Fixed(size) => Dimension::Constant(ConstantDimension { size }),
        Dim::Unknown { variadic } => Dimension::Unknown(UnknownDimension { variadic }),
    };
    proto::Dimension {
        dimension: Some(dimension),
    }
}

fn tensor_value(elements: &Elements) -> proto::TensorValue {
    use proto::tensor_value as t;
    let value = match elements {
        Elements::Floats(v) => t::Value::Floats(t::RepeatedFloats { values: v.clone() }),
        Elements::Ints(v) => t::Value::Ints(t::RepeatedInts { values: v.clone() }),
        Elements::Bools(v) => t::Value::Bools(t::RepeatedBools { values: v.clone() }),
        Elements::Strings(v) => t::Value::Strings(t::RepeatedStrings { values: v.clone() }),
        Elements::LongInts(v) => t::Value::LongInts(t::RepeatedLongInts { values: v.clone() }),
        Elements::Doubles(v) => t::Value::Doubles(t::RepeatedDoubles { values: v.clone() }),
        Elements::Bytes(v) => t::Value::Bytes(t::RepeatedBytes { values: v.clone() }),
    };
    proto::TensorValue { value: Some(value) }
}
