"""The layout of a GGUF file (github.com/ggml-org/ggml, docs/build.md): metadata, then where each tensor lies.

The reader of the `gguf` package makes arrays of every string, and takes 20 s for Gemma's vocabulary.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from build.errors import Unsupported

Bytes = NDArray[np.uint8]
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MOST_DIMENSIONS = 4
# By the number of a value's type; strings and arrays have other types.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KINDS = {kind.value for kind in GGMLQuantizationType}


@dataclass(frozen=True)
class GgufTensor:
    """`shape` is [rows, columns]; `data` the bytes of each row, [rows, bytes], as `kind` lays them out."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    data: Bytes


@dataclass(frozen=True)
class GgufFile:
    metadata: dict[str, Any]
    tensors: list[GgufTensor]


def parse_gguf(content: Bytes) -> GgufFile:
    """ValueError for what is no GGUF file or is cut short; tensors are views of `content`.

    Unsupported for big-endian files, other versions, and unknown types of tensors.
    """
    try:
        return _parse(_Cursor(content))
    except (struct.error, LookupError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _parse(cursor: _Cursor) -> GgufFile:
    if cursor.take(len(_MAGIC)) != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = cursor.scalar("I")
    if version and not version & 0xFFFF:
        raise Unsupported("is big-endian: turn its bytes round with `gguf-convert-endian FILE little`")
    if version not in _VERSIONS:
        raise Unsupported(f"is GGUF of version {version}, must be of 2 or 3: convert the model again")
    tensors, keys = cursor.scalar("Q"), cursor.scalar("Q")
    metadata = {}
    for _ in range(keys):
        name = cursor.text()
        if name in metadata:
            raise ValueError(f"{name} is there twice")
        metadata[name] = cursor.value(cursor.scalar("I"))
    entries = [_entry(cursor) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"general.alignment is {alignment!r}")
    start = -(-cursor.position // alignment) * alignment
    found = [_tensor(cursor.content, start + offset, *entry) for *entry, offset in entries]
    return GgufFile(metadata, found)


def _entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
    """Name, shape, type and offset of a tensor; the file gives the columns first."""
    name, dimensions = cursor.text(), cursor.scalar("I")
    if dimensions > _MOST_DIMENSIONS:
        raise ValueError(f"tensor {name} has {dimensions} dimensions")
    shape = tuple(cursor.scalar("Q") for _ in range(dimensions))[::-1]
    kind = cursor.scalar("I")
    if kind not in _KINDS:
        raise Unsupported(f"tensor {name} is of type {kind}, which the package gguf does not know")
    return name, shape, GGMLQuantizationType(kind), cursor.scalar("Q")


def _tensor(
    content: Bytes, start: int, name: str, shape: tuple[int, ...], kind: GGMLQuantizationType
) -> GgufTensor:
    block, size = GGML_QUANT_SIZES[kind]
    row = shape[-1] // block * size
    end = start + math.prod(shape[:-1]) * row
    if shape[-1] % block or end > len(content):
        raise ValueError(f"tensor {name} of {end - start} bytes ends at {end} of {len(content)}")
    return GgufTensor(name, shape, kind, content[start:end].reshape(*shape[:-1], row))


class _Cursor:
    def __init__(self, content: Bytes) -> None:
        self.content = content
        self.position = 0
        self._view = content.data

    def take(self, count: int) -> bytes:
        self.position += count
        if self.position > len(self._view):
            raise ValueError(f"it ends at byte {len(self._view)}")
        return self._view[self.position - count : self.position].tobytes()

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._view, self.position)
        self.position += struct.calcsize(f"<{code}")
        return value

    def text(self) -> str:
        return self.take(self.scalar("Q")).decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array(self.scalar("I"), self.scalar("Q"))
        return self.scalar(_SCALARS[kind])

    def _array(self, kind: int, count: int) -> list[Any]:
        if kind == _STRING:
            return [self.text() for _ in range(count)]
        dtype = np.dtype(f"<{_SCALARS[kind]}")
        values: list[Any] = np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()
        return values
