"""The plots of a run, of a sweep, of two runs side by side and of a soak test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from matplotlib.axes import Axes

from loadtest.measure.comparison import Run
from loadtest.measure.record import Record
from loadtest.measure.result import Result
from loadtest.measure.soak import MB, Finding, Look
from loadtest.measure.statistics import Window, measured
from loadtest.measure.sweep import Sweep
from loadtest.pages.plots import (
    INK,
    PALETTE,
    REFERENCE,
    SHADE,
    Plot,
    curve,
    finish,
    legend_text,
    limit_lines,
    outside_measured,
    steps,
    widen,
)
from loadtest.pages.tables import SHORT_NAMES

_SECONDS = "seconds since the start of the run"
_MINUTE_S = 60.0
_STYLES = ("-", "--", ":", "-.")
_PERCENTILES = ("p50", "p90", "p99")
# Of kinds of requests, and of classes of errors.
_SHOWN_KINDS, _SHOWN_ERRORS = 7, 6
# Of the server's gauges, panel by panel: unit, factor, and each gauge with its label.
_GAUGES = (
    ("requests", 1, {"running": "running", "waiting": "waiting"}),
    ("per cent", 100, {"kv_usage": "KV cache in use", "prefix_hit_ratio": "prefix cache hits"}),
    ("tokens/s", 1, {"generation_tokens_per_s": "generated", "prompt_tokens_per_s": "prompts read"}),
    ("requests/s", 1, {"rejected_per_s": "rejected"}),
    ("per cent", 100, {"cpu_utilization": "CPU of the machine"}),
    ("GiB", 2**-30, {"memory_used_bytes": "memory of the machine"}),
)
_Value = Callable[[Result], float | None]
# What follows the run's name in the legend, the line's opacity, and its values.
_Curve = tuple[str, float, Callable[[Window], float | None]]


def run_plots(result: Result, records: Sequence[Record]) -> dict[str, list[Plot]]:
    """By the section of the page that they belong to; no errors, no plot of them."""
    width = f"windows of {result.window_width_s:.3g} s."
    spread = "Of the measured requests: the share, in per cent, that had their first token within so long."
    lag = (
        "How late a request was sent, the worst of each window. Latencies count from the intended start, and"
        " so contain it."
    )
    errors = "Requests that did not end as the mix asked, by when they ended."
    latency = [
        Plot(
            f"{m}-over-time", f"{title} over time", f"Percentiles of {width}", 1, partial(_latency, result, m)
        )
        for m, title in (("ttft", "Time to first token"), ("gap", "Gap between responses"))
    ]
    latency.append(
        Plot("ttft-spread", "Distribution of the time to first token", spread, 1, partial(_kinds, records))
    )
    rates = partial(_throughput, result)
    has_errors = any(window.errors for window in result.timeline)
    return {
        "Latency": latency,
        "Throughput": [Plot("throughput", "Tokens and requests per second", f"Means of {width}", 2, rates)],
        "Server": [_server_plot(result)],
        "Errors": [Plot("errors", "Errors by class", errors, 1, partial(_errors, result))] * has_errors,
        "Load generator": [Plot("generator-lag", "Lag of the load generator", lag, 1, partial(_lag, result))],
    }


def _middles(result: Result) -> list[float]:
    return [window.t_s + result.window_width_s / 2 for window in result.timeline]


def _over_time(axis: Axes, result: Result, unit: str) -> None:
    outside_measured(axis, result)
    finish(axis, _SECONDS, unit)


def _latency(result: Result, name: str, axes: list[Axes]) -> None:
    (axis,) = axes
    bands = [getattr(window, f"{name}_s") for window in result.timeline]
    seen = [(at_s, band) for at_s, band in zip(_middles(result), bands, strict=True) if band is not None]
    low, high = ([1e3 * getattr(band, percentile) for _, band in seen] for percentile in ("p50", "p99"))
    axis.fill_between([at_s for at_s, _ in seen], low, high, color=PALETTE[0], alpha=0.15, linewidth=0)
    for percentile, style, colour in zip(_PERCENTILES, _STYLES, PALETTE, strict=False):
        points = [(at_s, 1e3 * getattr(band, percentile)) for at_s, band in seen]
        curve(axis, points, percentile, colour, style, marker=".", markersize=3)
    limit_lines(axis, result, name)
    _over_time(axis, result, "ms")


def _kinds(records: Sequence[Record], axes: list[Axes]) -> None:
    by_kind: dict[str, list[float]] = {}
    for record in measured(records):
        if record.ttft_s is not None:
            by_kind.setdefault(record.kind, []).append(1e3 * record.ttft_s)
    kinds = sorted(by_kind, key=lambda kind: -len(by_kind[kind]))[:_SHOWN_KINDS]
    _spread(axes[0], {f"{legend_text(kind)} ({len(by_kind[kind])})": by_kind[kind] for kind in kinds})


def _spread(axis: Axes, groups: dict[str, list[float]]) -> None:
    """Of each group the share, in per cent, of the values that are at most so high."""
    for index, (label, values) in enumerate(groups.items()):
        if values:
            steps(axis, values, label, PALETTE[index], _STYLES[index % len(_STYLES)])
    widen(axis.xaxis, axis.set_xscale, [value for values in groups.values() for value in values])
    finish(axis, "time to first token, ms", "per cent")
    axis.set_ylim(0, 101)


def _throughput(result: Result, axes: list[Axes]) -> None:
    times, windows = _middles(result), result.timeline
    axes[0].plot(times, [window.tokens_per_s for window in windows], color=PALETTE[0], label="output tokens")
    axes[1].plot(times, [w.offered_per_s for w in windows], "--", color=PALETTE[1], label="offered")
    axes[1].plot(times, [w.finished_per_s for w in windows], color=PALETTE[2], label="complete")
    for axis, unit in zip(axes, ("tokens/s", "requests/s"), strict=True):
        _over_time(axis, result, unit)


def _server_plot(result: Result) -> Plot:
    """Requests that were sent and had not ended; below them the server's own metrics."""
    panels = [_GAUGES[0], *(panel for panel in _GAUGES[1:] if panel[2].keys() & result.gauges.keys())]
    note = (
        "In flight: requests that were sent and had not ended. The rest are the server's metrics."
        if result.gauges
        else "Requests sent and not ended. The server's metrics were not read."
    )

    def draw(axes: list[Axes]) -> None:
        in_flight = [window.in_flight for window in result.timeline]
        axes[0].plot(_middles(result), in_flight, color=PALETTE[2], linewidth=2, alpha=0.7, label="in flight")
        for axis, (unit, factor, gauges) in zip(axes, panels, strict=True):
            for (name, label), colour, style in zip(gauges.items(), PALETTE, _STYLES, strict=False):
                if series := result.gauges.get(name):
                    curve(axis, [(at_s, factor * value) for at_s, value in series], label, colour, style)
            _over_time(axis, result, unit)

    return Plot("server", "Requests in flight and server gauges", note, len(panels), draw)


def _errors(result: Result, axes: list[Axes]) -> None:
    (axis,) = axes
    totals: dict[str, int] = {}
    for window in result.timeline:
        for name, number in window.errors.items():
            totals[name] = totals.get(name, 0) + number
    names = sorted(totals, key=lambda name: -totals[name])
    groups = [(legend_text(name), [name]) for name in names[:_SHOWN_ERRORS]]
    if others := names[_SHOWN_ERRORS:]:
        groups.append((f"{len(others)} others", others))
    floor = [0] * len(result.timeline)
    for (label, group), colour in zip(groups, PALETTE, strict=False):
        heights = [sum(window.errors.get(name, 0) for name in group) for window in result.timeline]
        axis.bar(_middles(result), heights, result.window_width_s * 0.9, floor, color=colour, label=label)
        floor = [low + height for low, height in zip(floor, heights, strict=True)]
    _over_time(axis, result, "requests")


def _lag(result: Result, axes: list[Axes]) -> None:
    seen = zip(_middles(result), (window.lag_max_s for window in result.timeline), strict=True)
    points = [(at_s, None if lag_s is None else 1e3 * lag_s) for at_s, lag_s in seen]
    curve(axes[0], points, "largest", PALETTE[1], marker=".", markersize=3)
    _over_time(axes[0], result, "ms")


def sweep_plots(sweep: Sweep) -> list[Plot]:
    hollow = "Filled marks met the SLO, hollow ones missed it."
    goodput = "Requests a second that met every limit of a request; on the diagonal all offered ones did."
    ttft, gap = (partial(_latency_by_rate, sweep, name) for name in ("ttft", "gap"))

    def tokens(axes: list[Axes]) -> None:
        _rate_curve(axes[0], sweep, lambda result: result.tokens_per_s, "output tokens", PALETTE[2], "-")
        _against_rate(axes[0], sweep, "tokens/s")

    return [
        Plot("ttft-by-rate", "TTFT against rate", hollow, 1, ttft),
        Plot("gap-by-rate", "Gap against rate", hollow, 1, gap),
        Plot("goodput", "Goodput against rate", f"{goodput} {hollow}", 1, partial(_goodput, sweep)),
        Plot("tokens-by-rate", "Output tokens against rate", hollow, 1, tokens),
    ]


def _latency_by_rate(sweep: Sweep, name: str, axes: list[Axes]) -> None:
    (axis,) = axes

    def milliseconds(result: Result, percentile: str) -> float | None:
        found = getattr(result, f"{name}_s")
        return None if found is None else 1e3 * float(getattr(found, percentile))

    seen = [milliseconds(rung.result, percentile) for rung in sweep.rungs for percentile in ("p50", "p99")]
    for index, percentile in enumerate(("p50", "p99")):
        value = partial(milliseconds, percentile=percentile)
        _rate_curve(axis, sweep, value, percentile, PALETTE[index], "-:"[index])
    # Beyond the capacity latency grows by decades, and below it the curve would lie on the axis.
    widen(axis.yaxis, axis.set_yscale, [value for value in seen if value is not None])
    limit_lines(axis, sweep.rungs[0].result, name)
    _against_rate(axis, sweep, "ms")


def _goodput(sweep: Sweep, axes: list[Axes]) -> None:
    (axis,) = axes
    top = sweep.rungs[-1].rate_per_s
    axis.plot([0, top], [0, top], color=INK, linestyle=(0, (1, 3)), linewidth=1, label="all offered")
    _rate_curve(axis, sweep, lambda result: result.requests_per_s, "complete", PALETTE[4], "--")
    _rate_curve(axis, sweep, lambda result: result.goodput_per_s, "goodput", PALETTE[0], "-")
    _against_rate(axis, sweep, "requests/s")


def _rate_curve(axis: Axes, sweep: Sweep, value: _Value, label: str, colour: str, style: str) -> None:
    points = [(rung.rate_per_s, value(rung.result)) for rung in sweep.rungs]
    curve(axis, points, label, colour, style, marker="o", markersize=5)
    missed = [(rung.rate_per_s, value(rung.result)) for rung in sweep.rungs if not rung.result.slo_met]
    curve(axis, missed, "", "white", " ", marker="o", markersize=3, zorder=3)


def _against_rate(axis: Axes, sweep: Sweep, unit: str) -> None:
    if sweep.highest_rate_per_s is not None:
        line = axis.axvline(
            sweep.highest_rate_per_s, color=PALETTE[2], linewidth=1, alpha=0.6, label="SLO holds"
        )
        line.set_gid(f"{REFERENCE}{len(axis.lines)}")
    axis.set_xlim(0, 1.04 * sweep.rungs[-1].rate_per_s)
    finish(axis, "offered requests per second", unit)


def versus_plots(runs: tuple[Run, Run]) -> list[Plot]:
    medians = "Medians of each window are strong lines, 99th percentiles faint ones."

    def band(measure: str, percentile: str) -> Callable[[Window], float | None]:
        def value(window: Window) -> float | None:
            found = getattr(window, f"{measure}_s")
            return None if found is None else 1e3 * float(getattr(found, percentile))

        return value

    def both(unit: str, *curves: _Curve) -> Callable[[list[Axes]], None]:
        def draw(axes: list[Axes]) -> None:
            for name, run, colour, style in zip("AB", runs, PALETTE, _STYLES, strict=False):
                for suffix, alpha, value in curves:
                    points = [(window.t_s, value(window)) for window in run.result.timeline]
                    curve(axes[0], points, f"{name}{suffix}", colour, style, alpha=alpha)
            finish(axes[0], _SECONDS, unit)

        return draw

    def spread(axes: list[Axes]) -> None:
        ttfts = ([1e3 * r.ttft_s for r in measured(run.records) if r.ttft_s is not None] for run in runs)
        _spread(axes[0], dict(zip("AB", ttfts, strict=True)))

    latency = {
        name: both("ms", (" p50", 1.0, band(name, "p50")), (" p99", 0.4, band(name, "p99")))
        for name in ("ttft", "gap")
    }
    tokens = both("tokens/s", ("", 1.0, lambda window: window.tokens_per_s))
    in_flight = both("requests", ("", 1.0, lambda window: window.in_flight))
    return [
        Plot("ttft", "Time to first token over time", medians, 1, latency["ttft"]),
        Plot("gap", "Gap between responses over time", medians, 1, latency["gap"]),
        Plot("spread", "Distribution of the time to first token", "", 1, spread),
        Plot("tokens", "Output tokens per second", "", 1, tokens),
        Plot("in-flight", "Requests in flight", "", 1, in_flight),
    ]


def soak_plot(result: Result, looks: Sequence[Look], found: Finding) -> Plot:
    def draw(axes: list[Axes]) -> None:
        _memory(axes[0], looks, found)
        for axis, name in zip(axes[1:], ("ttft", "gap"), strict=True):
            bands = [getattr(window, f"{name}_s") for window in result.timeline]
            for number, percentile in enumerate(("p50", "p99")):
                times = (at_s / _MINUTE_S for at_s in _middles(result))
                points = [
                    (m, band and getattr(band, percentile)) for m, band in zip(times, bands, strict=True)
                ]
                curve(axis, points, percentile, PALETTE[number])
            finish(axis, "minutes", f"{SHORT_NAMES[name]}, s")
        for axis in axes:
            axis.set_xlim(0, max(looks[-1].at_s, 1) / _MINUTE_S)

    note = "Memory from when the load was started; latencies from its first request, some seconds later."
    return Plot("soak", "Memory and latency over time", note, 3, draw)


def _memory(axis: Axes, looks: Sequence[Look], found: Finding) -> None:
    minutes = [look.at_s / _MINUTE_S for look in looks]
    axis.plot(minutes, [look.rss / MB for look in looks], color=PALETTE[0], label="RSS")
    axis.plot(minutes, [look.pss / MB for look in looks], color=PALETTE[1], linestyle="--", label="PSS")
    axis.axvspan(0, found.settle_s / _MINUTE_S, color=SHADE, zorder=0, linewidth=0)
    settled = [look for look in looks if look.at_s >= found.settle_s]
    if found.rss_slope is not None and settled:  # through the middle of what it was fitted to
        middle_s, level = median(look.at_s for look in settled), median(look.rss for look in settled) / MB
        points = [
            (at_s / _MINUTE_S, level + found.rss_slope.value * (at_s - middle_s) / 3600)
            for at_s in (settled[0].at_s, settled[-1].at_s)
        ]
        curve(axis, points, f"slope {found.rss_slope.value:+.1f} MB/h", PALETTE[2], ":")
    finish(axis, "minutes", "MB, all processes")
