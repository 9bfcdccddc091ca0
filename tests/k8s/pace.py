"""The chart's rules on a faster clock, so that a fault shows within seconds."""

from __future__ import annotations

import re

_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
# Ranges, offsets, `for` and `interval`; a name such as ratio_rate5m is none of them.
_DURATION = re.compile(
    r"(?<=\[)\d+[smhd](?=\])|(?<=\boffset )\d+[smhd]\b|(?:(?<=\bfor: )|(?<=\binterval: ))\d+[smhd]$",
    re.MULTILINE,
)
# What a prediction looks ahead is a number of seconds, or a product of some.
_AHEAD = re.compile(r"(\bpredict_linear\([^\[\]]*\[\w+\], )([\d *]+)\)")


def faster(rules: str, factor: int) -> str:
    """The text of a rule file, its clock `factor` times as fast: every duration is divided, and the seconds
    that `predict_linear` looks ahead. Thresholds, labels, names and annotations stay as they are.
    """
    ahead = _AHEAD.sub(rf"\1(\2) / {factor})", rules)
    return _DURATION.sub(lambda found: f"{milliseconds(found[0]) // factor}ms", ahead)


def milliseconds(duration: str) -> int:
    """Of a duration as the rules write it, such as 5m."""
    return int(duration[:-1]) * _MS[duration[-1]]
