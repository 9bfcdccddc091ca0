"""Metadata of GGUF files: a key that changes the result is honoured as in llama.cpp, or refused by name.

Each value was compared with llama.cpp's logits of the same file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.architecture import describe
from build.architecture.parts import Architecture
from build.errors import BadInput, Unsupported
from build.sources.gguf import open_gguf
from tests.models import tiny

GEMMA3: dict[str, Any] = {"num_hidden_layers": 7, "layer_types": None, "query_pre_attn_scalar": 32}
FULL, SLIDING = "full_attention", "sliding_attention"
LINEAR = {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}


def described(folder: Path, family: str, metadata: dict[str, Any], **changes: Any) -> Architecture:
    path = tiny.write_gguf(folder / "model.gguf", family, metadata=metadata, **changes)
    return describe(open_gguf(path).config)


HONOURED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({".rope.scaling.factor": 4.0}, LINEAR),
    ({".rope.scale_linear": 4.0}, LINEAR),
    ({".rope.scaling.factor": 4.0, ".rope.scale_linear": 2.0}, LINEAR),
    ({".rope.scaling.type": "linear", ".rope.scaling.factor": 4.0}, LINEAR),
    ({".rope.scaling.type": "linear"}, {}),
    ({".rope.scaling.type": "none", ".rope.scaling.factor": 4.0}, {}),
    ({".rope.scaling.factor": 0.0}, {}),
    ({".rope.scaling.original_context_length": 64, ".rope.scaling.finetuned": True}, {}),
    ({".rope.freq_base": 500.0}, {"rope_theta": 500.0}),
    ({".rope.freq_base": None}, {"rope_theta": 10000.0}),
    ({".rope.dimension_count": 16}, {}),
    ({".attention.head_count": [4, 4], ".attention.head_count_kv": [2, 2]}, {}),
    ({".feed_forward_length": [96, 96]}, {}),
    ({".attention.key_length": None, ".attention.value_length": None}, {}),
    ({".attention.sliding_window": 5}, {}),
    ({".vocab_size": 300}, {}),
    ({".expert_count": 0, ".attention.causal": True, ".pooling_type": 0, ".logit_scale": 1.0}, {}),
    ({"split.count": 1}, {}),
]


@pytest.mark.parametrize(("metadata", "changes"), HONOURED, ids=lambda case: " ".join(case) or "plain")
def test_keys_mean_what_they_mean_in_llama_cpp(
    metadata: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    assert described(tmp_path, "llama", metadata) == describe(tiny.config("llama", **changes))


def test_as_many_heads_of_keys_as_of_queries_by_default(tmp_path: Path) -> None:
    metadata = {".attention.head_count_kv": None}
    found = described(tmp_path, "llama", metadata, num_key_value_heads=4)
    assert found == describe(tiny.config("llama", num_key_value_heads=4))


@pytest.mark.parametrize(
    ("metadata", "changes"),
    [
        ({}, {"layer_types": [SLIDING] * 5 + [FULL] + [SLIDING]}),
        ({".attention.sliding_window": None}, {"layer_types": [FULL] * 7}),
        ({".attention.sliding_window": 0}, {"layer_types": [FULL] * 7}),
        ({".attention.sliding_window_pattern": 2}, {"layer_types": [SLIDING, FULL] * 3 + [SLIDING]}),
        ({".attention.sliding_window_pattern": 0}, {"layer_types": [SLIDING] * 7}),
        (
            {".attention.sliding_window_pattern": [True, False, False, True, True, False, True]},
            {"layer_types": [SLIDING, FULL, FULL, SLIDING, SLIDING, FULL, SLIDING]},
        ),
        ({".rope.freq_base": None}, {"rope_theta": 10000.0}),
        ({".rope.freq_base_swa": 100.0}, {"rope_local_base_freq": 100.0}),
        ({".rope.scaling.factor": 4.0}, LINEAR),
    ],
    ids=str,
)
def test_keys_of_gemma_3(metadata: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    """A window of none makes every layer a global one; a factor divides the positions of global layers."""
    expected = describe(tiny.config("gemma3_text", **(GEMMA3 | changes)))
    assert described(tmp_path, "gemma3_text", metadata, **GEMMA3) == expected


REFUSED: list[tuple[str, Any]] = [
    (".attention.causal", False),
    (".attention.clamp_kqv", 8.0),
    (".attention.head_count", [4, 2]),
    (".attention.head_count_kv", [2, 4]),
    (".attention.key_length_swa", 8),
    (".attention.max_alibi_bias", 8.0),
    (".attention.scale", 0.5),
    (".attention.value_length", 8),
    (".attention.value_length_swa", 8),
    (".attn_logit_softcapping", 50.0),
    (".embedding_scale", 12.0),
    (".expert_count", 8),
    (".expert_used_count", 2),
    (".feed_forward_length", [96, 64]),
    (".final_logit_softcapping", 30.0),
    (".logit_scale", 0.5),
    (".nextn_predict_layers", 1),
    (".pooling_type", 3),
    (".residual_scale", 0.25),
    (".rope.dimension_count", 8),
    (".rope.dimension_count_swa", 8),
    (".rope.scaling.alpha", 1000.0),
    (".rope.scaling.attn_factor", 1.5),
    (".rope.scaling.type", "dynamic"),
    (".rope.scaling.type", "longrope"),
    (".rope.scaling.type", "yarn"),
    (".rope.scaling.yarn_attn_factor", 1.5),
    (".rope.scaling.yarn_ext_factor", 1.0),
]


@pytest.mark.parametrize(("key", "value"), REFUSED, ids=str)
def test_what_the_graphs_do_not_compute_is_refused_by_name(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as refused:
        described(tmp_path, "qwen3", {key: value})
    assert f"model.gguf: GGUF metadata: qwen3{key}: {value!r}" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({".attention.layer_norm_rms_epsilon": None}, r"llama\.attention\.layer_norm_rms_epsilon is missing"),
        ({".attention.layer_norm_rms_epsilon": "x"}, r"rms_epsilon: 'x', must be a positive number"),
        ({".attention.head_count": None}, r"llama\.attention\.head_count is missing"),
        ({".attention.head_count": 0}, r"llama\.attention\.head_count: 0, must be a whole number, 1 or more"),
        ({".attention.head_count": [4, 4, 4]}, r"\[4, 4, 4\], must be of 2 layers, which block_count says"),
        ({".attention.head_count_kv": 2.0}, r"head_count_kv: 2\.0, must be a whole number"),
        ({".attention.key_length": None}, r"value_length: 24 is not supported: 16 is, as attention\.key_len"),
        ({".attention.value_length": None}, r"value_length: 16 by default is not supported: 24 is"),
        ({".block_count": 4000000000}, r"block_count: 4000000000, but the file has 21 tensors"),
        ({".block_count": None}, r"llama\.block_count is missing"),
        ({".context_length": None}, r"llama\.context_length is missing"),
        ({".embedding_length": "x"}, r"embedding_length: 'x', must be a whole number"),
        ({".feed_forward_length": None}, r"llama\.feed_forward_length is missing"),
        ({".rope.freq_base": 0.0}, r"rope\.freq_base: 0\.0, must be a positive number"),
        ({".rope.scaling.factor": -1.0}, r"rope\.scaling\.factor: -1\.0, must be a positive number"),
        ({".rope.scaling.factor": "x"}, r"rope\.scaling\.factor: 'x', must be a positive number"),
    ],
    ids=str,
)
def test_what_is_missing_or_wrong_is_named(metadata: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        described(tmp_path, "llama", metadata, head_dim=24)


def test_a_pattern_of_other_layers_is_refused(tmp_path: Path) -> None:
    metadata = {".attention.sliding_window_pattern": [True, False]}
    with pytest.raises(BadInput, match=r"sliding_window_pattern: \[True, False\], must be of 7 layers"):
        described(tmp_path, "gemma3_text", metadata, **GEMMA3)


def bias(size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.arange(1, size + 1, dtype=np.float32)


def test_biases_that_some_layers_have_are_zero_in_others(tmp_path: Path) -> None:
    extra = {"blk.1.attn_output.bias": bias(64), "blk.0.ffn_down.bias": bias(64)}
    checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf", extra=extra))
    architecture = describe(checkpoint.config)
    assert architecture == describe(tiny.config("llama", attention_bias=True, mlp_bias=True))
    checkpoint.require_exactly(architecture.tensors())
    found = {name: weight.read() for name, weight in checkpoint.weights.items() if name.endswith(".bias")}
    given = ["model.layers.1.self_attn.o_proj.bias", "model.layers.0.mlp.down_proj.bias"]
    for name in given:
        np.testing.assert_array_equal(found.pop(name), bias(64))
    assert len(found) == 12
    assert not any(values.any() for values in found.values())


def test_the_bias_of_queries_alone_is_in_the_order_of_their_rows(tmp_path: Path) -> None:
    extra = {"blk.0.attn_q.bias": bias(64)}
    checkpoint = open_gguf(tiny.write_gguf(tmp_path / "model.gguf", extra=extra))
    values = checkpoint.weights["model.layers.0.self_attn.q_proj.bias"].read()
    np.testing.assert_array_equal(values[:16], [*range(1, 17, 2), *range(2, 17, 2)])


def test_rope_factors_are_scaled_with_the_positions(tmp_path: Path) -> None:
    factors = [1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0]
    found = described(tmp_path, "llama", {".rope.scaling.factor": 3.0}, rope_factors=factors)
    plain = describe(tiny.config("llama")).layers[0].attention.rotary
    assert plain is not None
    expected = [frequency / (3.0 * by) for frequency, by in zip(plain, factors, strict=True)]
    np.testing.assert_allclose(found.layers[0].attention.rotary or (), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("family", "tensor", "shape", "message"),
    [
        ("llama", "blk.0.attn_q.scale", 1, r"blk\.0\.attn_q\.scale has no place in a llama model"),
        ("llama", "blk.0.attn_q.input_scale", 1, r"blk\.0\.attn_q\.input_scale has no place"),
        ("llama", "blk.0.attn_norm.bias", 64, r"blk\.0\.attn_norm\.bias has no place in a llama"),
        ("llama", "blk.2.attn_norm.weight", 64, r"blk\.2\.attn_norm\.weight has no place in a llama"),
        ("llama", "blk.0.attn_rot_embd.weight", 8, r"blk\.0\.attn_rot_embd\.weight has no place"),
        ("llama", "blk.0.attn_q_norm.weight", 16, r"blk\.0\.attn_q_norm\.weight has no place"),
        ("llama", "rope_factors_long.weight", 8, r"rope_factors_long\.weight has no place"),
        ("llama", "rope_freqs.weight", 4, r"rope_freqs\.weight has 4 values, must have 8"),
        ("qwen2", "rope_freqs.weight", 8, r"rope_freqs\.weight has no place in a qwen2 model"),
        ("qwen2", "output.bias", 263, r"output\.bias has no place in a qwen2 model"),
        ("qwen2", "blk.0.ffn_up.bias", 96, r"blk\.0\.ffn_up\.bias has no place in a qwen2"),
        ("qwen3", "blk.0.attn_output.bias", 64, r"blk\.0\.attn_output\.bias has no place in a qwen3"),
        ("gemma3_text", "blk.0.ffn_up.bias", 96, r"blk\.0\.ffn_up\.bias has no place in a gemma3_text"),
    ],
)
def test_a_tensor_that_nobody_would_compute_is_named(
    family: str, tensor: str, shape: int, message: str, tmp_path: Path
) -> None:
    path = tiny.write_gguf(tmp_path / "model.gguf", family, extra={tensor: bias(shape)})
    with pytest.raises(BadInput, match=rf"^model\.gguf: GGUF tensor {message}"):
        open_gguf(path)


def test_more_rows_than_tokens_are_refused(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "model.gguf", vocab_size=300)
    with pytest.raises(BadInput, match=r"token_embd\.weight: shape \[300, 64\], must be \[263, 64\] by the"):
        open_gguf(path)
