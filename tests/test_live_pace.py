"""Rules on a faster clock: durations alone change, wherever one stands."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from k8s.live.pace import faster, faster_expression, faster_rules, milliseconds
from k8s.live.stack import RULES

UNITS = st.sampled_from(["ms", "s", "m", "h", "d", "w"])
DURATIONS = st.builds(lambda number, unit: f"{number}{unit}", st.integers(1, 500), UNITS)


@given(DURATIONS, DURATIONS)
def test_a_duration_is_the_sum_of_its_parts(first: str, second: str) -> None:
    assert milliseconds(first + second) == milliseconds(first) + milliseconds(second)


@given(DURATIONS, st.integers(1, 1000))
def test_faster_divides(duration: str, factor: int) -> None:
    assert milliseconds(faster(duration, factor)) == max(1, milliseconds(duration) // factor)


@pytest.mark.parametrize("wrong", ["", "5", "m", "5 m", "5m ", "-5m", "5x"])
def test_what_is_no_duration_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        faster(wrong, 60)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("rate(a[5m])", "rate(a[5000ms])"),
        ("a:ratio_rate5m offset 1h > 2", "a:ratio_rate5m offset 60000ms > 2"),
        ("a offset -1h", "a offset -60000ms"),
        ("max_over_time(a[1h30m:1m])", "max_over_time(a[90000ms:1000ms])"),
        ('a{b="[5m]",c=~"offset 5m"}[1m]', 'a{b="[5m]",c=~"offset 5m"}[1000ms]'),
        (r'a{b="\"[5m]"}', r'a{b="\"[5m]"}'),
        ("a{b='[5m]'} + 5 * 3600", "a{b='[5m]'} + 5 * 3600"),
        (
            "predict_linear(a[1h], 6 * 3600) > 5 * 3600",
            "predict_linear(a[60000ms], (6 * 3600) / 60) > 5 * 3600",
        ),
        ("predict_linear(a[1h] offset 1h, 60)", "predict_linear(a[60000ms] offset 60000ms, (60) / 60)"),
    ],
)
def test_only_times_change(expression: str, expected: str) -> None:
    assert faster_expression(expression, 60) == expected


@pytest.mark.parametrize("path", sorted(RULES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_charts_rules_keep_all_but_their_durations(path: object) -> None:
    assert hasattr(path, "read_text")
    content = yaml.safe_load(path.read_text())
    before = [rule for group in content["groups"] for rule in group["rules"]]
    after = [rule for group in faster_rules(content, 60)["groups"] for rule in group["rules"]]
    timeless = {"expr", "for", "keep_firing_for"}
    for old, new in zip(before, after, strict=True):
        assert {k: v for k, v in old.items() if k not in timeless} == {
            k: v for k, v in new.items() if k not in timeless
        }
        assert ("for" in old) == ("for" in new)
        if "for" in old:
            assert milliseconds(new["for"]) * 60 == milliseconds(old["for"])


def test_the_interval_of_a_group_changes_and_an_error_is_told() -> None:
    rules = [{"record": "a", "expr": "b"}]
    assert faster_rules({"groups": [{"name": "x", "interval": "2m", "rules": rules}]}, 60) == {
        "groups": [{"name": "x", "interval": "2000ms", "rules": rules}]
    }
    with pytest.raises(ValueError, match="'soon' is no duration"):
        faster_rules({"groups": [{"name": "x", "interval": "soon", "rules": rules}]}, 60)
