"""How a measure is spread: the share of requests that had at most so much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from loadtest.measure.observed import measured
from loadtest.measure.record import Record
from loadtest.pages.axes import finish
from loadtest.pages.canvas import PALETTE, Plot, legend_text

_STYLES = ("-", "--", "-.", ":")
_SHOWN = 7
# A range of more decades than this is told apart on a logarithmic scale only.
_WIDE = 30


def spread_plot(records: Sequence[Record]) -> Plot:
    note = "Of the measured requests: the share, in per cent, that had their first token within so long."
    return Plot(
        "ttft-spread", "Distribution of the time to first token", note, 1, lambda a: _draw(a[0], records)
    )


def _draw(axis: Axes, records: Sequence[Record]) -> None:
    by_kind: dict[str, list[float]] = {}
    for record in measured(records):
        if record.ttft_s is not None:
            by_kind.setdefault(record.kind, []).append(1e3 * record.ttft_s)
    kinds = sorted(by_kind, key=lambda kind: -len(by_kind[kind]))[:_SHOWN]
    for index, kind in enumerate(kinds):
        label = f"{legend_text(kind)} ({len(by_kind[kind])})"
        steps(axis, by_kind[kind], label, PALETTE[index], _STYLES[index % len(_STYLES)])
    widen(axis, [value for values in by_kind.values() for value in values])
    finish(axis, "time to first token, ms", "per cent")
    axis.set_ylim(0, 101)


def steps(axis: Axes, values: Sequence[float], label: str, colour: str, style: str) -> None:
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    share = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
    axis.step([ordered[0], *ordered], [0, *share], where="post", label=label, color=colour, linestyle=style)


def widen(axis: Axes, values: Sequence[float]) -> None:
    """Logarithmic where the values lie far apart and none is nought."""
    if values and min(values) > 0 and max(values) > _WIDE * min(values):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
