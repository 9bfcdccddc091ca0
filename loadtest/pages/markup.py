"""HTML from functions: whatever is not markup already is escaped, so that no name can become a tag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is HTML; only this module and the figures make it."""

    __slots__ = ()


def tag(name: str, *content: str, **attributes: str) -> Markup:
    """`class_` stands for the attribute class."""
    pairs = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{pairs}>{join(content)}</{name}>")


def join(content: Iterable[str]) -> Markup:
    return Markup("".join(part if isinstance(part, Markup) else _escaped(part) for part in content))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """The first column is text, the others are numbers or verdicts; wide ones scroll by themselves."""
    head = tag("tr", *(tag("th", column, scope="col") for column in columns))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def _escaped(text: str) -> str:
    """Without control characters, which no HTML may hold."""
    return escape("".join(char if char.isprintable() or char in "\n\t" else "�" for char in text))
