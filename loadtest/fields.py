"""Frozen dataclasses from plain values, of TOML or JSON, and back: what a field may hold is its annotation.

A field without a default must be given; a key that is no field is refused with those that there are. An
annotation may carry what reads its value: `Annotated[float, Number(above=0)]`. Every error is a TrafficError
with the place, such as `mix[0].weight`, the value and what it must be.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from loadtest.errors import BenchError, TrafficError

_T = TypeVar("_T")

MAX_TOKENS = 1_000_000
_HUGE = 2**63


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number; `above` excludes its limit, `least` and `most` include theirs."""

    above: float | None = None
    least: float = 0.0
    most: float = math.inf

    def __call__(self, value: object, place: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise fault(place, value, f"must be a number {self.limit}")
        if value > self.most or (value < self.least if self.above is None else value <= self.above):
            raise fault(place, value, f"must be {self.limit}")
        return float(value)

    @property
    def limit(self) -> str:
        low = f"of at least {self.least:g}" if self.above is None else f"above {self.above:g}"
        return low if math.isinf(self.most) else f"{low} and at most {self.most:g}"


@dataclass(frozen=True, slots=True)
class Whole:
    least: int = 1
    most: int = MAX_TOKENS

    def __call__(self, value: object, place: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            raise fault(place, value, f"must be a whole number from {self.least} to {self.most:,}")
        return value


def text(value: object, place: str) -> str:
    """Some, and not only blanks."""
    if not isinstance(value, str) or not value.strip():
        raise fault(place, value, "must be text")
    return value


def one_of(*allowed: str) -> Callable[[object, str], str]:
    def reader(value: object, place: str) -> str:
        if value not in allowed:
            raise fault(place, value, f"must be one of {', '.join(allowed)}")
        return str(value)

    return reader


Tokens = Annotated[int, Whole()]
Text = Annotated[str, text]


def read(kind: type[_T], content: object, place: str = "", also: Iterable[str] = ()) -> _T:
    """The dataclass `kind` of a table; `also` are keys that the caller reads."""
    table = table_of(content, place)
    hints = _hints(kind)  # type: ignore[arg-type]
    items = fields(kind)  # type: ignore[arg-type]
    values = {}
    for item in items:
        if item.name in table:
            values[item.name] = _value(hints[item.name], table[item.name], at(place, item.name))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise TrafficError(f"{at(place, item.name)}: is missing")
    require_known(table, place, (*also, *(item.name for item in items)))
    return kind(**values)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _value(hint: Any, value: object, place: str) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return parts[1](value, place)
    if origin in (UnionType, Union):  # of something and None
        (some,) = (part for part in parts if part is not NoneType)
        return None if value is None else _value(some, value, place)
    if origin is Mapping:
        return {key: _value(parts[1], item, at(place, key)) for key, item in table_of(value, place).items()}
    if origin is tuple:
        items = list_of(value, place)
        kinds = parts[:1] * len(items) if parts[-1] is Ellipsis else parts
        if len(items) != len(kinds):
            raise fault(place, value, f"must be a list of {len(kinds)}")
        pairs = enumerate(zip(kinds, items, strict=True))
        return tuple(_value(kind, item, f"{place}[{number}]") for number, (kind, item) in pairs)
    return read(hint, value, place) if is_dataclass(hint) else _plainly(hint, value, place)  # type: ignore[arg-type]


def _plainly(hint: Any, value: object, place: str) -> Any:
    """Anything, a bool, a number, a str, a Path or a member of an Enum."""
    if hint is Any:
        return value
    if hint in (int, float):
        return (Whole(-_HUGE, _HUGE) if hint is int else Number(least=-math.inf))(value, place)
    if issubclass(hint, Enum):
        for member in hint:
            if member.value == value:
                return member
        raise fault(place, value, f"must be one of {', '.join(str(member.value) for member in hint)}")
    if not isinstance(value, bool if hint is bool else str):
        raise fault(place, value, "must be true or false" if hint is bool else "must be text")
    return hint(value)


def dump(value: Any) -> str:
    """A dataclass as JSON; numbers must be finite."""
    return json.dumps(asdict(value), indent=1, allow_nan=False) + "\n"


def load(kind: type[_T], text: str, version: int) -> _T:
    """What `dump` wrote. BenchError says which field is wrong, or that the version is another."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BenchError(f"no JSON: {error}") from error
    if isinstance(found, dict) and found.get("version") != version:
        raise BenchError(f"version is {found.get('version')!r}, this program reads {version}")
    names = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    if not isinstance(found, dict) or set(found) != set(names):
        raise BenchError(f"it is {shown(found)}, must be an object of {', '.join(names)}")
    try:
        return read(kind, found)
    except TrafficError as error:  # here no command is wrong
        raise BenchError(str(error)) from error


def table_from(value: Any) -> dict[str, Any]:
    """What `read` reads as this dataclass: None and empty text are left out."""
    values = {item.name: getattr(value, item.name) for item in fields(value)}
    return {name: _plain(found) for name, found in values.items() if found is not None and found != ""}


def _plain(value: Any) -> Any:
    if hasattr(value, "as_table"):
        return value.as_table()
    if is_dataclass(value):
        return table_from(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def table_of(content: object, place: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise fault(place, content, "must be a table")
    return content


def list_of(value: object, place: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise fault(place, value, "must be a list")
    return value


def require_known(table: Mapping[str, Any], place: str, names: Iterable[str]) -> None:
    known = sorted(names)
    for key in table:
        if key not in known:
            raise TrafficError(f"{at(place, key)}: is not known here; known are {', '.join(known)}")


def at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def fault(place: str, value: object, must: str) -> TrafficError:
    return TrafficError(f"{place}: {shown(value)}, {must}")


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
