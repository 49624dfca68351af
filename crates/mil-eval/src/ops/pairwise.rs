//! Operations on pairs of elements, broadcast as numpy broadcasts.

use rayon::prelude::*;

use super::elementwise::broadcast as repeated;
use crate::layout::{BLOCK, broadcast, broadcast_strides, checked_len};
use crate::math::vectorized;
use crate::operands::Operands;
use crate::value::{Data, Value};

/// `f` of floats or `g` of integers, written over an operand where nothing else uses it and it has the result's shape.
pub(super) fn number(
    o: &mut Operands<'_>,
    f: impl Fn(f32, f32) -> f32 + Sync + Send,
    g: impl Fn(i32, i32) -> i32 + Sync + Send,
) -> Result<Value, String> {
    let (x, y) = (o.take("x")?, o.take("y")?);
    let shape = broadcast(&x.shape, &y.shape)?;
    if let (Data::I32(a), Data::I32(b)) = (&*x.data, &*y.data) {
        let mut out = vec![0; checked_len(&shape)?];
        Pairs::new(&x.shape, &y.shape, &shape).combine(a, b, &mut out, g);
        return Ok(Value::i32(shape, out));
    }
    let buffers = o.machine.buffers;
    let (x, y) = if x.shape == shape {
        match x.try_owned() {
            Ok((_, mut out)) => {
                let pairs = Pairs::new(&y.shape, &y.shape, &shape);
                pairs.update(&mut out, y.floats()?, &f);
                y.recycle(buffers);
                return Ok(Value::f32(shape, out));
            }
            Err(x) => (x, y),
        }
    } else {
        (x, y)
    };
    let y = if y.shape == shape {
        match y.try_owned() {
            Ok((_, mut out)) => {
                let pairs = Pairs::new(&x.shape, &x.shape, &shape);
                pairs.update(&mut out, x.floats()?, |y, x| f(x, y));
                return Ok(Value::f32(shape, out));
            }
            Err(y) => y,
        }
    } else {
        y
    };
    let mut out = buffers.floats(checked_len(&shape)?);
    Pairs::new(&x.shape, &y.shape, &shape).combine(x.floats()?, y.floats()?, &mut out, f);
    Ok(Value::f32(shape, out))
}

/// A truth value for each pair.
pub(super) fn compare(
    o: &mut Operands<'_>,
    f: impl Fn(f32, f32) -> bool + Sync + Send,
    g: impl Fn(i32, i32) -> bool + Sync + Send,
) -> Result<Value, String> {
    let (x, y) = (o.take("x")?, o.take("y")?);
    let shape = broadcast(&x.shape, &y.shape)?;
    let mut out = vec![false; checked_len(&shape)?];
    let pairs = Pairs::new(&x.shape, &y.shape, &shape);
    if let (Data::I32(a), Data::I32(b)) = (&*x.data, &*y.data) {
        pairs.combine(a, b, &mut out, g);
    } else {
        pairs.combine(x.floats()?, y.floats()?, &mut out, f);
    }
    Ok(Value::bool(shape, out))
}

pub(super) fn logical(
    o: &mut Operands<'_>,
    f: impl Fn(bool, bool) -> bool + Sync + Send,
) -> Result<Value, String> {
    let (x, y) = (o.take("x")?, o.take("y")?);
    let shape = broadcast(&x.shape, &y.shape)?;
    let mut out = vec![false; checked_len(&shape)?];
    Pairs::new(&x.shape, &y.shape, &shape).combine(x.truths()?, y.truths()?, &mut out, f);
    Ok(Value::bool(shape, out))
}

pub(super) fn select(o: &mut Operands<'_>) -> Result<Value, String> {
    let (cond, a, b) = (o.take("cond")?, o.take("a")?, o.take("b")?);
    let shape = broadcast(&broadcast(&a.shape, &b.shape)?, &cond.shape)?;
    checked_len(&shape)?;
    let [cond, a, b] = [&cond, &a, &b].map(|v| repeated(v, &shape));
    let (cond, a, b) = (cond?, a?, b?);
    let choice = |(i, &c): (usize, &bool)| (i, c);
    let chosen = cond.truths()?.iter().enumerate().map(choice);
    let data = match (&*a.data, &*b.data) {
        (Data::F32(a), Data::F32(b)) => {
            Data::F32(chosen.map(|(i, c)| if c { a[i] } else { b[i] }).collect())
        }
        (Data::I32(a), Data::I32(b)) => {
            Data::I32(chosen.map(|(i, c)| if c { a[i] } else { b[i] }).collect())
        }
        (Data::Bool(a), Data::Bool(b)) => {
            Data::Bool(chosen.map(|(i, c)| if c { a[i] } else { b[i] }).collect())
        }
        (a, b) => return Err(format!("`a` holds {}, `b` {}", a.kind(), b.kind())),
    };
    Ok(Value::new(shape, data))
}

/// Two operands seen in the shape of the result, with as few axes as possible.
struct Pairs {
    /// Size, stride in the first operand, stride in the second.
    outer: Vec<(usize, usize, usize)>,
    inner: (usize, usize, usize),
}

impl Pairs {
    fn new(x: &[usize], y: &[usize], shape: &[usize]) -> Pairs {
        let strides = broadcast_strides(x, shape)
            .into_iter()
            .zip(broadcast_strides(y, shape));
        let mut axes: Vec<(usize, usize, usize)> = Vec::new();
        for (&n, (a, b)) in shape.iter().zip(strides) {
            let (a, b) = (a.unsigned_abs(), b.unsigned_abs());
            match axes.last_mut() {
                _ if n == 1 => {}
                Some(last) if last.1 == a * n && last.2 == b * n => *last = (last.0 * n, a, b),
                _ => axes.push((n, a, b)),
            }
        }
        let inner = axes.pop().unwrap_or((1, 1, 1));
        Pairs { outer: axes, inner }
    }

    /// Calls `f` for stretches of `len` elements of the result from `first` on: their range, and where the operands begin.
    fn stretches(
        &self,
        first: usize,
        len: usize,
        mut f: impl FnMut(std::ops::Range<usize>, usize, usize),
    ) {
        let (n, a_step, b_step) = self.inner;
        let mut at = 0;
        while at < len {
            let (mut row, column) = ((first + at) / n, (first + at) % n);
            let (mut a, mut b) = (column * a_step, column * b_step);
            for &(n, a_stride, b_stride) in self.outer.iter().rev() {
                a += row % n * a_stride;
                b += row % n * b_stride;
                row /= n;
            }
            let end = len.min(at + n - column);
            f(at..end, a, b);
            at = end;
        }
    }

    fn combine<T: Copy + Sync, U: Send>(
        &self,
        xs: &[T],
        ys: &[T],
        out: &mut [U],
        f: impl Fn(T, T) -> U + Sync,
    ) {
        let (_, a_step, b_step) = self.inner;
        out.par_chunks_mut(BLOCK)
            .enumerate()
            .for_each(|(i, chunk)| {
                vectorized(
                    #[inline(always)]
                    || {
                        self.stretches(i * BLOCK, chunk.len(), |range, a, b| {
                            let out = &mut chunk[range];
                            match (a_step, b_step) {
                                (0, 0) => {
                                    for out in out {
                                        *out = f(xs[a], ys[b]);
                                    }
                                }
                                (0, _) => {
                                    let x = xs[a];
                                    for (out, y) in out.iter_mut().zip(&ys[b..]) {
                                        *out = f(x, *y);
                                    }
                                }
                                (_, 0) => {
                                    let y = ys[b];
                                    for (out, x) in out.iter_mut().zip(&xs[a..]) {
                                        *out = f(*x, y);
                                    }
                                }
                                _ => {
                                    for ((out, x), y) in out.iter_mut().zip(&xs[a..]).zip(&ys[b..])
                                    {
                                        *out = f(*x, *y);
                                    }
                                }
                            }
                        });
                    },
                );
            });
    }

    /// As [`Pairs::combine`], with the result in place of an operand of its shape.
    fn update(&self, out: &mut [f32], ys: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
        let (_, step, _) = self.inner;
        out.par_chunks_mut(BLOCK)
            .enumerate()
            .for_each(|(i, chunk)| {
                vectorized(
                    #[inline(always)]
                    || {
                        self.stretches(i * BLOCK, chunk.len(), |range, at, _| {
                            let out = &mut chunk[range];
                            if step == 0 {
                                let y = ys[at];
                                for x in out {
                                    *x = f(*x, y);
                                }
                            } else {
                                for (x, y) in out.iter_mut().zip(&ys[at..]) {
                                    *x = f(*x, *y);
                                }
                            }
                        });
                    },
                );
            });
    }
}

/// As numpy: NaN wins.
#[inline(always)]
pub(super) fn larger(x: f32, y: f32) -> f32 {
    if x > y || x.is_nan() { x } else { y }
}

#[inline(always)]
pub(super) fn smaller(x: f32, y: f32) -> f32 {
    if x < y || x.is_nan() { x } else { y }
}

/// Squares and roots, which models are full of, exactly.
pub(super) fn power(x: f32, y: f32) -> f32 {
    if y == 2.0 {
        x * x
    } else if y == 0.5 {
        x.sqrt()
    } else {
        x.powf(y)
    }
}

/// With the sign of the divisor.
pub(super) fn modulo(x: f32, y: f32) -> f32 {
    let rest = x % y;
    if rest != 0.0 && (rest < 0.0) != (y < 0.0) {
        rest + y
    } else {
        rest
    }
}

/// Towards zero; by 0 it is 0.
pub(super) fn divide_integers(x: i32, y: i32) -> i32 {
    if y == 0 { 0 } else { x.wrapping_div(y) }
}

/// Downwards; by 0 it is 0.
pub(super) fn floor_div(x: i32, y: i32) -> i32 {
    let quotient = divide_integers(x, y);
    let rest = x.wrapping_sub(quotient.wrapping_mul(y));
    if y != 0 && rest != 0 && (rest < 0) != (y < 0) {
        quotient.wrapping_sub(1)
    } else {
        quotient
    }
}

/// With the sign of the divisor; by 0 it is 0.
pub(super) fn modulo_of_integers(x: i32, y: i32) -> i32 {
    if y == 0 {
        0
    } else {
        x.wrapping_sub(floor_div(x, y).wrapping_mul(y))
    }
}

/// Wrapping around; with a negative exponent the reciprocal's whole part.
pub(super) fn power_of_integers(x: i32, y: i32) -> i32 {
    match u32::try_from(y) {
        Ok(y) => x.wrapping_pow(y),
        Err(_) if x == 1 => 1,
        Err(_) if x == -1 => 1 - 2 * (y & 1),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        Call, assert_near, floats, ints, list, noise, run, truths, try_run,
    };
    use super::*;
    use crate::layout::strides;
    use mil::ops::Op;

    #[test]
    fn any_shapes_that_broadcast() {
        for (a, b) in [
            (&[2, 3, 4][..], &[2, 3, 4][..]),
            (&[2, 3, 4], &[]),
            (&[], &[2, 3, 4]),
            (&[2, 3, 4], &[3, 1]),
            (&[3, 1], &[2, 3, 4]),
            (&[2, 1, 4], &[1, 3, 1]),
            (&[1, 3, 1, 5], &[2, 1, 4, 1]),
            (&[1, 30, 1, 1], &[2, 30, 40, 41]),
            (&[2, 1, 1, 700], &[2, 50, 1, 700]),
            (&[0, 3], &[1, 3]),
            (&[], &[]),
        ] {
            let (x, y) = (noise(a, 1), noise(b, 2));
            let shape = broadcast(a, b).unwrap();
            let (to_x, to_y) = (broadcast_strides(a, &shape), broadcast_strides(b, &shape));
            let at = |i: usize, to: &[isize]| -> usize {
                let digits = strides(&shape);
                let part = |k: usize| i / digits[k] % shape[k] * to[k].unsigned_abs();
                (0..shape.len()).map(part).sum()
            };
            let len = shape.iter().product();
            let (xs, ys) = (x.floats().unwrap(), y.floats().unwrap());
            let expected = (0..len)
                .map(|i| xs[at(i, &to_x)] - ys[at(i, &to_y)])
                .collect();
            let expected = Value::f32(shape, expected);
            assert_eq!(
                run(Op::Sub, &[("x", x.clone()), ("y", y.clone())]),
                expected,
                "{a:?} {b:?}"
            );
            // Shared operands are left as they are.
            let found = Call::default().all(
                Op::Sub,
                &[
                    ("x", std::slice::from_ref(&x)),
                    ("y", std::slice::from_ref(&y)),
                ],
            );
            assert_eq!(found.unwrap(), [expected]);
        }
        assert!(try_run(Op::Add, &[("x", noise(&[2], 1)), ("y", noise(&[3], 1))]).is_err());
    }

    #[test]
    fn numbers_as_numpy_has_them() {
        let (x, y) = ([7.0, -7.0, 7.0, -7.5, 0.25], [2.0, 2.0, -2.0, -2.0, 2.0]);
        let check = |op, expected: [f32; 5]| {
            let found = run(op, &[("x", floats(&[5], &x)), ("y", floats(&[5], &y))]);
            assert_near(&found, &floats(&[5], &expected), 1e-6);
        };
        check(Op::Add, [9.0, -5.0, 5.0, -9.5, 2.25]);
        check(Op::Mul, [14.0, -14.0, -14.0, 15.0, 0.5]);
        check(Op::RealDiv, [3.5, -3.5, -3.5, 3.75, 0.125]);
        check(Op::FloorDiv, [3.0, -4.0, -4.0, 3.0, 0.0]);
        check(Op::Mod, [1.0, 1.0, -1.0, -1.5, 0.25]);
        check(Op::Maximum, [7.0, 2.0, 7.0, -2.0, 2.0]);
        check(Op::Minimum, [2.0, -7.0, -2.0, -7.5, 0.25]);
        check(Op::Pow, [49.0, 49.0, 1.0 / 49.0, 1.0 / 56.25, 0.0625]);
    }

    #[test]
    fn integers_as_numpy_has_them() {
        let (x, y) = (
            list(&[7, -7, 7, -7, 5, i32::MIN]),
            list(&[2, 2, -2, -2, 0, -1]),
        );
        let check = |op, expected: [i32; 6]| {
            assert_eq!(
                run(op, &[("x", x.clone()), ("y", y.clone())]),
                list(&expected),
                "{op:?}"
            );
        };
        check(Op::Sub, [5, -9, 9, -5, 5, i32::MIN + 1]);
        check(Op::FloorDiv, [3, -4, -4, 3, 0, i32::MIN]);
        check(Op::Mod, [1, 1, -1, -1, 0, 0]);
        check(Op::RealDiv, [3, -3, -3, 3, 0, i32::MIN]);
        check(Op::Pow, [49, 49, 0, 0, 1, 0]);
        check(Op::Maximum, [7, 2, 7, -2, 5, -1]);
    }

    #[test]
    fn comparisons_logic_and_choice() {
        let x = || floats(&[3], &[1.0, 2.0, 3.0]);
        let two = || floats(&[], &[2.0]);
        for (op, expected) in [
            (Op::Equal, [false, true, false]),
            (Op::NotEqual, [true, false, true]),
            (Op::Greater, [false, false, true]),
            (Op::GreaterEqual, [false, true, true]),
            (Op::Less, [true, false, false]),
            (Op::LessEqual, [true, true, false]),
        ] {
            assert_eq!(
                run(op, &[("x", x()), ("y", two())]),
                truths(&[3], &expected)
            );
            let integers = [("x", list(&[1, 2, 3])), ("y", ints(&[], &[2]))];
            assert_eq!(run(op, &integers), truths(&[3], &expected));
        }
        let a = || truths(&[2, 1], &[false, true]);
        let b = || truths(&[2], &[false, true]);
        for (op, expected) in [
            (Op::LogicalAnd, [false, false, false, true]),
            (Op::LogicalOr, [false, true, true, true]),
            (Op::LogicalXor, [false, true, true, false]),
        ] {
            assert_eq!(
                run(op, &[("x", a()), ("y", b())]),
                truths(&[2, 2], &expected)
            );
        }
        let chosen = run(Op::Select, &[("cond", a()), ("a", x()), ("b", two())]);
        assert_eq!(chosen, floats(&[2, 3], &[2.0, 2.0, 2.0, 1.0, 2.0, 3.0]));
    }
}
