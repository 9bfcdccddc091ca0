"""Compile the kernels to libhalimede.so beside this file: `make kernels` does it, and so does the image.

Without a C compiler, or on another processor than x86-64, nothing is made, and engines run on ONNX Runtime.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "libhalimede.so"
COMPILERS = ("cc", "gcc", "clang")
# What `halimede_lacks` asks the processor for, which must run without any of it.
INSTRUCTIONS = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")
FLAGS = ("-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden")


def main() -> int:
    compiler = _compiler()
    if platform.machine() != "x86_64" or compiler is None:
        why = (
            "no C compiler was found" if compiler is None else f"{platform.machine()} is no x86-64 processor"
        )
        print(f"{LIBRARY.name}: {why}; engines run on ONNX Runtime instead, which is slower", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        made = Path(folder) / LIBRARY.name
        for command in _commands(compiler, made):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{LIBRARY.name}: {compiler} failed\n{done.stderr}", file=sys.stderr)
                return 1
        made.chmod(0o755)
        made.replace(LIBRARY)
    print(f"{LIBRARY.name}: compiled by {compiler}")
    return 0


def _compiler() -> str | None:
    wanted = os.environ.get("CC")
    return next(filter(shutil.which, [wanted] if wanted else COMPILERS), None)


def _commands(compiler: str, target: Path) -> list[list[str]]:
    asks = str(target.with_name("cpu.o"))
    sources = [str(path) for path in sorted(FOLDER.glob("*.c")) if path.name != "cpu.c"]
    instructions = [f"-m{name}" for name in INSTRUCTIONS]
    return [
        [compiler, *FLAGS, "-c", "-o", asks, str(FOLDER / "cpu.c")],
        [compiler, *FLAGS, *instructions, "-shared", "-o", str(target), asks, *sources, "-pthread", "-lm"],
    ]


if __name__ == "__main__":
    sys.exit(main())
