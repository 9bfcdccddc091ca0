"""The dashboard as Grafana reads it from its file, its variables replaced as Grafana does with all chosen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.k8s.charts import CHART

FILE = CHART / "files" / "dashboards" / "halimede.json"


@dataclass(frozen=True, slots=True)
class Target:
    """One expression of a panel."""

    panel: str
    expr: str
    legend: str

    def asked(self, board: dict[str, Any], interval: str, **chosen: str) -> str:
        """What Prometheus is asked: `chosen` instead of All, `interval` for the rate interval."""
        values = {variable["name"]: _value(variable) for variable in board["templating"]["list"]} | chosen
        values["__rate_interval"] = interval
        return re.sub(
            r"\$(\w+)", lambda found: values[found[1]] if found[1] in values else found[0], self.expr
        )


def _value(variable: dict[str, Any]) -> str:
    return str(variable.get("allValue") or variable.get("query"))


def read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return content


def targets(board: dict[str, Any]) -> Iterator[Target]:
    row = ""
    for panel in board["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for target in panel.get("targets", ()):
            yield Target(f"{row}: {panel['title']} {target['refId']}", target["expr"], target["legendFormat"])
