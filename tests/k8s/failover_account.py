"""What became of each request, and the account of all: no clock, no process, no file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed, at a second of the monotonic clock."""

    at_s: float
    error: str


@dataclass(slots=True)
class Request:
    """`first_s` is when its first token came; `error` is what the caller got, None for a whole answer."""

    id: str
    began_s: float
    first_s: float | None = None
    ended_s: float = 0.0
    error: str | None = None
    failures: list[Failure] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        """A failed answer's last attempt is among its failures, unless it ended with too few tokens."""
        return max(1, len(self.failures) + (self.error is None))

    def spans(self) -> list[tuple[float, float]]:
        """When each attempt ran; the wait before it is its own."""
        ends = [*(failure.at_s for failure in self.failures[: self.attempts - 1]), self.ended_s]
        return list(zip([self.began_s, *ends], ends, strict=False))


@dataclass(frozen=True, slots=True)
class Death:
    """A server that was killed: its addresses, and when."""

    addresses: frozenset[str]
    at_s: float


@dataclass(frozen=True, slots=True)
class Served:
    """A line of the balancer's log: the servers that it asked in turn."""

    upstreams: tuple[str, ...]
    tries: int


@dataclass(frozen=True, slots=True)
class Account:
    """Requests. sent = completed + failed_after_first + failed_otherwise.

    `on_victim` were in flight on the server that died, when it died; `on_victim_streaming` of them were past
    their first token. `moved` were sent to another server by the balancer itself; `retried` were sent again
    by the client and completed. `errors` counts those of every attempt, made good or not.
    """

    sent: int
    completed: int
    attempts: int
    on_victim: int
    on_victim_streaming: int
    moved: int
    retried: int
    failed_after_first: int
    failed_otherwise: int
    errors: Mapping[str, int]


def account(
    requests: Sequence[Request], served: Mapping[str, Sequence[Served]], death: Death | None = None
) -> Account:
    """`served` has the log's lines of each request, by its id, in order."""
    failed = [one for one in requests if one.error is not None]
    caught = {one.id: _caught(one, served.get(one.id, ()), death) for one in requests}
    excused = sum(caught[one.id] is Caught.STREAMING for one in failed)
    return Account(
        sent=len(requests),
        completed=len(requests) - len(failed),
        attempts=sum(one.attempts for one in requests),
        on_victim=sum(found is not None for found in caught.values()),
        on_victim_streaming=sum(found is Caught.STREAMING for found in caught.values()),
        moved=sum(any(line.tries > 1 for line in served.get(one.id, ())) for one in requests),
        retried=sum(one.error is None and one.attempts > 1 for one in requests),
        failed_after_first=excused,
        failed_otherwise=len(failed) - excused,
        errors=Counter(_errors(requests)),
    )


def _errors(requests: Iterable[Request]) -> Iterator[str]:
    for one in requests:
        yield from (failure.error for failure in one.failures)
        if one.error is not None and not one.failures:
            yield one.error


class Caught(Enum):
    """What a request had of the server that died: nothing yet, or a token."""

    WAITING = auto()
    STREAMING = auto()


def _caught(request: Request, lines: Sequence[Served], death: Death | None) -> Caught | None:
    """None if no attempt was in flight on that server at that moment.

    Attempts and lines are matched from the last: one that never reached the balancer has no line. The last
    server of a line is the one that answered, whenever the caller noticed its first token.
    """
    for (began, ended), line in zip(reversed(request.spans()), reversed(lines), strict=False):
        if death and began <= death.at_s < ended and not death.addresses.isdisjoint(line.upstreams):
            begun = request.first_s is not None and began <= request.first_s <= ended
            return Caught.STREAMING if begun and line.upstreams[-1] in death.addresses else Caught.WAITING
    return None


def served(log: Iterable[str]) -> Mapping[str, list[Served]]:
    """The lines of a balancer's access log by request id, in their order. Lines of probes are skipped."""
    found: dict[str, list[Served]] = {}
    for line in log:
        entry = json.loads(line)
        if entry.get("attempt"):
            found.setdefault(entry["attempt"], []).append(_served(entry))
    return found


def _served(entry: Mapping[str, Any]) -> Served:
    """nginx names every server it asked, Envoy the last and how often it tried."""
    upstreams = tuple(entry["upstream"].split(", ")) if entry.get("upstream") else ()
    return Served(upstreams, int(entry.get("tries") or max(1, len(upstreams))))
