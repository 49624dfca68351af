#!/usr/bin/env python3
"""Compares what this project and coremltools make of damaged packages.

    compare_readers.py [--count 10000] [--seed 1] [--reader EXECUTABLE]

Takes the packages of fixtures/packages and damages one file of a copy at a time: the manifest, the model file or a blob file. Both
readers say whether they take it and what they read: the model as a message, every weight with its bytes. A
case in which they differ belongs to one of the classes in CLASSES, which docs/security.md explains; the exit code is 1 if one does not.

The reader is `cargo build --release -p mlpackage --example read`. coremltools runs in a process of its own, which is started again
where a file brings it down.
"""

import argparse
import collections
import json
import os
import random
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights"
MAX_MODEL_BYTES = 12_000
PATIENCE_SECONDS = 30

# What one reader takes and the other does not, or reads otherwise: who is stricter, and what it says. The first that fits.
CLASSES = [
    (r"^only ours refuses: .*Manifest\.json.*(invalid type|duplicate field|trailing characters|missing field)", "ours is stricter: manifest, JSON"),
    (r"^only ours refuses: .*Manifest\.json.*(path of an item|fileFormatVersion|rootModelIdentifier)", "ours is stricter: manifest, paths and version"),
    # The reason stands behind the path to the field, where a long message is cut.
    (r"^only ours refuses: .*failed to decode Protobuf message: .*(invalid wire type|: [A-Za-z_.#: ]*…$)", "ours is stricter: a known field of another wire type"),
    (r"^(only coremltools refuses: .*Wire format was corrupt|another model$)", "the wire type of a map's entry"),
    (r"^another model, said to be incomplete$", "a map's entry with a field that is not known"),
    (r"^weights: only ours refuses: .*start of the blob .*expected a multiple of 64", "ours is stricter: data that is not aligned"),
    (r"^weights: only ours refuses: .*blobs that lie in each other", "ours is stricter: blobs that lie in each other"),
    (r"^weights: only ours refuses: .*blob at offset .*elements of .*found .* bytes", "ours is stricter: a length that is no whole elements"),
]


# What is damaged, and how.


def bases():
    """Small packages that are valid, as a dictionary of their files."""
    for manifest in sorted((ROOT / "fixtures/packages").glob("*/model.mlpackage/Manifest.json")):
        package = manifest.parent
        if (package / MODEL).stat().st_size > MAX_MODEL_BYTES:
            continue
        files = {str(p.relative_to(package)): p.read_bytes() for p in package.rglob("*") if p.is_file()}
        yield manifest.parent.parent.name, files


def numbers(rng):
    """Values at the edges of what readers expect."""
    return rng.choice([0, 1, 2, 3, 63, 64, 65, 128, 255, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1, rng.randrange(4096)])


def flip(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(rng, data):
    return data[: rng.randrange(len(data))]


def insert(rng, data):
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice([1, 1, 2, 8, 64])) + data[at:]


def remove(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice([1, 1, 2, 8, 64]) :]


def repeat(rng, data):
    at, length = rng.randrange(len(data)), rng.randrange(1, 128)
    return data[: at + length] + data[at:]


def number(rng, data):
    """A number of four or eight bytes replaced, mostly at its natural place: records of blob files are made of those."""
    form, size = rng.choice([("<I", 4), ("<Q", 8)])
    if len(data) < size:
        return data
    at = rng.randrange(len(data) - size + 1)
    at -= at % size if rng.random() < 0.9 else 0
    return data[:at] + struct.pack(form, numbers(rng) & ((1 << 8 * size) - 1)) + data[at + size :]


def record(rng, data):
    """A number in the header or in a record of a blob file."""
    places = [0] + [m.start() for m in re.finditer(b"\xef\xbe\xad\xde", data) if m.start() % 64 == 0]
    at = rng.choice(places)
    offset, form = rng.choice([(0, "<I"), (4, "<I"), (8, "<Q"), (16, "<Q"), (24, "<Q")])
    size = struct.calcsize(form)
    (old,) = struct.unpack_from(form, data, at + offset)
    new = rng.choice([numbers(rng), old + 1, old - 1, old + 64, old * 2]) % (1 << 8 * size)
    return data[: at + offset] + struct.pack(form, new) + data[at + offset + size :]


TEXTS = ["1.0.0", "2.0.0", "1.0", "../x", "/etc/passwd", "a/../model.mlmodel", "com.apple.CoreML/weights", "", "\u202e", "x" * 5000]


def json_value(rng, data):
    """A value or a key of a JSON text changed, or one added or taken away."""
    root = json.loads(data)
    places = []

    def walk(node):
        for key in list(node):
            places.append((node, key))
            if isinstance(node[key], dict):
                walk(node[key])

    walk(root)
    node, key = rng.choice(places)
    match rng.randrange(4):
        case 0:
            del node[key]
        case 1:
            node[key] = rng.choice([None, 1, [], {}, True, 1e99])
        case 2:
            node[key] = rng.choice(TEXTS)
        case _:
            node[rng.choice(TEXTS)] = node[key]
    return json.dumps(root).encode()


def case(rng, name, files):
    """One damaged package: which file, and its new contents."""
    path = rng.choice([MODEL, MODEL, "Manifest.json"] + 2 * [f for f in files if f.endswith(".bin")])
    ways = [flip, flip, cut, insert, remove, repeat, number]
    if path.endswith(".bin"):
        ways += 6 * [record]
    if path == "Manifest.json":
        ways += 6 * [json_value]
    way = rng.choice(ways)
    return {"name": name, "file": path, "way": way.__name__}, way(rng, files[path])


# What coremltools says.


def spec_weights(model):
    """Every (file, offset, element type, number of elements) of a program."""
    from google.protobuf.message import Message

    found = []

    def walk(message):
        if message.DESCRIPTOR.full_name.endswith("MILSpec.Value") and message.WhichOneof("value") == "blobFileValue":
            tensor = message.type.tensorType
            elements = 1
            for dimension in tensor.dimensions:
                elements *= dimension.constant.size
            blob = message.blobFileValue
            found.append((blob.fileName, blob.offset, tensor.dataType, elements))
        for field, value in message.ListFields():
            if field.type != field.TYPE_MESSAGE:
                continue
            if field.message_type.GetOptions().map_entry:
                for inner in value.values():
                    if isinstance(inner, Message):
                        walk(inner)
            elif isinstance(value, Message):
                walk(value)
            else:
                for inner in value:
                    walk(inner)

    walk(model)
    return found


def packed(elements, bits):
    """Elements as they lie in the file: coremltools gives those of less than a byte as a byte each."""
    import numpy as np

    if bits >= 8:
        return elements.tobytes()
    each = np.unpackbits(elements.view(np.uint8).reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    return np.packbits(each.reshape(-1), bitorder="little").tobytes()


def theirs(package, with_weights, our_model):
    """What coremltools reads of a package; of the message that we would write, whether it says the same."""
    import coremltools as ct
    from coremltools.libmilstoragepython import _BlobStorageReader
    from coremltools.proto import MIL_pb2

    names = {
        MIL_pb2.FLOAT32: ("float", 32), MIL_pb2.FLOAT16: ("fp16", 16), MIL_pb2.INT8: ("int8", 8),
        MIL_pb2.UINT8: ("uint8", 8), MIL_pb2.INT16: ("int16", 16), MIL_pb2.UINT16: ("uint16", 16),
        MIL_pb2.INT32: ("int32", 32), MIL_pb2.UINT32: ("uint32", 32), MIL_pb2.INT4: ("int4", 4),
        MIL_pb2.UINT1: ("uint1", 1), MIL_pb2.UINT2: ("uint2", 2), MIL_pb2.UINT3: ("uint3", 3),
        MIL_pb2.UINT4: ("uint4", 4), MIL_pb2.UINT6: ("uint6", 6),
    }  # fmt: skip
    try:
        spec = ct.utils.load_spec(package)
    except Exception as error:
        return {"error": str(error) or type(error).__name__}
    spec.DiscardUnknownFields()
    # Fields stand in another order in what we write, and keys and values of maps that are empty do not.
    again = type(spec).FromString(bytes.fromhex(our_model))
    answer = {"same": again.SerializeToString(deterministic=True) == spec.SerializeToString(deterministic=True)}
    if not with_weights:
        return answer
    folder, weights = Path(package) / WEIGHTS, {}
    for file_name, offset, dtype, elements in spec_weights(spec):
        name, bits = names[dtype]
        try:
            reader = _BlobStorageReader(str(folder / Path(file_name).name))
            data = packed(getattr(reader, f"read_{name}_data")(offset), bits)
        except Exception as error:
            return answer | {"weights_error": str(error)}
        expected = (elements * bits + 7) // 8
        if len(data) != expected:
            # What `reshape` refuses when coremltools makes the constant.
            return answer | {"weights_error": f"{len(data)} bytes, expected {expected}"}
        weights[f"{Path(file_name).name}:{offset}"] = data.hex()
    return answer | {"weights": weights}


def worker():
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(theirs(question["path"], question["weights"], question["model"])), flush=True)


class Asked:
    """A reader as a process that answers line by line, and is started again where it ends."""

    def __init__(self, command):
        self.command, self.process = command, None

    def ask(self, line):
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_SECONDS)
        answer = self.process.stdout.readline() if ready else b""
        if answer:
            return json.loads(answer)
        self.process.kill()
        how = "no answer" if not ready else f"ended with {self.process.wait()}"
        self.process = None
        return {"error": how, "crashed": True}


def ours(reader, package):
    answer = reader.ask(str(package))
    weights = {}
    for stage in answer.get("stages", []):
        if "error" in stage:
            answer["weights_error"] = stage["error"]
            continue
        for weight in stage["weights"]:
            weights[f"{weight['file']}:{weight['offset']}"] = weight["bytes"]
    answer["weights"] = weights
    return answer


# Both beside each other.


def verdict(damage, mine, other):
    """How the two answers differ: what is compared, who refuses it or what is read otherwise, and the refusal."""
    if other.get("crashed") or mine.get("crashed"):
        who = "ours" if mine.get("crashed") else "coremltools"
        return f"crash of {who}: {(mine if who == 'ours' else other)['error']}"
    if "error" in mine or "error" in other:
        if "error" in mine and "error" in other:
            return None
        who = "ours" if "error" in mine else "coremltools"
        return f"only {who} refuses: {(mine if who == 'ours' else other)['error']}"
    if not other["same"]:
        return "another model" if mine["lossless"] else "another model, said to be incomplete"
    if not damage["file"].endswith(".bin"):
        return None
    if "weights_error" in mine or "weights_error" in other:
        if "weights_error" in mine and "weights_error" in other:
            return None
        who = "ours" if "weights_error" in mine else "coremltools"
        return f"weights: only {who} refuses: {(mine if who == 'ours' else other)['weights_error']}"
    return None if mine["weights"] == other["weights"] else "other weights"


def class_of(difference):
    for pattern, name in CLASSES:
        if re.search(pattern, difference, re.DOTALL):
            return name
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    parser.add_argument("--reader", type=Path, default=Path(target) / "release/examples/read")
    parser.add_argument("--keep", type=Path, help="a folder to copy the packages to that the readers do not agree on")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker()

    rng = random.Random(arguments.seed)
    packages = list(bases())
    reader = Asked([arguments.reader])
    coremltools = Asked([sys.executable, __file__, "--worker"])
    counts, examples, answers = collections.Counter(), {}, collections.Counter()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        for at in range(arguments.count):
            name, files = rng.choice(packages)
            damage, contents = case(rng, name, files)
            package = Path(folder) / f"{at}.mlpackage"
            for path, data in (files | {damage["file"]: contents}).items():
                (package / path).parent.mkdir(parents=True, exist_ok=True)
                (package / path).write_bytes(data)
            mine = ours(reader, package)
            question = {"path": str(package), "weights": damage["file"].endswith(".bin"), "model": mine.get("model", "")}
            other = coremltools.ask(json.dumps(question))
            refused = "error" in mine or (question["weights"] and "weights_error" in mine)
            answers["refused" if refused else "taken"] += 1
            difference = verdict(damage, mine, other)
            if difference is None:
                counts["agree"] += 1
                shutil.rmtree(package)
                continue
            if arguments.keep:
                shutil.copytree(package, arguments.keep / str(at))
            difference = difference.replace(str(package), "PACKAGE")
            name = class_of(difference) or "UNEXPLAINED: " + re.sub(r"[0-9]+", "N", difference)[:160]
            counts[name] += 1
            examples.setdefault(name, f"number {at}, {damage}: {difference[:300]}")
            shutil.rmtree(package)
    print(f"{arguments.count} damaged packages: we take {answers['taken']}, refuse {answers['refused']}")
    for name, count in counts.most_common():
        print(f"{count:6}  {name}")
    for name, example in examples.items():
        print(f"  {name}\n    {example}")
    return any(name.startswith("UNEXPLAINED") for name in counts)


if __name__ == "__main__":
    sys.exit(main())
