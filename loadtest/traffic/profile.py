"""A profile: everything that a load test offers and asks for, read from TOML.

docs/loadtest-profiles.md has every key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from loadtest.errors import TrafficError
from loadtest.traffic import arrivals as arriving
from loadtest.traffic import mix as mixing
from loadtest.traffic.arrivals import Arrivals, Closed, Trace, arrivals_of
from loadtest.traffic.mix import Bad, MixEntry, entry_of
from loadtest.traffic.table import Table

MAX_SEED = 2**63 - 1
MIN_CONTEXT = 128


@dataclass(frozen=True, slots=True)
class Slo:
    """The limits of the whole run, each where given; `request_*` are those of one request, for goodput."""

    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    itl_p99_s: float | None = None
    tpot_p99_s: float | None = None
    e2e_p99_s: float | None = None
    error_ratio: float = 0.0
    request_ttft_s: float | None = None
    request_tpot_s: float | None = None
    request_e2e_s: float | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """The rates that a sweep probes. `resolution` is relative to the rate."""

    start_per_s: float = 0.25
    max_per_s: float = 64.0
    step_s: float = 30.0
    resolution: float = 0.1


@dataclass(frozen=True, slots=True)
class Profile:
    """A run takes `warmup_s`, whose requests do not count, and then `duration_s`.

    `max_context` is the served model's, or less: longer requests are cut to it, and marked.
    """

    name: str
    mix: tuple[MixEntry, ...]
    arrivals: Arrivals = field(default_factory=Closed)
    description: str = ""
    duration_s: float = 60.0
    warmup_s: float = 5.0
    seed: int = 1
    max_context: int | None = None
    slo: Slo = field(default_factory=Slo)
    sweep: Sweep = field(default_factory=Sweep)

    @property
    def total_s(self) -> float:
        return self.warmup_s + self.duration_s

    def as_table(self) -> dict[str, Any]:
        """What `profile_of` reads as this profile: for JSON, and for the workers of a distributed run."""
        return {
            **({"description": self.description} if self.description else {}),
            **({"max_context": self.max_context} if self.max_context else {}),
            "name": self.name,
            "duration_s": self.duration_s,
            "warmup_s": self.warmup_s,
            "seed": self.seed,
            "arrivals": arriving.as_table(self.arrivals),
            "mix": [mixing.as_table(entry) for entry in self.mix],
            "slo": _given(self.slo),
            "sweep": _given(self.sweep),
        }


def load_profile(path: Path) -> Profile:
    """The profile in the file. TrafficError when it cannot be read, or names the key that is at fault."""
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
    table = Table("", content)
    profile = Profile(
        name=table.text("name", name),
        description=table.text("description") if table.has("description") else "",
        duration_s=table.number("duration_s", 60.0, above=0),
        warmup_s=table.number("warmup_s", 5.0),
        seed=table.whole("seed", 1, least=0, most=MAX_SEED),
        max_context=table.whole("max_context", least=MIN_CONTEXT) if table.has("max_context") else None,
        arrivals=arrivals_of(table.table("arrivals"), folder) if table.has("arrivals") else Closed(),
        mix=tuple(entry_of(entry) for entry in table.tables("mix")),
        slo=_slo(table.table("slo")) if table.has("slo") else Slo(),
        sweep=_sweep(table.table("sweep")) if table.has("sweep") else Sweep(),
    )
    table.close()
    _check(profile)
    return profile


def _slo(table: Table) -> Slo:
    limits = {
        item.name: table.number(item.name, above=0)
        for item in fields(Slo)
        if item.name != "error_ratio" and table.has(item.name)
    }
    slo = Slo(**limits, error_ratio=table.number("error_ratio", 0.0, most=1))
    table.close()
    return slo


def _sweep(table: Table) -> Sweep:
    known = Sweep()
    start_per_s = table.number("start_per_s", known.start_per_s, above=0)
    sweep = Sweep(
        start_per_s,
        table.number("max_per_s", max(known.max_per_s, start_per_s), least=start_per_s),
        table.number("step_s", known.step_s, above=0),
        table.number("resolution", known.resolution, least=0.01, most=1),
    )
    table.close()
    return sweep


def _check(profile: Profile) -> None:
    names = [entry.name for entry in profile.mix]
    for number, entry in enumerate(profile.mix):
        place = f"mix[{number}]"
        if entry.name in names[:number]:
            raise TrafficError(f"{place}.name: {entry.name!r}, is given twice")
        if not isinstance(profile.arrivals, Trace) and entry.bad is not Bad.EMPTY:
            _require_lengths(place, entry)


def _require_lengths(place: str, entry: MixEntry) -> None:
    for key in ("prompt_tokens", "output_tokens"):
        if getattr(entry, key) is None:
            raise TrafficError(f"{place}.{key}: is missing; only a trace brings lengths of its own")


def _given(part: Slo | Sweep) -> dict[str, float]:
    values = ((item.name, getattr(part, item.name)) for item in fields(part))
    return {name: value for name, value in values if value is not None}
