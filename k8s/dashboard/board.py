"""The dashboard: its variables, and its rows in the order in which one looks for a cause."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
    TextBoxVariable,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as d

from k8s.dashboard import engine, requests, servers
from k8s.dashboard.panels import SOURCE, Panel, drawn

ROWS: Final[dict[str, Sequence[Panel]]] = {
    "Now": requests.NOW,
    "Traffic": requests.TRAFFIC,
    "Latency": requests.LATENCY,
    "Engine": engine.ENGINE,
    "Refusals and faults": requests.FAULTS,
    "Objectives and alerts": engine.OBJECTIVES,
    "Replicas": servers.REPLICAS,
    "CPU and memory": servers.MACHINE,
    "GPU": servers.GPU,
}
# They tell what is there: each server has one of these for each of its models.
_SERIES: Final = "halimede_num_requests_running"
# The chart puts its own in place of these.
OBJECTIVES: Final = {"ttft_objective": "0.99", "gap_objective": "0.99"}


def dashboard() -> str:
    """As JSON, which Grafana imports."""
    board = Dashboard("Halimede").uid("halimede").tags(["halimede", "llm", "triton"])
    board = board.description("Language models on Triton: requests, engine, objectives, replicas.")
    board = board.time("now-1h", "now").refresh("30s").tooltip(d.DashboardCursorSync.CROSSHAIR)
    for variable in _variables():
        board = board.with_variable(variable)
    number = 0
    for title, panels in ROWS.items():
        board = board.with_row(Row(title).id(number := number + 1))
        for panel in panels:
            board = board.with_panel(drawn(panel, number := number + 1))
    return json.dumps(json.loads(JSONEncoder().encode(board.build())), indent=1, ensure_ascii=False) + "\n"


def _variables() -> Iterator[DatasourceVariable | QueryVariable | TextBoxVariable]:
    yield DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    chosen = ""
    for name in ("namespace", "job", "model", "pod"):
        yield _choice(name, f"{_SERIES}{{{chosen}}}")
        if name != "model":
            chosen += f'{"," if chosen else ""}{name}=~"${name}"'
    for name, objective in OBJECTIVES.items():
        label = f"{name.partition('_')[0].upper()} objective"
        yield TextBoxVariable(name).label(label).default_value(objective)


def _choice(name: str, series: str) -> QueryVariable:
    variable = QueryVariable(name).label(name.capitalize()).query(f"label_values({series}, {name})")
    variable = variable.datasource(SOURCE).multi(True).include_all(True).all_value(".*")
    variable = variable.current(d.VariableOption(selected=True, text=["All"], value=["$__all"]))
    variable = variable.refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED)
    variable = variable.sort(d.VariableSort.ALPHABETICAL_ASC)
    return variable.regex("/(.+)_engine/") if name == "model" else variable
