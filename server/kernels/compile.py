"""Compile the kernels beside this file, once for each level of processors: `make kernels`, and the image.

A library's name has a hash of all that it is made of, so that an old one is never met. A level that the
compiler does not know is left out. Without a C compiler nothing is made, and engines run on ONNX Runtime.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shlex
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
_UNFINISHED: Final = ".compiling-"
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
# A compiler may fuse a product and a sum into one operation, unless it is told not to: other bits.
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
    # One run at a time: what another one is at would look like what a killed one left.
    with Path(__file__).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _tidy()
        return _make([level for level in levels(platform.machine()) if not library(level).exists()])


def _tidy() -> None:
    """Removes what was made of other sources, and what a run that was killed has left."""
    for old in FOLDER.glob("libhalimede*.so"):
        if not old.stem.endswith(_fingerprint()):
            old.unlink()
    for left in FOLDER.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _make(wanted: list[str]) -> int:
    compiler = compiler_command()
    if wanted and not compiler:
        asked = os.environ.get("CC")
        missing = f"the C compiler {asked} (CC) was not found" if asked else "no C compiler was found"
        print(f"kernels: {missing}; engines run on ONNX Runtime, which is slower", file=sys.stderr)
    if not wanted or not compiler:
        return 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = list(pool.map(lambda level: _compile(compiler, level), wanted))
    made = [level for level, failure in zip(wanted, failures, strict=True) if failure is None]
    for level, failure in zip(wanted, failures, strict=True):
        if failure is not None:
            print(f"kernels: {' '.join(compiler)} cannot compile {level}: {failure}", file=sys.stderr)
    print(f"kernels: {', '.join(made) or 'none'} compiled by {' '.join(compiler)}", file=sys.stderr)
    return int(bool(os.environ.get("CI")) and len(made) < len(wanted))


def _fingerprint() -> str:
    sources = sorted([*FOLDER.glob("*.[ch]"), FOLDER / "compile.py"])
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def compiler_command() -> list[str]:
    """The words of the compiler's command, which may have options in CC; none where it is not there."""
    asked = shlex.split(os.environ.get("CC", ""))
    commands = [asked] if asked else [[name] for name in COMPILERS]
    return next((command for command in commands if shutil.which(command[0])), [])


def _compile(compiler: list[str], level: str) -> str | None:
    """What the compiler complains of, in one line, if it fails."""
    # A library comes to its place whole: whoever is killed on the way leaves none.
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=FOLDER) as folder:
        made = Path(folder) / "made.so"
        for command in _commands(compiler, level, made):
            done = subprocess.run(
                command,
                capture_output=True, text=True, errors="replace", check=False,
                env={**os.environ, "LC_ALL": "C"},
            )  # fmt: skip
            if done.returncode:
                return _complaint(done.stderr.splitlines()) or f"exit status {done.returncode}"
        made.chmod(0o755)
        made.replace(library(level))
    return None


def _complaint(lines: list[str]) -> str:
    """The first error of a compiler, else the last that it said."""
    return next((line for line in lines if "error:" in line), lines[-1] if lines else "")


def _commands(compiler: list[str], level: str, target: Path) -> list[list[str]]:
    asks = str(target.with_name("cpu.o"))
    defines = [flag for flag in LEVELS[level] if flag.startswith("-D")]
    sources = [str(path) for path in sorted(FOLDER.glob("*.c")) if path.name != "cpu.c"]
    return [
        [*compiler, *FLAGS, *defines, "-c", "-o", asks, str(FOLDER / "cpu.c")],
        [*compiler, *FLAGS, *LEVELS[level], "-shared", "-o", str(target), asks, *sources, "-pthread", "-lm"],
    ]


if __name__ == "__main__":
    sys.exit(main())
