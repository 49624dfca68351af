//! Watching a program run, operation by operation.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use mil::DataType;
use rayon::prelude::*;

use crate::layout::BLOCK;
use crate::math::vectorized;
use crate::value::{Data, Value};

/// Sees what every operation makes, in program order; constants and decompressed weights are not shown.
///
/// Operations of nested blocks are seen as often as they are computed, before the `cond` or `while_loop` that they stand in.
pub trait Observer {
    /// An operation was computed.
    fn computed(&self, step: &Step<'_>);
}

/// One operation, computed.
#[derive(Debug)]
pub struct Step<'a> {
    /// The function it stands in.
    pub function: &'a str,
    /// Its type name.
    pub kind: &'a str,
    /// How many nested blocks it stands in.
    pub depth: usize,
    /// What it made.
    pub outputs: Vec<Output<'a>>,
    /// How long it took, weights included; of control flow without what stands in its blocks.
    pub elapsed: Duration,
    /// How much of that went into reading weights.
    pub reading: Duration,
}

/// What an operation made.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// The value's name.
    pub name: &'a str,
    /// The type that the program gives it, not the one it is held in.
    pub dtype: DataType,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// Elements in row-major order.
    pub elements: Elements<'a>,
    /// How many of them are infinite or no numbers.
    pub non_finite: u64,
}

/// Elements of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Elements<'a> {
    /// Of every floating-point type.
    F32(&'a [f32]),
    /// Of every integer type.
    I32(&'a [i32]),
    /// Truth values.
    Bool(&'a [bool]),
}

impl<'a> Elements<'a> {
    pub(crate) fn of(value: &'a Value) -> Elements<'a> {
        match &*value.data {
            Data::F32(v) => Elements::F32(v),
            Data::I32(v) => Elements::I32(v),
            Data::Bool(v) => Elements::Bool(v),
            // Neither is what an operation makes.
            Data::Half(_) | Data::Text(_) => Elements::F32(&[]),
        }
    }
}

/// Counts and times operations by type, and finds the first that made numbers which are not finite.
#[derive(Debug, Default)]
pub struct Statistics {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tallies: BTreeMap<String, Tally>,
    non_finite: Option<NonFinite>,
}

/// Operations of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were computed.
    pub count: u64,
    /// How long they took, weights included.
    pub elapsed: Duration,
    /// How much of that went into reading weights.
    pub reading: Duration,
}

/// An operation that made numbers which are not finite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// The function it stands in.
    pub function: String,
    /// Its type name.
    pub kind: String,
    /// The value's name.
    pub name: String,
    /// How many of the numbers.
    pub count: u64,
}

impl Statistics {
    /// What was counted, by type name.
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        self.lock().tallies.clone()
    }

    /// The first operation that made numbers which are not finite.
    pub fn first_non_finite(&self) -> Option<NonFinite> {
        self.lock().non_finite.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Observer for Statistics {
    fn computed(&self, step: &Step<'_>) {
        let mut state = self.lock();
        let tally = state.tallies.entry(step.kind.to_owned()).or_default();
        tally.count += 1;
        tally.elapsed += step.elapsed;
        tally.reading += step.reading;
        if state.non_finite.is_none() {
            let bad = step.outputs.iter().find(|o| o.non_finite > 0);
            state.non_finite = bad.map(|output| NonFinite {
                function: step.function.to_owned(),
                kind: step.kind.to_owned(),
                name: output.name.to_owned(),
                count: output.non_finite,
            });
        }
    }
}

/// How many elements are infinite or no numbers.
pub(crate) fn count_non_finite(value: &Value) -> u64 {
    let Data::F32(elements) = &*value.data else {
        return 0;
    };
    let count = |elements: &[f32]| {
        vectorized(
            #[inline(always)]
            || {
                let bad = elements.iter().map(|x| u32::from(!x.is_finite()));
                u64::from(bad.sum::<u32>())
            },
        )
    };
    elements.par_chunks(BLOCK).map(count).sum()
}
