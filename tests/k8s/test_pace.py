"""Rules on a faster clock: every duration changes, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.k8s.charts import RULES
from tests.k8s.pace import faster, milliseconds

FILES = sorted(RULES.glob("*.yaml"))
QUOTED = re.compile(r'"[^"]*"')
TIME = re.compile(r"(?<![\w:])(\d+)(ms|[smhdwy])\b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rate(a[5m])", "rate(a[5000ms])"),
        ("a:ratio_rate5m offset 1h > 2", "a:ratio_rate5m offset 60000ms > 2"),
        ('a{b="5m"}[1m] + 5 * 3600', 'a{b="5m"}[1000ms] + 5 * 3600'),
        (
            "predict_linear(a[1h], 6 * 3600) > 5 * 3600",
            "predict_linear(a[60000ms], (6 * 3600) / 60) > 5 * 3600",
        ),
        ("  for: 10m\n  interval: 2m\n", "  for: 10000ms\n  interval: 2000ms\n"),
        ("# waits for 10m", "# waits for 10m"),
    ],
)
def test_only_times_change(text: str, expected: str) -> None:
    assert faster(text, 60) == expected


def times(expression: str) -> list[int]:
    """In milliseconds, by another reading than that of the program: every number with a unit."""
    units = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    return [int(number) * units[unit] for number, unit in TIME.findall(QUOTED.sub("", expression))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_duration_of_the_charts_rules_changes_and_nothing_else(path: Path) -> None:
    text = path.read_text()
    before, after = yaml.safe_load(text)["groups"], yaml.safe_load(faster(text, 60))["groups"]
    pairs = [
        pair
        for old, new in zip(before, after, strict=True)
        for pair in zip(old["rules"], new["rules"], strict=True)
    ]
    assert pairs
    for old, new in pairs:
        assert times(old["expr"]) == [60 * time for time in times(new["expr"])]
        assert TIME.sub("T", old["expr"]) == TIME.sub("T", re.sub(r"\(([\d *]+)\) / 60", r"\1", new["expr"]))
        assert ("for" in old) == ("for" in new)
        if "for" in old:
            assert times(old["for"]) == [60 * time for time in times(new["for"])]
        timeless = {"expr", "for"}
        assert {k: v for k, v in old.items() if k not in timeless} == {
            k: v for k, v in new.items() if k not in timeless
        }
    assert [times(group.get("interval", "")) for group in before] == [
        [60 * time for time in times(group.get("interval", ""))] for group in after
    ]


def test_a_duration_is_a_number_of_milliseconds() -> None:
    assert [milliseconds(text) for text in ("30s", "5m", "2h", "1d")] == [
        30_000,
        300_000,
        7_200_000,
        86_400_000,
    ]
