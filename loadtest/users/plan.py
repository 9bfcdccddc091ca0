"""What the master tells a worker to do, and what the worker tells it: plain values, for Locust's messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from loadtest.traffic.profile import Profile, profile_of

# Master to worker.
PLAN = "halimede_plan"
GO = "halimede_go"  # zero_epoch_s: the run's zero on the wall clock
STOP = "halimede_stop"  # how: STOP_SOFT or STOP_HARD
STOP_SOFT = "begin no more requests"
STOP_HARD = "end those that are open too"
# Worker to master.
REPORT = "halimede_report"


class State(Enum):
    READY = "ready"  # waits for GO
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Words:
    """How prompts for a model are written: by the tokenizer in that file where the worker has it, else by the
    number of tokens that a word came to when the server was asked."""

    tokenizer: str | None
    tokens_per_word: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One worker's part of a run. `salt` makes the prompts of this run its own. At most `cap` requests may be
    open at a time; after `drain_s` those that still are end as errors."""

    run: int
    profile: Mapping[str, Any]
    worker: int
    workers: int
    grpc_url: str
    http_url: str
    model: str
    salt: int
    words: Mapping[str, Words]
    cap: int
    drain_s: float
    connections: int

    def load(self) -> Profile:
        return profile_of(self.profile)

    def encode(self) -> dict[str, Any]:
        return asdict(self)


def plan_of(data: Mapping[str, Any]) -> Plan:
    words = {model: Words(**how) for model, how in data["words"].items()}
    return Plan(**{**data, "words": words})


@dataclass(frozen=True, slots=True)
class Report:
    """Some records as JSON lines, and the worker's counts so far: requests `begun`, `open` now, not sent as
    the cap was reached, and tokens that have come, those of open requests too. `wall_s` is its clock; `fault`
    says why it gave up."""

    run: int
    state: State
    wall_s: float
    lines: tuple[str, ...] = ()
    begun: int = 0
    open: int = 0
    capped: int = 0
    tokens: int = 0
    examples: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None

    def encode(self) -> dict[str, Any]:
        return {**asdict(self), "state": self.state.value}


def report_of(data: Mapping[str, Any]) -> Report:
    return Report(**{**data, "lines": tuple(data["lines"]), "state": State(data["state"])})
