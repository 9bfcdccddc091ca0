"""The requests of a run, one after the other, the same in every run of the same profile and seed.

Each request draws what it is from its own generator of random numbers, seeded by the profile and its number.
So it is the same for every worker and at every rate: of n workers each takes every n-th request of one
schedule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice, takewhile
from random import Random

from loadtest.errors import TrafficError
from loadtest.traffic.arrivals import (
    Arrival,
    Closed,
    Constant,
    Gamma,
    Poisson,
    Trace,
    constant_times,
    generated,
    random_times,
    read_trace,
)
from loadtest.traffic.lengths import Lengths
from loadtest.traffic.profile import Bad, MixEntry, Profile

# A chat template adds to a prompt; SmolLM2's comes to 30 tokens.
TEMPLATE_TOKENS = 48
# What follows a shared prefix: room enough to differ at once.
MIN_OWN_TOKENS = 8
# Their lengths are what is wrong with them.
_UNCUT = frozenset({Bad.TOO_LONG, Bad.EMPTY})


@dataclass(frozen=True, slots=True)
class Planned:
    """One request as it is to be sent.

    `at_s` is in seconds since the start of the run, its warm-up included; None in a closed loop: when a user
    is free. The first `prefix_tokens` of its `tokens_in` are those of its group. `clipped`: its lengths were
    drawn (or recorded) outside of what the profile's max_context holds. `seed` makes its text its own.
    """

    request: int
    at_s: float | None
    kind: MixEntry
    tokens_in: int
    tokens_out: int
    prefix_group: int | None
    prefix_tokens: int
    clipped: bool
    seed: int


def schedule(profile: Profile, worker: int = 0, workers: int = 1) -> Iterator[Planned]:
    """The requests of one of the workers, in order; without end in a closed loop.

    A trace's file is read here, before the first request: TrafficError when it cannot be.
    """
    if not 0 <= worker < workers:
        raise TrafficError(f"worker {worker}: must be from 0 to {workers - 1}")
    due = _due(profile)
    return (
        _planned(profile, number, arrival)
        for number, arrival in islice(enumerate(due), worker, None, workers)
    )


def clipped(profile: Profile, requests: int) -> int:
    """How many of the first `requests` of a schedule had their lengths cut to max_context."""
    return sum(planned.clipped for planned in islice(schedule(profile), requests))


def share_of(users: int, worker: int, workers: int) -> int:
    """The users of a closed loop that are this worker's."""
    return users // workers + (worker < users % workers)


_Due = tuple[float | None, Arrival | None]


def _due(profile: Profile) -> Iterator[_Due]:
    """When each request is due, and the recorded one that it stands for."""
    end_s, random = profile.total_s, Random(f"{profile.seed}/times")
    match profile.arrivals:
        case Closed():
            return ((None, None) for _ in count())
        case Trace() as trace:
            recorded: Iterable[Arrival] = (
                read_trace(trace.file, trace.columns, trace.speed)
                if trace.file
                else generated(trace, profile.seed)
            )
            return ((arrival.at_s, arrival) for arrival in takewhile(lambda a: a.at_s < end_s, recorded))
        case Constant(rate_per_s):
            times = constant_times(rate_per_s)
        case Poisson(rate_per_s):
            times = random_times(rate_per_s, 1.0, random)
        case Gamma(rate_per_s, variation):
            times = random_times(rate_per_s, variation, random)
    return ((at_s, None) for at_s in takewhile(lambda at_s: at_s < end_s, times))


def _planned(profile: Profile, request: int, due: _Due) -> Planned:
    random = Random(f"{profile.seed}/{request}")
    kind = random.choices(profile.mix, [entry.weight for entry in profile.mix])[0]
    at_s, arrival = due
    scale = profile.arrivals.scale if isinstance(profile.arrivals, Trace) else 1.0
    drawn_in = _drawn(kind.prompt_tokens, arrival.tokens_in if arrival else None, scale, random)
    drawn_out = _drawn(kind.output_tokens, arrival.tokens_out if arrival else None, scale, random)
    tokens_in, tokens_out = _clipped(profile, kind, drawn_in, drawn_out)
    group, prefix_tokens = _prefix(kind, tokens_in, random)
    return Planned(
        request, at_s, kind, tokens_in, tokens_out, group, prefix_tokens,
        clipped=kind.bad not in _UNCUT and (tokens_in, tokens_out) != (drawn_in, drawn_out),
        seed=random.getrandbits(63),
    )  # fmt: skip


def _drawn(lengths: Lengths | None, recorded: int | None, scale: float, random: Random) -> int:
    """The entry's own length first, then the trace's; 0 where there is neither: an empty prompt has none."""
    if lengths is not None:
        return lengths.sample(random)
    return 0 if recorded is None else round(recorded * scale)


def _clipped(profile: Profile, kind: MixEntry, tokens_in: int, tokens_out: int) -> tuple[int, int]:
    """At least a token each way, both within the context; the answer's length is kept if it can be."""
    if kind.bad in _UNCUT:
        return tokens_in, max(tokens_out, 1)
    tokens_in, tokens_out = max(tokens_in, 1), max(tokens_out, 1)
    if profile.max_context is None:
        return tokens_in, tokens_out
    room = profile.max_context - TEMPLATE_TOKENS
    tokens_out = min(tokens_out, room // 2) if tokens_in + tokens_out > room else tokens_out
    return min(tokens_in, room - tokens_out), tokens_out


def _prefix(kind: MixEntry, tokens_in: int, random: Random) -> tuple[int | None, int]:
    shared = kind.shared_prefix
    if shared is None:
        return None, 0
    # Both are drawn always, so that a change of the share changes nothing else.
    chosen, group = random.random() < shared.share, random.randrange(shared.groups)
    tokens = min(shared.tokens, tokens_in - MIN_OWN_TOKENS)
    return (group, tokens) if chosen and tokens > 0 else (None, 0)
