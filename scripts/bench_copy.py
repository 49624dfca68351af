"""Timing a job against copying the bytes that it writes, in turn, in one run."""

import os
import shlex
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = TARGET / "release/chunk-unet"


def build():
    """Builds the program and the maker of synthetic checkpoints."""
    command = ["cargo", "build", "--release", "--locked", "--quiet"]
    subprocess.run([*command, "--bin", "chunk-unet"], cwd=ROOT, check=True)
    subprocess.run([*command, "-p", "synthetic", "--example", "synthetic"], cwd=ROOT, check=True)


@contextmanager
def workspace(name, parent=None):
    """A folder that goes afterwards, whatever happens."""
    parent = parent or TARGET
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def synthetic(path, *arguments):
    """Makes a synthetic SDXL UNet (2,567,463,684 parameters)."""
    subprocess.run([TARGET / "release/examples/synthetic", "sdxl", "-o", path, *arguments], check=True)


def run(command):
    """Wall seconds and peak resident bytes of a command."""
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{shlex.join(map(str, command))}: exit code {child.returncode}")
    return wall, usage.ru_maxrss * 1024


def files(path):
    return [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]


def copy(source, target):
    """Wall seconds of copying a file or folder and waiting until the copy is on disk; the copy goes."""
    start = time.monotonic()
    run(["cp", "-r", "--reflink=never", source, target])
    for path in files(target):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    wall = time.monotonic() - start
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    return wall


def direct(source, target):
    """Wall seconds of writing a file's or folder's bytes past the page cache: what the disk itself takes; they go again."""
    start = time.monotonic()
    for path in files(source):
        size = path.stat().st_size
        run(["dd", f"if={path}", f"of={target}", "bs=8M", "oflag=direct", "conv=fsync", "status=none"])
        assert target.stat().st_size == size
        target.unlink()
    return time.monotonic() - start


def cache(path, keep):
    """Puts a file or folder into the page cache, or takes it out of it."""
    for file in files(path):
        if keep:
            subprocess.run(["cat", file], stdout=subprocess.DEVNULL, check=True)
        else:
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def compare(name, job, source, copied, work, pairs, cold, factor=1.0):
    """Alternates copying `copied` and `job` (which makes `work / "out"` from `source`); prints each pair and the median ratio.

    The copy's time counts `factor` times: for a job that writes another number of bytes than it reads.
    """
    ratios, walls, peak = [], [], 0
    cache(copied, not cold)
    print(f"the same bytes written past the page cache: {direct(copied, work / 'direct') * factor:.2f} s", flush=True)
    for pair in range(1, pairs + 1):
        cache(copied, not cold)
        base = copy(copied, work / "copy") * factor
        cache(source, not cold)
        wall, memory = run(job)
        shutil.rmtree(work / "out")
        peak = max(peak, memory)
        walls.append(wall)
        ratios.append(wall / base)
        print(f"pair {pair}: cp and sync {base:.2f} s, {name} {wall:.2f} s, ratio {ratios[-1]:.2f}", flush=True)
    state = "cold" if cold else "warm"
    print(
        f"{name}, page cache {state}: median ratio {statistics.median(ratios):.2f} "
        f"(from {min(ratios):.2f} to {max(ratios):.2f}), median {statistics.median(walls):.2f} s, peak memory {peak / 1e6:.0f} MB",
        flush=True,
    )
