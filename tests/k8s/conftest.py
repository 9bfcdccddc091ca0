"""The programs that `make setup-k8s` gets, and the chart as helm renders it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.charts import BIN, objects

PROGRAMS = (
    "alertmanager",
    "checkov",
    "envoy",
    "helm3",
    "helm4",
    "kubectl",
    "nginx",
    "prometheus",
    "promtool",
)

Render = Callable[..., list[dict[str, Any]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.k8s)


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of programs; the test fails where one is missing."""
    missing = [name for name in PROGRAMS if not (BIN / name).exists()]
    if missing:
        pytest.fail(f"{BIN} has no {', '.join(missing)}: run `make setup-k8s`", pytrace=False)
    return BIN


@pytest.fixture(scope="session")
def render(tools: Path) -> Render:
    """`render(scenario=None, *settings, helm="helm4", kube="1.34.0")`: the objects of the chart."""
    return objects
