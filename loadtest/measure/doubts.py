"""Reasons to trust a run's figures less, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from loadtest.measure.statistics import Latency

# Of fewer values the 99th percentile is little but the largest.
_ENOUGH = 100
# A generator this late, or by this share of the TTFT, measures itself.
_LATE_S, _LATE_SHARE = 0.05, 0.1


def doubts(latencies: Mapping[str, Latency | None], requests: int) -> Iterator[str]:
    if not requests:
        yield "no request fell into the measured window"
        return
    if requests < _ENOUGH:
        yield f"{requests} requests were measured: the 99th percentiles are little but the largest values"
    lag, ttft = latencies["lag"], latencies["ttft"]
    if lag is not None and lag.p99 > max(_LATE_S, _LATE_SHARE * (ttft.p50 if ttft else 0)):
        yield (
            f"the load generator sent requests late (p99 {lag.p99:.2f} s): it, or its connections, are part"
            " of what was measured"
        )
