"""The kinds of requests that a load is mixed of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any

from loadtest.errors import TrafficError
from loadtest.traffic.lengths import Lengths, lengths_of
from loadtest.traffic.table import Table


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
    """So many of the requests (a share) begin with the text of one of some groups."""

    share: float = 0.5
    tokens: int = 256
    groups: int = 4


@dataclass(frozen=True, slots=True)
class MixEntry:
    """One kind of request. Without lengths it takes those of the trace."""

    name: str
    weight: float = 1.0
    protocol: Protocol = Protocol.GRPC
    model: str | None = None
    task: Task = Task.CHAT
    prompt_tokens: Lengths | None = None
    output_tokens: Lengths | None = None
    shared_prefix: SharedPrefix | None = None
    disconnect_after_tokens: int | None = None
    bad: Bad | None = None
    temperature: float = 0.0
    ignore_eos: bool = True
    timeout_s: float = 120.0


def entry_of(table: Table) -> MixEntry:
    """The entry of one [[mix]] table."""
    entry = MixEntry(
        name=table.text("name"),
        weight=table.number("weight", 1.0, above=0),
        protocol=table.choice("protocol", Protocol, Protocol.GRPC),
        model=table.text("model") if table.has("model") else None,
        task=table.choice("task", Task, Task.CHAT),
        prompt_tokens=_lengths(table, "prompt_tokens"),
        output_tokens=_lengths(table, "output_tokens"),
        shared_prefix=_prefix(table.table("shared_prefix")) if table.has("shared_prefix") else None,
        disconnect_after_tokens=_disconnect(table),
        bad=table.choice("bad", Bad) if table.has("bad") else None,
        temperature=table.number("temperature", 0.0),
        ignore_eos=table.flag("ignore_eos", True),
        timeout_s=table.number("timeout_s", 120.0, above=0),
    )
    table.close()
    _check(entry, table)
    return entry


def choose(mix: Sequence[MixEntry], random: Random) -> MixEntry:
    return random.choices(mix, [entry.weight for entry in mix])[0]


def as_table(entry: MixEntry) -> dict[str, Any]:
    """The table that `entry_of` reads as this entry."""
    prefix = entry.shared_prefix
    return {
        "name": entry.name,
        "weight": entry.weight,
        "protocol": entry.protocol.value,
        "task": entry.task.value,
        "temperature": entry.temperature,
        "ignore_eos": entry.ignore_eos,
        "timeout_s": entry.timeout_s,
        **({"model": entry.model} if entry.model else {}),
        **({"prompt_tokens": entry.prompt_tokens.as_table()} if entry.prompt_tokens else {}),
        **({"output_tokens": entry.output_tokens.as_table()} if entry.output_tokens else {}),
        **({"shared_prefix": _prefix_table(prefix)} if prefix else {}),
        **(
            {"disconnect_after_tokens": entry.disconnect_after_tokens}
            if entry.disconnect_after_tokens
            else {}
        ),
        **({"bad": entry.bad.value} if entry.bad else {}),
    }


def _lengths(table: Table, key: str) -> Lengths | None:
    return lengths_of(table.table(key)) if table.has(key) else None


def _prefix(table: Table) -> SharedPrefix:
    known = SharedPrefix()
    found = SharedPrefix(
        table.number("share", known.share, most=1),
        table.whole("tokens", known.tokens),
        table.whole("groups", known.groups),
    )
    table.close()
    return found


def _prefix_table(prefix: SharedPrefix) -> dict[str, Any]:
    return {"share": prefix.share, "tokens": prefix.tokens, "groups": prefix.groups}


def _disconnect(table: Table) -> int | None:
    key = "disconnect_after_tokens"
    return table.whole(key) if table.has(key) else None


def _check(entry: MixEntry, table: Table) -> None:
    """A disconnect needs a stream, and an answer to leave."""
    if entry.disconnect_after_tokens is None:
        return
    place = table.path("disconnect_after_tokens")
    if entry.protocol is Protocol.UNARY:
        raise TrafficError(f"{place}: a unary request has no stream to leave; protocol must be grpc or http")
    if entry.bad:
        raise TrafficError(f"{place}: a bad request has no answer to leave; give one of the two")
