"""A figure in the colours of the page, as SVG for the page and as PNG beside it.

The SVG names its colours by CSS variables, so that a dark page has light lines. Its text stays text: small,
searchable, and never outlines of somebody's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from loadtest.pages.markup import Markup

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
    svg: Markup
    png: bytes


def render(plot: Plot) -> Drawn:
    with _styled(plot.name):
        height = PANEL_IN * plot.panels + 0.7
        figure = Figure(figsize=(WIDTH_IN, height))
        axes = figure.subplots(plot.panels, 1, squeeze=False)[:, 0]
        figure.subplots_adjust(_LEFT, 0.5 / height, _RIGHT, 1 - 0.3 / height, hspace=0.2)
        plot.draw(list(axes))
        return Drawn(plot, _svg(figure, plot), _png(figure))


def save(drawn: Drawn, folder: Path) -> Path:
    path = folder / f"{drawn.plot.name}.png"
    path.write_bytes(drawn.png)
    return path


def legend_text(text: str) -> str:
    """Somebody's name as a legend may show it: no formula, no character without a glyph, not hidden by a
    leading underscore, not longer than the plot is wide."""
    glyphs = get_font(findfont("DejaVu Sans")).get_charmap()
    shown = "".join(char if ord(char) in glyphs and char.isprintable() else "?" for char in text)
    short = shown if len(shown) <= 32 else f"{shown[:31]}…"
    return (f" {short}" if short.startswith("_") else short or "(no name)").replace("$", r"\$")


def _styled(name: str) -> AbstractContextManager[None]:
    return mpl.rc_context(_STYLE | {"svg.hashsalt": name})


def _svg(figure: Figure, plot: Plot) -> Markup:
    output = io.StringIO()
    figure.savefig(output, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = _PROLOGUE.sub("", output.getvalue())
    # Several figures share one page, ids must not clash.
    text = _ID.sub(rf"\g<1>{plot.name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return Markup(_sized(text))


def _sized(text: str) -> str:
    """As wide as the page, whatever size the figure had; matplotlib's metadata names foreign addresses."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r"<svg\b[^>]*>", lambda found: _SIZE.sub("", found[0]), text, count=1)


def _png(figure: Figure) -> bytes:
    output = io.BytesIO()
    figure.savefig(output, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return output.getvalue()
