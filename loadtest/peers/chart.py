"""The comparison as a picture: a panel for each number of sequences, a bar for each row."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.peers.measure import Found
from loadtest.peers.plan import OURS, Plan, Row, Setting
from loadtest.peers.quality import Quality
from loadtest.peers.verdicts import rates

_OURS, _PEER, _LOSSY = "#0b6e8a", "#9aa7b0", "#e3c9b4"


def draw(plan: Plan, found: Found, qualities: dict[str, Quality], target: Path) -> None:
    """Writes a PNG: medians of output tokens/s, whiskers from the least to the most."""
    settings = list(Setting)
    heights = [sum(row.setting is setting for row in plan.rows) for setting in settings]
    figure = Figure(figsize=(4.2 * len(plan.streams), 0.42 * sum(heights) + 2.2), layout="constrained")
    panels = figure.subplots(
        len(settings), len(plan.streams), squeeze=False, height_ratios=heights, sharex="col"
    )
    for setting, line in zip(settings, panels, strict=True):
        rows = [row for row in plan.rows if row.setting is setting]
        for index, (streams, axes) in enumerate(zip(plan.streams, line, strict=True)):
            _panel(axes, rows, found, qualities, streams)
            axes.set_title(f"{setting}, {streams} at once", fontsize=9, loc="left")
            if index:
                axes.set_yticklabels([])
    figure.supxlabel("output tokens/s, prompts included; pale: over 1 % perplexity loss", fontsize=9)
    figure.savefig(target, dpi=150)


def _panel(axes: Axes, rows: list[Row], found: Found, qualities: dict[str, Quality], streams: int) -> None:
    for place, row in enumerate(rows):
        got = list(rates(found.samples, row.name, streams).values())
        if not got:
            continue
        middle = median(got)
        spread = [[middle - min(got)], [max(got) - middle]]
        axes.barh(place, middle, color=_colour(row, qualities.get(row.model)), xerr=spread, ecolor="#444")
        axes.text(max(got), place, f" {middle:.0f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(row: Row, one: Quality | None) -> str:
    if row.peer == OURS:
        return _OURS
    return _PEER if one and one.comparable else _LOSSY
