"""A server with the default settings: time to start, memory when full, and what its prefix cache saves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from loadtest.artifacts import MODEL
from loadtest.bench.plan import Plan
from loadtest.memory import Memory, PeakMemory, memory_of_tree
from loadtest.prompts import Prompts
from loadtest.served import served
from loadtest.streams import Streams

_WARM_UP_TOKENS, _TAIL_TOKENS = 128, 16
_TOKENS_OUT = 2


@dataclass(frozen=True, slots=True)
class Prefix:
    """Seconds to the first token of two prompts that begin with the same tokens, one after the other."""

    cold_s: float
    cached_s: float


@dataclass(frozen=True, slots=True)
class Footprint:
    """`filled` is the most that was seen while every slot held `fill_tokens` tokens."""

    ready_s: float
    server_version: str
    prefix: tuple[Prefix, ...]
    idle: Memory
    filled: Memory


def footprint(
    repository: Path, log: Path, plan: Plan, prompts: Prompts, say: Callable[[str], None]
) -> Footprint:
    say("starting a server with the default settings")
    with served(repository, log) as server, closing(Streams(server.grpc, MODEL)) as streams:
        streams.run(prompts.take(1, _WARM_UP_TOKENS), _TOKENS_OUT)
        idle = memory_of_tree(server.pid)
        say(f"time to the first token, {plan.prefix_tokens} tokens cached")
        prefix = tuple(_prefix(streams, prompts, plan) for _ in range(plan.prefix_pairs))
        say(f"filling {plan.default_slots} slots with {plan.fill_tokens} tokens each")
        filled = _fill(streams, prompts, plan, server.pid)
        return Footprint(server.ready_s, server.version, prefix, idle, filled)


def _prefix(streams: Streams, prompts: Prompts, plan: Plan) -> Prefix:
    shared = prompts.take(1, plan.prefix_tokens)[0]
    cold, cached = (prompts.continued(shared, _TAIL_TOKENS) for _ in range(2))
    return Prefix(*(streams.run([prompt], _TOKENS_OUT)[0][0][0] for prompt in (cold, cached)))


def _fill(streams: Streams, prompts: Prompts, plan: Plan, pid: int) -> Memory:
    """Answers so long that at the end all slots are running."""
    answer = plan.fill_tokens // 4
    with PeakMemory(pid) as watched:
        streams.run(prompts.take(plan.default_slots, plan.fill_tokens - answer), answer)
    return watched.peak
