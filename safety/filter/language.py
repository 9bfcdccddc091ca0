"""The language of a text, by the n-gram tables of the eldc package (60 languages, in memory once a host)."""

from __future__ import annotations

import eldc  # type: ignore[import-untyped]

from safety.filter.errors import Misuse

# The beginning of a text tells its language.
LANGUAGE_CHARACTERS = 1000
eldc.init()


def language_of(text: str) -> str:
    """Its ISO 639-1 code, or `und`."""
    code: str = eldc.detect(text[:LANGUAGE_CHARACTERS])
    return code


def known(codes: tuple[str, ...]) -> tuple[str, ...]:
    """The codes as they are. Misuse where one is none that the package tells apart."""
    unknown = sorted(set(codes) - set(eldc.LANGUAGES))
    if unknown:
        there = ", ".join(sorted(eldc.LANGUAGES))
        raise Misuse(f"--language {', '.join(unknown)}: not told apart; there are {there}")
    return codes
