//! Plans and cuts a chain of operations with weights, for benchmarks: how long does each take, and is it linear?

#![expect(clippy::print_stdout, reason = "a command line program")]

use std::time::Instant;

use mil::ops::Op;
use mil::{Builder, Constant, DataType, Opset, Program, WeightError, WeightId, WeightStore};
use partition::{Count, Options, cut, plan};

const USAGE: &str = "usage: plan_large OPERATIONS CHUNKS";
const WEIGHT_BYTES: u64 = 16;

struct Lengths;

impl WeightStore for Lengths {
    fn len_bytes(&self, _: WeightId) -> u64 {
        WEIGHT_BYTES
    }

    fn read_at(&self, _: WeightId, _: u64, _: &mut [u8]) -> Result<(), WeightError> {
        Err("lengths only".into())
    }

    fn name(&self, weight: WeightId) -> String {
        format!("w{}", weight.0)
    }
}

/// Operations of which each takes a weight of its own, the one before it and one far before it.
fn program(operations: u32) -> Program {
    const FAR: usize = 100;
    let mut b = Builder::new(Opset::CoreMl6);
    let mut values = vec![b.input("x", DataType::Fp16, &[1, 8])];
    for i in 0..operations {
        let w = b.constant("w", Constant::weight(DataType::Fp16, &[1, 8], WeightId(i)));
        let last = values[values.len() - 1];
        let other = if i % 2 == 0 {
            w
        } else {
            values[values.len().saturating_sub(FAR)]
        };
        let y = b.op(Op::Mul, "y", &[("x", last), ("y", other)]);
        values.push(y.expect("two tensors of one shape"));
    }
    b.finish(&[values[values.len() - 1]])
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let made = work();
    println!("{what}: {:.3} s", start.elapsed().as_secs_f64());
    made
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u32> = std::env::args()
        .skip(1)
        .map(|a| a.parse())
        .collect::<Result<_, _>>()?;
    let &[operations, chunks] = &numbers[..] else {
        return Err(USAGE.into());
    };
    let program = timed("build", || program(operations));
    let verified = timed("verify", || mil::verify(&program))?;
    let options = Options {
        count: Count::Exactly(chunks),
        ..Options::default()
    };
    let plan = timed("plan", || plan(&verified, &Lengths, &options))?;
    let programs = timed("cut", || cut(&verified, &plan))?;
    println!("{} chunks", programs.len());
    Ok(())
}
