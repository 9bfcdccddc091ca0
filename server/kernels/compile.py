"""Compile the kernels beside this file, once for each level of processors: `make kernels` does it, and so does the image.

A library's name has a hash of all that it is made of, so that an old one is never met. A level that the compiler
does not know is left out. Without a C compiler nothing is made, and engines run on ONNX Runtime.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
COMPILERS: Final = ("cc", "gcc", "clang")
_AVX2: Final = ("-DHALIMEDE_AVX2", "-mavx2", "-mfma", "-mf16c")
_AVX512: Final = ("-mavx512f", "-mavx512vl", "-mavx512vnni")
# The best first. A processor with AVX-512 may know the 256-bit VNNI in AVX-512's encoding (EVEX) alone.
LEVELS: Final[Mapping[str, tuple[str, ...]]] = {
    "avx512": ("-DHALIMEDE_AVX512", "-mavx2", "-mfma", "-mf16c", *_AVX512, "-mavx512bw", "-mavx512dq"),
    "avxvnni": ("-DHALIMEDE_AVXVNNI", *_AVX2, "-mavxvnni"),
    "avxvnni-evex": ("-DHALIMEDE_AVXVNNI", "-DHALIMEDE_EVEX", *_AVX2, *_AVX512),
    "avx2": _AVX2,
    "plain": (),
}
# A compiler may fuse a product and a sum into one operation, unless it is told not to: the bits would be others.
FLAGS: Final = (
    *("-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *(("-Werror",) if os.environ.get("CI") else ()),
)


def library(level: str) -> Path:
    """Where the library of a level is, if it has been compiled from the sources as they are."""
    return FOLDER / f"libhalimede-{level}-{_fingerprint()}.so"


def levels(machine: str) -> list[str]:
    """Those that processors of such a machine may have."""
    return list(LEVELS) if machine == "x86_64" else ["plain"]


def main() -> int:
    wanted = [level for level in levels(platform.machine()) if not library(level).exists()]
    compiler = _compiler()
    for old in FOLDER.glob("libhalimede*.so"):
        if not old.stem.endswith(_fingerprint()):
            old.unlink()
    if wanted and compiler is None:
        print("kernels: no C compiler was found; engines run on ONNX Runtime, which is slower", file=sys.stderr)
    if not wanted or compiler is None:
        return 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = list(pool.map(lambda level: _compile(compiler, level), wanted))
    made = [level for level, failure in zip(wanted, failures, strict=True) if failure is None]
    for level, failure in zip(wanted, failures, strict=True):
        if failure is not None:
            print(f"kernels: {compiler} cannot compile {level}: {failure}", file=sys.stderr)
    print(f"kernels: {', '.join(made) or 'none'} compiled by {compiler}", file=sys.stderr)
    return int(bool(os.environ.get("CI")) and len(made) < len(wanted))


def _fingerprint() -> str:
    sources = sorted([*FOLDER.glob("*.[ch]"), FOLDER / "compile.py"])
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def _compiler() -> str | None:
    wanted = os.environ.get("CC")
    return next(filter(shutil.which, [wanted] if wanted else COMPILERS), None)


def _compile(compiler: str, level: str) -> str | None:
    """What the compiler complains of, if it fails."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        made = Path(folder) / "made.so"
        for command in _commands(compiler, level, made):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        made.chmod(0o755)
        made.replace(library(level))
    return None


def _commands(compiler: str, level: str, target: Path) -> list[list[str]]:
    asks = str(target.with_name("cpu.o"))
    defines = [flag for flag in LEVELS[level] if flag.startswith("-D")]
    sources = [str(path) for path in sorted(FOLDER.glob("*.c")) if path.name != "cpu.c"]
    return [
        [compiler, *FLAGS, *defines, "-c", "-o", asks, str(FOLDER / "cpu.c")],
        [compiler, *FLAGS, *LEVELS[level], "-shared", "-o", str(target), asks, *sources, "-pthread", "-lm"],
    ]


if __name__ == "__main__":
    sys.exit(main())
