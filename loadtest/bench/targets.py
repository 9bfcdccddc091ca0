"""The targets of the benchmark, and whether one run met them. Every figure is a ratio within that run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from loadtest.bench.footprint import Footprint
from loadtest.bench.plan import TITLES
from loadtest.bench.throughput import Steps
from loadtest.sample import Sample

GB = 1e9


@dataclass(frozen=True, slots=True)
class Verdict:
    """`value` is the ratio of the medians, None where the run did not measure it; `low` and `high` are the
    extremes over the repeats. `relation` is what the value must be to the target.
    """

    name: str
    relation: str  # ">=", "<=" or "<"
    target: float
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        compare = {
            ">=": self.value >= self.target,
            "<=": self.value <= self.target,
            "<": self.value < self.target,
        }
        return compare[self.relation]


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a run found. `quality` is the manifest's; `hits` the prompt tokens the prefix cache gave to
    the throughput rows, which must be none.
    """

    samples: Sequence[Sample]
    steps: Sequence[Steps]
    footprint: Footprint
    quality: Mapping[str, Any]
    hits: float


def ratio(
    name: str,
    relation: str,
    target: float,
    above: Mapping[int, float],
    below: Mapping[int, float],
    note: str = "",
) -> Verdict:
    """Of two sets of repeats, by the number of the repeat; not measured where one is empty."""
    if not above or not below:
        return Verdict(name, relation, target, note=note)
    pairs = [above[repeat] / below[repeat] for repeat in above.keys() & below.keys()]
    value = median(above.values()) / median(below.values())
    return Verdict(name, relation, target, value, min(pairs), max(pairs), note)


def verdicts(found: Measured) -> list[Verdict]:
    return [
        *_throughput(found.samples),
        *_steps(found.steps),
        _prefix(found.footprint),
        _perplexity(found.quality),
        _memory(found.footprint),
        Verdict("time from start to ready, s", "<=", 15, found.footprint.ready_s),
    ]


def _throughput(samples: Sequence[Sample]) -> Iterator[Verdict]:
    def rates(row: str, streams: int) -> dict[int, float]:
        return {s.repeat: s.tokens_per_s for s in samples if (s.row, s.streams) == (row, streams)}

    grpc_1, grpc_8 = rates("grpc", 1), rates("grpc", 8)
    yield ratio("tokens/s, 8 streams: Triton gRPC / in process", ">=", 0.90, grpc_8, rates("engine", 8))
    note = _gains(samples)
    yield ratio("tokens/s, Triton gRPC: 8 streams / 1", ">=", 2.5, grpc_8, grpc_1, note)
    name = "tokens/s, 1 stream: Triton gRPC / transformers fp32"
    yield ratio(name, ">=", 5, grpc_1, rates("transformers", 1))


def _gains(samples: Sequence[Sample]) -> str:
    """The gain of 8 streams over 1 where all streams decode: the rest of the loss is prompts."""
    parts = []
    for row in ("engine", "grpc"):
        one, eight = (
            [
                s.decode_tokens_per_s
                for s in samples
                if (s.row, s.streams) == (row, n) and s.decode_tokens_per_s
            ]
            for n in (1, 8)
        )
        if one and eight:
            parts.append(f"{TITLES[row]} {median(eight) / median(one):.2f}")
    return f"while all decode: {', '.join(parts)}" if parts else ""


def _steps(steps: Sequence[Steps]) -> Iterator[Verdict]:
    for streams in sorted({step.streams for step in steps}):
        found = [step for step in steps if step.streams == streams]
        engine, model, bare = (
            median(getattr(step, name) for step in found) for name in ("engine_s", "model_s", "bare_s")
        )
        yield ratio(
            f"decode step, batch {streams}: engine / bare loop",
            "<=",
            1.10,
            {step.repeat: step.engine_s for step in found},
            {step.repeat: step.bare_s for step in found},
            f"{1e3 * engine:.2f} ms, of it the model {1e3 * model:.2f}; bare {1e3 * bare:.2f}",
        )


def _prefix(footprint: Footprint) -> Verdict:
    cold = dict(enumerate(pair.cold_s for pair in footprint.prefix))
    cached = dict(enumerate(pair.cached_s for pair in footprint.prefix))
    note = f"{1e3 * median(cached.values()):.0f} ms against {1e3 * median(cold.values()):.0f}"
    return ratio("time to first token, 400 tokens shared: cached / cold", "<=", 0.25, cached, cold, note)


def _perplexity(quality: Mapping[str, Any]) -> Verdict:
    value = quality["perplexity"] / quality["reference_perplexity"]
    note = f"{quality['perplexity']:.2f} against {quality['reference_perplexity']:.2f}"
    return Verdict("perplexity: int8 / fp32", "<=", 1.01, value, note=note)


def _memory(footprint: Footprint) -> Verdict:
    filled, idle = footprint.filled, footprint.idle
    shared = f"{filled.rss / GB:.2f} with shared pages counted for each"
    note = f"{filled.processes} processes; idle {idle.pss / GB:.2f}; {shared}"
    return Verdict("memory of the server tree with all slots full, GB", "<", 2.5, filled.pss / GB, note=note)
