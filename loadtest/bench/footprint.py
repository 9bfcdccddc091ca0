"""A server with the default settings: time to start, memory when full, and what its prefix cache saves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from halimede import Client
from loadtest.artifacts import MODEL
from loadtest.bench.plan import Plan
from loadtest.launched import served
from loadtest.memory import Memory, memory_of_tree
from loadtest.prompts import Prompts
from loadtest.streams import Streams
from loadtest.users.watch import watching

_LOOK_S = 0.5
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
    with served(repository, log) as server, closing(Streams(server.urls["grpc"], MODEL)) as streams:
        with Client(server.urls["http"], model=MODEL) as client:
            version = client.health().server_version
        streams.run(prompts.take(1, _WARM_UP_TOKENS), _TOKENS_OUT)
        idle = memory_of_tree(server.process.pid)
        say(f"time to the first token, {plan.prefix_tokens} tokens cached")
        prefix = []
        for _ in range(plan.prefix_pairs):
            shared = prompts.take(1, plan.prefix_tokens)[0]
            pair = (prompts.continued(shared, _TAIL_TOKENS) for _ in range(2))
            prefix.append(Prefix(*(streams.run([prompt], _TOKENS_OUT)[0][0][0] for prompt in pair)))
        say(f"filling {plan.default_slots} slots with {plan.fill_tokens} tokens each")
        answer = plan.fill_tokens // 4  # so long that at the end all slots are running
        with watching(server.process.pid, _LOOK_S) as watch:
            streams.run(prompts.take(plan.default_slots, plan.fill_tokens - answer), answer)
        last = memory_of_tree(server.process.pid)
        looks = (Memory(look.rss, look.pss, look.processes) for look in watch.looks)
        filled = max(last, *looks, key=lambda memory: memory.pss)
        return Footprint(server.ready_s, version, tuple(prefix), idle, filled)
