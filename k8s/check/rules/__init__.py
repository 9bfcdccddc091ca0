"""Rules for what schemas miss. Each takes a bundle and yields where and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from k8s.check.bundle import Bundle, Problem
from k8s.check.rules import containers, monitors, names, network, references, scaling, volumes

Rule = Callable[[Bundle], Iterator[tuple[str, str]]]
RULES: tuple[Rule, ...] = (
    *names.RULES,
    *network.RULES,
    *containers.RULES,
    *volumes.RULES,
    *references.RULES,
    *scaling.RULES,
    *monitors.RULES,
)


def problems(bundle: Bundle) -> Iterator[Problem]:
    """What every rule finds."""
    for rule in RULES:
        name = rule.__name__.replace("_", "-")
        yield from (Problem(name, where, message) for where, message in rule(bundle))
