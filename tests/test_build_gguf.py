"""A GGUF file read back is the checkpoint it was written from; its blocks are carried over exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer

from build.architecture import describe
from build.dialects.encoding import Role, encode
from build.errors import BadInput, Unsupported
from build.quantise import Blocks, Precision
from build.sources.gguf import open_gguf
from build.sources.gguf_tokenizer import derived_merges, tokenizer_files
from tests import tiny

BLOCKS = [Kind.Q4_0, Kind.Q8_0]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_names_shapes_and_rows_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf", family))
    settings = tiny.config(family)
    expected = tiny.tensors(settings)
    assert set(checkpoint.weights) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(checkpoint.weights[name].read(), values, err_msg=name)
    assert describe(checkpoint.config) == describe(settings)


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
        assert blocks.bits == (4 if kind is Kind.Q4_0 else 8)
        stored = [dequantize(quantize(originals[name], kind), kind) for name in projection.parts]
        np.testing.assert_array_equal(blocks.dequantise(), np.concatenate(stored))


@pytest.mark.parametrize("kind", [Kind.Q4_1, Kind.Q5_0, Kind.F16, Kind.BF16], ids=lambda k: k.name)
def test_other_kinds_are_dequantised(kind: Kind, tmp_path: Path) -> None:
    checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf", "qwen2", kind))
    name = "model.layers.0.mlp.down_proj.weight"
    original = tiny.tensors(tiny.config("qwen2"))[name]
    expected = dequantize(quantize(original, kind), kind).reshape(original.shape)
    np.testing.assert_array_equal(checkpoint.weights[name].read(), expected)
    assert checkpoint.weights[name].read_blocks is None


def test_metadata_becomes_generation_and_tokenizer_settings(tmp_path: Path) -> None:
    checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf"))
    assert checkpoint.generation == {"eos_token_id": [0, 2]}
    assert checkpoint.tokenizer.chat_template == tiny.CHAT_TEMPLATE
    assert checkpoint.tokenizer.bos_token == "<|im_start|>"
    assert checkpoint.tokenizer.eos_token == "<|im_end|>"
    assert checkpoint.origin.id == "model.gguf"
    assert list(checkpoint.origin.files) == ["model.gguf"]


def test_a_byte_level_vocabulary_encodes_as_before(tmp_path: Path) -> None:
    ours = open_gguf(tiny.write_gguf(tmp_path / "model.gguf")).tokenizer.json.decode()
    original = Tokenizer.from_str(json.dumps(tiny.tokenizer_json()))
    for text in ("<|im_start|>user\nSay the thing in 2 words: 你好\n\n  <|im_end|>", "", " the the"):
        assert Tokenizer.from_str(ours).encode(text).ids == original.encode(text).ids


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("gpt-2", "Ab 2024's", ["Ab", "Ġ2024", "'s"]),
        ("smollm", "Ab 2024's", ["Ab", "Ġ", "2", "0", "2", "4", "'s"]),
        ("qwen2", "Ab 2024's", ["Ab", "Ġ", "2", "0", "2", "4", "'s"]),
        ("llama-bpe", "Ab 2024's", ["Ab", "Ġ", "202", "4", "'s"]),
        ("llama-bpe", "it'S\n\n x", ["it", "'S", "ĊĊ", "Ġx"]),
    ],
)
def test_each_pre_tokeniser_cuts_words_its_way(pre: str, text: str, words: list[str], tmp_path: Path) -> None:
    content = open_gguf(tiny.write_gguf(tmp_path / "model.gguf", pre=pre)).tokenizer.json
    pre_tokenizer = Tokenizer.from_str(content.decode()).pre_tokenizer
    assert pre_tokenizer is not None
    assert [word for word, _ in pre_tokenizer.pre_tokenize_str(text)] == words


def test_sentencepiece_merges_follow_the_scores() -> None:
    pieces = ["a", "b", "c", "ab", "bc", "abc"]
    scores = [0.0, 0.0, 0.0, -2.0, -1.0, -3.0]
    assert derived_merges(pieces, scores) == [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]


def test_a_sentencepiece_vocabulary_encodes_like_llama_2() -> None:
    space = "\u2581"
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "t", "h", space, "th"]
    files = tokenizer_files(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": [*pieces, f"{space}th"],
            "tokenizer.ggml.scores": [0.0] * (len(pieces) - 1) + [-1.0, -2.0],
            "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, 1, 1, 1, 1, 1],
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
        }
    )
    tokenizer = Tokenizer.from_str(files.json.decode())
    encoded = tokenizer.encode("th é")
    assert encoded.tokens == ["<s>", f"{space}th", space, "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(encoded.ids) == "th é"


def test_vocabularies_nobody_can_rebuild_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="pre-tokeniser 'tekken' is not supported"):
        open_gguf(tiny.write_gguf(tmp_path / "model.gguf", pre="tekken"))
    with pytest.raises(Unsupported, match="tokenizer 'bert' is not supported: gpt2, llama are"):
        tokenizer_files({"tokenizer.ggml.model": "bert"})
    with pytest.raises(BadInput, match=r"tokenizer\.ggml\.merges is missing"):
        tokenizer_files({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": []})


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
