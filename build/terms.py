"""Terms that weights come under and that a builder must have accepted: more than a licence to be named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from build.errors import BadInput


@dataclass(frozen=True)
class Terms:
    """`name` is what one accepts them by, `summary` completes the sentence `they …`."""

    name: str
    title: str
    url: str
    summary: str


def parse_terms(table: Any) -> Terms:
    """Strict, as the recipe is: BadInput names the key."""
    if not isinstance(table, Mapping):
        raise BadInput(f"terms: {table!r}, must be a table")
    known = [field.name for field in fields(Terms)]
    for key in table:
        if key not in known:
            raise BadInput(f"terms.{key}: unknown key; known are {', '.join(known)}")
    for key in known:
        if not isinstance(table.get(key), str):
            raise BadInput(f"terms.{key}: {table.get(key)!r}, must be a string")
    return Terms(**table)


def require_accepted(terms: Terms | None, accepted: Collection[str]) -> None:
    """BadInput says what they are, where they stand and how they are accepted."""
    if terms is not None and terms.name not in accepted:
        raise BadInput(
            f"terms: these weights come under the {terms.title}: they {terms.summary};"
            f" read {terms.url}, then add --accept-terms {terms.name}"
        )
