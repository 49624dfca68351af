#!/usr/bin/env python3
"""Makes fixtures/ops/: every operation in many forms as programs in text, with torch's numbers.

    make_op_fixtures.py [-o fixtures/ops]

Two files per family of op_cases: FAMILY.mil holds a function per case, FAMILY.safetensors its inputs
and outputs as `CASE.NAME`. Parameters that are left out of a case are left out of the text, so that
defaults are tested. coremltools is asked as well: the shapes that it infers must be the ones that torch
computed, and so must the numbers where it computes them.

rounding.mil is written out below: short programs that are typed fp16, with what comes out in f32
(`CASE.OUTPUT`) and with every value rounded as typed (`CASE.OUTPUT.fp16`), both to the last bit.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from mil_functions import own_values
from op_cases import FAMILIES, SEED, In

VERSION = f"torch {torch.__version__.split('+')[0]}, seed {SEED}"
HEAD = "// Made by scripts/make_op_fixtures.py."
NAMES = {
    "float32": "fp32",
    "float16": "fp16",
    "int32": "int32",
    "bool": "bool",
    "int16": "int16",
    "uint16": "uint16",
    "uint32": "uint32",
    "int8": "int8",
    "uint8": "uint8",
}
# f32 programs against doubles.
CLOSE_DB = 120


# Core ML's text form


def element(value):
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, np.floating):
        return hexadecimal(float(value))
    return str(int(value))


def hexadecimal(x):
    if np.isinf(x):
        return "inf" if x > 0 else "-inf"
    head, exponent = float.hex(x).split("p")
    whole, _, fraction = head.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}{'.' if fraction else ''}{fraction}p{exponent}"


def nested(array):
    return "[" + ", ".join(nested(part) if array.ndim > 1 else element(part) for part in array) + "]"


def type_text(array):
    name = NAMES[array.dtype.name]
    return f"tensor<{name}, [{', '.join(map(str, array.shape))}]>" if array.ndim else name


def literal(value):
    if isinstance(value, str):
        return f'string("{value}")'
    return f"{type_text(value)}({nested(value) if value.ndim else element(value[()])})"


def stored(array):
    """As a program in text types it: floats are fp32 if nothing else is asked for."""
    return np.asarray(array.astype(np.float32) if array.dtype == np.float64 else array)


def function_text(case, outputs):
    """Weights are operations of their own, as coremltools writes them, and small parameters stand inline."""
    lines, arguments = [], {}
    for key, found in case.arrays().items():
        value = case.params[key]
        if isinstance(value, list):
            names = []
            for i, part in enumerate(value):
                names.append(f"{key}_{i}")
                if not isinstance(part, In):
                    lines.append(constant(names[-1], stored(found[i])))
            arguments[key] = f"({', '.join(names)})" if len(names) > 1 else names[0]
        elif isinstance(value, In):
            arguments[key] = key
        elif isinstance(value, str):
            arguments[key] = literal(value)
        elif found.dtype.kind == "f" and found.ndim:
            lines.append(constant(key, stored(found)))
            arguments[key] = key
        else:
            arguments[key] = literal(stored(found))
    inputs = ", ".join(f"{type_text(stored(array))} {name}" for name, array in case.inputs().items())
    declared = ", ".join(f"{type_text(output)} {name}" for name, output in outputs.items())
    given = ", ".join(f"{key} = {text}" for key, text in sorted(arguments.items()))
    lines.append(f'{declared} = {case.op}({given})[name = string("{case.name}")];')
    body = "".join(f"            {line}\n" for line in lines)
    return f"    func {case.name}<{case.since}>({inputs}) {{\n{body}        }} -> ({', '.join(outputs)});\n"


def constant(name, array):
    return f'{type_text(array)} {name} = const()[name = string("{name}"), val = {literal(array)}];'


def write_program(path, functions):
    """`functions` maps names to texts."""
    texts = "".join(text for _, text in sorted(functions.items()))
    path.write_text(f"{HEAD}\nprogram(1.3)\n{{\n{texts}}}\n")


# Families


def named(case, outputs):
    names = ["out"] if len(outputs) == 1 else [f"out_{i}" for i in range(len(outputs))]
    typed = {name: stored(output) for name, output in zip(names, outputs)}
    if case.op == "cast" and case.params["dtype"] == "fp16":
        typed = {name: output.astype(np.float16) for name, output in typed.items()}
    return typed


def check(case, outputs):
    own = own_values(case)
    for expected, (shape, value) in zip(outputs, own, strict=True):
        if expected.shape != shape:
            raise AssertionError(f"{case.name}: torch says {expected.shape}, coremltools {shape}")
        if value is None or case.params.get("interleave") is not None:
            continue  # its number for interleaved values is the plain one
        if expected.dtype.kind != "f":
            close = np.array_equal(expected, value)
        else:
            close = psnr(expected, np.asarray(value)) > CLOSE_DB
        if not close:
            raise AssertionError(f"{case.name}: torch says {expected}, coremltools {value}")
    return any(value is not None for _, value in own)


def psnr(reference, got):
    error = np.sqrt(np.mean((reference - got.astype(np.float64)) ** 2))
    return np.inf if error == 0 else 20 * np.log10(np.abs(reference).max() / error)


def write_family(folder, family, cases):
    functions, tensors, confirmed = {}, {}, 0
    for case in cases:
        expected = case.expected()
        confirmed += check(case, expected)
        outputs = named(case, expected)
        functions[case.name] = function_text(case, outputs)
        tensors |= {f"{case.name}.{name}": stored(array) for name, array in case.inputs().items()}
        tensors |= {f"{case.name}.{name}": stored(array) for name, array in outputs.items()}
    write_program(folder / f"{family}.mil", functions)
    save_file(tensors, folder / f"{family}.safetensors", {"made_by": VERSION})
    print(f"{family}: {len(cases)} cases, {confirmed} of them computed by coremltools too")


# Rounding

HALF = np.float16
ROUNDING = {
    "sum_of_products": (
        "tensor<fp16, [4]> x, tensor<fp16, [4]> y",
        {"x": HALF([2048, 0.1, 3.141, 1000]), "y": HALF([1, 0.3, 2.718, 1.001])},
        """
            tensor<fp16, [4]> xy = mul(x = x, y = y)[name = string("xy")];
            tensor<fp16, [4]> out = add(x = xy, y = fp16(0x1p+0))[name = string("out")];
        """,
        lambda x, y, r: r(r(x * y) + r(np.float32(1))),
    ),
    "cast_to_fp32_keeps_bits": (
        "tensor<fp16, [3]> x",
        {"x": HALF([2048, 0.1, 1000])},
        """
            tensor<fp16, [3]> square = square(x = x)[name = string("square")];
            tensor<fp32, [3]> wide = cast(dtype = string("fp32"), x = x)[name = string("wide")];
            tensor<fp32, [3]> wide_square = cast(dtype = string("fp32"), x = square)[name = string("wide_square")];
            tensor<fp32, [3]> out = mul(x = wide, y = wide_square)[name = string("out")];
        """,
        lambda x, r: x * r(x * x),
    ),
    "overflow": (
        "tensor<fp16, [4]> x",
        {"x": HALF([60000, -60000, 32752, 1])},
        """
            tensor<fp16, [4]> doubled = add(x = x, y = x)[name = string("doubled")];
            tensor<fp16, [4]> out = mul(x = doubled, y = fp16(0x1p-2))[name = string("out")];
        """,
        lambda x, r: r(r(x + x) * np.float32(0.25)),
    ),
    "subnormal": (
        "tensor<fp16, [4]> x",
        {"x": HALF([1e-4, 3e-5, 6e-8, 1e-3])},
        """
            tensor<fp16, [4]> small = mul(x = x, y = fp16(0x1p-6))[name = string("small")];
            tensor<fp16, [4]> out = mul(x = small, y = fp16(0x1p+6))[name = string("out")];
        """,
        lambda x, r: r(r(x * np.float32(2**-6)) * np.float32(2**6)),
    ),
    "ties_to_even": (
        "tensor<fp16, [4]> x",
        {"x": HALF([2048, 2050, -2048, -2050])},
        """
            tensor<fp16, [4]> out = add(x = x, y = fp16(0x1p+0))[name = string("out")];
        """,
        lambda x, r: r(x + np.float32(1)),
    ),
    "input_of_fp32": (
        "tensor<fp32, [3]> x",
        {"x": np.float32([0.1, 2049, 1e-9])},
        """
            tensor<fp16, [3]> half = cast(dtype = string("fp16"), x = x)[name = string("half")];
            tensor<fp32, [3]> out = cast(dtype = string("fp32"), x = half)[name = string("out")];
        """,
        lambda x, r: r(x),
    ),
}


def to_half(x):
    with np.errstate(over="ignore"):
        return x.astype(HALF).astype(np.float32)


def write_rounding(folder):
    functions, tensors = {}, {}
    for name, (inputs, arrays, body, compute) in ROUNDING.items():
        lines = "".join(f"            {line.strip()}\n" for line in body.strip().splitlines())
        functions[name] = f"    func {name}<ios16>({inputs}) {{\n{lines}        }} -> (out);\n"
        wide = {key: array.astype(np.float32) for key, array in arrays.items()}
        tensors |= {f"{name}.{key}": array for key, array in arrays.items()}
        tensors[f"{name}.out"] = compute(**wide, r=lambda x: x)
        tensors[f"{name}.out.fp16"] = compute(**wide, r=to_half)
    write_program(folder / "rounding.mil", functions)
    save_file(tensors, folder / "rounding.safetensors", {"made_by": f"numpy {np.__version__}"})
    print(f"rounding: {len(ROUNDING)} cases")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent.parent / "fixtures/ops")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for family, cases in FAMILIES.items():
        write_family(folder, family, cases)
    write_rounding(folder)


if __name__ == "__main__":
    sys.exit(main())
