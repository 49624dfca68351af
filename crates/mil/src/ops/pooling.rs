//! Windows that slide over the axes after the second, each giving one number.

use super::call::Call;
use super::linear::{conv_len, positive};
use super::{OpSpec, Param, boolean, float, int32, string};
use crate::opset::Opset;
use crate::shown::{list, text};
use crate::types::ValueType;

const WINDOW: [Param; 6] = [
    float("x"),
    int32("kernel_sizes"),
    int32("strides").optional(),
    string("pad_type"),
    int32("pad").optional(),
    boolean("ceil_mode").optional(),
];

pub(super) const MAX_POOL: OpSpec = OpSpec {
    name: "max_pool",
    since: Opset::CoreMl5,
    params: &WINDOW,
    infer: pool,
};

pub(super) const AVG_POOL: OpSpec = OpSpec {
    name: "avg_pool",
    since: Opset::CoreMl5,
    params: &{
        let [x, kernel_sizes, strides, pad_type, pad, ceil_mode] = WINDOW;
        let exclude = boolean("exclude_padding_from_average").optional();
        [x, kernel_sizes, strides, pad_type, pad, ceil_mode, exclude]
    },
    infer: pool,
};

fn pool(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let mut x = c.tensor("x")?;
    if !(3..=5).contains(&x.rank()) {
        return Err(format!("`x` {}, expected rank 3 to 5", list(&x.shape)));
    }
    let n = x.rank() - 2;
    let list = |name: &str, len: usize, default: i64| -> Result<Vec<i64>, String> {
        let v = c.optional_ints(name)?.unwrap_or_else(|| vec![default; len]);
        if v.len() == len {
            return Ok(v);
        }
        Err(format!(
            "`{name}` holds {} integers, expected {len}",
            v.len()
        ))
    };
    let (kernel, strides) = (list("kernel_sizes", n, 1)?, list("strides", n, 1)?);
    let pad = list("pad", 2 * n, 0)?;
    let ceil = c.flag("ceil_mode")?;
    let pad_type = c.optional_str("pad_type")?.ok_or("`pad_type` is missing")?;
    if ceil && (n > 2 || pad.chunks(2).any(|p| p[0] != p[1]) || pad_type.starts_with("same")) {
        return Err("`ceil_mode` needs one or two axes and even padding".to_owned());
    }
    for i in 0..n {
        let len = x.shape[2 + i];
        let stride = positive("strides", strides[i])?;
        let kernel = positive("kernel_sizes", kernel[i])?;
        let pads = match pad_type {
            "valid" => 0,
            "custom" => pad[2 * i]
                .checked_add(pad[2 * i + 1])
                .ok_or("`pad` overflows")?,
            "same_lower" if c.opset < Opset::CoreMl6 => {
                return Err(format!("`pad_type` same_lower needs {}", Opset::CoreMl6));
            }
            "same" | "same_lower" => {
                x.shape[2 + i] = len.div_ceil(stride);
                continue;
            }
            other => {
                return Err(format!(
                    "`pad_type` is `{}`, expected valid, same, same_lower or custom",
                    text(other)
                ));
            }
        };
        x.shape[2 + i] = if ceil {
            ceil_len(len, kernel, strides[i], pads)?
        } else {
            conv_len(len, kernel, strides[i], 1, pads)?
        };
    }
    Ok(x.into_types())
}

/// A last window that hangs over the end counts, unless it begins in the padding there.
fn ceil_len(len: u64, kernel: u64, stride: i64, pads: i64) -> Result<u64, String> {
    let step = positive("strides", stride)?;
    let overhang = i64::try_from(step - 1)
        .ok()
        .and_then(|n| n.checked_add(pads));
    let windows = conv_len(
        len,
        kernel,
        stride,
        1,
        overhang.ok_or("`strides` overflows")?,
    )?;
    let half = u64::try_from(pads / 2).unwrap_or(0);
    let last_start = (windows - 1).saturating_mul(step);
    if pads > 0 && last_start >= len.saturating_add(half) {
        return Ok(windows - 1);
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_counted_as_coremltools_counts_them() {
        for (len, kernel, stride, pads, expected) in [
            (5, 2, 2, 0, 3),
            (4, 2, 2, 0, 2),
            (5, 3, 2, 2, 3),
            (2, 1, 3, 2, 1),
            (3, 1, 2, 2, 2),
        ] {
            assert_eq!(
                ceil_len(len, kernel, stride, pads),
                Ok(expected),
                "{len} {kernel} {stride} {pads}"
            );
        }
    }
}
