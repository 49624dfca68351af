//! Small tensors of numbers that a program computes shapes with.

use mil::ops::Op;
use mil::{Constant, Data, DataType, TensorType, ValueType};

/// Most elements of a tensor that is followed: shapes, sizes and indices have a few.
pub(super) const MAX_ELEMENTS: u64 = 64;

/// A tensor whose numbers are known for one choice of the inputs' shapes. Every number that a shape is made of is held exactly.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub dtype: DataType,
    pub shape: Vec<u64>,
    pub numbers: Vec<f64>,
}

impl Known {
    /// The numbers of a constant that is in the program itself.
    pub fn of(constant: &Constant) -> Option<Known> {
        let tensor = constant.ty.as_tensor()?;
        if !matches!(constant.data, Data::Tensor(_)) || tensor.num_elements()? > MAX_ELEMENTS {
            return None;
        }
        let ints = || Some(constant.as_ints()?.into_iter().map(|n| n as f64).collect());
        let bools = || {
            let bools = constant.as_bools()?.iter();
            Some(bools.map(|&b| f64::from(u8::from(b))).collect())
        };
        let numbers: Option<Vec<f64>> = constant.as_floats().or_else(ints).or_else(bools);
        Some(Known {
            dtype: tensor.dtype,
            shape: tensor.shape()?,
            numbers: numbers?,
        })
    }

    /// The sizes of a tensor, as `shape` makes them.
    pub fn sizes(shape: &[u64], dtype: DataType) -> Known {
        Known {
            dtype,
            shape: vec![shape.len() as u64],
            numbers: shape.iter().map(|&n| n as f64).collect(),
        }
    }

    /// As the constant that shape inference takes.
    pub fn constant(&self) -> Option<Constant> {
        let ints = || self.numbers.iter().map(|&n| whole(n)).collect();
        let ints: Option<Vec<i32>> = ints();
        let ty = ValueType::Tensor(TensorType::new(DataType::Int32, &self.shape));
        let ints = Constant {
            ty,
            ..Constant::ints(&ints?)
        };
        (!self.dtype.is_float() && self.dtype != DataType::Bool).then_some(ints)
    }

    fn ints(&self) -> Option<Vec<i64>> {
        self.numbers
            .iter()
            .map(|&n| whole(n).map(i64::from))
            .collect()
    }

    fn typed(numbers: Vec<f64>, ty: &TensorType) -> Option<Known> {
        let known = Known {
            dtype: ty.dtype,
            shape: ty.shape()?,
            numbers,
        };
        (ty.num_elements()? == known.numbers.len() as u64).then_some(known)
    }
}

fn whole(n: f64) -> Option<i32> {
    let whole = n as i32;
    (f64::from(whole) == n).then_some(whole)
}

/// What an operation makes of known operands, where it is one that shapes are computed with. `operand` gives what a parameter
/// has, `ty` is the type of the result.
pub(super) fn evaluate(
    op: Op,
    operand: &dyn Fn(&str) -> Vec<Option<Known>>,
    ty: &TensorType,
) -> Option<Known> {
    let one = |name: &str| operand(name).into_iter().next().flatten();
    let each = |f: &dyn Fn(f64) -> f64| {
        let numbers = one("x")?.numbers.into_iter().map(f).collect();
        Known::typed(numbers, ty)
    };
    let pair = |f: &dyn Fn(f64, f64) -> f64| {
        let (x, y) = (one("x")?.numbers, one("y")?.numbers);
        let at = |list: &[f64], i: usize| match list {
            [n] => Some(*n),
            list => list.get(i).copied(),
        };
        let len = x.len().max(y.len());
        let numbers = (0..len).map(|i| Some(f(at(&x, i)?, at(&y, i)?)));
        Known::typed(numbers.collect::<Option<_>>()?, ty)
    };
    match op {
        Op::Identity | Op::Reshape | Op::Squeeze | Op::ExpandDims => each(&|n| n),
        Op::Cast if !ty.dtype.is_float() => each(&f64::trunc),
        Op::Cast => each(&|n| n),
        Op::Floor => each(&f64::floor),
        Op::Ceil => each(&f64::ceil),
        Op::Add => pair(&|a, b| a + b),
        Op::Sub => pair(&|a, b| a - b),
        Op::Mul => pair(&|a, b| a * b),
        Op::FloorDiv => pair(&|a, b| (a / b).floor()),
        Op::RealDiv if !ty.dtype.is_float() => pair(&|a, b| (a / b).floor()),
        Op::RealDiv => pair(&|a, b| a / b),
        Op::Mod => pair(&f64::rem_euclid),
        Op::Maximum => pair(&f64::max),
        Op::Minimum => pair(&f64::min),
        Op::GreaterEqual => pair(&|a, b| f64::from(u8::from(a >= b))),
        Op::Less => pair(&|a, b| f64::from(u8::from(a < b))),
        Op::Concat | Op::Stack => concat(operand("values"), ty),
        Op::Gather => gather(one("x")?, one("indices")?, ty),
        Op::Select => select(one("cond")?, one("a")?, one("b")?, ty),
        Op::SliceByIndex => slice(operand, ty),
        Op::ReduceProd => Known::typed(vec![one("x")?.numbers.iter().product()], ty),
        _ => None,
    }
}

fn concat(values: Vec<Option<Known>>, ty: &TensorType) -> Option<Known> {
    let parts = values.into_iter().collect::<Option<Vec<_>>>()?;
    let is_row = parts.iter().all(|p| p.shape.len() <= 1);
    let numbers = parts.into_iter().flat_map(|p| p.numbers).collect();
    Known::typed(numbers, ty).filter(|_| is_row)
}

fn gather(x: Known, indices: Known, ty: &TensorType) -> Option<Known> {
    let len = i64::try_from(x.numbers.len()).ok()?;
    let pick = |&i: &i64| {
        let at = if i < 0 { i + len } else { i };
        x.numbers.get(usize::try_from(at).ok()?).copied()
    };
    let numbers = indices.ints()?.iter().map(pick).collect::<Option<_>>()?;
    Known::typed(numbers, ty).filter(|_| x.shape.len() == 1)
}

fn select(cond: Known, a: Known, b: Known, ty: &TensorType) -> Option<Known> {
    let same = cond.numbers.len() == a.numbers.len() && a.numbers.len() == b.numbers.len();
    let pairs = a.numbers.iter().zip(&b.numbers).zip(&cond.numbers);
    let numbers = pairs.map(|((&a, &b), &c)| if c != 0.0 { a } else { b });
    same.then(|| Known::typed(numbers.collect(), ty)).flatten()
}

/// Of a row: `begin`, `end` and `stride` of one number each, masks that leave an end open.
fn slice(operand: &dyn Fn(&str) -> Vec<Option<Known>>, ty: &TensorType) -> Option<Known> {
    let first = |name: &str, default: f64| match operand(name).into_iter().next() {
        Some(known) => known?.numbers.first().copied(),
        None => Some(default),
    };
    let x = operand("x").into_iter().next().flatten()?;
    if x.shape.len() != 1 || first("stride", 1.0)? != 1.0 {
        return None;
    }
    let len = x.numbers.len() as f64;
    let at = |n: f64| if n < 0.0 { n + len } else { n }.clamp(0.0, len) as usize;
    let squeezed = first("squeeze_mask", 0.0)? != 0.0;
    let begin = match first("begin_mask", 0.0)? {
        0.0 => at(first("begin", 0.0)?),
        _ => 0,
    };
    let end = match first("end_mask", 0.0)? {
        _ if squeezed => begin.saturating_add(1),
        0.0 => at(first("end", len)?),
        _ => x.numbers.len(),
    };
    Known::typed(x.numbers.get(begin..end)?.to_vec(), ty)
}
