"""Checkpoints on disk: what a step changed is read back as it was, and what is damaged is done again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from build.checkpoint import Checkpoint, Weight
from build.compress.store import Store, root
from build.quantise import quantise, quantise_rows
from build.sources.gguf import open_gguf
from tests.models import tiny

NAME = "model.layers.0.mlp.up_proj.weight"
OTHER = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def source(tmp_path: Path) -> Checkpoint:
    return open_gguf(tiny.write_gguf(tmp_path / "model.gguf", "qwen2", Kind.Q4_1))


def changed(source: Checkpoint, name: str, weight: Weight) -> Checkpoint:
    return replace(source, weights={**source.weights, name: weight}, config={**source.config, "note": 1})


def test_blocks_rows_and_values_are_read_back_as_they_were(source: Checkpoint, tmp_path: Path) -> None:
    values = source.weights[NAME].read()
    blocks = replace(quantise(values, 4, 32), offsets=np.full((len(values), 2), 0.5, np.float32))
    rows = quantise_rows(values)
    store = Store(tmp_path / "kept", source)
    for key, weight in {
        "values": Weight(values.shape, lambda: values + 1),
        "blocks": Weight(values.shape, blocks.dequantise, lambda: blocks),
        "eight": Weight(
            values.shape, lambda: quantise(values, 8, 32).dequantise(), lambda: quantise(values, 8, 32)
        ),
        "rows": Weight(values.shape, rows.dequantise, read_rows=lambda: rows),
    }.items():
        store.keep(key, changed(source, NAME, weight), root(source))
        found = store.find(key)
        assert found is not None
        read = found.checkpoint.weights[NAME]
        np.testing.assert_array_equal(read.read(), weight.read())
        assert (read.read_blocks is None) == (weight.read_blocks is None)
        assert (read.read_rows is None) == (weight.read_rows is None)
        if weight.read_blocks and read.read_blocks:
            assert read.read_blocks().bits == weight.read_blocks().bits
            np.testing.assert_array_equal(read.read_blocks().levels, weight.read_blocks().levels)
        if weight.read_rows and read.read_rows:
            np.testing.assert_array_equal(read.read_rows().levels, weight.read_rows().levels)
        assert found.checkpoint.config == {**source.config, "note": 1}
        assert found.checkpoint.tokenizer == source.tokenizer


def test_what_a_step_left_alone_is_not_written_again(source: Checkpoint, tmp_path: Path) -> None:
    store = Store(tmp_path / "kept", source)
    values = source.weights[NAME].read()
    first = store.keep("one", changed(source, NAME, Weight(values.shape, lambda: values + 1)), root(source))
    second = store.keep(
        "two", changed(first.checkpoint, OTHER, Weight(values.shape, lambda: values - 1)), first
    )
    assert (second.places[NAME], second.places[OTHER]) == ("one", "two")
    assert second.places["model.norm.weight"] == "root"
    np.testing.assert_array_equal(second.checkpoint.weights[NAME].read(), values + 1)
    sizes = [(tmp_path / "kept" / key / "weights.safetensors").stat().st_size for key in ("one", "two")]
    assert max(sizes) < 2 * values.nbytes
    # The source's own blocks are still there to be carried.
    assert second.checkpoint.weights["model.layers.0.mlp.down_proj.weight"].read_blocks is not None


@pytest.mark.parametrize("damage", ["weights", "index", "parent"])
def test_what_is_damaged_is_not_found(source: Checkpoint, tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path / "kept", source)
    values = source.weights[NAME].read()
    first = store.keep("one", changed(source, NAME, Weight(values.shape, lambda: values + 1)), root(source))
    store.keep("two", changed(first.checkpoint, OTHER, Weight(values.shape, lambda: values - 1)), first)
    assert store.find("two") is not None
    folder = tmp_path / "kept"
    if damage == "weights":
        path = folder / "two" / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif damage == "index":
        (folder / "two" / "checkpoint.json").write_text("{")
    else:
        (folder / "one" / "weights.safetensors").unlink()
    assert store.find("two") is None


def test_a_write_that_fails_leaves_nothing(source: Checkpoint, tmp_path: Path) -> None:
    def fails() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        raise OSError(28, "No space left on device")

    store = Store(tmp_path / "kept", source)
    with pytest.raises(OSError, match="No space left"):
        store.keep("one", changed(source, NAME, Weight(source.weights[NAME].shape, fails)), root(source))
    assert list((tmp_path / "kept").iterdir()) == []
    assert store.find("one") is None
