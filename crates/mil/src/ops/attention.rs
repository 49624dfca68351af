//! Softmax and native attention.

use super::{Dtypes, OpSpec, Param, float, int32};
use crate::ops::call::broadcast;
use crate::opset::Opset;
use crate::shown::list;
use crate::types::{DataType, ValueType};

pub(super) const SOFTMAX: OpSpec = OpSpec {
    name: "softmax",
    since: Opset::CoreMl5,
    params: &[float("x"), int32("axis").optional()],
    infer: |c| {
        let x = c.tensor("x")?;
        x.axis(c.optional_int("axis")?.unwrap_or(-1))?;
        Ok(x.into_types())
    },
};

pub(super) const SCALED_DOT_PRODUCT_ATTENTION: OpSpec = OpSpec {
    name: "scaled_dot_product_attention",
    since: Opset::CoreMl8,
    params: &[
        float("query"),
        float("key"),
        float("value"),
        Param::new(
            "attn_mask",
            Dtypes::Of(&[DataType::Bool, DataType::Fp16, DataType::Fp32]),
        )
        .optional(),
    ],
    infer: attention,
};

/// `query` `[B, .., L, E]`, `key` `[B, .., S, E]`, `value` `[B, .., S, EV]` give `[B, .., L, EV]`.
fn attention(c: &super::Call<'_>) -> Result<Vec<ValueType>, String> {
    let (q, k, v) = (c.tensor("query")?, c.tensor("key")?, c.tensor("value")?);
    let mismatch = || {
        format!(
            "query {}, key {} and value {} do not fit together",
            list(&q.shape),
            list(&k.shape),
            list(&v.shape)
        )
    };
    let (Some((qb, [l, e])), Some((kb, [s, ek])), Some((vb, [sv, ev]))) = (
        q.shape.split_last_chunk::<2>(),
        k.shape.split_last_chunk::<2>(),
        v.shape.split_last_chunk::<2>(),
    ) else {
        return Err(mismatch());
    };
    if q.rank() < 3 || e != ek || s != sv || qb != kb || kb != vb {
        return Err(mismatch());
    }
    let mut shape = qb.to_vec();
    shape.extend([*l, *s]);
    if let Some(mask) = c.optional_tensor("attn_mask") {
        let mask = mask?;
        if mask.shape.last() != Some(s) || broadcast(&mask.shape, &shape)? != shape {
            return Err(format!(
                "`attn_mask` {} does not broadcast to {}",
                list(&mask.shape),
                list(&shape)
            ));
        }
    }
    shape.truncate(qb.len());
    shape.extend([*l, *ev]);
    Ok(q.with_shape(shape).into_types())
}
