"""What the axes of the plots have in common."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from loadtest.measure.result import Result
from loadtest.pages.canvas import GRID, INK, PALETTE, SHADE

# A limit further off than this would press the curves flat.
_FAR = 2.5
_DASHES = (0, (6, 3))
# Lines with this at the head of their id are no data.
_REFERENCE = "reference-"


def outside_measured(axis: Axes, result: Result) -> None:
    """Shades warm-up and drain, and spans the whole run."""
    start_s, end_s = result.window_s
    last_s = len(result.timeline) * result.window_width_s
    right = max(end_s, last_s)
    for low, high in ((0.0, start_s), (end_s, right)):
        if high > low:
            axis.axvspan(low, high, color=SHADE, zorder=0, linewidth=0)
    axis.set_xlim(min(0.0, start_s), right)


def limit_line(axis: Axes, limit: float, label: str) -> None:
    """A dashed line at the limit, or a word in the legend where it is far above what was seen."""
    far = limit > _FAR * axis.get_ylim()[1]
    words = f"{label}: {limit:,.4g}{', off the scale' if far else ''}"
    if far:
        axis.plot([], [], linestyle=_DASHES, color=INK, linewidth=1, label=words)
    else:
        line = axis.axhline(limit, linestyle=_DASHES, color=INK, linewidth=1, label=words)
        line.set_gid(f"{_REFERENCE}{len(axis.lines)}")


def rate_line(axis: Axes, rate_per_s: float, label: str) -> None:
    line = axis.axvline(rate_per_s, color=PALETTE[2], linewidth=1, alpha=0.6, label=label)
    line.set_gid(f"{_REFERENCE}{len(axis.lines)}")


def finish(axis: Axes, below: str, beside: str) -> None:
    """Units, a scale from nought, and the legend above the plot, where no curve runs."""
    axis.set_xlabel(below)
    # Of panels one below the other only the last names what runs along them all.
    axis.label_outer()
    axis.set_ylabel(beside)
    if axis.get_yscale() == "linear":
        top = axis.get_ylim()[1]
        axis.set_ylim(0.0, top if top > 0 else 1.0)
    axis.set_axisbelow(True)
    axis.tick_params(color=GRID)
    if not _has_data(axis):
        axis.text(0.5, 0.5, "nothing was seen", transform=axis.transAxes, ha="center", va="center")
    legend(axis)


def legend(axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        axis.legend(
            handles,
            labels,
            loc="lower right",
            bbox_to_anchor=(1, 1.01),
            ncols=min(len(labels), 7),
            borderaxespad=0,
            handlelength=2.2,
            columnspacing=1.4,
        )


def _has_data(axis: Axes) -> bool:
    curves = (line for line in axis.lines if not str(line.get_gid()).startswith(_REFERENCE))
    return bool(axis.containers) or any(np.isfinite(line.get_ydata()).any() for line in curves)
