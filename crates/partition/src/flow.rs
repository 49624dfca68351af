//! How values flow through a function: its computing operations, the constants that each needs, and from where to where each
//! value lives.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use mil::{Block, Constant, Data, Function, OpId, Operation, Opset, ValueId, Verified, WeightId};

use crate::error::Error;
use crate::options::Wiring;

/// The function `main` as cuts see it.
pub(crate) struct Flow<'p> {
    pub f: &'p Function,
    pub opset: Opset,
    pub body: &'p Block,
    /// Operations that are no constants, in program order.
    pub units: Vec<Unit>,
    origins: Vec<Origin>,
    /// Weights that stand in the operation at a position of the body, nested blocks included.
    weights: Vec<Vec<WeightId>>,
    /// Whether the constant at a position of the body needs a weight.
    weighty: Vec<bool>,
}

/// A computing operation with its nested blocks.
pub(crate) struct Unit {
    pub op: OpId,
    /// Its position in the body.
    position: usize,
    /// Values that it takes and that are no constants, each once.
    pub uses: Vec<ValueId>,
    /// Positions in the body of the constants that it takes, each once.
    pub constants: Vec<usize>,
}

/// Where a value comes from.
#[derive(Clone, Copy)]
pub(crate) enum Origin {
    /// Within a nested block.
    Nested,
    /// An input of the function.
    Input,
    /// A constant operation, by its position in the body.
    Constant(usize),
    /// A computing operation.
    Unit,
}

/// A value that a later operation takes, or that has to reach the last chunk since it is an output.
#[derive(Clone, Copy)]
pub(crate) struct Life {
    pub value: ValueId,
    /// The unit that makes it.
    pub made: usize,
    /// The last unit that takes it; of an output that has to reach the last chunk the number of units.
    pub last: usize,
    pub is_output: bool,
}

/// Which constants have been met in a walk.
pub(crate) struct Met(Vec<bool>);

impl<'p> Flow<'p> {
    pub fn new(program: &Verified<'p>) -> Result<Self, Error> {
        let (f, _) = program.main().ok_or(Error::NoMain)?;
        let functions = &program.program().functions;
        if functions.len() > 1 {
            let others = functions.keys().filter(|n| *n != mil::Program::MAIN);
            return Err(Error::OtherFunctions {
                names: others.cloned().collect(),
            });
        }
        let opset = Opset::parse(&f.opset).expect("a verified function has a known operation set");
        let body = f.body().expect("a verified function has a body");
        let mut flow = Flow {
            f,
            opset,
            body: f.block(body),
            units: Vec::new(),
            origins: vec![Origin::Nested; f.num_values()],
            weights: Vec::new(),
            weighty: Vec::new(),
        };
        for &input in &f.inputs {
            flow.origins[input.index()] = Origin::Input;
        }
        for (position, &op) in flow.body.ops.iter().enumerate() {
            flow.record(program, position, op);
        }
        Ok(flow)
    }

    pub fn origin(&self, v: ValueId) -> Origin {
        self.origins[v.index()]
    }

    pub fn constant_op(&self, position: usize) -> &'p Operation {
        self.f.op(self.body.ops[position])
    }

    fn record(&mut self, program: &Verified<'p>, position: usize, id: OpId) {
        let op = self.f.op(id);
        let constant = self.is_constant(program, op);
        let origin = if constant {
            Origin::Constant(position)
        } else {
            Origin::Unit
        };
        let mut weights = Vec::new();
        own_weights(self.f, op, &mut weights);
        let weighty = !weights.is_empty() || self.constants_of(op).any(|c| self.weighty[c]);
        self.weights.push(weights);
        self.weighty.push(weighty);
        if !constant {
            let unit = self.unit(position, id);
            self.units.push(unit);
        }
        for &v in &op.outputs {
            self.origins[v.index()] = origin;
        }
    }

    /// An operation whose outputs are known when the program is compiled. One that takes computed values is none, whatever its
    /// type name says, and neither is one with nested blocks, whose values might come from anywhere.
    fn is_constant(&self, program: &Verified<'_>, op: &Operation) -> bool {
        let (_, definitions) = program.main().expect("checked when the flow was made");
        !op.outputs.is_empty()
            && op.blocks.is_empty()
            && op.outputs.iter().all(|&v| definitions.is_constant(v))
            && op
                .operand_values()
                .all(|v| matches!(self.origin(v), Origin::Constant(_)))
    }

    fn unit(&self, position: usize, op: OpId) -> Unit {
        let mut unit = Unit {
            op,
            position,
            uses: Vec::new(),
            constants: Vec::new(),
        };
        for_each_use(self.f, self.f.op(op), &mut |v| match self.origin(v) {
            Origin::Constant(position) => unit.constants.push(position),
            Origin::Input | Origin::Unit => unit.uses.push(v),
            Origin::Nested => {}
        });
        unit.uses.sort_unstable();
        unit.uses.dedup();
        unit.constants.sort_unstable();
        unit.constants.dedup();
        unit
    }

    fn constants_of(&self, op: &'p Operation) -> impl Iterator<Item = usize> {
        op.operand_values().filter_map(|v| match self.origin(v) {
            Origin::Constant(position) => Some(position),
            _ => None,
        })
    }

    /// Positions of the constants that are outputs of the function.
    pub fn output_constants(&self) -> Vec<usize> {
        let constant = |&v: &ValueId| match self.origin(v) {
            Origin::Constant(position) => Some(position),
            _ => None,
        };
        self.body.outputs.iter().filter_map(constant).collect()
    }

    /// A walk that has met no constant yet.
    pub fn none_met(&self) -> Met {
        Met(vec![false; self.body.ops.len()])
    }

    /// The constants that `roots` are and need and that the walk has not met before, in program order.
    pub fn closure(&self, roots: &[usize], met: &mut Met) -> Vec<usize> {
        self.closure_of(roots, met, |_| true)
    }

    fn closure_of(
        &self,
        roots: &[usize],
        met: &mut Met,
        keep: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let mut found = Vec::new();
        let mut pending = roots.to_vec();
        while let Some(position) = pending.pop() {
            if keep(position) && !std::mem::replace(&mut met.0[position], true) {
                found.push(position);
                pending.extend(self.constants_of(self.constant_op(position)));
            }
        }
        found.sort_unstable();
        found
    }

    /// Weights that a unit needs, in the order in which a chunk's program that begins with it refers to them first.
    pub fn unit_weights(&self, unit: &Unit, met: &mut Met) -> Vec<WeightId> {
        let mut weights = self.constant_weights(&unit.constants, met);
        weights.extend(&self.weights[unit.position]);
        weights
    }

    /// Weights that constants need, in the order in which a program refers to them first; `met` is left as it was.
    pub fn constant_weights(&self, roots: &[usize], met: &mut Met) -> Vec<WeightId> {
        let constants = self.closure_of(roots, met, |position| self.weighty[position]);
        let mut weights = Vec::new();
        for position in constants {
            met.0[position] = false;
            weights.extend(&self.weights[position]);
        }
        weights
    }

    /// Values that live beyond the unit that makes them, in program order. In a pipeline an output leaves the chunk that makes
    /// it and lives on only for operations that take it.
    pub fn lives(&self, wiring: Wiring) -> Vec<Life> {
        let mut last: Vec<usize> = vec![0; self.origins.len()];
        for (i, unit) in self.units.iter().enumerate() {
            for v in &unit.uses {
                last[v.index()] = i;
            }
        }
        let outputs: BTreeSet<ValueId> = self.body.outputs.iter().copied().collect();
        let mut lives = Vec::new();
        for (made, unit) in self.units.iter().enumerate() {
            for &value in &self.f.op(unit.op).outputs {
                let is_output = outputs.contains(&value);
                let last = if is_output && wiring == Wiring::Chain {
                    self.units.len()
                } else {
                    last[value.index()]
                };
                if last > made {
                    lives.push(Life {
                        value,
                        made,
                        last,
                        is_output,
                    });
                }
            }
        }
        lives
    }

    /// The last unit that takes each input of the function that one takes; the number of units for outputs.
    pub fn input_spans(&self) -> BTreeMap<ValueId, usize> {
        let mut last = BTreeMap::new();
        let is_input = |v: &&ValueId| matches!(self.origin(**v), Origin::Input);
        for (i, unit) in self.units.iter().enumerate() {
            last.extend(unit.uses.iter().filter(is_input).map(|&v| (v, i)));
        }
        let outputs = self.body.outputs.iter().filter(is_input);
        last.extend(outputs.map(|&v| (v, self.units.len())));
        last
    }

    /// From the first to the last unit that takes each input which is a state: a state lives in one model, so all of them
    /// must be in one chunk.
    pub fn state_spans(&self) -> impl Iterator<Item = (usize, usize)> {
        let is_state = |v: ValueId| matches!(self.f.value(v).ty, mil::ValueType::State(_));
        let mut spans = BTreeMap::new();
        for (i, unit) in self.units.iter().enumerate() {
            for &v in unit.uses.iter().filter(|&&v| is_state(v)) {
                spans.entry(v).or_insert((i, i)).1 = i;
            }
        }
        spans.into_values()
    }

    /// What to call a unit in messages: its first output, else its name, else its type.
    pub fn unit_name(&self, unit: usize) -> String {
        let op = self.f.op(self.units[unit].op);
        let label = || op.attributes.get("name").and_then(Constant::as_str);
        match op.outputs.first() {
            Some(&v) => self.f.value(v).name.clone(),
            None => label().unwrap_or(op.kind.name()).escape_debug().to_string(),
        }
    }

    /// Names of all values, those in nested blocks included; only to look up, since their order is random.
    pub fn names(&self) -> HashSet<&'p str> {
        let mut names = HashSet::with_capacity(self.origins.len());
        let f: &'p Function = self.f;
        let mut add = |v: ValueId| {
            names.insert(f.value(v).name.as_str());
        };
        f.inputs.iter().for_each(|&v| add(v));
        for &op in &self.body.ops {
            for_each_definition(f, f.op(op), &mut add);
        }
        names
    }
}

/// Calls `see` for every value that an operation and its nested blocks take, values of those blocks included.
fn for_each_use(f: &Function, op: &Operation, see: &mut impl FnMut(ValueId)) {
    op.operand_values().for_each(&mut *see);
    for &block in &op.blocks {
        let block = f.block(block);
        for &nested in &block.ops {
            for_each_use(f, f.op(nested), see);
        }
        block.outputs.iter().for_each(|&v| see(v));
    }
}

/// Calls `see` for every value that an operation and its nested blocks define.
fn for_each_definition(f: &Function, op: &Operation, see: &mut impl FnMut(ValueId)) {
    op.outputs.iter().for_each(|&v| see(v));
    for &block in &op.blocks {
        let block = f.block(block);
        block.inputs.iter().for_each(|&v| see(v));
        for &nested in &block.ops {
            for_each_definition(f, f.op(nested), see);
        }
    }
}

/// Appends the weights that stand in an operation and its nested blocks, in the order of its constants.
fn own_weights(f: &Function, op: &Operation, weights: &mut Vec<WeightId>) {
    op.constants().for_each(|c| data_weights(c, weights));
    for &block in &op.blocks {
        for &nested in &f.block(block).ops {
            own_weights(f, f.op(nested), weights);
        }
    }
}

fn data_weights(constant: &Constant, weights: &mut Vec<WeightId>) {
    match &constant.data {
        Data::Weight(id) => weights.push(*id),
        Data::Tuple(parts) | Data::List(parts) => {
            parts.iter().for_each(|c| data_weights(c, weights));
        }
        Data::Dictionary(pairs) => {
            for (key, value) in pairs {
                data_weights(key, weights);
                data_weights(value, weights);
            }
        }
        Data::Tensor(_) | Data::Missing => {}
    }
}
