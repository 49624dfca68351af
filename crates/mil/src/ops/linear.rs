//! Convolutions and products of matrices.

use super::call::{Call, Shaped, broadcast};
use super::{Dtypes, OpSpec, Param, boolean, float, int32, string};
use crate::opset::Opset;
use crate::shown::{list, text};
use crate::types::{DataType, ValueType};

pub(super) const CONV: OpSpec = OpSpec {
    name: "conv",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        Param::new("weight", Dtypes::FloatOwn),
        Param::new("bias", Dtypes::FloatOwn).optional(),
        int32("strides").optional(),
        string("pad_type").optional(),
        int32("pad").optional(),
        int32("dilations").optional(),
        int32("groups").optional(),
    ],
    infer: conv,
};

/// `x` `[N, Cin, spatial..]`, `weight` `[Cout, Cin / groups, kernel..]`.
fn conv(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let (x, w) = (c.tensor("x")?, c.tensor("weight")?);
    if !(3..=5).contains(&x.rank()) || w.rank() != x.rank() {
        return Err(format!(
            "`x` {} and `weight` {}, expected the same rank of 3 to 5",
            list(&x.shape),
            list(&w.shape)
        ));
    }
    let groups = c.optional_int("groups")?.unwrap_or(1);
    let groups = u64::try_from(groups)
        .ok()
        .filter(|&g| g > 0)
        .ok_or("`groups` is not positive")?;
    check_versions(c)?;
    if w.shape[0] % groups != 0 {
        return Err(format!(
            "{} output channels do not divide into {groups} groups",
            w.shape[0]
        ));
    }
    if w.shape[1].checked_mul(groups) != Some(x.shape[1]) {
        return Err(format!(
            "`x` has {} channels, `weight` {} takes {} x {groups} groups",
            x.shape[1],
            list(&w.shape),
            w.shape[1]
        ));
    }
    if let Some(bias) = c.optional_tensor("bias") {
        let bias = bias?;
        if bias.shape != [w.shape[0]] {
            return Err(format!(
                "`bias` {}, expected [{}]",
                list(&bias.shape),
                w.shape[0]
            ));
        }
    }
    let n = x.rank() - 2;
    let list = |name: &str, len: usize, default: i64| -> Result<Vec<i64>, String> {
        let v = c.optional_ints(name)?.unwrap_or_else(|| vec![default; len]);
        if v.len() == len {
            Ok(v)
        } else {
            Err(format!(
                "`{name}` holds {} integers, expected {len}",
                v.len()
            ))
        }
    };
    let (strides, dilations, pad) = (
        list("strides", n, 1)?,
        list("dilations", n, 1)?,
        list("pad", 2 * n, 0)?,
    );
    if dilations.iter().any(|&d| d != 1) && !c.argument("weight").is_some_and(|w| w.constant) {
        return Err("`dilations` other than 1 need a constant `weight`".to_owned());
    }
    let pad_type = c.optional_str("pad_type")?.unwrap_or("valid");
    let mut shape = vec![x.shape[0], w.shape[0]];
    for i in 0..n {
        let pads = match pad_type {
            "custom" => pad[2 * i]
                .checked_add(pad[2 * i + 1])
                .ok_or("`pad` overflows")?,
            "valid" => 0,
            "same" | "same_lower" => {
                positive("dilations", dilations[i])?;
                shape.push(x.shape[2 + i].div_ceil(positive("strides", strides[i])?));
                continue;
            }
            other => {
                return Err(format!(
                    "`pad_type` is `{}`, expected valid, same, same_lower or custom",
                    text(other)
                ));
            }
        };
        shape.push(conv_len(
            x.shape[2 + i],
            w.shape[2 + i],
            strides[i],
            dilations[i],
            pads,
        )?);
    }
    Ok(x.with_shape(shape).into_types())
}

/// What `conv` took on with later operation sets.
fn check_versions(c: &Call<'_>) -> Result<(), String> {
    if c.opset < Opset::CoreMl6 && c.optional_str("pad_type")? == Some("same_lower") {
        return Err(format!("`pad_type` same_lower needs {}", Opset::CoreMl6));
    }
    if c.opset < Opset::CoreMl7 && c.argument("bias").is_some_and(|b| !b.constant) {
        return Err(format!(
            "`bias` must be a constant before {}",
            Opset::CoreMl7
        ));
    }
    Ok(())
}

pub(super) fn positive(name: &str, n: i64) -> Result<u64, String> {
    u64::try_from(n)
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| format!("`{name}` holds {n}, expected a positive number"))
}

pub(super) fn conv_len(
    len: u64,
    kernel: u64,
    stride: i64,
    dilation: i64,
    pads: i64,
) -> Result<u64, String> {
    let (stride, dilation) = (
        positive("strides", stride)?,
        positive("dilations", dilation)?,
    );
    let reach = || kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1);
    let room = || len.checked_add_signed(pads)?.checked_sub(reach()?);
    let room = room().ok_or_else(|| {
        format!("a kernel of {kernel} does not fit in {len} with {pads} of padding")
    })?;
    Ok(room / stride + 1)
}

pub(super) const CONV_TRANSPOSE: OpSpec = OpSpec {
    name: "conv_transpose",
    since: Opset::CoreMl5,
    params: &[
        float("x"),
        Param::new("weight", Dtypes::FloatOwn),
        Param::new("bias", Dtypes::FloatOwn).optional(),
        int32("pad").optional(),
        int32("output_shape").optional(),
        string("pad_type").optional(),
        int32("strides").optional(),
        int32("dilations").optional(),
        int32("groups").optional(),
    ],
    infer: conv_transpose,
};

/// `x` `[N, Cin, spatial..]`, `weight` `[Cin, Cout / groups, kernel..]`.
fn conv_transpose(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let (x, w) = (c.tensor("x")?, c.tensor("weight")?);
    if !(3..=5).contains(&x.rank()) || w.rank() != x.rank() || w.shape[0] != x.shape[1] {
        return Err(format!(
            "`x` {} and `weight` {}, expected the same rank of 3 to 5 and as many channels",
            list(&x.shape),
            list(&w.shape)
        ));
    }
    let weight_is_constant = c.argument("weight").is_some_and(|w| w.constant);
    if c.opset < Opset::CoreMl7 && !weight_is_constant {
        return Err(format!(
            "`weight` must be a constant before {}",
            Opset::CoreMl7
        ));
    }
    check_versions(c)?;
    let groups = positive("groups", c.optional_int("groups")?.unwrap_or(1))?;
    let channels = w.shape[1].checked_mul(groups).ok_or("size overflows")?;
    if x.shape[1] % groups != 0 {
        return Err(format!(
            "{} channels do not divide into {groups} groups",
            x.shape[1]
        ));
    }
    if let Some(bias) = c.optional_tensor("bias") {
        let bias = bias?;
        if bias.shape != [channels] {
            return Err(format!(
                "`bias` {}, expected [{channels}]",
                list(&bias.shape)
            ));
        }
    }
    if let Some(shape) = c.optional_ints("output_shape")? {
        let sizes: Option<Vec<u64>> = shape.iter().map(|&n| u64::try_from(n).ok()).collect();
        return match sizes {
            Some(s) if s.len() == x.rank() && s[0] == x.shape[0] && s[1] == channels => {
                Ok(x.with_shape(s).into_types())
            }
            _ => Err(format!(
                "`output_shape` {}, expected [{}, {channels}, ..] of rank {}",
                list(&shape),
                x.shape[0],
                x.rank()
            )),
        };
    }
    let mut shape = vec![x.shape[0], channels];
    for i in 0..x.rank() - 2 {
        shape.push(transposed_len(c, &x, &w, i)?);
    }
    Ok(x.with_shape(shape).into_types())
}

/// Length of the spatial axis `i` of a transposed convolution.
fn transposed_len(c: &Call<'_>, x: &Shaped, w: &Shaped, i: usize) -> Result<u64, String> {
    let n = x.rank() - 2;
    let pick = |name: &str, len: usize, at: usize, default: i64| match c.optional_ints(name)? {
        None => Ok(default),
        Some(v) if v.len() == len => Ok(v[at]),
        Some(v) => Err(format!(
            "`{name}` holds {} integers, expected {len}",
            v.len()
        )),
    };
    let stride = positive("strides", pick("strides", n, i, 1)?)?;
    let dilation = positive("dilations", pick("dilations", n, i, 1)?)?;
    let (len, kernel) = (x.shape[2 + i], w.shape[2 + i]);
    let pads = match c.optional_str("pad_type")?.unwrap_or("valid") {
        "same" => return stride.checked_mul(len).ok_or("size overflows".to_owned()),
        "valid" => 0,
        "custom" => pick("pad", 2 * n, 2 * i, 0)?
            .checked_add(pick("pad", 2 * n, 2 * i + 1, 0)?)
            .ok_or("`pad` overflows")?,
        other => {
            return Err(format!(
                "`pad_type` is `{}`, expected valid, same or custom",
                text(other)
            ));
        }
    };
    let reach = || kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1);
    let full = || {
        len.checked_sub(1)?
            .checked_mul(stride)?
            .checked_add(reach()?)
    };
    full()
        .and_then(|n| n.checked_add_signed(pads.checked_neg()?))
        .ok_or_else(|| format!("a kernel of {kernel} over {len} does not fit {pads} of padding"))
}

pub(super) const LINEAR: OpSpec = OpSpec {
    name: "linear",
    since: Opset::CoreMl5,
    params: &[
        Param::new("x", Dtypes::Number),
        Param::new("weight", Dtypes::NumberOwn).constant(),
        Param::new("bias", Dtypes::NumberOwn).optional().constant(),
    ],
    infer: |c| {
        let (x, w) = (c.tensor("x")?, c.tensor("weight")?);
        let [dout, din] = w.shape[..] else {
            return Err(format!("`weight` {}, expected rank 2", list(&w.shape)));
        };
        if let Some(bias) = c.optional_tensor("bias") {
            let bias = bias?;
            if bias.shape != [dout] {
                return Err(format!("`bias` {}, expected [{dout}]", list(&bias.shape)));
            }
        }
        let mut shape = x.shape.clone();
        match shape.last_mut() {
            Some(last) if *last == din => *last = dout,
            _ => {
                return Err(format!(
                    "`x` {} against `weight` {}",
                    list(&x.shape),
                    list(&w.shape)
                ));
            }
        }
        Ok(x.with_shape(shape).into_types())
    },
};

pub(super) const MATMUL: OpSpec = OpSpec {
    name: "matmul",
    since: Opset::CoreMl5,
    params: &[
        Param::new("x", Dtypes::Number),
        Param::new("y", Dtypes::NumberOwn),
        boolean("transpose_x").optional(),
        boolean("transpose_y").optional(),
    ],
    infer: matmul,
};

/// `[.., I, K]` by `[.., K, J]`, what comes before broadcast; `x` may be a vector `[K]`, whose result has no `I`.
fn matmul(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let (x, y) = (c.tensor("x")?, c.tensor("y")?);
    let (flip_x, flip_y) = (c.flag("transpose_x")?, c.flag("transpose_y")?);
    let is_vector = x.rank() == 1 && !flip_x;
    let matrix = if is_vector {
        [&[1], &x.shape[..]].concat()
    } else {
        x.shape.clone()
    };
    let (Some((a, &[mut rows, mut inner])), Some((b, &[mut inner_y, mut columns]))) = (
        matrix.split_last_chunk::<2>(),
        y.shape.split_last_chunk::<2>(),
    ) else {
        return Err(format!(
            "`x` {} and `y` {}, expected rank 2 or more",
            list(&x.shape),
            list(&y.shape)
        ));
    };
    if flip_x {
        std::mem::swap(&mut rows, &mut inner);
    }
    if flip_y {
        std::mem::swap(&mut inner_y, &mut columns);
    }
    if inner != inner_y {
        return Err(format!(
            "`x` {} and `y` {} share no inner size ({inner} and {inner_y})",
            list(&x.shape),
            list(&y.shape)
        ));
    }
    let mut shape = broadcast(a, b)?;
    if !is_vector {
        shape.push(rows);
    }
    shape.push(columns);
    let dtype = matmul_dtype(c, x.dtype, y.dtype)?;
    Ok(vec![ValueType::tensor(dtype, &shape)])
}

/// That of the operand which is no `const`, if one is; else both must agree.
fn matmul_dtype(c: &Call<'_>, x: DataType, y: DataType) -> Result<DataType, String> {
    let is_const = |name| c.argument(name).is_some_and(|a| a.value.is_some());
    match (is_const("x"), is_const("y")) {
        _ if x == y => Ok(x),
        (false, true) => Ok(x),
        (true, false) => Ok(y),
        _ => Err(format!(
            "`y` is `{y}`, expected `{x}` as `x` has: they differ only where one is a `const`"
        )),
    }
}

pub(super) const EINSUM: OpSpec = OpSpec {
    name: "einsum",
    since: Opset::CoreMl5,
    params: &[float("values").many(), string("equation")],
    infer: einsum,
};

/// Only `nchw,nwhu->nchu` and `chw,whr->chr` exist, under any letters: the last axis of the first operand is contracted with
/// the third-last of the second; the batch and the middle axis broadcast.
fn einsum(c: &Call<'_>) -> Result<Vec<ValueType>, String> {
    let equation = c.optional_str("equation")?.ok_or("`equation` is missing")?;
    if !["nchw,nwhu->nchu", "chw,whr->chr"]
        .iter()
        .any(|form| same_equation(equation, form))
    {
        return Err(format!(
            "equation `{}`, expected the form `nchw,nwhu->nchu` or `chw,whr->chr`",
            text(equation)
        ));
    }
    let [a, b] = c.all("values") else {
        return Err("`values` holds other than two operands".to_owned());
    };
    let Shaped { dtype, shape: a } = Shaped::of("values", a.ty)?;
    let b = Shaped::of("values", b.ty)?.shape;
    let (Some((an, &[ac, ah, aw])), Some((bn, &[bw, bh, bu]))) =
        (a.split_last_chunk::<3>(), b.split_last_chunk::<3>())
    else {
        return Err(format!(
            "operands {} and {}, expected rank 3 or 4",
            list(&a),
            list(&b)
        ));
    };
    let rank = equation.find(',').unwrap_or(0);
    if a.len() != rank || b.len() != rank || aw != bw {
        return Err(format!(
            "operands {} and {} do not fit `{equation}`",
            list(&a),
            list(&b)
        ));
    }
    let mut shape = broadcast(an, bn)?;
    let middle = broadcast(&[ah], &[bh])?;
    shape.push(ac);
    shape.extend(middle);
    shape.push(bu);
    Ok(vec![ValueType::tensor(dtype, &shape)])
}

/// Whether two equations are equal up to a one-to-one renaming of letters.
fn same_equation(a: &str, b: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic();
    let maps_to = |x: &str, y: &str| {
        x.chars().zip(y.chars()).all(|(cx, cy)| {
            if letter(cx) != letter(cy) {
                return false;
            }
            if !letter(cx) {
                return cx == cy;
            }
            x.chars()
                .zip(y.chars())
                .all(|(dx, dy)| dx != cx || dy == cy)
        })
    };
    a.len() == b.len() && maps_to(a, b) && maps_to(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_are_compared_up_to_letters() {
        for (text, same) in [
            ("bkhc,bchq->bkhq", true),
            ("bchk,bkhq->bchq", true),
            ("bchq,bkhc->bkhq", false),
            ("bkhc,bchq->bkh", false),
            ("aaaa,aaaa->aaaa", false),
        ] {
            assert_eq!(same_equation(text, "nchw,nwhu->nchu"), same, "{text}");
        }
    }

    #[test]
    fn a_kernel_slides_over_padded_input() {
        assert_eq!(conv_len(64, 3, 1, 1, 2), Ok(64));
        assert_eq!(conv_len(64, 3, 2, 1, 2), Ok(32));
        assert!(conv_len(1, 3, 1, 1, 0).is_err());
        assert!(conv_len(4, 3, 0, 1, 0).is_err());
    }
}
