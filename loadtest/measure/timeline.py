"""The run cut into windows of equal length, warm-up and drain included, so that a plot shows when what
happened. TTFT and lag stand where the request should have been sent; gaps, tokens and ends when they came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.measure.observed import Observed, error_class, observe
from loadtest.measure.record import Record
from loadtest.measure.statistics import Floats, Points, percentiles

_WINDOWS = 60


@dataclass(frozen=True, slots=True)
class Band:
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Window:
    """From `t_s` on. `offered_per_s` counts requests by their intended start, `finished_per_s` complete ones
    by their end, `in_flight` is the mean number sent and not ended. `errors` are those nobody asked for."""

    t_s: float
    offered_per_s: float
    finished_per_s: float
    tokens_per_s: float
    in_flight: float
    lag_max_s: float | None
    ttft_s: Band | None
    gap_s: Band | None
    errors: Mapping[str, int]


def width_of(measured_s: float) -> float:
    """Seconds of a window, for a measured part of so many seconds."""
    return max(1.0, measured_s / _WINDOWS)


def timeline(records: Sequence[Record], width_s: float) -> tuple[Window, ...]:
    if not records:
        return ()
    seen = _Seen(records)
    count = int(max(record.end_s for record in records) // width_s) + 1
    return tuple(seen.window(index * width_s, (index + 1) * width_s) for index in range(count))


class _Seen:
    """What all windows are cut from."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._observed: Observed = observe(records)
        self._sent: Floats = np.array([record.sent_s for record in records])
        self._end: Floats = np.array([record.end_s for record in records])
        self._finished = [record.end_s for record in records if record.is_complete]
        self._errors = [(r.end_s, name) for r in records if (name := error_class(r)) is not None]

    def window(self, start_s: float, end_s: float) -> Window:
        width_s = end_s - start_s
        lag = self._observed.lag.between(start_s, end_s)
        overlap = np.minimum(self._end, end_s) - np.maximum(self._sent, start_s)
        return Window(
            t_s=start_s,
            offered_per_s=len(lag) / width_s,
            finished_per_s=sum(start_s <= at_s < end_s for at_s in self._finished) / width_s,
            tokens_per_s=float(self._observed.tokens.between(start_s, end_s).weight.sum()) / width_s,
            in_flight=float(overlap.clip(0).sum()) / width_s,
            lag_max_s=float(lag.value.max()) if len(lag) else None,
            ttft_s=_band(self._observed.ttft.between(start_s, end_s)),
            gap_s=_band(self._observed.gap.between(start_s, end_s)),
            errors=dict(Counter(name for at_s, name in self._errors if start_s <= at_s < end_s)),
        )


def _band(points: Points) -> Band | None:
    return Band(*percentiles(points, (50, 90, 99))) if len(points) else None
