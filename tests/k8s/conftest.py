"""The programs that `make setup-k8s` gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.charts import BIN

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
