"""When requests are sent: kinds of arrivals, and their times as iterators.

An open loop sends when a request is due, whether or not the earlier ones were answered; a closed loop has
users who wait for their answer. Schroeder, Wierman, Harchol-Balter: "Open versus closed: a cautionary tale",
NSDI 2006.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from loadtest.errors import TrafficError
from loadtest.traffic.table import Table

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# Of the published trace: 19,366 requests in 3,502 s; the deviation of their gaps is 1.09 of the mean.
AZURE_RATE_PER_S = 5.53
MAX_RATE_PER_S = 100_000.0


@dataclass(frozen=True, slots=True)
class Closed:
    """So many users, each of whom waits for the answer, thinks, and sends the next request."""

    users: int = 8
    think_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Constant:
    rate_per_s: float


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent requests: the gaps between them are exponential."""

    rate_per_s: float


@dataclass(frozen=True, slots=True)
class Gamma:
    """Bursts: gaps of a gamma distribution; `variation` is their deviation by their mean, 1 is Poisson."""

    rate_per_s: float
    variation: float = 2.0


@dataclass(frozen=True, slots=True)
class Trace:
    """The times and lengths of a recorded service, or without a file of a generator with published quantiles.

    `speed` 2 plays it twice as fast, `scale` multiplies the tokens. `rate_per_s` and `variation` are the
    generator's own: a file brings its times.
    """

    file: Path | None = None
    columns: tuple[str, str, str] = COLUMNS
    speed: float = 1.0
    scale: float = 1.0
    rate_per_s: float = AZURE_RATE_PER_S
    variation: float = 1.0


Arrivals = Closed | Constant | Poisson | Gamma | Trace
KINDS: dict[str, type[Arrivals]] = {
    "closed": Closed, "constant": Constant, "poisson": Poisson, "gamma": Gamma, "trace": Trace,
}  # fmt: skip


def constant_times(rate_per_s: float) -> Iterator[float]:
    """Seconds since the start, without end; the first is due at once."""
    return (number / rate_per_s for number in count())


def random_times(rate_per_s: float, variation: float, random: Random) -> Iterator[float]:
    """Seconds since the start, without end; the gaps' deviation is `variation` times their mean."""
    shape = variation**-2
    now_s = 0.0
    while True:
        now_s += random.gammavariate(shape, 1 / (shape * rate_per_s))
        yield now_s


def arrivals_of(table: Table, folder: Path) -> Arrivals:
    """Those of the table [arrivals]; a trace's file is looked for beside the profile, in `folder`."""
    kind = table.text("kind")
    if kind not in KINDS:
        raise table.fault("kind", kind, f"must be one of {', '.join(KINDS)}")
    found = _read(table, KINDS[kind], folder)
    table.close()
    return found


def _read(table: Table, kind: type[Arrivals], folder: Path) -> Arrivals:
    if kind is Closed:
        return Closed(table.whole("users", Closed().users, most=100_000), table.number("think_s", 0.0))
    if kind is Trace:
        return _trace(table, folder)
    if kind is Gamma:
        return Gamma(rate_of(table), _variation(table, 2.0))
    return Constant(rate_of(table)) if kind is Constant else Poisson(rate_of(table))


def _trace(table: Table, folder: Path) -> Trace:
    speed = table.number("speed", 1.0, above=0, most=10_000)
    scale = table.number("scale", 1.0, above=0, most=1_000)
    if not table.has("file"):
        rate, variation = rate_of(table, AZURE_RATE_PER_S), _variation(table, 1.0)
        return Trace(speed=speed, scale=scale, rate_per_s=rate, variation=variation)
    for key in ("rate_per_s", "variation"):
        if table.has(key):
            raise TrafficError(f"{table.path(key)}: a trace's file brings its own times; speed changes them")
    return Trace(folder / table.text("file"), _columns(table), speed, scale)


def _columns(table: Table) -> tuple[str, str, str]:
    names = tuple(table.list("columns", COLUMNS))
    if len(set(names)) != 3 or not all(isinstance(name, str) for name in names):
        raise table.fault("columns", names, "must name three columns: time, tokens in, tokens out")
    return names[0], names[1], names[2]


def rate_of(table: Table, default: float | None = None) -> float:
    return table.number("rate_per_s", default, above=0, most=MAX_RATE_PER_S)


def _variation(table: Table, default: float) -> float:
    return table.number("variation", default, above=0, most=20)


def as_table(arrivals: Arrivals) -> dict[str, Any]:
    """The table that `arrivals_of` reads as these arrivals."""
    (kind,) = [name for name, known in KINDS.items() if isinstance(arrivals, known)]
    match arrivals:
        case Closed():
            rest: dict[str, Any] = {"users": arrivals.users, "think_s": arrivals.think_s}
        case Constant() | Poisson():
            rest = {"rate_per_s": arrivals.rate_per_s}
        case Gamma():
            rest = {"rate_per_s": arrivals.rate_per_s, "variation": arrivals.variation}
        case Trace():
            rest = {"speed": arrivals.speed, "scale": arrivals.scale, **_source(arrivals)}
    return {"kind": kind, **rest}


def _source(trace: Trace) -> dict[str, Any]:
    if trace.file is None:
        return {"rate_per_s": trace.rate_per_s, "variation": trace.variation}
    return {"file": str(trace.file), "columns": list(trace.columns)}
