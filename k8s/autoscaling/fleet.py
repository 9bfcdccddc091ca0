"""The replicas of one Deployment behind a balancer that sends each request where the least are in flight.

Events in a heap: arrivals, ends of steps, pods that become ready. `advance(until)` runs them; between two
calls the caller may look, and `scale`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

from k8s.autoscaling.pods import Phase, Pod
from k8s.autoscaling.replica import Replica, Request, StepTimes
from k8s.autoscaling.tally import Gauges, Place, series

Event = Callable[[float], None]
# As a Deployment of the release `halimede` names its Pods: queries match it.
POD_PREFIX: Final = "halimede-7c9d5f6b8-"


@dataclass(frozen=True)
class Start:
    """Seconds until a new pod serves: `node_s` scheduling, image and probe; `server_s` the server's own."""

    node_s: float
    server_s: float


class Fleet:
    """Times are seconds from the start of the rehearsal. `requests` collects every arrival, in order."""

    def __init__(
        self,
        times: StepTimes,
        start: Start,
        replicas: int,
        arrivals: Iterable[Request],
        grace_s: float = 120.0,
    ) -> None:
        self.now_s = 0.0
        self.requests: list[Request] = []
        self.replicas: list[Replica] = []
        self.gone: list[Replica] = []
        self._times, self._start, self._grace_s = times, start, grace_s
        self._arrivals = iter(arrivals)
        self._heap: list[tuple[float, int, Event]] = []
        self._ids, self._names = count(), count(1)
        for _ in range(replicas):
            self._ready(self._new_replica(), 0.0)
        self._next_arrival()

    @property
    def size(self) -> int:
        """Replicas that are wanted: all but those that end."""
        return sum(one.phase is not Phase.TERMINATING for one in self.replicas)

    @property
    def ready(self) -> int:
        return sum(one.phase is Phase.READY for one in self.replicas)

    @property
    def pods(self) -> list[Pod]:
        return [one.pod for one in self.replicas]

    def advance(self, until_s: float) -> None:
        while self._heap and self._heap[0][0] <= until_s:
            self.now_s, _, event = heapq.heappop(self._heap)
            event(self.now_s)
        self.now_s = until_s

    def scale(self, replicas: int) -> None:
        """New pods start; of those that are too many the unready and the youngest end first."""
        for _ in range(replicas - self.size):
            self._add(self._new_replica())
        alive = [one for one in self.replicas if one.phase is not Phase.TERMINATING]
        alive.sort(key=lambda one: (one.phase is Phase.READY, -one.changed_s))
        for one in alive[: max(0, len(alive) - replicas)]:
            self._terminate(one)

    def series(self, place: Place) -> Iterator[tuple[str, float]]:
        """Of every pod whose server answers a scrape."""
        for one in self.replicas:
            if one.phase in {Phase.READY, Phase.TERMINATING}:
                running = len(one.running) + (one.prefilling is not None)
                gauges = Gauges(len(one.waiting), running, one.kv_usage())
                yield from series(place, one.name, one.tally, gauges)

    def replica_seconds(self) -> float:
        """From scheduling to the end of each, drain included: what is paid for."""
        ended = sum((one.gone_s or self.now_s) - one.scheduled_s for one in self.gone)
        return ended + sum(self.now_s - one.scheduled_s for one in self.replicas)

    def _at(self, at_s: float, event: Event) -> None:
        heapq.heappush(self._heap, (at_s, next(self._ids), event))

    def _next_arrival(self) -> None:
        request = next(self._arrivals, None)
        if request is not None:
            self._at(request.at_s, lambda now_s: self._arrive(request, now_s))

    def _arrive(self, request: Request, now_s: float) -> None:
        self.requests.append(request)
        ready = [one for one in self.replicas if one.phase is Phase.READY]
        if not ready:
            request.rejected = "no replica"
        else:
            least = min(ready, key=lambda one: one.in_flight)
            if not least.offer(request):
                request.rejected = "queue full"
            elif not least.busy:
                self._begin(least, now_s)
        self._next_arrival()

    def _begin(self, one: Replica, now_s: float) -> None:
        seconds = one.begin(now_s)
        if seconds is not None:
            self._at(now_s + seconds, lambda at_s: self._end(one, at_s))
        elif one.phase is Phase.TERMINATING:
            self._remove(one, now_s)

    def _end(self, one: Replica, now_s: float) -> None:
        if one.gone_s is None:
            one.end(now_s)
            self._begin(one, now_s)

    def _new_replica(self) -> Replica:
        one = Replica(f"{POD_PREFIX}{next(self._names):05d}", self._times, self.now_s, changed_s=self.now_s)
        self.replicas.append(one)
        return one

    def _add(self, one: Replica) -> None:
        starts = self.now_s + self._start.node_s
        self._at(starts, lambda at_s: self._unless_ended(one, Phase.STARTING, at_s))
        self._at(starts + self._start.server_s, lambda at_s: self._unless_ended(one, Phase.READY, at_s))

    def _unless_ended(self, one: Replica, phase: Phase, now_s: float) -> None:
        if one.phase is not Phase.TERMINATING:
            one.become(phase, now_s)

    def _ready(self, one: Replica, now_s: float) -> None:
        one.become(Phase.READY, now_s)

    def _terminate(self, one: Replica) -> None:
        one.become(Phase.TERMINATING, self.now_s)
        if not one.in_flight:
            self._remove(one, self.now_s)
        else:
            self._at(self.now_s + self._grace_s, lambda at_s: self._kill(one, at_s))

    def _kill(self, one: Replica, now_s: float) -> None:
        """Its grace period is over: what it still has is lost."""
        if one.gone_s is None:
            for request in [*one.waiting, *one.running, *filter(None, [one.prefilling])]:
                request.rejected = "cut off"
            self._remove(one, now_s)

    def _remove(self, one: Replica, now_s: float) -> None:
        one.gone_s = now_s
        self.replicas.remove(one)
        self.gone.append(one)
