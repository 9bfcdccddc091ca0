"""The dashboard: well-formed, and asking only for what exists."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.k8s.metric_names import KNOWN
from tests.k8s.panels import FILE, Target, read, targets

BOARD = read()
TARGETS = list(targets(BOARD))
NAME = re.compile(r"(?<![\w:\"$])(?:halimede[_:]|nv_|container_|DCGM_|up\b|ALERTS\b)[\w:]*")
# Every label that our series, Triton's, the exporters' or the scrape have.
LABELS = {
    *(
        "alertname",
        "alertstate",
        "container",
        "finished_reason",
        "gpu_uuid",
        "instance",
        "job",
        "le",
        "model",
    ),
    *("namespace", "outcome", "pod", "reason", "severity"),
}


def unknown(expression: str) -> set[str]:
    """The metrics of an expression that do not exist, and such labels that it selects or groups by."""
    plain = re.sub(r'"(?:\\.|[^"\\])*"', '""', expression)
    grouped = re.findall(r"\b(?:by|on|without|ignoring|group_left) \(([^)]*)\)", plain)
    selected = re.findall(r"(\w+)(?:=~|!=|!~|=)\"", plain)
    labels = {name.strip() for names in grouped for name in names.split(",")} | set(selected)
    return {name for name in NAME.findall(plain) if name not in KNOWN} | (labels - LABELS - {""})


def panels() -> list[dict[str, Any]]:
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def test_it_is_written_as_json_dump_does() -> None:
    """So that a change of a panel is a change of its lines alone."""
    assert FILE.read_text("utf-8") == json.dumps(BOARD, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.panel)
def test_an_expression_parses_and_asks_for_what_exists(target: Target) -> None:
    asked = target.asked(BOARD, "1m")
    assert "$" not in asked.replace('"$1"', "")
    promql_parser.parse(asked)
    assert unknown(target.expr) == set()
    assert NAME.search(target.expr)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("sum(rate(halimede_generated_tokens_total[1m]))", "halimede_generated_tokens_total"),
        ("halimede:ttft_slow:ratio_rate7d", "halimede:ttft_slow:ratio_rate7d"),
        ("sum by (modle) (up)", "modle"),
        ('up{nmespace="x"}', "nmespace"),
        ("nv_gpu_temperature", "nv_gpu_temperature"),
    ],
)
def test_a_planted_unknown_name_is_found(expression: str, problem: str) -> None:
    promql_parser.parse(expression)
    assert unknown(expression) == {problem}


def test_a_planted_fault_of_syntax_is_found() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        promql_parser.parse("sum(rate(up[1m])")


def test_panels_have_ids_of_their_own_a_source_and_a_place_of_their_own() -> None:
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    sources = [part["datasource"]["uid"] for panel in panels() for part in (panel, *panel["targets"])]
    assert set(sources) == {"$datasource"}
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not [pair for pair in combinations(places, 2) if _overlap(*pair)]


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not beside and not above


def lost(ours: Any, theirs: Any) -> bool:
    """Whether a field or an element of `ours` is not in `theirs`, which may have more fields."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return any(lost(value, theirs.get(key)) for key, value in ours.items())
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) != len(theirs) or any(map(lost, ours, theirs))
    return bool(ours != theirs)


@pytest.mark.parametrize("planted", [False, True])
def test_grafana_has_every_field_that_it_sets(planted: bool) -> None:
    """The SDK's types are made from Grafana's schemas; what they do not have is lost on the way."""
    register_default_plugins()
    board = read()
    if planted:
        board["panels"][1]["options"]["colourMode"] = "value"
    assert lost(board, json.loads(JSONEncoder().encode(Dashboard.from_json(board)))) is planted


def test_every_row_has_panels_and_is_full() -> None:
    rows: dict[str, list[dict[str, Any]]] = {}
    for panel in BOARD["panels"]:
        if panel["type"] == "row":
            rows[panel["title"]] = []
        else:
            rows[list(rows)[-1]].append(panel)
    assert len(rows) == 9
    for title, found in rows.items():
        assert found, title
        assert sum(panel["gridPos"]["w"] for panel in found) % 24 == 0, title
        assert all(panel["targets"] for panel in found), title


def test_no_two_panels_of_a_row_have_one_name() -> None:
    assert len({target.panel for target in TARGETS}) == len(TARGETS)


def test_the_variables_are_there_and_each_is_used() -> None:
    names = [variable["name"] for variable in BOARD["templating"]["list"]]
    assert names[:5] == ["datasource", "namespace", "job", "model", "pod"]
    text = FILE.read_text("utf-8")
    assert all(text.count(f"${name}") > 1 for name in names)


def test_a_chosen_pod_and_model_are_put_in_place() -> None:
    (target,) = [t for t in TARGETS if t.panel == "Now: Requests A"]
    asked = target.asked(BOARD, "1m", model="(smollm2|gpt2)", pod="a-1")
    assert 'pod=~"a-1",model=~"(?:(smollm2|gpt2))_engine"}[1m]' in asked
