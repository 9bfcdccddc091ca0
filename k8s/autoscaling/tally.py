"""The server's series of one replica, and the page of all replicas as Prometheus reads it.

Names, labels and buckets are those of the server (a test compares them). Each line has the labels that a
ServiceMonitor adds (namespace, pod, service) and its simulated time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

FAST: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
SLOW: Final = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120)


@dataclass(slots=True)
class Histogram:
    """Counts by upper bound, the last one for all above."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> Iterator[tuple[str, float]]:
        below = 0
        for bound, count in zip([*map(str, map(float, self.bounds)), "+Inf"], self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{{labels},le="{bound}"}}', below
        yield f"{name}_sum{{{labels}}}", self.total
        yield f"{name}_count{{{labels}}}", below


@dataclass(slots=True)
class Tally:
    """What a replica has counted since it started; `cpu_s` are CPU seconds, `busy_s` those with a step."""

    prompted: int = 0
    generated: int = 0
    succeeded: int = 0
    rejected: int = 0
    cpu_s: float = 0.0
    busy_s: float = 0.0
    ttft: Histogram = field(default_factory=lambda: Histogram(FAST))
    itl: Histogram = field(default_factory=lambda: Histogram(FAST))
    e2e: Histogram = field(default_factory=lambda: Histogram(SLOW))
    queued: Histogram = field(default_factory=lambda: Histogram(FAST))


@dataclass(frozen=True)
class Gauges:
    waiting: int
    running: int
    kv_usage: float


@dataclass(frozen=True)
class Place:
    """Where the replicas are said to run: the labels of their series."""

    namespace: str = "halimede"
    release: str = "halimede"
    model: str = "smollm2_engine"


def series(place: Place, pod: str, tally: Tally, gauges: Gauges) -> Iterator[tuple[str, float]]:
    """Name with labels, and value."""
    where = f'namespace="{place.namespace}",pod="{pod}",container="triton"'
    labels = f'model="{place.model}",version="1",{where},service="{place.release}",job="{place.release}"'
    yield f"halimede_num_requests_waiting{{{labels}}}", gauges.waiting
    yield f"halimede_num_requests_running{{{labels}}}", gauges.running
    yield f"halimede_kv_cache_usage_perc{{{labels}}}", gauges.kv_usage
    yield f"halimede_prompt_tokens_total{{{labels}}}", tally.prompted
    yield f"halimede_generation_tokens_total{{{labels}}}", tally.generated
    yield f'halimede_request_success_total{{{labels},finished_reason="length"}}', tally.succeeded
    yield f'halimede_requests_rejected_total{{{labels},reason="unavailable"}}', tally.rejected
    for name, histogram in (("time_to_first_token", tally.ttft), ("inter_token_latency", tally.itl)):
        yield from histogram.lines(f"halimede_{name}_seconds", f'{labels},streamed="true"')
    # Each token is a response here.
    yield from tally.itl.lines("halimede_inter_response_latency_seconds", labels)
    yield from tally.e2e.lines("halimede_e2e_request_latency_seconds", f'{labels},streamed="true"')
    yield from tally.queued.lines("halimede_request_queue_time_seconds", labels)
    yield f"container_cpu_usage_seconds_total{{{where}}}", tally.cpu_s


def page(lines: Iterator[tuple[str, float]], at_s: float) -> str:
    """Prometheus text, each sample with its own time (Unix seconds)."""
    stamp = round(at_s * 1000)
    return "".join(f"{name} {value} {stamp}\n" for name, value in lines)
