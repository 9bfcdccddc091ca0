"""The result of a run: everything that a report shows, in one value that is stored as result.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.fields import dump, load
from loadtest.measure import slo
from loadtest.measure.gauges import Gauges
from loadtest.measure.record import Record
from loadtest.measure.slo import Verdict, limits_of
from loadtest.measure.statistics import (
    Latency,
    Window,
    error_class,
    latency,
    measured,
    observe,
    timeline,
    width_of,
)

VERSION = 2
_MEASURES = ("ttft", "gap", "itl", "tpot", "e2e")
# Of fewer values the 99th percentile is little more than the largest.
_ENOUGH = 100
# A generator this late, or by this share of the TTFT, measures itself.
_LATE_S, _LATE_SHARE = 0.05, 0.1


@dataclass(frozen=True, slots=True)
class ServerFacts:
    url: str
    version: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the records do not say. `profile` is the parsed TOML; its [slo] has the limits. `started` is ISO
    8601. `window_s` is when measuring began and ended, in seconds since the start of the run."""

    profile: Mapping[str, Any]
    started: str
    machine: Mapping[str, Any]
    server: ServerFacts
    window_s: tuple[float, float]
    gauges: Gauges


@dataclass(frozen=True, slots=True)
class Requests:
    """Of the measured ones. `unexpected` are those that did not end as the mix asked; `errors` counts them
    by class, `planned_errors` the errors that the mix asked for."""

    total: int
    complete: int
    unexpected: int
    kinds: Mapping[str, int]
    finishes: Mapping[str, int]
    errors: Mapping[str, int]
    planned_errors: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Kind:
    requests: Requests
    tokens_in: int
    tokens_out: int
    ttft_s: Latency | None
    gap_s: Latency | None
    itl_s: Latency | None
    tpot_s: Latency | None
    e2e_s: Latency | None


@dataclass(frozen=True, slots=True)
class Result:
    """Times are seconds. Latencies, `tokens_in` and `tokens_out` are of the measured requests.

    `tokens_per_s` and `requests_per_s` count the output tokens and the complete answers that came in the
    measured window, whenever they were asked for: so neither edge counts too little. `goodput_per_s` counts
    measured requests that met every limit of a request, over the same window. `doubts` are reasons to trust
    the figures less, in words.
    """

    version: int
    profile: Mapping[str, Any]
    started: str
    machine: Mapping[str, Any]
    server: ServerFacts
    window_s: tuple[float, float]
    requests: Requests
    ttft_s: Latency | None
    gap_s: Latency | None
    itl_s: Latency | None
    tpot_s: Latency | None
    e2e_s: Latency | None
    lag_s: Latency | None
    tokens_in: int
    tokens_out: int
    tokens_per_s: float
    requests_per_s: float
    offered_per_s: float
    goodput_per_s: float
    slo: tuple[Verdict, ...]
    doubts: tuple[str, ...]
    window_width_s: float
    timeline: tuple[Window, ...]
    gauges: Gauges
    by_kind: Mapping[str, Kind]

    @property
    def name(self) -> str:
        return str(self.profile.get("name", "unnamed"))

    @property
    def slo_met(self) -> bool:
        return slo.holds(self.slo)

    @property
    def measured_s(self) -> float:
        return self.window_s[1] - self.window_s[0]


def summarise(records: Sequence[Record], facts: Facts) -> Result:
    """Raises BenchError for a profile with a bad [slo]."""
    start_s, end_s = facts.window_s
    assert end_s > start_s, "nothing was measured"
    limits = limits_of(facts.profile.get("slo", {}))
    taken = measured(records)
    seen, requests = observe(taken), _requests(taken)
    latencies = {name: latency(getattr(seen, name)) for name in (*_MEASURES, "lag")}
    ratio = requests.unexpected / requests.total if taken else None
    measured_s = end_s - start_s
    width_s = width_of(measured_s)
    return Result(
        version=VERSION,
        profile=facts.profile,
        started=facts.started,
        machine=facts.machine,
        server=facts.server,
        window_s=facts.window_s,
        requests=requests,
        **{f"{name}_s": found for name, found in latencies.items()},
        tokens_in=sum(record.tokens_in for record in taken),
        tokens_out=sum(record.tokens_out for record in taken),
        tokens_per_s=float(observe(records).tokens.between(start_s, end_s).weight.sum()) / measured_s,
        requests_per_s=sum(r.is_complete and start_s <= r.end_s < end_s for r in records) / measured_s,
        offered_per_s=len(taken) / measured_s,
        goodput_per_s=sum(map(limits.accepts, taken)) / measured_s,
        slo=slo.verdicts(limits, latencies, ratio),
        doubts=tuple(_doubts(latencies, requests.total)),
        window_width_s=width_s,
        timeline=timeline(records, width_s),
        gauges=facts.gauges,
        by_kind={name: _kind([r for r in taken if r.kind == name]) for name in sorted(requests.kinds)},
    )


def _doubts(latencies: Mapping[str, Latency | None], requests: int) -> Iterator[str]:
    if not requests:
        yield "no request fell into the measured window"
        return
    if requests < _ENOUGH:
        few = f"{requests} requests were measured"
        yield f"{few}: the 99th percentiles are little more than the largest values"
    lag, ttft = latencies["lag"], latencies["ttft"]
    if lag is not None and lag.p99 > max(_LATE_S, _LATE_SHARE * (ttft.p50 if ttft else 0)):
        yield (
            f"the load generator sent requests late (p99 {lag.p99:.2f} s): it, or its connections, are part"
            " of what was measured"
        )


def encode(result: Result) -> str:
    return dump(result)


def decode(text: str) -> Result:
    """Raises BenchError for a result of another version or with a bad field."""
    return load(Result, text, VERSION)


def _kind(taken: Sequence[Record]) -> Kind:
    seen = observe(taken)
    return Kind(
        requests=_requests(taken),
        tokens_in=sum(record.tokens_in for record in taken),
        tokens_out=sum(record.tokens_out for record in taken),
        **{f"{name}_s": latency(getattr(seen, name)) for name in _MEASURES},
    )


def _requests(taken: Sequence[Record]) -> Requests:
    return Requests(
        total=len(taken),
        complete=sum(record.is_complete for record in taken),
        unexpected=sum(not record.expected for record in taken),
        kinds=_count(record.kind for record in taken),
        finishes=_count(record.finish_reason for record in taken),
        errors=_count(map(error_class, taken)),
        planned_errors=_count(record.error for record in taken if record.expected),
    )


def _count(names: Iterable[str | None]) -> Mapping[str, int]:
    return dict(sorted(Counter(name for name in names if name is not None).items()))
