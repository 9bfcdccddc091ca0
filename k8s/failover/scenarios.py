"""What is done to the servers while the load goes on: replaced one by one, or killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from k8s.failover.balancers import Balancer
from k8s.failover.ledger import Death, Request
from k8s.failover.load import Load, User
from k8s.failover.servers import Broken, NotStarted, Server

SETTLE_S: Final = 1.0
LATE_S: Final = 1.5
# Later than any removal is.
LONG_SETTLE_S: Final = 3.0
WARM_S: Final = 1.5
# How long the endpoints still name a server that is dead.
UNNOTICED_S: Final = 3.0
STARTS: Final = 6
HOOK_LIMIT_S: Final = 120.0
BUSY_LIMIT_S: Final = 60.0
BUSY_LOOKS: Final = 4
IDLE_S: Final = 6.0
# Leaves a starting server some of two cores: one that gets none for a second gives up (see docs/failover.md).
PAUSE_S: Final = 0.5


class Scenario(Enum):
    """The value is what the report calls it."""

    ROLLING = "rolling restart"
    LATE = "rolling restart, removed late"
    KILL = "kill -9 of one"
    CARELESS = "no hook, removed late"


# So many users and so quick that requests wait on every server; it is replaced after them, for there is no
# processor left for a start.
CROWDED: Final = frozenset({Scenario.KILL, Scenario.CARELESS})


@dataclass(frozen=True, slots=True)
class Outcome:
    scenario: Scenario
    requests: tuple[Request, ...]
    death: Death | None
    seconds: float


class Fleet:
    """The replicas. One that ends or hangs as it starts is started again, as the kubelet does."""

    def __init__(self, make: Callable[[], Server], count: int, say: Callable[[str], None]) -> None:
        self._make, self._say = make, say
        self.restarts = 0
        self.servers = [make() for _ in range(count)]

    def wait_ready(self) -> None:
        self.servers = [self._made_ready(server) for server in self.servers]

    def without(self, victim: Server) -> list[Server]:
        return [one for one in self.servers if one is not victim]

    def replace(self, old: Server, balancer: Balancer) -> None:
        """A new server, put into the balancer once its model is ready."""
        at = self.servers.index(old)
        self.servers[at] = self._made_ready(self._make())
        balancer.endpoints(self.servers)

    def close(self) -> None:
        for server in self.servers:
            server.stop()

    def _made_ready(self, server: Server) -> Server:
        for _ in range(STARTS - 1):
            try:
                server.wait_ready()
            except NotStarted as problem:
                server.kill()
                self.restarts += 1
                self._say(f"  started again: {problem}")
                server = self._make()
            else:
                return server
        return _ready_or_killed(server)


@dataclass(frozen=True, slots=True)
class Stage:
    """One balancer before the fleet, and the load on it."""

    fleet: Fleet
    balancer: Balancer
    model: str
    users: int
    say: Callable[[str], None]

    def play(self, scenario: Scenario) -> Outcome:
        began, death = time.monotonic(), None
        with Load(self._crowd(scenario), self.model) as load:
            time.sleep(WARM_S)
            match scenario:
                case Scenario.ROLLING:
                    self._roll(SETTLE_S, 0.0)
                case Scenario.LATE:
                    self._roll(LONG_SETTLE_S, LATE_S)
                case Scenario.CARELESS:
                    self._drop(self.fleet.servers[0])
                case Scenario.KILL:
                    death = self._kill()
            time.sleep(WARM_S)
        if scenario in CROWDED:
            self.fleet.replace(self.fleet.servers[0], self.balancer)
        return Outcome(scenario, tuple(load.requests), death, time.monotonic() - began)

    def _crowd(self, scenario: Scenario) -> list[User]:
        """Of each protocol so many that ask again and again, and one whose connection idles in between."""
        doors = (("grpc", self.balancer.grpc), ("http", self.balancer.http))
        busy = [0.0] * 2 * self.users if scenario in CROWDED else [PAUSE_S] * self.users
        return [
            User(url, protocol, pause_s, seed)
            for protocol, url in doors
            for seed, pause_s in enumerate([*busy, IDLE_S])
        ]

    def _roll(self, settle_s: float, late_s: float) -> None:
        for number, server in enumerate(list(self.fleet.servers)):
            began = time.monotonic()
            self._retire(server, settle_s, late_s)
            if code := server.wait():
                raise Broken(f"the launcher ended with {code} after SIGTERM")
            retired = time.monotonic()
            self.fleet.replace(server, self.balancer)
            out_s, in_s = retired - began, time.monotonic() - retired
            self.say(f"  server {number + 1}: drained and ended in {out_s:.1f} s, replaced in {in_s:.1f} s")

    def _retire(self, server: Server, settle_s: float, late_s: float) -> None:
        """The hook and the endpoints controller begin together; only after the hook comes SIGTERM."""
        with server.pre_stop(settle_s) as hook:
            time.sleep(late_s)
            self.balancer.endpoints(self.fleet.without(server))
            if code := hook.wait(HOOK_LIMIT_S):
                raise Broken(f"drain.py ended with {code}")
        server.terminate()

    def _drop(self, server: Server) -> None:
        """Without a hook: SIGTERM while requests still come. What the hook is for."""
        _wait_busy(server)
        server.terminate()
        server.wait()
        time.sleep(UNNOTICED_S)
        self.balancer.endpoints(self.fleet.without(server))

    def _kill(self) -> Death:
        victim = self.fleet.servers[0]
        _wait_busy(victim)
        death = Death(victim.addresses, time.monotonic())
        victim.kill()
        self.say("  server 1 killed")
        time.sleep(UNNOTICED_S)
        self.balancer.endpoints(self.fleet.without(victim))
        return death


def _ready_or_killed(server: Server) -> Server:
    try:
        server.wait_ready()
    except NotStarted:
        server.kill()
        raise
    return server


def _wait_busy(server: Server) -> None:
    """Until a kill hits requests of both kinds, before their first token and past it.

    Several looks in a row: a first token that the engine has counted is not yet with its caller.
    """
    end, busy = time.monotonic() + BUSY_LIMIT_S, 0
    while busy < BUSY_LOOKS:
        if time.monotonic() > end:
            raise Broken(f"{server.http} was not busy enough within {BUSY_LIMIT_S:g} s to be killed")
        time.sleep(0.25)
        busy = busy + 1 if server.is_busy() else 0


def server_maker(repository: Path, model: str, folder: Path) -> Callable[[], Server]:
    """Each with a log of its own."""
    numbers = iter(range(1, 1000))
    return lambda: Server(repository, model, folder / f"server-{next(numbers)}.log")
