"""What the server said of itself, below what the load generator saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes

from loadtest.measure.result import Result
from loadtest.pages.axes import finish, outside_measured
from loadtest.pages.canvas import PALETTE, Plot


@dataclass(frozen=True, slots=True)
class _Panel:
    unit: str
    scale: float
    series: tuple[tuple[str, str], ...]


_PANELS = (
    _Panel("requests", 1, (("running", "running"), ("waiting", "waiting"))),
    _Panel("per cent", 100, (("kv_usage", "KV cache in use"), ("prefix_hit_ratio", "prefix cache hits"))),
    _Panel(
        "tokens/s", 1, (("generation_tokens_per_s", "generated"), ("prompt_tokens_per_s", "prompts read"))
    ),
    _Panel("requests/s", 1, (("rejected_per_s", "rejected"),)),
    _Panel("per cent", 100, (("cpu_utilization", "CPU of the machine"),)),
    _Panel("GiB", 2**-30, (("memory_used_bytes", "memory of the machine"),)),
)
_STYLES = ("-", "--", ":")


def server_plot(result: Result) -> Plot:
    draws = [_in_flight, *(_gauges(panel) for panel in _PANELS[1:] if _has(panel, result))]
    note = (
        "In flight is what the load generator had sent and not seen end; the rest is the server's own word."
    )
    if not result.gauges:
        note = "Requests sent and not ended. The server's metrics were not read."

    def draw(axes: list[Axes]) -> None:
        for axis, fill in zip(axes, draws, strict=True):
            fill(axis, result)

    return Plot("server", "Requests in flight and server gauges", note, len(draws), draw)


def _in_flight(axis: Axes, result: Result) -> None:
    times = [window.t_s + result.window_width_s / 2 for window in result.timeline]
    values = [window.in_flight for window in result.timeline]
    axis.plot(times, values, color=PALETTE[2], linewidth=2, alpha=0.7, label="in flight")
    _fill(axis, result, _PANELS[0])


def _gauges(panel: _Panel) -> Callable[[Axes, Result], None]:
    return lambda axis, result: _fill(axis, result, panel)


def _fill(axis: Axes, result: Result, panel: _Panel) -> None:
    for (name, label), colour, style in zip(panel.series, PALETTE, _STYLES, strict=False):
        if series := result.gauges.get(name):
            times, values = zip(*series, strict=True)
            axis.plot(times, [panel.scale * value for value in values], style, color=colour, label=label)
    outside_measured(axis, result)
    finish(axis, "seconds since the start of the run", panel.unit)


def _has(panel: _Panel, result: Result) -> bool:
    return any(name in result.gauges for name, _ in panel.series)
