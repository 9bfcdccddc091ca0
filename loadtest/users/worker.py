"""A worker: Locust's runner takes the plan, Locust's users sit down to it, the sending thread does it."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from weakref import WeakKeyDictionary

import gevent
from gevent.event import AsyncResult

from loadtest.errors import BenchError
from loadtest.measure.record import Record, encode
from loadtest.users.locusts import Environment, User, WorkerRunner, constant, task
from loadtest.users.plan import GO, PLAN, REPORT, STOP, STOP_HARD, Plan, Report, State, plan_of
from loadtest.users.sending import Sending

REPORT_S = 0.5
_POLL_S = 0.1

# Locust makes its users itself, and gives them nothing but their environment.
seats: WeakKeyDictionary[Environment, Worker] = WeakKeyDictionary()


class LoadUser(User):
    """In an open loop one a worker, which keeps the schedule; in a closed loop each of the users."""

    wait_time = constant(0)

    @task
    def serve(self) -> None:
        while True:  # Locust ends it
            seats[self.environment].take_seat()
            gevent.sleep(_POLL_S)


class Worker:
    """Between the master and the sending thread; everything here runs in greenlets of one thread."""

    def __init__(self, environment: Environment, runner: WorkerRunner) -> None:
        self._environment = environment
        self._runner = runner
        self._go: AsyncResult = AsyncResult()
        self._sending: Sending | None = None
        self._seats: list[Future[None]] = []
        self._is_stopped = False
        runner.register_message(PLAN, self._planned, concurrent=True)
        runner.register_message(GO, lambda msg, **_: self._go.set(msg.data["zero_epoch_s"]))
        runner.register_message(STOP, self._stopped)

    def take_seat(self) -> None:
        """Of a run that has begun and has one left."""
        if self._sending is not None and len(self._seats) < self._sending.seats and not self._is_stopped:
            self._seats.append(self._sending.sit())

    def _planned(self, msg: Any, **_: Any) -> None:
        plan = plan_of(msg.data)
        try:
            self._run(plan)
        except BenchError as error:
            self._send(Report(plan.run, State.DONE, time.time(), fault=str(error)))
        except Exception:  # noqa: BLE001  a bug here must reach the master, or it would wait
            self._send(Report(plan.run, State.DONE, time.time(), fault=traceback.format_exc()))

    def _run(self, plan: Plan) -> None:
        self._seats, self._is_stopped, self._go = [], False, AsyncResult()
        pool = gevent.get_hub().threadpool
        sending = pool.apply(Sending, (plan,))  # reads a tokenizer, connects: gevent must not wait for that
        try:
            self._send(Report(plan.run, State.READY, time.time()))
            sending.begin(self._go.get())
            self._sending = sending
            self._until(lambda: self._is_over(sending), sending)
            for seat in self._seats:
                if not seat.cancelled():
                    seat.result()
            drained = sending.drain()
            self._until(drained.done, sending)
            drained.result()
            self._report(sending, State.DONE)
        finally:
            self._sending = None
            pool.apply(sending.close)

    def _is_over(self, sending: Sending) -> bool:
        full = self._is_stopped or len(self._seats) == sending.seats
        return full and all(seat.done() for seat in self._seats)

    def _until(self, over: Callable[[], bool], sending: Sending) -> None:
        """Reports on the way."""
        next_s = 0.0
        while not over():
            gevent.sleep(_POLL_S)
            if time.monotonic() >= next_s:
                self._report(sending, State.RUNNING)
                next_s = time.monotonic() + REPORT_S

    def _stopped(self, msg: Any, **_: Any) -> None:
        self._is_stopped = True
        for seat in self._seats:
            seat.cancel()
        if msg.data["how"] == STOP_HARD and self._sending is not None:
            self._sending.cut()

    def _report(self, sending: Sending, state: State) -> None:
        records = [sending.records.popleft() for _ in range(len(sending.records))]
        for record in records:
            self._tell_locust(record)
        offering = sending.offering
        self._send(
            Report(
                run=sending.plan.run,
                state=state,
                wall_s=time.time(),
                lines=tuple(map(encode, records)),
                begun=offering.begun,
                open=offering.open,
                capped=offering.capped,
                tokens=sending.tokens,
                examples=dict(sending.examples),
            )
        )

    def _send(self, report: Report) -> None:
        self._runner.send_message(REPORT, report.encode())

    def _tell_locust(self, record: Record) -> None:
        """Locust's own statistics: its page and its log count what ours count."""
        self._environment.events.request.fire(  # type: ignore[no-untyped-call]
            request_type=record.protocol,
            name=record.kind,
            response_time=1000 * record.e2e_s,
            response_length=record.tokens_out,
            exception=None if record.expected else RuntimeError(record.error or "no error"),
            context={},
        )


def work(master_host: str, master_port: int) -> int:
    """Serves a master until it quits; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # the master misses our heartbeat, and says so
    print(f"waiting for the master at {master_host}:{master_port}", file=sys.stderr, flush=True)
    environment = Environment(user_classes=[LoadUser])
    runner = environment.create_worker_runner(master_host, master_port)
    seats[environment] = Worker(environment, runner)
    runner.greenlet.join()
    return 0
