"""Frozen dataclasses as JSON and back, strictly: what a field may hold is its annotation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from loadtest.errors import BenchError

_T = TypeVar("_T")
_PLAIN = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def dump(value: Any) -> str:
    """Of a dataclass; numbers must be finite."""
    return json.dumps(asdict(value), indent=1, allow_nan=False) + "\n"


def load(kind: type[_T], text: str, version: int) -> _T:
    """BenchError says which field is wrong and what it must be, or that the version is another."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BenchError(f"no JSON: {error}") from error
    if isinstance(found, dict) and found.get("version") != version:
        raise BenchError(f"version is {found.get('version')!r}, this program reads {version}")
    read: _T = _read(kind, found, "")
    return read


def _read(kind: Any, value: Any, path: str) -> Any:
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _dataclass(kind, value, path)
    origin = get_origin(kind)
    if origin is UnionType:
        (inner,) = (option for option in get_args(kind) if option is not NoneType)
        return None if value is None else _read(inner, value, path)
    if origin is tuple:
        return _tuple(get_args(kind), value, path)
    if origin is Mapping:
        _expect(isinstance(value, dict), value, "an object", path)
        return {key: _read(get_args(kind)[1], item, f"{path}.{key}") for key, item in value.items()}
    return _plain(kind, value, path)


def _dataclass(kind: Any, value: Any, path: str) -> Any:
    names = [field.name for field in fields(kind)]
    _expect(isinstance(value, dict), value, "an object", path)
    _expect(set(value) == set(names), sorted(value), f"an object of {', '.join(names)}", path)
    hints = get_type_hints(kind)
    return kind(**{name: _read(hints[name], value[name], f"{path}.{name}") for name in names})


def _tuple(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    _expect(isinstance(value, list), value, "a list", path)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    _expect(len(value) == len(kinds), value, f"a list of {len(kinds)}", path)
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_read(kind, item, f"{path}[{index}]") for index, (kind, item) in pairs)


def _plain(kind: type, value: Any, path: str) -> Any:
    allowed: Any = (int, float) if kind is float else kind
    fits = isinstance(value, allowed) and isinstance(value, bool) == (kind is bool)
    _expect(fits, value, _PLAIN[kind], path)
    return kind(value)


def _expect(fits: bool, value: Any, must: str, path: str) -> None:
    if not fits:
        raise BenchError(f"{path.lstrip('.') or 'it'} is {repr(value)[:80]}, must be {must}")
