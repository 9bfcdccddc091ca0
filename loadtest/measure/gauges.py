"""The server's metrics while it was under load, on the clock of the run.

Gauges stand as they were read; a counter becomes its rate between two readings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import isfinite

from halimede.errors import ProtocolError
from halimede.results import Metrics
from halimede.wire.prometheus import parse_metrics
from loadtest.errors import BenchError

# Seconds since the start of the run, and the text read then.
Scrape = tuple[float, str]
Series = tuple[tuple[float, float], ...]
Gauges = Mapping[str, Series]
_Reading = tuple[float, Metrics]
# From all readings to the points of a series.
_Points = Callable[[Sequence[_Reading]], Iterable[tuple[float, float]]]


def read_gauges(scrapes: Iterable[Scrape]) -> Gauges:
    """Each series that the server has at least one value of. BenchError names the moment of a bad text."""
    readings = []
    for at_s, text in scrapes:
        try:
            readings.append((at_s, parse_metrics(text)))
        except ProtocolError as error:
            raise BenchError(f"the server's metrics at {at_s:.1f} s: {error}") from error
    found = {
        name: tuple((at_s, value) for at_s, value in points(readings) if isfinite(value))
        for name, points in _SERIES.items()
    }
    return {name: series for name, series in found.items() if series}


def _gauge(name: str) -> _Points:
    """The sum over models and versions."""
    return lambda readings: (
        (at_s, value) for at_s, metrics in readings if (value := metrics.total(name)) is not None
    )


def _fullest(name: str) -> _Points:
    """The largest over models: shares of different caches do not add up."""
    return lambda readings: (
        (at_s, max(sample.value for sample in samples))
        for at_s, metrics in readings
        if (samples := metrics.select(name))
    )


def _rate(name: str) -> _Points:
    """Per second between two readings; a counter that fell was reset, and is skipped."""
    return lambda readings: (
        (now_s, (now - before) / (now_s - before_s))
        for (before_s, before), (now_s, now) in pairwise(_gauge(name)(readings))
        if now_s > before_s and now >= before
    )


def _share(part: str, whole: str) -> _Points:
    """The growth of one counter as a share of another's; no point where the whole did not grow."""

    def points(readings: Sequence[_Reading]) -> Iterator[tuple[float, float]]:
        hits = dict(_rate(part)(readings))
        return (
            (at_s, hits[at_s] / rate) for at_s, rate in _rate(whole)(readings) if rate > 0 and at_s in hits
        )

    return points


_SERIES: Mapping[str, _Points] = {
    "running": _gauge("halimede_num_requests_running"),
    "waiting": _gauge("halimede_num_requests_waiting"),
    "kv_usage": _fullest("halimede_kv_cache_usage_perc"),
    "prefix_hit_ratio": _share("halimede_prefix_cache_hits_total", "halimede_prefix_cache_queries_total"),
    "prompt_tokens_per_s": _rate("halimede_prompt_tokens_total"),
    "generation_tokens_per_s": _rate("halimede_generation_tokens_total"),
    "rejected_per_s": _rate("halimede_requests_rejected_total"),
    "cpu_utilization": _gauge("nv_cpu_utilization"),
    "memory_used_bytes": _gauge("nv_cpu_memory_used_bytes"),
}
