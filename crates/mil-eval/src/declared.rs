//! What a program declares of a value beside what there is.

use mil::{DataType, Dim, TensorType};

use crate::tensor::{Tensor, TensorData};
use crate::value::{Data, Value};

/// That a value has the shape and kind of elements that the program declares, as far as it declares a shape.
pub(crate) fn check_declared(declared: Option<&TensorType>, value: Value) -> Result<Value, String> {
    let declared = declared.ok_or("declares no tensor")?;
    if !shape_fits(declared, &value.shape) {
        return Err(format!(
            "made a tensor of shape {:?}, declared `{declared}`",
            value.shape
        ));
    }
    if Kind::of(declared.dtype) != Kind::of_data(&value.data) {
        let kind = value.data.kind();
        return Err(format!("made {kind}, declared `{declared}`"));
    }
    Ok(value)
}

/// What elements are held as.
#[derive(PartialEq, Eq)]
enum Kind {
    Float,
    Integer,
    Truth,
    Text,
}

impl Kind {
    fn of(dtype: DataType) -> Kind {
        match dtype {
            DataType::Bool => Kind::Truth,
            DataType::String => Kind::Text,
            DataType::Fp16
            | DataType::Fp32
            | DataType::Fp64
            | DataType::Bf16
            | DataType::Fp8E4M3Fn
            | DataType::Fp8E5M2 => Kind::Float,
            _ => Kind::Integer,
        }
    }

    fn of_data(data: &Data) -> Kind {
        match data {
            Data::F32(_) | Data::Half(_) => Kind::Float,
            Data::I32(_) => Kind::Integer,
            Data::Bool(_) => Kind::Truth,
            Data::Text(_) => Kind::Text,
        }
    }

    fn of_tensor(data: &TensorData) -> Kind {
        match data {
            TensorData::F32(_) => Kind::Float,
            TensorData::I32(_) => Kind::Integer,
            TensorData::Bool(_) => Kind::Truth,
        }
    }
}

/// As many zeros as declared elements are held.
pub(crate) fn zeros(dtype: DataType, len: usize) -> Data {
    match Kind::of(dtype) {
        Kind::Float => Data::F32(vec![0.0; len]),
        Kind::Integer => Data::I32(vec![0; len]),
        Kind::Truth => Data::Bool(vec![false; len]),
        Kind::Text => Data::Text(vec![String::new(); len]),
    }
}

fn shape_fits(declared: &TensorType, shape: &[usize]) -> bool {
    let fits = |(dim, &n): (&Dim, &usize)| match dim {
        Dim::Fixed(size) => *size == n as u64,
        Dim::Unknown { .. } => true,
    };
    let variadic = |d: &Dim| matches!(d, Dim::Unknown { variadic: true });
    declared.dims.iter().any(variadic)
        || (declared.dims.len() == shape.len() && declared.dims.iter().zip(shape).all(fits))
}

/// Whether a tensor may be given for a declared type.
pub(crate) fn fits(declared: &TensorType, tensor: &Tensor) -> bool {
    Kind::of(declared.dtype) == Kind::of_tensor(&tensor.data)
        && tensor.is_complete()
        && shape_fits(declared, &tensor.shape)
}

/// A tensor's type, for messages.
pub(crate) fn type_text(tensor: &Tensor) -> String {
    let dtype = match tensor.data {
        TensorData::F32(_) => DataType::Fp32,
        TensorData::I32(_) => DataType::Int32,
        TensorData::Bool(_) => DataType::Bool,
    };
    if !tensor.is_complete() {
        return format!(
            "a tensor of shape {:?} with another number of elements",
            tensor.shape
        );
    }
    let shape: Vec<u64> = tensor.shape.iter().map(|&n| n as u64).collect();
    TensorType::new(dtype, &shape).to_string()
}
