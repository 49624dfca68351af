#!/usr/bin/env python3
"""Times `chunk-unet run` on the full-size SDXL UNet against torch's forward pass of the same model.

    bench-run [--pairs 3] [--threads N] [--latent-size 64x64] [--attention split-einsum] [--dir target]

Makes a synthetic SDXL UNet (2,567,463,684 parameters, F16), converts it to packages for a batch of two,
and loads the same weights into diffusers' UNet in float32. After a pass of each that does not count,
which compares their outputs and leaves the packages in the page cache, passes alternate on the same
inputs and as many threads. Counted of ours is everything from opening the packages to the last output
(`prepare_seconds` and `run_seconds`): each pass is a process of its own that plans the programs and
reads 5 GB of weights from the packages. Counted of torch is the call of a model that is in memory and
has run before. Prints each pair, the medians and their ratio, our peak resident memory, and where our
time goes by type of operation.

`--no-torch` leaves torch's side out: for time and memory at other sizes. Takes 10 GB of disk and, with
torch, 17 GB of memory; removes what it makes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import diffusers_models as models
from evaluate import psnr

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "fixtures/structure/sdxl-base/config.json"
BATCH = 2
LEAST_DB = 100.0


def run(command):
    """What a command prints."""
    return subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True).stdout


class Ours:
    """Passes of the packages."""

    def __init__(self, command):
        self.command = command
        self.reports = []

    def __call__(self):
        self.reports.append(json.loads(run(self.command)))
        return seconds(self.reports[-1])


class Torch:
    """Passes of diffusers' model."""

    def __init__(self, folder, inputs):
        self.model = models.UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
        self.inputs = inputs

    def __call__(self):
        start = time.monotonic()
        self.output = models.predict(self.model, self.inputs)
        return time.monotonic() - start


def seconds(report):
    return report["prepare_seconds"] + report["run_seconds"]


def compared(mine, torchs):
    if torchs is None:
        return f"run {mine:.2f} s"
    return f"run {mine:.2f} s, torch {torchs:.2f} s, ratio {mine / torchs:.2f}"


def print_operations(report):
    print(f"{'operation':>26} {'count':>6} {'seconds':>8} {'reading':>8}")
    for row in report["operations"]:
        if row["seconds"] >= 0.005:
            print(f"{row['type']:>26} {row['count']:>6} {row['seconds']:>8.2f} {row['reading_seconds']:>8.2f}")
    rest = seconds(report) - sum(row["seconds"] for row in report["operations"])
    print(f"{'between operations':>26} {'':>6} {rest:>8.2f}")


def bench(args, binaries, work):
    width, height = map(int, args.latent_size.split("x"))
    inputs = models.make_inputs(json.loads(CONFIG.read_text()), (height, width), BATCH)
    save_file(inputs, work / "inputs.safetensors")
    checkpoint, packages, out = work / "sdxl", work / "packages", work / "out.safetensors"
    run([binaries / "examples/synthetic", "sdxl", "-o", checkpoint, "--shards", 1])
    target = ["--target", "macos15"] if args.attention == "sdpa" else []
    convert = [binaries / "chunk-unet", "convert", checkpoint, "-o", packages, "--quiet", *target]
    run([*convert, "--latent-size", args.latent_size, "--batch", BATCH, "--attention", args.attention])
    torch.set_num_threads(args.threads)
    theirs = None if args.no_torch else Torch(checkpoint / "unet", inputs)
    shutil.rmtree(checkpoint)

    command = [binaries / "chunk-unet", "run", packages, "--inputs", work / "inputs.safetensors", "--stats"]
    ours = Ours([*command, "-o", out, "--threads", args.threads, "--json"])
    ours()
    if theirs:
        theirs()
        agreement = psnr(theirs.output, load_file(out)["noise_pred"])
        print(f"outputs agree to {agreement:.1f} dB", flush=True)
        if agreement < LEAST_DB:
            raise SystemExit(f"less than {LEAST_DB} dB: these are not the same model")
    pairs = []
    for _ in range(args.pairs):
        pairs.append((ours(), theirs() if theirs else None))
        print(f"pass {len(pairs)}: {compared(*pairs[-1])}", flush=True)
    report = sorted(ours.reports[1:], key=seconds)[args.pairs // 2]
    print(f"a median pass of run, {args.threads} threads, latents {args.latent_size}, {args.attention}:")
    print_operations(report)
    mine, torchs = zip(*pairs)
    peak = max(report["peak_bytes"] for report in ours.reports)
    medians = compared(statistics.median(mine), statistics.median(torchs) if theirs else None)
    print(f"medians: {medians}; peak memory {peak / 1e6:,.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--latent-size", default="64x64", help="WIDTHxHEIGHT")
    parser.add_argument("--attention", default="split-einsum")
    parser.add_argument("--no-torch", action="store_true", help="our side only")
    parser.add_argument("--dir", type=Path, default=None, help="folder for the temporary folder")
    args = parser.parse_args()

    build = ["cargo", "build", "--release", "--locked", "--quiet"]
    subprocess.run([*build, "--bin", "chunk-unet"], cwd=ROOT, check=True)
    subprocess.run([*build, "-p", "synthetic", "--example", "synthetic"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parent = args.dir or target
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="bench-run.", dir=parent))
    try:
        bench(args, target / "release", work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
