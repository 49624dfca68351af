//! Control flow and states.

use std::cell::{Cell, RefCell};

use mil::text::parse;
use mil::{Program, WeightError, WeightId, WeightStore};
use mil_eval::{
    Error, NoWeights, Observer, Options, Prepared, Rounding, RunOptions, Statistics, Step, Tensor,
};

use crate::tensors::{Tensors, same_bits, threads};

fn program(functions: &str) -> Program {
    let text = format!("program(1.3)\n{{\n{functions}\n}}\n");
    parse(&text).unwrap().program
}

fn given(list: &[(&str, Tensor)]) -> Tensors {
    let own = |(name, tensor): &(&str, Tensor)| ((*name).to_owned(), tensor.clone());
    list.iter().map(own).collect()
}

fn floats(v: &[f32]) -> Tensor {
    Tensor::f32(&[v.len()], v.to_vec())
}

fn int(n: i32) -> Tensor {
    Tensor::i32(&[], vec![n])
}

fn truth(b: bool) -> Tensor {
    Tensor::bool(&[], vec![b])
}

fn prepared(program: &Program) -> Prepared<'_> {
    Prepared::new(program, "main", &NoWeights, Options::default()).unwrap()
}

/// What a program makes, with any number of threads.
fn run(program: &Program, inputs: &[(&str, Tensor)]) -> Tensors {
    let (prepared, inputs) = (prepared(program), given(inputs));
    let found = prepared.run(&inputs, &threads(1)).unwrap();
    for n in 2..4 {
        let other = prepared.run(&inputs, &threads(n)).unwrap();
        assert!(same_bits(&found, &other), "{n} threads");
    }
    found
}

fn failed(program: &Program, inputs: &[(&str, Tensor)]) -> String {
    let error = prepared(program).run(&given(inputs), &threads(1));
    error.unwrap_err().to_string()
}

/// `v` grows to `n` pieces, every other one negated; the condition and the bodies take values from around them.
const GROWING: &str = "func main<ios16>(tensor<fp32, [2]> x, int32 n) {
    tensor<fp32, [2]> twice = add(x = x, y = x);
    int32 i_end, tensor<fp32, [?]> v_end = while_loop(loop_vars = (int32(0), x))
        (int32 i, tensor<fp32, [?]> v) {
            bool more = less(x = i, y = n);
        } -> (more)
        (int32 i, tensor<fp32, [?]> v) {
            int32 next = add(x = i, y = int32(1));
            int32 half = floor_div(x = i, y = int32(2));
            int32 doubled = mul(x = half, y = int32(2));
            bool is_even = equal(x = doubled, y = i);
            tensor<fp32, [2]> piece = cond(pred = is_even)
                () {
                } -> (twice)
                () {
                    tensor<fp32, [2]> minus = mul(x = twice, y = fp32(-0x1p+0));
                } -> (minus);
            tensor<fp32, [?]> longer = concat(axis = int32(0), interleave = bool(false), values = (v, piece));
        } -> (next, longer);
    tensor<fp32, [?]> out = relu(x = v_end);
} -> (out, i_end);";

#[test]
fn loops_go_on_while_their_condition_holds() {
    let program = program(GROWING);
    let x = [1.0, -3.0];
    for (n, expected) in [
        (0, vec![1.0, 0.0]),
        (-4, vec![1.0, 0.0]),
        (1, vec![1.0, 0.0, 2.0, 0.0]),
        (3, vec![1.0, 0.0, 2.0, 0.0, 0.0, 6.0, 2.0, 0.0]),
    ] {
        let found = run(&program, &[("x", floats(&x)), ("n", int(n))]);
        assert_eq!(found["out"], floats(&expected), "{n}");
        assert_eq!(found["i_end"], int(n.max(0)), "{n}");
    }
}

#[test]
fn one_branch_runs_and_gives_anything_in_scope() {
    let program = program(
        "func main<ios16>(bool p, bool q, tensor<fp32, [2]> x, tensor<fp32, [2]> y) {
            tensor<fp32, [2]> c = const()[val = tensor<fp32, [2]>([0x1p+3, 0x1p+4])];
            tensor<fp32, [2]> a = cond(pred = p)
                () {
                    tensor<fp32, [2]> in = cond(pred = q)
                        () {
                            tensor<fp32, [2]> deep = add(x = x, y = c);
                        } -> (deep)
                        () {
                        } -> (c);
                } -> (in)
                () {
                } -> (x);
            tensor<fp32, [2]> out = sub(x = a, y = y);
        } -> (out);",
    );
    let (x, y) = (floats(&[1.0, 2.0]), floats(&[1.0, 1.0]));
    for (p, q, expected) in [
        (true, true, [8.0, 17.0]),
        (true, false, [7.0, 15.0]),
        (false, true, [0.0, 1.0]),
    ] {
        let inputs = [
            ("p", truth(p)),
            ("q", truth(q)),
            ("x", x.clone()),
            ("y", y.clone()),
        ];
        assert_eq!(run(&program, &inputs)["out"], floats(&expected), "{p} {q}");
    }
}

#[test]
fn an_initial_value_and_one_from_around_stay_as_they_are() {
    // `y` is the loop variable's first value, taken within, and taken after: nothing may write over it.
    let program = program(
        "func main<ios16>(tensor<fp32, [2]> x) {
            tensor<fp32, [2]> y = relu(x = x);
            int32 i_end, tensor<fp32, [2]> v_end = while_loop(loop_vars = (int32(2), y))
                (int32 i, tensor<fp32, [2]> v) {
                    bool more = greater(x = i, y = int32(0));
                } -> (more)
                (int32 i, tensor<fp32, [2]> v) {
                    int32 next = sub(x = i, y = int32(1));
                    tensor<fp32, [2]> square = square(x = v);
                    tensor<fp32, [2]> sum = add(x = square, y = y);
                } -> (next, sum);
            tensor<fp32, [2]> out = sub(x = v_end, y = y);
        } -> (out);",
    );
    // ((2² + 2)² + 2) - 2
    let found = run(&program, &[("x", floats(&[2.0, 1.0]))]);
    assert_eq!(found["out"], floats(&[36.0, 4.0]));
}

#[test]
fn what_nested_blocks_make_is_rounded() {
    let program = program(
        "func main<ios16>(tensor<fp16, [1]> x) {
            int32 i_end, tensor<fp16, [1]> v_end = while_loop(loop_vars = (int32(0), x))
                (int32 i, tensor<fp16, [1]> v) {
                    bool more = less(x = i, y = int32(2));
                } -> (more)
                (int32 i, tensor<fp16, [1]> v) {
                    int32 next = add(x = i, y = int32(1));
                    tensor<fp16, [1]> sum = add(x = v, y = fp16(0x1p-1));
                } -> (next, sum);
        } -> (v_end);",
    );
    let inputs = given(&[("x", floats(&[2048.0]))]);
    let prepared = prepared(&program);
    for (rounding, expected) in [(Rounding::None, 2049.0), (Rounding::Fp16, 2048.0)] {
        let options = RunOptions {
            rounding,
            ..threads(2)
        };
        let found = prepared.run(&inputs, &options).unwrap();
        assert_eq!(found["v_end"], floats(&[expected]), "{rounding:?}");
    }
}

#[test]
fn shapes_are_checked_where_the_program_leaves_them_open() {
    let program = program(
        "func main<ios16>(tensor<fp32, [?]> x, bool p) {
            tensor<fp32, [2]> a = cond(pred = p) () {} -> (x) () {} -> (x);
        } -> (a);",
    );
    let inputs = |x: &[f32]| [("x", floats(x)), ("p", truth(true))];
    assert_eq!(
        run(&program, &inputs(&[1.0, 2.0]))["a"],
        floats(&[1.0, 2.0])
    );
    assert_eq!(
        failed(&program, &inputs(&[1.0])),
        "function `main`, `a = cond(pred = p)`: made a tensor of shape [1], declared `tensor<fp32, [2]>`"
    );
    let program = self::program(
        "func main<ios16>(tensor<bool, [?]> p, tensor<fp32, [2]> x) {
            tensor<fp32, [2]> a = cond(pred = p) () {} -> (x) () {} -> (x);
        } -> (a);",
    );
    let p = Tensor::bool(&[2], vec![true, false]);
    assert_eq!(
        failed(&program, &[("p", p), ("x", floats(&[1.0, 2.0]))]),
        "function `main`, `a = cond(pred = p)`: `pred` holds 2 truth values, expected one"
    );
}

#[test]
fn elements_are_checked_where_the_table_cannot_tell() {
    let program = program(
        "func main<ios16>(tensor<fp32, [?]> x) {
            tensor<fp16, [?]> y = cast(dtype = string(\"int32\"), x = x);
        } -> (y);",
    );
    let message = failed(&program, &[("x", floats(&[1.0]))]);
    assert!(
        message.ends_with("made integers, declared `tensor<fp16, [?]>`"),
        "{message}"
    );
}

const ENDLESS: &str = "func main<ios16>(int32 n, bool p) {
    int32 m = while_loop(loop_vars = (n)) (int32 i) {} -> (p) (int32 i) {} -> (i);
} -> (m);";

#[test]
fn an_endless_loop_ends_with_an_error() {
    let program = program(ENDLESS);
    assert_eq!(
        failed(&program, &[("n", int(1)), ("p", truth(true))]),
        "function `main`, `m = while_loop(loop_vars = n)`: goes on after 100000 iterations, the most that are computed"
    );
}

#[test]
fn a_loop_can_be_stopped_even_where_it_computes_nothing() {
    let program = program(ENDLESS);
    let asked = Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 100
    };
    let options = RunOptions {
        cancelled: Some(&cancelled),
        ..threads(1)
    };
    let inputs = given(&[("n", int(1)), ("p", truth(true))]);
    let stopped = prepared(&program).run(&inputs, &options);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(asked.get(), 101);
}

#[test]
fn unknown_operations_of_nested_blocks_are_named_before_anything_runs() {
    let program = program(
        "func main<ios16>(bool p, fp32 x) {
            fp32 a = topk(x = x);
            fp32 b = cond(pred = p)
                () {
                    fp32 c = cond(pred = p) () { fp32 d = lstm(x = x); } -> (d) () {} -> (x);
                } -> (c)
                () {
                    fp32 unused = topk(x = x);
                    fp32 e = gru(x = x);
                } -> (e);
        } -> (b);",
    );
    match Prepared::new(&program, "main", &NoWeights, Options::default()) {
        Err(Error::UnknownOperations { operations, .. }) => {
            assert_eq!(operations, ["gru", "lstm", "topk"]);
        }
        other => panic!("{other:?}"),
    }
}

/// Notes every operation with its depth.
#[derive(Default)]
struct Seen(RefCell<Vec<(String, usize)>>);

impl Observer for Seen {
    fn computed(&self, step: &Step<'_>) {
        self.0.borrow_mut().push((step.kind.to_owned(), step.depth));
    }
}

#[test]
fn nested_operations_are_seen_as_often_as_they_run() {
    let program = program(GROWING);
    let prepared = prepared(&program);
    assert_eq!(prepared.num_operations(), 3);
    let inputs = given(&[("x", floats(&[1.0, 2.0])), ("n", int(2))]);
    let (seen, statistics) = (Seen::default(), Statistics::default());
    for observer in [&seen as &dyn Observer, &statistics] {
        let options = RunOptions {
            observer: Some(observer),
            ..threads(1)
        };
        prepared.run(&inputs, &options).unwrap();
    }
    let body = |piece: &[(&'static str, usize)]| {
        let start = ["less", "add", "floor_div", "mul", "equal"].map(|kind| (kind, 1));
        [&start[..], piece, &[("cond", 1), ("concat", 1)]].concat()
    };
    let expected = [
        &[("add", 0)][..],
        &body(&[]),
        &body(&[("mul", 2)]),
        &[("less", 1), ("while_loop", 0), ("relu", 0)],
    ]
    .concat();
    let found = seen.0.into_inner();
    let found: Vec<_> = found.iter().map(|(kind, d)| (kind.as_str(), *d)).collect();
    assert_eq!(found, expected);
    let tallies = statistics.tallies();
    assert_eq!((tallies["less"].count, tallies["cond"].count), (3, 2));
}

/// Four bytes of `fp16`, 1 and 2, or a table of palette indices.
struct Weights;

impl WeightStore for Weights {
    fn len_bytes(&self, _: WeightId) -> u64 {
        4
    }

    fn read_at(&self, _: WeightId, offset: u64, out: &mut [u8]) -> Result<(), WeightError> {
        out.copy_from_slice(&[0x00, 0x3c, 0x00, 0x40][offset as usize..][..out.len()]);
        Ok(())
    }

    fn name(&self, _: WeightId) -> String {
        String::new()
    }
}

#[test]
fn weights_of_nested_blocks_are_read_as_any_other() {
    let program = program(
        "func main<ios16>(bool p, tensor<fp16, [2]> x) {
            tensor<fp16, [2]> w = const()[val = tensor<fp16, [2]>(BLOBFILE(path = string(\"w\"), offset = uint64(64)))];
            int32 n, tensor<fp16, [2]> looped = while_loop(loop_vars = (int32(0), w))
                (int32 i, tensor<fp16, [2]> v) {
                    bool more = less(x = i, y = int32(2));
                } -> (more)
                (int32 i, tensor<fp16, [2]> v) {
                    int32 next = add(x = i, y = int32(1));
                    tensor<fp16, [2]> u = const()[val = tensor<fp16, [2]>(BLOBFILE(path = string(\"w\"), offset = uint64(64)))];
                    tensor<fp16, [2]> sum = add(x = v, y = u);
                } -> (next, sum);
            tensor<fp16, [2]> a = cond(pred = p)
                () {
                    tensor<fp16, [2]> cast = constexpr_cast(source_val = x_w, output_dtype = string(\"fp16\"));
                } -> (cast)
                () {
                } -> (w);
            tensor<fp16, [2]> out = add(x = a, y = looped);
        } -> (out);"
            .replace("x_w", "tensor<fp32, [2]>([0x1p+3, 0x1p+4])")
            .as_str(),
    );
    let prepared = Prepared::new(&program, "main", &Weights, Options::default()).unwrap();
    for (p, expected) in [(true, [11.0, 22.0]), (false, [4.0, 8.0])] {
        let inputs = given(&[("p", truth(p)), ("x", floats(&[0.0, 0.0]))]);
        for rounding in [Rounding::None, Rounding::Fp16] {
            let options = RunOptions {
                rounding,
                ..threads(2)
            };
            let found = prepared.run(&inputs, &options).unwrap();
            assert_eq!(found["out"], floats(&expected), "{p}");
        }
    }
}

/// Reads before and after a write, writes in a loop and in a branch.
const STATEFUL: &str =
    "func main<ios18>(tensor<fp16, [2]> x, int32 n, state<tensor<fp16, [2]>> s) {
    tensor<fp16, [2]> before = read_state(input = s);
    write_state(data = x, input = s)[name = string(\"first\")];
    int32 m = while_loop(loop_vars = (int32(0)))
        (int32 i) {
            bool more = less(x = i, y = n);
        } -> (more)
        (int32 i) {
            int32 next = add(x = i, y = int32(1));
            tensor<fp16, [2]> held = read_state(input = s);
            tensor<fp16, [2]> sum = add(x = held, y = x);
            write_state(data = sum, input = s)[name = string(\"again\")];
        } -> (next);
    tensor<fp16, [2]> after = read_state(input = s);
    write_state(data = before, input = s)[name = string(\"last\")];
} -> (before, after);";

#[test]
fn a_state_holds_what_was_written_to_it_until_the_run_ends() {
    let program = program(STATEFUL);
    let prepared = prepared(&program);
    assert_eq!(prepared.inputs().collect::<Vec<_>>(), ["x", "n"]);
    assert_eq!(prepared.states().collect::<Vec<_>>(), ["s"]);
    let x = floats(&[1.5, -2.0]);
    // Whatever ran before, each run begins anew.
    for (n, after) in [(0, [1.5, -2.0]), (2, [4.5, -6.0]), (0, [1.5, -2.0])] {
        let found = run(&program, &[("x", x.clone()), ("n", int(n))]);
        assert_eq!(found["before"], floats(&[0.0, 0.0]), "{n}");
        assert_eq!(found["after"], floats(&after), "{n}");
    }
    let inputs = [("x", x), ("n", int(0)), ("s", floats(&[7.0, 8.0]))];
    assert_eq!(run(&program, &inputs)["before"], floats(&[7.0, 8.0]));
}

#[test]
fn a_state_is_rounded_and_has_its_type() {
    let program = program(STATEFUL);
    let prepared = prepared(&program);
    let options = RunOptions {
        rounding: Rounding::Fp16,
        ..threads(1)
    };
    let mut inputs = given(&[
        ("x", floats(&[2048.0, 1.0])),
        ("n", int(0)),
        ("s", floats(&[2049.0, 1.0])),
    ]);
    let found = prepared.run(&inputs, &options).unwrap();
    assert_eq!(found["before"], floats(&[2048.0, 1.0]));
    inputs.insert("s".to_owned(), floats(&[1.0]));
    let error = prepared.run(&inputs, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "function `main`: input `s` is `tensor<fp32, [1]>`, expected `state<tensor<fp16, [2]>>`"
    );
}

#[test]
fn a_branch_that_writes_to_a_state_runs_though_nothing_takes_what_it_gives() {
    let program = program(
        "func main<ios18>(bool p, tensor<fp16, [2]> x, state<tensor<fp16, [2]>> s) {
            tensor<fp16, [2]> unused = cond(pred = p)
                () {
                    write_state(data = x, input = s)[name = string(\"write\")];
                } -> (x)
                () {
                } -> (x);
            tensor<fp16, [2]> out = read_state(input = s);
        } -> (out);",
    );
    for (p, expected) in [(true, [1.0, 2.0]), (false, [0.0, 0.0])] {
        let inputs = [("p", truth(p)), ("x", floats(&[1.0, 2.0]))];
        assert_eq!(run(&program, &inputs)["out"], floats(&expected));
    }
}
