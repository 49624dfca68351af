//! Windows that slide over the axes after the second, each giving one number.

use rayon::prelude::*;

use super::convolution::Windows;
use crate::layout::checked_len;
use crate::operands::Operands;
use crate::value::Value;

pub(super) fn largest(o: &mut Operands<'_>) -> Result<Value, String> {
    pool(o, |window| {
        let most = window.values.iter().copied();
        most.fold(f32::NEG_INFINITY, super::pairwise::larger)
    })
}

pub(super) fn average(o: &mut Operands<'_>) -> Result<Value, String> {
    let exclude = o.flag("exclude_padding_from_average", false)?;
    pool(o, move |window| {
        let sum: f64 = window.values.iter().map(|&x| f64::from(x)).sum();
        let count = if exclude {
            window.values.len()
        } else {
            window.with_padding
        };
        (sum / count as f64) as f32
    })
}

/// What one window sees.
struct Window {
    values: Vec<f32>,
    /// Positions in it, those in the padding counted.
    with_padding: usize,
}

fn pool(o: &mut Operands<'_>, f: impl Fn(&Window) -> f32 + Sync) -> Result<Value, String> {
    let x = o.take("x")?;
    let spatial = x.rank().checked_sub(2).filter(|n| (1..=3).contains(n));
    let spatial = spatial.ok_or_else(|| format!("`x` {:?}, expected rank 3 to 5", x.shape))?;
    let size = &x.shape[2..];
    let kernel = o.sizes_or("kernel_sizes", spatial, 1)?;
    let strides = o.sizes_or("strides", spatial, 1)?;
    let ceil = o.flag("ceil_mode", false)?;
    let windows = Windows::new(o, size, &kernel, &strides, ceil)?;
    let mut shape = x.shape[..2].to_vec();
    shape.extend(&windows.positions);
    let mut out = vec![0.0; checked_len(&shape)?];
    let planes = x.floats()?;
    let (plane_in, plane_out): (usize, usize) =
        (size.iter().product(), windows.positions.iter().product());
    out.par_chunks_mut(plane_out.max(1))
        .enumerate()
        .for_each(|(i, out)| {
            let plane = &planes[i * plane_in..][..plane_in];
            for (p, x) in out.iter_mut().enumerate() {
                *x = f(&see(plane, size, &kernel, &strides, &windows, p));
            }
        });
    Ok(Value::f32(shape, out))
}

fn see(
    plane: &[f32],
    size: &[usize],
    kernel: &[usize],
    strides: &[usize],
    windows: &Windows,
    mut position: usize,
) -> Window {
    let mut places = vec![0];
    let mut with_padding = 1;
    let mut apart = 1;
    for i in (0..size.len()).rev() {
        let (before, after) = windows.pads[i];
        let first = position % windows.positions[i] * strides[i];
        position /= windows.positions[i];
        // A window may hang over even the padding.
        let last = (first + kernel[i]).min(size[i] + before + after);
        with_padding *= last.saturating_sub(first);
        let inside = first.max(before)..last.min(size[i] + before);
        let along = |p: &usize| {
            let p = *p;
            inside.clone().map(move |n| p + (n - before) * apart)
        };
        places = places.iter().flat_map(along).collect();
        apart *= size[i];
    }
    Window {
        values: places.into_iter().map(|p| plane[p]).collect(),
        with_padding,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_near, floats, list, run, text, truth};
    use super::*;
    use mil::ops::Op;

    fn counting(shape: &[usize]) -> Value {
        let n = shape.iter().product::<usize>();
        floats(shape, &(0..n).map(|i| i as f32).collect::<Vec<_>>())
    }

    /// Numbers from torch 2.7, `max_pool2d` and `avg_pool2d`.
    #[test]
    fn windows_over_a_plane() {
        let base = || {
            vec![
                ("x", counting(&[1, 1, 3, 4])),
                ("kernel_sizes", list(&[2, 2])),
                ("strides", list(&[2, 2])),
            ]
        };
        let with = |more: Vec<(&'static str, Value)>| [base(), more].concat();
        let valid = with(vec![("pad_type", text("valid"))]);
        assert_eq!(run(Op::MaxPool, &valid), floats(&[1, 1, 1, 2], &[5.0, 7.0]));
        assert_eq!(run(Op::AvgPool, &valid), floats(&[1, 1, 1, 2], &[2.5, 4.5]));
        let ceil = with(vec![
            ("pad_type", text("valid")),
            ("ceil_mode", truth(true)),
        ]);
        assert_eq!(
            run(Op::MaxPool, &ceil),
            floats(&[1, 1, 2, 2], &[5.0, 7.0, 9.0, 11.0])
        );
        assert_eq!(
            run(Op::AvgPool, &ceil),
            floats(&[1, 1, 2, 2], &[2.5, 4.5, 8.5, 10.5])
        );
        let padded = |exclude| {
            with(vec![
                ("pad_type", text("custom")),
                ("pad", list(&[1, 1, 1, 1])),
                ("exclude_padding_from_average", truth(exclude)),
            ])
        };
        let included = [0.0, 0.75, 0.75, 3.0, 7.5, 4.5];
        assert_near(
            &run(Op::AvgPool, &padded(false)),
            &floats(&[1, 1, 2, 3], &included),
            1e-6,
        );
        let excluded = [0.0, 1.5, 3.0, 6.0, 7.5, 9.0];
        assert_near(
            &run(Op::AvgPool, &padded(true)),
            &floats(&[1, 1, 2, 3], &excluded),
            1e-6,
        );
    }

    #[test]
    fn windows_over_lines_and_volumes() {
        let line = [
            ("x", counting(&[1, 2, 5])),
            ("kernel_sizes", list(&[3])),
            ("pad_type", text("same")),
        ];
        assert_eq!(
            run(Op::MaxPool, &line),
            floats(&[1, 2, 5], &[1., 2., 3., 4., 4., 6., 7., 8., 9., 9.])
        );
        let volume = [
            ("x", counting(&[1, 1, 2, 2, 2])),
            ("kernel_sizes", list(&[2, 2, 2])),
            ("pad_type", text("valid")),
        ];
        assert_eq!(run(Op::AvgPool, &volume), floats(&[1, 1, 1, 1, 1], &[3.5]));
    }
}
