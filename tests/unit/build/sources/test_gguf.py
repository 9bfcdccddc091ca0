"""A GGUF file read back is the checkpoint it was written from; its blocks are carried over exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from build.architecture import describe, view
from build.dialects.encoding import Role, encode
from build.errors import BadInput, Unsupported
from build.quantise import Blocks, Precision
from build.sources.gguf import open_gguf
from tests.models import tiny

BLOCKS = [Kind.Q4_0, Kind.Q4_1, Kind.Q8_0]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_names_shapes_and_rows_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf", family))
    settings = tiny.config(family)
    expected = tiny.tensors(settings)
    assert set(checkpoint.weights) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(checkpoint.weights[name].read(), values, err_msg=name)
    assert describe(checkpoint.config) == describe(settings)


# What a Gemma 3 file leaves unsaid is as in every model of the family.
GEMMA3: dict[str, Any] = {"num_hidden_layers": 7, "layer_types": None, "query_pre_attn_scalar": 32}


def test_gemma_3_is_read_with_the_windows_and_frequencies_of_its_family(tmp_path: Path) -> None:
    settings = tiny.config("gemma3_text", **GEMMA3)
    checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf", "gemma3_text", **GEMMA3))
    architecture = describe(checkpoint.config)
    assert architecture == describe(settings)
    assert [layer.attention.window for layer in architecture.layers] == [9, 9, 9, 9, 9, None, 9]
    expected = tiny.tensors(settings)
    for name, weight in view(checkpoint).weights.items():
        np.testing.assert_allclose(weight.read(), expected.pop(name), rtol=0, atol=1e-6, err_msg=name)
    assert not expected


def test_gemma_3_27b_scales_its_scores_by_an_equal_share_of_the_hidden_size(tmp_path: Path) -> None:
    changes = {**GEMMA3, "num_hidden_layers": 62, "hidden_size": 32, "intermediate_size": 32}
    path = tiny.write_gguf(tmp_path / "model.gguf", "gemma3_text", **changes)
    assert describe(open_gguf(path).config).layers[0].attention.scale == 8**-0.5


def test_a_tied_head_and_biases_show_in_the_tensors(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf", tie_word_embeddings=True, attention_bias=True)
    architecture = describe(open_gguf(path).config)
    assert architecture.tied_head
    assert architecture.layers[0].attention.qkv.biases
    open_gguf(path).require_exactly(architecture.tensors())


def test_rope_factors_divide_the_frequencies(tmp_path: Path) -> None:
    factors = [1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0]
    path = tiny.write_gguf(tmp_path / "model.gguf", rope_factors=factors)
    checkpoint = open_gguf(path)
    architecture = describe(checkpoint.config)
    checkpoint.require_exactly(architecture.tensors())
    plain = describe(tiny.config("llama")).layers[0].attention.rotary
    assert plain is not None
    expected = [frequency / factor for frequency, factor in zip(plain, factors, strict=True)]
    assert architecture.layers[0].attention.rotary == tuple(expected)


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.name)
def test_blocks_are_carried_over_exactly(kind: Kind, tmp_path: Path) -> None:
    checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf", "llama", kind))
    architecture = describe(checkpoint.config)
    originals = tiny.tensors(tiny.config("llama"))
    for projection in (
        architecture.layers[0].attention.qkv,
        architecture.layers[1].ffn.outer,
        architecture.head,
    ):
        blocks = encode(checkpoint, projection, Precision.GGUF, Role.ROBUST)
        assert isinstance(blocks, Blocks)
        assert blocks.bits == (8 if kind is Kind.Q8_0 else 4)
        assert (blocks.offsets is None) == (kind is not Kind.Q4_1)
        stored = [dequantize(quantize(originals[name], kind), kind) for name in projection.parts]
        # An offset is the value of level 8, whose sum rounds once more.
        np.testing.assert_allclose(blocks.dequantise(), np.concatenate(stored), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", [Kind.Q5_0, Kind.F16, Kind.BF16], ids=lambda k: k.name)
def test_other_kinds_are_dequantised(kind: Kind, tmp_path: Path) -> None:
    checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf", "qwen2", kind))
    name = "model.layers.0.mlp.down_proj.weight"
    original = tiny.tensors(tiny.config("qwen2"))[name]
    expected = dequantize(quantize(original, kind), kind).reshape(original.shape)
    np.testing.assert_array_equal(checkpoint.weights[name].read(), expected)
    assert checkpoint.weights[name].read_blocks is None


def q4_k(scale: float, smallest: float, scales: list[int], smalls: list[int], levels: Any) -> bytes:
    """256 values in 8 groups of 32: scale * scales[g] * level - smallest * smalls[g]."""
    low = [scales[g] | (scales[g + 4] >> 4) << 6 for g in range(4)]
    high = [smalls[g] | (smalls[g + 4] >> 4) << 6 for g in range(4)]
    mixed = [(scales[g + 4] & 15) | (smalls[g + 4] & 15) << 4 for g in range(4)]
    pairs = np.asarray(levels, np.uint8).reshape(4, 2, 32)
    body = pairs[:, 0] | pairs[:, 1] << np.uint8(4)
    return np.array([scale, smallest], np.float16).tobytes() + bytes(low + high + mixed) + body.tobytes()


def q6_k(scale: float, scales: list[int], levels: Any) -> bytes:
    """256 values in 16 groups of 16: scale * scales[g] * (level - 32)."""
    halves = np.asarray(levels, np.uint8).reshape(2, 4, 32)
    low = [half[place] & 15 | (half[place + 2] & 15) << 4 for half in halves for place in (0, 1)]
    high = [half[0] >> 4 | half[1] >> 4 << 2 | half[2] >> 4 << 4 | half[3] >> 4 << 6 for half in halves]
    parts = [np.concatenate(part).astype(np.uint8).tobytes() for part in (low, high)]
    return b"".join(parts) + np.array(scales, np.int8).tobytes() + np.float16(scale).tobytes()


DOWN = "model.layers.0.mlp.down_proj.weight"
K_QUANTS = [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K]


def read_back(path: Path, kind: Kind, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What is read of 64 rows of 256 values that a file holds as these bytes."""
    tiny.write_gguf(path, raw={DOWN: (kind, rows)}, intermediate_size=256)
    return open_gguf(path).weights[DOWN].read()


def as_rows(blocks: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(blocks), np.uint8).reshape(len(blocks), -1)


def test_q4_k_blocks_are_dequantised(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    blocks, expected = [], []
    for _ in range(64):
        scales, smalls = random.integers(0, 64, (2, 8)).tolist()
        levels = random.integers(0, 16, 256)
        blocks.append(q4_k(0.5, 0.25, scales, smalls, levels))
        expected.append(0.5 * np.repeat(scales, 32) * levels - 0.25 * np.repeat(smalls, 32))
    found = read_back(tmp_path / "model.gguf", Kind.Q4_K, as_rows(blocks))
    np.testing.assert_array_equal(found, expected)


def test_q6_k_blocks_are_dequantised(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    blocks, expected = [], []
    for _ in range(64):
        scales = random.integers(-128, 128, 16).tolist()
        levels = random.integers(0, 64, 256)
        blocks.append(q6_k(0.5, scales, levels))
        expected.append(0.5 * np.repeat(scales, 16) * (levels - 32))
    found = read_back(tmp_path / "model.gguf", Kind.Q6_K, as_rows(blocks))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", K_QUANTS, ids=lambda kind: kind.name)
def test_every_k_quant_has_the_shape_that_config_says(kind: Kind, tmp_path: Path) -> None:
    zeros = np.zeros((64, GGML_QUANT_SIZES[kind][1]), np.uint8)
    np.testing.assert_array_equal(read_back(tmp_path / "m.gguf", kind, zeros), np.zeros((64, 256)))


def test_metadata_becomes_generation_and_tokenizer_settings(tmp_path: Path) -> None:
    checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf"))
    assert checkpoint.generation == {"eos_token_id": [0, 2]}
    assert checkpoint.tokenizer.chat_template == tiny.CHAT_TEMPLATE
    assert checkpoint.tokenizer.special == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert checkpoint.origin.id == "model.gguf"
    assert list(checkpoint.origin.files) == ["model.gguf"]


def test_another_architecture_is_named(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "model.gguf", "qwen2")
    path.write_bytes(path.read_bytes().replace(b"qwen2", b"mamba"))
    with pytest.raises(Unsupported, match="architecture 'mamba' is not supported: llama, qwen2"):
        open_gguf(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "model.gguf")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadInput, match=r"model\.gguf: .*cut short or damaged"):
        open_gguf(path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model" * 100)
    with pytest.raises(BadInput, match="is no GGUF file"):
        open_gguf(path)
    with pytest.raises(BadInput, match="no such file"):
        open_gguf(tmp_path / "absent.gguf")
