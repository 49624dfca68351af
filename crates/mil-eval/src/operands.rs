//! What an operation gets: its operands by parameter, and what it computes with.

use std::collections::BTreeMap;

use mil::{DataType, Opset};

use crate::buffers::Buffers;
use crate::kernels::{Kernels, Matrix, Product};
use crate::layout;
use crate::value::{Data, Value};

/// What operations compute with.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'a> {
    pub(crate) kernels: &'a dyn Kernels,
    pub(crate) buffers: &'a Buffers,
}

impl Machine<'_> {
    /// [`Kernels::multiply`].
    pub(crate) fn multiply(
        self,
        rows: &Matrix<'_>,
        products: Vec<Product<'_>>,
        bias: Option<&[f32]>,
    ) {
        self.kernels.multiply(self.buffers, rows, products, bias);
    }
}

/// Operands of one operation by parameter.
pub(crate) struct Operands<'a> {
    pub(crate) machine: Machine<'a>,
    pub(crate) opset: Opset,
    /// Declared type of the first output.
    pub(crate) dtype: DataType,
    pub(crate) values: BTreeMap<&'a str, Vec<Value>>,
}

impl<'a> Operands<'a> {
    pub(crate) fn has(&self, param: &str) -> bool {
        self.values.get(param).is_some_and(|v| !v.is_empty())
    }

    /// The only operand of a parameter, if given; a stored weight as it is.
    pub(crate) fn take_stored(&mut self, param: &str) -> Result<Option<Value>, String> {
        let Some(list) = self.values.get_mut(param) else {
            return Ok(None);
        };
        match list.len() {
            0 | 1 => Ok(list.pop()),
            n => Err(format!("`{param}` has {n} operands, expected one")),
        }
    }

    /// The only operand of a parameter, if given.
    pub(crate) fn take_optional(&mut self, param: &str) -> Result<Option<Value>, String> {
        let value = self.take_stored(param)?;
        Ok(value.map(|v| v.widened(self.machine.buffers)))
    }

    /// The only operand of a parameter.
    pub(crate) fn take(&mut self, param: &str) -> Result<Value, String> {
        self.take_optional(param)?.ok_or_else(|| missing(param))
    }

    /// Every operand of a parameter.
    pub(crate) fn take_all(&mut self, param: &str) -> Vec<Value> {
        let buffers = self.machine.buffers;
        let list = self.values.remove(param).unwrap_or_default();
        list.into_iter().map(|v| v.widened(buffers)).collect()
    }

    fn peek(&self, param: &str) -> Option<&Value> {
        self.values.get(param)?.first()
    }

    /// Integers, if given.
    pub(crate) fn optional_ints(&self, param: &str) -> Result<Option<Vec<i64>>, String> {
        let Some(value) = self.peek(param) else {
            return Ok(None);
        };
        let ints = value.integers().map_err(|e| format!("`{param}`: {e}"))?;
        Ok(Some(ints.iter().map(|&n| i64::from(n)).collect()))
    }

    /// Integers.
    pub(crate) fn ints(&self, param: &str) -> Result<Vec<i64>, String> {
        self.optional_ints(param)?.ok_or_else(|| missing(param))
    }

    /// One integer, if given.
    pub(crate) fn optional_int(&self, param: &str) -> Result<Option<i64>, String> {
        match self.optional_ints(param)?.as_deref() {
            None => Ok(None),
            Some([n]) => Ok(Some(*n)),
            Some(v) => Err(format!(
                "`{param}` holds {} integers, expected one",
                v.len()
            )),
        }
    }

    /// Sizes, none of them negative.
    pub(crate) fn sizes(&self, param: &str) -> Result<Vec<usize>, String> {
        let size = |&n: &i64| usize::try_from(n).map_err(|_| format!("`{param}` holds {n}"));
        self.ints(param)?.iter().map(size).collect()
    }

    /// `len` sizes; where absent, each `default`.
    pub(crate) fn sizes_or(
        &self,
        param: &str,
        len: usize,
        default: usize,
    ) -> Result<Vec<usize>, String> {
        if !self.has(param) {
            return Ok(vec![default; len]);
        }
        let sizes = self.sizes(param)?;
        if sizes.len() != len {
            return Err(format!(
                "`{param}` holds {} integers, expected {len}",
                sizes.len()
            ));
        }
        Ok(sizes)
    }

    /// An axis counted from the front.
    pub(crate) fn axis(&self, param: &str, default: i64, rank: usize) -> Result<usize, String> {
        layout::axis(self.optional_int(param)?.unwrap_or(default), rank)
    }

    /// Axes counted from the front, in order, each once; all where absent.
    pub(crate) fn axes(&self, param: &str, rank: usize) -> Result<Vec<usize>, String> {
        let Some(axes) = self.optional_ints(param)? else {
            return Ok((0..rank).collect());
        };
        let mut axes = axes
            .iter()
            .map(|&a| layout::axis(a, rank))
            .collect::<Result<Vec<_>, _>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(axes)
    }

    /// A number, if given.
    pub(crate) fn optional_float(&self, param: &str) -> Result<Option<f32>, String> {
        let Some(value) = self.peek(param) else {
            return Ok(None);
        };
        let value = value.clone().widened(self.machine.buffers);
        match (&*value.data, value.len()) {
            (Data::F32(v), 1) => Ok(Some(v[0])),
            (Data::I32(v), 1) => Ok(Some(v[0] as f32)),
            _ => Err(format!("`{param}` is no single number")),
        }
    }

    /// A text, if given.
    pub(crate) fn optional_text(&self, param: &str) -> Result<Option<&str>, String> {
        let Some(value) = self.peek(param) else {
            return Ok(None);
        };
        match &*value.data {
            Data::Text(v) if v.len() == 1 => Ok(v.first().map(String::as_str)),
            _ => Err(format!("`{param}` is no single text")),
        }
    }

    /// Truth values, if given.
    pub(crate) fn optional_truths(&self, param: &str) -> Result<Option<&[bool]>, String> {
        self.peek(param).map(Value::truths).transpose()
    }

    /// A truth value; `default` where absent.
    pub(crate) fn flag(&self, param: &str, default: bool) -> Result<bool, String> {
        match self.optional_truths(param)? {
            None => Ok(default),
            Some([b]) => Ok(*b),
            Some(v) => Err(format!(
                "`{param}` holds {} truth values, expected one",
                v.len()
            )),
        }
    }
}

pub(crate) fn missing(param: &str) -> String {
    format!("`{param}` is missing")
}
