#!/usr/bin/env python3
"""Converts random models of every family and compares what the packages compute with diffusers.

    check_against_diffusers.py [--binary PATH] [--quick] [--only TEXT] [--jobs N] [--list]

Each case saves a checkpoint, converts it to one package and to chains of several, checks them all
with coremltools, and evaluates them: one package must agree with diffusers (in float32, holding the
same fp16-rounded weights) to 100 dB when evaluated in float32 and to 60 dB when rounded to fp16, and
a chain must give exactly what the one package gives. A row per case; the exit code is 1 if any fails.
"""

import argparse
import functools
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

import check_packages
import diffusers_models as models
import evaluate

FAMILIES = ("sdxl", "refiner", "sd15", "sd21")
LEAST_DB = {"fp32": 100.0, "fp16": 60.0}
ROOT = Path(__file__).resolve().parent.parent
# (height, width) of latents. The long ones have more than 512 tokens at the first attention, so that
# split-einsum-v2 really splits, and leave a shorter last piece.
SQUARE = {"sdxl": (32, 32), "refiner": (32, 32), "sd15": (16, 16), "sd21": (16, 16)}
LONG = {"sdxl": (32, 96), "refiner": (32, 96), "sd15": (24, 32), "sd21": (24, 32)}


class Failure(Exception):
    """A case falls short; the message says where."""


@dataclass(frozen=True)
class Case:
    """A model, how it is saved, and how it is converted."""

    model: str
    attention: str = "split-einsum"
    long: bool = False
    chunks: tuple = (1,)  # one first: what the chains are compared with
    layout: str = "diffusers"
    dtype: str = "fp16"
    batch: int = 2
    tokens: int = 77
    save: dict = field(default_factory=dict)  # further arguments of `diffusers_models.save`
    path: str = ""  # what is converted, below the saved folder
    config: bool = False  # pass the config.json by name
    flags: tuple = ()
    quick: bool = False

    @property
    def name(self):
        parts = [self.model, self.attention, self.latent_size, f"{self.layout} layout", self.dtype]
        parts += [key if value is True else f"{key}={value or 'none'}" for key, value in self.save.items()]
        parts += [f"batch={self.batch}"] * (self.batch != 2) + [f"tokens={self.tokens}"] * (self.tokens != 77)
        return " ".join([*parts, *filter(None, [self.path, "--config" * self.config]), *self.flags])

    @property
    def latent_size(self):
        height, width = self.size
        return f"{width}x{height}"

    @property
    def size(self):
        return (LONG if self.long else SQUARE)[self.model.split("-")[0]]


def cases():
    """The matrix: every attention form of every family, then every other choice once."""
    for model in FAMILIES:
        main = Case(model, chunks=(1, 2, 3, 5))
        yield replace(main, quick=True)
        yield replace(main, long=True, chunks=(1, 3))
        yield replace(main, attention="split-einsum-v2", chunks=(1,))
        yield replace(main, attention="split-einsum-v2", long=True, quick=model == "sdxl")
        for attention, flags in (("original", ()), ("sdpa", ("--target", "macos15"))):
            main = replace(main, attention=attention, flags=flags)
            yield replace(main, chunks=(1, 3))
            yield replace(main, long=True)
    for model in FAMILIES:
        cheap = Case(model, "original", chunks=(1, 2), layout="original")
        yield replace(cheap, quick=True)
        for dtype in ("fp32", "bf16"):
            yield replace(cheap, dtype=dtype)
            yield replace(cheap, dtype=dtype, layout="diffusers", save={"sharded": True})
    for model in models.MODELS:
        if model not in FAMILIES:
            cheap = Case(model, "original", chunks=(1, 2))
            yield replace(cheap, quick=model in ("sdxl-nested", "sd15-inpainting"))
            yield replace(cheap, layout="original", config=model == "sd21-groups16")
    yield from sdxl_cases()


def sdxl_cases():
    """What does not depend on the family."""
    cheap = Case("sdxl", "original", chunks=(1, 2))
    single = replace(cheap, layout="original")
    yield replace(single, dtype="f8_e4m3")
    yield replace(single, dtype="f8_e5m2")
    yield replace(single, save={"leftovers": False})
    yield replace(single, save={"leftovers": False, "prefix": ""})
    yield replace(cheap, save={"variant": "fp16"})
    yield replace(cheap, dtype="fp32", save={"variant": "v"}, flags=("--variant", "v"))
    # Three ways to call the index of a variant: diffusers 0.30's own, earlier, earlier still.
    shards = {"sharded": True, "variant": "fp16"}
    yield replace(cheap, save=shards, flags=("--variant", "fp16"))
    yield replace(cheap, save={**shards, "index": "diffusion_pytorch_model.safetensors.index.fp16.json"})
    yield replace(cheap, save={**shards, "index": "diffusion_pytorch_model.fp16.safetensors.index.json"})
    yield replace(cheap, path="unet")
    yield replace(cheap, path="unet/diffusion_pytorch_model.safetensors", config=True)
    yield replace(cheap, batch=1, tokens=154)
    yield replace(cheap, chunks=(1, 3), flags=("--boundary", "float32"))
    yield replace(cheap, attention="split-einsum", flags=("--target", "macos14"))
    yield replace(cheap, attention="split-einsum", flags=("--target", "macos15"))


class Checker:
    """Runs cases with one binary, below one scratch folder."""

    def __init__(self, binary, scratch):
        self.binary = binary
        self.scratch = scratch

    def run(self, case):
        """(dB in fp32, dB in fp16, operations) of a case."""
        model = models.make(models.MODELS[case.model])
        saved = models.save(model, self.scratch / "checkpoint", case.layout, case.dtype, **case.save)
        model.save_config(self.scratch / "config")
        inputs = models.make_inputs(model.config, case.size, case.batch, case.tokens)
        reference = models.predict(models.rounded(model, case.dtype), inputs)
        (single,) = self.convert(case, saved / case.path, 1)
        whole = {precision: chain_output([single], inputs, precision) for precision in LEAST_DB}
        db = {precision: evaluate.psnr(reference, output) for precision, output in whole.items()}
        for precision, least in LEAST_DB.items():
            if db[precision] < least:
                raise Failure(f"{db[precision]:.1f} dB in {precision}, expected {least:.0f}")
        for chunks in case.chunks[1:]:
            packages = self.convert(case, saved / case.path, chunks)
            for precision, output in whole.items():
                if not torch.equal(chain_output(packages, inputs, precision), output):
                    raise Failure(f"{chunks} chunks differ from one package in {precision}")
        return db["fp32"], db["fp16"], sum(evaluate.load(single).counts().values())

    def convert(self, case, source, chunks):
        """The checked packages of a conversion, in chain order."""
        folder = self.scratch / f"chunks{chunks}"
        command = [self.binary, "convert", source, "-o", folder, "--chunks", chunks, "--json", "--quiet"]
        command += ["--attention", case.attention, "--latent-size", case.latent_size]
        command += ["--batch", case.batch, "--tokens", case.tokens, *case.flags]
        if case.config:
            command += ["--config", self.scratch / "config/config.json"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-400:]}")
        packages = [folder / Path(chunk["path"]).name for chunk in json.loads(done.stdout)["chunks"]]
        check_folder(folder, packages, chunks)
        return packages


def check_folder(folder, packages, chunks):
    if len(packages) != chunks:
        raise Failure(f"expected {chunks} packages, found {[package.name for package in packages]}")
    if not (folder / "conversion.json").exists():
        raise Failure("conversion.json is missing")
    reports = check_packages.check(folder)
    if sorted(report.path for report in reports) != sorted(packages):
        raise Failure(f"the folder holds {[report.path.name for report in reports]}")
    problems = [str(report) for report in reports if report.problems]
    if problems:
        raise Failure("; ".join(problems)[:600])


def chain_output(packages, inputs, precision):
    (output,) = evaluate.chain(packages, inputs, precision).values()
    return output


def run_case(binary, scratch, case):
    """A case in a folder of its own; (row, whether it passed)."""
    # A case a core: two processes with two threads each are slower on two cores.
    torch.set_num_threads(1)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        try:
            fp32, fp16, operations = Checker(binary, Path(folder)).run(case)
            result, passed = f"{fp32:6.1f} {fp16:6.1f} {operations:6}", True
        except (Failure, ValueError, NotImplementedError, KeyError) as error:
            result, passed = f"FAILED: {type(error).__name__}: {error}", False
    row = f"{case.name:<92} {','.join(map(str, case.chunks)):<8} {time.monotonic() - start:5.1f} s {result}"
    return row, passed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/chunk-unet")
    parser.add_argument("--quick", action="store_true", help="a few cases that touch every part")
    parser.add_argument("--only", metavar="TEXT", default="", help="cases whose name holds TEXT")
    parser.add_argument("--scratch", type=Path, help="where to work; default the system's temporary folder")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time (default 2)")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    options = parser.parse_args()
    chosen = [case for case in cases() if options.only in case.name and (case.quick or not options.quick)]
    if options.list:
        print(*(case.name for case in chosen), sep="\n")
        return 0
    if not options.binary.exists():
        parser.error(f"{options.binary} does not exist: build it, or name it with --binary")
    print(f"{'case':<92} {'chunks':<8} {'time':>7} {'fp32':>6} {'fp16':>6} {'ops':>6}")
    passed = 0
    run = functools.partial(run_case, options.binary.resolve(), options.scratch)
    # Spawned, because a forked torch keeps locks of threads that are gone.
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for row, good in pool.imap(run, chosen):
            passed += good
            print(row, flush=True)
    print(f"{passed} passed, {len(chosen) - passed} failed")
    return 0 if chosen and passed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
