"""A table of TOML that is read key by key; what nobody asked for is refused with the keys that exist."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from loadtest.errors import TrafficError

Chosen = TypeVar("Chosen", bound=Enum)

MAX_TOKENS = 1_000_000


class Table:
    """One table and its place in the file, such as `mix[0].prompt_tokens`. Every error is a TrafficError."""

    def __init__(self, place: str, content: object) -> None:
        if not isinstance(content, Mapping):
            raise TrafficError(f"{place}: {shown(content)}, must be a table")
        self.place = place
        self._content: Mapping[str, Any] = content
        self._known: list[str] = []

    def has(self, key: str) -> bool:
        self._note(key)
        return key in self._content

    def text(self, key: str, default: str | None = None) -> str:
        value = self._take(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(key, value, "must be text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self.fault(key, value, "must be true or false")
        return value

    def number(
        self,
        key: str,
        default: float | None = None,
        *,
        above: float | None = None,
        least: float = 0.0,
        most: float = math.inf,
    ) -> float:
        """A finite number; `above` excludes its limit, `least` and `most` include theirs."""
        value = self._take(key, default)
        limit = _limit(above, least, most)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fault(key, value, f"must be a number{limit}")
        if value > most or (value < least if above is None else value <= above):
            raise self.fault(key, value, f"must be{limit}")
        return float(value)

    def whole(self, key: str, default: int | None = None, *, least: int = 1, most: int = MAX_TOKENS) -> int:
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.fault(key, value, f"must be a whole number from {least} to {most:,}")
        return value

    def choice(self, key: str, kind: type[Chosen], default: Chosen | None = None) -> Chosen:
        value = self._take(key, None if default is None else default.value)
        for member in kind:
            if member.value == value:
                return member
        names = ", ".join(str(member.value) for member in kind)
        raise self.fault(key, value, f"must be one of {names}")

    def table(self, key: str) -> Table:
        return Table(self.path(key), self._take(key, None))

    def list(self, key: str, default: Sequence[object] | None = None) -> Sequence[Any]:
        value = self._take(key, default)
        if not isinstance(value, list | tuple) or not value:
            raise self.fault(key, value, "must be a list that is not empty")
        return value

    def tables(self, key: str) -> tuple[Table, ...]:
        return tuple(Table(f"{self.path(key)}[{i}]", item) for i, item in enumerate(self.list(key)))

    def names(self) -> tuple[str, ...]:
        """Of a table whose keys are the user's own, such as quantiles."""
        self._known.extend(self._content)
        return tuple(self._content)

    def close(self) -> None:
        """Refuses the keys that nobody asked for."""
        for key in self._content:
            if key not in self._known:
                known = ", ".join(sorted(self._known))
                raise TrafficError(f"{self.path(key)}: is not known here; known are {known}")

    def path(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def fault(self, key: str, value: object, limit: str) -> TrafficError:
        return TrafficError(f"{self.path(key)}: {shown(value)}, {limit}")

    def _note(self, key: str) -> None:
        if key not in self._known:
            self._known.append(key)

    def _take(self, key: str, default: object) -> Any:
        self._note(key)
        if key in self._content:
            return self._content[key]
        if default is None:
            raise TrafficError(f"{self.path(key)}: is missing")
        return default


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _limit(above: float | None, least: float, most: float) -> str:
    low = f" of at least {least:g}" if above is None else f" above {above:g}"
    return low if math.isinf(most) else f"{low} and at most {most:g}"
