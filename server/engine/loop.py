"""The engine loop: takes requests, runs the scheduler's steps, hands chunks to the outbox.

Threads: any thread may `submit` and `cancel`; one thread calls `run` (or `step`, in tests). The lock guards
the scheduler; models run and chunks are built outside it, by the loop's thread alone.

Every accepted request ends in exactly one final parcel: a chunk with a finish reason, or an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from engine.core.errors import Cancelled, EngineError, Unavailable
from engine.core.request import Request
from engine.core.scheduler import Scheduler
from engine.core.tokens import TokenTable
from engine.edge.chunks import Outbox, Responder
from engine.edge.metrics import Recorder
from engine.edge.traces import Trace
from engine.runners.runner import Runner
from engine.steps import Steps
from engine.streams import Clock, Encoder, Intake, Streams


class Loop:
    """Collaborators are passed in; `clock` gives monotonic nanoseconds, `vocab` is the logits' width.
    `encoder` is None for a decoder-only model.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        table: TokenTable,
        vocab: int,
        outbox: Outbox,
        recorder: Recorder,
        clock: Clock,
        heartbeat_ns: int = 500_000_000,
        encoder: Encoder | None = None,
        stream_interval: int = 0,
    ) -> None:
        self._work = threading.Condition()
        self._scheduler = scheduler
        self._intake = Intake(scheduler, table, vocab, encoder)
        self._streams = Streams(scheduler, table, outbox, recorder, clock, self._work, stream_interval)
        self._steps = Steps(scheduler, runner, self._streams, recorder, clock, self._work)
        self._recorder = recorder
        self._clock = clock
        self._heartbeat_ns = heartbeat_ns
        self._next_key = 0
        self._stopping = False

    def submit(
        self,
        request: Request,
        responder: Responder,
        handle: Callable[[int], str],
        trace: Trace | None = None,
    ) -> int:
        """Accept the request and return its key; raises EngineError at once when it cannot be accepted.

        `handle` makes the name under which the other ensemble steps can cancel it; `trace` is None unless the
        request is traced.
        """
        with self._work:
            self._next_key += 1
            key = self._next_key
        stream = self._intake.open(key, request, responder, handle)
        stream.trace = trace
        with self._work:
            if self._stopping:
                raise Unavailable("server", "stopping, accepts no more requests")
            stream.sent_ns = self._clock()
            if overdue := stream.overdue(stream.sent_ns):
                raise overdue
            self._streams.add(stream)
            self._work.notify()
        return key

    def cancel(self, key: int, reason: EngineError | None = None) -> None:
        """The request ends before the next step; an unknown key is one that has ended already."""
        with self._work:
            if stream := self._streams.get(key):
                stream.end = reason or Cancelled("request", "cancelled by the client")
                self._work.notify()

    def keys(self) -> list[int]:
        """The requests that have not ended."""
        return [stream.sequence.key for stream in self._streams.all()]

    def run(self) -> bool:
        """Step until `stop`, then end what is left; false when a bug of ours ended it before."""
        try:
            while self._wait():
                self.step()
        except Exception as error:  # noqa: BLE001 (our bug, but no client may wait for ever)
            self.stop()
            self._streams.abandon(Unavailable("server", "stopped before the answer was complete"))
            self._recorder.fault(error)
            return False
        for stream in self._streams.all():
            self._streams.end(stream, Unavailable("server", "stopped before the answer was complete"))
        return True

    def stop(self) -> None:
        with self._work:
            self._stopping = True
            self._work.notify()

    def step(self) -> bool:
        """One engine step; false when there was nothing to run."""
        self._end_overdue()
        with self._work:
            batch = self._scheduler.schedule()
        if batch:
            self._steps.run(batch)
        self._send_heartbeats()
        self._record_gauges()
        return batch is not None

    def _wait(self) -> bool:
        with self._work:
            self._work.wait_for(lambda: self._streams or self._stopping)
            return not self._stopping

    def _end_overdue(self) -> None:
        now = self._clock()
        for stream in self._streams.all():
            if end := stream.end or stream.overdue(now):
                self._streams.end(stream, end)

    def _send_heartbeats(self) -> None:
        """An empty chunk lets the next ensemble step see whether the client is still there."""
        now = self._clock()
        for stream in self._streams.all():
            quiet = now - stream.sent_ns >= self._heartbeat_ns
            if quiet and stream.sequence.request.stream:
                self._streams.send(stream, now)

    def _record_gauges(self) -> None:
        with self._work:
            waiting, total = len(self._scheduler.waiting), len(self._streams)
            usage = self._scheduler.slots.usage
        self._recorder.gauges(waiting, total - waiting, usage)
