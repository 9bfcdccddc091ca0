"""The numbers of a run as tables of its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from loadtest.measure.result import Kind, Requests, Result
from loadtest.measure.slo import Verdict
from loadtest.measure.statistics import Latency
from loadtest.pages.document import badge
from loadtest.pages.markup import Markup, table, tag
from loadtest.pages.words import LONG_NAMES, MEASURES, limit_words, number, verdict_words

_STATISTICS = ("p50", "p90", "p95", "p99", "mean", "max")


def verdict_badge(met: bool | None) -> Markup:
    return badge(verdict_words(met), met)


def objectives(found: tuple[Verdict, ...]) -> Markup:
    rows = [(v.name, *limit_words(v), verdict_badge(v.met)) for v in found]
    return table(("objective", "limit", "found", "verdict"), rows)


def latencies(result: Result) -> Markup:
    rows = [(LONG_NAMES[name], *_cells(getattr(result, f"{name}_s"))) for name in MEASURES]
    return table(("milliseconds", *_STATISTICS, "values"), rows)


def rates(result: Result) -> Markup:
    rows = [
        ("output tokens/s", number(result.tokens_per_s)),
        ("complete requests/s", number(result.requests_per_s)),
        ("offered requests/s", number(result.offered_per_s)),
        ("goodput, requests/s within every limit of a request", number(result.goodput_per_s)),
        ("input tokens", f"{result.tokens_in:,}"),
        ("output tokens", f"{result.tokens_out:,}"),
    ]
    return table(("of the measured window", ""), rows)


def endings(requests: Requests) -> Markup:
    rows = [
        ("complete", f"{requests.complete:,}"),
        *_counted("ended by", requests.finishes),
        *_counted("failed", requests.errors),
        *_counted("refused as planned", requests.planned_errors),
    ]
    return table(("requests", f"{requests.total:,}"), rows)


def kinds(by_kind: Mapping[str, Kind]) -> Markup:
    columns = ("kind", "requests", "failed", "tokens in", "tokens out")
    measures = ("TTFT p50, ms", "p99", "gap p50, ms", "p99", "E2E p50, ms", "p99")
    return table((*columns, *measures), [(name, *_kind(kind)) for name, kind in by_kind.items()])


def gauges(result: Result) -> Markup:
    """As the server said them, in their own units."""
    rows = []
    for name, series in result.gauges.items():
        values = [value for _, value in series]
        mean = sum(values) / len(values)
        rows.append((name, *map(number, (min(values), mean, max(values))), str(len(values))))
    return table(("gauge", "least", "mean", "most", "readings"), rows)


def doubts(found: tuple[str, ...]) -> list[Markup]:
    return [tag("ul", *(tag("li", doubt) for doubt in found), class_="doubts")] if found else []


def _kind(kind: Kind) -> Iterator[str]:
    yield f"{kind.requests.total:,}"
    yield f"{kind.requests.unexpected:,}"
    yield f"{kind.tokens_in:,}"
    yield f"{kind.tokens_out:,}"
    for found in (kind.ttft_s, kind.gap_s, kind.e2e_s):
        yield number(None if found is None else 1e3 * found.p50)
        yield number(None if found is None else 1e3 * found.p99)


def _counted(what: str, counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    return ((f"{what}: {name}", f"{value:,}") for name, value in counts.items())


def _cells(found: Latency | None) -> Iterator[str]:
    for statistic in _STATISTICS:
        yield number(None if found is None else 1e3 * getattr(found, statistic))
    yield f"{0 if found is None else found.n:,}"
