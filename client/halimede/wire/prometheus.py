"""The text format of Prometheus, version 0.0.4, which Triton serves on its metrics port."""

from __future__ import annotations

import re

from halimede.errors import ProtocolError
from halimede.results import Metrics, Sample

__all__ = ["parse_metrics"]

_LABEL = r'[a-zA-Z_]\w*\s*=\s*"(?:[^"\\]|\\.)*"'
_LINE = re.compile(
    r"(?P<name>[a-zA-Z_:][\w:]*)\s*"
    rf"(?:\{{\s*(?P<labels>{_LABEL}(?:\s*,\s*{_LABEL})*)?\s*,?\s*\}})?\s*"
    r"(?P<value>\S+)(?:\s+-?\d+)?",
    re.ASCII,
)
_PAIR = re.compile(r'(?P<name>[a-zA-Z_]\w*)\s*=\s*"(?P<value>(?:[^"\\]|\\.)*)"', re.ASCII)
_ESCAPE = re.compile(r"\\(.)")
_UNESCAPED = {"n": "\n", "\\": "\\", '"': '"'}


def parse_metrics(text: str) -> Metrics:
    """Every sample of the text. Raises ProtocolError for a line that is no sample, comment or blank line."""
    lines = (line.strip() for line in text.split("\n"))
    return Metrics(tuple(_sample(line) for line in lines if line and not line.startswith("#")))


def _sample(line: str) -> Sample:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProtocolError(f"not a Prometheus sample: {line[:200]!r}")
    labels = {
        pair["name"]: _ESCAPE.sub(lambda escape: _UNESCAPED.get(escape[1], escape[0]), pair["value"])
        for pair in _PAIR.finditer(match["labels"] or "")
    }
    try:
        return Sample(match["name"], labels, float(match["value"]))  # float takes +Inf, -Inf and NaN
    except ValueError as error:
        raise ProtocolError(f"not a Prometheus value: {match['value']!r}") from error
