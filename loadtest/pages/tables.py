"""The numbers of a run, a sweep, two runs and a soak test as tables, for both the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from loadtest.measure.comparison import Change, Difference
from loadtest.measure.result import Kind, Requests, Result
from loadtest.measure.slo import Verdict
from loadtest.measure.soak import Drift, Finding, Slope, Trend
from loadtest.measure.statistics import Latency
from loadtest.measure.sweep import Sweep

SHORT_NAMES = {"ttft": "TTFT", "gap": "gap", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E", "lag": "lag"}
LONG_NAMES = {
    "ttft": "time to first token (TTFT)",
    "gap": "gap between responses",
    "itl": "the same by its tokens: inter-token latency (ITL)",
    "tpot": "time per output token (TPOT)",
    "e2e": "end to end (E2E)",
    "lag": "lag of the load generator",
}
_STATISTICS = ("p50", "p90", "p95", "p99", "mean", "max")
_CHANGES = {Change.BETTER: True, Change.WORSE: False, Change.NOISE: None, Change.UNKNOWN: None}
_TRENDS = {
    Trend.STEADY: ("steady", True),
    Trend.GROWING: ("growing", False),
    Trend.UNDECIDED: ("undecided: run it longer", None),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A verdict in words; `met` is None where there is none."""

    text: str
    met: bool | None


Row = Sequence[str | Mark]


@dataclass(frozen=True, slots=True)
class Grid:
    """The first column is text, the others are numbers or verdicts."""

    columns: Sequence[str]
    rows: Sequence[Row]

    def only(self, columns: Mapping[str, str]) -> Grid:
        """These columns alone, under other titles."""
        places = [self.columns.index(column) for column in columns]
        return Grid(list(columns.values()), [[row[place] for place in places] for row in self.rows])


def met(value: bool | None) -> Mark:
    return Mark({True: "met", False: "missed", None: "not measured"}[value], value)


def number(value: float | None) -> str:
    """Three figures, or every one of a whole number; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def milliseconds(found: Latency | None, *statistics: str) -> Iterator[str]:
    return (number(None if found is None else 1e3 * getattr(found, name)) for name in statistics)


def objectives(found: Sequence[Verdict]) -> Grid:
    """With units: seconds as milliseconds, a ratio as per cent."""

    def row(verdict: Verdict) -> Row:
        scale, unit = (1e3, " ms") if verdict.name.endswith("_s") else (100.0, " %")
        value = "-" if verdict.value is None else f"{number(scale * verdict.value)}{unit}"
        return verdict.name, f"≤ {number(scale * verdict.limit)}{unit}", value, met(verdict.met)

    return Grid(("objective", "limit", "found", "verdict"), [row(verdict) for verdict in found])


def latencies(result: Result, names: Mapping[str, str]) -> Grid:
    found = {title: getattr(result, f"{name}_s") for name, title in names.items()}
    rows = [
        (title, *milliseconds(latency, *_STATISTICS), f"{latency.n if latency else 0:,}")
        for title, latency in found.items()
    ]
    return Grid(("ms", *_STATISTICS, "n"), rows)


def rates(result: Result) -> Grid:
    rows = [
        ("output tokens/s", number(result.tokens_per_s)),
        ("complete requests/s", number(result.requests_per_s)),
        ("offered requests/s", number(result.offered_per_s)),
        ("goodput, requests/s within every limit of a request", number(result.goodput_per_s)),
        ("input tokens", f"{result.tokens_in:,}"),
        ("output tokens", f"{result.tokens_out:,}"),
    ]
    return Grid(("of the measured window", ""), rows)


def endings(requests: Requests) -> Grid:
    counted = {
        "ended by": requests.finishes,
        "failed": requests.errors,
        "refused as planned": requests.planned_errors,
    }
    rows = [
        ("complete", f"{requests.complete:,}"),
        *((f"{w}: {name}", f"{n:,}") for w, counts in counted.items() for name, n in counts.items()),
    ]
    return Grid(("requests", f"{requests.total:,}"), rows)


def kinds(by_kind: Mapping[str, Kind]) -> Grid:
    columns = ("kind", "requests", "failed", "tokens in", "tokens out")
    measures = ("TTFT p50, ms", "p99", "gap p50, ms", "p99", "E2E p50, ms", "p99")
    rows = []
    for name, kind in by_kind.items():
        counts = (kind.requests.total, kind.requests.unexpected, kind.tokens_in, kind.tokens_out)
        found = (kind.ttft_s, kind.gap_s, kind.e2e_s)
        times = (cell for latency in found for cell in milliseconds(latency, "p50", "p99"))
        rows.append((name, *(f"{count:,}" for count in counts), *times))
    return Grid((*columns, *measures), rows)


def gauges(result: Result) -> Grid:
    """The server's, in their own units."""
    rows = []
    for name, series in result.gauges.items():
        values = [value for _, value in series]
        mean = sum(values) / len(values)
        rows.append((name, *map(number, (min(values), mean, max(values))), str(len(values))))
    return Grid(("gauge", "min", "mean", "max", "readings"), rows)


def rungs(sweep: Sweep) -> Grid:
    """Latencies are in ms."""
    columns = (
        "rate/s", "complete/s", "goodput/s", "tokens/s", "TTFT p50", "TTFT p99", "gap p50", "gap p99",
        "TPOT p50", "TPOT p99", "failed", "SLO",
    )  # fmt: skip
    rows: list[Row] = []
    for rung in sweep.rungs:
        r = rung.result
        rates = (rung.rate_per_s, r.requests_per_s, r.goodput_per_s, r.tokens_per_s)
        times = (t for found in (r.ttft_s, r.gap_s, r.tpot_s) for t in milliseconds(found, "p50", "p99"))
        rows.append((*map(number, rates), *times, f"{r.requests.unexpected:,}", met(r.slo_met)))
    return Grid(columns, rows)


def sweep_words(sweep: Sweep) -> str:
    if sweep.highest_rate_per_s is None or sweep.goodput_per_s is None:
        return "the SLO was missed at every rate"
    held = (
        f"the SLO holds up to {sweep.highest_rate_per_s:.3g} requests/s: goodput {sweep.goodput_per_s:.3g}/s"
    )
    if sweep.lowest_miss_per_s is None:
        return f"{held}; no rate missed it, so there may be more"
    return f"{held}; it is missed at {sweep.lowest_miss_per_s:.3g}/s"


def differences(found: Sequence[Difference]) -> Grid:
    def ratio(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    rows: list[Row] = []
    for d in found:
        is_time = d.name.endswith("_s") and not d.name.endswith("_per_s")
        name, scale = (f"{d.name.removesuffix('_s')}, ms", 1e3) if is_time else (d.name, 1.0)
        values = (number(None if value is None else scale * value) for value in (d.a, d.b))
        interval = "-" if d.low is None else f"{ratio(d.low)} to {ratio(d.high)}"
        rows.append((name, *values, ratio(d.ratio), interval, Mark(d.change.value, _CHANGES[d.change])))
    return Grid(("", "A", "B", "B / A", "99 % interval", ""), rows)


def soak(found: Finding) -> Grid:
    growth, drift = f"{found.limits.growth_mb_per_h:g}", f"{found.limits.drift:g}"
    rows: list[Row] = [
        ("errors", f"{found.errors:,}", "0", met(found.errors == 0)),
        ("RSS slope, MB/h (95 %)", slope(found.rss_slope), growth, Mark(*_TRENDS[found.rss_trend])),
    ]
    for each in found.drifts:
        name = f"p99 {each.name}, last third by first"
        rows.append((name, _drift(each), drift, met(each.holds(found.limits))))
    return Grid(("", "found", "limit", ""), rows)


def _drift(drift: Drift) -> str:
    if drift.ratio is None or drift.first_p99_s is None or drift.last_p99_s is None:
        return "not measured"
    return f"{drift.ratio:.2f} ({drift.last_p99_s * 1000:,.0f} ms by {drift.first_p99_s * 1000:,.0f} ms)"


def slope(found: Slope | None) -> str:
    return (
        "too few readings" if found is None else f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
    )
