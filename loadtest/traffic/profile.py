"""A profile: everything that a load test offers and asks for, read from TOML.

docs/loadtest.md has every key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from loadtest.errors import TrafficError
from loadtest.fields import Number, Text, Tokens, Whole, fault, read, table_from, table_of
from loadtest.traffic.arrivals import RATE, SPEED, USERS, Arrivals, Closed, Trace, arrivals_of
from loadtest.traffic.lengths import Lengths, lengths_of

_SEED = Whole(0, 2**63 - 1)
_ABOVE_0, _FROM_0 = Number(above=0), Number()
_Positive = Annotated[float, _ABOVE_0]
_Share = Annotated[float, Number(most=1)]
_Lengths = Annotated[Lengths, lengths_of]


class Protocol(Enum):
    GRPC = "grpc"  # a stream over gRPC
    HTTP = "http"  # generate_stream
    UNARY = "unary"  # generate: one answer


class Task(Enum):
    """What the prompt asks for. A chat's prompt is a message, the others' are text as it stands."""

    CHAT = "chat"
    COMPLETE = "complete"
    SUMMARIZE = "summarize"
    TRANSLATE = "translate"


class Bad(Enum):
    """A request that the server must refuse."""

    TOO_LONG = "too_long"  # more tokens than its context
    BAD_TEMPERATURE = "bad_temperature"
    EMPTY = "empty"  # no prompt
    NOT_JSON = "not_json"


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """A share of the requests begin with the text of one of some groups."""

    share: _Share = 0.5
    tokens: Tokens = 256
    groups: Tokens = 4


@dataclass(frozen=True, slots=True)
class MixEntry:
    """One kind of request. Without lengths it takes those of the trace."""

    name: Text
    weight: _Positive = 1.0
    protocol: Protocol = Protocol.GRPC
    model: Text | None = None
    task: Task = Task.CHAT
    prompt_tokens: _Lengths | None = None
    output_tokens: _Lengths | None = None
    shared_prefix: SharedPrefix | None = None
    disconnect_after_tokens: Tokens | None = None
    bad: Bad | None = None
    temperature: Annotated[float, _FROM_0] = 0.0
    ignore_eos: bool = True
    timeout_s: _Positive = 120.0


@dataclass(frozen=True, slots=True)
class Slo:
    """The limits of the whole run, each where given; `request_*` are those of one request, for goodput."""

    ttft_p50_s: _Positive | None = None
    ttft_p99_s: _Positive | None = None
    gap_p99_s: _Positive | None = None
    itl_p99_s: _Positive | None = None
    tpot_p99_s: _Positive | None = None
    e2e_p99_s: _Positive | None = None
    error_ratio: _Share = 0.0
    request_ttft_s: _Positive | None = None
    request_gap_s: _Positive | None = None
    request_tpot_s: _Positive | None = None
    request_e2e_s: _Positive | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """The rates that a sweep probes. `resolution` is relative to the rate."""

    start_per_s: _Positive = 0.25
    max_per_s: _Positive = 64.0
    step_s: _Positive = 30.0
    resolution: Annotated[float, Number(least=0.01, most=1)] = 0.1


def _sweep(content: object, place: str) -> Sweep:
    """No rate above `max_per_s` is probed, the first one neither."""
    sweep, table = read(Sweep, content, place), table_of(content, place)
    if "max_per_s" not in table:
        return replace(sweep, max_per_s=max(sweep.max_per_s, sweep.start_per_s))
    Number(least=sweep.start_per_s)(table["max_per_s"], f"{place}.max_per_s")
    return sweep


@dataclass(frozen=True, slots=True)
class Profile:
    """A run takes `warmup_s`, whose requests do not count, and then `duration_s`.

    `max_context` is the served model's, or less: longer requests are cut to it, and marked.
    """

    name: Text
    mix: tuple[MixEntry, ...]
    arrivals: Annotated[Arrivals, arrivals_of] = field(default_factory=Closed)
    description: Text = ""
    duration_s: _Positive = 60.0
    warmup_s: Annotated[float, _FROM_0] = 5.0
    seed: Annotated[int, _SEED] = 1
    max_context: Annotated[int, Whole(128)] | None = None
    slo: Slo = field(default_factory=Slo)
    sweep: Annotated[Sweep, _sweep] = field(default_factory=Sweep)

    @property
    def total_s(self) -> float:
        return self.warmup_s + self.duration_s

    def as_table(self) -> dict[str, Any]:
        """What `profile_of` reads as this profile: for JSON, and for the workers of a distributed run."""
        return table_from(self)


def load_profile(path: Path) -> Profile:
    """The profile in the file. TrafficError when it cannot be read, or names the key that is wrong."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise TrafficError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise TrafficError(f"{path}: is not TOML: {error}") from error
    try:
        return profile_of(content, path.stem, path.parent)
    except TrafficError as error:
        raise TrafficError(f"{path}: {error}") from error


def profile_of(content: Mapping[str, Any], name: str = "profile", folder: Path = Path()) -> Profile:
    """The profile of a parsed file; `name` where it has none, `folder` has its trace."""
    profile = read(Profile, {"name": name, **content})
    if not profile.mix:
        raise fault("mix", [], "must be a list that is not empty")
    for number, entry in enumerate(profile.mix):
        place = f"mix[{number}]"
        if entry.name in [other.name for other in profile.mix[:number]]:
            raise TrafficError(f"{place}.name: {entry.name!r}, is given twice")
        leaves = f"{place}.disconnect_after_tokens"
        if entry.disconnect_after_tokens and entry.protocol is Protocol.UNARY:
            raise TrafficError(
                f"{leaves}: a unary request has no stream to leave; protocol must be grpc or http"
            )
        if entry.disconnect_after_tokens and entry.bad:
            raise TrafficError(f"{leaves}: a bad request has no answer to leave; give one of the two")
        for key in ("prompt_tokens", "output_tokens"):
            is_given = getattr(entry, key) is not None or isinstance(profile.arrivals, Trace)
            if not is_given and entry.bad is not Bad.EMPTY:
                raise TrafficError(f"{place}.{key}: is missing; only a trace brings lengths of its own")
    if isinstance(profile.arrivals, Trace) and profile.arrivals.file:
        return replace(profile, arrivals=replace(profile.arrivals, file=folder / profile.arrivals.file))
    return profile


def with_overrides(
    profile: Profile,
    *,
    rate_per_s: float | None = None,
    users: int | None = None,
    duration_s: float | None = None,
    warmup_s: float | None = None,
    seed: int | None = None,
    speed: float | None = None,
) -> Profile:
    """The profile with what the command line says instead; TrafficError where it has none such."""
    arrivals = profile.arrivals
    if users is not None:
        if not isinstance(arrivals, Closed):
            raise TrafficError(f"--users {users}: only closed arrivals have users; --rate changes these")
        arrivals = replace(arrivals, users=USERS(users, "--users"))
    if speed is not None:
        if not isinstance(arrivals, Trace):
            raise TrafficError(f"--speed {speed:g}: only a trace has a speed")
        arrivals = replace(arrivals, speed=SPEED(speed, "--speed"))
    if rate_per_s is not None:
        arrivals = _with_rate(arrivals, RATE(rate_per_s, "--rate"))
    if duration_s is not None:
        profile = replace(profile, duration_s=_ABOVE_0(duration_s, "--duration"))
    if warmup_s is not None:
        profile = replace(profile, warmup_s=_FROM_0(warmup_s, "--warmup"))
    if seed is not None:
        profile = replace(profile, seed=_SEED(seed, "--seed"))
    return replace(profile, arrivals=arrivals)


def _with_rate(arrivals: Arrivals, rate_per_s: float) -> Arrivals:
    """At exactly this rate: a generator's speed is 1 from here on."""
    if isinstance(arrivals, Closed):
        raise TrafficError(f"--rate {rate_per_s:g}: closed arrivals have no rate; --users changes these")
    if not isinstance(arrivals, Trace):
        return replace(arrivals, rate_per_s=rate_per_s)
    if arrivals.file:
        raise TrafficError(
            f"--rate {rate_per_s:g}: a trace's file brings its own times; --speed changes them"
        )
    return replace(arrivals, rate_per_s=rate_per_s, speed=1.0)
