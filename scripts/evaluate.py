#!/usr/bin/env python3
"""Runs ML Programs on Linux with torch, to see what a package computes where there is no Core ML.

    evaluate.py PACKAGE... --inputs FILE.safetensors [--expected NAME] [--precision fp16] [-o FILE]

Several packages run as a chain, as Apple's Swift pipeline runs them. The program is read straight from
its protobuf and weight file; only the operations that UNet programs hold are known, any other one is
an error that names it. `fp32` computes everything in float32; `fp16` rounds every value that the
program types as fp16. Neither imitates the Neural Engine: this is a reference, not a simulation.
"""

import argparse
import logging
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# coremltools warns about every newer torch on import.
logging.getLogger("coremltools").setLevel(logging.ERROR)

import numpy as np
import torch
import torch.nn.functional as F
from coremltools.proto import MIL_pb2, Model_pb2
from safetensors.torch import load_file, save_file

torch.set_grad_enabled(False)

MODEL_FOLDER = Path("Data/com.apple.CoreML")
MODEL_PATH = "@model_path/"
DTYPES = {
    MIL_pb2.BOOL: np.dtype("bool"),
    MIL_pb2.STRING: np.dtype("O"),
    MIL_pb2.FLOAT16: np.dtype("<f2"),
    MIL_pb2.FLOAT32: np.dtype("<f4"),
    MIL_pb2.INT32: np.dtype("<i4"),
}


@dataclass(frozen=True)
class TensorType:
    """What the program declares of a value."""

    dtype: np.dtype
    shape: tuple


@dataclass(frozen=True)
class Operation:
    """One operation; `inputs` maps a parameter to the names of its arguments."""

    kind: str
    inputs: dict
    outputs: list  # of (name, TensorType)

    def __str__(self):
        return f"{self.kind} `{self.outputs[0][0]}`"


@dataclass
class Program:
    """The `main` function of a package. `constants` stay memory-mapped until they are used."""

    inputs: dict  # name -> TensorType
    outputs: list  # names
    operations: list
    constants: dict  # name -> array

    def counts(self):
        """How many operations of each kind, constants left out."""
        return Counter(operation.kind for operation in self.operations)


# Reading


def load(path):
    """Reads a package without touching it (coremltools would rewrite its manifest)."""
    folder = Path(path) / MODEL_FOLDER
    spec = Model_pb2.Model()
    spec.ParseFromString((folder / "model.mlmodel").read_bytes())
    return from_spec(spec, folder)


def from_spec(spec, folder):
    """The program of a parsed model whose `@model_path` is `folder`."""
    if spec.WhichOneof("Type") != "mlProgram":
        raise ValueError(f"expected an ML Program, found {spec.WhichOneof('Type')}")
    function = spec.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    files, constants, operations = {}, {}, []
    for op in block.operations:
        if op.blocks:
            raise NotImplementedError(f"operation `{op.type}` with nested blocks")
        outputs = [(o.name, _tensor_type(o.type)) for o in op.outputs]
        if op.type == "const":
            constants[outputs[0][0]] = _value(op.attributes["val"], folder, files)
            continue
        inputs = {}
        for key, argument in op.inputs.items():
            inputs[key] = [b.name for b in argument.arguments]
            for index, binding in enumerate(argument.arguments):
                if binding.WhichOneof("binding") == "value":
                    # An inline value: a constant whose name no program can hold.
                    inputs[key][index] = f"{outputs[0][0]}.{key}.{index}"
                    constants[inputs[key][index]] = _value(binding.value, folder, files)
        operations.append(Operation(op.type, inputs, outputs))
    declared = {i.name: _tensor_type(i.type) for i in function.inputs}
    return Program(declared, list(block.outputs), operations, constants)


def _tensor_type(value_type):
    tensor = value_type.tensorType
    return TensorType(DTYPES[tensor.dataType], tuple(d.constant.size for d in tensor.dimensions))


def _value(value, folder, files):
    wanted = _tensor_type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        return _blob(value.blobFileValue, wanted, folder, files)
    tensor = value.immediateValue.tensor
    field = tensor.WhichOneof("value")
    stored = getattr(tensor, field).values
    if wanted.dtype == DTYPES[MIL_pb2.STRING]:
        return stored[0]
    if field == "bytes":
        array = np.frombuffer(stored, wanted.dtype)
    else:
        array = np.array(stored, wanted.dtype)
    return array.reshape(wanted.shape)


def _blob(reference, wanted, folder, files):
    name = reference.fileName
    if name not in files:
        files[name] = np.memmap(folder / name.removeprefix(MODEL_PATH), np.uint8, mode="r")
    # The record at `offset` (MILBlob's StorageFormat.hpp): sentinel and dtype, then size and data offset.
    size, start = files[name][reference.offset + 8 : reference.offset + 24].view("<u8").tolist()
    return files[name][start : start + size].view(wanted.dtype).reshape(wanted.shape)


# Operations: a function each, with Core ML's parameter names and defaults. Float constants arrive as
# tensors, constants of other types as plain Python values.

OPERATIONS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "square": lambda x: x * x,
    "sqrt": lambda x: torch.sqrt(x),
    "rsqrt": lambda x, epsilon=1e-12: torch.rsqrt(x + epsilon),
    "exp": lambda x: torch.exp(x),
    "sin": lambda x: torch.sin(x),
    "cos": lambda x: torch.cos(x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "silu": lambda x: F.silu(x),
    "identity": lambda x: x,
    "softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, perm: x.permute(perm),
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "einsum": lambda values, equation: torch.einsum(equation, *values),
    "scaled_dot_product_attention": lambda query, key, value: F.scaled_dot_product_attention(query, key, value),
}


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


@operation
def cast(x, dtype):
    return x.to({"fp16": torch.float32, "fp32": torch.float32, "int32": torch.int32}[dtype])


@operation
def conv(x, weight, bias=None, strides=1, pad_type="valid", pad=None, dilations=1, groups=1):
    if pad_type == "custom":
        # Core ML lists (begin, end) from the first spatial axis, torch from the last.
        pairs = [pad[i : i + 2] for i in range(0, len(pad), 2)]
        x = F.pad(x, [n for pair in reversed(pairs) for n in pair])
    elif pad_type != "valid":
        raise NotImplementedError(f"pad_type `{pad_type}`")
    convolve = {3: F.conv1d, 4: F.conv2d}[x.dim()]
    return convolve(x, weight, bias, strides, 0, dilations, groups)


@operation
def matmul(x, y, transpose_x=False, transpose_y=False):
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


@operation
def gelu(x, mode="EXACT"):
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


@operation
def reduce_mean(x, axes=None, keep_dims=False):
    return x.mean(axes, keepdim=keep_dims)


@operation
def layer_norm(x, axes=None, gamma=None, beta=None, epsilon=1e-5):
    axes = [axis % x.dim() for axis in axes or range(x.dim())]
    shape = [x.shape[axis] if axis in axes else 1 for axis in range(x.dim())]
    return _affine(_normalised(x, axes, epsilon), gamma, beta, shape)


@operation
def instance_norm(x, gamma=None, beta=None, epsilon=1e-5):
    axes = list(range(2, x.dim()))
    return _affine(_normalised(x, axes, epsilon), gamma, beta, _channels(x))


@operation
def batch_norm(x, mean, variance, gamma=None, beta=None, epsilon=1e-5):
    shape = _channels(x)
    y = (x - mean.reshape(shape)) / torch.sqrt(variance.reshape(shape) + epsilon)
    return _affine(y, gamma, beta, shape)


def _normalised(x, axes, epsilon):
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(axes, keepdim=True) + epsilon)


def _affine(x, gamma, beta, shape):
    x = x if gamma is None else x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


def _channels(x):
    return [1, -1] + [1] * (x.dim() - 2)


@operation
def concat(values, axis, interleave=False):
    if interleave:
        raise NotImplementedError("interleave")
    return torch.cat(values, axis)


@operation
def split(x, axis, num_splits=None, split_sizes=None):
    return torch.split(x, split_sizes or x.shape[axis] // num_splits, axis)


@operation
def expand_dims(x, axes):
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operation
def squeeze(x, axes=None):
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operation
def slice_by_index(x, begin, end, stride=None, begin_mask=None, end_mask=None, squeeze_mask=None):
    index = []
    for axis in range(len(begin)):
        if squeeze_mask and squeeze_mask[axis]:
            index.append(begin[axis])
            continue
        first = None if begin_mask and begin_mask[axis] else begin[axis]
        last = None if end_mask and end_mask[axis] else end[axis]
        index.append(slice(first, last, stride[axis] if stride else 1))
    return x[tuple(index)]


@operation
def upsample_nearest_neighbor(x, scale_factor_height=1, scale_factor_width=1):
    return F.interpolate(x, scale_factor=(float(scale_factor_height), float(scale_factor_width)))


# Running


def run(program, inputs, precision="fp32"):
    """Outputs by name, as float32 tensors. Values are freed after their last use."""
    if precision not in ("fp32", "fp16"):
        raise ValueError(f"precision `{precision}`: expected fp32 or fp16")
    values = {}
    for name, wanted in program.inputs.items():
        if name not in inputs:
            raise KeyError(f"missing input `{name}`")
        values[name] = _kept(inputs[name].float(), wanted, precision, f"input `{name}`")
    last_use = _last_uses(program)
    for index, op in enumerate(program.operations):
        if op.kind not in OPERATIONS:
            raise NotImplementedError(f"operation {op}")
        results = OPERATIONS[op.kind](**_arguments(op, values, program.constants))
        results = [results] if isinstance(results, torch.Tensor) else results
        for (name, wanted), result in zip(op.outputs, results, strict=True):
            values[name] = _kept(result, wanted, precision, str(op))
        for name in last_use[index]:
            del values[name]
    return {name: values[name] for name in program.outputs}


def _kept(value, wanted, precision, what):
    """A computed value as it is stored: of the declared shape, rounded where the mode asks for it."""
    if tuple(value.shape) != wanted.shape:
        raise ValueError(f"{what}: program says {list(wanted.shape)}, computed {list(value.shape)}")
    if precision == "fp16" and wanted.dtype == np.float16:
        value = value.half().float()
    # One memory layout for every value: torch's kernels round by layout, and a chain must not differ
    # from the single package because a view crossed a cut as a copy.
    return value.contiguous()


def _last_uses(program):
    """For each operation, the values that nothing needs after it."""
    last = {}
    for index, op in enumerate(program.operations):
        last.update((name, index) for name, _ in op.outputs)
        for arguments in op.inputs.values():
            last.update((name, index) for name in arguments)
    freed = [[] for _ in program.operations]
    for name, index in last.items():
        if name not in program.constants and name not in program.outputs:
            freed[index].append(name)
    return freed


def _arguments(op, values, constants):
    found = {}
    for key, arguments in op.inputs.items():
        resolved = [values[name] if name in values else _constant(constants[name]) for name in arguments]
        found[key] = resolved if key == "values" else resolved[0]
    return found


def _constant(value):
    if not isinstance(value, np.ndarray):
        return value
    return torch.from_numpy(value.astype(np.float32)) if value.dtype.kind == "f" else value.tolist()


def chain(stages, inputs, precision="fp32"):
    """Runs programs, or packages by path, one after the other as Apple's Swift pipeline does: a stage
    gets the last stage's outputs merged over the original inputs, and nothing else."""
    outputs = {}
    for stage in stages:
        program = stage if isinstance(stage, Program) else load(stage)
        outputs = run(program, {**inputs, **outputs}, precision)
    return outputs


def psnr(reference, got):
    """Peak signal to noise in dB: the largest reference value against the root mean square error."""
    reference, got = reference.double(), got.double()
    if not torch.isfinite(got).all():
        return float("-inf")
    error = (reference - got).square().mean().sqrt()
    return float("inf") if error == 0 else float(20 * torch.log10(reference.abs().max() / error))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("packages", nargs="+", type=Path, help="one package, or a chain of them in order")
    parser.add_argument("--inputs", required=True, type=Path, help="safetensors with a tensor per input")
    parser.add_argument("--precision", choices=["fp32", "fp16"], default="fp32")
    parser.add_argument("--expected", metavar="NAME", help="compare this output with --inputs' tensor")
    parser.add_argument("-o", "--output", type=Path, help="safetensors to write the outputs to")
    options = parser.parse_args()
    tensors = load_file(options.inputs)
    outputs = chain(options.packages, tensors, options.precision)
    for name, value in outputs.items():
        rms = value.square().mean().sqrt()
        print(f"{name} {list(value.shape)} rms {rms:.4g}, largest {value.abs().max():.4g}")
    if options.expected:
        print(f"{options.expected}: {psnr(tensors[options.expected], outputs[options.expected]):.1f} dB")
    if options.output:
        save_file(outputs, options.output)


if __name__ == "__main__":
    sys.exit(main())
