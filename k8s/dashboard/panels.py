"""The kinds of panels that the dashboard has, in Grafana's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models import dashboard as d
from grafana_foundation_sdk.models import heatmap as h
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE: Final = d.DataSourceRef(type_val="prometheus", uid="$datasource")
States = tuple[tuple[str, str], tuple[str, str]]


class Kind(Enum):
    LINES = "lines"
    STACK = "stack"
    HEAT = "heat"
    NUMBER = "number"
    STATES = "states"


@dataclass(frozen=True, slots=True)
class Query:
    """`legend` names a series by its labels, as in {{model}}."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """`limit` is where its colour turns to red, `states` the word and colour of 0 and of 1."""

    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = Kind.LINES
    width: int = 8
    height: int = 8
    limit: float | None = None
    states: States = (("no", "red"), ("yes", "green"))


Drawn = timeseries.Panel | heatmap.Panel | stat.Panel | statetimeline.Panel


def drawn(panel: Panel, number: int) -> Drawn:
    """`number` is unlike that of any other panel of the dashboard."""
    made = _DRAW[panel.kind](panel).id(number).title(panel.title).description(panel.about).unit(panel.unit)
    made = made.datasource(SOURCE).span(panel.width).height(panel.height)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        made = made.with_target(_target(panel, query).ref_id(letter))
    return made


def _target(panel: Panel, query: Query) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).datasource(SOURCE)
    if panel.kind is Kind.HEAT:
        return target.range().format(PromQueryFormat.HEATMAP).legend_format("{{le}}")
    target = target.legend_format(query.legend or "__auto")
    return target.instant() if panel.kind is Kind.NUMBER else target.range()


def _lines(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(c.LegendDisplayMode.LIST)
    legend = legend.placement(c.LegendPlacement.BOTTOM).show_legend(True)
    tooltip = common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING)
    made = timeseries.Panel().line_width(1).fill_opacity(0).min(0).legend(legend).tooltip(tooltip)
    if panel.limit is not None:
        style = common.GraphThresholdsStyleConfig().mode(c.GraphTresholdsStyleMode.DASHED)
        made = made.thresholds(_limit(panel.limit)).thresholds_style(style)
    return made


def _stack(panel: Panel) -> timeseries.Panel:
    stacking = common.StackingConfig().mode(c.StackingMode.NORMAL)
    return _lines(panel).stacking(stacking).fill_opacity(30)


def _heat(panel: Panel) -> heatmap.Panel:
    colour = heatmap.HeatmapColorOptions().mode(h.HeatmapColorMode.SCHEME).scheme("Oranges").exponent(0.5)
    axis = heatmap.YAxisConfig().unit(panel.unit)
    return heatmap.Panel().calculate(False).color(colour).y_axis(axis).show_tooltip()


def _number(panel: Panel) -> stat.Panel:
    shown = common.ReduceDataOptions().calcs(["lastNotNull"])
    made = stat.Panel().reduce_options(shown).graph_mode(c.BigValueGraphMode.NONE).no_value("–")
    return made if panel.limit is None else made.thresholds(_limit(panel.limit))


def _states(panel: Panel) -> statetimeline.Panel:
    shown = {
        str(value): d.ValueMappingResult(text=text, color=colour)
        for value, (text, colour) in enumerate(panel.states)
    }
    legend = common.VizLegendOptions().show_legend(False)
    made = statetimeline.Panel().mappings([d.ValueMap(options=shown)]).merge_values(True).legend(legend)
    return made.show_value(c.VisibilityMode.NEVER).row_height(0.8).line_width(0).fill_opacity(70)


def _limit(limit: float) -> ThresholdsConfig:
    steps = [d.Threshold(value=None, color="green"), d.Threshold(value=limit, color="red")]
    return ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(steps)


_DRAW: Final[Mapping[Kind, Callable[[Panel], Drawn]]] = {
    Kind.LINES: _lines,
    Kind.STACK: _stack,
    Kind.HEAT: _heat,
    Kind.NUMBER: _number,
    Kind.STATES: _states,
}
