"""Compile the kernels in this folder, once for each level of processors: for `make kernels`, and for the
image.

A library's name has a hash of all its sources, so that a stale one is never loaded. A level that the compiler
does not support is skipped. Without a C compiler nothing is compiled, and engines run on ONNX Runtime.
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
# The best first. A processor with AVX-512 may have 256-bit VNNI only in AVX-512's encoding (EVEX).
LEVELS: Final[Mapping[str, tuple[str, ...]]] = {
    "avx512": ("-DHALIMEDE_AVX512", "-mavx2", "-mfma", "-mf16c", *_AVX512, "-mavx512bw", "-mavx512dq"),
    "avxvnni": ("-DHALIMEDE_AVXVNNI", *_AVX2, "-mavxvnni"),
    "avxvnni-evex": ("-DHALIMEDE_AVXVNNI", "-DHALIMEDE_EVEX", *_AVX2, *_AVX512),
    "avx2": _AVX2,
    "plain": (),
}
# Without -ffp-contract=off a compiler may fuse a product and a sum into one operation, which gives other
# bits.
FLAGS: Final = (
    *("-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *(("-Werror",) if os.environ.get("CI") else ()),
)


def library(level: str) -> Path:
    """The path of a level's library, which exists if the current sources have been compiled."""
    return FOLDER / f"libhalimede-{level}-{_fingerprint()}.so"


def levels(machine: str) -> list[str]:
    """The levels that processors of this kind of machine may have."""
    return list(LEVELS) if machine == "x86_64" else ["plain"]


def main() -> int:
    # One run at a time: the unfinished files of another run would look like those of a killed one.
    with Path(__file__).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _tidy()
        return _make([level for level in levels(platform.machine()) if not library(level).exists()])


def _tidy() -> None:
    """Removes libraries of other sources, and the unfinished files of a killed run."""
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
    """The words of the compiler's command, with the options in CC; empty if there is no compiler."""
    asked = shlex.split(os.environ.get("CC", ""))
    commands = [asked] if asked else [[name] for name in COMPILERS]
    return next((command for command in commands if shutil.which(command[0])), [])


def _compile(compiler: list[str], level: str) -> str | None:
    """The compiler's error, in one line, if it fails."""
    # A library is renamed into place when it is complete, so that a killed run leaves none.
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=FOLDER) as folder:
        made = Path(folder) / "made.so"
        for command in _commands(compiler, level, made):
            done = subprocess.run(
                command,
                capture_output=True, text=True, errors="replace", check=False,
                env={**os.environ, "LC_ALL": "C"},
            )  # fmt: skip
            if done.returncode:
                said = done.stderr.splitlines()
                errors = [line for line in said if "error:" in line] or said[-1:]
                return errors[0] if errors else f"exit status {done.returncode}"
        made.chmod(0o755)
        made.replace(library(level))
    return None


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
