"""The plots of a sweep; a rung that missed the SLO is hollow."""

from __future__ import annotations

from collections.abc import Callable
from math import nan

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from loadtest.measure.result import Result
from loadtest.measure.statistics import Latency
from loadtest.measure.sweep import Sweep
from loadtest.pages.axes import finish, limit_line, rate_line
from loadtest.pages.canvas import INK, PALETTE, Plot

_Value = Callable[[Result], float]


def sweep_plots(sweep: Sweep) -> list[Plot]:
    hollow = "Filled marks met the SLO, hollow ones missed it."
    return [
        Plot("ttft-by-rate", "TTFT against rate", hollow, 1, lambda a: _latency(a[0], sweep, "ttft")),
        Plot("gap-by-rate", "Gap against rate", hollow, 1, lambda a: _latency(a[0], sweep, "gap")),
        Plot("goodput", "Goodput against rate", f"{_GOODPUT} {hollow}", 1, lambda a: _goodput(a[0], sweep)),
        Plot("tokens-by-rate", "Output tokens against rate", hollow, 1, lambda a: _tokens(a[0], sweep)),
    ]


_GOODPUT = "Requests a second that met every limit of a request; on the diagonal all offered ones did."


def _latency(axis: Axes, sweep: Sweep, name: str) -> None:
    for index, percentile in enumerate(("p50", "p99")):
        _curve(axis, sweep, _milliseconds(name, percentile), percentile, PALETTE[index], "-:"[index])
    if all(_milliseconds(name, "p50")(rung.result) > 0 for rung in sweep.rungs):
        _widen(axis, sweep, name)
    for verdict in sweep.rungs[0].result.slo:
        if verdict.name.startswith(f"{name}_p"):
            limit_line(axis, 1e3 * verdict.limit, f"limit of {verdict.name.split('_')[1]}")
    _against_rate(axis, sweep, "ms")


def _goodput(axis: Axes, sweep: Sweep) -> None:
    top = sweep.rungs[-1].rate_per_s
    axis.plot([0, top], [0, top], color=INK, linestyle=(0, (1, 3)), linewidth=1, label="all offered")
    _curve(axis, sweep, lambda result: result.requests_per_s, "complete", PALETTE[4], "--")
    _curve(axis, sweep, lambda result: result.goodput_per_s, "goodput", PALETTE[0], "-")
    _against_rate(axis, sweep, "requests/s")


def _tokens(axis: Axes, sweep: Sweep) -> None:
    _curve(axis, sweep, lambda result: result.tokens_per_s, "output tokens", PALETTE[2], "-")
    _against_rate(axis, sweep, "tokens/s")


def _curve(axis: Axes, sweep: Sweep, value: _Value, label: str, colour: str, style: str) -> None:
    rates = [rung.rate_per_s for rung in sweep.rungs]
    values = [value(rung.result) for rung in sweep.rungs]
    axis.plot(rates, values, style, marker="o", markersize=5, color=colour, label=label)
    hollow = [rung.result.slo_met for rung in sweep.rungs]
    missed = [(x, y) for x, y, met in zip(rates, values, hollow, strict=True) if not met]
    if missed:
        axis.plot(*zip(*missed, strict=True), " ", marker="o", markersize=3, color="white", zorder=3)


def _widen(axis: Axes, sweep: Sweep, name: str) -> None:
    """Beyond the capacity latency grows by decades, and below it the curve would lie on the axis."""
    seen = [_milliseconds(name, percentile)(r.result) for r in sweep.rungs for percentile in ("p50", "p99")]
    if max(seen) > 30 * min(seen):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
        axis.yaxis.set_minor_formatter(NullFormatter())


def _against_rate(axis: Axes, sweep: Sweep, unit: str) -> None:
    if sweep.highest_rate_per_s is not None:
        rate_line(axis, sweep.highest_rate_per_s, "SLO holds")
    axis.set_xlim(0, 1.04 * sweep.rungs[-1].rate_per_s)
    finish(axis, "offered requests per second", unit)


def _milliseconds(name: str, percentile: str) -> _Value:
    def value(result: Result) -> float:
        found: Latency | None = getattr(result, f"{name}_s")
        return nan if found is None else 1e3 * float(getattr(found, percentile))

    return value
