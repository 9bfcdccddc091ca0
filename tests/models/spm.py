"""SentencePiece files of given pieces: the few fields of the protocol buffer that anything here reads."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

_UNKNOWN, _CONTROL = 2, 3
Piece = tuple[str, float]


def write_spm(
    path: Path,
    pieces: Sequence[Piece],
    algorithm: int = 1,
    charsmap: bytes = b"",
    byte_fallback: bool = False,
) -> Path:
    """`<unk>`, `<s>` and `</s>` come first, as SentencePiece has them."""
    listed = [("<unk>", 0.0, _UNKNOWN), ("<s>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL)]
    listed += [(text, score, 1) for text, score in pieces]
    content = b"".join(_delimited(1, _piece(*entry)) for entry in listed)
    content += _delimited(2, _number(3, algorithm) + _number(35, byte_fallback))
    content += _delimited(3, _delimited(2, charsmap))
    path.write_bytes(content)
    return path


def _piece(text: str, score: float, kind: int) -> bytes:
    return _delimited(1, text.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score) + _number(3, kind)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _delimited(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def write_vocabulary(path: Path, tokens: list[str]) -> None:
    path.write_text(json.dumps({token: index for index, token in enumerate(tokens)}), encoding="utf-8")
