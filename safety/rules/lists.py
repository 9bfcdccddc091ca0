"""A rule that is a list: words and phrases at word boundaries, however they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import regex

from safety.rules.rule import Finding, RuleError
from safety.rules.spans import apart

# Letters of other scripts, after casefold, that look like a Latin one: those of Unicode's confusables that
# serve as disguises.
_ALIKE = str.maketrans(
    "авеёзіјкмнорсԛѕтуԝхһԁɑαβεικνορτυχϲɡı",
    "abee3ijkmhopcqstywxhdaabeikvoptuxcgi",
)
# A word of letters, digits and their marks; a character of a script without spaces; or another sign. Between
# the words of a phrase may be spaces, hyphens, apostrophes and underscores. Characters that are not seen
# (soft hyphens, zero-width spaces) are part of the word, three in a row at most: were a run of any length
# part of it, where a word begins could depend on what a stream let go long ago.
_ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_UNSEEN = r"\u00ad\u200b-\u200f\u2060-\u2064\ufeff"
_TOKENS = regex.compile(
    rf"(?V1)[{_ALONE}](?:[{_UNSEEN}]{{0,3}}+\p{{M}})*+"
    rf"|[[\p{{L}}\p{{N}}\p{{M}}]--[{_ALONE}]](?:[{_UNSEEN}]{{0,3}}+[[\p{{L}}\p{{N}}\p{{M}}]--[{_ALONE}]])*+"
    rf"|[^\s\p{{L}}\p{{N}}\p{{M}}_'’{_UNSEEN}-]"
)
# The same of a text in ASCII, several times as fast.
_ASCII_TOKENS = re.compile(r"[A-Za-z0-9]+|[^\t-\r A-Za-z0-9_'-]")
_HIDDEN = regex.compile(f"[{_UNSEEN}]")
_GAP = regex.compile(rf"[\s_'’{_UNSEEN}-]{{0,3}}")


@lru_cache(maxsize=1 << 16)
def _fold(token: str) -> str:
    """What the eye reads: NFKC, without case and unseen characters, look-alikes as Latin letters."""
    if token.isascii():
        return token.lower()
    return unicodedata.normalize("NFKC", _HIDDEN.sub("", token)).casefold().translate(_ALIKE)


@dataclass(frozen=True, slots=True)
class Words:
    """`words` are words and phrases. No finding is longer than twice the longest of them and three
    characters for each of its gaps: a word that is blown up further by unseen characters is not found.
    """

    name: str
    kind: str
    words: Sequence[str]
    longest: int = field(init=False)
    _phrases: dict[str, list[tuple[str, ...]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        phrases: dict[str, list[tuple[str, ...]]] = {}
        longest = 3  # so many unseen characters before a word say whether it begins there
        for words in sorted({_words(entry, self.name) for entry in self.words}, key=len, reverse=True):
            phrases.setdefault(words[0], []).append(words)
            longest = max(longest, 2 * sum(map(len, words)) + 3 * (len(words) - 1))
        if not phrases:
            raise RuleError(f"rule {self.name}: its list has no word")
        object.__setattr__(self, "longest", longest)
        object.__setattr__(self, "_phrases", phrases)

    def find(self, text: str) -> Iterator[Finding]:
        for start, end in apart(self._spans(text)):
            yield Finding(self.name, start, end)

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        # Most texts hold no first word of an entry, and this asks faster than the loop below.
        tokens = _ASCII_TOKENS if text.isascii() else _TOKENS
        if text.isascii() and self._phrases.keys().isdisjoint(map(_fold, tokens.findall(text))):
            return
        spans = [match.span() for match in tokens.finditer(text)]
        for place, (start, end) in enumerate(spans):
            if end - start <= self.longest:
                for phrase in self._phrases.get(_fold(text[start:end]), ()):
                    last = self._last(text, spans[place : place + len(phrase)], phrase)
                    if last is not None and last - start <= self.longest:
                        yield start, last
                        break

    def _last(self, text: str, spans: list[tuple[int, int]], phrase: tuple[str, ...]) -> int | None:
        """Where the phrase ends, if the spans are its words."""
        if len(spans) < len(phrase):
            return None
        reached = spans[0][0]
        for word, (start, end) in zip(phrase, spans, strict=True):
            if _fold(text[start:end][: self.longest + 1]) != word or not _GAP.fullmatch(text, reached, start):
                return None
            reached = end
        return reached


def _words(entry: str, name: str) -> tuple[str, ...]:
    words = tuple(_fold(token) for token in _TOKENS.findall(entry))
    if not words:
        raise RuleError(f"rule {name}: the entry {entry!r} of its list has no letter, digit or sign")
    return words
