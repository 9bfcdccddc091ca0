"""One rehearsal: a fleet under a load, scraped by a Prometheus which the autoscaler asks.

Prometheus scrapes every 15 simulated seconds and the autoscaler asks half a period later, as two loops that
know nothing of each other do on average.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from k8s.autoscaling.fleet import Fleet, Start
from k8s.autoscaling.hpa import SYNC_PERIOD_S
from k8s.autoscaling.replica import Request, StepTimes
from k8s.autoscaling.scaler import Autoscaler, Scaler, Source
from k8s.autoscaling.tally import Place, page


class Scraper(Source, Protocol):
    """Takes a page of metrics at a simulated time, then answers from it."""

    def take(self, text: str, at_s: float) -> None: ...

    def unix(self, at_s: float) -> float: ...


@dataclass(frozen=True)
class Slo:
    """What a request must meet to be good, in seconds."""

    ttft_s: float = 2.0
    tpot_s: float = 0.2

    def met(self, request: Request) -> bool:
        ttft, tpot = request.ttft, request.tpot
        return ttft is not None and tpot is not None and ttft <= self.ttft_s and tpot <= self.tpot_s


@dataclass(frozen=True)
class Moment:
    """Replicas wanted and ready, requests in flight, at a time."""

    at_s: float
    wanted: int
    ready: int
    in_flight: int


@dataclass(frozen=True)
class Outcome:
    """Of one rehearsal. Shares are of the requests that came."""

    scaler: str
    requests: int
    good: int
    rejected: int
    cut_off: int
    replica_hours: float
    most_replicas: int
    changes: int
    ttft_p50_s: float
    ttft_p99_s: float
    moments: tuple[Moment, ...]

    @property
    def good_share(self) -> float:
        return self.good / self.requests


@dataclass(frozen=True)
class Setting:
    """`tail_s`: how long it goes on after the last arrival, so that every request ends."""

    times: StepTimes
    start: Start
    slo: Slo
    seconds: float
    tail_s: float = 120.0
    place: Place = field(default_factory=Place)


def rehearse(scaler: Scaler, arrivals: Iterable[Request], setting: Setting, scraper: Scraper) -> Outcome:
    """Raises what the scraper does."""
    start = max(scaler.limits.minimum if not scaler.activity else scaler.activity.minimum, 1)
    fleet = Fleet(setting.times, setting.start, start, arrivals)
    autoscaler = Autoscaler(scaler)
    moments, paid = [], 0.0
    for turn in range(1, int((setting.seconds + setting.tail_s) / SYNC_PERIOD_S) + 1):
        at_s = turn * SYNC_PERIOD_S
        fleet.advance(at_s)
        scraper.take(page(fleet.series(setting.place), scraper.unix(at_s)), at_s)
        fleet.advance(at_s + SYNC_PERIOD_S / 2)
        fleet.scale(autoscaler.sync(fleet.now_s, fleet.pods, fleet.size, scraper))
        moments.append(_moment(fleet))
        if at_s <= setting.seconds:
            paid = fleet.replica_seconds()
    return _outcome(scaler.name, fleet, setting.slo, paid, tuple(moments))


def simulate(arrivals: Iterable[Request], replicas: int, times: StepTimes, seconds: float) -> list[Request]:
    """What so many replicas do without any scaling, and without Prometheus."""
    fleet = Fleet(times, Start(0, 0), replicas, arrivals)
    fleet.advance(seconds)
    return fleet.requests


def _moment(fleet: Fleet) -> Moment:
    in_flight = sum(one.in_flight for one in fleet.replicas)
    return Moment(fleet.now_s, fleet.size, fleet.ready, in_flight)


def _outcome(name: str, fleet: Fleet, slo: Slo, paid: float, moments: tuple[Moment, ...]) -> Outcome:
    requests = fleet.requests
    ttfts = sorted(request.ttft for request in requests if request.ttft is not None)
    wanted = [moment.wanted for moment in moments]
    return Outcome(
        scaler=name,
        requests=len(requests),
        good=sum(slo.met(request) for request in requests),
        rejected=sum(request.rejected in {"queue full", "no replica"} for request in requests),
        cut_off=sum(request.rejected == "cut off" for request in requests),
        replica_hours=paid / 3600,
        most_replicas=max(wanted),
        changes=sum(one != other for one, other in pairwise(wanted)),
        ttft_p50_s=statistics.median(ttfts),
        ttft_p99_s=ttfts[int(0.99 * (len(ttfts) - 1))],
        moments=moments,
    )
