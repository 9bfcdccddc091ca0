"""Token ids and bytes: the table of what each token adds to the text, and where UTF-8 may be cut.

The builder writes the table (`tokens.bin`): magic, u32 version, u32 count, count × u16 lengths, the bytes;
little-endian. A special token adds nothing.
"""

from __future__ import annotations

import codecs
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

from engine.core.errors import ArtifactError

MAGIC: Final = b"HLTK"
VERSION: Final = 1
_HEADER: Final = struct.Struct("<4sII")


class TokenTable:
    """`table[id]` is the bytes of token `id`."""

    def __init__(self, entries: list[bytes]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, token: int) -> bytes:
        # A head may be padded past the tokenizer's vocabulary; a padding id adds no text.
        return self._entries[token] if token < len(self._entries) else b""

    def containing(self, text: bytes) -> list[int]:
        """The tokens with this text inside them."""
        return [token for token, entry in enumerate(self._entries) if text in entry]

    def beginning_with(self, text: bytes) -> list[int]:
        length = len(text)
        first = bisect_left(self._ordered, text, key=self._entries.__getitem__)
        last = bisect_right(self._ordered, text, first, key=lambda token: self._entries[token][:length])
        return self._ordered[first:last]

    @cached_property
    def _ordered(self) -> list[int]:
        return sorted(range(len(self._entries)), key=self._entries.__getitem__)

    def join(self, tokens: Iterable[int]) -> bytes:
        return b"".join(self[token] for token in tokens)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a decoder chooses from: `size` ids, of which `eos` end an answer, and the bytes that each adds."""

    size: int
    eos: frozenset[int]
    table: TokenTable = field(default_factory=lambda: TokenTable([]))


def load_table(path: Path) -> TokenTable:
    return parse_table(path.read_bytes())


def parse_table(data: bytes) -> TokenTable:
    """Raises ArtifactError when the bytes are not a whole table of this version."""
    if len(data) < _HEADER.size:
        raise ArtifactError("tokens.bin", f"{len(data)} bytes, shorter than its header")
    magic, version, count = _HEADER.unpack_from(data)
    if (magic, version) != (MAGIC, VERSION):
        raise ArtifactError("tokens.bin", f"{magic!r} version {version}, must be {MAGIC!r} version {VERSION}")
    blob = _HEADER.size + 2 * count
    lengths = array("H", data[_HEADER.size : blob] if blob <= len(data) else b"")
    if sys.byteorder == "big":
        lengths.byteswap()
    if len(lengths) != count or blob + sum(lengths) != len(data):
        raise ArtifactError("tokens.bin", f"{len(data)} bytes, cut short or too long for {count} tokens")
    cuts = accumulate(lengths, initial=blob)
    return TokenTable([data[start:end] for start, end in pairwise(cuts)])


def complete_length(data: bytes) -> int:
    """How many bytes decode to whole characters: an unfinished UTF-8 character at the end is left out.

    Cutting there keeps `decode(a) + decode(b) == decode(a + b)` under errors="replace", for all bytes.
    """
    return codecs.utf_8_decode(data, "replace", False)[1]
