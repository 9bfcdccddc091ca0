"""Numbers and verdicts in words, the same on every page."""

from __future__ import annotations

from collections.abc import Mapping

from loadtest.measure.slo import Verdict

MEASURES: Mapping[str, str] = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E", "lag": "lag"}
_VERDICTS = {True: "met", False: "missed", None: "not measured"}


def verdict_words(met: bool | None) -> str:
    return _VERDICTS[met]


def number(value: float | None) -> str:
    """Three figures, or every one of a whole number; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def count(total: int, what: str) -> str:
    return f"{total:,} {what}{'' if total == 1 else 's'}"


def limit_words(verdict: Verdict) -> tuple[str, str]:
    """The limit and what was found, with their unit: seconds as milliseconds, a ratio as per cent."""
    scale, unit = (1e3, " ms") if verdict.name.endswith("_s") else (100.0, " %")
    value = None if verdict.value is None else scale * verdict.value
    return f"≤ {number(scale * verdict.limit)}{unit}", "-" if value is None else f"{number(value)}{unit}"
