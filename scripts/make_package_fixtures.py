#!/usr/bin/env python3
"""Makes fixtures/packages/: small packages that coremltools wrote, of every operation, with torch's numbers.

    make_package_fixtures.py [-o fixtures/packages]

Each folder holds model.mlpackage and io.safetensors. README.md of the fixtures says how things are
named; the cases are those of op_cases and compressed_weights.
"""

import argparse
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

import compressed_weights as compressed
import mil_functions  # first, because it silences coremltools
import package_files
from mil_functions import call, mb, package
from op_cases import FAMILIES, ORDER, SEED

import coremltools as ct
import coremltools.optimize.coreml as cto
from coremltools.converters.mil.frontend.milproto.load import load as load_program

MADE_BY = {"made_by": f"coremltools {ct.__version__}, torch {torch.__version__.split('+')[0]}, seed {SEED}"}
FLOATS = {"fp32": np.float32, "fp16": np.float16}


def write(folder, model, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    package_files.save(model, folder / "model.mlpackage")
    save_file(tensors, folder / "io.safetensors", MADE_BY)


def seeded(name, shape):
    """Numbers that fp16 holds exactly."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    return np.round(rng.standard_normal(shape) * 64) / 64


# Operations: a package of all cases of a family


def write_family(folder, family, target, precision):
    floats = FLOATS[precision]
    age = ORDER.index(target)
    cases = [c for c in FAMILIES[family] if ORDER.index(c.since) <= age <= ORDER.index(c.until)]
    inputs, tensors = {}, {}
    for case in cases:
        for name, array in case.inputs().items():
            # Features are floats or int32.
            kind = floats if array.dtype.kind == "f" else np.int32
            inputs[f"{case.name}__{name}"] = (array.shape, kind)
            tensors[f"{case.name}__{name}"] = as_stored(array.astype(kind))
        for name, array in zip(output_names(case), case.expected(floats), strict=True):
            tensors[name] = as_stored(array.reshape(array.shape or (1,)))

    def body(features):
        outputs = []
        for case in cases:
            given = {name: feature(features[f"{case.name}__{name}"], a) for name, a in case.inputs().items()}
            outputs += emit(case, floats, given)
        return outputs

    write(folder, package(target, inputs, body), tensors)


def as_stored(array):
    """As io.safetensors holds it."""
    return np.asarray(array.astype(np.float32 if array.dtype.kind == "f" else np.int32))


def output_names(case):
    count = len(case.expected())
    return [case.name] if count == 1 else [f"{case.name}_{i}" for i in range(count)]


def feature(variable, array):
    return mb.cast(x=variable, dtype="bool") if array.dtype.kind == "b" else variable


def emit(case, floats, given):
    """The case with outputs that can be features: of rank 1 at least, floats or int32."""
    expected = case.expected()
    if all(e.ndim and (e.dtype.kind == "f" or e.dtype == np.int32) for e in expected):
        return call(case, floats, given, name=case.name)
    (inner,) = call(case, floats, given, name=f"{case.name}_inner")
    if expected[0].ndim:
        return [mb.cast(x=inner, dtype="int32", name=case.name)]
    return [mb.expand_dims(x=inner, axes=[0], name=case.name)]


# Compressed weights: a package of one layer per weight


def write_weights(folder, weights, target, precision):
    floats = FLOATS[precision]
    inputs, tensors, dense = {}, {}, {}

    def rng(weight):
        return np.random.default_rng([compressed.SEED, zlib.crc32(weight.name.encode())])

    def find(_):
        for weight in weights:
            dense[weight.name] = compressed.decoded(weight.emit(rng(weight), floats))
        return [mb.const(val=np.float32(0))]

    # Once to learn the weights, and once more with inputs that fit them.
    mil_functions.program(target, {"unused": ((1,), np.float32)}, find)
    for name, weight in dense.items():
        shape = (3, weight.shape[1]) if weight.ndim == 2 else (1, weight.shape[1], 5, 4)
        x = seeded(name, shape)
        inputs[f"{name}__x"] = (shape, floats)
        tensors[f"{name}__x"] = x.astype(np.float32)
        layer = F.linear if weight.ndim == 2 else F.conv2d
        tensors[name] = layer(torch.from_numpy(x), torch.from_numpy(weight)).numpy().astype(np.float32)

    def body(features):
        outputs = []
        for weight in weights:
            value, x = weight.emit(rng(weight), floats), features[f"{weight.name}__x"]
            layer = mb.linear if value.rank == 2 else mb.conv
            outputs.append(layer(x=x, weight=value, name=weight.name))
        return outputs

    write(folder, package(target, inputs, body), tensors)


# Weights as coremltools.optimize compresses them: conv, relu, linear


def plain_model(target, precision):
    floats = FLOATS[precision]

    def body(features):
        kernel, matrix = seeded("kernel", (16, 8, 3, 3)).astype(floats), seeded("matrix", (32, 64)).astype(floats)
        y = mb.relu(x=mb.conv(x=features["x"], weight=kernel, pad_type="same", name="convolved"))
        y = mb.reshape(x=y, shape=[4, 64])
        return [mb.linear(x=y, weight=matrix, bias=seeded("bias", 32).astype(floats), name="out")]

    return package(target, {"x": ((1, 8, 4, 4), floats)}, body)


def optimized(function, configuration, **more):
    def apply(model):
        config = cto.OptimizationConfig(global_config=configuration)
        return function(model, config, **more)

    return apply


QUANTIZER, PALETTIZER = cto.OpLinearQuantizerConfig, cto.OpPalettizerConfig
PRUNE = optimized(cto.prune_weights, cto.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0))
INT8 = QUANTIZER(mode="linear_symmetric", weight_threshold=0)
UINT8 = QUANTIZER(mode="linear", dtype="uint8", weight_threshold=0)
INT4 = QUANTIZER(mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=8, weight_threshold=0)
PALETTE = PALETTIZER(mode="uniform", nbits=4, weight_threshold=0)
GROUPED = PALETTIZER(
    mode="uniform", nbits=3, granularity="per_grouped_channel", group_size=8, weight_threshold=0
)
SCALED = PALETTIZER(
    mode="uniform", nbits=4, granularity="per_grouped_channel", group_size=4, enable_per_channel_scale=True,
    weight_threshold=0,
)  # fmt: skip
TABLE8 = QUANTIZER(mode="linear_symmetric", granularity="per_tensor", weight_threshold=0)
OPTIMIZED = {
    "int8-ios16": ("ios16", [optimized(cto.linear_quantize_weights, INT8)]),
    "uint8-ios17": ("ios17", [optimized(cto.linear_quantize_weights, UINT8)]),
    "palette-ios16": ("ios16", [optimized(cto.palettize_weights, PALETTE)]),
    "sparse-ios16": ("ios16", [PRUNE]),
    "int4-blocks-ios18": ("ios18", [optimized(cto.linear_quantize_weights, INT4)]),
    "palette-groups-ios18": ("ios18", [optimized(cto.palettize_weights, GROUPED)]),
    "palette-scaled-ios18": ("ios18", [optimized(cto.palettize_weights, SCALED)]),
    "palette-int8-table-ios18": (
        "ios18",
        [
            optimized(cto.palettize_weights, GROUPED),
            optimized(cto.linear_quantize_weights, TABLE8, joint_compression=True),
        ],
    ),
    "sparse-int8-ios18": (
        "ios18",
        [PRUNE, optimized(cto.linear_quantize_weights, INT8, joint_compression=True)],
    ),
    "sparse-palette-ios18": (
        "ios18",
        [PRUNE, optimized(cto.palettize_weights, PALETTE, joint_compression=True)],
    ),
}


def write_optimized(folder, target, steps, precision):
    model = plain_model(target, precision)
    for step in steps:
        model = step(model)
    x = seeded("x", (1, 8, 4, 4))
    weights = layer_weights(model)
    y = torch.relu(F.conv2d(torch.from_numpy(x), weights["conv"], padding="same"))
    out = F.linear(y.reshape(4, 64), weights["linear"], torch.from_numpy(seeded("bias", 32)))
    write(folder, model, {"x": x.astype(np.float32), "out": out.numpy().astype(np.float32)})


def layer_weights(model):
    """The weight of each kind of layer, decompressed."""
    spec = model.get_spec()
    program = load_program(spec, spec.specificationVersion, model.weights_dir)
    return {
        op.op_type: torch.from_numpy(compressed.double(compressed.decoded(op.weight)))
        for op in program.functions["main"].operations
        if op.op_type in ("conv", "linear")
    }


# Control flow


def write_cond(folder):
    """`cond` both ways, one inside another, on values from outside; the package is the same for both."""

    def body(features):
        x = features["x"]
        flag = mb.squeeze(x=mb.cast(x=features["flag"], dtype="bool"), axes=[0])
        positive = mb.greater(x=mb.reduce_sum(x=x), y=0.0)

        def inner():
            return mb.cond(
                pred=positive,
                _true_fn=lambda: mb.add(x=x, y=1.0),
                _false_fn=lambda: mb.sub(x=x, y=1.0),
            )

        chosen = mb.cond(
            pred=flag, _true_fn=lambda: mb.mul(x=x, y=2.0), _false_fn=lambda: mb.square(x=x), name="chosen"
        )
        nested = mb.cond(pred=flag, _true_fn=inner, _false_fn=lambda: mb.identity(x=x), name="nested")
        return [chosen, nested]

    model = package("ios16", {"x": ((2, 3), np.float32), "flag": ((1,), np.int32)}, body)
    x = seeded("control", (2, 3))
    for name, flag in (("true", True), ("false", False)):
        nested = (x + 1 if x.sum() > 0 else x - 1) if flag else x
        found = {"x": x, "chosen": 2 * x if flag else x * x, "nested": nested}
        tensors = {key: array.astype(np.float32) for key, array in found.items()}
        write(folder / f"cond-{name}-ios16-fp32", model, {**tensors, "flag": np.array([flag], np.int32)})


def write_loop(folder):
    """`while_loop` over a number and a tensor, with a value from outside."""

    def body(features):
        x, count = features["x"], mb.squeeze(x=features["count"], axes=[0])
        steps, value = mb.while_loop(
            _cond=lambda i, v: mb.greater(x=i, y=0),
            _body=lambda i, v: (mb.sub(x=i, y=1), mb.add(x=mb.mul(x=v, y=0.5), y=x)),
            loop_vars=(count, x),
        )
        return [mb.identity(x=value, name="looped"), mb.expand_dims(x=steps, axes=[0], name="steps")]

    x = seeded("control", (2, 3))
    looped = x
    for _ in range(3):
        looped = looped * 0.5 + x
    tensors = {name: array.astype(np.float32) for name, array in {"x": x, "looped": looped}.items()}
    tensors |= {name: np.array([n], np.int32) for name, n in {"count": 3, "steps": 0}.items()}
    inputs = {"x": ((2, 3), np.float32), "count": ((1,), np.int32)}
    write(folder / "loop-ios16-fp32", package("ios16", inputs, body), tensors)


def write_generation(folder):
    """`while_loop` over a sequence that grows, as a decoder's does, with a `cond` inside and compressed weights in both."""
    rng = np.random.default_rng([SEED, zlib.crc32(b"generation")])
    palette = rng.integers(-8, 8, 16).astype(np.float16) / 8
    indices = rng.integers(0, 16, (4, 4)).astype(np.uint8)

    def weight(order):
        packed = np.packbits(((order[:, None] >> np.arange(4)) & 1).astype(np.uint8), bitorder="little")
        return mb.constexpr_lut_to_dense(indices=packed, lut=palette, shape=np.array([4, 4], np.uint32))

    def body(features):
        count = mb.squeeze(x=features["count"], axes=[0])

        def step(i, sequence):
            last = mb.slice_by_index(x=sequence, begin=[-1, 0], end=[0, 0], end_mask=[True, True])
            y = mb.linear(x=last, weight=weight(indices.reshape(-1)))
            is_even = mb.equal(x=mb.mod(x=i, y=2), y=0)
            y = mb.cond(
                pred=is_even,
                _true_fn=lambda: mb.tanh(x=y),
                _false_fn=lambda: mb.linear(x=mb.sigmoid(x=y), weight=weight(indices.T.reshape(-1))),
            )
            return mb.add(x=i, y=1), mb.concat(values=[sequence, y], axis=0)

        _, sequence = mb.while_loop(
            _cond=lambda i, _: mb.less(x=i, y=count), _body=step, loop_vars=(np.int32(0), features["x"])
        )
        return [mb.identity(x=sequence, name="sequence")]

    x, count = seeded("generation", (1, 4)), 5
    matrix = torch.from_numpy(palette.astype(np.float64))[torch.from_numpy(indices.astype(np.int64))]
    sequence = [torch.from_numpy(x)]
    for i in range(count):
        y = F.linear(sequence[-1], matrix)
        sequence.append(torch.tanh(y) if i % 2 == 0 else F.linear(torch.sigmoid(y), matrix.T))
    tensors = {"x": x, "sequence": torch.cat(sequence).numpy()}
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
    inputs = {"x": ((1, 4), np.float16), "count": ((1,), np.int32)}
    model = package("ios16", inputs, body)
    write(folder / "generation-ios16-fp16", model, tensors | {"count": np.array([count], np.int32)})


def write_choice(folder):
    """`cond` between a convolution and a matrix product, each with its weights inside, on the sign of a mean."""

    def body(features):
        x = features["x"]
        rises = mb.greater(x=mb.reduce_mean(x=x), y=np.float16(0))

        def flat():
            y = mb.matmul(x=x, y=seeded("choice.matrix", (4, 4)).astype(np.float16))
            return mb.softmax(x=y, axis=-1), mb.reduce_sum(x=y, axes=[1], keep_dims=False)

        def filtered():
            kernel = seeded("choice.kernel", (3, 3, 3, 3)).astype(np.float16)
            y = mb.conv(x=x, weight=kernel, pad_type="same")
            return mb.sigmoid(x=y), mb.reduce_max(x=y, axes=[1], keep_dims=False)

        chosen, reduced = mb.cond(pred=rises, _true_fn=flat, _false_fn=filtered)
        return [mb.identity(x=chosen, name="chosen"), mb.identity(x=reduced, name="reduced")]

    model = package("ios17", {"x": ((1, 3, 4, 4), np.float16)}, body)
    matrix, kernel = (torch.from_numpy(seeded(f"choice.{n}", s)) for n, s in (("matrix", (4, 4)), ("kernel", (3,) * 4)))
    for name, sign in (("rising", 1), ("falling", -1)):
        x = np.abs(seeded("choice", (1, 3, 4, 4))) * sign
        given = torch.from_numpy(x)
        if sign > 0:
            y = given @ matrix
            chosen, reduced = torch.softmax(y, -1), y.sum(1)
        else:
            y = F.conv2d(given, kernel, padding="same")
            chosen, reduced = torch.sigmoid(y), y.amax(1)
        tensors = {"x": x, "chosen": chosen.numpy(), "reduced": reduced.numpy()}
        tensors = {key: array.astype(np.float32) for key, array in tensors.items()}
        write(folder / f"choice-{name}-ios17-fp16", model, tensors)


class Memory(torch.nn.Module):
    """Fades what it holds, adds what goes in, and gives that beside what it held."""

    def __init__(self):
        super().__init__()
        self.register_buffer("held", torch.zeros(2, 3))

    def forward(self, x):
        held = self.held.clone()
        self.held.mul_(0.5)
        self.held.add_(x)
        self.held.mul_(self.held)
        return self.held + held, held


def write_state(folder):
    """A state, read and written several times, as coremltools' torch converter writes it."""
    x = torch.from_numpy(seeded("state", (2, 3)).astype(np.float32))
    model = ct.convert(
        torch.jit.trace(Memory(), x, check_trace=False),
        inputs=[ct.TensorType(name="x", shape=x.shape, dtype=np.float16)],
        outputs=[ct.TensorType(name=name, dtype=np.float16) for name in ("out", "before")],
        states=[ct.StateType(wrapped_type=ct.TensorType(shape=(2, 3), dtype=np.float16), name="held")],
        minimum_deployment_target=ct.target.iOS18,
        skip_model_load=True,
    )
    out, before = Memory()(x)
    tensors = {"x": x, "out": out, "before": before}
    write(folder / "state-ios18-fp16", model, {name: t.numpy() for name, t in tensors.items()})


# Several programs in one package


def layer(target, precision, names, weight):
    """A program of one linear layer: `names` are those of its input, of what it adds, if that, and of its output."""
    floats = FLOATS[precision]
    source, added, output = names
    inputs = {name: ((3, 12), floats) for name in (source, added) if name}

    def body(features):
        matrix = seeded(weight, (12, 12)).astype(floats)
        y = mb.linear(x=features[source], weight=matrix, name=f"{output}_linear" if added else output)
        return [mb.add(x=y, y=features[added], name=output) if added else y]

    return package(target, inputs, body)


def product(x, weight):
    return x @ seeded(weight, (12, 12)).T


def write_pipeline(folder, target, precision):
    """Three stages; the last one takes the first one's output and the pipeline's second input too."""
    stages = [
        layer(target, precision, ("x", None, "a"), "first"),
        layer(target, precision, ("a", "skip", "b"), "second"),
        layer(target, precision, ("b", "a", "out"), "third"),
    ]
    x, skip = seeded("pipeline.x", (3, 12)), seeded("pipeline.skip", (3, 12))
    a = product(x, "first")
    out = product(product(a, "second") + skip, "third") + a
    tensors = {"x": x, "skip": skip, "out": out}
    # Stages that were never saved have no weight file to copy.
    with tempfile.TemporaryDirectory() as scratch:
        for i, stage in enumerate(stages):
            stage.save(f"{scratch}/{i}.mlpackage")
        saved = [ct.models.MLModel(f"{scratch}/{i}.mlpackage", skip_model_load=True) for i in range(len(stages))]
        model = ct.utils.make_pipeline(*saved)
        write(folder, model, {name: array.astype(np.float32) for name, array in tensors.items()})


def write_functions(folder, precision):
    """Two functions that share a weight, of which `second` is the default, and one with its own."""
    layers = {
        "first": (("x", None, "out"), "shared"),
        "second": (("x", "added", "out"), "shared"),
        "third": (("y", None, "out"), "own"),
    }
    tensors = {}
    with tempfile.TemporaryDirectory() as scratch:
        description = ct.utils.MultiFunctionDescriptor()
        for function, (names, weight) in layers.items():
            path = f"{scratch}/{function}.mlpackage"
            layer("ios18", precision, names, weight).save(path)
            description.add_function(path, src_function_name="main", target_function_name=function)
            source, added, _ = names
            x = tensors[f"{function}.{source}"] = seeded(f"{function}.x", (3, 12))
            out = product(x, weight)
            if added:
                tensors[f"{function}.{added}"] = seeded(f"{function}.added", (3, 12))
                out = out + tensors[f"{function}.{added}"]
            tensors[f"{function}.out"] = out
        description.default_function_name = "second"
        ct.utils.save_multifunction(description, f"{scratch}/all.mlpackage")
        folder.mkdir(parents=True, exist_ok=True)
        package_files.settle(Path(f"{scratch}/all.mlpackage"), folder / "model.mlpackage")
    save_file({n: a.astype(np.float32) for n, a in tensors.items()}, folder / "io.safetensors", MADE_BY)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = Path(__file__).parent.parent / "fixtures/packages"
    parser.add_argument("-o", "--output", type=Path, default=default)
    folder = parser.parse_args().output
    for family, cases in FAMILIES.items():
        write_family(folder / f"{family}-ios16-fp32", family, "ios16", "fp32")
        write_family(folder / f"{family}-ios17-fp16", family, "ios17", "fp16")
        if any(case.since == "ios18" for case in cases):
            write_family(folder / f"{family}-ios18-fp32", family, "ios18", "fp32")
    for precision in ("fp32", "fp16"):
        older = compressed.IOS16 + (compressed.CAST if precision == "fp32" else [])
        write_weights(folder / f"weights-ios16-{precision}", older, "ios16", precision)
        write_weights(folder / f"weights-ios18-{precision}", compressed.IOS18, "ios18", precision)
    for name, (target, steps) in OPTIMIZED.items():
        write_optimized(folder / f"optimized-{name}-fp32", target, steps, "fp32")
    write_cond(folder)
    write_loop(folder)
    write_generation(folder)
    write_choice(folder)
    write_state(folder)
    write_pipeline(folder / "pipeline-ios16-fp32", "ios16", "fp32")
    write_pipeline(folder / "pipeline-ios17-fp16", "ios17", "fp16")
    write_functions(folder / "functions-ios18-fp16", "fp16")


if __name__ == "__main__":
    sys.exit(main())
