//! What cannot be prepared or run, and what is said about it.

use std::cell::Cell;
use std::collections::BTreeMap;

use mil::text::parse;
use mil::{Program, WeightError, WeightId, WeightStore};
use mil_eval::{Error, NoWeights, Options, Prepared, RunOptions, Statistics, Tensor};

use crate::tensors::{Tensors, threads};

fn program(body: &str) -> Program {
    parse(&format!("program(1.3)\n{{\n{body}\n}}\n"))
        .unwrap()
        .program
}

fn inputs(list: &[(&str, Tensor)]) -> Tensors {
    list.iter()
        .map(|(n, t)| ((*n).to_owned(), t.clone()))
        .collect()
}

const TWICE: &str = "func main<ios16>(tensor<fp16, [2]> x) {
    tensor<fp16, [2]> y = add(x = x, y = x);
    tensor<fp16, [2]> z = sqrt(x = y);
} -> (z);";

fn message(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

#[test]
fn every_unknown_operation_is_listed() {
    let program = program(
        "func main<ios16>(tensor<fp16, [2]> x) {
            tensor<fp16, [2]> a = topk(x = x);
            tensor<fp16, [2]> b = `lstm\\n`(x = a);
            tensor<fp16, [2]> c = topk(x = b);
        } -> (c);",
    );
    let error = Prepared::new(&program, "main", &NoWeights, Options::default()).unwrap_err();
    assert_eq!(
        message(&error),
        "function `main` has operations that are not known here: `lstm\\n`, `topk`"
    );
}

#[test]
fn a_program_that_breaks_rules_is_not_prepared() {
    let program = program(
        "func main<ios16>(tensor<fp16, [2]> x) {\n tensor<fp16, [3]> y = relu(x = x);\n} -> (y);",
    );
    let error = Prepared::new(&program, "main", &NoWeights, Options::default()).unwrap_err();
    assert!(
        message(&error).contains("the program breaks 1 rule(s)"),
        "{error}"
    );
    let program = self::program(TWICE);
    let error = Prepared::new(&program, "second", &NoWeights, Options::default()).unwrap_err();
    assert_eq!(message(&error), "no function `second`, found `main`");
}

#[test]
fn inputs_must_be_there_and_fit() {
    let program = program(TWICE);
    let prepared = Prepared::new(&program, "main", &NoWeights, Options::default()).unwrap();
    for (given, expected) in [
        (
            inputs(&[]),
            "function `main`: input `x` is missing, found none",
        ),
        (
            inputs(&[("y", Tensor::f32(&[2], vec![0.0; 2]))]),
            "function `main`: input `x` is missing, found `y`",
        ),
        (
            inputs(&[("x", Tensor::f32(&[3], vec![0.0; 3]))]),
            "function `main`: input `x` is `tensor<fp32, [3]>`, expected `tensor<fp16, [2]>`",
        ),
        (
            inputs(&[("x", Tensor::i32(&[2], vec![0; 2]))]),
            "function `main`: input `x` is `tensor<int32, [2]>`, expected `tensor<fp16, [2]>`",
        ),
        (
            inputs(&[("x", Tensor::f32(&[2], vec![0.0; 3]))]),
            "function `main`: input `x` is `a tensor of shape [2] with another number of elements`, expected \
             `tensor<fp16, [2]>`",
        ),
    ] {
        let error = prepared.run(&given, &threads(1)).unwrap_err();
        assert_eq!(message(&error), expected);
    }
}

/// A store whose weight has a length but no bytes.
struct Broken;

impl WeightStore for Broken {
    fn len_bytes(&self, _: WeightId) -> u64 {
        4
    }

    fn read_at(&self, _: WeightId, _: u64, _: &mut [u8]) -> Result<(), WeightError> {
        Err("the disk is gone".into())
    }

    fn name(&self, _: WeightId) -> String {
        "w\n".to_owned()
    }
}

#[test]
fn what_happens_on_the_way_names_the_operation() {
    let weighted = program(
        "func main<ios16>(tensor<fp16, [2]> x) {
            tensor<fp16, [2]> w = const()[val = tensor<fp16, [2]>(BLOBFILE(path = string(\"w\"), offset = uint64(64)))];
            tensor<fp16, [2]> y = add(x = x, y = w);
        } -> (y);",
    );
    let prepared = Prepared::new(&weighted, "main", &Broken, Options::default()).unwrap();
    let given = inputs(&[("x", Tensor::f32(&[2], vec![1.0, 2.0]))]);
    let error = prepared.run(&given, &threads(2)).unwrap_err();
    assert_eq!(
        message(&error),
        "function `main`: weight `w\\n` of `y = add(x = x, y = w)` cannot be read: the disk is gone"
    );
    let picked = program(
        "func main<ios16>(tensor<fp16, [2]> x, tensor<int32, [1]> i) {
            tensor<fp16, [1]> y = gather(indices = i, x = x);
        } -> (y);",
    );
    let prepared = Prepared::new(&picked, "main", &NoWeights, Options::default()).unwrap();
    let given = inputs(&[
        ("x", Tensor::f32(&[2], vec![1.0, 2.0])),
        ("i", Tensor::i32(&[1], vec![2])),
    ]);
    let error = prepared.run(&given, &threads(2)).unwrap_err();
    assert_eq!(
        message(&error),
        "function `main`, `y = gather(indices = i, x = x)`: index 2 of an axis of 2"
    );
}

#[test]
fn a_run_can_be_stopped_and_watched() {
    let program = program(TWICE);
    let prepared = Prepared::new(&program, "main", &NoWeights, Options::default()).unwrap();
    let given = inputs(&[("x", Tensor::f32(&[2], vec![-1.0, 2.0]))]);
    let asked = Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 1
    };
    let statistics = Statistics::default();
    let options = RunOptions {
        cancelled: Some(&cancelled),
        observer: Some(&statistics),
        ..threads(1)
    };
    assert!(matches!(
        prepared.run(&given, &options),
        Err(Error::Cancelled)
    ));
    assert_eq!(statistics.tallies().keys().collect::<Vec<_>>(), ["add"]);
    let options = RunOptions {
        observer: Some(&statistics),
        ..threads(1)
    };
    prepared.run(&given, &options).unwrap();
    let first = statistics.first_non_finite().unwrap();
    assert_eq!((&*first.name, &*first.kind, first.count), ("z", "sqrt", 1));
    assert_eq!(statistics.tallies()["add"].count, 2);
}

/// Counts what is read of four bytes.
struct Counted(std::sync::atomic::AtomicU32);

impl WeightStore for Counted {
    fn len_bytes(&self, _: WeightId) -> u64 {
        4
    }

    fn read_at(&self, _: WeightId, offset: u64, out: &mut [u8]) -> Result<(), WeightError> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        out.copy_from_slice(&[0x00, 0x3c, 0x00, 0x40][offset as usize..][..out.len()]);
        Ok(())
    }

    fn name(&self, _: WeightId) -> String {
        String::new()
    }
}

#[test]
fn weights_are_read_again_unless_they_are_kept() {
    let program = program(
        "func main<ios16>(tensor<fp16, [2]> x) {
            tensor<fp16, [2]> w = const()[val = tensor<fp16, [2]>(BLOBFILE(path = string(\"w\"), offset = uint64(64)))];
            tensor<fp16, [2]> y = add(x = x, y = w);
        } -> (y);",
    );
    for (kept_weights_bytes, reads) in [(0, 2), (3, 2), (4, 1)] {
        let store = Counted(0.into());
        let prepared =
            Prepared::new(&program, "main", &store, Options { kept_weights_bytes }).unwrap();
        let given = inputs(&[("x", Tensor::f32(&[2], vec![1.0, 1.0]))]);
        for _ in 0..2 {
            let found = prepared.run(&given, &threads(1)).unwrap();
            assert_eq!(
                found,
                BTreeMap::from([("y".to_owned(), Tensor::f32(&[2], vec![2.0, 3.0]))])
            );
        }
        assert_eq!(store.0.into_inner(), reads, "{kept_weights_bytes}");
    }
}
