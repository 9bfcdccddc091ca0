"""Locust with our requests: its users, shapes, web page and distributed workers.

    locust -f loadtest/locustfile.py --host grpc://127.0.0.1:8001

docs/loadtest.md says what it measures, and when to use `make load` instead. Importing this module makes
gevent replace the standard library's sockets, locks and threads, as Locust does.
"""

from __future__ import annotations

import logging
import math
import time
from argparse import ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count
from typing import Any, ClassVar

from gevent import GreenletExit, Timeout, sleep, spawn
from grpc.experimental.gevent import init_gevent
from locust import LoadTestShape, User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import STATE_STOPPING, MasterRunner, WorkerRunner

from halimede._sync.transport import Transport, connect
from halimede.errors import HalimedeError, InvalidArgument
from halimede.target import Target, parse_target
from halimede.timeouts import KEEPALIVE_S
from loadtest.artifacts import MODEL
from loadtest.errors import BenchError, TrafficError
from loadtest.measure.record import Record
from loadtest.options import decimal
from loadtest.traffic.arrivals import Closed, Gamma, Trace
from loadtest.traffic.profile import Profile, Protocol, profile_of
from loadtest.traffic.prompts import PromptWriter
from loadtest.traffic.schedule import Planned, schedule
from loadtest.users import session
from loadtest.users.request import Tape, ask_of, error_class
from loadtest.users.server import Addresses, fitted, words_of
from loadtest.users.worker import Words

# With a shape there are as many users as requests are due within such a window, and each sends one in it: a
# new user at once, one that stays a little later, when the shape (it looks once a second) has sent the others
# away.
WINDOW_S, _LATER_S = 10, 2
# Users that are to stop end their request first, and then their worker reports.
_STOP_S, _REPORT_S = 60, 10
# Between the first seeds of two workers; each seed makes one schedule.
_SEEDS = 1_000_000
_log = logging.getLogger("halimede")


def named(name: str) -> Profile:
    """The profile of this name or file. TrafficError where there is none, or Locust cannot send it."""
    profile = session.profile_of(Namespace(profile=name, protocol=None, master=False, expect_workers=None))
    for entry in profile.mix:
        if entry.bad is not None:
            what = f"--profile {name}: {entry.name} is a bad request, and here every refusal is a failure"
            raise TrafficError(f"{what}; python -m loadtest.load --profile {name} sends it")
    return profile


def over(profile: Profile, target: Target) -> Profile:
    """The streams of the profile over the protocol of the target, and what is one answer as one answer."""
    stream = Protocol.GRPC if target.is_grpc else Protocol.HTTP
    mix = (e if e.protocol is Protocol.UNARY else replace(e, protocol=stream) for e in profile.mix)
    return replace(profile, mix=tuple(mix))


def planned(profile: Profile, worker: int) -> Iterator[Planned]:
    """Requests without end, other ones for each worker: the profile's schedule, each time with a new seed."""
    seeds = count(profile.seed + worker * _SEEDS)
    return chain.from_iterable(schedule(replace(profile, seed=seed)) for seed in seeds)


class ArrivalShape(LoadTestShape):
    """Bursts and traces: as many users as requests are due in each window."""

    abstract = True  # Locust makes none by itself

    def __init__(self, profile: Profile, run_time_s: float | None = None) -> None:
        super().__init__()
        self._due = Counter(int((request.at_s or 0) // WINDOW_S) for request in schedule(profile))
        self._end_s = min(profile.total_s, run_time_s or math.inf)

    def tick(self) -> tuple[int, float] | None:
        """The users that there should be now, and how many may come and go in a second; None at the end."""
        now_s = self.get_run_time()
        return (self._due[int(now_s // WINDOW_S)], 100) if now_s < self._end_s else None


@dataclass(frozen=True)
class Traffic:
    """What the users of this process send, and how. `think_s` is None with a shape."""

    model: str
    requests: Iterator[Planned]
    writers: Mapping[str, PromptWriter]
    transport: Transport
    think_s: float | None
    begin_s: float = field(default_factory=time.monotonic)


class ProfileUser(User):
    """Sends a request of the profile, waits for its answer, thinks."""

    traffic: ClassVar[Traffic]

    def wait_time(self) -> float:
        if self.traffic.think_s is not None:
            return self.traffic.think_s
        return WINDOW_S - (time.monotonic() - self.traffic.begin_s) % WINDOW_S + _LATER_S

    @task
    def ask(self) -> None:
        """Of a user that is stopped meanwhile nothing is counted."""
        sleep(0)  # Locust may have ended this user as it woke: then here, before it sends
        request, error = next(self.traffic.requests), None
        model = request.kind.model or self.traffic.model
        ask = ask_of(request, self.traffic.writers[model].write(request), model)
        begin_s = time.monotonic()
        tape = Tape(request, model, begin_s, "measure")
        try:
            with closing(self.traffic.transport.generate(ask.request)) as chunks:
                for chunk in chunks:
                    tape.take(chunk, time.monotonic())
                    if tape.leaves:
                        break
        except HalimedeError as fault:
            error = failure(fault)
        tell(self.environment, tape.record(time.monotonic(), error))


def failure(error: HalimedeError) -> str:
    """Its code, field and limit: without the value, so that Locust counts equal ones together."""
    parts = error_class(error), getattr(error, "field", None), getattr(error, "limit", None)
    return ": ".join(filter(None, parts))


def tell(environment: Environment, record: Record) -> None:
    """The request as Locust's event, with its tokens as length. TTFT and the longest gap are rows of the
    statistics alone: as events they would count as requests in the totals.
    """
    latencies_s = {"TTFT": record.ttft_s, "gap": max(record.gaps_s, default=None)}
    ms = {name: 1e3 * seconds for name, seconds in latencies_s.items() if seconds is not None}
    for name, latency in ms.items():
        environment.stats.get(record.kind, name).log(latency, 0)  # type: ignore[arg-type]  # a float is meant
    environment.events.request.fire(
        request_type=record.protocol,
        name=record.kind,
        response_time=1e3 * record.e2e_s,
        response_length=record.tokens_out,
        exception=record.error,
        context=ms,
    )


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Locust has a --profile, a name for the run: here it is also where the requests come from."""
    parser.conflict_handler = "resolve"
    known = "of loadtest/profiles, or a TOML file; default: %(default)s"
    seconds = decimal("of seconds of at least 0", lambda seconds: seconds >= 0)
    rest = "from an answer to the user's next request; default: the profile's, or 0"
    replacing, add = parser.add_argument_group("the requests").add_argument, parser.add_argument
    replacing("--profile", type=_profile, default=session.DEFAULT_PROFILE, metavar="NAME|FILE", help=known)
    add("--model", default=MODEL, help="where the profile names none")
    add("--think", type=seconds, metavar="S", help=rest, include_in_web_ui=False)
    parser.set_defaults(host=f"grpc://{session.DEFAULT_URL}", web_host="127.0.0.1", stop_timeout=_STOP_S)


def _profile(name: str) -> str:
    try:
        named(name)
    except TrafficError as error:
        raise ArgumentTypeError(str(error).removeprefix("--profile ")) from error
    return name


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    """In each process, after Locust has forked: gRPC and a fork do not go together. The plan of a run without
    a page is made here, before the time of `-t` begins.
    """
    init_gevent()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line for each request
    options: Any = environment.parsed_options
    if isinstance(environment.runner, WorkerRunner):
        return
    profile = named(options.profile)
    if options.num_users is None and isinstance(profile.arrivals, Closed):
        options.num_users = profile.arrivals.users
    elif options.num_users is None and isinstance(profile.arrivals, Gamma | Trace):
        environment.shape_class = ArrivalShape(profile, options.run_time)
        environment.shape_class.runner = environment.runner
    options.plan = _plan(environment) if options.headless else None


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    """The plan goes to the workers with the master's options."""
    options: Any = environment.parsed_options
    runner: Any = environment.runner
    if not options.headless and not isinstance(runner, WorkerRunner):
        options.plan = _plan(environment)  # with what the page says
    if isinstance(options.plan, BenchError):  # said now: a worker that had not come yet would wait for ever
        _log.error(options.plan)
        if options.headless:
            environment.process_exit_code = 2 if isinstance(options.plan, TrafficError) else 1
            spawn(runner.quit)
        raise GreenletExit  # the page stays, for another try
    if isinstance(runner, MasterRunner):
        return
    plan = options.plan
    ProfileUser.traffic = Traffic(
        plan["model"],
        planned(profile_of(plan["profile"]), runner.worker_index),
        {model: Words(**words).writer(plan["salt"]) for model, words in plan["words"].items()},
        connect(parse_target(environment.host or ""), {}, None, None, None, KEEPALIVE_S),
        plan["think_s"],
    )
    if environment.shape_class:
        environment.shape_class.reset_time()  # its windows are the users'


@events.test_stopping.add_listener
def _finish(environment: Environment, **_: Any) -> None:
    """Locust's master ends half a second after its workers are told to: here it first waits for their users'
    last answers, and for the figures of these. Without `STATE_STOPPING` it would give the users of a worker
    that is done to the others.
    """
    options: Any = environment.parsed_options
    if isinstance(runner := environment.runner, MasterRunner) and options.headless:
        runner.update_state(STATE_STOPPING)
        runner.send_message("quit")
        with Timeout(environment.stop_timeout + _REPORT_S, exception=False):
            while runner.clients:
                sleep(0.1)


def _plan(environment: Environment) -> dict[str, Any] | BenchError:
    """As Locust's messages can carry it, or why there is none: TrafficError for bad options, another error
    where the server or the model does not answer.
    """
    options: Any = environment.parsed_options
    host = environment.host or ""
    try:
        target = parse_target(host)
        here = Addresses(str(target), str(target), None)
        profile = over(named(options.profile or session.DEFAULT_PROFILE), target)
        words = words_of(profile, here, options.model, tokenizer=None)
        profile = fitted(profile, here, options.model, _log.warning)
    except InvalidArgument as error:
        return TrafficError(f"--host {host}: {error.limit}, such as grpc://127.0.0.1:8001")
    except TrafficError as error:
        return error
    except BenchError as error:
        return BenchError(f"{error}; make serve starts a server, --host and --model name another")
    think_s = options.think
    if think_s is None and environment.shape_class is None:
        think_s = profile.arrivals.think_s if isinstance(profile.arrivals, Closed) else 0.0
    return {
        "profile": profile.as_table(),
        "model": options.model,
        "words": {model: asdict(found) for model, found in words.items()},
        "salt": time.time_ns(),
        "think_s": think_s,
    }
