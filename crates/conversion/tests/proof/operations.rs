//! Programs that are not the model's.

use std::fs;

use conversion::proof::{Finding, Kind};
use mil::Constant;
use mil::ops::Op;
use mlpackage::MODEL_PATH;
use synthetic::Preset;

use crate::fixture::*;

#[test]
fn one_byte_of_a_constant() {
    let dir = bare();
    let package = dir.path().join(CHUNKS[0]);
    let before = fs::read(package.join(MODEL_PATH)).unwrap();
    let mut changed = String::new();
    edit(&package, |program| {
        let main = main_mut(program);
        let epsilon = main.value_named("epsilon").unwrap();
        let ops = main.block(main.body().unwrap()).ops.clone();
        let makes = |op: &&mil::OpId| main.op(**op).outputs == [epsilon];
        let takes = |op: &&mil::OpId| main.op(**op).operand_values().any(|v| v == epsilon);
        let (maker, user) = (ops.iter().find(makes), ops.iter().find(takes));
        changed = main.value(main.op(*user.unwrap()).outputs[0]).name.clone();
        let value = main.op_mut(*maker.unwrap()).attributes.get_mut("val");
        let value = value.unwrap();
        let bits = half::f16::from_f64(value.as_floats().unwrap()[0]).to_bits() ^ 1;
        *value = Constant::fp16(half::f16::from_bits(bits).to_f64());
    });
    let after = fs::read(package.join(MODEL_PATH)).unwrap();
    assert_eq!(before.len(), after.len());
    let differ = before.iter().zip(&after).filter(|(a, b)| a != b);
    assert_eq!(differ.count(), 1);
    let found = findings(dir.path());
    let finding = &found[0];
    assert_eq!((finding.kind, finding.stage), (Kind::Operation, Some(1)));
    assert_eq!(finding.operation.as_deref(), Some(&*changed));
    let file = format!("{}/{MODEL_PATH}", CHUNKS[0]);
    assert_eq!(finding.file.as_deref(), Some(&*file));
    let is_that = |f: &Finding| f.what == "operand `epsilon`" && f.stage == Some(1);
    assert!(found.iter().all(is_that), "{found:#?}");
    let sides = ("fp16(1.0013580322265625e-5)", "fp16(1.0073184967041016e-5)");
    assert_eq!((&*finding.expected, &*finding.found), sides);
}

#[test]
fn an_operation_changed_added_removed_or_wired_differently() {
    struct Case {
        kind: Kind,
        what: &'static str,
        change: fn(&mut mil::Program),
    }
    let cases = [
        Case {
            kind: Kind::Operation,
            what: "another operation",
            change: |program| {
                let op = first(program, Op::Silu);
                main_mut(program).op_mut(op).kind = Op::Sigmoid.into();
            },
        },
        Case {
            kind: Kind::ExtraOperation,
            what: "the model has no such operation",
            change: add_abs,
        },
        Case {
            kind: Kind::MissingOperation,
            what: "an operation of the model is missing",
            change: remove_silu,
        },
        Case {
            kind: Kind::Operation,
            what: "operand `y`",
            change: |program| {
                let op = first(program, Op::Add);
                let op = main_mut(program).op_mut(op);
                let (x, y) = (op.inputs["x"].clone(), op.inputs["y"].clone());
                op.inputs.insert("x".into(), y);
                op.inputs.insert("y".into(), x);
            },
        },
    ];
    for Case { kind, what, change } in cases {
        let dir = bare();
        edit(&dir.path().join(CHUNKS[2]), change);
        let found = findings(dir.path());
        let named = found.iter().find(|f| f.kind == kind && f.what == what);
        let finding = named.unwrap_or_else(|| panic!("{what}: {found:#?}"));
        assert!(finding.operation.is_some());
        // What is missing is in no chunk.
        let stage = (kind != Kind::MissingOperation).then_some(3);
        assert_eq!(finding.stage, stage);
        // The rest is aligned again.
        assert!(found.len() <= 3, "{what}: {found:#?}");
        // In the chain's own terms all is well.
        assert_holds(&report(dir.path(), None));
    }
}

/// An operation behind the first convolution.
fn add_abs(program: &mut mil::Program) {
    let op = first(program, Op::Conv);
    let main = main_mut(program);
    let old = main.op(op).outputs[0];
    let ty = main.value(old).ty.clone();
    let new = main.add_value("abs_0", ty);
    let mut abs = mil::Operation::new(Op::Abs);
    abs.inputs.insert("x".into(), vec![old.into()]);
    abs.outputs.push(new);
    let body = main.body().unwrap();
    let ops = main.block(body).ops.clone();
    let at = ops.iter().position(|&o| o == op).unwrap();
    for &later in &ops[at + 1..] {
        replace(main.op_mut(later), old, new);
    }
    let abs = main.add_op(abs);
    main.block_mut(body).ops.insert(at + 1, abs);
}

fn remove_silu(program: &mut mil::Program) {
    let op = first(program, Op::Silu);
    let main = main_mut(program);
    let from = main.op(op).outputs[0];
    let to = main.op(op).operand_values().next().unwrap();
    let body = main.body().unwrap();
    for later in main.block(body).ops.clone() {
        replace(main.op_mut(later), from, to);
    }
    main.block_mut(body).ops.retain(|&o| o != op);
}

#[test]
fn another_model() {
    let dir = tempfile::tempdir().unwrap();
    let other = open(&checkpoint(dir.path(), Preset::TinySd15, 1));
    let report = report(&MADE.packages, Some(&other));
    for kind in [Kind::Interface, Kind::Operation, Kind::ExtraOperation] {
        assert!(report.counts.contains_key(&kind), "{report:#?}");
    }
    assert!(report.findings.len() < 100);
}
