"""The rows as a picture: a panel for each model, setting and load, a bar for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.bench.measure import Found
from loadtest.bench.plan import OURS, Load, Model, Plan, Row, Setting
from loadtest.bench.quality import Quality
from loadtest.bench.targets import rates

_OURS, _PEER, _LOSSY = "#0b6e8a", "#9aa7b0", "#e3c9b4"


def draw(plan: Plan, found: Found, qualities: Mapping[str, Quality], target: Path) -> None:
    """Writes a PNG: medians of output tokens/s, whiskers from the least to the most."""
    lines = [
        (model, setting, rows)
        for model in plan.models
        for setting in Setting
        if (rows := [row for row in plan.loaded(model) if row.setting is setting])
    ]
    heights = [len(rows) for *_, rows in lines]
    width = max(len(model.loads) for model, *_ in lines)
    figure = Figure(figsize=(4.2 * width, 0.42 * sum(heights) + 1.1 * len(lines)), layout="constrained")
    panels = figure.subplots(
        len(lines),
        width,
        squeeze=False,
        height_ratios=heights,
        sharex="col" if len(plan.models) == 1 else "none",
    )
    for (model, setting, rows), axes in zip(lines, panels, strict=True):
        for index, panel in enumerate(axes):
            if index >= len(model.loads):
                panel.set_axis_off()
                continue
            _panel(panel, model, rows, model.loads[index], found, qualities)
            panel.set_title(f"{model.name} {setting}, {model.loads[index]} at once", fontsize=9, loc="left")
            if index:
                panel.set_yticklabels([])
    label = "output tokens/s, prompts included" + ("; pale: over 1 % perplexity loss" if qualities else "")
    figure.supxlabel(label, fontsize=9)
    figure.savefig(target, dpi=150)


def _panel(
    axes: Axes,
    model: Model,
    rows: Sequence[Row],
    load: Load,
    found: Found,
    qualities: Mapping[str, Quality],
) -> None:
    for place, row in enumerate(rows):
        got = list(rates(found.samples, model.name, row.name, load).values())
        if not got:
            continue
        middle, one = median(got), qualities.get(row.weights)
        colour = _OURS if row.peer == OURS else _LOSSY if one and not one.comparable else _PEER
        spread = [[middle - min(got)], [max(got) - middle]]
        axes.barh(place, middle, color=colour, xerr=spread, ecolor="#444")
        axes.text(max(got), place, f" {middle:.0f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
