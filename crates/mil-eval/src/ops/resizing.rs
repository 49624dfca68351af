//! Images made larger or smaller along their last axes.
//!
//! Source: the formulas in coremltools 9.0, `iOS15/image_resizing.py`, and what torch's nearest neighbor takes.

use rayon::prelude::*;

use crate::layout::{around, checked_len};
use crate::operands::Operands;
use crate::value::{Data, Value};

/// Where the points of a new grid lie in the old one.
#[derive(Clone, Copy)]
enum Grid {
    /// `i * old / new`.
    Default,
    /// First and last points coincide; a single point is the first.
    AlignCorners,
    /// As [`Grid::AlignCorners`], a single point in the middle.
    AlignCornersOrMiddle,
    /// Points in the middle of parts of `old - 1`.
    OffsetCorners,
    /// Points in the middle of parts of `old`.
    UnalignCorners,
}

impl Grid {
    fn of(mode: &str) -> Result<Grid, String> {
        Ok(match mode {
            "DEFAULT" => Grid::Default,
            "STRICT_ALIGN_CORNERS" => Grid::AlignCorners,
            "ALIGN_CORNERS" => Grid::AlignCornersOrMiddle,
            "OFFSET_CORNERS" => Grid::OffsetCorners,
            "UNALIGN_CORNERS" => Grid::UnalignCorners,
            other => return Err(format!("`sampling_mode` is `{}`", other.escape_debug())),
        })
    }

    /// The point `i` of `new` in a line of `old`.
    fn point(self, i: usize, old: usize, new: usize) -> f64 {
        let (x, old_len, new_len) = (i as f64, old as f64, new as f64);
        let at = match self {
            Grid::Default => x * old_len / new_len,
            Grid::AlignCornersOrMiddle if new == 1 => (old_len - 1.0) / 2.0,
            Grid::AlignCorners | Grid::AlignCornersOrMiddle if new == 1 => 0.0,
            Grid::AlignCorners | Grid::AlignCornersOrMiddle => {
                x * (old_len - 1.0) / (new_len - 1.0)
            }
            Grid::OffsetCorners => (x + 0.5) * (old_len - 1.0).max(1.0) / new_len,
            Grid::UnalignCorners => (x + 0.5) * old_len / new_len - 0.5,
        };
        at.clamp(0.0, old_len - 1.0)
    }

    /// The nearest position; with [`Grid::Default`] the one before, as torch takes it.
    fn nearest(self, i: usize, old: usize, new: usize) -> usize {
        let point = self.point(i, old, new);
        let at = match self {
            Grid::Default => i * old / new,
            _ => (point + 0.5).floor() as usize,
        };
        at.min(old - 1)
    }
}

/// A position that a new one takes from, the next, and the weight of that.
type Tap = (usize, usize, f32);

fn linear_taps(grid: Grid, old: usize, new: usize) -> Vec<Tap> {
    let tap = |i| {
        let point = grid.point(i, old, new);
        let at = point.floor() as usize;
        (at, (at + 1).min(old - 1), (point - point.floor()) as f32)
    };
    (0..new).map(tap).collect()
}

fn nearest_taps(old: usize, new: usize, at: impl Fn(usize) -> usize) -> Vec<Tap> {
    let tap = |i| {
        let at = at(i).min(old - 1);
        (at, at, 0.0)
    };
    (0..new).map(tap).collect()
}

/// One axis sampled by its taps.
fn sample(o: &Operands<'_>, x: Value, axis: usize, taps: &[Tap]) -> Result<Value, String> {
    let is_same =
        taps.len() == x.shape[axis] && taps.iter().enumerate().all(|(i, t)| t.0 == i && t.2 == 0.0);
    if is_same {
        return Ok(x);
    }
    let mut shape = x.shape.clone();
    shape[axis] = taps.len();
    let (_, old, inner) = around(&x.shape, axis);
    let mut out = o.machine.buffers.floats(checked_len(&shape)?);
    let source = x.floats()?;
    let row = taps.len() * inner;
    out.par_chunks_mut(row.max(1))
        .enumerate()
        .for_each(|(i, out)| {
            let source = &source[i * old * inner..][..old * inner];
            if inner == 1 {
                for (x, &(a, b, weight)) in out.iter_mut().zip(taps) {
                    *x = mix(source[a], source[b], weight);
                }
                return;
            }
            for (out, &(a, b, weight)) in out.chunks_mut(inner).zip(taps) {
                let (a, b) = (&source[a * inner..][..inner], &source[b * inner..][..inner]);
                for ((x, a), b) in out.iter_mut().zip(a).zip(b) {
                    *x = mix(*a, *b, weight);
                }
            }
        });
    x.recycle(o.machine.buffers);
    Ok(Value::f32(shape, out))
}

#[inline(always)]
fn mix(a: f32, b: f32, weight: f32) -> f32 {
    if weight == 0.0 {
        a
    } else {
        a * (1.0 - weight) + b * weight
    }
}

fn last_two(x: &Value) -> Result<[usize; 2], String> {
    match x.rank() {
        rank if rank >= 3 && x.len() > 0 => Ok([rank - 2, rank - 1]),
        _ => Err(format!("`x` {:?}, expected rank 3 or more", x.shape)),
    }
}

const FACTORS: [&str; 2] = ["scale_factor_height", "scale_factor_width"];

/// The factor, and the size that it makes of a size.
fn scaled(o: &Operands<'_>, param: &str, old: usize) -> Result<(f32, usize), String> {
    let factor = o.optional_float(param)?.unwrap_or(1.0);
    let new = old as f32 * factor;
    if factor > 0.0 && new < u32::MAX as f32 {
        Ok((factor, new as usize))
    } else {
        Err(format!("`{param}` is {factor}"))
    }
}

pub(super) fn upsample_nearest_neighbor(o: &mut Operands<'_>) -> Result<Value, String> {
    let mut x = o.take("x")?;
    let axes = last_two(&x)?;
    // The last axis first: less is copied.
    for (axis, param) in axes.into_iter().zip(FACTORS).rev() {
        let old = x.shape[axis];
        let (factor, new) = scaled(o, param, old)?;
        let step = 1.0 / factor;
        let taps = nearest_taps(old, new, |i| (i as f32 * step) as usize);
        x = sample(o, x, axis, &taps)?;
    }
    Ok(x)
}

pub(super) fn upsample_bilinear(o: &mut Operands<'_>) -> Result<Value, String> {
    let mut x = o.take("x")?;
    let align = o.flag("align_corners", true)?;
    let half_pixel = o.flag("half_pixel_centers", !align)?;
    let grid = match (align, half_pixel) {
        (true, _) => Grid::AlignCorners,
        (false, true) => Grid::UnalignCorners,
        (false, false) => Grid::Default,
    };
    let axes = last_two(&x)?;
    for (axis, param) in axes.into_iter().zip(FACTORS) {
        let old = x.shape[axis];
        let (_, new) = scaled(o, param, old)?;
        x = sample(o, x, axis, &linear_taps(grid, old, new))?;
    }
    Ok(x)
}

/// Sizes of the last two axes.
fn targets(o: &Operands<'_>) -> Result<[usize; 2], String> {
    let size = |param: &str| {
        let n = o.optional_int(param)?.unwrap_or(1);
        let positive = usize::try_from(n).ok().filter(|&n| n > 0);
        positive.ok_or_else(|| format!("`{param}` is {n}"))
    };
    Ok([size("target_size_height")?, size("target_size_width")?])
}

pub(super) fn nearest_neighbor(o: &mut Operands<'_>) -> Result<Value, String> {
    let mut x = o.take("x")?;
    let axes = last_two(&x)?;
    for (axis, new) in axes.into_iter().zip(targets(o)?) {
        let old = x.shape[axis];
        let taps = nearest_taps(old, new, |i| Grid::Default.nearest(i, old, new));
        x = sample(o, x, axis, &taps)?;
    }
    Ok(x)
}

pub(super) fn bilinear(o: &mut Operands<'_>) -> Result<Value, String> {
    let mut x = o.take("x")?;
    let grid = Grid::of(o.optional_text("sampling_mode")?.unwrap_or("DEFAULT"))?;
    let axes = last_two(&x)?;
    for (axis, new) in axes.into_iter().zip(targets(o)?) {
        let taps = linear_taps(grid, x.shape[axis], new);
        x = sample(o, x, axis, &taps)?;
    }
    Ok(x)
}

/// The last `resized_dims` axes take the last sizes of `shape`; 0 keeps a size.
pub(super) fn resize(o: &mut Operands<'_>) -> Result<Value, String> {
    let x = o.take("x")?;
    let grid = Grid::of(o.optional_text("sampling_mode")?.unwrap_or("DEFAULT"))?;
    let linear = match o.optional_text("interpolation_mode")?.unwrap_or("LINEAR") {
        "LINEAR" => true,
        "NEAREST_NEIGHBOR" => false,
        other => {
            return Err(format!(
                "`interpolation_mode` is `{}`",
                other.escape_debug()
            ));
        }
    };
    let sizes = o.sizes("shape")?;
    let resized = o
        .optional_int("resized_dims")?
        .and_then(|n| usize::try_from(n).ok());
    let resized = resized.filter(|&n| n <= sizes.len() && n <= x.rank());
    let resized = resized.ok_or("`resized_dims` is more than there are axes or sizes")?;
    if x.len() == 0 {
        return Err(format!("`x` {:?} is empty", x.shape));
    }
    // Integers are interpolated as numbers and rounded down.
    let is_integer = matches!(*x.data, Data::I32(_));
    let mut y = match &*x.data {
        Data::I32(v) => Value::f32(x.shape.clone(), v.iter().map(|&n| n as f32).collect()),
        _ => x,
    };
    let first = y.rank() - resized;
    for (i, &new) in sizes[sizes.len() - resized..].iter().enumerate() {
        let (axis, old) = (first + i, y.shape[first + i]);
        let new = if new == 0 { old } else { new };
        let taps = if linear {
            linear_taps(grid, old, new)
        } else {
            nearest_taps(old, new, |i| grid.nearest(i, old, new))
        };
        y = sample(o, y, axis, &taps)?;
    }
    if is_integer {
        let out = y.floats()?.iter().map(|&x| x.floor() as i32).collect();
        return Ok(Value::i32(y.shape.clone(), out));
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_near, float, floats, int, ints, list, run, text, truth};
    use super::*;
    use mil::ops::Op;

    fn line() -> (&'static str, Value) {
        ("x", floats(&[1, 1, 2], &[0.0, 1.0]))
    }

    /// The examples in coremltools' documentation.
    #[test]
    fn lines_in_every_mode() {
        let modes: &[(&str, usize, &[f32])] = &[
            ("UNALIGN_CORNERS", 5, &[0.0, 0.1, 0.5, 0.9, 1.0]),
            ("STRICT_ALIGN_CORNERS", 5, &[0.0, 0.25, 0.5, 0.75, 1.0]),
            ("ALIGN_CORNERS", 5, &[0.0, 0.25, 0.5, 0.75, 1.0]),
            ("DEFAULT", 5, &[0.0, 0.4, 0.8, 1.0, 1.0]),
            ("OFFSET_CORNERS", 5, &[0.1, 0.3, 0.5, 0.7, 0.9]),
            ("STRICT_ALIGN_CORNERS", 1, &[0.0]),
            ("ALIGN_CORNERS", 1, &[0.5]),
        ];
        for (mode, len, expected) in modes {
            let expected = floats(&[1, 1, *len], expected);
            let width = ("target_size_width", int(*len as i32));
            let found = run(
                Op::ResizeBilinear,
                &[line(), width, ("sampling_mode", text(mode))],
            );
            assert_near(&found, &expected, 1e-6);
            let found = run(
                Op::Resize,
                &[
                    line(),
                    ("shape", list(&[*len as i32])),
                    ("resized_dims", int(1)),
                    ("sampling_mode", text(mode)),
                ],
            );
            assert_near(&found, &expected, 1e-6);
        }
    }

    #[test]
    fn upsampled() {
        let x = || ("x", floats(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]));
        let factors = || {
            [
                ("scale_factor_height", float(2.0)),
                ("scale_factor_width", float(1.5)),
            ]
        };
        let [h, w] = factors();
        let found = run(Op::UpsampleNearestNeighbor, &[x(), h, w]);
        let expected = [1., 1., 2., 1., 1., 2., 3., 3., 4., 3., 3., 4.];
        assert_eq!(found, floats(&[1, 1, 4, 3], &expected));
        let integer = ("scale_factor_width", int(2));
        let found = run(Op::UpsampleNearestNeighbor, &[x(), integer.clone()]);
        assert_eq!(
            found,
            floats(&[1, 1, 2, 4], &[1., 1., 2., 2., 3., 3., 4., 4.])
        );
        let corners = run(Op::UpsampleBilinear, &[x(), integer.clone()]);
        let third = 1.0 / 3.0;
        let expected = [
            1.0,
            1.0 + third,
            2.0 - third,
            2.0,
            3.0,
            3.0 + third,
            4.0 - third,
            4.0,
        ];
        assert_near(&corners, &floats(&[1, 1, 2, 4], &expected), 1e-6);
        let centers = run(
            Op::UpsampleBilinear,
            &[x(), integer.clone(), ("align_corners", truth(false))],
        );
        assert_near(
            &centers,
            &floats(&[1, 1, 2, 4], &[1.0, 1.25, 1.75, 2.0, 3.0, 3.25, 3.75, 4.0]),
            1e-6,
        );
        let plain = [
            x(),
            integer,
            ("align_corners", truth(false)),
            ("half_pixel_centers", truth(false)),
        ];
        let expected = [1.0, 1.5, 2.0, 2.0, 3.0, 3.5, 4.0, 4.0];
        assert_near(
            &run(Op::UpsampleBilinear, &plain),
            &floats(&[1, 1, 2, 4], &expected),
            1e-6,
        );
    }

    #[test]
    fn nearest_positions() {
        let x = || ("x", ints(&[1, 4], &[1, 2, 3, 4]));
        let resize = |len, mode| {
            run(
                Op::Resize,
                &[
                    x(),
                    ("shape", list(&[0, len])),
                    ("resized_dims", int(2)),
                    ("interpolation_mode", text("NEAREST_NEIGHBOR")),
                    ("sampling_mode", text(mode)),
                ],
            )
        };
        assert_eq!(resize(6, "DEFAULT"), ints(&[1, 6], &[1, 1, 2, 3, 3, 4]));
        assert_eq!(resize(2, "DEFAULT"), ints(&[1, 2], &[1, 3]));
        // torch's "nearest-exact".
        assert_eq!(resize(2, "UNALIGN_CORNERS"), ints(&[1, 2], &[2, 4]));
        let target = [
            ("target_size_height", int(1)),
            ("target_size_width", int(6)),
        ];
        let [h, w] = target;
        let x = ("x", floats(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]));
        let found = run(Op::ResizeNearestNeighbor, &[x, h, w]);
        assert_eq!(found, floats(&[1, 1, 6], &[1.0, 1.0, 2.0, 3.0, 3.0, 4.0]));
    }
}
