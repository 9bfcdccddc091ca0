"""What a recipe says of its chain: the steps in order, their options, and the budgets that fail a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, get_args, get_origin, get_type_hints

from build.compress.catalogue import PASSES
from build.compress.step import Kind, Pass
from build.errors import BadInput


@dataclass(frozen=True)
class Budget:
    """What may be lost at most; None is no limit.

    `perplexity` is a ratio, `kl` the mean divergence in nats, `flips` the share of the project's own pairs
    and facts that changed sides. `bytes` is the size of the engine's weights, as a share of the root's
    parameters at 16 bits.
    """

    perplexity: float | None = None
    kl: float | None = None
    flips: float | None = None
    bytes: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not value > 0:
                raise BadInput(f"{name}: {value!r}, must be more than 0")
        if self.perplexity is not None and self.perplexity < 1:
            raise BadInput(f"perplexity: {self.perplexity}, is a ratio of at least 1: 1.05 allows 5 % more")


@dataclass(frozen=True)
class Step:
    """A pass with its options; its `budget` is against the checkpoint that it was given."""

    name: str
    options: Any
    seed: int = 0
    budget: Budget = field(default_factory=Budget)

    @property
    def does(self) -> Pass:
        return PASSES[self.name]

    def described(self) -> dict[str, Any]:
        """For keys, manifests and reports."""
        return {"pass": self.name, **asdict(self.options), "seed": self.seed}


def parse_steps(tables: Any) -> tuple[Step, ...]:
    """Strict; BadInput names the step, the key, the value and the limit, and orders that make no sense."""
    if not isinstance(tables, list):
        raise BadInput(f"step: {tables!r}, must be tables: [[step]]")
    steps = tuple(_step(number, table) for number, table in enumerate(tables, 1))
    for number, (before, after) in enumerate(pairwise(steps), 2):
        if after.does.KIND < before.does.KIND:
            raise BadInput(
                f"step {number}, {after.name}: comes after {before.name}, whose weights it would change: put"
                f" {after.name} before {before.name}"
            )
        if before.does.KIND is after.does.KIND is Kind.QUANTISE:
            raise BadInput(f"step {number}, {after.name}: {before.name} has rounded the weights: keep one")
    return steps


def parse_budget(where: str, table: Any) -> Budget:
    """BadInput names the key, the value and the limit."""
    given = _known(where, table, [each.name for each in fields(Budget)])
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadInput(f"{where}.{key}: {value!r}, must be a number")
    try:
        return Budget(**given)
    except BadInput as error:
        raise BadInput(f"{where}.{error}") from error


def _step(number: int, table: Any) -> Step:
    where = f"step {number}"
    if not isinstance(table, Mapping):
        raise BadInput(f"{where}: {table!r}, must be a table")
    name = table.get("pass")
    if name not in PASSES:
        raise BadInput(f"{where}: pass: {name!r}, must be one of {', '.join(sorted(PASSES))}")
    where = f"{where}, {name}"
    kind = PASSES[name].Options
    own = [each.name for each in fields(kind)]
    given = dict(_known(where, table, ["pass", "seed", "budget", *own]))
    seed = given.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise BadInput(f"{where}: seed: {seed!r}, must be a whole number of at least 0")
    budget = parse_budget(f"{where}: budget", given.get("budget", {}))
    if budget.bytes is not None:
        raise BadInput(f"{where}: budget.bytes: an engine has bytes, a step has none: put it into [budget]")
    return Step(name, _options(where, kind, {key: given[key] for key in own if key in given}), seed, budget)


def _options(where: str, kind: type[Any], given: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    values = {}
    for each in fields(kind):
        if each.name in given:
            values[each.name] = _typed(f"{where}: {each.name}", given[each.name], hints[each.name])
        elif _is_needed(each):
            raise BadInput(f"{where}: {each.name}: missing")
    try:
        return kind(**values)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error


def _is_needed(option: Field[Any]) -> bool:
    return option.default is MISSING and option.default_factory is MISSING


def _typed(where: str, value: Any, kind: Any) -> Any:
    """A TOML value as the option's type: bool, int, float, str, one of these or None, or a tuple of one."""
    kinds = [each for each in get_args(kind) if each is not type(None)] if _is_union(kind) else [kind]
    (kind,) = kinds
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise BadInput(f"{where}: {value!r}, must be a list")
        return tuple(_typed(where, each, get_args(kind)[0]) for each in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise BadInput(f"{where}: {value!r}, must be {_CALLED[kind]}")
    return value


_CALLED = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def _is_union(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _known(where: str, table: Any, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(table, Mapping):
        raise BadInput(f"{where}: {table!r}, must be a table")
    for key in table:
        if key not in known:
            raise BadInput(f"{where}: {key}: unknown key; known are {', '.join(known)}")
    return table
