"""The unit of the loads: what one replica is planned to take."""

from __future__ import annotations

from typing import Final

from k8s.autoscaling.arrivals import Lengths, poisson
from k8s.autoscaling.rehearsal import simulate
from k8s.autoscaling.replica import StepTimes

SECONDS: Final = 600.0
FLOOD_PER_S: Final = 10.0
# Arrivals are random: near its throughput a queue grows without end. docs/capacity.md takes the same.
HEADROOM: Final = 0.7


def capacity(times: StepTimes, lengths: Lengths) -> float:
    """Requests a second: 0.7 of what a replica with a full queue completes in ten simulated minutes."""
    offered = FLOOD_PER_S
    while (completed := _completed(times, lengths, offered)) > 0.8 * offered:
        offered *= 4  # no flood for this one
    return HEADROOM * completed


def _completed(times: StepTimes, lengths: Lengths, offered_per_s: float) -> float:
    flood = poisson([(0, 1), (SECONDS, 1)], offered_per_s, lengths, seed=7)
    requests = simulate(flood, 1, times, SECONDS)
    return sum(request.end_s is not None for request in requests) / SECONDS
