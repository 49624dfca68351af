//! Inputs and outputs of a model as people and pipelines see them.

use mil::{DataType, Function, Opset, ValueId};

use crate::error::Problem;
use crate::proto::{self, array_feature_type::ArrayDataType, feature_type};
use crate::shown;

/// One input, output or state of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Its type.
    pub ty: FeatureType,
    /// Whether a prediction may leave it out.
    pub optional: bool,
}

/// The type of a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeatureType {
    /// A tensor.
    Array {
        /// Element type; `None` where the file says none that is known.
        dtype: Option<DataType>,
        /// Shape as stored, the default one of several; empty where an output's shape is left open.
        shape: Vec<i64>,
    },
    /// Something else, by its name in `FeatureTypes.proto`.
    Other(&'static str),
}

impl Feature {
    pub(crate) fn read(feature: &proto::FeatureDescription) -> Feature {
        let ty = feature.r#type.as_ref();
        Feature {
            name: feature.name.clone(),
            description: feature.short_description.clone(),
            ty: feature_type(ty.and_then(|t| t.r#type.as_ref())),
            optional: ty.is_some_and(|t| t.is_optional),
        }
    }

    /// The feature that a value of fixed shape is. Core ML has no arrays of rank 0: scalars are described as `[1]`.
    pub(crate) fn of_value(
        f: &Function,
        v: ValueId,
        opset: Opset,
        description: String,
    ) -> Result<Feature, Problem> {
        let value = f.value(v);
        let problem = |expected: &str| {
            let what = format!("type of the feature {}", shown::text(&value.name));
            Problem::new(what, expected, &value.ty)
        };
        let tensor = value.ty.as_tensor();
        let tensor = tensor.ok_or_else(|| problem("a tensor"))?;
        let known = match tensor.dtype {
            // Earlier systems have no half floats in arrays (`ArrayFeatureType`, since specification 7).
            DataType::Fp16 => opset >= Opset::CoreMl6,
            DataType::Fp32 | DataType::Int32 => true,
            _ => false,
        };
        if !known {
            return Err(problem("fp32, int32 or, from `CoreML6` on, fp16"));
        }
        let shape = tensor.shape().ok_or_else(|| problem("a fixed shape"))?;
        let shape: Result<Vec<_>, _> = shape.into_iter().map(i64::try_from).collect();
        let mut shape = shape.map_err(|_| problem("sizes below 2^63"))?;
        if shape.is_empty() {
            shape.push(1);
        }
        Ok(Feature {
            name: value.name.clone(),
            description,
            ty: FeatureType::Array {
                dtype: Some(tensor.dtype),
                shape,
            },
            optional: false,
        })
    }

    /// As a message; a type that is no array is left out.
    pub fn to_proto(&self) -> proto::FeatureDescription {
        let ty = match &self.ty {
            FeatureType::Array { dtype, shape } => Some(feature_type::Type::MultiArrayType(
                proto::ArrayFeatureType {
                    shape: shape.clone(),
                    data_type: array_data_type(*dtype).into(),
                    ..Default::default()
                },
            )),
            FeatureType::Other(_) => None,
        };
        proto::FeatureDescription {
            name: self.name.clone(),
            short_description: self.description.clone(),
            r#type: Some(proto::FeatureType {
                is_optional: self.optional,
                r#type: ty,
            }),
        }
    }
}

fn feature_type(ty: Option<&feature_type::Type>) -> FeatureType {
    use feature_type::Type;
    FeatureType::Other(match ty {
        Some(Type::MultiArrayType(array)) => {
            return FeatureType::Array {
                dtype: dtype(array.data_type()),
                shape: array.shape.clone(),
            };
        }
        Some(Type::StateType(_)) => "stateType",
        Some(Type::Int64Type(_)) => "int64Type",
        Some(Type::DoubleType(_)) => "doubleType",
        Some(Type::StringType(_)) => "stringType",
        Some(Type::ImageType(_)) => "imageType",
        Some(Type::DictionaryType(_)) => "dictionaryType",
        Some(Type::SequenceType(_)) => "sequenceType",
        None => "none",
    })
}

fn dtype(ty: ArrayDataType) -> Option<DataType> {
    match ty {
        ArrayDataType::InvalidArrayDataType => None,
        ArrayDataType::Float32 => Some(DataType::Fp32),
        ArrayDataType::Double => Some(DataType::Fp64),
        ArrayDataType::Int32 => Some(DataType::Int32),
        ArrayDataType::Float16 => Some(DataType::Fp16),
        ArrayDataType::Int8 => Some(DataType::Int8),
    }
}

fn array_data_type(dtype: Option<DataType>) -> ArrayDataType {
    match dtype {
        Some(DataType::Fp32) => ArrayDataType::Float32,
        Some(DataType::Fp64) => ArrayDataType::Double,
        Some(DataType::Int32) => ArrayDataType::Int32,
        Some(DataType::Fp16) => ArrayDataType::Float16,
        Some(DataType::Int8) => ArrayDataType::Int8,
        _ => ArrayDataType::InvalidArrayDataType,
    }
}
