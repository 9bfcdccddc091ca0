"""How plots are drawn: a figure in the colours of the page, as SVG for the page and as a PNG file.

The SVG names its colours by CSS variables, so that a dark page has light lines. Its text stays text: small,
searchable, and never the outlines of a font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import NullFormatter

from loadtest.measure.result import Result
from loadtest.pages.tables import number

# A limit further off than this would press the curves flat.
_FAR = 2.5
_DASHES = (0, (6, 3))
# Lines with this at the head of their id are no data.
REFERENCE = "reference-"
# Values of a wider range than this are distinct on a logarithmic scale only.
_WIDE = 30
# Okabe and Ito, Color Universal Design, 2008; yellow, too pale for lines, is left out.
INK, GRID, SHADE = "#222324", "#d8d9da", "#eeeff0"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f80")
VARIABLES: Mapping[str, str] = {INK: "--ink", GRID: "--grid", SHADE: "--shade"} | {
    colour: f"--line-{index}" for index, colour in enumerate(PALETTE)
}
# The axes of every plot begin and end at the same place, so that moments stand below one another.
_LEFT, _RIGHT, WIDTH_IN, PANEL_IN = 0.09, 0.98, 9.0, 2.5
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_ID = re.compile(r'(\bid="|href="#|url\(#)')
_SIZE = re.compile(r'\s(?:width|height|xmlns(?::\w+)?)="[^"]*"')
_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Plot:
    """`name` is the PNG's, `title` says what is plotted, `note` what to know of it; `draw` fills the
    figure's `panels`, from the top."""

    name: str
    title: str
    note: str
    panels: int
    draw: Callable[[list[Axes]], None]


@dataclass(frozen=True, slots=True)
class Drawn:
    plot: Plot
    svg: str
    png: bytes


def render(plot: Plot) -> Drawn:
    with mpl.rc_context(_STYLE | {"svg.hashsalt": plot.name}):
        height = PANEL_IN * plot.panels + 0.7
        figure = Figure(figsize=(WIDTH_IN, height))
        axes = figure.subplots(plot.panels, 1, squeeze=False)[:, 0]
        figure.subplots_adjust(_LEFT, 0.5 / height, _RIGHT, 1 - 0.3 / height, hspace=0.2)
        plot.draw(list(axes))
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=130, facecolor="white", metadata={"Software": None})
        return Drawn(plot, _svg(figure, plot), png.getvalue())


def save(drawn: Drawn, folder: Path) -> Path:
    path = folder / f"{drawn.plot.name}.png"
    path.write_bytes(drawn.png)
    return path


def legend_text(text: str) -> str:
    """Any name as a legend may show it: no formula, no character without a glyph, not hidden by a
    leading underscore, not longer than the plot is wide."""
    glyphs = get_font(findfont("DejaVu Sans")).get_charmap()
    shown = "".join(char if ord(char) in glyphs and char.isprintable() else "?" for char in text)
    short = shown if len(shown) <= 32 else f"{shown[:31]}…"
    return (f" {short}" if short.startswith("_") else short or "(no name)").replace("$", r"\$")


def _svg(figure: Figure, plot: Plot) -> str:
    output = io.StringIO()
    figure.savefig(output, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = _PROLOGUE.sub("", output.getvalue())
    # Several figures share one page, ids must not clash.
    text = _ID.sub(rf"\g<1>{plot.name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # As wide as the page, whatever size the figure had; matplotlib's metadata names foreign addresses.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r"<svg\b[^>]*>", lambda found: _SIZE.sub("", found[0]), text, count=1)


def curve(
    axis: Axes,
    points: Iterable[tuple[float, float | None]],
    label: str,
    colour: str,
    style: str = "-",
    **more: Any,
) -> None:
    """Where there is no value there is no mark; the line goes on to the next point."""
    seen = [(x, y) for x, y in points if y is not None]
    axis.plot([x for x, _ in seen], [y for _, y in seen], style, color=colour, label=label, **more)


def steps(axis: Axes, values: Sequence[float], label: str, colour: str, style: str) -> None:
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    share = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
    axis.step([ordered[0], *ordered], [0, *share], where="post", label=label, color=colour, linestyle=style)


def widen(axis: Axis, scale: Callable[[str], None], values: Sequence[float]) -> None:
    """Logarithmic where the values lie far apart and none is zero."""
    if values and min(values) > 0 and max(values) > _WIDE * min(values):
        scale("log")
        axis.set_major_formatter(lambda value, _: f"{value:,.4g}")
        axis.set_minor_formatter(NullFormatter())


def outside_measured(axis: Axes, result: Result) -> None:
    """Shades warm-up and drain, and spans the whole run."""
    start_s, end_s = result.window_s
    right = max(end_s, len(result.timeline) * result.window_width_s)
    for low, high in ((0.0, start_s), (end_s, right)):
        if high > low:
            axis.axvspan(low, high, color=SHADE, zorder=0, linewidth=0)
    axis.set_xlim(min(0.0, start_s), right)


def limit_lines(axis: Axes, result: Result, measure: str) -> None:
    """A dashed line at each limit, in ms, or a word in the legend where it is far above what was seen."""
    for verdict in result.slo:
        if not verdict.name.startswith(f"{measure}_p"):
            continue
        limit = 1e3 * verdict.limit
        label = f"limit of {verdict.name.split('_')[1]}: {number(limit)}"
        if limit > _FAR * axis.get_ylim()[1]:
            label += ", off the scale"
            axis.plot([], [], linestyle=_DASHES, color=INK, linewidth=1, label=label)
        else:
            line = axis.axhline(limit, linestyle=_DASHES, color=INK, linewidth=1, label=label)
            line.set_gid(f"{REFERENCE}{len(axis.lines)}")


def finish(axis: Axes, x_label: str, y_label: str) -> None:
    """Units, a scale from zero, and the legend above the plot, where no curve runs."""
    axis.set_xlabel(x_label)
    # Of panels one below the other only the last names what runs along them all.
    axis.label_outer()
    axis.set_ylabel(y_label)
    if axis.get_yscale() == "linear":
        top = axis.get_ylim()[1]
        axis.set_ylim(0.0, top if top > 0 else 1.0)
    axis.set_axisbelow(True)
    axis.tick_params(color=GRID)
    curves = (line for line in axis.lines if not str(line.get_gid()).startswith(REFERENCE))
    if not axis.containers and not any(np.isfinite(line.get_ydata()).any() for line in curves):
        axis.text(0.5, 0.5, "no data", transform=axis.transAxes, ha="center", va="center")
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
