#!/usr/bin/env python3
"""Splits the same packages in two with coremltools' `bisect_model` and with `chunk-unet split`, and compares.

    compare_bisect.py --binary chunk-unet PACKAGE... [--markdown FILE]

For each package and tool: the weight files, what crosses at every prediction, operations that compute, what is left of the
metadata, wall time, and the most memory of the process. `bisect_model` runs in a process of its own; what Python takes to
start and import is not counted. How even two parts are and how little crosses are one choice: where `bisect_model` made another
one, `split` runs once more with the balance that `bisect_model` came to (`--balance`). Exit code 1 if no run of `split` is at
least as good in every column.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BISECT = """
import logging, sys, time
logging.getLogger("coremltools").setLevel(logging.ERROR)
import coremltools as ct
print(time.time(), flush=True)
if len(sys.argv) > 1:
    ct.models.utils.bisect_model(sys.argv[1], sys.argv[2], check_output_correctness=False)
"""
DTYPES = {65568: 4, 65600: 8, 131104: 4, 65552: 2, 131080: 1}


# A process starts with the memory of the one that made it, so a small one measures.
MEASURE = """
import json, os, subprocess, sys, time
start = time.time()
process = subprocess.Popen(sys.argv[2:], stdout=open(sys.argv[1], "wb"), stderr=subprocess.PIPE)
why = process.stderr.read().decode(errors="replace")
_, status, usage = os.wait4(process.pid, 0)
code = os.waitstatus_to_exitcode(status)
print(json.dumps({"start": start, "seconds": time.time() - start, "peak": usage.ru_maxrss * 1024, "code": code, "why": why}))
"""


def measured(command):
    """Output, wall seconds and peak memory of a command; None, and why, where it fails."""
    with tempfile.NamedTemporaryFile() as out:
        measurer = [sys.executable, "-S", "-c", MEASURE, out.name, *command]
        run = json.loads(subprocess.run(measurer, stdout=subprocess.PIPE, check=True).stdout)
        run["out"] = Path(out.name).read_text()
    if run["code"] == 0:
        return run, None
    lines = [line for line in run["why"].splitlines() if line.strip()]
    return None, lines[-1] if lines else f"exit code {run['code']}"


def model(package):
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString((package / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    return spec


def operations(spec):
    count = 0
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            count += sum(op.type != "const" for op in block.operations)
    return count


def size(feature):
    array = feature.type.multiArrayType
    return math.prod(array.shape) * DTYPES.get(array.dataType, 0) if array.shape else 0


def kept(whole, chunk):
    """How many of the whole's texts (metadata, own keys, descriptions of features) the chunk has."""
    def texts(spec):
        metadata = spec.description.metadata
        found = {k: getattr(metadata, k) for k in ("author", "license", "versionString", "shortDescription")}
        found.update({("key", k): v for k, v in metadata.userDefined.items()})
        names = [f.name for f in [*chunk.description.input, *chunk.description.output]]
        features = [*spec.description.input, *spec.description.output]
        found.update({("feature", f.name): f.shortDescription for f in features if f.name in names})
        return {k: v for k, v in found.items() if v}

    wanted, had = texts(whole), texts(chunk)
    return sum(had.get(k) == v for k, v in wanted.items()), len(wanted)


def looked_at(source, chunks):
    whole = model(source)
    specs = [model(chunk) for chunk in chunks]
    originals = {f.name: size(f) for f in whole.description.input}
    crossing = [f for f in specs[1].description.input if f.name not in originals]
    # `bisect_model` declares other default shapes of flexible inputs: what crosses is counted at the package's own.
    grown = [originals[f.name] / size(f) for f in specs[0].description.input if size(f) and originals[f.name]]
    counts = [kept(whole, spec) for spec in specs]
    weights = [chunk / "Data/com.apple.CoreML/weights/weight.bin" for chunk in chunks]
    return {
        "weights": [w.stat().st_size if w.exists() else 0 for w in weights],
        "crossing": round(sum(size(f) for f in crossing) * max(grown, default=1)),
        "operations": sum(operations(spec) for spec in specs),
        "whole": operations(whole),
        "kept": (sum(k for k, _ in counts), sum(n for _, n in counts)),
    }


def bisected(source, folder):
    run, why = measured([sys.executable, "-c", BISECT, str(source), str(folder)])
    if run is None:
        return None, why
    begun = float(run["out"].split()[0])
    end = run["start"] + run["seconds"]
    chunks = [folder / f"{source.stem}_chunk{i}.mlpackage" for i in (1, 2)]
    return {**looked_at(source, chunks), "seconds": end - begun, "peak": run["peak"]}, None


def split(source, folder, binary, *more):
    command = [binary, "split", str(source), "-o", str(folder), "--chunks", "2", "--quiet", "--json", *more]
    run, why = measured(command)
    if run is None:
        return None, why
    paths = [folder / chunk["path"] for chunk in json.loads(run["out"])["chunks"]]
    return {**looked_at(source, paths), "seconds": run["seconds"], "peak": run["peak"]}, None


def balance(source, binary, theirs):
    """How far the larger of these parts exceeds the best possible one, rounded up to what a percentage tells."""
    command = [binary, "split", str(source), "--dry-run", "--chunks", "2", "--balance", "0%", "--json"]
    plan = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    best = max(chunk["weight_bytes"] for chunk in plan["chunks"])
    excess = max(max(theirs["weights"]) / best - 1, 0) if best else 0
    return f"{min(math.ceil(excess * 10000) / 100, 100):g}%"


def is_worse(ours, theirs):
    """In which columns `split` does worse."""
    columns = {
        "weight files": max(ours["weights"]) > max(theirs["weights"]),
        "crosses": ours["crossing"] > theirs["crossing"],
        "operations": ours["operations"] > theirs["operations"],
        "texts": ours["kept"][0] * max(theirs["kept"][1], 1) < theirs["kept"][0] * max(ours["kept"][1], 1),
        "time": ours["seconds"] > theirs["seconds"],
        "memory": ours["peak"] > theirs["peak"],
    }
    return [name for name, worse in columns.items() if worse]


def amount(n):
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            break
        n /= 1000
    else:
        unit = "GB"
    return f"{n:.0f} {unit}" if unit == "B" or n >= 100 else f"{n:.1f} {unit}"


def row(name, tool, found, why):
    if found is None:
        return f"| {name} | {tool} | refused: {why[:90]} | | | | | |"
    return "| {} | {} | {} | {} | {} | {} of {} | {:.2f} s | {} |".format(
        name,
        tool,
        " + ".join(amount(w) for w in found["weights"]),
        amount(found["crossing"]),
        f"{found['operations']} (whole: {found['whole']})",
        *found["kept"],
        found["seconds"],
        amount(found["peak"]),
    )


HEAD = """| package | tool | weight files | crosses | operations | texts kept | time | memory |
|---|---|---|---|---|---|---|---|"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--binary", default="target/release/chunk-unet")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    lines, worse = [HEAD], []
    print(HEAD, flush=True)
    for source in arguments.packages:
        with tempfile.TemporaryDirectory() as folder:
            # coremltools rewrites the manifest of what it opens.
            copy = Path(folder) / source.name
            shutil.copytree(source, copy, copy_function=os.link)
            (copy / "Manifest.json").unlink()
            shutil.copyfile(source / "Manifest.json", copy / "Manifest.json")
            name = source.parent.name if source.parent.parent.name == "models" else source.stem
            theirs, their_why = bisected(copy, Path(folder) / "bisected")
            ours, our_why = split(copy, Path(folder) / "split", arguments.binary)
            rows = [("`bisect_model`", theirs, their_why), ("`split`", ours, our_why)]
            short = [our_why] if ours is None else is_worse(ours, theirs) if theirs else []
            if short and ours and theirs:
                even = balance(copy, arguments.binary, theirs)
                ours, our_why = split(copy, Path(folder) / "again", arguments.binary, "--balance", even)
                rows.append((f"`split --balance {even}`", ours, our_why))
                short = [our_why] if ours is None else is_worse(ours, theirs)
        for tool, found, why in rows:
            lines.append(row(name, tool, found, why))
            print(lines[-1], flush=True)
        if short:
            worse.append(f"{name}: {', '.join(short)}")
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")
    for line in worse:
        print(f"split does worse: {line}", file=sys.stderr)
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
