"""Numbers and verdicts in words, the same on every page."""

from __future__ import annotations

from collections.abc import Mapping

from loadtest.measure.slo import Verdict
from loadtest.measure.sweep import Sweep

MEASURES: Mapping[str, str] = {
    "ttft": "TTFT",
    "gap": "gap",
    "itl": "ITL",
    "tpot": "TPOT",
    "e2e": "E2E",
    "lag": "lag",
}
LONG_NAMES: Mapping[str, str] = {
    "ttft": "time to first token (TTFT)",
    "gap": "gap between responses",
    "itl": "the same by its tokens: inter-token latency (ITL)",
    "tpot": "time per output token (TPOT)",
    "e2e": "end to end (E2E)",
    "lag": "lag of the load generator",
}
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


def sweep_words(sweep: Sweep) -> str:
    if sweep.highest_rate_per_s is None or sweep.goodput_per_s is None:
        return "the SLO was missed at every rate"
    held = (
        f"the SLO holds up to {sweep.highest_rate_per_s:.3g} requests/s: goodput {sweep.goodput_per_s:.3g}/s"
    )
    if sweep.lowest_miss_per_s is None:
        return f"{held}; no rate missed it, so there may be more"
    return f"{held}; it is missed at {sweep.lowest_miss_per_s:.3g}/s"
