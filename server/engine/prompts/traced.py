"""Text that remembers who wrote it: a chat's template, or one of its messages.

A template tests, cuts and joins messages freely, and must see them unchanged; but only what the template
wrote itself may be a control token of the model. So a message's text enters it as a str that keeps its origin
through every method of str that returns text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, Final, SupportsIndex

# A complete format of str's operator %, without widths that are arguments; and one of its conversions.
_CONVERSION: Final = r"%(?:\(([^()]*)\))?[#0\- +]*\d*(?:\.\d*)?[hlL]?([diouxXeEfFgGcrsa%])"
_FORMAT: Final = re.compile(rf"(?:[^%]|{_CONVERSION})*")
_CONVERSIONS: Final = re.compile(_CONVERSION)


def _settled(method: Callable[..., str]) -> Any:
    @wraps(method)
    def made(self: Traced, *args: Any, **options: Any) -> Traced:
        return settle(method(self, *args, **options), self, args, options)

    return made


def _recased(method: Callable[[str], str]) -> Any:
    @wraps(method)
    def made(self: Traced) -> Traced:
        # No character becomes none, so where the length stays, each has become one.
        text = method(self)
        return Traced(text, self._mask) if len(text) == len(self) else settle(text, self)

    return made


class Traced(str):
    """A str with a mask: a byte for each character, 1 where the template wrote it and 0 where a message did.

    It equals the same str and hashes like it. If a method does not show which character came from where, its
    whole result counts as a message's if any part of its input does.
    """

    __slots__ = ("_mask",)
    _mask: bytes

    def __new__(cls, text: str, mask: bytes | None = None) -> Traced:
        """Without a mask all of it is a message's."""
        self = super().__new__(cls, text)
        self._mask = bytes(len(text)) if mask is None else mask
        return self

    def __str__(self) -> Traced:
        return self

    def __iter__(self) -> Iterator[Traced]:
        return map(Traced, super().__iter__(), (bytes((origin,)) for origin in self._mask))

    def __getitem__(self, key: SupportsIndex | slice) -> Traced:
        origin = self._mask[key]
        return Traced(super().__getitem__(key), bytes((origin,)) if isinstance(origin, int) else origin)

    def __add__(self, other: str) -> Traced:
        # Between two kinds of str the other one decides: jinja2's markup escapes the str that it is added to.
        if type(other) not in (str, Traced):
            return NotImplemented
        return Traced(super().__add__(other), self._mask + _mask_of(other))

    def __radd__(self, other: str) -> Traced:
        return traced(other) + self if type(other) is str else NotImplemented

    def __mul__(self, count: SupportsIndex) -> Traced:
        return Traced(super().__mul__(count), self._mask * count)

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> Traced:
        made = super().__mod__(values)
        if not _FORMAT.fullmatch(self):
            return settle(made, self, values)
        parts, at, rest = [], 0, iter(values if isinstance(values, tuple) else (values,))
        for found in _CONVERSIONS.finditer(self):
            parts.append(self[at : found.start()])
            at = found.end()
            parts.append(_converted(self[found.start() : at], found[1], found[2], values, rest))
        return NOTHING.join([*parts, self[at:]])

    capitalize = _recased(str.capitalize)
    casefold = _recased(str.casefold)
    lower = _recased(str.lower)
    swapcase = _recased(str.swapcase)
    title = _recased(str.title)
    upper = _recased(str.upper)

    center = _settled(str.center)
    expandtabs = _settled(str.expandtabs)
    format = _settled(str.format)
    format_map = _settled(str.format_map)
    ljust = _settled(str.ljust)
    rjust = _settled(str.rjust)
    zfill = _settled(str.zfill)

    def join(self, texts: Iterable[str], /) -> Traced:
        texts = list(texts)
        return Traced(super().join(texts), self._mask.join(map(_mask_of, texts)))

    def lstrip(self, chars: str | None = None, /) -> Traced:
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None, /) -> Traced:
        return self[: len(super().rstrip(chars))]

    def strip(self, chars: str | None = None, /) -> Traced:
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str, /) -> Traced:
        return self[len(self) - len(super().removeprefix(prefix)) :]

    def removesuffix(self, suffix: str, /) -> Traced:
        return self[: len(super().removesuffix(suffix))]

    def partition(self, sep: str, /) -> tuple[Traced, Traced, Traced]:
        left, middle, right = self._cut(super().partition(sep), 0)
        return left, middle, right

    def rpartition(self, sep: str, /) -> tuple[Traced, Traced, Traced]:
        left, middle, right = self._cut(super().rpartition(sep), 0)
        return left, middle, right

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Traced]:  # type: ignore[override]
        return self._cut(super().split(sep, maxsplit), None if sep is None else len(sep))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Traced]:  # type: ignore[override]
        return self._cut(super().rsplit(sep, maxsplit), None if sep is None else len(sep))

    def splitlines(self, keepends: bool = False) -> list[Traced]:  # type: ignore[override]
        lines = self._cut(super().splitlines(keepends=True), 0)
        return [line[: len(text)] for line, text in zip(lines, super().splitlines(keepends), strict=True)]

    def replace(self, old: str, new: str, /, count: SupportsIndex = -1) -> Traced:
        if not old:
            return settle(super().replace(old, new, count), self, new)
        return traced(new).join(self.split(old, count))

    def translate(self, table: Any, /) -> Traced:
        """A message's: the table can hold a message's characters as numbers."""
        return Traced(super().translate(table))

    def _cut(self, texts: Iterable[str], gap: int | None) -> list[Traced]:
        """Its parts `texts`, one after the other, `gap` characters apart or with whitespace between them."""
        parts, at = [], 0
        for text in texts:
            at = self.find(text, at) if gap is None else at
            parts.append(self[at : at + len(text)])
            at += len(text) + (gap or 0)
        return parts


NOTHING: Final = Traced("")


def traced(text: str) -> Traced:
    """`text`, of which a plain str is the template's."""
    return text if isinstance(text, Traced) else Traced(text, _mask_of(text))


def settle(made: str, *parts: object) -> Traced:
    """The result `made` of an untracked operation on `parts`: a message's if any of them contains message
    text.
    """
    return Traced(made, bytes(len(made)) if _holds_message(parts) else b"\1" * len(made))


def text_of(value: object) -> Traced:
    """The value as str converts it."""
    return traced(value) if isinstance(value, str) else settle(str(value), value)


def first_of_message(text: Traced, start: int, end: int) -> int | None:
    """The position of the first character from `start` to `end` that the template did not write."""
    place = _mask_of(text).find(0, start, end)
    return None if place < 0 else place


def _mask_of(text: str) -> bytes:
    """A plain str is the template's; a kind of str that is not tracked counts as a message's."""
    mask: bytes | None = getattr(text, "_mask", None)
    return (b"\1" if type(text) is str else b"\0") * len(text) if mask is None else mask


def _holds_message(value: object) -> bool:
    """Whether it can contain message text; a value of an unknown kind counts as if it did."""
    if isinstance(value, str):
        return 0 in _mask_of(value)
    if isinstance(value, Mapping):
        return any(map(_holds_message, value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_holds_message, value))
    return not (value is None or isinstance(value, int | float | range))


def _converted(how: Traced, name: str | None, kind: str, values: Any, rest: Iterator[Any]) -> Traced:
    """What one conversion of str's operator % makes of the values, of which `rest` is yet to come."""
    if kind == "%":
        return settle(str.__mod__(how, () if name is None else values), how)
    value = next(rest) if name is None else values[name]
    if kind == "s" and how[-2] in "%)" and isinstance(value, str):
        return traced(value)
    made = str.__mod__(how, values if name is not None else (value,))
    # A number that is written as a character can be a message's character.
    return Traced(made) if kind == "c" else settle(made, how, value)
