//! Images made larger or smaller along their last axes.

use super::call::{Call, Shaped};
use super::{Dtypes, OpSpec, Param, boolean, float, int32, string};
use crate::opset::Opset;
use crate::shown::{list, text};
use crate::types::{DataType, ValueType};

pub(super) const UPSAMPLE_NEAREST_NEIGHBOR: OpSpec = OpSpec {
    name: "upsample_nearest_neighbor",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        factor("scale_factor_height"),
        factor("scale_factor_width"),
    ],
    infer: upsample,
};

pub(super) const UPSAMPLE_BILINEAR: OpSpec = OpSpec {
    name: "upsample_bilinear",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        factor("scale_factor_height"),
        factor("scale_factor_width"),
        boolean("align_corners").optional(),
        boolean("half_pixel_centers").optional(),
    ],
    infer: |c| {
        if c.opset < Opset::CoreMl6 && c.argument("half_pixel_centers").is_some() {
            return Err(format!("`half_pixel_centers` needs {}", Opset::CoreMl6));
        }
        upsample(c)
    },
};

fn upsample(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let mut x = c.tensor("x")?;
    let rank = x.rank();
    let dtypes = ["scale_factor_height", "scale_factor_width"]
        .map(|p| c.argument(p).and_then(|a| Some(a.ty.as_tensor()?.dtype)));
    if let [Some(height), Some(width)] = dtypes
        && height != width
    {
        return Err(format!("scale factors of `{height}` and `{width}`"));
    }
    check_rank(&x)?;
    for (axis, param) in [
        (rank - 2, "scale_factor_height"),
        (rank - 1, "scale_factor_width"),
    ] {
        x.shape[axis] = scaled(x.shape[axis], c, param)?;
    }
    Ok(x.into_types())
}

fn check_rank(x: &Shaped) -> Result<(), String> {
    if x.rank() < 3 {
        return Err(format!("`x` {}, expected rank 3 or more", list(&x.shape)));
    }
    Ok(())
}

const fn factor(name: &'static str) -> Param {
    Param::new(name, FACTOR).constant().optional()
}

const FACTOR: Dtypes = Dtypes::Of(&[DataType::Fp32, DataType::Int32]);

fn scaled(len: u64, c: &Call<'_>, param: &str) -> Result<u64, String> {
    let Some(argument) = c.argument(param) else {
        return Ok(len);
    };
    if argument.value.is_none() {
        return Err(format!("`{param}` is no constant"));
    }
    match c.number(param) {
        // In single precision, as the factor is held.
        Some(factor) if factor > 0.0 && factor.is_finite() => {
            Ok((len as f32 * factor as f32) as u64)
        }
        _ => Err(format!("`{param}` is no positive number")),
    }
}

pub(super) const RESIZE_NEAREST_NEIGHBOR: OpSpec = OpSpec {
    name: "resize_nearest_neighbor",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        int32("target_size_height"),
        int32("target_size_width"),
    ],
    infer: resize_to_target,
};

pub(super) const RESIZE_BILINEAR: OpSpec = OpSpec {
    name: "resize_bilinear",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        int32("target_size_height").optional(),
        int32("target_size_width").optional(),
        string("sampling_mode").optional(),
    ],
    infer: |c| {
        check_mode(c, "sampling_mode", SAMPLING_MODES)?;
        resize_to_target(c)
    },
};

fn resize_to_target(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let mut x = c.tensor("x")?;
    check_rank(&x)?;
    let rank = x.rank();
    for (axis, param) in [
        (rank - 2, "target_size_height"),
        (rank - 1, "target_size_width"),
    ] {
        let size = c.optional_int(param)?.unwrap_or(1);
        x.shape[axis] = positive(param, size)?;
    }
    Ok(x.into_types())
}

fn positive(param: &str, n: i64) -> Result<u64, String> {
    u64::try_from(n)
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| format!("`{param}` holds {n}, expected a positive number"))
}

/// Where the points of the new grid lie in the old one.
const SAMPLING_MODES: &[&str] = &[
    "DEFAULT",
    "STRICT_ALIGN_CORNERS",
    "ALIGN_CORNERS",
    "OFFSET_CORNERS",
    "UNALIGN_CORNERS",
];

fn check_mode(c: &Call<'_>, param: &str, modes: &[&str]) -> Result<(), String> {
    match c.optional_str(param)? {
        Some(mode) if !modes.contains(&mode) => Err(format!(
            "`{param}` is `{}`, expected one of {}",
            text(mode),
            modes.join(", ")
        )),
        _ => Ok(()),
    }
}

pub(super) const RESIZE: OpSpec = OpSpec {
    name: "resize",
    since: Opset::CoreMl7,
    params: &[
        Param::new(
            "x",
            Dtypes::Of(&[DataType::Fp16, DataType::Fp32, DataType::Int32]),
        ),
        Param::new(
            "shape",
            Dtypes::Of(&[
                DataType::Int32,
                DataType::Int16,
                DataType::Uint16,
                DataType::Uint32,
            ]),
        ),
        Param::new("resized_dims", Dtypes::Of(&[DataType::Uint32])).constant(),
        string("interpolation_mode").optional(),
        string("sampling_mode").optional(),
    ],
    infer: resize,
};

/// The last `resized_dims` sizes are the last ones of `shape`; 0 keeps a size.
fn resize(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    check_mode(c, "interpolation_mode", &["LINEAR", "NEAREST_NEIGHBOR"])?;
    check_mode(c, "sampling_mode", SAMPLING_MODES)?;
    let mut x = c.tensor("x")?;
    let shape = c.ints("shape")?;
    let resized = c
        .optional_int("resized_dims")?
        .and_then(|n| usize::try_from(n).ok())
        .filter(|&n| n <= shape.len() && shape.len() <= x.rank())
        .ok_or_else(|| {
            format!(
                "`resized_dims`, {} sizes in `shape` and rank {} do not fit together",
                shape.len(),
                x.rank()
            )
        })?;
    let first = x.rank() - resized;
    for (old, &new) in x.shape[first..]
        .iter_mut()
        .zip(&shape[shape.len() - resized..])
    {
        if new != 0 {
            *old = positive("shape", new)?;
        }
    }
    Ok(x.into_types())
}
