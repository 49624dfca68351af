#!/usr/bin/env python3
"""Checks .mlpackage folders as far as that goes without a Mac.

    check_packages.py PACKAGE|DIR...
    check_packages.py --split PACKAGE DIR...

coremltools opens each package and rebuilds every operation, which infers every type again and reads
every blob. What coremltools leaves unchecked is checked here: opset against specification version,
identifiers, unique names, the layout of weight.bin, the model description against the function, and
that the metadata is filled in. Of a DIR every package is checked, and where it holds a
`conversion.json` also that the packages of each component, or the stages of its pipeline, fit together
and stay within their limit. Prints a line per package or stage; the exit code is 1 if anything falls short.

With `--split` each DIR holds what `split` made of PACKAGE, which others may have made: coremltools opens
and rebuilds each of its packages or stages, and metadata, descriptions and the inputs' and outputs'
declarations must be those of PACKAGE.
"""

import contextlib
import json
import logging
import math
import os
import re
import shutil
import struct
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

# coremltools warns about the native parts that only a Mac has.
logging.getLogger("coremltools").setLevel(logging.ERROR)

import coremltools as ct
from coremltools.converters.mil.frontend.milproto.load import load as load_program
from coremltools.proto import FeatureTypes_pb2, MIL_pb2

OPSETS = {7: "CoreML6", 8: "CoreML7", 9: "CoreML8"}
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_@]*")
# Words of Core ML's text form; coremltools renames values that are called so.
RESERVED = frozenset(
    "any bool program func tensor list dict tuple true false string bf16 fp16 fp32 fp64 state "
    "int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()
)
BLOB_FOLDER = "@model_path/weights/"

# MILBlob's StorageFormat.hpp: a 64-byte header, then per blob a 64-byte record and its data.
BLOB_VERSION = 2
BLOB_SENTINEL = 0xDEADBEEF
BLOB_ALIGNMENT = 64
# Type in the program -> (type code in the blob file, bits per element).
BLOB_TYPES = {
    MIL_pb2.FLOAT16: (1, 16),
    MIL_pb2.FLOAT32: (2, 32),
    MIL_pb2.UINT8: (3, 8),
    MIL_pb2.INT8: (4, 8),
    MIL_pb2.INT4: (8, 4),
    MIL_pb2.UINT4: (11, 4),
    MIL_pb2.UINT6: (13, 6),
    MIL_pb2.INT32: (14, 32),
}
FEATURE_TYPES = {
    FeatureTypes_pb2.ArrayFeatureType.FLOAT16: MIL_pb2.FLOAT16,
    FeatureTypes_pb2.ArrayFeatureType.FLOAT32: MIL_pb2.FLOAT32,
    FeatureTypes_pb2.ArrayFeatureType.INT32: MIL_pb2.INT32,
}
DTYPE_NAMES = {
    MIL_pb2.FLOAT16: ("fp16", 2),
    MIL_pb2.FLOAT32: ("fp32", 4),
    MIL_pb2.INT32: ("int32", 4),
}
# What a package of ours says of its place in a chain.
PLACE_KEYS = {f"chunk-unet.{k}" for k in ("chunk", "chunks", "previous", "from_previous", "next", "to_next")}
# What Apple's Swift pipeline feeds to a UNet; a stage may take any of these.
ORIGINAL_INPUTS = ("sample", "timestep", "encoder_hidden_states", "time_ids", "text_embeds")


@dataclass
class Report:
    """What one package is and where it falls short. Features are `(name, shape, dtype)`."""

    path: Path
    operations: int = 0
    blobs: int = 0
    weight_bytes: int = 0
    specification: int = 0
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    unused_inputs: list = field(default_factory=list)
    problems: list = field(default_factory=list)

    def __str__(self):
        if self.problems:
            return f"{self.path}: FALLS SHORT: " + "; ".join(self.problems)
        unused = f", unused inputs: {', '.join(self.unused_inputs)}" if self.unused_inputs else ""
        return (
            f"{self.path}: ok: {self.operations} operations, {self.blobs} blobs, "
            f"{self.weight_bytes} bytes of weights, specification {self.specification}, "
            f"{len(self.inputs)} inputs, {len(self.outputs)} outputs{unused}"
        )


@dataclass
class Part:
    """A model of a package: its own, or one stage of its pipeline."""

    spec: object
    weights: Path
    report: Report


def check_package(path):
    """The reports of one package: of itself, or of each stage of its pipeline."""
    reports = []
    try:
        with _opened(path) as (spec, folder):
            parts = _parts(Path(path), spec, folder)
            reports = [part.report for part in parts]
            for part in parts:
                _check_part_of_ours(part)
            if spec.WhichOneof("Type") == "pipeline":
                check_chain(reports, is_pipeline=True)
                _check_pipeline(spec, reports)
    except Exception as error:  # coremltools raises whatever it stumbles over: each is a finding
        reports = reports or [Report(Path(path))]
        reports[-1].problems.append(f"{type(error).__name__}: {error}")
    return reports


@contextlib.contextmanager
def _opened(path):
    """The model of a package and its folder. Only a copy is opened: coremltools rewrites the manifest."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.mlpackage"
        shutil.copytree(path, copy, copy_function=_link_weights)
        model = ct.models.MLModel(str(copy), skip_model_load=True)
        yield model.get_spec(), copy / "Data" / "com.apple.CoreML" / "weights"


def _parts(path, spec, weights):
    if spec.WhichOneof("Type") != "pipeline":
        return [Part(spec, weights / "weight.bin", Report(path))]
    return [
        Part(stage, weights / f"{at}-weight.bin", Report(Path(f"{path} stage {at + 1}")))
        for at, stage in enumerate(spec.pipeline.models)
    ]


def _check_pipeline(spec, reports):
    """What a pipeline declares: what no stage gives goes in, what none takes comes out."""
    given = [f for report in reports for f in report.outputs]
    names = {name for name, *_ in given}
    taken = {f[0]: f for report in reversed(reports) for f in report.inputs}
    inputs = {f for f in taken.values() if f[0] not in names}
    outputs = {f for f in given if f[0] not in taken}
    for kind, features, wanted in (
        ("inputs", spec.description.input, inputs),
        ("outputs", spec.description.output, outputs),
    ):
        if {_feature(f) for f in features} != wanted:
            found = sorted(f.name for f in features)
            reports[0].problems.append(f"the pipeline's {kind} are {found}, expected {sorted(f[0] for f in wanted)}")


def _link_weights(source, target):
    if Path(source).suffix == ".bin":
        try:
            return os.link(source, target)
        except OSError:
            pass  # another device
    return shutil.copy2(source, target)


def _check_part_of_ours(part):
    spec, report = part.spec, part.report
    report.specification = spec.specificationVersion
    load_program(spec, spec.specificationVersion, str(part.weights.parent)).validate()
    functions = spec.mlProgram.functions
    if list(functions) != ["main"]:
        report.problems.append(f"expected one function `main`, found {list(functions)}")
        return
    opset = OPSETS.get(spec.specificationVersion)
    if functions["main"].opset != opset:
        report.problems.append(
            f"opset {functions['main'].opset} with specification {spec.specificationVersion}, expected {opset}"
        )
    block = functions["main"].block_specializations[functions["main"].opset]
    report.operations = sum(op.type != "const" for op in block.operations)
    _check_names(functions["main"], block, report)
    _check_description(spec.description, functions["main"], block, report)
    _check_metadata(spec.description, report)
    _check_blobs(part.weights, block, report)


def _check_names(function, block, report):
    inputs = [i.name for i in function.inputs]
    defined = inputs + [o.name for op in block.operations for o in op.outputs]
    for name in defined:
        if not IDENTIFIER.fullmatch(name) or name in RESERVED:
            report.problems.append(f"illegal name {name!r}")
    report.problems += [f"`{name}` is defined twice" for name in _repeated(defined)]
    for op in block.operations:
        extra = set(op.attributes) - {"name", "val"}
        if "name" not in op.attributes or extra:
            report.problems.append(f"{op.type} `{op.outputs[0].name}`: attributes {sorted(op.attributes)}")
    used = {b.name for op in block.operations for a in op.inputs.values() for b in a.arguments}
    report.unused_inputs = [name for name in inputs if name not in used]
    consts = [op.outputs[0].name for op in block.operations if op.type == "const"]
    report.problems += [f"const `{name}` is used by nothing" for name in consts if name not in used]


def _repeated(names):
    seen = set()
    return sorted({name for name in names if name in seen or seen.add(name)})


def _check_description(description, function, block, report):
    types = {i.name: i.type for i in function.inputs}
    types.update((o.name, o.type) for op in block.operations for o in op.outputs)
    report.inputs = [_feature(f) for f in description.input]
    report.outputs = [_feature(f) for f in description.output]
    for kind, features, names in (
        ("inputs", report.inputs, [i.name for i in function.inputs]),
        ("outputs", report.outputs, list(block.outputs)),
    ):
        declared = [(name, _shape(types[name]), types[name].tensorType.dataType) for name in names]
        if features != declared:
            report.problems.append(f"{kind} described as {features}, declared as {declared}")


def _feature(feature):
    array = feature.type.multiArrayType
    return feature.name, tuple(array.shape), FEATURE_TYPES.get(array.dataType)


def _shape(value_type):
    return tuple(d.constant.size for d in value_type.tensorType.dimensions)


def _check_metadata(description, report):
    metadata = description.metadata
    for key in ("shortDescription", "versionString", "userDefined"):
        if not getattr(metadata, key):
            report.problems.append(f"metadata: `{key}` is empty")
    for feature in [*description.input, *description.output]:
        if not feature.shortDescription:
            report.problems.append(f"metadata: `{feature.name}` has no description")


def _check_blobs(path, block, report):
    referenced = {}
    for op in block.operations:
        for value in _values(op):
            if value.WhichOneof("value") != "blobFileValue":
                continue
            blob = value.blobFileValue
            if blob.fileName != BLOB_FOLDER + path.name:
                report.problems.append(f"`{op.outputs[0].name}` lies in `{blob.fileName}`, not `{path.name}`")
            code, bits = BLOB_TYPES[value.type.tensorType.dataType]
            referenced[blob.offset] = (code, -(-math.prod(_shape(value.type)) * bits // 8))
    if not path.exists():
        if referenced:
            report.problems.append(f"{path.name} is missing")
        return
    report.weight_bytes = path.stat().st_size
    found, problems = _walk_blobs(path)
    report.blobs = len(found)
    report.problems += problems
    for offset in sorted(referenced.keys() | found.keys()):
        wanted, had = referenced.get(offset), found.get(offset)
        if wanted != had:
            report.problems.append(f"blob at {offset}: program expects (type, bytes) {wanted}, found {had}")


def _values(op):
    """The values that an operation holds itself: attributes and inline arguments."""
    yield from op.attributes.values()
    for argument in op.inputs.values():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "value":
                yield binding.value


def _walk_blobs(path):
    """Record offset -> (type code, bytes), and what is wrong with the layout."""
    found, problems, size = {}, [], path.stat().st_size
    with path.open("rb") as file:
        count, version = struct.unpack("<II", file.read(8))
        if version != BLOB_VERSION:
            return found, [f"weight.bin: version {version}, expected {BLOB_VERSION}"]
        end = offset = BLOB_ALIGNMENT
        for _ in range(count):
            file.seek(end)
            if any(file.read(offset - end)):
                problems.append(f"weight.bin: padding before {offset} is not zero")
            record = file.read(BLOB_ALIGNMENT)
            if len(record) < BLOB_ALIGNMENT:
                return found, [*problems, f"weight.bin: ends before record {offset}, header counts {count}"]
            sentinel, code, length, start, padding_bits = struct.unpack_from("<IIQQQ", record)
            if sentinel != BLOB_SENTINEL:
                return found, [*problems, f"weight.bin: no record at {offset}"]
            if start != offset + BLOB_ALIGNMENT or start + length > size or length == 0:
                return found, [*problems, f"weight.bin: record at {offset}: {length} bytes at {start}"]
            if padding_bits or any(record[32:]):
                problems.append(f"weight.bin: reserved bytes of the record at {offset} are not zero")
            found[offset] = (code, length)
            end = start + length
            offset = -(-end // BLOB_ALIGNMENT) * BLOB_ALIGNMENT
    if end != size:
        problems.append(f"weight.bin: {size} bytes, the last blob ends at {end}")
    return found, problems


def check_chain(reports, is_pipeline=False):
    """Adds to the reports where the packages, in order, fall short as a chain: a stage gets the last
    stage's outputs merged over the original inputs, and nothing else; in a pipeline those of all before it."""
    originals, passed = {}, {}
    for report in reports:
        for name, *feature in report.inputs:
            if name in ORIGINAL_INPUTS:
                given = originals.setdefault(name, feature)
            else:
                given = passed.get(name)
            if given is None:
                report.problems.append(f"input `{name}` is neither passed by the stage before nor original")
            elif given != feature:
                report.problems.append(f"input `{name}` is {feature}, the chain gives {given}")
        outputs = {name: feature for name, *feature in report.outputs}
        passed = {**passed, **outputs} if is_pipeline else outputs
        hidden = [name for name in passed if name in ORIGINAL_INPUTS]
        report.problems += [f"output `{name}` hides an original input" for name in hidden]
    first = {name for name, *_ in reports[0].inputs}
    for name in ("sample", "time_ids"):
        # Apple's pipeline reads the shapes of these two off the first stage.
        if name in originals and name not in first:
            reports[0].problems.append(f"the first stage does not declare `{name}`")
    if len(reports[-1].outputs) != 1:
        reports[-1].problems.append(f"the last stage has {len(reports[-1].outputs)} outputs, expected one")


def check_folder(path):
    """The reports of every package in a folder, those that `conversion.json` lists as chains."""
    record = path / "conversion.json"
    reports = {package.name: check_package(package) for package in sorted(path.glob("*.mlpackage"))}
    components = json.loads(record.read_text())["components"] if record.exists() else {}
    for name, component in components.items():
        chunks, packages = component["chunks"], component["packages"]
        chain = [report for package in packages for report in reports.get(package, [])]
        if not chain or len(chain) != len(chunks):
            missing = Report(record, problems=[f"`{name}` lists packages that are not there"])
            reports[f"conversion.json {name}"] = [missing]
            continue
        if len(packages) == len(chunks):
            check_chain(chain)
        for report, chunk in zip(chain, chunks):
            _check_record(report, chunk, component["limit"])
        for package in packages:
            _check_files(path / package, reports[package][0], component["files"], chunks)
        if component["packages_bytes"] != sum(file["bytes"] for file in component["files"]):
            chain[0].problems.append(f"`packages_bytes` is {component['packages_bytes']}, the files take another number")
    return [report for package in reports.values() for report in package]


def _check_record(report, chunk, limit):
    """What conversion.json says of a package against the package."""
    for kind in ("inputs", "outputs"):
        recorded = [(f["name"], tuple(f["shape"]), f["dtype"], f["bytes"]) for f in chunk[kind]]
        found = [
            (name, shape, DTYPE_NAMES[dtype][0], math.prod(shape) * DTYPE_NAMES[dtype][1])
            for name, shape, dtype in getattr(report, kind)
        ]
        if recorded != found:
            report.problems.append(f"{kind} recorded as {recorded}, found {found}")
    fits = limit["bytes"] is None or report.weight_bytes <= limit["bytes"]
    for key, found in (
        ("weight_bytes", report.weight_bytes),
        ("operations", report.operations),
        ("within_limit", fits),
    ):
        if chunk[key] != found:
            report.problems.append(f"`{key}` recorded as {chunk[key]}, found {found}")
    if not fits and limit["profile"] == "explicit":
        report.problems.append(f"{report.weight_bytes} bytes of weights, the limit is {limit['bytes']}")


def _check_files(package, report, files, chunks):
    recorded = {file["path"]: file["bytes"] for file in files if file["path"].startswith(package.name + "/")}
    found = {
        path.relative_to(package.parent).as_posix(): path.stat().st_size
        for path in package.rglob("*")
        if path.is_file()
    }
    if recorded != found:
        report.problems.append(f"files recorded as {recorded}, found {found}")
    for chunk in chunks:
        if chunk["path"] == package.name and "stage" not in chunk and chunk["package_bytes"] != sum(found.values()):
            report.problems.append(f"`package_bytes` recorded as {chunk['package_bytes']}, found {sum(found.values())}")


def check_split(whole, folder):
    """The reports of the packages that `split` made of another one."""
    with _opened(whole) as (wanted, _):
        pass
    record = json.loads((Path(folder) / "conversion.json").read_text())
    [component] = record["components"].values()
    reports, passed, final = [], {}, []
    for name in component["packages"]:
        path = Path(folder) / name
        try:
            with _opened(path) as (spec, weights):
                is_pipeline = spec.WhichOneof("Type") == "pipeline"
                for part in _parts(path, spec, weights):
                    reports.append(part.report)
                    given = _check_part(part, wanted, passed, len(component["chunks"]) > 1)
                    passed = {**passed, **given} if is_pipeline else given
                final = [f.name for f in _described(spec)[1]]
                if is_pipeline:
                    _check_whole(spec, wanted, reports[-1])
        except Exception as error:  # coremltools raises whatever it stumbles over: each is a finding
            reports.append(Report(path, problems=[f"{type(error).__name__}: {error}"]))
    if final != [f.name for f in _described(wanted)[1]]:
        reports[-1].problems.append(f"the last package gives {final}")
    return reports


def _check_whole(spec, wanted, report):
    """Checks what a pipeline says against the package that it was made of."""
    for description in (spec.description, wanted.description):
        for key in PLACE_KEYS:
            description.metadata.userDefined.pop(key, None)
    if spec.description.metadata != wanted.description.metadata:
        report.problems.append("the pipeline's metadata is not the package's")
    if _described(spec) != _described(wanted):
        report.problems.append("the pipeline's inputs and outputs are not declared as the package's")


def _described(spec):
    """Inputs, outputs and states of a model, or of its default function."""
    description = spec.description
    for function in description.functions:
        if function.name == description.defaultFunctionName:
            description = function
    return list(description.input), list(description.output), list(description.state)


def _check_part(part, wanted, passed, is_part):
    """Checks a model against the package that it is a part of. Returns what it gives, by name."""
    spec, report = part.spec, part.report
    report.specification = spec.specificationVersion
    load_program(spec, spec.specificationVersion, str(part.weights.parent)).validate()
    if spec.specificationVersion != wanted.specificationVersion:
        report.problems.append(f"specification {spec.specificationVersion}, expected {wanted.specificationVersion}")
    for name, function in spec.mlProgram.functions.items():
        block = function.block_specializations[function.opset]
        report.operations += sum(op.type != "const" for op in block.operations)
        if is_part:
            _check_part_names(spec, function, block, report)
    metadata, original = spec.description.metadata, wanted.description.metadata
    for key in ("author", "license", "versionString", "shortDescription"):
        if getattr(metadata, key) != getattr(original, key):
            report.problems.append(f"metadata: `{key}` is {getattr(metadata, key)!r}")
    for key, value in original.userDefined.items():
        # Which chunk it is of which model: another one now.
        if key in PLACE_KEYS:
            continue
        if metadata.userDefined.get(key) != value:
            report.problems.append(f"metadata: `{key}` is {metadata.userDefined.get(key)!r}")
    inputs, outputs, states = _described(spec)
    report.inputs = [_feature(f) for f in inputs]
    report.outputs = [_feature(f) for f in outputs]
    originals = {f.name: f for part in _described(wanted)[::2] for f in part}
    for feature in [*inputs, *states]:
        given = passed.get(feature.name)
        if given is None and originals.get(feature.name) != feature:
            report.problems.append(f"input `{feature.name}` is not declared as in the whole")
        elif given is not None and given.type.multiArrayType.dataType != feature.type.multiArrayType.dataType:
            report.problems.append(f"input `{feature.name}` is of another type than the stage before gives")
    if part.weights.exists():
        report.weight_bytes = part.weights.stat().st_size
        found, problems = _walk_blobs(part.weights)
        report.blobs = len(found)
        report.problems += [p for p in problems if "reserved bytes" not in p]
    return {f.name: f for f in outputs}


def _check_part_names(spec, function, block, report):
    inputs, outputs, states = _described(spec)
    if sorted(f.name for f in [*inputs, *states]) != sorted(i.name for i in function.inputs):
        report.problems.append("the description's inputs are not the function's")
    if [f.name for f in outputs] != list(block.outputs):
        report.problems.append("the description's outputs are not the function's")
    defined = [i.name for i in function.inputs] + [o.name for op in block.operations for o in op.outputs]
    report.problems += [f"`{name}` is defined twice" for name in _repeated(defined)]
    for name in defined:
        if not IDENTIFIER.fullmatch(name) or name in RESERVED:
            report.problems.append(f"illegal name {name!r}")


def check(path):
    """The reports of a package or of a folder of packages."""
    path = Path(path)
    return check_package(path) if path.suffix == ".mlpackage" else check_folder(path)


def main(arguments):
    whole = None
    if arguments[:1] == ["--split"] and len(arguments) > 2:
        whole, arguments = arguments[1], arguments[2:]
    if not arguments or arguments[0].startswith("-"):
        print(__doc__.strip())
        return 0 if arguments else 2
    short = False
    for argument in arguments:
        reports = check_split(whole, argument) if whole else check(argument)
        for report in reports:
            print(report)
        if not reports:
            print(f"{argument}: FALLS SHORT: no packages")
        short |= not reports or any(report.problems for report in reports)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
