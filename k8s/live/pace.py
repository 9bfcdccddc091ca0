"""The chart's rules on a faster clock, so that a fault shows within seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_MS: Final = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_536_000_000,
}
_DURATION: Final = re.compile(r"(?:\d+(?:ms|[smhdwy]))+")
_PART: Final = re.compile(r"(\d+)(ms|[smhdwy])")
# Quoted text comes first and stays as it is: a label's value may look like a range.
_TIMED: Final = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`|\[[^\]]*\]|\boffset\s+-?\w+')

# What a prediction looks ahead is a number of seconds, or a product of some.
_AHEAD: Final = re.compile(r"(\bpredict_linear\(.*?\](?:\s*offset\s+-?\w+)?\s*,\s*)([^(),]+)\)", re.DOTALL)


def milliseconds(duration: str) -> int:
    """Of a duration as Prometheus writes it, such as `1h30m`. Raises ValueError for anything else."""
    if not _DURATION.fullmatch(duration):
        raise ValueError(f"{duration!r} is no duration: write 90s, 5m, 1h30m, ...")
    return sum(int(number) * _MS[unit] for number, unit in _PART.findall(duration))


def faster(duration: str, factor: int) -> str:
    """The duration divided by `factor`, at least a millisecond. Raises ValueError."""
    return f"{max(1, milliseconds(duration) // factor)}ms"


def faster_expression(expression: str, factor: int) -> str:
    """Ranges, steps of subqueries, offsets and what a prediction looks ahead divided by `factor`; all else as
    it was, names as well.
    """
    ahead = _AHEAD.sub(rf"\1(\2) / {factor})", expression)
    return _TIMED.sub(lambda found: _faster_part(found[0], factor), ahead)


def _faster_part(text: str, factor: int) -> str:
    if text[0] in "\"'`":
        return text
    return re.sub(rf"\b{_DURATION.pattern}\b", lambda found: faster(found[0], factor), text)


def faster_rules(content: Mapping[str, Any], factor: int) -> dict[str, Any]:
    """A rule file, as read from YAML, on a clock `factor` times as fast.

    It only rescales durations: each `for`, `keep_firing_for` and `interval`, and in expressions the ranges,
    offsets and the seconds that `predict_linear` looks ahead. Thresholds, other numbers, labels, names and
    annotations stay as they are. Raises ValueError for a duration that is none.
    """
    return {"groups": [_faster_group(group, factor) for group in content["groups"]]}


def _faster_group(group: Mapping[str, Any], factor: int) -> dict[str, Any]:
    rules = [_faster_fields(rule, factor) for rule in group["rules"]]
    return _faster_fields(group, factor) | {"rules": rules}


def _faster_fields(fields: Mapping[str, Any], factor: int) -> dict[str, Any]:
    changed = {name: faster(fields[name], factor) for name in _TIMES if name in fields}
    if "expr" in fields:
        changed["expr"] = faster_expression(fields["expr"], factor)
    return {**fields, **changed}


_TIMES: Final = ("for", "keep_firing_for", "interval")
