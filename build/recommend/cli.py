"""`python -m build recommend`: the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from build.container import container
from build.errors import BadInput
from build.quantise import Precision
from build.recipe import Recipe, Task, known_recipes, load_recipe
from build.recommend import check, report
from build.recommend.amount import parse_bytes
from build.recommend.device import Device
from build.recommend.devices import CPU, DEVICES, named
from build.recommend.measured import Bench, read_bench, read_built
from build.recommend.quality import Quality
from build.recommend.rank import Need, rank
from build.recommend.roofline import Load
from build.shape import Shape

_EXAMPLES = """examples:
  python -m build recommend --task chat --memory 8GiB --device cpu
  python -m build recommend --task summarize --device h100 --latency-ms 20 --slots 64
  python -m build recommend --memory 4GiB --precision int4 --quality 1.15 --explain
  python -m build recommend --device l4 --json
  python -m build recommend --check                    estimates beside the benchmarks of this machine

`--device cpu` measures this machine for two seconds; the others are data sheets. All figures of speed are
estimates but those marked as measured: docs/choosing.md has the formula and how far off it was.

exit codes: 0 at least one model fits, 1 none does, 2 the command is at fault
"""
_BENCHES = ("bench.json", "bench-models.json")
# What the server's settings allow.
_SLOTS = 1024
_POSITIONS = 2**20


def main(arguments: Sequence[str]) -> int:
    """The exit code; errors are one line on stderr."""
    options = parser().parse_args(arguments)
    try:
        return _check(_benches(options.bench)) if options.check else _recommend(options)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m build recommend",
        description="Rank the recipes by what fits a task, a memory and a device, before anything is built.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--task", choices=[task.value for task in Task], help="default: every task")
    add("--memory", type=_size, metavar="SIZE", help="8GiB, 16GB; default: what is free, or the device's")
    add("--device", default=CPU, metavar="NAME", help=f"{CPU} (default), {', '.join(DEVICES)}")
    add(
        "--slots", type=_up_to(_SLOTS), default=16, metavar="N", help="streams at once (default: %(default)s)"
    )
    add(
        "--context",
        type=_up_to(_POSITIONS),
        metavar="N",
        help="positions of a slot (default: the server's, 2048)",
    )
    add("--precision", choices=[p.value for p in Precision if p is not Precision.GGUF])
    add(
        "--quality",
        type=_ratio,
        default=1.02,
        metavar="RATIO",
        help="perplexity allowed, over the reference's (default: %(default)s)",
    )
    add(
        "--latency-ms",
        type=_positive,
        metavar="MS",
        help="a token of a stream takes to compute, all slots busy",
    )
    add(
        "--tokens-in",
        type=_up_to(_POSITIONS),
        default=128,
        metavar="N",
        help="of a prompt (default: %(default)s)",
    )
    add(
        "--tokens-out",
        type=_up_to(_POSITIONS),
        default=64,
        metavar="N",
        help="of an answer (default: %(default)s)",
    )
    add(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        help="whose engines are built (default: %(default)s)",
    )
    add("--bench", type=Path, action="append", metavar="FILE", help=f"default: {' and '.join(_BENCHES)}")
    add("--json", action="store_true", help="all figures, for programs")
    add("--explain", action="store_true", help="the formula, with the figures of the first model")
    add("--check", action="store_true", help="benchmarks of this machine beside their estimates, as ratios")
    return parser


def _size(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _up_to(limit: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= limit:
            raise argparse.ArgumentTypeError(f"{text!r}, must be a whole number in [1, {limit}]")
        return int(text)

    return count


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}, must be a number above 0")
    return value


def _ratio(text: str) -> float:
    value = _number(text)
    if not 1 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}, must be a ratio of at least 1, such as 1.05")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}, must be a number") from error


def _recommend(options: argparse.Namespace) -> int:
    recipes = [load_recipe(name) for name in known_recipes()]
    engines = read_built(options.repository)
    benches = _benches(options.bench)
    need = _need(options)
    known = {(engine.name, engine.precision): Quality(engine.ratio, measured=True) for engine in engines}
    found = rank(recipes, need, known)
    if options.json:
        print(json.dumps(report.to_json(found, need, engines, benches), indent=1))
    else:
        report.show(found, need, engines, benches, _unknown(recipes, need), options.explain)
    return 0 if any(verdict.fits for verdict in found) else 1


def _unknown(recipes: Sequence[Recipe], need: Need) -> list[str]:
    return [r.name for r in recipes if r.shape is None and need.task in (None, r.task)]


def _need(options: argparse.Namespace) -> Need:
    device = _device(options.device)
    precision = Precision(options.precision) if options.precision else None
    if precision and precision not in device.compute:
        known = ", ".join(each.value for each in device.compute)
        raise BadInput(f"--precision: {precision.value}, engines for {device.name} take {known}")
    return Need(
        device=device,
        memory=_memory(options.memory, device),
        slots=options.slots,
        load=Load(options.tokens_in, options.tokens_out),
        quality=options.quality,
        task=Task(options.task) if options.task else None,
        context=options.context,
        latency_s=options.latency_ms and options.latency_ms / 1e3,
        precision=precision,
    )


def _device(name: str) -> Device:
    """The probe takes ONNX Runtime and two seconds: only where it is asked for."""
    if name.lower() != CPU:
        return named(name)
    from build.recommend.probe import this_machine  # noqa: PLC0415

    return this_machine()


def _memory(given: int | None, device: Device) -> int:
    if given is not None:
        return given
    if device.memory is not None:
        return device.memory
    if device.name != CPU:
        raise BadInput(f"--memory: missing; {device.name} is no machine in particular")
    return container().free_memory


def _benches(named_files: Sequence[Path] | None) -> list[Bench]:
    """Of the files that are named, which must be there, or of those that `make` writes, where they are."""
    files = named_files or [path for path in map(Path, _BENCHES) if path.exists()]
    return [read_bench(path) for path in files]


def _check(benches: Sequence[Bench]) -> int:
    if not benches:
        raise BadInput(
            f"--check: no {' and no '.join(_BENCHES)} here: run `make bench`, or give --bench FILE"
        )
    check.show(benches, _shape, _device(CPU))
    return 0


def _shape(name: str) -> Shape:
    shape = load_recipe(name).shape
    if shape is None:
        raise BadInput(f"recipe {name}: has no [shape]")
    return shape
