"""Ours against the best peer whose quality is equal, and through Triton against in process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from loadtest.bench.targets import Verdict, ratio
from loadtest.peers.plan import OURS, Plan, Row, Setting
from loadtest.peers.quality import Quality
from loadtest.sample import Sample

_BEST = {Setting.PROCESS: ("engine", 1.0), Setting.SERVER: ("grpc", 1.3)}
_THROUGH_TRITON = {8: 0.95, 32: 0.9}


def verdicts(plan: Plan, samples: Sequence[Sample], qualities: Mapping[str, Quality]) -> list[Verdict]:
    return [*_against_peers(plan, samples, qualities), *_through_triton(plan, samples)]


def rates(samples: Sequence[Sample], row: str, streams: int) -> dict[int, float]:
    """Output tokens a second, prompts included, by repeat."""
    return {s.repeat: s.tokens_per_s for s in samples if (s.row, s.streams) == (row, streams)}


def eligible(plan: Plan, setting: Setting, qualities: Mapping[str, Quality]) -> list[Row]:
    """Peers' rows whose model lost at most a hundredth of perplexity; one not scored is not among them."""
    return [
        row
        for row in plan.rows
        if row.setting is setting
        and row.peer != OURS
        and row.model in qualities
        and qualities[row.model].comparable
    ]


def _against_peers(
    plan: Plan, samples: Sequence[Sample], qualities: Mapping[str, Quality]
) -> Iterator[Verdict]:
    for setting, (ours, target) in _BEST.items():
        peers = eligible(plan, setting, qualities)
        for streams in plan.streams:
            found = {row: got for row in peers if (got := rates(samples, row.name, streams))}
            best = max(found, key=lambda row: median(found[row].values()), default=None)
            name = f"tokens/s {setting}, {streams}: Halimede / the best peer"
            above = rates(samples, ours, streams)
            note = f"the best: {best.title}" if best else "no peer of equal quality was measured"
            yield ratio(name, ">=", target, above, found[best] if best else {}, note)


def _through_triton(plan: Plan, samples: Sequence[Sample]) -> Iterator[Verdict]:
    for streams, target in _THROUGH_TRITON.items():
        if streams in plan.streams:
            served, alone = (rates(samples, row, streams) for row in ("grpc", "engine"))
            yield ratio(f"tokens/s, {streams}: through Triton / in process", ">=", target, served, alone)
