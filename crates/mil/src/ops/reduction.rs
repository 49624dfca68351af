//! Reductions over axes.

use super::call::Call;
use super::{OpSpec, boolean, int32, number};
use crate::opset::Opset;
use crate::types::ValueType;

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

pub(super) const REDUCE_MAX: OpSpec = reduction("reduce_max");
pub(super) const REDUCE_MEAN: OpSpec = reduction("reduce_mean");
pub(super) const REDUCE_MIN: OpSpec = reduction("reduce_min");
pub(super) const REDUCE_SUM: OpSpec = reduction("reduce_sum");

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
