//! Normalizations.

use super::call::{Call, Shaped};
use super::{Dtypes, OpSpec, Param, float, int32};
use crate::opset::Opset;
use crate::shown::list;
use crate::types::ValueType;

const fn own(name: &'static str) -> Param {
    Param::new(name, Dtypes::FloatOwn).constant()
}

fn check_shape(c: &Call<'_>, param: &str, expected: &[u64]) -> Result<(), String> {
    match c.optional_tensor(param) {
        Some(p) => {
            let p = p?;
            if p.shape == expected {
                Ok(())
            } else {
                Err(format!(
                    "`{param}` {}, expected {}",
                    list(&p.shape),
                    list(expected)
                ))
            }
        }
        None => Ok(()),
    }
}

fn per_channel(c: &Call<'_>, x: &Shaped, params: &[&str]) -> Result<(), String> {
    let channels = x.shape.get(1).copied().ok_or("`x` has no channel axis")?;
    params
        .iter()
        .try_for_each(|p| check_shape(c, p, &[channels]))
}

pub(super) const LAYER_NORM: OpSpec = OpSpec {
    name: "layer_norm",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        int32("axes").optional(),
        own("gamma").optional(),
        own("beta").optional(),
        own("epsilon").optional(),
    ],
    infer: |c| {
        let x = c.tensor("x")?;
        let mut axes = match c.optional_ints("axes")? {
            Some(axes) => axes
                .iter()
                .map(|&a| x.axis(a))
                .collect::<Result<Vec<_>, _>>()?,
            None => (0..x.rank()).collect(),
        };
        axes.sort_unstable();
        axes.dedup();
        let normalized: Vec<u64> = axes.iter().map(|&a| x.shape[a]).collect();
        check_shape(c, "gamma", &normalized)?;
        check_shape(c, "beta", &normalized)?;
        Ok(x.into_types())
    },
};

pub(super) const INSTANCE_NORM: OpSpec = OpSpec {
    name: "instance_norm",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        own("gamma").optional(),
        own("beta").optional(),
        own("epsilon").optional(),
    ],
    infer: |c| {
        let x = c.tensor("x")?;
        if !(3..=4).contains(&x.rank()) {
            return Err(format!("`x` {}, expected rank 3 or 4", list(&x.shape)));
        }
        per_channel(c, &x, &["gamma", "beta"])?;
        Ok(x.into_types())
    },
};

pub(super) const BATCH_NORM: OpSpec = OpSpec {
    name: "batch_norm",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        own("mean"),
        own("variance"),
        own("gamma").optional(),
        own("beta").optional(),
        own("epsilon").optional(),
    ],
    infer: batch_norm,
};

fn batch_norm(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let x = c.tensor("x")?;
    if !(3..=5).contains(&x.rank()) {
        return Err(format!("`x` {}, expected rank 3 to 5", list(&x.shape)));
    }
    per_channel(c, &x, &["mean", "variance", "gamma", "beta"])?;
    Ok(x.into_types())
}

/// Over the last three axes.
pub(super) const L2_NORM: OpSpec = OpSpec {
    name: "l2_norm",
    since: Opset::CoreMl5,
    params: &[float("x"), own("epsilon").optional()],
    infer: |c| {
        let x = c.tensor("x")?;
        if x.rank() < 3 {
            return Err(format!("`x` {}, expected rank 3 or more", list(&x.shape)));
        }
        Ok(x.into_types())
    },
};
