"""Which variants meet both aims, and which of them is the farthest from missing one.

The streams without the prompt are the same whatever the variant, so all repeats of a side give one figure.
The prompt alone is not: it counts as fast as the fastest variant has it, so that a variant gains nothing by
being slow with nobody beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from loadtest.chunks.arrival import Sample
from loadtest.chunks.plan import Plan, Variant


@dataclass(frozen=True, slots=True)
class Point:
    """Medians over the repeats, in seconds; `*_low` and `*_high` are the extremes of the ratios.

    `itl_ratio`: p99 beside the prompt over p99 without. `ttft_ratio`: over the prompt alone at the fastest
    variant; `ttft_own_ratio`: at this one.
    """

    side: str
    variant: str
    chunk: int | None
    itl_p50_s: float
    itl_p99_s: float
    ttft_s: float
    ttft_alone_s: float
    itl_ratio: float
    itl_low: float
    itl_high: float
    ttft_ratio: float
    ttft_low: float
    ttft_high: float
    itl_p50_ratio: float

    @property
    def ttft_own_ratio(self) -> float:
        return self.ttft_s / self.ttft_alone_s

    def meets(self, plan: Plan) -> bool:
        return self.itl_ratio <= plan.itl_aim and self.ttft_ratio <= plan.ttft_aim

    def worst(self, plan: Plan) -> float:
        """The larger share of an aim that it uses up: above 1 it misses one."""
        return max(self.itl_ratio / plan.itl_aim, self.ttft_ratio / plan.ttft_aim)


@dataclass(frozen=True, slots=True)
class Base:
    """What everything of one side is compared with, in seconds."""

    itl_p50_s: float
    itl_p99_s: float
    ttft_s: float


def base_of(samples: Sequence[Sample]) -> Base:
    """Of one side's samples; there must be some."""
    names = dict.fromkeys(sample.variant for sample in samples)
    alone = [_median([s for s in samples if s.variant == name], lambda s: s.ttft_alone_s) for name in names]
    return Base(
        itl_p50_s=_median(samples, lambda s: s.itl_before_p50_s),
        itl_p99_s=_median(samples, lambda s: s.itl_before_p99_s),
        ttft_s=min(alone),
    )


def points(plan: Plan, samples: Sequence[Sample]) -> list[Point]:
    """In the order of the plan."""
    found: list[Point] = []
    for side in plan.sides:
        theirs = [sample for sample in samples if sample.side == side]
        base = base_of(theirs)
        found += [_point(one, base, [s for s in theirs if s.variant == one.name]) for one in plan.variants]
    return found


def recommended(plan: Plan, found: Sequence[Point]) -> Point | None:
    """Of those that meet both aims the one that uses up the smaller share of either; None where none does."""
    good = [point for point in found if point.meets(plan)]
    return min(good, key=lambda point: point.worst(plan)) if good else None


def _point(one: Variant, base: Base, samples: Sequence[Sample]) -> Point:
    itl = [sample.itl_beside_p99_s / base.itl_p99_s for sample in samples]
    ttft = [sample.ttft_beside_s / base.ttft_s for sample in samples]
    p50 = _median(samples, lambda s: s.itl_beside_p50_s)
    return Point(
        side=samples[0].side,
        variant=one.name,
        chunk=one.chunk,
        itl_p50_s=p50,
        itl_p99_s=_median(samples, lambda s: s.itl_beside_p99_s),
        ttft_s=_median(samples, lambda s: s.ttft_beside_s),
        ttft_alone_s=_median(samples, lambda s: s.ttft_alone_s),
        itl_ratio=median(itl),
        itl_low=min(itl),
        itl_high=max(itl),
        ttft_ratio=median(ttft),
        ttft_low=min(ttft),
        ttft_high=max(ttft),
        itl_p50_ratio=p50 / base.itl_p50_s,
    )


def _median(samples: Sequence[Sample], of: Callable[[Sample], float]) -> float:
    return median(of(sample) for sample in samples)
