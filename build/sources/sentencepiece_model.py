"""A SentencePiece model file (.spm, .model): pieces, and how text is normalised before it is cut into them.

The file is a protocol buffer, ModelProto of sentencepiece_model.proto, of which a few fields are needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path

from build.errors import BadInput

Field = int | bytes


class PieceKind(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Algorithm(Enum):
    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHARACTER = 4


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True)
class SentencePieceModel:
    """`charsmap` is what the normaliser was compiled to, empty for none."""

    pieces: tuple[Piece, ...]
    algorithm: Algorithm
    byte_fallback: bool
    whitespace_suffix: bool
    charsmap: bytes
    adds_prefix: bool
    removes_extra_spaces: bool


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """The model in a file; BadInput when it is missing or damaged."""
    try:
        return _model(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except (ValueError, LookupError, struct.error) as error:
        raise BadInput(f"{path}: is no SentencePiece model, or damaged ({error}): fetch it again") from error


def _model(content: bytes) -> SentencePieceModel:
    fields = list(_fields(content))
    trainer, normaliser = (dict(_fields(_last(fields, number))) for number in (2, 3))
    return SentencePieceModel(
        pieces=tuple(_piece(value) for number, value in fields if number == 1),
        algorithm=Algorithm(_number(trainer.get(3, 1))),
        byte_fallback=bool(trainer.get(35, 0)),
        whitespace_suffix=bool(trainer.get(24, 0)),
        charsmap=_bytes(normaliser.get(2, b"")),
        adds_prefix=bool(normaliser.get(3, 1)),
        removes_extra_spaces=bool(normaliser.get(4, 1)),
    )


def _last(fields: list[tuple[int, Field]], wanted: int) -> bytes:
    return _bytes(next((value for number, value in reversed(fields) if number == wanted), b""))


def _piece(value: Field) -> Piece:
    fields = dict(_fields(_bytes(value)))
    score = struct.unpack("<f", _bytes(fields.get(2, bytes(4))))[0]
    return Piece(_bytes(fields[1]).decode(), score, PieceKind(_number(fields.get(3, 1))))


def _number(value: Field) -> int:
    if not isinstance(value, int):
        raise ValueError("text where a number should be")
    return value


def _bytes(value: Field) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where text should be")
    return value


def _fields(content: bytes) -> Iterator[tuple[int, Field]]:
    """Number and value of each field: an integer, or the bytes of a fixed-size or delimited one."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(content, at)
            yield number, value
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"wire type {wire}")
        size, at = _varint(content, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
        if at + size > len(content):
            raise ValueError("cut short")
        yield number, content[at : at + size]
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The value of a variable-length integer, and where the next field begins."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
