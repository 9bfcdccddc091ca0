"""How fast an HPA may follow: stabilisation windows and scaling policies (`spec.behavior`).

Times are seconds on one clock. An event is a change that was made: so many replicas more or fewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Unit(Enum):
    PODS = "Pods"
    PERCENT = "Percent"


class Select(Enum):
    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True)
class Policy:
    unit: Unit
    value: int
    period_s: int


@dataclass(frozen=True)
class Rules:
    """One direction: of its policies `select` takes the one that allows the most, or the least, change."""

    stabilisation_s: int
    policies: tuple[Policy, ...]
    select: Select = Select.MAX


# What the API server fills in where a behaviour is given without them.
DEFAULT_UP = Rules(0, (Policy(Unit.PODS, 4, 15), Policy(Unit.PERCENT, 100, 15)))
DEFAULT_DOWN = Rules(300, (Policy(Unit.PERCENT, 100, 15),))


@dataclass(frozen=True)
class Stamped:
    """A recommendation, or a change that was made, with its time."""

    at_s: float
    replicas: int


Events = Sequence[Stamped]


def stabilised(now_s: float, current: int, desired: int, past: Events, up: Rules, down: Rules) -> int:
    """At least what all of the window up wanted, at most what any of the window down did."""
    lower = min([desired, *(one.replicas for one in past if one.at_s > now_s - up.stabilisation_s)])
    upper = max([desired, *(one.replicas for one in past if one.at_s > now_s - down.stabilisation_s)])
    return min(max(current, lower), upper)


def ceiling(now_s: float, current: int, added: Events, removed: Events, up: Rules) -> int:
    """The most replicas that the policies up allow now."""
    if up.select is Select.DISABLED:
        return current
    choose = min if up.select is Select.MIN else max
    proposals = []
    for policy in up.policies:
        start = current - _changed(added, now_s, policy) + _changed(removed, now_s, policy)
        proposals.append(_raised(start, policy))
    return max(current, choose(proposals))


def floor(now_s: float, current: int, added: Events, removed: Events, down: Rules) -> int:
    """The fewest replicas that the policies down allow now."""
    if down.select is Select.DISABLED:
        return current
    choose = max if down.select is Select.MIN else min
    proposals = []
    for policy in down.policies:
        start = current - _changed(added, now_s, policy) + _changed(removed, now_s, policy)
        proposals.append(_lowered(start, policy))
    return min(current, choose(proposals))


def _raised(start: int, policy: Policy) -> int:
    """Per cent are rounded up: one replica would never become two by 50 per cent."""
    if policy.unit is Unit.PODS:
        return start + policy.value
    return math.ceil(start * (1 + policy.value / 100))


def _lowered(start: int, policy: Policy) -> int:
    if policy.unit is Unit.PODS:
        return start - policy.value
    return int(start * (1 - policy.value / 100))


def _changed(events: Events, now_s: float, policy: Policy) -> int:
    return sum(event.replicas for event in events if event.at_s > now_s - policy.period_s)
