"""What is done to servers behind a balancer while users read streams: restarted one by one, or killed."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from halimede import Client, HalimedeError, RetryPolicy
from halimede.traceparent import new_traceparent
from loadtest.launched import NotReady
from tests.k8s.balancers import Balancer
from tests.k8s.failover_account import Death, Failure, Request
from tests.live.artifacts import MODEL, built, variant
from tests.live.serving import Server
from tests.paths import ROOT

PROMPTS = ("Once upon a time", "The capital of France is", "To bake bread, first", "At night the sea")
TOKENS = (16, 48)
# Three of them on two cores: little memory, a thread each, and so few slots that some requests wait.
SMALL = {"slots": "2", "max_context": "512", "max_queue": "32", "threads": "1", "heartbeat_ms": "100"}
AGE_MS = 5000  # the chart has 300 s; here connections reach that age in every play
WARM_S = 1.5
LATE_S = 1.5
SETTLE_S = 3.0  # longer than the endpoints name a server that drains
UNNOTICED_S = 3.0  # so long they name one that is dead
STARTS = 6
START_LIMIT_S = 40.0
HOOK_LIMIT_S = 120.0
BUSY_LIMIT_S = 60.0
BUSY_LOOKS = 4
IDLE_S = 6.0
# Leaves a starting server some of two cores: one that gets none for a second gives up (see docs/operate.md).
PAUSE_S = 0.5


class Play(Enum):
    LATE = "rolling restart, removed late"
    KILL = "kill -9 of one"
    CARELESS = "no hook, removed late"


# So many users and so quick that requests wait on every server. It is replaced after the play, for there is
# no processor left for a start.
CROWDED = frozenset({Play.KILL, Play.CARELESS})


class Fleet:
    """The replicas. One that ends or hangs as it starts is started again, as the kubelet does."""

    def __init__(self, folder: Path, count: int) -> None:
        self._repository = variant(built("int8"), folder / "repository", SMALL)
        self._folder, self._started = folder, 0
        self.servers = [self._start() for _ in range(count)]

    def wait_ready(self) -> None:
        self.servers = [self._ready(server) for server in self.servers]

    def without(self, gone: Server) -> list[Server]:
        return [one for one in self.servers if one is not gone]

    def replace(self, old: Server, balancer: Balancer) -> None:
        """A new server, put into the balancer once its model is ready."""
        self.servers[self.servers.index(old)] = self._ready(self._start())
        balancer.endpoints(self.servers)

    def _start(self) -> Server:
        self._started += 1
        log = self._folder / f"server-{self._started}.log"
        return Server(self._repository, log, "--", f"--grpc-max-connection-age={AGE_MS}")

    def _ready(self, server: Server) -> Server:
        for _ in range(STARTS - 1):
            try:
                return server.wait_ready(START_LIMIT_S)
            except NotReady:
                server.kill()
                server = self._start()
        return server.wait_ready(START_LIMIT_S)


@contextmanager
def fleet(folder: Path, count: int) -> Iterator[Fleet]:
    """So many replicas, ready."""
    found = Fleet(folder, count)
    try:
        found.wait_ready()
        yield found
    finally:
        for server in found.servers:
            if server.running:
                server.stop()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The requests of each protocol, and the server that was killed."""

    requests: Mapping[str, list[Request]]
    death: Death | None


def play(what: Play, replicas: Fleet, balancer: Balancer, users: int = 2) -> Outcome:
    """`users` of each protocol ask again and again, and one more, whose connection idles in between."""
    pauses = [0.0] * 2 * users if what in CROWDED else [PAUSE_S] * users
    death = None
    with _load(balancer, [*pauses, IDLE_S]) as requests:
        time.sleep(WARM_S)
        victim = replicas.servers[0]
        match what:
            case Play.LATE:
                for server in list(replicas.servers):
                    _retire(server, replicas, balancer)
            case Play.KILL:
                _wait_busy(victim)
                death = Death(frozenset({victim.at("grpc"), victim.at("http")}), time.monotonic())
                victim.kill()
            case Play.CARELESS:
                _wait_busy(victim)
                victim.process.terminate()
                victim.wait_ended()
        if what in CROWDED:
            time.sleep(UNNOTICED_S)
            balancer.endpoints(replicas.without(victim))
        time.sleep(WARM_S)
    if what in CROWDED:
        replicas.replace(victim, balancer)
    return Outcome(requests, death)


def _retire(server: Server, replicas: Fleet, balancer: Balancer) -> None:
    """The hook and the endpoints controller begin together; only after the hook comes SIGTERM."""
    hook = [sys.executable, "-I", "-S", str(ROOT / "server" / "drain.py")]
    hook += ["--metrics", str(server.address.metrics), "--settle-s", str(SETTLE_S)]
    with subprocess.Popen(hook, stderr=subprocess.DEVNULL) as drain:
        time.sleep(LATE_S)
        balancer.endpoints(replicas.without(server))
        assert drain.wait(HOOK_LIMIT_S) == 0
    server.process.terminate()
    assert server.wait_ended() == 0
    replicas.replace(server, balancer)


def _wait_busy(server: Server) -> None:
    """Until a kill hits requests of both kinds, before their first token and past it.

    Several looks in a row: a first token that the engine has counted is not yet with its caller.
    """
    end, busy = time.monotonic() + BUSY_LIMIT_S, 0
    while busy < BUSY_LOOKS:
        assert time.monotonic() < end, f"{server.at('http')} was not busy enough to be killed"
        time.sleep(0.25)
        found = server.metrics
        streams = found.total("time_to_first_token_seconds_count") - found.total("request_success_total")
        busy = busy + 1 if found.total("num_requests_waiting") > 0 and streams > 0 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _NotedRetries(RetryPolicy):
    """The client's own policy, which also notes each failed attempt."""

    failures: list[Failure] = field(default_factory=list)

    def delay_s(self, error: HalimedeError, failures: int, remaining_s: float | None) -> float | None:
        self.failures.append(Failure(time.monotonic(), _said(error)))
        return RetryPolicy.delay_s(self, error, failures, remaining_s)


@contextmanager
def _load(balancer: Balancer, pauses: list[float]) -> Iterator[Mapping[str, list[Request]]]:
    """A user of each protocol for each pause; what is under way at the end is read to its end."""
    urls = {"grpc": f"grpc://{balancer.grpc}", "http": f"http://{balancer.http}"}
    requests: dict[str, list[Request]] = {protocol: [] for protocol in urls}
    over = threading.Event()

    def ask(protocol: str, seed: int, pause_s: float) -> None:
        luck, retry = random.Random(seed), _NotedRetries()
        with Client(urls[protocol], model=MODEL, retry=retry) as client:
            while not over.is_set():
                request = Request(new_traceparent(), time.monotonic())
                _read(client, request, luck)
                request.failures.extend(retry.failures)
                retry.failures.clear()
                requests[protocol].append(request)
                over.wait(pause_s)

    with ThreadPoolExecutor(len(urls) * len(pauses)) as crowd:
        users = [crowd.submit(ask, name, *user) for name in urls for user in enumerate(pauses)]
        try:
            yield requests
        finally:
            over.set()
    for user in users:
        user.result()


def _read(client: Client, request: Request, luck: random.Random) -> None:
    wanted = luck.randint(*TOKENS)
    stream = client.stream(
        luck.choice(PROMPTS),
        max_tokens=wanted,
        ignore_eos=True,
        return_num_output_tokens=True,
        traceparent=request.id,
    )
    try:
        for _ in stream:
            request.first_s = request.first_s or time.monotonic()
        got = stream.generation.num_output_tokens
        request.error = None if got == wanted else f"{got} tokens instead of {wanted}"
    except HalimedeError as error:
        request.error = _said(error)
    request.ended_s = time.monotonic()


def _said(error: HalimedeError) -> str:
    return f"{type(error).__name__}: {error}"[:160]
