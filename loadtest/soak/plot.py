"""Memory and latency over the time of a soak test."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from matplotlib.axes import Axes

from loadtest.measure.result import Result
from loadtest.pages.axes import finish
from loadtest.pages.canvas import PALETTE, SHADE, Plot
from loadtest.soak.finding import MB, Finding
from loadtest.soak.watch import Look

_MINUTE_S = 60.0


def soak_plot(result: Result, looks: Sequence[Look], found: Finding) -> Plot:
    def draw(axes: list[Axes]) -> None:
        _memory(axes[0], looks, found)
        _latency(axes[1], result, "ttft_s", "TTFT, s")
        _latency(axes[2], result, "gap_s", "gap, s")
        for axis in axes:
            axis.set_xlim(0, max(looks[-1].at_s, _MINUTE_S / 60) / _MINUTE_S)

    note = "Memory from when the load was started; latencies from its first request, some seconds later."
    return Plot("soak", "Memory and latency over time", note, 3, draw)


def _memory(axis: Axes, looks: Sequence[Look], found: Finding) -> None:
    minutes = [look.at_s / _MINUTE_S for look in looks]
    axis.plot(minutes, [look.rss / MB for look in looks], color=PALETTE[0], label="RSS")
    axis.plot(minutes, [look.pss / MB for look in looks], color=PALETTE[1], linestyle="--", label="PSS")
    axis.axvspan(0, found.settle_s / _MINUTE_S, color=SHADE, zorder=0, linewidth=0)
    _line(axis, looks, found)
    finish(axis, "minutes", "MB, all processes")


def _line(axis: Axes, looks: Sequence[Look], found: Finding) -> None:
    """The slope, through the middle of what it was fitted to."""
    settled = [look for look in looks if look.at_s >= found.settle_s]
    if found.rss_slope is None or not settled:
        return
    middle_s, level = median(look.at_s for look in settled), median(look.rss for look in settled) / MB
    ends_s = (settled[0].at_s, settled[-1].at_s)
    values = [level + found.rss_slope.value * (at_s - middle_s) / 3600 for at_s in ends_s]
    label = f"slope {found.rss_slope.value:+.1f} MB/h"
    axis.plot([at_s / _MINUTE_S for at_s in ends_s], values, color=PALETTE[2], linestyle=":", label=label)


def _latency(axis: Axes, result: Result, name: str, title: str) -> None:
    half_s = result.window_width_s / 2
    for number, percentile in enumerate(("p50", "p99")):
        found = [(w.t_s + half_s, getattr(w, name)) for w in result.timeline if getattr(w, name) is not None]
        minutes = [at_s / _MINUTE_S for at_s, _ in found]
        values = [getattr(latency, percentile) for _, latency in found]
        axis.plot(minutes, values, color=PALETTE[number], label=percentile)
    finish(axis, "minutes", title)
