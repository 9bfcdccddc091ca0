"""Every alert has a runbook; its queries ask for what exists, and its commands are right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import promql_parser
import pytest

from engine.core.contract import EngineSettings
from tests.k8s.charts import CHART, RULES
from tests.k8s.metric_names import ALERTS, KNOWN
from tests.k8s.test_dashboard import unknown
from tests.k8s.test_docs_commands import Wrong, check, commands
from tests.paths import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = sorted(RUNBOOKS.glob("Halimede*.md"))
READ = [*PAGES, RUNBOOKS / "README.md", ROOT / "docs" / "monitoring.md"]
SECTIONS = ("Look", "Causes", "Do", "Over")
PORTS = {8000, 8001, 8002, 9090}
PATHS = re.compile(r"/metrics|/v2/health/(?:live|ready)|/v2/models/\w+/ready|/api/v1/query")
NAMES = re.compile(r"\b(?:halimede_[a-z]|halimede:|nv_[a-z]|container_[a-z]|DCGM_)[\w:]+")


def queries(text: str) -> list[str]:
    blocks = re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def of(pages: list[Path]) -> list[tuple[str, list[str]]]:
    return [(page.stem, found) for page in pages for found in commands(page.read_text("utf-8"))]


def _curl(command: list[str]) -> None:
    """Raises Wrong."""
    (address,) = [part for part in command if part.startswith("http://")]
    parts = urlsplit(address)
    if parts.hostname != "localhost" or parts.port not in PORTS or not PATHS.fullmatch(parts.path):
        raise Wrong(f"{address}: no address of this server")


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert [page.stem for page in PAGES] == sorted(ALERTS)


def test_the_rules_name_the_runbook_of_their_alert() -> None:
    text = "".join(path.read_text("utf-8") for path in RULES.glob("*.yaml"))
    named = re.findall(r"alert: (\w+)(?:(?!alert:).)*?runbook_url: docs/runbooks/(\w+)\.md", text, re.DOTALL)
    assert sorted(named) == sorted((alert, alert) for alert in ALERTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_says_how_to_look_what_to_do_and_when_it_is_over(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.startswith(f"# {page.stem}\n")
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == SECTIONS
    assert list(commands(text))
    assert len(text.splitlines()) < 80


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_queries_parse_and_ask_for_what_exists(page: Path) -> None:
    found = queries(page.read_text("utf-8"))
    assert found
    for query in found:
        promql_parser.parse(query)
        assert unknown(query) <= {"UUID"}, query  # the DCGM exporter's own label


def test_every_metric_that_a_page_names_exists() -> None:
    named = [(page.stem, name) for page in READ for name in NAMES.findall(page.read_text("utf-8"))]
    assert len(named) > 70
    assert [found for found in named if found[1] not in KNOWN] == []


@pytest.mark.parametrize(("page", "command"), of(READ), ids=lambda value: " ".join(value)[:60])
def test_its_commands_name_what_exists(page: str, command: list[str], tools: Path) -> None:
    if command[0] == "curl":
        _curl(command)
    else:
        check(command, tools)


@pytest.mark.parametrize(
    "line",
    [
        "curl http://localhost:8000/v2/models/smollm2/redy",
        "curl http://localhost:8003/metrics",
        "curl http://x/metrics",
    ],
)
def test_a_planted_address_is_found(line: str) -> None:
    with pytest.raises(Wrong, match="no address"):
        _curl(shlex.split(line))


def test_the_settings_that_runbooks_name_are_those_of_the_engine() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    named = set(re.findall(r"`((?:max|prefill|kv|heartbeat)_[a-z_]+|slots|threads)`", text))
    assert named <= set(EngineSettings.__slots__) | {"max_tokens"}
    assert {"slots", "max_context", "max_queue", "prefill_chunk", "threads"} <= named


def test_the_values_that_runbooks_name_are_those_of_the_chart() -> None:
    sections = (
        "access|autoscaling|drain|models|monitoring|networkPolicy|probes|resources|rollout|server|tracing"
    )
    named = [
        (page.stem, name)
        for page in READ
        for name in re.findall(rf"`((?:{sections})\.[A-Za-z.]+)`", page.read_text("utf-8"))
    ]
    assert len(named) > 40
    assert [found for found in named if not _is_value(found[1])] == []


def _is_value(name: str) -> bool:
    """In the chart's table itself, or inside of a value that the table has as a whole."""
    readme = (CHART / "README.md").read_text("utf-8")
    parts = name.split(".")
    inside = [".".join(parts[:count]) for count in range(1, len(parts))]
    return f"`{name}`" in readme or any(f"| `{parent}` |" in readme for parent in inside)


def test_an_unknown_value_is_found() -> None:
    assert _is_value("resources.limits.memory")
    assert not _is_value("monitoring.scrape.interval")
