"""Service level objectives: limits for the run, and limits for each request.

The limits of the run are met or missed. Those of a request make its goodput: requests a second that met
all of them (Zhong et al., DistServe, 2024).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from loadtest.errors import BenchError
from loadtest.measure.record import Record
from loadtest.measure.statistics import Latency

_LATENCY = re.compile(r"(ttft|gap|itl|tpot|e2e|lag)_(p50|p90|p95|p99|mean|max)_s")
_REQUEST = ("request_ttft_s", "request_gap_s", "request_tpot_s", "request_e2e_s")
_ERRORS = "error_ratio"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`value` and `met` are None where nothing was measured; such an objective is not met."""

    name: str
    limit: float
    value: float | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Limits:
    """`run` has limits by name, e.g. ttft_p99_s, and always error_ratio; `request` those of a request."""

    run: Mapping[str, float]
    request: Mapping[str, float]

    def accepts(self, record: Record) -> bool:
        """Whether the request is complete and within each limit. A limit on what the request does not have
        holds: an answer in one piece has no TTFT, one of one chunk no gap and no time per token after it."""
        found = {
            "request_ttft_s": record.ttft_s,
            "request_gap_s": max(record.gaps_s, default=None),
            "request_tpot_s": record.tpot_s,
            "request_e2e_s": record.e2e_s,
        }
        pairs = ((found[name], limit) for name, limit in self.request.items())
        return record.is_complete and record.expected and all(v is None or v <= top for v, top in pairs)


def limits_of(slo: Mapping[str, object]) -> Limits:
    """From a profile's [slo]. BenchError names an unknown limit or one that is no number of at least 0."""
    run, request = {_ERRORS: 0.0}, {}
    for name, limit in slo.items():
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit < inf:
            raise BenchError(f"slo.{name} is {limit!r}, must be a finite number of at least 0")
        number = float(limit)
        if name in _REQUEST:
            request[name] = number
        elif name == _ERRORS or _LATENCY.fullmatch(name):
            run[name] = number
        else:
            known = f"{_ERRORS}, {', '.join(_REQUEST)} or MEASURE_STATISTIC_s as in ttft_p99_s"
            raise BenchError(f"slo.{name} is no limit, must be {known}")
    return Limits(run, request)


def verdicts(
    limits: Limits, latencies: Mapping[str, Latency | None], error_ratio: float | None
) -> tuple[Verdict, ...]:
    """`latencies` by measure: ttft, gap, itl, tpot, e2e, lag; `error_ratio` is None without a request."""
    found = []
    for name, limit in limits.run.items():
        value = error_ratio
        if match := _LATENCY.fullmatch(name):
            seen = latencies[match[1]]
            value = None if seen is None else float(getattr(seen, match[2]))
        found.append(Verdict(name, limit, value, None if value is None else value <= limit))
    return tuple(found)


def holds(found: Sequence[Verdict]) -> bool:
    return all(verdict.met is True for verdict in found)
