"""What a soak test came to, from the looks at memory and the records of the load. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.measure.observed import measured
from loadtest.measure.record import Record
from loadtest.soak.slope import Slope, theil_sen, thinned
from loadtest.soak.verdicts import Drift, Limits, Trend, drifts, trend
from loadtest.soak.watch import Look

MB = 1e6
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Memory in MB (10^6 bytes), slopes in MB an hour, each without the first `settle_s`. `errors` are the
    measured requests that did not end as the mix asked. `ended` is true where the server did."""

    rate_per_s: float
    measured_s: float
    settle_s: float
    requests: int
    errors: int
    tokens_out: int
    rss_first_mb: float
    rss_last_mb: float
    rss_peak_mb: float
    pss_peak_mb: float
    rss_slope: Slope | None
    pss_slope: Slope | None
    rss_trend: Trend
    drifts: tuple[Drift, ...]
    limits: Limits
    ended: bool

    @property
    def holds(self) -> bool:
        return (
            not self.ended
            and self.requests > 0
            and self.errors == 0
            and self.rss_trend is Trend.STEADY
            and all(drift.holds(self.limits) for drift in self.drifts)
        )


def finding(
    records: Sequence[Record],
    window_s: tuple[float, float],
    looks: Sequence[Look],
    rate_per_s: float,
    settle_s: float,
    limits: Limits,
    *,
    ended: bool,
) -> Finding:
    """`looks` has at least one; `window_s` is what the load measured."""
    assert looks, "nobody looked at the server's memory"
    taken = measured(records)
    settled = [look for look in looks if look.at_s >= settle_s] or list(looks[-1:])
    rss = theil_sen(thinned([(look.at_s / _HOUR_S, look.rss / MB) for look in settled]))
    pss = theil_sen(thinned([(look.at_s / _HOUR_S, look.pss / MB) for look in settled]))
    return Finding(
        rate_per_s=rate_per_s,
        measured_s=window_s[1] - window_s[0],
        settle_s=settle_s,
        requests=len(taken),
        errors=sum(not record.expected for record in taken),
        tokens_out=sum(record.tokens_out for record in taken),
        rss_first_mb=settled[0].rss / MB,
        rss_last_mb=settled[-1].rss / MB,
        rss_peak_mb=max(look.rss for look in looks) / MB,
        pss_peak_mb=max(look.pss for look in looks) / MB,
        rss_slope=rss,
        pss_slope=pss,
        rss_trend=trend(rss, limits),
        drifts=drifts(taken, window_s),
        limits=limits,
        ended=ended,
    )
