"""The chart's rules: promtool takes them, its unit tests pass, and no rule is without one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s import charts
from tests.paths import ROOT

RULES = sorted(charts.RULES.glob("*.yaml"))
UNIT_TESTS = sorted((ROOT / "tests" / "k8s" / "rules").glob("*.test.yaml"))
SEVERITIES = {"critical", "warning", "info"}
Rule = Mapping[str, Any]


def read(paths: Iterable[Path]) -> list[Any]:
    return [yaml.safe_load(path.read_text("utf-8")) for path in paths]


def rules(files: Iterable[Any]) -> list[Rule]:
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts(files: Iterable[Any]) -> list[str]:
    return [rule["alert"] for rule in rules(files) if "alert" in rule]


def untested(files: Iterable[Any], unit_tests: Iterable[Any]) -> list[str]:
    """What each alert and recording rule lacks, and the unit tests of alerts that there are not.

    The latter, because promtool holds a test of an alert that does not exist to be one that does not fire.
    """
    files, cases = list(files), [case for file in unit_tests for case in file["tests"]]
    by_alert = list(_alert_tests(cases))
    known = alerts(files)
    problems = [f"{name}: tested, but no such alert" for name, _ in by_alert if name not in known]
    for name in known:
        problems += _lacks(name, [fires for tested, fires in by_alert if tested == name])
    for record in [rule["record"] for rule in rules(files) if "record" in rule]:
        problems += _lacks(record, [has for expr, has in _sample_tests(cases) if _asks_for(expr, record)])
    return problems


def _alert_tests(cases: Iterable[Any]) -> Iterator[tuple[str, bool]]:
    for case in cases:
        for test in case.get("alert_rule_test", ()):
            yield test["alertname"], bool(test["exp_alerts"])


def _sample_tests(cases: Iterable[Any]) -> Iterator[tuple[str, bool]]:
    for case in cases:
        for test in case.get("promql_expr_test", ()):
            yield test["expr"], bool(test["exp_samples"])


def _asks_for(expr: str, record: str) -> bool:
    names = re.findall(r"halimede:[\w:]+", expr)
    patterns = re.findall(r'__name__=~"([^"]+)"', expr)
    return record in names or any(re.fullmatch(pattern, record) for pattern in patterns)


def _lacks(name: str, outcomes: list[bool]) -> list[str]:
    needed = {True: "no test in which it fires or has a value", False: "no test in which it does not"}
    return [f"{name}: {problem}" for outcome, problem in needed.items() if outcome not in outcomes]


def promtool(tools: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(tools / "promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_promtool_takes_the_rules(tools: Path) -> None:
    done = promtool(tools, "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.name.removesuffix(".test.yaml"))
def test_the_unit_tests_of_rules_pass(path: Path, tools: Path) -> None:
    done = promtool(tools, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_case_where_it_fires_and_one_where_it_does_not() -> None:
    files = read(RULES)
    assert len(alerts(files)) == 19
    assert untested(files, read(UNIT_TESTS)) == []


def test_each_alert_has_one_name_a_severity_and_words() -> None:
    found = rules(read(RULES))
    assert len(found) == 40
    names = [rule.get("alert", rule.get("record")) for rule in found]
    assert sorted(set(names)) == sorted(names)
    for rule in (rule for rule in found if "alert" in rule):
        assert rule["labels"]["severity"] in SEVERITIES, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, rule["alert"]
        assert rule["for"], rule["alert"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("> 85", "> 99"),
        ("> 85", "> 50"),
        ("for: 15m", "for: 50m"),
        ('nv_gpu_memory_used_bytes{job="halimede"}', 'nv_gpu_memory_used_bytes{job="another"}'),
        ("degrees Celsius", "degrees"),
    ],
)
def test_the_unit_tests_find_a_changed_rule(old: str, new: str, tools: Path, tmp_path: Path) -> None:
    (rule_file,) = [path for path in RULES if path.name == "gpu.yaml"]
    (unit_test,) = [path for path in UNIT_TESTS if path.name == "gpu.test.yaml"]
    text = rule_file.read_text("utf-8")
    assert old in text
    (tmp_path / "gpu.yaml").write_text(text.replace(old, new), "utf-8")
    changed = unit_test.read_text("utf-8").replace("../../../k8s/chart/files/rules/gpu.yaml", "gpu.yaml")
    (tmp_path / "gpu.test.yaml").write_text(changed, "utf-8")
    done = promtool(tools, "test", "rules", tmp_path / "gpu.test.yaml")
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr


def _file(*found: Rule) -> Any:
    return {"groups": [{"rules": list(found)}]}


def _cases(**tests: list[Any]) -> Any:
    return {"tests": [tests]}


def _alert(name: str, fires: bool) -> Any:
    return {"alertname": name, "exp_alerts": [{}] if fires else []}


@pytest.mark.parametrize(
    ("tests", "problem"),
    [
        ([_alert("Down", True)], "Down: no test in which it does not"),
        ([_alert("Down", False)], "Down: no test in which it fires or has a value"),
        (
            [_alert("Down", True), _alert("Down", False), _alert("Dwon", False)],
            "Dwon: tested, but no such alert",
        ),
    ],
)
def test_an_alert_without_a_test_is_found(tests: list[Any], problem: str) -> None:
    assert untested([_file({"alert": "Down"})], [_cases(alert_rule_test=tests)]) == [problem]


def test_a_recording_rule_without_a_test_is_found() -> None:
    both = [
        {"expr": "halimede:a:b * 2", "exp_samples": [{}]},
        {"expr": '{__name__=~".+"}', "exp_samples": []},
    ]
    recorded = [_file({"record": "halimede:a:b"})], [_file({"record": "halimede:a:b5m"})]
    unit_tests = [_cases(promql_expr_test=both)]
    assert untested(recorded[0], unit_tests) == []
    assert untested(recorded[1], unit_tests) == ["halimede:a:b5m: no test in which it fires or has a value"]
