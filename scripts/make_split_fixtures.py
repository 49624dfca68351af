#!/usr/bin/env python3
"""Makes fixtures/split/: small packages that coremltools wrote, one of each kind that a split must carry.

    make_split_fixtures.py [-o fixtures/split]

README.md of the fixtures says what each one holds. Weights are random, from a seed.
"""

import argparse
import logging
import shutil
import tempfile
from pathlib import Path

# coremltools warns about every newer torch, and about the native parts that only a Mac has.
logging.getLogger("coremltools").setLevel(logging.ERROR)

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from torch import nn

import package_files

SEED = 20240614
TARGETS = {
    "ios15": ct.target.iOS15,
    "ios16": ct.target.iOS16,
    "ios17": ct.target.iOS17,
    "ios18": ct.target.iOS18,
    "ios26": ct.target.iOS26,
}
PRECISIONS = {"fp16": ct.precision.FLOAT16, "fp32": ct.precision.FLOAT32}


class Ladder(nn.Module):
    """Convolutions and norms of equal width, with a skip from the first to the last; `early` is made half-way."""

    def __init__(self, steps=6, width=16):
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.steps = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(steps))
        self.leave = nn.Conv2d(width, 4, 1)

    def forward(self, x):
        x = first = self.enter(x)
        early = None
        for i, step in enumerate(self.steps):
            x = torch.nn.functional.silu(step(x))
            if i == len(self.steps) // 3:
                early = x.mean(dim=(2, 3))
        return self.leave(x + first), early


class Twice(nn.Module):
    """One weight matrix that several layers take."""

    def __init__(self, width=32):
        super().__init__()
        self.shared = nn.Parameter(torch.randn(width, width) / 6)
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        for own in self.own:
            x = torch.relu(own(torch.relu(x @ self.shared)))
        return x @ self.shared


class Tokens(nn.Module):
    """Over a row of tokens of any length: per-token layers and a softmax over all."""

    def __init__(self, width=24):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(6))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = torch.tanh(layer(x))
            if i == 2:
                x = torch.softmax(x @ x.transpose(1, 2), dim=-1) @ x
        return x


class Halves(nn.Module):
    """An image that is halved, taken apart into tokens and doubled again: sizes that are not linear in one dimension."""

    def __init__(self, width=8):
        super().__init__()
        self.down = nn.Conv2d(3, width, 4, stride=4)
        self.mix = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x):
        x = self.down(x)
        for layer in self.mix:
            x = torch.relu(layer(x))
        return x


def seeded(module, *inputs):
    return torch.jit.trace(module.eval(), inputs)


def tensor(name, *shape, **more):
    return ct.TensorType(name=name, shape=shape[0] if len(shape) == 1 else shape, **more)


def convert(module, example, target, precision, inputs, outputs):
    torch.manual_seed(SEED)
    return ct.convert(
        seeded(module, *example),
        inputs=inputs,
        outputs=outputs,
        minimum_deployment_target=TARGETS[target],
        compute_precision=PRECISIONS[precision],
        skip_model_load=True,
    )


def made(factory):
    """A module with weights from the seed."""
    torch.manual_seed(SEED)
    return factory()


def ladder(target, precision, image=False):
    float16 = precision == "fp16" and target != "ios15"
    kind = {"dtype": np.float16} if float16 else {}
    if image:
        inputs = [ct.ImageType(name="x", shape=(1, 3, 16, 16), scale=1 / 255, color_layout=ct.colorlayout.RGB)]
    else:
        inputs = [tensor("x", (1, 3, 16, 16), **kind)]
    outputs = [ct.TensorType(name="out", **kind), ct.TensorType(name="early", **kind)]
    return convert(made(Ladder), [torch.rand(1, 3, 16, 16)], target, precision, inputs, outputs)


def described(model):
    model.author, model.license, model.version = "A. Author", "CC0-1.0", "7.3"
    model.short_description = "A ladder of convolutions."
    model.user_defined_metadata["org.example.note"] = "kept: äöü 日本"
    model.user_defined_metadata["org.example.empty"] = ""
    model.input_description["x"] = "What goes in."
    model.output_description["out"] = "What comes out."
    model.output_description["early"] = "A mean, made half-way."
    return model


def shared(target, precision):
    return convert(
        made(Twice), [torch.rand(2, 32)], target, precision, [tensor("x", (2, 32))], [ct.TensorType(name="out")]
    )


def tokens(target, precision, shape):
    return convert(
        made(Tokens), [torch.rand(1, 8, 24)], target, precision, [tensor("x", shape)], [ct.TensorType(name="out")]
    )


def halves(target, precision):
    side = ct.RangeDim(lower_bound=16, upper_bound=64, default=32)
    shape = ct.Shape((1, 3, side, ct.RangeDim(lower_bound=16, upper_bound=64, default=32)))
    return convert(
        made(Halves), [torch.rand(1, 3, 32, 32)], target, precision, [tensor("x", shape)], [ct.TensorType(name="out")]
    )


def weights(rng, *shape):
    return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def program(target, body, inputs, precision="fp32", **options):
    """A program written operation by operation."""
    specs = [mb.TensorSpec(shape=shape, dtype=dtype) for shape, dtype in inputs.values()]
    names = list(inputs)
    # The builder takes the inputs' names from those of the parameters.
    source = f"lambda {', '.join(names)}: body({', '.join(names)})"
    prog = mb.program(input_specs=specs, opset_version=TARGETS[target])(eval(source, {"body": body}))
    return ct.convert(
        prog,
        minimum_deployment_target=TARGETS[target],
        compute_precision=PRECISIONS[precision],
        skip_model_load=True,
        **options,
    )


def optional(target):
    """`mask` may be left out."""
    rng = np.random.default_rng(SEED)

    def body(x, mask):
        for i in range(4):
            x = mb.relu(x=mb.linear(x=x, weight=weights(rng, 16, 16), name=f"linear_{i}"), name=f"relu_{i}")
            if i in (1, 3):
                x = mb.mul(x=x, y=mask, name=f"masked_{i}")
        return mb.identity(x=x, name="out")

    model = program(target, body, {"x": ((2, 16), types.fp32), "mask": ((2, 16), types.fp32)})
    spec = model.get_spec()
    mask = next(i for i in spec.description.input if i.name == "mask")
    mask.type.isOptional = True
    mask.type.multiArrayType.floatDefaultValue = 1.0
    return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)


def strangers(target):
    """Operations that Stable Diffusion models do not have: lstm, topk, cumsum, one_hot, and integers and truth values between."""
    rng = np.random.default_rng(SEED)
    hidden = 8

    def body(x):
        y, _, _ = mb.lstm(
            x=x,
            initial_h=np.zeros((1, hidden), np.float32),
            initial_c=np.zeros((1, hidden), np.float32),
            weight_ih=weights(rng, 4 * hidden, 12),
            weight_hh=weights(rng, 4 * hidden, hidden),
            bias=weights(rng, 4 * hidden),
            output_sequence=True,
            name="recurrent",
        )
        values, indices = mb.topk(x=mb.squeeze(x=y, axes=[1], name="squeezed"), k=3, axis=1, name="best")
        large = mb.greater(x=values, y=np.float32(0), name="large")
        chosen = mb.select(cond=large, a=values, b=mb.mul(x=values, y=np.float32(2), name="doubled"), name="chosen")
        sums = mb.cumsum(x=chosen, axis=1, name="sums")
        hot = mb.one_hot(indices=indices, one_hot_vector_size=hidden, axis=-1, name="hot")
        hot = mb.cast(x=hot, dtype="fp32", name="hot_float")
        spread = mb.mul(x=hot, y=mb.expand_dims(x=sums, axes=[2], name="columns"), name="spread")
        return mb.reduce_sum(x=spread, axes=[1], name="out")

    return program(target, body, {"x": ((5, 1, 12), types.fp32)})


def branches(target):
    """`cond` and `while_loop` with weights inside and outside, between layers."""
    rng = np.random.default_rng(SEED)
    outer = weights(rng, 16, 16)

    def body(x, flag):
        y = mb.linear(x=x, weight=outer, name="before")
        taken = mb.cast(x=mb.squeeze(x=flag, name="flag_scalar"), dtype="bool", name="taken")
        inner = weights(rng, 16, 16)
        y = mb.cond(
            pred=taken,
            _true_fn=lambda: mb.linear(x=y, weight=inner, name="inside"),
            _false_fn=lambda: mb.mul(x=y, y=np.float32(0.5), name="halved"),
            name="chosen",
        )
        y = mb.relu(x=y, name="between")
        count = mb.const(val=np.int32(0), name="none_yet")
        _, y = mb.while_loop(
            _cond=lambda n, _: mb.less(x=n, y=np.int32(3), name="goes_on"),
            _body=lambda n, y: (mb.add(x=n, y=np.int32(1), name="next"), mb.tanh(x=mb.linear(x=y, weight=outer, name="again"), name="bounded")),
            loop_vars=(count, y),
            name="looped",
        )
        y = mb.linear(x=y, weight=weights(rng, 16, 16), name="after")
        return mb.add(x=y, y=x, name="out")

    return program(target, body, {"x": ((3, 16), types.fp32), "flag": ((1,), types.int32)})


class Counter(nn.Module):
    """Adds what goes in to a state, half-way."""

    def __init__(self, width=16):
        super().__init__()
        self.before = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.after = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.register_buffer("sum", torch.zeros(2, width, dtype=torch.float16))

    def forward(self, x):
        for layer in self.before:
            x = torch.relu(layer(x))
        self.sum.add_(x.to(torch.float16))
        x = x + self.sum.to(x.dtype)
        for layer in self.after:
            x = torch.relu(layer(x))
        return x


def stateful(target):
    torch.manual_seed(SEED)
    return ct.convert(
        seeded(Counter(), torch.rand(2, 16)),
        inputs=[tensor("x", (2, 16), dtype=np.float16)],
        outputs=[ct.TensorType(name="out", dtype=np.float16)],
        states=[ct.StateType(wrapped_type=ct.TensorType(shape=(2, 16), dtype=np.float16), name="sum")],
        minimum_deployment_target=TARGETS[target],
        skip_model_load=True,
    )


def compressed(model, how):
    import coremltools.optimize.coreml as cto

    if how == "palette":
        config = cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)
        return cto.palettize_weights(model, cto.OptimizationConfig(global_config=config))
    if how == "affine":
        config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=0)
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=config))
    config = cto.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0)
    return cto.prune_weights(model, cto.OptimizationConfig(global_config=config))


def single_function(target):
    """A model whose description lists its one function by name."""
    model = ladder(target, "fp16")
    with tempfile.TemporaryDirectory() as folder:
        source, combined = f"{folder}/one.mlpackage", f"{folder}/functions.mlpackage"
        model.save(source)
        functions = ct.utils.MultiFunctionDescriptor()
        functions.add_function(source, src_function_name="main", target_function_name="main")
        functions.default_function_name = "main"
        ct.utils.save_multifunction(functions, combined)
        kept = Path(tempfile.mkdtemp()) / "functions.mlpackage"
        shutil.copytree(combined, kept)
    return ct.models.MLModel(str(kept), skip_model_load=True)


def ranged():
    return ct.Shape((1, ct.RangeDim(lower_bound=2, upper_bound=40, default=8), 24))


def listed():
    return ct.EnumeratedShapes(shapes=[(1, 8, 24), (1, 4, 24), (1, 20, 24)], default=(1, 8, 24))


FIXTURES = {
    "ladder-ios15-fp32": lambda: ladder("ios15", "fp32"),
    "ladder-ios15-fp16": lambda: ladder("ios15", "fp16"),
    "ladder-ios16-fp16": lambda: ladder("ios16", "fp16"),
    "ladder-ios17-fp32": lambda: ladder("ios17", "fp32"),
    "ladder-ios18-fp16": lambda: ladder("ios18", "fp16"),
    "ladder-ios26-fp16": lambda: ladder("ios26", "fp16"),
    "described-ios17-fp16": lambda: described(ladder("ios17", "fp16")),
    "image-ios16-fp16": lambda: ladder("ios16", "fp16", image=True),
    "palette-ios16-fp16": lambda: compressed(ladder("ios16", "fp16"), "palette"),
    "affine-ios17-fp16": lambda: compressed(ladder("ios17", "fp16"), "affine"),
    "sparse-ios16-fp16": lambda: compressed(ladder("ios16", "fp16"), "sparse"),
    "palette-ios18-fp16": lambda: compressed(ladder("ios18", "fp16"), "palette"),
    "affine-ios18-fp16": lambda: compressed(ladder("ios18", "fp16"), "affine"),
    "sparse-ios18-fp16": lambda: compressed(ladder("ios18", "fp16"), "sparse"),
    "shared-ios16-fp32": lambda: shared("ios16", "fp32"),
    "range-ios16-fp32": lambda: tokens("ios16", "fp32", ranged()),
    "range-square-ios17-fp32": lambda: halves("ios17", "fp32"),
    "listed-ios16-fp32": lambda: tokens("ios16", "fp32", listed()),
    "listed-ios18-fp16": lambda: tokens("ios18", "fp16", listed()),
    "optional-ios16-fp32": lambda: optional("ios16"),
    "strangers-ios17-fp32": lambda: strangers("ios17"),
    "branches-ios16-fp32": lambda: branches("ios16"),
    "stateful-ios18-fp16": lambda: stateful("ios18"),
    "function-ios18-fp16": lambda: single_function("ios18"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent.parent / "fixtures/split")
    parser.add_argument("names", nargs="*", default=list(FIXTURES), help="only these")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        package_files.save(FIXTURES[name](), arguments.output / f"{name}.mlpackage")
        print(name, flush=True)


if __name__ == "__main__":
    main()
