"""The text format of Prometheus, version 0.0.4: what Triton serves on its metrics port."""

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
    """Every sample; help and types are skipped. Raises ProtocolError on any other line."""
    lines = (line.strip() for line in text.split("\n"))
    return Metrics(tuple(_sample(line) for line in lines if line and not line.startswith("#")))


def _sample(line: str) -> Sample:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProtocolError(f"not a Prometheus sample: {line[:200]!r}")
    pairs = _PAIR.finditer(match["labels"] or "")
    labels = {pair["name"]: _unescape(pair["value"]) for pair in pairs}
    return Sample(match["name"], labels, _number(match["value"]))


def _unescape(value: str) -> str:
    return _ESCAPE.sub(lambda match: _UNESCAPED.get(match[1], match[0]), value)


def _number(text: str) -> float:
    try:
        return float(text)  # takes +Inf, -Inf and NaN as well
    except ValueError as error:
        raise ProtocolError(f"not a Prometheus value: {text!r}") from error
