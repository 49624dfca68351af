//! From messages to a program.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mil::{
    Block, BlockId, Constant, Data, DataType, Dim, Elements, Function, Operand, Operation, Program,
    TensorType, ValueId, ValueType,
};
use prost::Message;

use super::scope::Scope;
use super::weights::WeightTable;
use super::{At, Depth, undefined, within, within_name};
use crate::error::{Problem, ProgramError};
use crate::proto::mil_spec as proto;

/// The program that messages say, and where its weights are stored.
///
/// # Errors
/// The messages lack something or contradict themselves, a name is not defined before its use, something is nested too deeply,
/// or one place in a blob file is used as weights of two types.
pub fn decode(program: &proto::Program) -> Result<(Program, WeightTable), ProgramError> {
    let mut weights = WeightTable::default();
    let mut constants = ConstantDecoder {
        weights: &mut weights,
        user: "",
    };
    let attributes = constants
        .map(&program.attributes, Depth::TOP)
        .map_err(|p| At::PROGRAM.error(p))?;
    let mut functions = BTreeMap::new();
    for (name, function) in &program.functions {
        let mut decoder = FunctionDecoder {
            f: Function::default(),
            at: At::function(name),
            scope: Scope::default(),
            weights: &mut weights,
        };
        decoder.function(function)?;
        functions.insert(name.clone(), decoder.f);
    }
    let program = Program {
        version: program.version,
        doc: program.doc_string.clone(),
        attributes,
        functions,
    };
    Ok((program, weights))
}

struct FunctionDecoder<'m, 'w> {
    f: Function,
    at: At<'m>,
    scope: Scope<String>,
    weights: &'w mut WeightTable,
}

impl<'m> FunctionDecoder<'m, '_> {
    fn constants<'d>(&'d mut self, user: &'d str) -> ConstantDecoder<'d> {
        ConstantDecoder {
            weights: self.weights,
            user,
        }
    }

    fn function(&mut self, function: &'m proto::Function) -> Result<(), ProgramError> {
        let at = self.at;
        self.f.opset.clone_from(&function.opset);
        self.f.attributes = self
            .constants("")
            .map(&function.attributes, Depth::TOP)
            .map_err(|p| at.error(p))?;
        self.f.inputs = self
            .define(&function.inputs, Depth::TOP)
            .map_err(|p| at.error(p))?;
        for (opset, block) in &function.block_specializations {
            let id = self.block(block, Depth::TOP)?;
            self.f.specializations.insert(opset.clone(), id);
        }
        Ok(())
    }

    fn block(&mut self, block: &proto::Block, depth: Depth) -> Result<BlockId, ProgramError> {
        let at = self.at;
        let id = self.f.add_block(Block::default());
        let mark = self.scope.enter();
        let attributes = self
            .constants("")
            .map(&block.attributes, depth)
            .map_err(|p| at.error(p))?;
        let inputs = self.define(&block.inputs, depth).map_err(|p| at.error(p))?;
        for (index, op) in block.operations.iter().enumerate() {
            let message = proto::Operation::decode(op.clone()).map_err(|e| {
                let at = at.operation(index, "", "");
                at.error(Problem::no_message("operation", &e))
            })?;
            let op = self.operation(&message, index, depth)?;
            self.f.push_op(id, op);
        }
        let outputs = block.outputs.iter().map(|n| self.value(n)).collect();
        let outputs = within("block output", outputs).map_err(|p| at.error(p))?;
        self.scope.leave(mark);
        let target = self.f.block_mut(id);
        target.attributes = attributes;
        target.inputs = inputs;
        target.outputs = outputs;
        Ok(id)
    }

    fn operation(
        &mut self,
        op: &proto::Operation,
        index: usize,
        depth: Depth,
    ) -> Result<Operation, ProgramError> {
        let output = op.outputs.first().map_or("", |o| o.name.as_str());
        let at = self.at.operation(index, output, &op.r#type);
        let mut decoded = Operation::new(op.r#type.as_str());
        decoded.attributes = self
            .constants(output)
            .map(&op.attributes, depth)
            .map_err(|p| at.error(p))?;
        for (name, argument) in &op.inputs {
            let operands = within_name(name, self.argument(argument, output, depth));
            let operands = operands.map_err(|p| at.error(p))?;
            decoded.inputs.insert(Cow::Owned(name.clone()), operands);
        }
        for nested in &op.blocks {
            let deeper = depth.deeper().map_err(|p| at.error(p))?;
            decoded.blocks.push(self.block(nested, deeper)?);
        }
        decoded.outputs = self.define(&op.outputs, depth).map_err(|p| at.error(p))?;
        Ok(decoded)
    }

    fn argument(
        &mut self,
        argument: &proto::Argument,
        user: &str,
        depth: Depth,
    ) -> Result<Vec<Operand>, Problem> {
        use proto::argument::binding::Binding;
        let mut operands = Vec::with_capacity(argument.arguments.len());
        for binding in &argument.arguments {
            operands.push(match &binding.binding {
                Some(Binding::Name(name)) => Operand::Value(self.value(name)?),
                Some(Binding::Value(value)) => {
                    Operand::Constant(self.constants(user).constant(value, depth)?)
                }
                None => return Err(Problem::missing("a binding without name and value")),
            });
        }
        Ok(operands)
    }

    fn define(
        &mut self,
        values: &[proto::NamedValueType],
        depth: Depth,
    ) -> Result<Vec<ValueId>, Problem> {
        let mut ids = Vec::with_capacity(values.len());
        for value in values {
            let ty = self.constants("").value_type(value.r#type.as_ref(), depth);
            let ty = within_name(&value.name, ty)?;
            let id = self.f.add_value(value.name.clone(), ty);
            self.scope.define(value.name.clone(), id);
            ids.push(id);
        }
        Ok(ids)
    }

    fn value(&self, name: &str) -> Result<ValueId, Problem> {
        self.scope.get(name).ok_or_else(|| undefined(name))
    }
}

struct ConstantDecoder<'w> {
    weights: &'w mut WeightTable,
    /// The value that a weight found here helps to make.
    user: &'w str,
}

impl ConstantDecoder<'_> {
    fn map<K: From<String>, M: FromIterator<(K, Constant)>>(
        &mut self,
        values: &BTreeMap<String, proto::Value>,
        depth: Depth,
    ) -> Result<M, Problem> {
        let constant = |(name, value): (&String, &proto::Value)| {
            let constant = within_name(name, self.constant(value, depth))?;
            Ok((K::from(name.clone()), constant))
        };
        values.iter().map(constant).collect()
    }

    fn constant(&mut self, value: &proto::Value, depth: Depth) -> Result<Constant, Problem> {
        use proto::value::Value;
        let ty = self.value_type(value.r#type.as_ref(), depth)?;
        let data = match &value.value {
            None => Data::Missing,
            Some(Value::ImmediateValue(immediate)) => self.immediate(immediate, depth)?,
            Some(Value::BlobFileValue(blob)) => {
                let tensor = ty
                    .as_tensor()
                    .ok_or_else(|| Problem::new("type of a weight", "a tensor", &ty))?;
                let weight =
                    self.weights
                        .intern(&blob.file_name, blob.offset, tensor, self.user)?;
                Data::Weight(weight)
            }
        };
        Ok(Constant {
            doc: value.doc_string.clone(),
            ty,
            data,
        })
    }

    fn immediate(
        &mut self,
        value: &proto::value::ImmediateValue,
        depth: Depth,
    ) -> Result<Data, Problem> {
        use proto::value::immediate_value::Value;
        Ok(match &value.value {
            None => return Err(Problem::missing("an immediate value without contents")),
            Some(Value::Tensor(tensor)) => Data::Tensor(elements(tensor)?),
            Some(Value::Tuple(tuple)) => {
                Data::Tuple(self.constants(&tuple.values, depth.deeper()?)?)
            }
            Some(Value::List(list)) => Data::List(self.constants(&list.values, depth.deeper()?)?),
            Some(Value::Dictionary(dictionary)) => {
                Data::Dictionary(self.entries(&dictionary.values, depth.deeper()?)?)
            }
        })
    }

    fn constants(
        &mut self,
        values: &[proto::Value],
        depth: Depth,
    ) -> Result<Vec<Constant>, Problem> {
        values.iter().map(|v| self.constant(v, depth)).collect()
    }

    fn entries(
        &mut self,
        pairs: &[proto::dictionary_value::KeyValuePair],
        depth: Depth,
    ) -> Result<Vec<(Constant, Constant)>, Problem> {
        let mut entries = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let (Some(key), Some(value)) = (&pair.key, &pair.value) else {
                return Err(Problem::missing("a dictionary entry without key or value"));
            };
            entries.push((self.constant(key, depth)?, self.constant(value, depth)?));
        }
        Ok(entries)
    }

    fn value_type(
        &mut self,
        ty: Option<&proto::ValueType>,
        depth: Depth,
    ) -> Result<ValueType, Problem> {
        use proto::value_type::Type;
        match ty.and_then(|t| t.r#type.as_ref()) {
            None => Err(Problem::missing("no type")),
            Some(Type::TensorType(t)) => Ok(ValueType::Tensor(self.tensor_type(t, depth)?)),
            Some(Type::ListType(list)) => Ok(ValueType::List {
                element: self.inner_type(list.r#type.as_deref(), depth)?,
                length: dim(list.length.as_ref())?,
            }),
            Some(Type::TupleType(tuple)) => {
                let depth = depth.deeper()?;
                let types = tuple.types.iter();
                let types: Result<_, _> = types.map(|t| self.value_type(Some(t), depth)).collect();
                Ok(ValueType::Tuple(types?))
            }
            Some(Type::DictionaryType(dictionary)) => Ok(ValueType::Dictionary {
                key: self.inner_type(dictionary.key_type.as_deref(), depth)?,
                value: self.inner_type(dictionary.value_type.as_deref(), depth)?,
            }),
            Some(Type::StateType(state)) => Ok(ValueType::State(
                self.inner_type(state.wrapped_type.as_deref(), depth)?,
            )),
        }
    }

    fn inner_type(
        &mut self,
        ty: Option<&proto::ValueType>,
        depth: Depth,
    ) -> Result<Box<ValueType>, Problem> {
        Ok(Box::new(self.value_type(ty, depth.deeper()?)?))
    }

    fn tensor_type(&mut self, ty: &proto::TensorType, depth: Depth) -> Result<TensorType, Problem> {
        let dtype = DataType::from_number(ty.data_type)
            .ok_or_else(|| Problem::new("element type", "a number of `DataType`", ty.data_type))?;
        if usize::try_from(ty.rank) != Ok(ty.dimensions.len()) {
            let found = format!("{} dimensions", ty.dimensions.len());
            return Err(Problem::new("rank", ty.rank, found));
        }
        let dims: Result<_, _> = ty.dimensions.iter().map(|d| dim(Some(d))).collect();
        let attributes = match ty.attributes.is_empty() {
            true => BTreeMap::new(),
            false => self.map(&ty.attributes, depth.deeper()?)?,
        };
        Ok(TensorType {
            dtype,
            dims: dims?,
            attributes,
        })
    }
}

fn dim(dimension: Option<&proto::Dimension>) -> Result<Dim, Problem> {
    use proto::dimension::Dimension;
    match dimension.and_then(|d| d.dimension.as_ref()) {
        Some(Dimension::Constant(d)) => Ok(Dim::Fixed(d.size)),
        Some(Dimension::Unknown(d)) => Ok(Dim::Unknown {
            variadic: d.variadic,
        }),
        None => Err(Problem::missing(
            "a dimension that is neither known nor unknown",
        )),
    }
}

fn elements(tensor: &proto::TensorValue) -> Result<Elements, Problem> {
    use proto::tensor_value::Value;
    match &tensor.value {
        Some(Value::Floats(v)) => Ok(Elements::Floats(v.values.clone())),
        Some(Value::Ints(v)) => Ok(Elements::Ints(v.values.clone())),
        Some(Value::Bools(v)) => Ok(Elements::Bools(v.values.clone())),
        Some(Value::Strings(v)) => Ok(Elements::Strings(v.values.clone())),
        Some(Value::LongInts(v)) => Ok(Elements::LongInts(v.values.clone())),
        Some(Value::Doubles(v)) => Ok(Elements::Doubles(v.values.clone())),
        Some(Value::Bytes(v)) => Ok(Elements::Bytes(v.values.clone())),
        None => Err(Problem::missing("a tensor without elements of any kind")),
    }
}
