//! Operations on each element: unary, binary with broadcasting, casts.

use super::call::{Call, broadcast};
use super::{Dtypes, OpSpec, Param, float, number, string};
use crate::opset::Opset;
use crate::types::{DataType, ValueType};

fn same(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    Ok(c.tensor("x")?.into_types())
}

fn binary(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let (x, y) = (c.tensor("x")?, c.tensor("y")?);
    Ok(x.with_shape(broadcast(&x.shape, &y.shape)?).into_types())
}

const fn unary_float(name: &'static str) -> OpSpec {
    OpSpec {
        name,
        since: Opset::CoreMl5,
        params: const { &[float("x")] },
        infer: same,
    }
}

const fn unary_number(name: &'static str) -> OpSpec {
    OpSpec {
        name,
        since: Opset::CoreMl5,
        params: const { &[number("x")] },
        infer: same,
    }
}

const fn binary_number(name: &'static str) -> OpSpec {
    OpSpec {
        name,
        since: Opset::CoreMl5,
        params: const { &[number("x"), number("y")] },
        infer: binary,
    }
}

pub(super) const ABS: OpSpec = unary_number("abs");
pub(super) const COS: OpSpec = unary_float("cos");
pub(super) const ERF: OpSpec = unary_float("erf");
pub(super) const EXP: OpSpec = unary_float("exp");
pub(super) const RELU: OpSpec = unary_float("relu");
pub(super) const SIGMOID: OpSpec = unary_float("sigmoid");
pub(super) const SILU: OpSpec = unary_float("silu");
pub(super) const SIN: OpSpec = unary_float("sin");
pub(super) const SQRT: OpSpec = unary_float("sqrt");
pub(super) const SQUARE: OpSpec = unary_number("square");
pub(super) const TANH: OpSpec = unary_float("tanh");

pub(super) const ADD: OpSpec = binary_number("add");
pub(super) const MAXIMUM: OpSpec = binary_number("maximum");
pub(super) const MINIMUM: OpSpec = binary_number("minimum");
pub(super) const MUL: OpSpec = binary_number("mul");
pub(super) const POW: OpSpec = binary_number("pow");
pub(super) const REAL_DIV: OpSpec = binary_number("real_div");
pub(super) const SUB: OpSpec = binary_number("sub");

pub(super) const RSQRT: OpSpec = OpSpec {
    name: "rsqrt",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        Param::new("epsilon", Dtypes::FloatOwn)
            .optional()
            .constant(),
    ],
    infer: same,
};

pub(super) const GELU: OpSpec = OpSpec {
    name: "gelu",
    since: Opset::CoreMl5,
    params: &[float("x"), string("mode").optional()],
    infer: |c| match c.optional_str("mode")? {
        None | Some("EXACT" | "TANH_APPROXIMATION" | "SIGMOID_APPROXIMATION") => same(c),
        Some(mode) => Err(format!(
            "mode `{mode}`, expected EXACT, TANH_APPROXIMATION or SIGMOID_APPROXIMATION"
        )),
    },
};

/// Targets of a cast before iOS 17, and those that iOS 17 added.
const CASTS: &[DataType] = &[
    DataType::Fp16,
    DataType::Fp32,
    DataType::Int32,
    DataType::Bool,
];
const CASTS_IOS17: &[DataType] = &[
    DataType::Int8,
    DataType::Uint8,
    DataType::Int16,
    DataType::Uint16,
];

/// Element types of what is cast.
const CASTABLE: Dtypes = Dtypes::Of(&[
    DataType::Fp16,
    DataType::Fp32,
    DataType::Int32,
    DataType::Bool,
    DataType::Int8,
    DataType::Uint8,
    DataType::Int16,
    DataType::Uint16,
]);

pub(super) const CAST: OpSpec = OpSpec {
    name: "cast",
    since: Opset::CoreMl5,
    params: &[Param::new("x", CASTABLE), string("dtype")],
    infer: |c| {
        let text = c.optional_str("dtype")?.ok_or("`dtype` is missing")?;
        let allowed = |d: &DataType| {
            CASTS.contains(d) || (c.opset >= Opset::CoreMl7 && CASTS_IOS17.contains(d))
        };
        let dtype = DataType::from_text(text).filter(allowed);
        let dtype =
            dtype.ok_or_else(|| format!("`{text}` is no type that {} casts to", c.opset))?;
        let x = c.tensor("x")?;
        if !allowed(&x.dtype) {
            return Err(format!(
                "`x` is `{}`, which {} does not cast",
                x.dtype, c.opset
            ));
        }
        Ok(vec![ValueType::tensor(dtype, &x.shape)])
    },
};
