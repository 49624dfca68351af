//! One program from a chain of chunk programs: the inverse of a cut.
//!
//! The stages are joined as they run: a stage of a chain receives the outputs of the stage before it, merged over the original
//! inputs, and nothing else; a stage of a Core ML pipeline those of all stages before it. What only carries a value from stage
//! to stage goes:
//!
//! - an `identity` that gives a value to a later stage and does nothing else, or that gives an output of the whole what an
//!   earlier stage made, or that only consumes an input;
//! - a `cast` to a wider type at the end of the stage that makes a value, and the `cast` back under the value's own name in
//!   the stages that use it. Casts that a program had itself stay, since they make values of other names.
//!
//! Constants that nothing needs are dropped, and equal constants of one name become one unless they hold weights: every stage
//! has a weight store of its own, so nobody can tell here whether two of their weights are the same.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use mil::ops::{Op, OpKind};
use mil::{
    Block, BlockId, Constant, Data, DataType, Function, Named, OpId, Operand, Operation, Program,
    ValueId, ValueInfo, ValueType, Verified, WeightId,
};

use crate::error::Error;
use crate::flow::{Flow, Origin, Unit};

/// How stages are joined.
#[derive(Clone, Copy, Debug, Default)]
pub struct Joining<'n> {
    /// Names of the inputs that the stages as a whole are given; without them an input is taken for one of those if no stage
    /// gives a value of its name. The joined program declares those that a stage declares.
    pub originals: Option<&'n [&'n str]>,
    /// Names of the outputs of the pipeline that the stages are; `None` for a chain, whose outputs are those of its last stage.
    pub pipeline_outputs: Option<&'n [&'n str]>,
    /// Whether `fp32` values may have crossed as `fp16`: the casts that lose digits go as well then, so that the joined program
    /// computes what the stages only come near to.
    pub narrowed: bool,
}

/// A chain as one program.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// The program; its doc and attributes are those of the first stage.
    pub program: Program,
    /// Where its weights are: `WeightId(n)` is the one at position `n`.
    pub weights: Vec<StageWeight>,
    stages: Vec<usize>,
}

/// A weight of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StageWeight {
    /// The stage, from 0.
    pub stage: usize,
    /// What that stage's program calls the weight.
    pub weight: WeightId,
}

impl Joined {
    /// The stage, from 0, that an operation of `main` comes from.
    pub fn stage(&self, op: OpId) -> usize {
        self.stages[op.index()]
    }
}

/// Why stages are no chain. Stages count from 0 here and from 1 in the text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Nothing to join.
    #[error("no stages were given, expected at least one")]
    NoStages,
    /// A stage without a single function `main`.
    #[error("stage {}: {source}", stage + 1)]
    Stage {
        /// The stage.
        stage: usize,
        /// What is wrong with it.
        source: Error,
    },
    /// A stage for another operation set than the first.
    #[error("stage {}: expected operation set {expected}, as in stage 1, found {found}", stage + 1)]
    Opset {
        /// The stage.
        stage: usize,
        /// The first stage's.
        expected: String,
        /// This stage's.
        found: String,
    },
    /// An input that neither the stage before nor the original inputs provide.
    #[error(
        "stage {} takes `{}`, expected it among {}, found {}",
        stage + 1,
        value.escape_debug(),
        providers(*stage, *is_pipeline),
        made_by.map_or("it nowhere".to_owned(), |s| format!("it among those of stage {}", s + 1))
    )]
    Missing {
        /// The stage.
        stage: usize,
        /// The input.
        value: String,
        /// A stage that gives a value of that name, but not to this one.
        made_by: Option<usize>,
        /// Whether the stages are those of a pipeline.
        is_pipeline: bool,
    },
    /// An output of a pipeline that no stage gives.
    #[error("no stage gives the output `{}` of the pipeline", value.escape_debug())]
    Output {
        /// The output.
        value: String,
    },
    /// An input of another type than what provides it.
    #[error(
        "stage {} takes `{}` as `{found}`, expected `{expected}`, as {}",
        stage + 1,
        value.escape_debug(),
        given_by.map_or("an earlier stage takes it".to_owned(), |s| format!("stage {} gives it", s + 1))
    )]
    Type {
        /// The stage.
        stage: usize,
        /// The input.
        value: String,
        /// The stage that gives it; `None` for an original input.
        given_by: Option<usize>,
        /// The type there.
        expected: Box<ValueType>,
        /// The type that the stage declares.
        found: Box<ValueType>,
    },
    /// A state that more than one stage declares: each would have its own.
    #[error("stage {} has the state `{}`, which an earlier stage has too", stage + 1, value.escape_debug())]
    State {
        /// The stage.
        stage: usize,
        /// The state.
        value: String,
    },
    /// An output of the chain that has the name of one of its inputs.
    #[error("`{}` is an input of the whole and, as another value, an output", value.escape_debug())]
    Name {
        /// The name.
        value: String,
    },
}

impl JoinError {
    /// The stage concerned, from 0.
    pub fn stage(&self) -> Option<usize> {
        match self {
            JoinError::Stage { stage, .. }
            | JoinError::Opset { stage, .. }
            | JoinError::Missing { stage, .. }
            | JoinError::Type { stage, .. }
            | JoinError::State { stage, .. } => Some(*stage),
            JoinError::NoStages | JoinError::Name { .. } | JoinError::Output { .. } => None,
        }
    }

    /// The value concerned.
    pub fn value(&self) -> Option<&str> {
        match self {
            JoinError::Missing { value, .. }
            | JoinError::Type { value, .. }
            | JoinError::State { value, .. }
            | JoinError::Output { value }
            | JoinError::Name { value } => Some(value),
            JoinError::NoStages | JoinError::Stage { .. } | JoinError::Opset { .. } => None,
        }
    }
}

fn providers(stage: usize, is_pipeline: bool) -> String {
    match (stage, is_pipeline) {
        (0, _) => "the original inputs".to_owned(),
        (_, true) => "the outputs of the stages before it or the original inputs".to_owned(),
        (n, false) => format!("the outputs of stage {n} or the original inputs"),
    }
}

/// Joins the functions `main` of stages in the order in which they run.
///
/// # Errors
/// The stages are no chain, or no pipeline, in this order; see [`JoinError`].
pub fn join(stages: &[Verified<'_>], how: &Joining<'_>) -> Result<Joined, JoinError> {
    let flow = |(stage, verified)| {
        Flow::new(verified).map_err(|source| JoinError::Stage { stage, source })
    };
    let flows = stages.iter().enumerate().map(flow);
    let flows = flows.collect::<Result<Vec<_>, _>>()?;
    let first = flows.first().ok_or(JoinError::NoStages)?;
    for (stage, flow) in flows.iter().enumerate() {
        if flow.f.opset != first.f.opset {
            return Err(JoinError::Opset {
                stage,
                expected: first.f.opset.clone(),
                found: flow.f.opset.clone(),
            });
        }
    }
    let links = Links::new(&flows, how)?;
    let joiner = Joiner::new(&links).join()?;
    let whole = stages[0].program();
    Ok(Joined {
        program: Program {
            version: whole.version,
            doc: whole.doc.clone(),
            attributes: whole.attributes.clone(),
            ..Program::with_main(joiner.f)
        },
        weights: joiner.weights,
        stages: joiner.stages,
    })
}

/// A value of the chain: the stage that makes it, or that declares it first, and its id there.
type Global = (usize, ValueId);

/// What every value of every stage stands for.
struct Links<'a> {
    flows: &'a [Flow<'a>],
    is_narrowed: bool,
    /// For each stage the names of those of its outputs that are outputs of the whole.
    results: Vec<BTreeSet<&'a str>>,
    /// Outputs of the whole: their names and what they are.
    outputs: Vec<(&'a str, Global)>,
    /// By stage and position of the value; `None` for what a stage makes itself.
    origins: Vec<Vec<Option<Global>>>,
    /// Inputs of the chain, in the order in which stages declare them.
    inputs: Vec<Global>,
    /// Operations of each stage that only carry.
    carriers: Vec<BTreeSet<OpId>>,
    /// Values that operations, or the outputs of the whole, take.
    used: BTreeSet<Global>,
}

impl<'a> Links<'a> {
    fn new(flows: &'a [Flow<'a>], how: &Joining<'_>) -> Result<Self, JoinError> {
        let none = |flow: &Flow<'_>| vec![None; flow.f.num_values()];
        let given: Vec<_> = flows.iter().map(outputs_by_name).collect();
        let results = results(flows, &given, how)?;
        let mut links = Links {
            flows,
            is_narrowed: how.narrowed,
            results: vec![BTreeSet::new(); flows.len()],
            outputs: Vec::new(),
            origins: flows.iter().map(none).collect(),
            inputs: Vec::new(),
            carriers: vec![BTreeSet::new(); flows.len()],
            used: BTreeSet::new(),
        };
        for &(name, (stage, _)) in &results {
            links.results[stage].insert(name);
        }
        let mut entrance = Entrance {
            given,
            how,
            declared: BTreeMap::new(),
        };
        let mut sent = Vec::new();
        for (stage, flow) in flows.iter().enumerate() {
            for &input in &flow.f.inputs {
                let global = entrance.find(&mut links, stage, input)?;
                links.origins[stage][input.index()] = Some(global);
            }
            links.find_carriers(stage, &mut sent);
        }
        let output = |(name, (stage, v))| (name, links.origin(stage, v));
        links.outputs = results.into_iter().map(output).collect();
        links.find_uses();
        for (stage, op, value) in sent {
            if !links.used.contains(&(stage, value)) {
                links.carriers[stage].insert(op);
            }
        }
        Ok(links)
    }

    fn origin(&self, stage: usize, v: ValueId) -> Global {
        self.origins[stage][v.index()].unwrap_or((stage, v))
    }

    fn info(&self, (stage, v): Global) -> &'a ValueInfo {
        self.flows[stage].f.value(v)
    }

    /// Operations of a stage that still stand in the joined program, constants apart.
    fn units(&self, stage: usize) -> impl Iterator<Item = &'a Unit> {
        let carriers = &self.carriers[stage];
        let units = self.flows[stage].units.iter();
        units.filter(move |u| !carriers.contains(&u.op))
    }

    /// Finds what only carries in a stage whose inputs are known. `sent` gets the casts whose result is cast back.
    fn find_carriers(&mut self, stage: usize, sent: &mut Vec<(usize, OpId, ValueId)>) {
        let flow = &self.flows[stage];
        let taken: HashSet<ValueId> = flow.units.iter().flat_map(|u| &u.uses).copied().collect();
        for unit in &flow.units {
            let op = flow.f.op(unit.op);
            let (&[out], Some(x)) = (&op.outputs[..], operand(op)) else {
                continue;
            };
            let carried = match op.kind {
                OpKind::Known(Op::Identity) if !taken.contains(&out) => self.carried(stage, x, out),
                OpKind::Known(Op::Cast) => self.cast_back(stage, x, out, sent),
                _ => None,
            };
            if carried.is_some() {
                self.origins[stage][out.index()] = carried;
                self.carriers[stage].insert(unit.op);
            }
        }
    }

    /// What the identity `out` of `x`, which no operation takes, only carries.
    fn carried(&self, stage: usize, x: ValueId, out: ValueId) -> Option<Global> {
        let flow = &self.flows[stage];
        let origin = self.origin(stage, x);
        let is_made_before = origin.0 < stage && !self.inputs.contains(&origin);
        let is_output = flow.body.outputs.contains(&out);
        let is_result = self.results[stage].contains(flow.f.value(out).name.as_str());
        let only_carries = match (is_output, is_result) {
            (true, false) => true,
            (true, true) => is_made_before,
            (false, _) => matches!(flow.origin(x), Origin::Input),
        };
        only_carries.then_some(origin)
    }

    /// What the cast `out` of `x` restores: the operand, of the same name and type, of the cast that an earlier stage sent it by.
    fn cast_back(
        &self,
        stage: usize,
        x: ValueId,
        out: ValueId,
        sent: &mut Vec<(usize, OpId, ValueId)>,
    ) -> Option<Global> {
        let (sender, wide) = self.origin(stage, x);
        let flow = &self.flows[sender];
        let unit = flow
            .units
            .iter()
            .find(|u| flow.f.op(u.op).outputs == [wide])?;
        let cast = flow.f.op(unit.op);
        let narrow = operand(cast).filter(|_| cast.kind == Op::Cast.into() && sender < stage)?;
        let (before, after) = (flow.f.value(narrow), self.info((stage, out)));
        if before != after || !self.is_undone(&before.ty, &flow.f.value(wide).ty) {
            return None;
        }
        sent.push((sender, unit.op, wide));
        Some(self.origin(sender, narrow))
    }

    /// Whether a cast from the first type to the second and back only carries.
    fn is_undone(&self, from: &ValueType, to: &ValueType) -> bool {
        is_widening(from, to) || self.is_narrowed && is_widening(to, from)
    }

    fn find_uses(&mut self) {
        let mut used = BTreeSet::new();
        for stage in 0..self.flows.len() {
            let uses = self.units(stage).flat_map(|u| &u.uses);
            used.extend(uses.map(|&v| self.origin(stage, v)));
        }
        used.extend(self.outputs.iter().map(|&(_, global)| global));
        self.used = used;
    }
}

/// Outputs of the whole by name, with the stage that gives each and the value there: those of a chain's last stage, of a
/// pipeline what the last stage to give a value of that name gives.
fn results<'a>(
    flows: &[Flow<'a>],
    given: &[BTreeMap<&'a str, ValueId>],
    how: &Joining<'_>,
) -> Result<Vec<(&'a str, Global)>, JoinError> {
    let Some(names) = how.pipeline_outputs else {
        let last = flows.len() - 1;
        let (f, outputs) = (flows[last].f, &flows[last].body.outputs);
        let named = |&v: &ValueId| (f.value(v).name.as_str(), (last, v));
        return Ok(outputs.iter().map(named).collect());
    };
    let find = |&name: &&str| {
        let mut stages = given.iter().enumerate().rev();
        let found = stages.find_map(|(stage, given)| {
            let (&name, &v) = given.get_key_value(name)?;
            Some((name, (stage, v)))
        });
        let value = name.to_owned();
        found.ok_or(JoinError::Output { value })
    };
    names.iter().map(find).collect()
}

fn outputs_by_name<'a>(flow: &Flow<'a>) -> BTreeMap<&'a str, ValueId> {
    let named = |&v: &ValueId| (flow.f.value(v).name.as_str(), v);
    flow.body.outputs.iter().map(named).collect()
}

/// The value that an `identity` or a `cast` takes.
fn operand(op: &Operation) -> Option<ValueId> {
    op.inputs.get("x")?.first()?.as_value()
}

/// Whether a cast to `wide` and back leaves every value as it was.
fn is_widening(narrow: &ValueType, wide: &ValueType) -> bool {
    use DataType::{Bool, Fp16, Fp32, Int8, Int16, Int32, Uint8, Uint16};
    let dtypes = narrow.as_tensor().zip(wide.as_tensor());
    dtypes.is_some_and(|(n, w)| {
        matches!(
            (n.dtype, w.dtype),
            (Fp16, Fp32) | (Bool | Int8 | Uint8 | Int16 | Uint16, Int32)
        )
    })
}

/// Where the inputs of stages come from.
struct Entrance<'a, 'o> {
    given: Vec<BTreeMap<&'a str, ValueId>>,
    how: &'o Joining<'o>,
    declared: BTreeMap<&'a str, Global>,
}

impl<'a> Entrance<'a, '_> {
    fn find(
        &mut self,
        links: &mut Links<'a>,
        stage: usize,
        input: ValueId,
    ) -> Result<Global, JoinError> {
        let info = links.info((stage, input));
        if matches!(info.ty, ValueType::State(_)) {
            return self.state(links, stage, input);
        }
        let name = info.name.as_str();
        let first = match self.how.pipeline_outputs {
            Some(_) => 0,
            None => stage.saturating_sub(1),
        };
        let mut seen = (first..stage).rev();
        let sent = seen.find_map(|s| Some((s, *self.given[s].get(name)?)));
        let global = match sent {
            Some((s, v)) => links.origin(s, v),
            None => self.original(links, stage, input)?,
        };
        let source = sent.unwrap_or(global);
        let expected = &links.info(source).ty;
        if *expected != info.ty {
            return Err(JoinError::Type {
                stage,
                value: name.to_owned(),
                given_by: sent.map(|(s, _)| s),
                expected: Box::new(expected.clone()),
                found: Box::new(info.ty.clone()),
            });
        }
        Ok(global)
    }

    fn original(
        &mut self,
        links: &mut Links<'a>,
        stage: usize,
        input: ValueId,
    ) -> Result<Global, JoinError> {
        let name = links.info((stage, input)).name.as_str();
        // A stage that gives one of its inputs as it is does not make it.
        let makes = |(stage, given): (usize, &BTreeMap<&str, ValueId>)| {
            let flow = &links.flows[stage];
            let made = given.get(name).is_some_and(|v| !flow.f.inputs.contains(v));
            made.then_some(stage)
        };
        let made_by = self.given.iter().enumerate().find_map(makes);
        let is_original = match self.how.originals {
            Some(names) => names.contains(&name),
            None => made_by.is_none(),
        };
        if !is_original {
            return Err(JoinError::Missing {
                stage,
                value: name.to_owned(),
                made_by,
                is_pipeline: self.how.pipeline_outputs.is_some(),
            });
        }
        let global = self.declared.entry(name).or_insert_with(|| {
            links.inputs.push((stage, input));
            (stage, input)
        });
        Ok(*global)
    }

    fn state(
        &mut self,
        links: &mut Links<'a>,
        stage: usize,
        input: ValueId,
    ) -> Result<Global, JoinError> {
        let name = links.info((stage, input)).name.as_str();
        if self.declared.insert(name, (stage, input)).is_some() {
            return Err(JoinError::State {
                stage,
                value: name.to_owned(),
            });
        }
        links.inputs.push((stage, input));
        Ok((stage, input))
    }
}

/// Builds the joined function.
struct Joiner<'a> {
    links: &'a Links<'a>,
    f: Function,
    body: BlockId,
    /// What stands for each value of each stage here, by its position in the arena.
    here: Vec<Vec<Option<ValueId>>>,
    /// Names that are taken.
    names: HashSet<String>,
    /// Names of outputs, which only they get.
    reserved: BTreeMap<&'a str, Global>,
    /// The first constant of each name.
    constants: BTreeMap<&'a str, OpId>,
    numbers: BTreeMap<StageWeight, WeightId>,
    weights: Vec<StageWeight>,
    stages: Vec<usize>,
}

impl<'a> Joiner<'a> {
    fn new(links: &'a Links<'a>) -> Self {
        let first = &links.flows[0];
        let mut f = Function::new(first.f.opset.clone());
        f.attributes = first.f.attributes.clone();
        let body = f.body().expect("a new function has a body");
        f.block_mut(body).attributes = first.body.attributes.clone();
        let none = |flow: &Flow<'_>| vec![None; flow.f.num_values()];
        Joiner {
            links,
            f,
            body,
            here: links.flows.iter().map(none).collect(),
            names: HashSet::new(),
            reserved: links.outputs.iter().copied().collect(),
            constants: BTreeMap::new(),
            numbers: BTreeMap::new(),
            weights: Vec::new(),
            stages: Vec::new(),
        }
    }

    fn join(mut self) -> Result<Self, JoinError> {
        for &(stage, v) in &self.links.inputs {
            let info = self.links.info((stage, v));
            let is_other = |&output: &Global| output != (stage, v);
            if self.reserved.get(info.name.as_str()).is_some_and(is_other) {
                return Err(JoinError::Name {
                    value: info.name.clone(),
                });
            }
            let input = self.f.add_input(info.name.clone(), info.ty.clone());
            self.names.insert(info.name.clone());
            self.here[stage][v.index()] = Some(input);
        }
        for stage in 0..self.links.flows.len() {
            self.stage(stage);
        }
        let links = self.links;
        let outputs = links.outputs.iter();
        let outputs = outputs.map(|&(name, v)| self.output(name, v)).collect();
        self.f.block_mut(self.body).outputs = outputs;
        Ok(self)
    }

    /// Appends what stands in a stage, constants before the first operation that needs them.
    fn stage(&mut self, stage: usize) {
        let flow = &self.links.flows[stage];
        let mut met = flow.none_met();
        for unit in self.links.units(stage) {
            let constants = flow.closure(&unit.constants, &mut met);
            constants
                .iter()
                .for_each(|&c| self.constant(stage, flow.body.ops[c]));
            let op = self.copy(stage, unit.op);
            self.f.block_mut(self.body).ops.push(op);
        }
        let is_used = |&&c: &&usize| {
            let mut made = flow.constant_op(c).outputs.iter();
            made.any(|&v| self.links.used.contains(&(stage, v)))
        };
        let given = flow.output_constants();
        let given: Vec<usize> = given.iter().filter(is_used).copied().collect();
        let constants = flow.closure(&given, &mut met);
        constants
            .iter()
            .for_each(|&c| self.constant(stage, flow.body.ops[c]));
    }

    /// The output `name` of the whole; an identity gives it that name where what it is has another.
    fn output(&mut self, name: &str, global: Global) -> ValueId {
        let value = self.map(global.0, global.1);
        if self.f.value(value).name == name {
            return value;
        }
        let ty = self.f.value(value).ty.clone();
        let output = self.f.add_value(name, ty);
        let mut op = Operation::new(Op::Identity);
        op.inputs.insert(Cow::Borrowed("x"), vec![value.into()]);
        op.outputs.push(output);
        op.attributes
            .insert(Cow::Borrowed("name"), Constant::string(name));
        let op = self.add(self.links.flows.len() - 1, op);
        self.f.block_mut(self.body).ops.push(op);
        output
    }

    /// Appends a constant, unless there is one of that name that is the same.
    fn constant(&mut self, stage: usize, id: OpId) {
        let old: &'a Operation = self.links.flows[stage].f.op(id);
        let name = self.links.info((stage, old.outputs[0])).name.as_str();
        if let Some(&same) = self.constants.get(name)
            && self.is_same_constant(stage, old, same)
        {
            let made = self.f.op(same).outputs.clone();
            for (&v, made) in old.outputs.iter().zip(made) {
                self.here[stage][v.index()] = Some(made);
            }
            return;
        }
        let op = self.copy(stage, id);
        self.constants.entry(name).or_insert(op);
        self.f.block_mut(self.body).ops.push(op);
    }

    fn is_same_constant(&self, stage: usize, old: &Operation, same: OpId) -> bool {
        let same = self.f.op(same);
        let is_weight = |c: &Constant| !matches!(c.data, Data::Tensor(_));
        let ty = |f: &Function, v: &ValueId| f.value(*v).ty.clone();
        let flow = &self.links.flows[stage];
        !old.constants().any(is_weight)
            && same.kind == old.kind
            && same.attributes == old.attributes
            && same.inputs == self.operands(stage, old)
            && same
                .outputs
                .iter()
                .map(|v| ty(&self.f, v))
                .eq(old.outputs.iter().map(|v| ty(flow.f, v)))
    }

    fn operands(&self, stage: usize, old: &Operation) -> Named<Vec<Operand>> {
        let operand = |o: &Operand| match o {
            Operand::Value(v) => Operand::Value(self.map(stage, *v)),
            Operand::Constant(c) => Operand::Constant(c.clone()),
        };
        let inputs = old.inputs.iter();
        let inputs = inputs.map(|(name, list)| (name.clone(), list.iter().map(operand).collect()));
        inputs.collect()
    }

    fn copy(&mut self, stage: usize, id: OpId) -> OpId {
        let old: &'a Operation = self.links.flows[stage].f.op(id);
        let mut inputs = self.operands(stage, old);
        for operand in inputs.values_mut().flatten() {
            if let Operand::Constant(c) = operand {
                self.renumber(stage, c);
            }
        }
        let mut attributes = old.attributes.clone();
        attributes
            .values_mut()
            .for_each(|c| self.renumber(stage, c));
        let blocks = old
            .blocks
            .iter()
            .map(|&b| self.copy_block(stage, b))
            .collect();
        let op = Operation {
            kind: old.kind.clone(),
            inputs,
            blocks,
            outputs: self.define_all(stage, &old.outputs),
            attributes,
        };
        self.add(stage, op)
    }

    fn add(&mut self, stage: usize, op: Operation) -> OpId {
        self.stages.push(stage);
        self.f.add_op(op)
    }

    fn copy_block(&mut self, stage: usize, id: BlockId) -> BlockId {
        let old = self.links.flows[stage].f.block(id);
        let inputs = self.define_all(stage, &old.inputs);
        let ops = old.ops.iter().map(|&op| self.copy(stage, op)).collect();
        let outputs = old.outputs.iter().map(|&v| self.map(stage, v)).collect();
        self.f.add_block(Block {
            inputs,
            outputs,
            ops,
            attributes: old.attributes.clone(),
        })
    }

    fn define_all(&mut self, stage: usize, values: &[ValueId]) -> Vec<ValueId> {
        let define = |&v: &ValueId| {
            let info = self.links.info((stage, v));
            let name = self.unique(&info.name, (stage, v));
            let new = self.f.add_value(name, info.ty.clone());
            self.here[stage][v.index()] = Some(new);
            new
        };
        values.iter().map(define).collect()
    }

    /// The value's own name, else that with a number.
    fn unique(&mut self, base: &str, global: Global) -> String {
        let mut name = base.to_owned();
        let mut n = 0u64;
        let is_free = |name: &str| {
            self.reserved
                .get(name)
                .is_none_or(|&output| output == global)
        };
        while !is_free(&name) || !self.names.insert(name.clone()) {
            n += 1;
            name = format!("{base}_{n}");
        }
        name
    }

    fn map(&self, stage: usize, v: ValueId) -> ValueId {
        let (stage, v) = self.links.origin(stage, v);
        self.here[stage][v.index()].expect("what a stage takes was made before it")
    }

    /// Gives the weights in a constant their numbers in the joined program.
    fn renumber(&mut self, stage: usize, constant: &mut Constant) {
        match &mut constant.data {
            Data::Weight(weight) => {
                let place = StageWeight {
                    stage,
                    weight: *weight,
                };
                let (weights, next) = (&mut self.weights, self.numbers.len());
                *weight = *self.numbers.entry(place).or_insert_with(|| {
                    weights.push(place);
                    WeightId(u32::try_from(next).expect("fewer than 2^32 weights"))
                });
            }
            Data::Tuple(parts) | Data::List(parts) => {
                parts.iter_mut().for_each(|c| self.renumber(stage, c));
            }
            Data::Dictionary(pairs) => {
                for (key, value) in pairs {
                    self.renumber(stage, key);
                    self.renumber(stage, value);
                }
            }
            Data::Tensor(_) | Data::Missing => {}
        }
    }
}
