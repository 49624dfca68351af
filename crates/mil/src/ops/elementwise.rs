//! Operations on each element: unary, binary with broadcasting, casts.

use super::call::{Call, broadcast};
use super::{Dtypes, OpSpec, Param, float, number, string};
use crate::opset::Opset;
use crate::shown::text;
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

/// Compares two numbers.
const fn comparison(name: &'static str) -> OpSpec {
    OpSpec {
        name,
        since: Opset::CoreMl5,
        params: const { &[number("x"), number("y")] },
        infer: |c| {
            let (x, y) = (c.tensor("x")?, c.tensor("y")?);
            let shape = broadcast(&x.shape, &y.shape)?;
            Ok(vec![ValueType::tensor(DataType::Bool, &shape)])
        },
    }
}

/// A parameter that is a tensor of truth values, not necessarily constant.
const fn truth(name: &'static str) -> Param {
    Param::new(name, Dtypes::Of(&[DataType::Bool]))
}

const fn logical(name: &'static str) -> OpSpec {
    OpSpec {
        name,
        since: Opset::CoreMl5,
        params: const { &[truth("x"), truth("y")] },
        infer: binary,
    }
}

/// An operation that adds a small number to its operand first.
const fn with_epsilon(name: &'static str) -> OpSpec {
    OpSpec {
        name,
        since: Opset::CoreMl5,
        params: const { &[float("x"), EPSILON] },
        infer: same,
    }
}

const EPSILON: Param = Param::new("epsilon", Dtypes::FloatOwn)
    .optional()
    .constant();

pub(super) const ABS: OpSpec = unary_number("abs");
pub(super) const ACOS: OpSpec = unary_float("acos");
pub(super) const ASIN: OpSpec = unary_float("asin");
pub(super) const ATAN: OpSpec = unary_float("atan");
pub(super) const ATANH: OpSpec = unary_float("atanh");
pub(super) const CEIL: OpSpec = unary_float("ceil");
pub(super) const COS: OpSpec = unary_float("cos");
pub(super) const COSH: OpSpec = unary_float("cosh");
pub(super) const ERF: OpSpec = unary_float("erf");
pub(super) const EXP: OpSpec = unary_float("exp");
pub(super) const EXP2: OpSpec = unary_number("exp2");
pub(super) const FLOOR: OpSpec = unary_float("floor");
pub(super) const INVERSE: OpSpec = with_epsilon("inverse");
pub(super) const LOG: OpSpec = with_epsilon("log");
pub(super) const RELU: OpSpec = unary_float("relu");
pub(super) const ROUND: OpSpec = unary_float("round");
pub(super) const RSQRT: OpSpec = with_epsilon("rsqrt");
pub(super) const SIGMOID: OpSpec = unary_float("sigmoid");
pub(super) const SIGN: OpSpec = unary_number("sign");
pub(super) const SILU: OpSpec = unary_float("silu");
pub(super) const SIN: OpSpec = unary_float("sin");
pub(super) const SINH: OpSpec = unary_float("sinh");
pub(super) const SQRT: OpSpec = unary_float("sqrt");
pub(super) const SQUARE: OpSpec = unary_number("square");
pub(super) const TAN: OpSpec = unary_float("tan");
pub(super) const TANH: OpSpec = unary_float("tanh");

pub(super) const ADD: OpSpec = binary_number("add");
pub(super) const FLOOR_DIV: OpSpec = binary_number("floor_div");
pub(super) const MAXIMUM: OpSpec = binary_number("maximum");
pub(super) const MINIMUM: OpSpec = binary_number("minimum");
pub(super) const MOD: OpSpec = binary_number("mod");
pub(super) const MUL: OpSpec = binary_number("mul");
pub(super) const POW: OpSpec = binary_number("pow");
pub(super) const REAL_DIV: OpSpec = binary_number("real_div");
pub(super) const SUB: OpSpec = binary_number("sub");

pub(super) const EQUAL: OpSpec = comparison("equal");
pub(super) const GREATER: OpSpec = comparison("greater");
pub(super) const GREATER_EQUAL: OpSpec = comparison("greater_equal");
pub(super) const LESS: OpSpec = comparison("less");
pub(super) const LESS_EQUAL: OpSpec = comparison("less_equal");
pub(super) const NOT_EQUAL: OpSpec = comparison("not_equal");

pub(super) const LOGICAL_AND: OpSpec = logical("logical_and");
pub(super) const LOGICAL_OR: OpSpec = logical("logical_or");
pub(super) const LOGICAL_XOR: OpSpec = logical("logical_xor");
pub(super) const LOGICAL_NOT: OpSpec = OpSpec {
    name: "logical_not",
    since: Opset::CoreMl5,
    params: &[truth("x")],
    infer: same,
};

/// What `select` chooses between.
const SELECTABLE: Dtypes = Dtypes::Of(&[
    DataType::Fp16,
    DataType::Fp32,
    DataType::Bool,
    DataType::Int32,
]);

pub(super) const SELECT: OpSpec = OpSpec {
    name: "select",
    since: Opset::CoreMl5,
    params: &[
        truth("cond"),
        Param::new("a", SELECTABLE),
        Param::new("b", SELECTABLE),
    ],
    // As coremltools infers it, the condition does not widen the result.
    infer: |c| {
        let (a, b) = (c.tensor("a")?, c.tensor("b")?);
        if a.dtype != b.dtype {
            return Err(format!("`a` is `{}` and `b` is `{}`", a.dtype, b.dtype));
        }
        Ok(a.with_shape(broadcast(&a.shape, &b.shape)?).into_types())
    },
};

pub(super) const CLIP: OpSpec = OpSpec {
    name: "clip",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        float("alpha").constant(),
        float("beta").constant(),
    ],
    infer: clip,
};

fn clip(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    match (c.number("alpha"), c.number("beta")) {
        (Some(low), Some(high)) if c.opset >= Opset::CoreMl7 && low >= high => Err(format!(
            "`alpha` is {low}, expected less than `beta`, {high}"
        )),
        _ => same(c),
    }
}

pub(super) const THRESHOLD: OpSpec = OpSpec {
    name: "threshold",
    since: Opset::CoreMl5,
    params: &[number("x"), number("alpha").constant()],
    infer: same,
};

pub(super) const GELU: OpSpec = OpSpec {
    name: "gelu",
    since: Opset::CoreMl5,
    params: &[float("x"), string("mode").optional()],
    infer: |c| match c.optional_str("mode")? {
        None | Some("EXACT" | "TANH_APPROXIMATION" | "SIGMOID_APPROXIMATION") => same(c),
        Some(mode) => Err(format!(
            "mode `{}`, expected EXACT, TANH_APPROXIMATION or SIGMOID_APPROXIMATION",
            text(mode)
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
        let target = c.optional_str("dtype")?.ok_or("`dtype` is missing")?;
        let allowed = |d: &DataType| {
            CASTS.contains(d) || (c.opset >= Opset::CoreMl7 && CASTS_IOS17.contains(d))
        };
        let dtype = DataType::from_text(target).filter(allowed);
        let dtype = dtype
            .ok_or_else(|| format!("`{}` is no type that {} casts to", text(target), c.opset))?;
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
