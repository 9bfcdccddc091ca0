"""The machine and the versions that a benchmark ran on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.artifacts import ROOT

PACKAGES = (
    "grpcio",
    "httpx",
    "numpy",
    "nvidia-pytriton",
    "onnxruntime",
    "tokenizers",
    "torch",
    "transformers",
    "tritonclient",
)


def machine_facts() -> dict[str, Any]:
    cpus = Path("/proc/cpuinfo").read_text()
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "cpu": next(iter(re.findall(r"^model name\s*: (.*)$", cpus, re.MULTILINE)), platform.processor()),
        "kernels": _kernels(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "load_average": os.getloadavg()[0],
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
    }


def warn_if_busy(machine: dict[str, Any]) -> None:
    """Where other programs took more than a quarter of a core in the minute before."""
    if (load := machine["load_average"]) > 0.25:
        what = f"the load average is {load:.1f}: something else runs, figures will be off"
        print(f"warning: {what}", file=sys.stderr)


def read_bandwidth(threads: int, size: int = 1 << 29, rounds: int = 6) -> float:
    """Bytes that all cores read a second: the best of some rounds, in which each thread reduces an array of
    `size` bytes, far beyond every cache.
    """
    arrays = [np.ones(size // 8, np.uint64) for _ in range(threads)]
    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            began = time.perf_counter()
            assert all(pool.map(np.bitwise_or.reduce, arrays))
            times.append(time.perf_counter() - began)
    return threads * arrays[0].nbytes / min(times)


def _kernels() -> str | None:
    """The level that int8 decoders of the Llama line run on; None where none does, or there is no server."""
    asked = subprocess.run(
        [sys.executable, "-m", "engine.runners.kernels"],
        cwd=ROOT / "server",
        capture_output=True,
        text=True,
        check=False,
    )
    return next(iter(asked.stdout.split()), None)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
