"""Our reader of GGUF files against the `gguf` package's, and against files that are damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from build.errors import Unsupported
from build.sources.gguf_file import GgufFile, parse_gguf
from tests.models import tiny

Bytes = NDArray[np.uint8]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", "qwen2", Kind.Q8_0)


@pytest.fixture(scope="module")
def content(path: Path) -> Bytes:
    return np.fromfile(path, np.uint8)


def parsed(head: bytes) -> GgufFile:
    return parse_gguf(np.frombuffer(head, np.uint8))


def test_the_package_of_the_format_reads_the_same(path: Path, content: Bytes) -> None:
    ours, theirs = parse_gguf(content), GGUFReader(path)
    fields = {key: field.contents() for key, field in theirs.fields.items()}
    assert ours.metadata == {key: value for key, value in fields.items() if not key.startswith("GGUF.")}
    assert len(ours.tensors) == len(theirs.tensors)
    for mine, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (mine.name, mine.kind) == (other.name, other.tensor_type)
        assert mine.shape == tuple(other.shape.tolist())[::-1]
        np.testing.assert_array_equal(mine.data, other.data.view(np.uint8))


@given(data=st.data())
def test_a_truncated_file_is_refused(content: Bytes, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(ValueError, match=r"."):
        parse_gguf(content[:end])


@given(data=st.data())
def test_a_flipped_byte_is_refused_or_read(content: Bytes, data: st.DataObject) -> None:
    """Never another error than these, and never a tensor beyond the file."""
    damaged = content.copy()
    damaged[data.draw(st.integers(0, 8000))] = data.draw(st.integers(0, 255))
    try:
        tensors = parse_gguf(damaged).tensors
    except (ValueError, Unsupported):
        return
    assert sum(tensor.data.size for tensor in tensors) <= len(content) * len(tensors)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"GGML" + bytes(20), "does not begin with GGUF"),
        (struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 2**63), "it ends at byte 32"),
        (struct.pack("<4sIQQQ1sII", b"GGUF", 3, 0, 1, 1, b"k", 99, 0), "KeyError: 99"),
        (struct.pack("<4sIQQQ1sI", b"GGUF", 3, 1, 0, 1, b"t", 5), "tensor t has 5 dimensions"),
    ],
)
def test_a_head_that_cannot_be_parsed_is_named(head: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(head)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            struct.pack("<4sIQQ", b"GGUF", 1, 0, 0),
            "is GGUF of version 1, must be of 2 or 3: convert the model",
        ),
        (struct.pack("<4sIQQ", b"GGUF", 4, 0, 0), "is GGUF of version 4, must be of 2 or 3"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "is big-endian: .*gguf-convert-endian FILE little"),
        (
            struct.pack("<4sIQQQ1sIQIQ", b"GGUF", 3, 1, 0, 1, b"t", 1, 32, 200, 0),
            "tensor t is of type 200, which the package gguf does not know",
        ),
    ],
)
def test_a_valid_file_that_is_not_supported_is_named(head: bytes, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        parsed(head)


def test_version_2_has_the_layout_of_3(content: Bytes) -> None:
    older = content.copy()
    older[4] = 2
    assert parse_gguf(older).metadata == parse_gguf(content).metadata


def test_an_alignment_of_nothing_is_refused() -> None:
    key = b"general.alignment"
    with pytest.raises(ValueError, match=r"general\.alignment is 0"):
        parsed(struct.pack(f"<4sIQQQ{len(key)}sII", b"GGUF", 3, 0, 1, len(key), key, 4, 0))
