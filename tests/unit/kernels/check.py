"""`make kernels-check`: the kernels under sanitizers, in a C driver, on the decoders whose bits are known.

Every level that the processor can run is compiled with AddressSanitizer and UndefinedBehaviorSanitizer, and
with ThreadSanitizer. First the driver does what each of them has to catch: one that does not start, or sees
nothing, fails the check.
"""

from __future__ import annotations

import argparse
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tests.paths import ROOT
from tests.unit.kernels.golden import GOLDEN, Golden, hash_of

SOURCES: Final = ROOT / "server/kernels"
DRIVER: Final = Path(__file__).with_name("driver.c")
FLAGS: Final = ("-std=c11", "-O1", "-g", "-ffp-contract=off", "-fno-sanitize-recover=all")
THREADS: Final = 3
# The driver's exit status.
NOT_THIS_PROCESSOR: Final = 3


@dataclass(frozen=True, slots=True)
class Sanitizer:
    """`planted` are commands of the driver, each with the message that it must give."""

    flag: str
    planted: Mapping[str, str]


SANITIZERS: Final = (
    Sanitizer(
        "address,undefined",
        {"overflow": "AddressSanitizer: heap-buffer-overflow", "shift": "runtime error: shift exponent 40"},
    ),
    Sanitizer("thread", {"race": "ThreadSanitizer: data race"}),
)


class Fault(Exception):
    """What did not hold, with what to look at."""


def main() -> int:
    options = _options()
    recipe = runpy.run_path(str(SOURCES / "compile.py"))
    compiler: list[str] = recipe["compiler_command"]()
    if not compiler:
        needed = "a C compiler with its sanitizers: on Debian, apt-get install gcc"
        print(f"kernels-check needs {needed}", file=sys.stderr)
        return 1
    levels: Mapping[str, tuple[str, ...]] = recipe["LEVELS"]
    with tempfile.TemporaryDirectory() as folder:
        goldens = {name: _written(name, Path(folder)) for name in GOLDEN}
        try:
            for level in options.levels or levels:
                for line in _check(compiler, level, levels[level], goldens, Path(folder)):
                    print(line, flush=True)
        except Fault as fault:
            print(f"kernels-check: {fault}", file=sys.stderr)
            return 1
    return 0


def _written(name: str, folder: Path) -> tuple[Golden, Path]:
    golden, place = Golden(name), folder / name.replace(" ", "-")
    place.mkdir()
    return golden, golden.write(place)


def _check(
    compiler: list[str],
    level: str,
    flags: tuple[str, ...],
    goldens: Mapping[str, tuple[Golden, Path]],
    folder: Path,
) -> Iterator[str]:
    """A line for each sanitizer. Raises Fault."""
    for sanitizer in SANITIZERS:
        driver = folder / f"driver-{level}-{sanitizer.flag}"
        _compile(compiler, driver, [*flags, f"-fsanitize={sanitizer.flag}"])
        for command, said in sanitizer.planted.items():
            told = _run(driver, command).stderr.decode(errors="replace")
            if said not in told:
                raise Fault(
                    f"-fsanitize={sanitizer.flag} did not catch {command!r} that was planted:\n{told}"
                )
        for golden, place in goldens.values():
            done = _run(driver, str(place), str(THREADS))
            if done.returncode == NOT_THIS_PROCESSOR:
                yield f"{level}: compiled, not run: the processor lacks what it needs"
                return
            _judge(done, golden, f"{level}, {sanitizer.flag}, {place.name}")
        yield f"{level}: {sanitizer.flag}: {len(goldens)} decoders, nothing found, and the known bits"


def _judge(done: subprocess.CompletedProcess[bytes], golden: Golden, where: str) -> None:
    """Raises Fault."""
    if done.returncode or done.stderr:
        raise Fault(f"{where}: exit status {done.returncode}\n{done.stderr.decode(errors='replace')}")
    found = hash_of(np.frombuffer(done.stdout, np.float32))
    if found != golden.hash:
        raise Fault(f"{where}: the logits have the hash {found}, not {golden.hash}")


def _compile(compiler: list[str], driver: Path, flags: list[str]) -> None:
    """What asks for the processor's instructions is compiled without them, as compile.py does it."""
    plain = [DRIVER, SOURCES / "cpu.c"]
    objects = [driver.with_name(f"{driver.name}-{source.stem}.o") for source in plain]
    without = [flag for flag in flags if not flag.startswith("-m")]
    sources = [path for path in sorted(SOURCES.glob("*.c")) if path not in plain]
    for source, target in zip(plain, objects, strict=True):
        _call([*compiler, *FLAGS, *without, f"-I{SOURCES}", "-c", "-o", target, source])
    _call([*compiler, *FLAGS, *flags, f"-I{SOURCES}", "-o", driver, *objects, *sources, "-pthread", "-lm"])


def _call(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Fault(f"{command[0]} failed\n{done.stderr}")


def _run(driver: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([driver, *arguments], capture_output=True, check=False, timeout=600)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.unit.kernels.check",
        description="Run the kernels under sanitizers.",
        epilog="example: python -m tests.unit.kernels.check plain avx2",
    )
    parser.add_argument("levels", nargs="*", help="of compile.py; every one unless told")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
