//! Reductions over axes.

use super::call::Call;
use super::{OpSpec, boolean, int32, number, string};
use crate::opset::Opset;
use crate::shown::text;
use crate::types::{DataType, ValueType};

const fn reduction(name: &'static str) -> OpSpec {
    OpSpec {
        name,
        since: Opset::CoreMl5,
        params: const {
            &[
                number("x"),
                int32("axes").optional(),
                boolean("keep_dims").optional(),
            ]
        },
        infer: reduce,
    }
}

pub(super) const REDUCE_L1_NORM: OpSpec = reduction("reduce_l1_norm");
pub(super) const REDUCE_L2_NORM: OpSpec = reduction("reduce_l2_norm");
pub(super) const REDUCE_LOG_SUM: OpSpec = reduction("reduce_log_sum");
pub(super) const REDUCE_LOG_SUM_EXP: OpSpec = reduction("reduce_log_sum_exp");
pub(super) const REDUCE_MAX: OpSpec = reduction("reduce_max");
pub(super) const REDUCE_MEAN: OpSpec = reduction("reduce_mean");
pub(super) const REDUCE_MIN: OpSpec = reduction("reduce_min");
pub(super) const REDUCE_PROD: OpSpec = reduction("reduce_prod");
pub(super) const REDUCE_SUM: OpSpec = reduction("reduce_sum");
pub(super) const REDUCE_SUM_SQUARE: OpSpec = reduction("reduce_sum_square");

const fn position(name: &'static str) -> OpSpec {
    OpSpec {
        name,
        since: Opset::CoreMl5,
        params: const {
            &[
                number("x"),
                int32("axis").optional(),
                boolean("keep_dims").optional(),
                string("output_dtype").optional(),
            ]
        },
        infer: find,
    }
}

pub(super) const REDUCE_ARGMAX: OpSpec = position("reduce_argmax");
pub(super) const REDUCE_ARGMIN: OpSpec = position("reduce_argmin");

/// Positions are `int32`, from iOS 17 on also `uint16`.
fn find(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let dtype = match c.optional_str("output_dtype")? {
        Some(_) if c.opset < Opset::CoreMl7 => {
            return Err(format!("`output_dtype` needs {}", Opset::CoreMl7));
        }
        None => DataType::Int32,
        Some(name) if name.eq_ignore_ascii_case("int32") => DataType::Int32,
        Some(name) if name.eq_ignore_ascii_case("uint16") => DataType::Uint16,
        Some(name) => {
            return Err(format!(
                "`output_dtype` is `{}`, expected int32 or uint16",
                text(name)
            ));
        }
    };
    let x = c.tensor("x")?;
    let axis = x.axis(c.optional_int("axis")?.unwrap_or(-1))?;
    let mut shape = x.shape;
    if c.flag("keep_dims")? {
        shape[axis] = 1;
    } else {
        shape.remove(axis);
    }
    Ok(vec![ValueType::tensor(dtype, &shape)])
}

fn reduce(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let x = c.tensor("x")?;
    let axes = match c.optional_ints("axes")? {
        Some(axes) => axes
            .iter()
            .map(|&a| x.axis(a))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..x.rank()).collect(),
    };
    let keep = c.flag("keep_dims")?;
    let sizes = x
        .shape
        .iter()
        .enumerate()
        .filter_map(|(i, &n)| match (axes.contains(&i), keep) {
            (false, _) => Some(n),
            (true, true) => Some(1),
            (true, false) => None,
        });
    Ok(x.with_shape(sizes.collect()).into_types())
}
