//! Convolutions of one to three spatial axes.

use super::linear::source;
use crate::kernels::{Columns, Matrix, Patches, Product, Source};
use crate::layout::checked_len;
use crate::operands::{Operands, missing};
use crate::value::Value;

/// Sizes and parameters of a convolution, by spatial axis.
struct Shape {
    batch: usize,
    groups: usize,
    /// Channels of a group that go in, and that come out.
    inputs: usize,
    outputs: usize,
    size: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
}

impl Shape {
    /// How far a kernel reaches along an axis.
    fn reach(&self, i: usize) -> usize {
        (self.kernel[i] - 1)
            .saturating_mul(self.dilations[i])
            .saturating_add(1)
    }
}

/// Padding before and after each spatial axis, and the size that comes out.
pub(super) struct Windows {
    pub(super) pads: Vec<(usize, usize)>,
    pub(super) positions: Vec<usize>,
}

impl Windows {
    /// Of windows that reach `reach` and step by `strides`, as `pad_type` and `pad` say; with `ceil`, a last one may hang
    /// over the end unless it begins in the padding there.
    pub(super) fn new(
        o: &Operands<'_>,
        size: &[usize],
        reach: &[usize],
        strides: &[usize],
        ceil: bool,
    ) -> Result<Windows, String> {
        let n = size.len();
        let pad_type = o.optional_text("pad_type")?.unwrap_or("valid");
        let pad = o.sizes_or("pad", 2 * n, 0)?;
        let (mut pads, mut positions) = (Vec::new(), Vec::new());
        for i in 0..n {
            if strides[i] == 0 || reach[i] == 0 {
                return Err("a stride or a kernel of 0".to_owned());
            }
            let pair = match pad_type {
                "valid" => (0, 0),
                "custom" => (pad[2 * i], pad[2 * i + 1]),
                "same" | "same_lower" => {
                    let count = size[i].div_ceil(strides[i]);
                    let needed = count
                        .saturating_sub(1)
                        .saturating_mul(strides[i])
                        .saturating_add(reach[i]);
                    let total = needed.saturating_sub(size[i]);
                    let (less, more) = (total / 2, total - total / 2);
                    if pad_type == "same" {
                        (less, more)
                    } else {
                        (more, less)
                    }
                }
                other => return Err(format!("`pad_type` is `{}`", other.escape_debug())),
            };
            let room = size[i]
                .checked_add(pair.0)
                .and_then(|n| n.checked_add(pair.1))
                .and_then(|n| n.checked_sub(reach[i]))
                .ok_or_else(|| format!("a kernel of {} does not fit in {}", reach[i], size[i]))?;
            let mut count = room / strides[i] + 1;
            if ceil && room % strides[i] != 0 {
                let hangs = count * strides[i];
                // Without padding the last window always begins inside.
                if pair == (0, 0) || hangs < size[i] + pair.0 {
                    count += 1;
                }
            }
            pads.push(pair);
            positions.push(count);
        }
        Ok(Windows { pads, positions })
    }
}

/// Rows, weights and bias of one convolution.
struct Weights {
    weight: Value,
    bias: Option<Value>,
}

pub(super) fn conv(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let weights = take_weights(o)?;
    let w = &weights.weight.shape;
    let spatial = x.rank().saturating_sub(2);
    let groups = groups(o)?;
    let fits = (1..=3).contains(&spatial)
        && w.len() == x.rank()
        && w[1].checked_mul(groups) == Some(x.shape[1])
        && w[0] % groups == 0;
    if !fits || w[2..].contains(&0) {
        return Err(format!(
            "`x` {:?} against `weight` {w:?} in {groups} groups",
            x.shape
        ));
    }
    let shape = Shape {
        batch: x.shape[0],
        groups,
        inputs: w[1],
        outputs: w[0] / groups,
        size: x.shape[2..].to_vec(),
        kernel: w[2..].to_vec(),
        strides: o.sizes_or("strides", spatial, 1)?,
        dilations: o.sizes_or("dilations", spatial, 1)?,
    };
    let bias = bias_of(&weights, w[0])?;
    let reach: Vec<usize> = (0..spatial).map(|i| shape.reach(i)).collect();
    let windows = Windows::new(o, &shape.size, &reach, &shape.strides, false)?;
    let mut out_shape = vec![shape.batch, w[0]];
    out_shape.extend(&windows.positions);
    let mut out = o.machine.buffers.floats(checked_len(&out_shape)?);
    let padded = padded(o, &x, &windows.pads)?;
    convolve(
        o,
        &shape,
        &windows.positions,
        &padded,
        &weights,
        bias,
        &mut out,
    )?;
    padded.recycle(o.machine.buffers);
    x.recycle(o.machine.buffers);
    weights.weight.recycle(o.machine.buffers);
    Ok(Value::f32(out_shape, out))
}

fn take_weights(o: &mut Operands<'_>) -> Result<Weights, String> {
    let weight = o.take_stored("weight")?.ok_or_else(|| missing("weight"))?;
    let bias = o.take_optional("bias")?;
    Ok(Weights { weight, bias })
}

fn groups(o: &Operands<'_>) -> Result<usize, String> {
    let groups = o.optional_int("groups")?.unwrap_or(1);
    let positive = usize::try_from(groups).ok().filter(|&g| g > 0);
    positive.ok_or_else(|| format!("{groups} groups"))
}

fn bias_of(weights: &Weights, channels: usize) -> Result<Option<&[f32]>, String> {
    let bias = weights.bias.as_ref().map(Value::floats).transpose()?;
    if bias.is_some_and(|b| b.len() != channels) {
        return Err(format!("`bias` has not {channels} elements"));
    }
    Ok(bias)
}

/// With zeros around the spatial axes.
fn padded(o: &Operands<'_>, x: &Value, pads: &[(usize, usize)]) -> Result<Value, String> {
    if pads.iter().all(|&p| p == (0, 0)) {
        return Ok(x.clone());
    }
    let mut shape = x.shape.clone();
    for (n, &(before, after)) in shape[2..].iter_mut().zip(pads) {
        *n += before + after;
    }
    let mut out = o.machine.buffers.floats(checked_len(&shape)?);
    let before: Vec<usize> = pads.iter().map(|p| p.0).collect();
    super::filling::surround(
        x.floats()?,
        &x.shape[2..],
        &before,
        &shape[2..],
        0.0,
        &mut out,
    );
    Ok(Value::f32(shape, out))
}

fn convolve(
    o: &Operands<'_>,
    shape: &Shape,
    positions: &[usize],
    x: &Value,
    weights: &Weights,
    bias: Option<&[f32]>,
    out: &mut [f32],
) -> Result<(), String> {
    let size = &x.shape[2..];
    let image_len = shape.inputs * size.iter().product::<usize>();
    let count: usize = positions.iter().product();
    let depth = shape.inputs * shape.kernel.iter().product::<usize>();
    if out.is_empty() {
        return Ok(());
    }
    let is_pointwise = shape.kernel.iter().chain(&shape.strides).all(|&n| n == 1);
    let patches = (!is_pointwise).then(|| {
        Patches::new(
            shape.inputs,
            size,
            &shape.kernel,
            positions,
            &shape.strides,
            &shape.dilations,
        )
    });
    let images = x.floats()?;
    let mut products: Vec<Vec<Product<'_>>> = Vec::new();
    products.resize_with(shape.groups, Vec::new);
    for (i, out) in out.chunks_mut(shape.outputs * count).enumerate() {
        let image = &images[i * image_len..][..image_len];
        let columns = match &patches {
            Some(patches) => Columns::Patches(patches, image),
            None => Columns::Matrix {
                source: Source::F32(image),
                columns: count,
                depth_stride: count,
                column_stride: 1,
            },
        };
        products[i % shape.groups].push(Product { columns, out });
    }
    let weight = source(&weights.weight)?;
    for (group, products) in products.into_iter().enumerate() {
        let rows = Matrix {
            source: weight.skip(group * shape.outputs * depth),
            rows: shape.outputs,
            depth,
            row_stride: depth,
            depth_stride: 1,
        };
        let bias = bias.map(|b| &b[group * shape.outputs..][..shape.outputs]);
        o.machine.multiply(&rows, products, bias);
    }
    Ok(())
}

/// `x` `[N, Cin, spatial..]`, `weight` `[Cin, Cout / groups, kernel..]`: every input element adds a kernel to the output.
pub(super) fn conv_transpose(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let weights = take_weights(o)?;
    let w = &weights.weight.shape;
    let spatial = x.rank().saturating_sub(2);
    let groups = groups(o)?;
    let fits = (1..=3).contains(&spatial)
        && w.len() == x.rank()
        && w[0] == x.shape[1]
        && w[0] % groups == 0;
    if !fits || w[2..].contains(&0) || x.shape[2..].contains(&0) {
        return Err(format!(
            "`x` {:?} against `weight` {w:?} in {groups} groups",
            x.shape
        ));
    }
    let shape = Shape {
        batch: x.shape[0],
        groups,
        inputs: w[0] / groups,
        outputs: w[1],
        size: x.shape[2..].to_vec(),
        kernel: w[2..].to_vec(),
        strides: o.sizes_or("strides", spatial, 1)?,
        dilations: o.sizes_or("dilations", spatial, 1)?,
    };
    let channels = shape.outputs * groups;
    let bias = bias_of(&weights, channels)?;
    let (before, size) = spread_size(o, &shape)?;
    let mut out_shape = vec![shape.batch, channels];
    out_shape.extend(&size);
    let plane: usize = size.iter().product();
    let mut out = vec![0.0; checked_len(&out_shape)?];
    if out.is_empty() {
        return Ok(Value::f32(out_shape, out));
    }
    for (i, plane) in out.chunks_mut(plane).enumerate() {
        plane.fill(bias.map_or(0.0, |b| b[i % channels]));
    }
    let outs = out.chunks_mut(shape.outputs * plane).enumerate();
    for (i, out) in outs {
        let columns = kernels_of(o, &shape, &x, &weights.weight, i)?;
        add_kernels(&shape, &columns, &before, &size, out);
    }
    Ok(Value::f32(out_shape, out))
}

/// What is cut off before each axis, and the size that comes out.
fn spread_size(o: &Operands<'_>, shape: &Shape) -> Result<(Vec<usize>, Vec<usize>), String> {
    let spatial = shape.size.len();
    let pad_type = o.optional_text("pad_type")?.unwrap_or("valid");
    let pad = o.sizes_or("pad", 2 * spatial, 0)?;
    let asked = if o.has("output_shape") {
        Some(o.sizes_or("output_shape", spatial + 2, 0)?)
    } else {
        None
    };
    let (mut before, mut size) = (Vec::new(), Vec::new());
    for i in 0..spatial {
        let full = (shape.size[i] - 1)
            .checked_mul(shape.strides[i])
            .and_then(|n| n.checked_add(shape.reach(i)))
            .ok_or("size overflows")?;
        let (cut, natural) = match pad_type {
            "valid" => (0, Some(full)),
            "custom" => (
                pad[2 * i],
                full.checked_sub(pad[2 * i])
                    .and_then(|n| n.checked_sub(pad[2 * i + 1])),
            ),
            "same" => {
                let len = asked
                    .as_ref()
                    .map_or(shape.size[i] * shape.strides[i], |a| a[2 + i]);
                (full.saturating_sub(len) / 2, Some(len))
            }
            other => return Err(format!("`pad_type` is `{}`", other.escape_debug())),
        };
        let natural = natural.ok_or("more padding than there is output")?;
        before.push(cut);
        size.push(asked.as_ref().map_or(natural, |a| a[2 + i]));
    }
    Ok((before, size))
}

/// For the group `i` of all images: `[outputs, kernel.., positions..]`, the kernels that the input's elements add.
fn kernels_of(
    o: &Operands<'_>,
    shape: &Shape,
    x: &Value,
    weight: &Value,
    i: usize,
) -> Result<Vec<f32>, String> {
    let count: usize = shape.size.iter().product();
    let rows = shape.outputs * shape.kernel.iter().product::<usize>();
    let mut out = vec![0.0; checked_len(&[rows, count])?];
    let left = Matrix {
        source: source(weight)?.skip(i % shape.groups * shape.inputs * rows),
        rows,
        depth: shape.inputs,
        row_stride: 1,
        depth_stride: rows,
    };
    let columns = Columns::Matrix {
        source: Source::F32(&x.floats()?[i * shape.inputs * count..]),
        columns: count,
        depth_stride: count,
        column_stride: 1,
    };
    let product = Product {
        columns,
        out: &mut out,
    };
    o.machine.multiply(&left, vec![product], None);
    Ok(out)
}

fn add_kernels(shape: &Shape, columns: &[f32], before: &[usize], size: &[usize], out: &mut [f32]) {
    let count: usize = shape.size.iter().product();
    let kernel: usize = shape.kernel.iter().product();
    let plane: usize = size.iter().product();
    let apart = crate::layout::strides(size);
    let digits = |mut i: usize, sizes: &[usize]| {
        let mut digits = vec![0; sizes.len()];
        for (digit, &n) in digits.iter_mut().zip(sizes).rev() {
            *digit = i % n;
            i /= n;
        }
        digits
    };
    for (row, values) in columns.chunks(count).enumerate() {
        let (channel, tap) = (row / kernel, digits(row % kernel, &shape.kernel));
        for (p, value) in values.iter().enumerate() {
            let place = digits(p, &shape.size);
            let at = (0..size.len()).try_fold(channel * plane, |at, i| {
                let n = place[i] * shape.strides[i] + tap[i] * shape.dilations[i];
                let n = n.checked_sub(before[i]).filter(|&n| n < size[i])?;
                Some(at + n * apart[i])
            });
            if let Some(at) = at {
                out[at] += value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_near, floats, int, list, noise, run, text, try_run};
    use super::*;
    use crate::value::Data;
    use half::f16;
    use mil::ops::Op;

    struct Case<'a> {
        x: &'a [usize],
        w: &'a [usize],
        groups: usize,
        strides: &'a [usize],
        dilations: &'a [usize],
        pad: &'a [usize],
        /// `pad_type`, where `pad` only says what it comes to.
        pad_type: &'a str,
    }

    impl Default for Case<'_> {
        fn default() -> Self {
            Case {
                x: &[2, 3, 9, 10],
                w: &[5, 3, 3, 3],
                groups: 1,
                strides: &[1, 1],
                dilations: &[1, 1],
                pad: &[0, 0, 0, 0],
                pad_type: "custom",
            }
        }
    }

    fn as_list(v: &[usize]) -> Value {
        list(&v.iter().map(|&n| n as i32).collect::<Vec<_>>())
    }

    /// By the definition, in three spatial axes.
    fn naive(case: &Case<'_>, x: &[f32], w: &[f32], bias: &[f32]) -> Value {
        let three = |v: &[usize], fill: usize| {
            let mut v = v.to_vec();
            while v.len() < 3 {
                v.insert(0, fill);
            }
            v
        };
        let (s, k) = (three(&case.x[2..], 1), three(&case.w[2..], 1));
        let (stride, dilation) = (three(case.strides, 1), three(case.dilations, 1));
        let mut pad = case.pad.to_vec();
        while pad.len() < 6 {
            pad.insert(0, 0);
        }
        let out: Vec<usize> = (0..3)
            .map(|i| {
                (s[i] + pad[2 * i] + pad[2 * i + 1] - (k[i] - 1) * dilation[i] - 1) / stride[i] + 1
            })
            .collect();
        let (inputs, outputs) = (case.w[1], case.w[0] / case.groups);
        let mut result = Vec::new();
        for n in 0..case.x[0] {
            for (c, &start) in bias.iter().enumerate() {
                for z in 0..out[0] {
                    for y in 0..out[1] {
                        for q in 0..out[2] {
                            let mut sum = f64::from(start);
                            for i in 0..inputs {
                                for t in 0..k[0] * k[1] * k[2] {
                                    let tap = [t / (k[1] * k[2]), t / k[2] % k[1], t % k[2]];
                                    let at: Option<Vec<usize>> = (0..3)
                                        .map(|d| {
                                            let p = [z, y, q][d] * stride[d] + tap[d] * dilation[d];
                                            p.checked_sub(pad[2 * d]).filter(|&p| p < s[d])
                                        })
                                        .collect();
                                    if let Some(at) = at {
                                        let channel = c / outputs * inputs + i;
                                        let xi = (((n * case.x[1] + channel) * s[0] + at[0])
                                            * s[1]
                                            + at[1])
                                            * s[2]
                                            + at[2];
                                        let wi = (c * inputs + i) * k[0] * k[1] * k[2] + t;
                                        sum += f64::from(x[xi]) * f64::from(w[wi]);
                                    }
                                }
                            }
                            result.push(sum as f32);
                        }
                    }
                }
            }
        }
        let mut shape = vec![case.x[0], case.w[0]];
        shape.extend(&out[5 - case.x.len()..]);
        Value::f32(shape, result)
    }

    fn check(case: &Case<'_>) {
        let (x, w, bias) = (noise(case.x, 1), noise(case.w, 2), noise(&case.w[..1], 3));
        let rounded: Vec<f32> = w
            .floats()
            .unwrap()
            .iter()
            .map(|&x| f16::from_f32(x).to_f32())
            .collect();
        let bytes = rounded
            .iter()
            .flat_map(|&x| f16::from_f32(x).to_le_bytes())
            .collect();
        let expected = naive(case, x.floats().unwrap(), &rounded, bias.floats().unwrap());
        for weight in [
            floats(case.w, &rounded),
            Value::new(case.w.to_vec(), Data::Half(bytes)),
        ] {
            let found = run(
                Op::Conv,
                &[
                    ("x", x.clone()),
                    ("weight", weight),
                    ("bias", bias.clone()),
                    ("strides", as_list(case.strides)),
                    ("dilations", as_list(case.dilations)),
                    ("pad", as_list(case.pad)),
                    ("pad_type", text(case.pad_type)),
                    ("groups", int(case.groups as i32)),
                ],
            );
            assert_near(&found, &expected, 1e-5);
        }
    }

    #[test]
    fn convolutions_by_their_definition() {
        check(&Case::default());
        check(&Case {
            pad: &[1, 1, 1, 1],
            ..Case::default()
        });
        check(&Case {
            pad: &[0, 1, 2, 3],
            strides: &[2, 1],
            ..Case::default()
        });
        check(&Case {
            pad: &[0, 1, 0, 1],
            strides: &[2, 2],
            ..Case::default()
        });
        check(&Case {
            dilations: &[2, 3],
            pad: &[2, 2, 0, 0],
            ..Case::default()
        });
        check(&Case {
            x: &[2, 6, 9, 10],
            groups: 2,
            w: &[4, 3, 3, 2],
            ..Case::default()
        });
        check(&Case {
            x: &[1, 4, 9, 10],
            groups: 4,
            w: &[8, 1, 3, 3],
            pad: &[1, 1, 1, 1],
            ..Case::default()
        });
        check(&Case {
            x: &[2, 40, 5, 7],
            w: &[30, 40, 1, 1],
            ..Case::default()
        });
        check(&Case {
            x: &[2, 40, 5, 7],
            w: &[30, 40, 1, 1],
            strides: &[2, 3],
            ..Case::default()
        });
        check(&Case {
            x: &[1, 3, 40, 64],
            w: &[16, 3, 3, 3],
            pad: &[1, 1, 1, 1],
            ..Case::default()
        });
        check(&Case {
            x: &[1, 33, 32, 32],
            w: &[16, 33, 3, 3],
            pad: &[1, 1, 1, 1],
            ..Case::default()
        });
        check(&Case {
            x: &[2, 3, 20],
            w: &[4, 3, 5],
            strides: &[2],
            dilations: &[1],
            pad: &[2, 1],
            ..Case::default()
        });
        check(&Case {
            x: &[1, 2, 4, 5, 6],
            w: &[3, 2, 2, 3, 2],
            strides: &[1, 2, 1],
            dilations: &[2, 1, 1],
            pad: &[1, 0, 1, 1, 0, 1],
            ..Case::default()
        });
    }

    #[test]
    fn padding_by_name() {
        // An even kernel, so that the sides differ.
        let even = Case {
            w: &[5, 3, 2, 4],
            ..Case::default()
        };
        check(&Case {
            pad: &[0, 1, 1, 2],
            pad_type: "same",
            ..even
        });
        check(&Case {
            pad: &[1, 0, 2, 1],
            pad_type: "same_lower",
            ..Case {
                w: &[5, 3, 2, 4],
                ..Case::default()
            }
        });
        check(&Case {
            pad: &[1, 1, 0, 1],
            strides: &[2, 2],
            pad_type: "same",
            ..Case::default()
        });
        check(&Case {
            pad_type: "valid",
            ..Case::default()
        });
        let refused = try_run(
            Op::Conv,
            &[
                ("x", noise(&[1, 2, 3, 3], 1)),
                ("weight", noise(&[1, 2, 4, 4], 1)),
            ],
        );
        assert!(refused.is_err());
    }

    #[test]
    fn transposed_convolutions_add_kernels() {
        for (groups, strides, dilations, pad) in [
            (1, [1, 1], [1, 1], [0, 0, 0, 0]),
            (1, [2, 3], [1, 1], [1, 0, 0, 2]),
            (2, [2, 2], [1, 2], [1, 1, 1, 1]),
        ] {
            let (x, w, bias) = (
                noise(&[2, 4, 3, 5], 1),
                noise(&[4, 3, 3, 2], 2),
                noise(&[3 * groups], 3),
            );
            let full = [
                (3 - 1) * strides[0] + 2 * dilations[0] + 1,
                (5 - 1) * strides[1] + dilations[1] + 1,
            ];
            let size = [full[0] - pad[0] - pad[1], full[1] - pad[2] - pad[3]];
            let (xs, ws) = (x.floats().unwrap(), w.floats().unwrap());
            let outputs = 3 * groups;
            let mut expected: Vec<f32> = (0..2 * outputs * size[0] * size[1])
                .map(|i| bias.floats().unwrap()[i / (size[0] * size[1]) % outputs])
                .collect();
            for (i, &value) in xs.iter().enumerate() {
                let (n, c, y, q) = (i / 60, i / 15 % 4, i / 5 % 3, i % 5);
                for k in 0..18 {
                    let (channel, ky, kx) = (k / 6, k / 2 % 3, k % 2);
                    let channel = c / (4 / groups) * 3 + channel;
                    let to_y = (y * strides[0] + ky * dilations[0])
                        .checked_sub(pad[0])
                        .filter(|&p| p < size[0]);
                    let to_x = (q * strides[1] + kx * dilations[1])
                        .checked_sub(pad[2])
                        .filter(|&p| p < size[1]);
                    if let (Some(to_y), Some(to_x)) = (to_y, to_x) {
                        expected[((n * outputs + channel) * size[0] + to_y) * size[1] + to_x] +=
                            value * ws[c * 18 + k];
                    }
                }
            }
            let found = run(
                Op::ConvTranspose,
                &[
                    ("x", x.clone()),
                    ("weight", w.clone()),
                    ("bias", bias.clone()),
                    ("strides", as_list(&strides)),
                    ("dilations", as_list(&dilations)),
                    ("pad", as_list(&pad)),
                    ("pad_type", text("custom")),
                    ("groups", int(groups as i32)),
                ],
            );
            assert_near(
                &found,
                &floats(&[2, outputs, size[0], size[1]], &expected),
                1e-5,
            );
        }
    }
}
