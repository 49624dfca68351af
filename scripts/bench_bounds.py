#!/usr/bin/env python3
"""Time and memory of the program for hostile inputs of a size and of twice that size.

    bench_bounds.py [--binary target/release/chunk-unet]

Prints for each kind of input the seconds and the peak of resident memory at both sizes, and their ratios: 2 or less is linear.
Inputs are valid as far as their kind allows, so that all of each is read. Needs nothing but Python.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 3


def safetensors(folder, n):
    """n tensors of one byte."""
    header = {f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(n)}
    text = json.dumps(header, separators=(",", ":")).encode()
    path = folder / "many.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(n))
    return [["inspect", path, "--json"]]


def giant_name(folder, n):
    """One tensor whose name has 50 n bytes."""
    header = {"x" * 50 * n: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    text = json.dumps(header).encode()
    path = folder / "name.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(1))
    return [["inspect", path, "--json"]]


def message(*fields):
    """Fields with a length, as protobuf writes them."""
    out = bytearray()
    for number, content in fields:
        if isinstance(content, int):
            out += varint(number << 3) + varint(content)
        else:
            content = content.encode() if isinstance(content, str) else content
            out += varint(number << 3 | 2) + varint(len(content)) + content
    return bytes(out)


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def package(folder, n):
    """A package with n operations in a row."""
    tensor = message((1, message((1, 11), (2, 1), (3, message((1, message((1, 4))))))))
    value = lambda name: message((1, name), (2, tensor))
    argument = lambda name: message((1, message((1, name))))
    operations = []
    for i in range(n):
        before = f"y{i - 1}" if i else "x"
        entry = message((1, "x"), (2, argument(before)))
        operations.append((3, message((1, "relu"), (2, entry), (3, value(f"y{i}")))))
    block = message((2, f"y{n - 1}"), *operations)
    function = message((1, value("x")), (2, "CoreML7"), (3, message((1, "CoreML7"), (2, block))))
    program = message((1, 1), (2, message((1, "main"), (2, function))))
    path = folder / "many.mlpackage"
    (path / "Data").mkdir(parents=True)
    array = message((3, message((5, message((1, b"\x04"), (2, 65568))))))
    description = message((1, message((1, "x")) + array), (10, message((1, f"y{n - 1}")) + array))
    (path / "Data/model.mlmodel").write_bytes(message((1, 8), (2, description), (502, program)))
    item = {"author": "a", "description": "d", "name": "n", "path": "model.mlmodel"}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"A": item}, "rootModelIdentifier": "A"}
    (path / "Manifest.json").write_text(json.dumps(manifest))
    return [["inspect", path, "--mil"], ["split", path, "--chunks", "16", "--dry-run", "--quiet"]]


def record(folder, n):
    """A record with n packages of long names."""
    names = [f"{'x' * 20}{i}.mlpackage" for i in range(n // 4)]
    record = {"schema_version": 1, "components": {"unet": {"packages": names}}}
    (folder / "conversion.json").write_text(json.dumps(record))
    return [["report", folder, "-o", folder / "report.html"]]


def made(make, folder, size):
    """An input, made by a process of its own: what this one holds would count as its children's."""
    with multiprocessing.Pool(1) as pool:
        return pool.apply(make, (folder, size))


def measure(command):
    """Seconds, peak in bytes and exit code; the fastest of some runs."""
    best = None
    for _ in range(RUNS):
        start = time.monotonic()
        with open(os.devnull, "wb") as nothing:
            process = subprocess.Popen(command, stdout=nothing, stderr=nothing)
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        answer = (seconds, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status))
        best = min(best or answer, answer)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/chunk-unet")
    parser.add_argument("--size", type=int, default=500_000)
    arguments = parser.parse_args()
    print(f"{'input':<13}{'command':<9}{'n':>10}{'exit':>6}{'seconds':>9}{'MB':>8}{'time':>7}{'memory':>8}")
    for make in (safetensors, giant_name, package, record):
        first = {}
        for size in (arguments.size, 2 * arguments.size):
            with tempfile.TemporaryDirectory() as folder:
                for command in made(make, Path(folder), size):
                    seconds, peak, code = measure([arguments.binary, *command])
                    before = first.setdefault(command[0], (seconds, peak))
                    ratios = f"{seconds / before[0]:7.2f}{peak / before[1]:8.2f}"
                    print(
                        f"{make.__name__:<13}{command[0]:<9}{size:>10,}{code:>6}{seconds:9.2f}{peak / 1e6:8.0f}{ratios}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
