"""Which models fit a need, best first, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from build.quantise import Precision
from build.recipe import Recipe, Task
from build.recommend.amount import gib
from build.recommend.device import Device, Kind
from build.recommend.footprint import Footprint, Serving, footprint, serving
from build.recommend.quality import Quality, typical
from build.recommend.roofline import Load, Speed, decode, speed
from build.recommend.weights import disk_bytes
from build.shape import Shape

_LEAST_CONTEXT = 128
Known = Mapping[tuple[str, Precision], Quality]


@dataclass(frozen=True)
class Need:
    """`memory` in bytes; `quality` is the largest ratio of perplexities, `latency_s` the longest that a
    token of a stream takes with every slot busy. None asks for nothing.
    """

    device: Device
    memory: int
    slots: int
    load: Load
    quality: float
    task: Task | None = None
    context: int | None = None
    latency_s: float | None = None
    precision: Precision | None = None


@dataclass(frozen=True)
class Verdict:
    """A recipe at one precision; it fits where there are no `reasons`."""

    recipe: Recipe
    shape: Shape
    precision: Precision
    served: Serving
    disk: int
    footprint: Footprint
    speed: Speed
    quality: Quality
    reasons: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.reasons


def rank(recipes: Sequence[Recipe], need: Need, known: Known) -> list[Verdict]:
    """Of the recipes for the task that say their shape: those that fit, the largest model first, as that
    answers best; then those that do not, by the memory they need. What must be tuned first comes last.
    """
    wanted = [recipe for recipe in recipes if need.task in (None, recipe.task)]
    found = [_best(recipe, recipe.shape, need, known) for recipe in wanted if recipe.shape is not None]
    return sorted(found, key=_order)


def _order(verdict: Verdict) -> tuple[bool, bool, int]:
    size = -verdict.shape.parameters if verdict.fits else verdict.footprint.total
    return not verdict.fits, verdict.recipe.needs_tuning, size


def _best(recipe: Recipe, shape: Shape, need: Need, known: Known) -> Verdict:
    """The first precision that fits; where none does, that with the fewest faults."""
    found = [_judge(recipe, shape, precision, need, known) for precision in _precisions(shape, need)]
    return min(found, key=lambda verdict: len(verdict.reasons))


def _precisions(shape: Shape, need: Need) -> Sequence[Precision]:
    if need.precision is not None:
        return (need.precision,)
    if need.device.kind is Kind.CPU:
        return need.device.kind.precisions
    half = Precision.BF16 if shape.wide and Precision.BF16 in need.device.compute else Precision.FP16
    return (half, Precision.INT8, Precision.INT4)


def _judge(recipe: Recipe, shape: Shape, precision: Precision, need: Need, known: Known) -> Verdict:
    served = serving(shape, need.slots, need.context)
    verdict = Verdict(
        recipe=recipe,
        shape=shape,
        precision=precision,
        served=served,
        disk=disk_bytes(shape, precision, need.device.kind),
        footprint=footprint(shape, precision, need.device.kind, served),
        speed=speed(shape, precision, need.device, need.slots, need.load),
        quality=known.get((recipe.name, precision), typical(precision)),
        reasons=(),
    )
    return replace(verdict, reasons=tuple(_reasons(verdict, need)))


def _reasons(verdict: Verdict, need: Need) -> Iterator[str]:
    shape, served = verdict.shape, verdict.served
    if shape.wide and need.device.kind is Kind.GPU and Precision.BF16 not in need.device.compute:
        yield f"needs bfloat16, which {need.device.title} does not have"
    if served.context > shape.max_positions:
        most = shape.max_positions
        yield f"has {most} positions, {served.context} asked for: --context {most}"
    elif verdict.footprint.total > need.memory:
        yield _too_large(verdict, need)
    if verdict.quality.ratio > need.quality:
        about = "measured" if verdict.quality.measured else "about"
        yield (
            f"{verdict.precision.value} has {about} {verdict.quality.ratio:.3f} times the perplexity,"
            f" {need.quality:g} allowed"
        )
    if need.latency_s is not None and verdict.speed.step_s > need.latency_s:
        yield _too_slow(verdict, need, need.latency_s)


def _too_large(verdict: Verdict, need: Need) -> str:
    options = {"--slots": _slots_that_fit(verdict, need), "--context": _context_that_fits(verdict, need)}
    remedies = " or ".join(f"{option} {value}" for option, value in options.items() if value)
    remedy = f"fits with {remedies}" if remedies else "one slot is too much, too"
    return f"needs {gib(verdict.footprint.total)}, {gib(need.memory)} given: {remedy}"


def _slots_that_fit(verdict: Verdict, need: Need) -> int | None:
    kind, served = need.device.kind, verdict.served
    fitting = (
        slots
        for slots in range(need.slots - 1, 0, -1)
        if footprint(verdict.shape, verdict.precision, kind, replace(served, slots=slots)).total
        <= need.memory
    )
    return next(fitting, None)


def _context_that_fits(verdict: Verdict, need: Need) -> int | None:
    context = verdict.served.context // 2
    while context >= _LEAST_CONTEXT:
        served = serving(verdict.shape, need.slots, context)
        if footprint(verdict.shape, verdict.precision, need.device.kind, served).total <= need.memory:
            return context
        context //= 2
    return None


def _too_slow(verdict: Verdict, need: Need, limit: float) -> str:
    def step(slots: int) -> float:
        return decode(verdict.shape, verdict.precision, need.device, slots, need.load).seconds

    taken = f"{1e3 * verdict.speed.step_s:.3g} ms a token with {need.slots} slots, {1e3 * limit:g} given"
    slots = next((slots for slots in range(need.slots - 1, 0, -1) if step(slots) <= limit), None)
    remedy = f"fits with --slots {slots}" if slots else f"one stream takes {1e3 * step(1):.3g}"
    return f"{taken}: {remedy}"
