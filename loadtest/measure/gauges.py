"""What the server said of itself while it was under load, on the clock of the run.

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
_Points = Iterable[tuple[float, float]]
_Reading = tuple[float, Metrics]


def read_gauges(scrapes: Iterable[Scrape]) -> Gauges:
    """Each series that the server has at least one value of. BenchError names the moment of a bad text."""
    readings = [(at_s, _parse(at_s, text)) for at_s, text in scrapes]
    found = {name: tuple(_finite(points(readings))) for name, points in _SERIES.items()}
    return {name: series for name, series in found.items() if series}


def _parse(at_s: float, text: str) -> Metrics:
    try:
        return parse_metrics(text)
    except ProtocolError as error:
        raise BenchError(f"the server's metrics at {at_s:.1f} s: {error}") from error


def _gauge(name: str) -> Callable[[Sequence[_Reading]], _Points]:
    """The sum over models and versions."""

    def points(readings: Sequence[_Reading]) -> Iterator[tuple[float, float]]:
        for at_s, metrics in readings:
            if (value := metrics.total(name)) is not None:
                yield at_s, value

    return points


def _fullest(name: str) -> Callable[[Sequence[_Reading]], _Points]:
    """The largest over models: shares of different caches do not add up."""

    def points(readings: Sequence[_Reading]) -> Iterator[tuple[float, float]]:
        for at_s, metrics in readings:
            if values := [sample.value for sample in metrics.select(name)]:
                yield at_s, max(values)

    return points


def _rate(name: str) -> Callable[[Sequence[_Reading]], _Points]:
    """Per second between two readings; a counter that fell was started anew, and says nothing."""

    def points(readings: Sequence[_Reading]) -> Iterator[tuple[float, float]]:
        for (before_s, before), (now_s, now) in pairwise(_gauge(name)(readings)):
            if now_s > before_s and now >= before:
                yield now_s, (now - before) / (now_s - before_s)

    return points


def _share(part: str, whole: str) -> Callable[[Sequence[_Reading]], _Points]:
    """How much of one counter's growth the other had; nothing is said where the whole did not grow."""

    def points(readings: Sequence[_Reading]) -> Iterator[tuple[float, float]]:
        hits, asked = dict(_rate(part)(readings)), dict(_rate(whole)(readings))
        for at_s, rate in asked.items():
            if rate > 0 and at_s in hits:
                yield at_s, hits[at_s] / rate

    return points


def _finite(points: _Points) -> Iterator[tuple[float, float]]:
    return ((at_s, value) for at_s, value in points if isfinite(value))


_SERIES: Mapping[str, Callable[[Sequence[_Reading]], _Points]] = {
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
