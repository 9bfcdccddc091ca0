"""Both ratios over the size of the chunk, with the aims, as PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from loadtest.chunks.judged import Point
from loadtest.chunks.plan import SIDES, Plan
from loadtest.pages.plots import PALETTE, Plot, render

# The median of a ratio, and its extremes.
Spread = tuple[float, float, float]


def png(plan: Plan, found: Sequence[Point]) -> bytes:
    title = f"a prompt of {plan.prompt_tokens} tokens among {plan.streams} streams"
    return render(Plot("chunks", title, "", 2, partial(_draw, plan, found))).png


def _draw(plan: Plan, found: Sequence[Point], panels: list[Axes]) -> None:
    itl, ttft = panels
    _panel(itl, plan, found, lambda p: (p.itl_ratio, p.itl_low, p.itl_high))
    _panel(ttft, plan, found, lambda p: (p.ttft_ratio, p.ttft_low, p.ttft_high))
    for axes, aim, what in ((itl, plan.itl_aim, "ITL p99"), (ttft, plan.ttft_aim, "TTFT")):
        axes.axhline(aim, linestyle="--", color=PALETTE[1], label=f"aim: {aim:g} x")
        axes.set_ylabel(f"{what} / alone")
        axes.set_ylim(bottom=0)
        axes.legend()
    ttft.set_xlabel(f"tokens of a chunk; the prompt has {plan.prompt_tokens}, the streams are {plan.streams}")


def _panel(axes: Axes, plan: Plan, found: Sequence[Point], of: Callable[[Point], Spread]) -> None:
    for colour, side in zip(PALETTE[::2], plan.sides, strict=False):
        theirs = [point for point in found if point.side == side]
        fixed = sorted((point.chunk, *of(point)) for point in theirs if point.chunk is not None)
        if fixed:
            chunks, middle, low, high = zip(*fixed, strict=True)
            axes.plot(chunks, middle, marker="o", color=colour, label=SIDES[side])
            axes.fill_between(chunks, low, high, color=colour, alpha=0.15, linewidth=0)
        for point in theirs:
            if point.chunk is None:
                axes.axhline(
                    of(point)[0], color=colour, linestyle=":", label=f"{SIDES[side]}, {point.variant}"
                )
    axes.set_xscale("log", base=2)
    axes.set_xticks(plan.chunks, [f"{chunk}" for chunk in plan.chunks])
    axes.xaxis.set_minor_locator(NullLocator())
