"""What the comparison must reach, and whether one run did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.bench.targets import Verdict, ratio
from loadtest.models.engine import Build
from loadtest.models.plan import GB, BuildLimit, Case, Load, Plan
from loadtest.models.versus import Sample


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a run found. `manifests` are the engines', by model."""

    samples: Sequence[Sample]
    builds: Sequence[Build]
    manifests: Mapping[str, Mapping[str, Any]]


def verdicts(plan: Plan, found: Measured) -> list[Verdict]:
    return [*_rates(plan.cases, found.samples), *_builds(plan.builds, found.builds)]


def _rates(cases: Sequence[Case], samples: Sequence[Sample]) -> Iterator[Verdict]:
    def rates(model: str, load: Load, side: str) -> dict[int, float]:
        key = (model, load, side)
        return {s.repeat: s.tokens_per_s for s in samples if (s.model, s.load, s.side) == key}

    for case in cases:
        for load in case.loads:
            ours, theirs = (rates(case.shape.name, load, side) for side in ("triton", "transformers"))
            name = f"tokens/s, {case.shape.name}, {load}: Triton / transformers"
            yield ratio(name, ">=", case.target, ours, theirs)


def _builds(limits: Sequence[BuildLimit], builds: Sequence[Build]) -> Iterator[Verdict]:
    for limit in limits:
        found = [build for build in builds if build.model == limit.shape.name]
        seconds = found[0].seconds if found else None
        peak = found[0].peak_bytes / GB if found else None
        what = f"build of {limit.shape.name}"
        yield Verdict(f"{what}, s", "<", limit.seconds, seconds, note=f"memory {_gigabytes(peak)}")
        if limit.peak_bytes is not None:
            yield Verdict(f"{what}, peak memory, GB", "<", limit.peak_bytes / GB, peak)


def _gigabytes(peak: float | None) -> str:
    return "-" if peak is None else f"{peak:.2f} GB"
