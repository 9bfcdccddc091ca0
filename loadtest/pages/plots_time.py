"""What happened when: every plot has the same time axis, warm-up and drain shaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from loadtest.measure.result import Result
from loadtest.measure.timeline import Band, Window
from loadtest.pages.axes import finish, limit_line, outside_measured
from loadtest.pages.canvas import PALETTE, Plot, legend_text

_PERCENTILES = ("p50", "p90", "p99")
_STYLES = ("-", "--", ":")
_SHOWN_ERRORS = 6


def latency_plots(result: Result) -> list[Plot]:
    return [
        _latency(result, "ttft", "Time to first token", lambda window: window.ttft_s),
        _latency(result, "gap", "Gap between responses", lambda window: window.gap_s),
    ]


def throughput_plot(result: Result) -> Plot:
    title, note = "Tokens and requests per second", f"Means of windows of {result.window_width_s:.3g} s."
    return Plot("throughput", title, note, 2, lambda axes: _throughput(axes, result))


def lag_plot(result: Result) -> Plot:
    note = (
        "How late a request was sent, the worst of each window. Latencies count from the intended start, and"
        " so contain it."
    )
    return Plot("generator-lag", "Lag of the load generator", note, 1, lambda axes: _lag(axes, result))


def _latency(result: Result, name: str, title: str, band: Callable[[Window], Band | None]) -> Plot:
    def draw(axes: list[Axes]) -> None:
        (axis,) = axes
        _bands(axis, result, [band(window) for window in result.timeline])
        for verdict in result.slo:
            if verdict.name.startswith(f"{name}_p"):
                limit_line(axis, 1e3 * verdict.limit, f"limit of {verdict.name.split('_')[1]}")
        _over_time(axis, result, "ms")

    note = f"Percentiles of windows of {result.window_width_s:.3g} s."
    return Plot(f"{name}-over-time", f"{title} over time", note, 1, draw)


def _bands(axis: Axes, result: Result, bands: Sequence[Band | None]) -> None:
    """Windows in which nothing was seen have no mark; the line goes on to the next that has."""
    seen = [(at_s, band) for at_s, band in zip(_middles(result), bands, strict=True) if band is not None]
    times = [at_s for at_s, _ in seen]
    rows = [[1e3 * getattr(band, percentile) for _, band in seen] for percentile in _PERCENTILES]
    axis.fill_between(times, rows[0], rows[2], color=PALETTE[0], alpha=0.15, linewidth=0)
    for percentile, style, colour, values in zip(_PERCENTILES, _STYLES, PALETTE, rows, strict=False):
        axis.plot(times, values, style, marker=".", markersize=3, color=colour, label=percentile)


def _throughput(axes: list[Axes], result: Result) -> None:
    times, windows = _middles(result), result.timeline
    axes[0].plot(times, [window.tokens_per_s for window in windows], color=PALETTE[0], label="output tokens")
    _over_time(axes[0], result, "tokens/s")
    axes[1].plot(times, [w.offered_per_s for w in windows], "--", color=PALETTE[1], label="offered")
    axes[1].plot(times, [w.finished_per_s for w in windows], color=PALETTE[2], label="complete")
    _over_time(axes[1], result, "requests/s")


def error_plots(result: Result) -> list[Plot]:
    """No plot where nothing went wrong."""
    totals: dict[str, int] = {}
    for window in result.timeline:
        for name, number in window.errors.items():
            totals[name] = totals.get(name, 0) + number
    names = sorted(totals, key=lambda name: -totals[name])
    if not names:
        return []
    note = "Requests that did not end as the mix asked, by when they ended."
    return [Plot("errors", "Errors by class", note, 1, lambda axes: _stacked(axes[0], result, names))]


def _stacked(axis: Axes, result: Result, names: Sequence[str]) -> None:
    groups = [(legend_text(name), [name]) for name in names[:_SHOWN_ERRORS]]
    if others := list(names[_SHOWN_ERRORS:]):
        groups.append((f"{len(others)} others", others))
    floor = [0] * len(result.timeline)
    for (label, group), colour in zip(groups, PALETTE, strict=False):
        heights = [sum(window.errors.get(name, 0) for name in group) for window in result.timeline]
        width = result.window_width_s * 0.9
        axis.bar(_middles(result), heights, width, floor, color=colour, label=label)
        floor = [low + height for low, height in zip(floor, heights, strict=True)]
    _over_time(axis, result, "requests")


def _lag(axes: list[Axes], result: Result) -> None:
    seen = [(at_s, w.lag_max_s) for at_s, w in zip(_middles(result), result.timeline, strict=True)]
    points = [(at_s, 1e3 * lag_s) for at_s, lag_s in seen if lag_s is not None]
    times, values = [at_s for at_s, _ in points], [lag_ms for _, lag_ms in points]
    axes[0].plot(times, values, marker=".", markersize=3, color=PALETTE[1], label="largest")
    _over_time(axes[0], result, "ms")


def _over_time(axis: Axes, result: Result, unit: str) -> None:
    outside_measured(axis, result)
    finish(axis, "seconds since the start of the run", unit)


def _middles(result: Result) -> list[float]:
    return [window.t_s + result.window_width_s / 2 for window in result.timeline]
