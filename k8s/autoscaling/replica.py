"""One simulated replica: slots, a queue, and steps that decode all running requests and prefill one prompt.

Times are simulated seconds. A step is planned with `begin` and applied with `end`; what each request saw is
written into it, what a scrape would show into the tally.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from k8s.autoscaling.calibration import Calibration
from k8s.autoscaling.chunks import Pace, weight
from k8s.autoscaling.pods import Phase, Pod
from k8s.autoscaling.tally import Tally


@dataclass(slots=True, eq=False)
class Request:
    """`rejected` is why it was not taken; `first_s` and `end_s` are None until then."""

    at_s: float
    prompt: int
    output: int
    rejected: str | None = None
    first_s: float | None = None
    last_s: float = 0.0
    end_s: float | None = None
    tokens: int = 0

    @property
    def ttft(self) -> float | None:
        return None if self.first_s is None else self.first_s - self.at_s

    @property
    def tpot(self) -> float | None:
        if self.end_s is None or self.first_s is None:
            return None
        return (self.end_s - self.first_s) / max(1, self.output - 1)


class StepTimes:
    """The calibration as tables, by running requests."""

    def __init__(self, found: Calibration) -> None:
        sizes = range(found.slots + 1)
        self.decode = [0.0] + [found.slowdown * found.decode(n) for n in sizes[1:]]
        self.cores = [found.cores_used(n) for n in sizes]
        self.request = found.slowdown * found.request_s
        self.prefill_call = found.slowdown * found.prefill_call_s
        self.prefill_token = found.slowdown * found.prefill_token_s
        self.stall = found.prefill_stall
        self.slots, self.max_queue = found.slots, found.max_queue
        self.positions = found.slots * found.max_context


@dataclass(eq=False)
class Replica:
    name: str
    times: StepTimes
    scheduled_s: float
    phase: Phase = Phase.PENDING
    changed_s: float = 0.0
    tally: Tally = field(default_factory=Tally)
    waiting: deque[Request] = field(default_factory=deque)
    running: list[Request] = field(default_factory=list)
    prefilling: Request | None = None
    busy: bool = False
    gone_s: float | None = None
    pace: Pace = field(default_factory=Pace)
    _done: int = 0
    _chunk: int = 0

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self.running) + (self.prefilling is not None)

    @property
    def pod(self) -> Pod:
        return Pod(self.name, self.phase, self.scheduled_s, self.changed_s)

    def become(self, phase: Phase, now_s: float) -> None:
        self.phase, self.changed_s = phase, now_s

    def offer(self, request: Request) -> bool:
        """False if the queue is full."""
        queued = len(self.waiting) + (self.prefilling is not None and len(self.running) >= self.times.slots)
        if queued >= self.times.max_queue:
            self.tally.rejected += 1
            return False
        self.waiting.append(request)
        return True

    def begin(self, now_s: float) -> float | None:
        """Plans a step; seconds that it takes, None if there is nothing to do."""
        times, running = self.times, len(self.running)
        if self.prefilling is None and self.waiting and running < times.slots:
            self.prefilling, self._done = self.waiting.popleft(), 0
            self.tally.queued.add(now_s - self.prefilling.at_s)
        seconds = times.decode[running]
        if running:
            self.pace.decoded(seconds)
        if self.prefilling:
            seconds += self._plan_chunk(self.prefilling, beside=running > 0)
        self.busy = seconds > 0
        self.tally.cpu_s += seconds * times.cores[running]
        self.tally.busy_s += seconds
        return seconds if self.busy else None

    def _plan_chunk(self, request: Request, *, beside: bool) -> float:
        """Seconds that the prompt adds to the step."""
        times, done = self.times, self._done
        self._chunk = self.pace.chunk(times.stall, done, request.prompt - done, beside=beside)
        seconds = times.prefill_call + weight(done, self._chunk) * times.prefill_token
        self.pace.prefilled(done, self._chunk, seconds)
        return seconds + (0.0 if done else times.request)

    def end(self, now_s: float) -> None:
        """Applies the step: a token for each that was running, and the chunk of the prompt."""
        finished = [request for request in self.running if self._token(request, now_s)]
        if finished:
            self.running = [request for request in self.running if request.end_s is None]
        if self.prefilling:
            self._done += self._chunk
            if self._done >= self.prefilling.prompt:
                self._first_token(self.prefilling, now_s)
                self.prefilling = None

    def kv_usage(self) -> float:
        held = sum(request.prompt + request.tokens for request in self.running) + self._done * bool(
            self.prefilling
        )
        return min(1.0, held / self.times.positions)

    def _token(self, request: Request, now_s: float) -> bool:
        request.tokens += 1
        self.tally.generated += 1
        self.tally.itl.add(now_s - request.last_s)
        request.last_s = now_s
        return self._ended(request, now_s)

    def _first_token(self, request: Request, now_s: float) -> None:
        request.first_s = request.last_s = now_s
        request.tokens = 1
        self.tally.prompted += request.prompt
        self.tally.generated += 1
        self.tally.ttft.add(now_s - request.at_s)
        if not self._ended(request, now_s):
            self.running.append(request)

    def _ended(self, request: Request, now_s: float) -> bool:
        if request.tokens < request.output:
            return False
        request.end_s = now_s
        self.tally.succeeded += 1
        self.tally.e2e.add(now_s - request.at_s)
        return True
