"""`python -m build recommend`: which recipes fit, the largest first, and why the others do not."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from build.container import container
from build.errors import BadInput
from build.quantise import Precision
from build.recipe import Recipe, Task, known_recipes, load_recipe
from build.recommend.memory import Footprint, Serving, disk_bytes, footprint, serving
from build.recommend.speed import CPU, DEVICES, Device, device, first_s, step_s
from build.shape import Shape

_EXAMPLES = """examples:
  python -m build recommend --task chat --memory 8GiB --device cpu
  python -m build recommend --task summarize --device h100 --slots 64
  python -m build recommend --memory 4GiB --precision int4
  python -m build recommend --device l4 --json

`--device cpu` measures this machine for a second; the others are data sheets. docs/build.md has the
formulas and how far off they were.

exit codes: 0 at least one model fits, 1 none does, 2 the command is wrong
"""
_UNITS = {"": 1, "b": 1} | {
    letter + suffix: base**power
    for power, letter in enumerate("kmgt", 1)
    for suffix, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}
GIB = 2**30
# What the server's settings allow.
_SLOTS = 1024
_POSITIONS = 2**20
_LEAST_CONTEXT = 128
SPEED_FACTOR = 2.5  # measured over estimated was 0.69 to 2.3 on CPUs: docs/measured.md


@dataclass(frozen=True)
class Need:
    """`memory` is in bytes. None means no limit."""

    device: Device
    memory: int
    slots: int = 16
    tokens_in: int = 128
    tokens_out: int = 64
    task: Task | None = None
    context: int | None = None
    precision: Precision | None = None


@dataclass(frozen=True)
class Verdict:
    """A recipe at one precision; it fits where there are no `reasons`. Bytes, seconds, and tokens/s of one
    stream and of all slots together.
    """

    name: str
    licence: str
    needs_tuning: bool
    parameters: int
    precision: str
    disk_bytes: int
    served: Serving
    memory: Footprint
    memory_bytes: int
    one_tokens_per_s: float
    full_tokens_per_s: float
    first_token_s: float
    reasons: tuple[str, ...]


def main(arguments: Sequence[str]) -> int:
    """The exit code; errors are one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        need = _need(options)
        found = rank([load_recipe(name) for name in known_recipes()], need)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        factor = None if need.device.gpu else SPEED_FACTOR
        facts = {"device": need.device.title, "memory_bytes": need.memory, "speed_factor": factor}
        print(json.dumps(facts | {"models": [asdict(verdict) for verdict in found]}, indent=1))
    else:
        _show(found, need)
    return 0 if any(not verdict.reasons for verdict in found) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m build recommend",
        description="Rank the recipes by what fits a task, a memory and a device, before anything is built.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    positions = _up_to(_POSITIONS)
    add("--task", choices=[task.value for task in Task], help="default: every task")
    add(
        "--memory",
        type=parse_bytes,
        metavar="SIZE",
        help="8GiB, 16GB; default: what is free, or the device's",
    )
    add("--device", default=CPU, metavar="NAME", help=f"{', '.join(DEVICES)} (default: %(default)s)")
    add("--slots", type=_up_to(_SLOTS), default=16, metavar="N", help="concurrent streams (%(default)s)")
    add("--context", type=positions, metavar="N", help="positions of a slot (the server's default: 2048)")
    add("--precision", choices=[p.value for p in Precision if p is not Precision.GGUF])
    add("--tokens-in", type=positions, default=128, metavar="N", help="of a prompt (%(default)s)")
    add("--tokens-out", type=positions, default=64, metavar="N", help="of an answer (%(default)s)")
    add("--json", action="store_true", help="all figures, for programs")
    return parser


def parse_bytes(text: str) -> int:
    """8GiB or 8Gi is 8 * 2^30, 8GB or 8G is 8 * 10^9."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    size = round(float(found[1]) * _UNITS.get(found[2], 0)) if found else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, must be a size such as 8GiB, 16GB or 512MiB")
    return size


def _up_to(limit: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= limit:
            raise argparse.ArgumentTypeError(f"{text!r}, must be a whole number in [1, {limit}]")
        return int(text)

    return count


def _need(options: argparse.Namespace) -> Need:
    on = device(options.device)
    precision = Precision(options.precision) if options.precision else None
    if precision and precision not in on.precisions:
        known = ", ".join(each.value for each in on.precisions)
        raise BadInput(f"--precision: {precision.value}, engines for {on.name} take {known}")
    memory = options.memory or on.memory or (container().free_memory if on.name == CPU else None)
    if memory is None:
        raise BadInput(f"--memory: missing; {on.name} is no machine in particular")
    task = Task(options.task) if options.task else None
    load = options.slots, options.tokens_in, options.tokens_out
    return Need(on, memory, *load, task, options.context, precision)


def rank(recipes: Sequence[Recipe], need: Need) -> list[Verdict]:
    """Of the recipes for the task that say their shape: those that fit, the largest model first, as that
    answers best; then those that do not, by the memory they need. What must be tuned first comes last.
    """

    def order(model: Verdict) -> tuple[bool, bool, int]:
        fits = not model.reasons
        return not fits, model.needs_tuning, -model.parameters if fits else model.memory_bytes

    wanted = [recipe for recipe in recipes if need.task in (None, recipe.task)]
    return sorted((_best(recipe, recipe.shape, need) for recipe in wanted if recipe.shape), key=order)


def _best(recipe: Recipe, shape: Shape, need: Need) -> Verdict:
    """At the precision that is asked for; else in int8, before which a GPU tries 16 bits."""
    precisions = [need.precision] if need.precision else [Precision.INT8]
    if need.device.gpu and not need.precision:
        brain = shape.wide and Precision.BF16 in need.device.precisions
        precisions.insert(0, Precision.BF16 if brain else Precision.FP16)
    models = [_at(precision, recipe, shape, need) for precision in precisions]
    return min(models, key=lambda model: len(model.reasons))


def _at(precision: Precision, recipe: Recipe, shape: Shape, need: Need) -> Verdict:
    on, served = need.device, serving(shape, need.slots, need.context)
    memory = footprint(shape, precision, on.gpu, served)
    held = need.tokens_in + need.tokens_out // 2  # in the middle of an answer
    return Verdict(
        name=recipe.name,
        licence=(recipe.licence or "unknown") + (" (terms)" if recipe.terms else ""),
        needs_tuning=recipe.needs_tuning,
        parameters=shape.parameters,
        precision=precision.value,
        disk_bytes=disk_bytes(shape, precision, on.gpu),
        served=served,
        memory=memory,
        memory_bytes=memory.total,
        one_tokens_per_s=1 / step_s(shape, precision, on, 1, held),
        full_tokens_per_s=need.slots / step_s(shape, precision, on, need.slots, held),
        first_token_s=first_s(shape, precision, on, need.tokens_in),
        reasons=tuple(_reasons(shape, precision, served, need)),
    )


def _reasons(shape: Shape, precision: Precision, served: Serving, need: Need) -> Iterator[str]:
    def size(smaller: Serving) -> int:
        return footprint(shape, precision, need.device.gpu, smaller).total

    if shape.wide and need.device.gpu and Precision.BF16 not in need.device.precisions:
        yield f"needs bfloat16, which {need.device.title} does not have"
    if served.context > shape.max_positions:
        most = shape.max_positions
        yield f"has {most} positions, {served.context} asked for: --context {most}"
    elif size(served) > need.memory:
        slots = [n for n in range(1, need.slots) if size(replace(served, slots=n)) <= need.memory][-1:]
        halves = [n for i in range(1, 20) if (n := served.context >> i) >= _LEAST_CONTEXT]
        contexts = [n for n in halves if size(serving(shape, need.slots, n)) <= need.memory][:1]
        remedies = [f"--slots {n}" for n in slots] + [f"--context {n}" for n in contexts]
        remedy = f"fits with {' or '.join(remedies)}" if remedies else "one slot is too much, too"
        yield f"needs {gib(size(served))}, {gib(need.memory)} given: {remedy}"


def _show(found: Sequence[Verdict], need: Need) -> None:
    print(f"{need.device.title}, {gib(need.memory)}")
    row = "{:21} {:4}{:>7}{:>8}{:>9}{:>11}{:>10}  {}".format
    print(row("model", "", "disk", "memory", "tok/s, 1", f"tok/s, {need.slots}", "first, ms", "licence"))
    for model in found:
        if not model.reasons:
            rates = (f"{rate:.0f}" for rate in (model.one_tokens_per_s, model.full_tokens_per_s))
            sizes = (f"{size / GIB:.2f}" for size in (model.disk_bytes, model.memory_bytes))
            first = f"{1e3 * model.first_token_s:.1f}"
            print(row(model.name, model.precision, *sizes, *rates, first, model.licence))
    load = f"{need.slots} slots, {need.tokens_in} tokens in and {need.tokens_out} out"
    known = "never compared with a GPU" if need.device.gpu else f"may be {SPEED_FACTOR:g} times off"
    print(f"GiB, and estimates for {load}; speeds {known}")
    for model in found:
        if model.reasons:
            print(f"{model.name}: {model.precision} does not fit: {'; '.join(model.reasons)}")
        elif model.needs_tuning:
            print(f"{model.name}: pretrained for no task: fine-tune it, and build that")


def gib(size: float) -> str:
    """`1.9 GiB`, `8 GiB`; two digits below one."""
    amount = size / GIB
    return f"{amount:.2f} GiB" if amount < 1 else f"{amount:.1f}".removesuffix(".0") + " GiB"
