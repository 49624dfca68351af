//! A call of an operation as shape inference sees it: operands by parameter name, with types and known values.

use std::collections::BTreeMap;

use super::OpSpec;
use crate::constant::Constant;
use crate::opset::Opset;
use crate::shown::{self, list};
use crate::types::{DataType, TensorType, ValueType};

/// One operand: its type, and its value where it is a constant.
#[derive(Clone, Copy, Debug)]
pub struct Argument<'a> {
    /// Declared type.
    pub ty: &'a ValueType,
    /// The constant, if it is one.
    pub value: Option<&'a Constant>,
    /// Whether it is known when the program is compiled, even where `value` is not at hand (a decompressed weight).
    pub constant: bool,
}

/// Operands of one operation.
#[derive(Debug)]
pub struct Call<'a> {
    /// The operation.
    pub spec: &'static OpSpec,
    /// The operation set of the function it stands in.
    pub opset: Opset,
    /// Operands by parameter.
    pub arguments: BTreeMap<&'a str, Vec<Argument<'a>>>,
    /// How many values the operation is declared to make; `None` where it is being built.
    pub num_outputs: Option<usize>,
}

impl<'a> Call<'a> {
    /// The only operand of a parameter, if given.
    pub fn argument(&self, param: &str) -> Option<Argument<'a>> {
        match self.arguments.get(param)?.as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// All operands of a parameter.
    pub fn all(&self, param: &str) -> &[Argument<'a>] {
        self.arguments.get(param).map_or(&[], Vec::as_slice)
    }

    /// Element type and shape of a tensor operand, if given.
    pub(super) fn optional_tensor(&self, param: &str) -> Option<Result<Shaped, String>> {
        self.argument(param).map(|a| Shaped::of(param, a.ty))
    }

    /// Element type and shape of a tensor operand.
    pub(super) fn tensor(&self, param: &str) -> Result<Shaped, String> {
        self.optional_tensor(param)
            .unwrap_or_else(|| Err(format!("`{param}` is missing")))
    }

    /// Integers of a constant operand, if given and at hand: sizes, axes and the like, a few for each dimension.
    pub(super) fn optional_ints(&self, param: &str) -> Result<Option<Vec<i64>>, String> {
        self.optional_ints_up_to(MAX_INTS, param)
    }

    /// Integers of a constant operand, if given and at hand. A constant may be long and any number of operations take it, so
    /// more than the operation can have use for are refused before they are copied.
    pub(super) fn optional_ints_up_to(
        &self,
        most: usize,
        param: &str,
    ) -> Result<Option<Vec<i64>>, String> {
        let Some(argument) = self.argument(param) else {
            return Ok(None);
        };
        let Some(value) = argument.value else {
            return Err(format!("`{param}` is not a constant at hand"));
        };
        if let Some(n) = value.num_stored().filter(|&n| n > most) {
            return Err(format!(
                "`{param}` holds {n} integers, expected at most {most}"
            ));
        }
        value
            .as_ints()
            .map(Some)
            .ok_or_else(|| format!("`{param}` holds no integers"))
    }

    /// Integers of a constant operand.
    pub(super) fn ints(&self, param: &str) -> Result<Vec<i64>, String> {
        self.optional_ints(param)?
            .ok_or_else(|| format!("`{param}` is missing"))
    }

    /// The number of a constant operand that holds one number.
    pub(super) fn number(&self, param: &str) -> Option<f64> {
        let value = self.argument(param)?.value?;
        if value.num_stored()? != 1 {
            return None;
        }
        let int = || Some(*value.as_ints()?.first()? as f64);
        let float = value.as_floats();
        float.map_or_else(int, |f| f.first().copied())
    }

    /// That indices are `int32` before iOS 17, which brought narrower ones.
    pub(super) fn check_index_types(&self, params: &[&str]) -> Result<(), String> {
        let narrow = |p: &&&str| {
            let ty = self.argument(p).and_then(|a| a.ty.as_tensor());
            ty.is_some_and(|t| t.dtype != DataType::Int32)
        };
        match params.iter().find(narrow) {
            Some(param) if self.opset < Opset::CoreMl7 => {
                Err(format!("`{param}` must be int32 before {}", Opset::CoreMl7))
            }
            _ => Ok(()),
        }
    }

    /// A constant integer, if given.
    pub(super) fn optional_int(&self, param: &str) -> Result<Option<i64>, String> {
        match self.optional_ints(param)?.as_deref() {
            None => Ok(None),
            Some([n]) => Ok(Some(*n)),
            Some(other) => Err(format!(
                "`{param}` holds {} integers, expected one",
                other.len()
            )),
        }
    }

    /// A constant text, if given.
    pub(super) fn optional_str(&self, param: &str) -> Result<Option<&'a str>, String> {
        let Some(argument) = self.argument(param) else {
            return Ok(None);
        };
        argument
            .value
            .and_then(Constant::as_str)
            .map(Some)
            .ok_or_else(|| format!("`{param}` is no constant text"))
    }

    /// A constant truth value; `false` where absent.
    pub(super) fn flag(&self, param: &str) -> Result<bool, String> {
        match self.optional_bools(param)? {
            None => Ok(false),
            Some([b]) => Ok(*b),
            Some(other) => Err(format!(
                "`{param}` holds {} truth values, expected one",
                other.len()
            )),
        }
    }

    /// Constant truth values, if given.
    pub(super) fn optional_bools(&self, param: &str) -> Result<Option<&'a [bool]>, String> {
        let Some(argument) = self.argument(param) else {
            return Ok(None);
        };
        argument
            .value
            .and_then(Constant::as_bools)
            .map(Some)
            .ok_or_else(|| format!("`{param}` is no constant truth value"))
    }
}

/// Ranks above are refused, so that a hostile program cannot make inference slow. Core ML runs up to 5.
pub(crate) const MAX_RANK: usize = 64;

/// Most integers of a list that goes by dimensions: `pad` holds two for each.
const MAX_INTS: usize = 2 * MAX_RANK;

/// Element type and fixed shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shaped {
    pub dtype: DataType,
    pub shape: Vec<u64>,
}

impl Shaped {
    pub(super) fn of(param: &str, ty: &ValueType) -> Result<Shaped, String> {
        let ty = ty
            .as_tensor()
            .ok_or_else(|| format!("`{param}` is `{}`, expected a tensor", shown::ty(ty)))?;
        if ty.dims.len() > MAX_RANK {
            return Err(format!(
                "`{param}` has rank {}, expected at most {MAX_RANK}",
                ty.dims.len()
            ));
        }
        let shape = ty
            .shape()
            .ok_or_else(|| format!("`{param}` has no fixed shape"))?;
        Ok(Shaped {
            dtype: ty.dtype,
            shape,
        })
    }

    pub(super) fn rank(&self) -> usize {
        self.shape.len()
    }

    /// `axis` counted from the front; negative ones count from the end.
    pub(super) fn axis(&self, axis: i64) -> Result<usize, String> {
        let rank = self.rank() as i64;
        let at = if axis < 0 { axis + rank } else { axis };
        if (0..rank).contains(&at) {
            Ok(at as usize)
        } else {
            Err(format!("axis {axis} of a tensor of rank {rank}"))
        }
    }

    pub(super) fn num_elements(&self) -> Result<u64, String> {
        self.shape
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(d))
            .ok_or_else(|| "element count overflows".to_owned())
    }

    pub(super) fn into_types(self) -> Vec<ValueType> {
        vec![TensorType::new(self.dtype, &self.shape).into()]
    }

    pub(super) fn with_shape(&self, shape: Vec<u64>) -> Shaped {
        Shaped {
            dtype: self.dtype,
            shape,
        }
    }
}

/// The type of a tensor without its attributes, which no operation hands on: they may be long.
pub(super) fn plain(param: &str, ty: &ValueType) -> Result<ValueType, String> {
    let ty = ty
        .as_tensor()
        .ok_or_else(|| format!("`{param}` is `{}`, expected a tensor", shown::ty(ty)))?;
    Ok(ValueType::Tensor(TensorType {
        dims: ty.dims.clone(),
        ..TensorType::new(ty.dtype, &[])
    }))
}

/// The shape of `a` and `b` broadcast together, aligned at the last axis.
pub(super) fn broadcast(a: &[u64], b: &[u64]) -> Result<Vec<u64>, String> {
    let rank = a.len().max(b.len());
    let at = |s: &[u64], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (m, n) if m == n => Ok(m),
            (1, n) => Ok(n),
            (m, 1) => Ok(m),
            _ => Err(format!(
                "shapes {} and {} do not broadcast",
                list(a),
                list(b)
            )),
        })
        .collect()
}
