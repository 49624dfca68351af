//! What a program is whatever its values are called: its operations in order, by number, and what each takes, constants written
//! out where they are taken.

use std::collections::BTreeMap;

use mil::{
    BlockId, Constant, Data, Function, OpId, Operand, Operation, Program, ValueId, WeightId,
};

pub fn canonical(program: &Program, weight: &dyn Fn(WeightId) -> String) -> Vec<String> {
    let verified = mil::verify(program).unwrap();
    let (f, definitions) = verified.main().unwrap();
    let mut writer = Writer {
        f,
        weight,
        is_constant: &|v| definitions.is_constant(v),
        names: BTreeMap::new(),
        lines: vec![format!("{} {:?}", program.doc, program.attributes)],
    };
    for &input in &f.inputs {
        let info = f.value(input);
        writer
            .names
            .insert(input, format!("{}: {}", info.name, info.ty));
    }
    let outputs = writer.block(f.body().unwrap());
    let names = f.block(f.body().unwrap()).outputs.iter();
    for (output, &v) in outputs.iter().zip(names) {
        writer.lines.push(format!("{} = {output}", f.value(v).name));
    }
    writer.lines
}

struct Writer<'f> {
    f: &'f Function,
    weight: &'f dyn Fn(WeightId) -> String,
    is_constant: &'f dyn Fn(ValueId) -> bool,
    names: BTreeMap<ValueId, String>,
    lines: Vec<String>,
}

impl Writer<'_> {
    fn block(&mut self, id: BlockId) -> Vec<String> {
        for (i, &v) in self.f.block(id).inputs.iter().enumerate() {
            self.name(v, format!("argument {i} at {}", self.lines.len()));
        }
        for &op in &self.f.block(id).ops {
            self.operation(op);
        }
        let outputs = self.f.block(id).outputs.iter();
        outputs.map(|v| self.names[v].clone()).collect()
    }

    fn operation(&mut self, id: OpId) {
        let op = self.f.op(id);
        let blocks: Vec<_> = op.blocks.iter().map(|&b| self.block(b)).collect();
        let text = format!("{} {blocks:?}", self.describe(op));
        let known = op.outputs.iter().all(|&v| (self.is_constant)(v));
        if known && !op.outputs.is_empty() && op.blocks.is_empty() {
            for (i, &v) in op.outputs.iter().enumerate() {
                self.name(v, format!("({text}).{i}"));
            }
            return;
        }
        let n = self.lines.len();
        for (i, &v) in op.outputs.iter().enumerate() {
            self.name(v, format!("%{n}.{i}"));
        }
        let types = op.outputs.iter().map(|v| self.names[v].clone());
        let types = types.collect::<Vec<_>>().join(", ");
        self.lines.push(format!("{types} = {text}"));
    }

    fn name(&mut self, v: ValueId, name: String) {
        self.names
            .insert(v, format!("{name}: {}", self.f.value(v).ty));
    }

    fn describe(&self, op: &Operation) -> String {
        let operand = |o: &Operand| match o {
            Operand::Value(v) => self.names[v].clone(),
            Operand::Constant(c) => self.constant(c),
        };
        let inputs = op.inputs.iter().map(|(k, list)| {
            let list: Vec<_> = list.iter().map(operand).collect();
            format!("{k}: {}", list.join(", "))
        });
        let attributes = op.attributes.iter().filter(|(k, _)| *k != "name");
        let attributes = attributes.map(|(k, c)| format!("{k} = {}", self.constant(c)));
        let all: Vec<_> = inputs.chain(attributes).collect();
        format!("{}({})", op.kind, all.join("; "))
    }

    fn constant(&self, c: &Constant) -> String {
        match &c.data {
            Data::Weight(id) => format!("{}: {}", (self.weight)(*id), c.ty),
            data => format!("{data:?}: {}", c.ty),
        }
    }
}
