//! What crosses between chunks, in which form and under which names, and what each chunk's program consists of.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use mil::{DataType, OpId, Opset, TensorType, ValueId, ValueType};

use crate::error::Error;
use crate::flow::{Flow, Life};
use crate::options::{Boundary, Wiring};

/// The element type that a value crosses as; `None` where it cannot cross.
///
/// Features hold `fp32`, `int32` and, from iOS 16 on, `fp16` (`FeatureTypes.proto`, `ArrayFeatureType`; `int8` only from
/// iOS 26 on). Every other type that crosses is one that a cast to `int32` and back leaves as it was.
pub(crate) fn carrier(ty: &ValueType, opset: Opset, boundary: Boundary) -> Option<DataType> {
    use DataType::{Bool, Fp16, Fp32, Int8, Int16, Int32, Uint8, Uint16};
    Some(match (ty.as_tensor()?.dtype, boundary) {
        (Fp16, Boundary::Keep | Boundary::Float16) if opset >= Opset::CoreMl6 => Fp16,
        (Fp32, Boundary::Float16) if opset >= Opset::CoreMl6 => Fp16,
        (Fp16 | Fp32, _) => Fp32,
        (Int32 | Bool, _) => Int32,
        (Int8 | Uint8 | Int16 | Uint16, _) if opset >= Opset::CoreMl7 => Int32,
        _ => return None,
    })
}

/// A value that crosses cuts.
pub(crate) struct Crossing {
    pub value: ValueId,
    /// Type of the features that carry it.
    pub carried: ValueType,
    /// The element type to cast to on the way out and the one to cast back to, where the value cannot cross as it is.
    pub casts: Option<(DataType, DataType)>,
    /// The chunk that makes it.
    made: usize,
    /// The chunks that receive it, in order.
    takers: Vec<usize>,
    /// What it is called when it leaves chunk `made`, `made + 1` and so on; in a pipeline only `made` gives it.
    names: Vec<String>,
}

impl Crossing {
    /// The feature's name when it leaves a chunk.
    pub fn name_after(&self, chunk: usize) -> &str {
        &self.names[chunk - self.made]
    }

    /// The feature's name when it enters a chunk: that under which the nearest chunk before gives it.
    pub fn name_into(&self, chunk: usize) -> &str {
        &self.names[(chunk - self.made).min(self.names.len()) - 1]
    }

    /// Whether not every value of its type comes out as it went in.
    pub fn is_narrowed(&self) -> bool {
        self.casts == Some((DataType::Fp16, DataType::Fp32))
    }

    fn enters(&self, chunk: usize) -> bool {
        self.takers.contains(&chunk)
    }

    fn leaves(&self, chunk: usize) -> bool {
        (self.made..self.made + self.names.len()).contains(&chunk)
    }
}

/// What stands in a chunk's program. Crossings are meant by their position in [`Interface::crossings`].
pub(crate) enum Step {
    /// An operation of the program.
    Copy(OpId),
    /// The constant that casts to an element type take.
    CastTarget(DataType),
    /// What entered is cast back, under the value's own name.
    Restore(usize),
    /// A value made here is cast or renamed to leave.
    Send(usize),
    /// What entered leaves again.
    Pass(usize),
    /// What entered becomes an output of the program, under the value's own name.
    Deliver(usize),
    /// An input that is declared only.
    Consume(ValueId),
}

/// One chunk's program in outline.
pub(crate) struct Outline {
    /// Inputs of the program that it declares, in their order.
    pub inputs: Vec<ValueId>,
    /// Crossings that enter, in program order of their values.
    pub enter: Vec<usize>,
    /// Outputs of the program that it has, in their order.
    pub results: Vec<ValueId>,
    /// Crossings that leave, in program order of their values; none leave the last chunk.
    pub leave: Vec<usize>,
    /// Its operations.
    pub steps: Vec<Step>,
}

/// All chunks in outline.
pub(crate) struct Interface {
    pub crossings: Vec<Crossing>,
    pub chunks: Vec<Outline>,
    /// Names of the constants of [`Step::CastTarget`].
    pub cast_targets: BTreeMap<DataType, String>,
    /// Names of what [`Step::Consume`] makes.
    pub consumed: BTreeMap<ValueId, String>,
}

impl Interface {
    /// Of chunks of these ranges of units, which follow one another and cover all.
    pub fn new(
        flow: &Flow<'_>,
        ranges: &[Range<usize>],
        boundary: Boundary,
        wiring: Wiring,
        first_chunk_inputs: &[String],
    ) -> Result<Self, Error> {
        let declared = first_inputs(flow, first_chunk_inputs)?;
        let mut names = Names {
            of_program: flow.names(),
            given: BTreeSet::new(),
        };
        let mut interface = Interface {
            crossings: crossings(flow, ranges, boundary, wiring, &mut names)?,
            chunks: Vec::with_capacity(ranges.len()),
            cast_targets: BTreeMap::new(),
            consumed: BTreeMap::new(),
        };
        for (out, back) in interface.crossings.iter().filter_map(|c| c.casts) {
            for dtype in [out, back] {
                let name = || names.unique(format!("cast_to_{dtype}"));
                interface.cast_targets.entry(dtype).or_insert_with(name);
            }
        }
        for &input in &declared {
            let name = names.unique(format!("{}_unused", flow.f.value(input).name));
            interface.consumed.insert(input, name);
        }
        for (chunk, results) in results(flow, ranges, wiring).into_iter().enumerate() {
            let outline = interface.outline(flow, ranges, chunk, results, &declared);
            if outline.results.is_empty() && outline.leave.is_empty() {
                return Err(Error::NothingLeaves {
                    chunk,
                    last: flow.unit_name(ranges[chunk].end.saturating_sub(1)),
                });
            }
            interface.chunks.push(outline);
        }
        Ok(interface)
    }

    fn outline(
        &self,
        flow: &Flow<'_>,
        ranges: &[Range<usize>],
        chunk: usize,
        results: Vec<ValueId>,
        declared: &BTreeSet<ValueId>,
    ) -> Outline {
        let is_last = chunk + 1 == ranges.len();
        let units = &flow.units[ranges[chunk].clone()];
        let mut used: BTreeSet<ValueId> = units.iter().flat_map(|u| &u.uses).copied().collect();
        used.extend(&results);
        let is_unused = |v: &ValueId| chunk == 0 && declared.contains(v) && !used.contains(v);
        let inputs = flow.f.inputs.iter().copied();
        let mut outline = Outline {
            inputs: inputs
                .filter(|v| used.contains(v) || is_unused(v))
                .collect(),
            enter: self.those(|c| c.enters(chunk)),
            results,
            leave: self.those(|c| c.leaves(chunk)),
            steps: Vec::new(),
        };
        let mut steps = Steps::default();
        for &i in &outline.enter {
            if let Some((_, back)) = self.crossings[i].casts
                && used.contains(&self.crossings[i].value)
            {
                steps.cast(back, Step::Restore(i));
            }
        }
        steps.copy(flow, units, is_last);
        for &i in &outline.leave {
            self.leave(flow, chunk, i, &mut steps);
        }
        for &i in &outline.enter {
            let crossing = &self.crossings[i];
            if crossing.casts.is_none() && outline.results.contains(&crossing.value) {
                steps.list.push(Step::Deliver(i));
            }
        }
        let unused = outline.inputs.iter().copied().filter(is_unused);
        steps.list.extend(unused.map(Step::Consume));
        outline.steps = steps.list;
        outline
    }

    fn leave(&self, flow: &Flow<'_>, chunk: usize, i: usize, steps: &mut Steps) {
        let crossing = &self.crossings[i];
        if crossing.made < chunk {
            steps.list.push(Step::Pass(i));
        } else if let Some((out, _)) = crossing.casts {
            steps.cast(out, Step::Send(i));
        } else if crossing.name_after(chunk) != flow.f.value(crossing.value).name {
            steps.list.push(Step::Send(i));
        }
    }

    fn those(&self, is_meant: impl Fn(&Crossing) -> bool) -> Vec<usize> {
        let all = self.crossings.iter().enumerate();
        all.filter(|(_, c)| is_meant(c)).map(|(i, _)| i).collect()
    }
}

#[derive(Default)]
struct Steps {
    list: Vec<Step>,
    targets: BTreeSet<DataType>,
}

impl Steps {
    fn cast(&mut self, to: DataType, step: Step) {
        if self.targets.insert(to) {
            self.list.push(Step::CastTarget(to));
        }
        self.list.push(step);
    }

    /// The units with the constants that they need, each before the first that needs it; at the end of the last chunk the
    /// constants that are outputs.
    fn copy(&mut self, flow: &Flow<'_>, units: &[crate::flow::Unit], is_last: bool) {
        let mut met = flow.none_met();
        let copy = |position: usize| Step::Copy(flow.body.ops[position]);
        for unit in units {
            let constants = flow.closure(&unit.constants, &mut met);
            self.list.extend(constants.into_iter().map(copy));
            self.list.push(Step::Copy(unit.op));
        }
        if is_last {
            let constants = flow.closure(&flow.output_constants(), &mut met);
            self.list.extend(constants.into_iter().map(copy));
        }
    }
}

fn first_inputs(flow: &Flow<'_>, names: &[String]) -> Result<BTreeSet<ValueId>, Error> {
    let is_state = |v: ValueId| matches!(flow.f.value(v).ty, ValueType::State(_));
    let known: BTreeMap<&str, ValueId> = flow
        .f
        .inputs
        .iter()
        .filter(|&&v| !is_state(v))
        .map(|&v| (flow.f.value(v).name.as_str(), v))
        .collect();
    let find = |name: &String| {
        known
            .get(name.as_str())
            .copied()
            .ok_or_else(|| Error::UnknownInput {
                name: name.clone(),
                known: known.keys().map(|&n| n.to_owned()).collect(),
            })
    };
    names.iter().map(find).collect()
}

/// The chunk that a unit is in; what comes after all units is in the last.
fn chunk_of(ranges: &[Range<usize>], unit: usize) -> usize {
    let chunk = ranges.partition_point(|r| r.end <= unit);
    chunk.min(ranges.len() - 1)
}

/// The outputs of the program that each chunk has: in a pipeline those that it makes. What no operation makes is the last's.
fn results(flow: &Flow<'_>, ranges: &[Range<usize>], wiring: Wiring) -> Vec<Vec<ValueId>> {
    let last = ranges.len() - 1;
    let mut makers = BTreeMap::new();
    if wiring == Wiring::Pipeline {
        for (unit, made) in flow.units.iter().enumerate() {
            let outputs = &flow.f.op(made.op).outputs;
            makers.extend(outputs.iter().map(|&v| (v, chunk_of(ranges, unit))));
        }
    }
    let mut results = vec![Vec::new(); ranges.len()];
    for v in &flow.body.outputs {
        results[makers.get(v).copied().unwrap_or(last)].push(*v);
    }
    results
}

/// The chunks that take each value.
fn takers(flow: &Flow<'_>, ranges: &[Range<usize>]) -> BTreeMap<ValueId, BTreeSet<usize>> {
    let mut takers: BTreeMap<ValueId, BTreeSet<usize>> = BTreeMap::new();
    for (chunk, range) in ranges.iter().enumerate() {
        for &v in flow.units[range.clone()].iter().flat_map(|u| &u.uses) {
            takers.entry(v).or_default().insert(chunk);
        }
    }
    takers
}

fn crossings(
    flow: &Flow<'_>,
    ranges: &[Range<usize>],
    boundary: Boundary,
    wiring: Wiring,
    names: &mut Names<'_>,
) -> Result<Vec<Crossing>, Error> {
    let taken = takers(flow, ranges);
    let mut crossings = Vec::new();
    for life in flow.lives(wiring) {
        let (made, last) = (chunk_of(ranges, life.made), chunk_of(ranges, life.last));
        if made == last {
            continue;
        }
        let ty = &flow.f.value(life.value).ty;
        let dtype = carrier(ty, flow.opset, boundary).ok_or(Error::ForeignPlan)?;
        let tensor = ty.as_tensor().ok_or(Error::ForeignPlan)?;
        let is_cast = tensor.dtype != dtype;
        let carried = if is_cast {
            let dims = tensor.dims.clone();
            let attributes = BTreeMap::new();
            ValueType::Tensor(TensorType {
                dtype,
                dims,
                attributes,
            })
        } else {
            ty.clone()
        };
        let later = taken.get(&life.value).into_iter().flatten();
        let later = later.copied().filter(|&chunk| chunk > made);
        let (takers, leaves) = match wiring {
            Wiring::Chain => ((made + 1..=last).collect(), made..last),
            Wiring::Pipeline => (later.collect(), made..made + 1),
        };
        crossings.push(Crossing {
            value: life.value,
            carried,
            casts: is_cast.then_some((dtype, tensor.dtype)),
            made,
            takers,
            names: feature_names(flow, &life, is_cast.then_some(dtype), leaves, names),
        });
    }
    Ok(crossings)
}

/// Names of a value behind each of the chunks that it leaves. The chunk that makes it sends it under its own name, except for
/// an output of the program: the chunk that has the output gives it that name.
fn feature_names(
    flow: &Flow<'_>,
    life: &Life,
    cast_to: Option<DataType>,
    chunks: Range<usize>,
    names: &mut Names<'_>,
) -> Vec<String> {
    let own = &flow.f.value(life.value).name;
    let base = cast_to.map_or_else(|| own.clone(), |dtype| format!("{own}_{dtype}"));
    let name = |chunk: usize| {
        let is_first = chunk == chunks.start;
        match cast_to {
            None if is_first && !life.is_output => own.clone(),
            Some(_) if is_first => names.unique(base.clone()),
            _ => names.unique(format!("{base}_via{}", chunk + 1)),
        }
    };
    chunks.clone().map(name).collect()
}

/// Names that are taken.
struct Names<'p> {
    of_program: HashSet<&'p str>,
    given: BTreeSet<String>,
}

impl Names<'_> {
    /// `base`, which must be a legal name, else `base_1`, `base_2` and so on.
    fn unique(&mut self, base: String) -> String {
        let mut name = base.clone();
        let mut n = 0u64;
        while self.of_program.contains(name.as_str()) || !self.given.insert(name.clone()) {
            n += 1;
            name = format!("{base}_{n}");
        }
        name
    }
}
