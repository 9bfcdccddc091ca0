"""Models that llama-gguf-split cut into several files, and files that no longer hold what they held."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from build.errors import BadInput, Unsupported
from build.sources.gguf import open_gguf, read_gguf
from build.sources.resolve import open_source
from tests.models import tiny


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    tiny.write_gguf(tmp_path / "model.gguf", "qwen2", tensors_a_file=10)
    return [tmp_path / f"model-{number:05}-of-00003.gguf" for number in (1, 2, 3)]


def test_all_parts_are_read_given_the_first(parts: list[Path]) -> None:
    checkpoint = open_source(str(parts[0]))
    expected = tiny.tensors(tiny.config("qwen2"))
    assert set(checkpoint.weights) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(checkpoint.weights[name].read(), values)
    digests = {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}
    assert (checkpoint.origin.id, checkpoint.origin.files) == (parts[0].name, digests)


def test_another_part_names_the_first(parts: list[Path]) -> None:
    with pytest.raises(
        BadInput, match=rf"{parts[1].name}: is a part of a model: give the first, {parts[0].name}"
    ):
        open_gguf(parts[1])


def test_a_part_that_is_missing_or_renamed_is_named(parts: list[Path]) -> None:
    parts[2].unlink()
    with pytest.raises(BadInput, match=rf"{parts[2].name}: no such file"):
        open_gguf(parts[0])
    renamed = parts[0].rename(parts[0].with_name("model.gguf"))
    with pytest.raises(
        BadInput, match=r"split\.count is 3: the files must be named NAME-00001-of-00003\.gguf"
    ):
        open_gguf(renamed)


def test_parts_that_lack_a_tensor_are_refused(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(
        BadInput, match=r"has \d+ tensors in 3 files, split\.tensors\.count says 27|is there twice"
    ):
        open_gguf(parts[0])


def test_the_first_of_several_files_is_refused_without_its_path(parts: list[Path]) -> None:
    with pytest.raises(Unsupported, match=r"is the first of several files: .*llama-gguf-split --merge"):
        read_gguf(np.fromfile(parts[0], np.uint8), parts[0].name)


def test_a_tensor_or_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "model.gguf")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"blk.1.attn_norm.weight", b"blk.0.attn_norm.weight"))
    with pytest.raises(BadInput, match=r"model\.gguf: GGUF tensor blk\.0\.attn_norm\.weight is there twice"):
        open_gguf(path)
    path.write_bytes(content.replace(b"ggml.bos_token_id", b"ggml.eos_token_id"))
    with pytest.raises(BadInput, match=r"damaged \(tokenizer\.ggml\.eos_token_id is there twice\)"):
        open_gguf(path)
