"""A profile with what the command line says instead."""

from __future__ import annotations

import math
from dataclasses import replace

from loadtest.errors import TrafficError
from loadtest.traffic.arrivals import MAX_RATE_PER_S, Arrivals, Closed, Trace
from loadtest.traffic.profile import MAX_SEED, Profile


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
    """The profile with these values in place of its own; TrafficError where it has none such."""
    arrivals = profile.arrivals
    if users is not None:
        arrivals = _with_users(arrivals, users)
    if speed is not None:
        arrivals = _with_speed(arrivals, speed)
    if rate_per_s is not None:
        arrivals = _with_rate(arrivals, rate_per_s)
    if duration_s is not None:
        profile = replace(profile, duration_s=_number("--duration", duration_s, above=True))
    if warmup_s is not None:
        profile = replace(profile, warmup_s=_number("--warmup", warmup_s, above=False))
    if seed is not None:
        profile = replace(profile, seed=_whole("--seed", seed, 0, MAX_SEED))
    return replace(profile, arrivals=arrivals)


def _with_users(arrivals: Arrivals, users: int) -> Arrivals:
    if not isinstance(arrivals, Closed):
        raise TrafficError(f"--users {users}: only closed arrivals have users; --rate changes these")
    return replace(arrivals, users=_whole("--users", users, 1, 100_000))


def _with_rate(arrivals: Arrivals, rate_per_s: float) -> Arrivals:
    """At exactly this rate: a generator's speed is 1 from here on."""
    rate_per_s = _number("--rate", rate_per_s, above=True, most=MAX_RATE_PER_S)
    if isinstance(arrivals, Closed):
        raise TrafficError(f"--rate {rate_per_s:g}: closed arrivals have no rate; --users changes these")
    if not isinstance(arrivals, Trace):
        return replace(arrivals, rate_per_s=rate_per_s)
    if arrivals.file:
        raise TrafficError(
            f"--rate {rate_per_s:g}: a trace's file brings its own times; --speed changes them"
        )
    return replace(arrivals, rate_per_s=rate_per_s, speed=1.0)


def _with_speed(arrivals: Arrivals, speed: float) -> Arrivals:
    if not isinstance(arrivals, Trace):
        raise TrafficError(f"--speed {speed:g}: only a trace has a speed")
    return replace(arrivals, speed=_number("--speed", speed, above=True, most=10_000))


def _number(flag: str, value: float, *, above: bool, most: float = math.inf) -> float:
    if not math.isfinite(value) or value < 0 or (above and value == 0) or value > most:
        limit = "above 0" if above else "of at least 0"
        raise TrafficError(f"{flag} {value:g}: must be a number {limit}, at most {most:g}")
    return float(value)


def _whole(flag: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise TrafficError(f"{flag} {value}: must be a whole number from {least} to {most:,}")
    return value
