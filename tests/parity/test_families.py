"""Every family against transformers: the same folder, the same logits, the same greedy tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from build.architecture import describe
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.quantise import Precision
from build.reference import decoder as reference
from tests.models import tiny
from tests.models.engines import write_engine

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 50000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True}),
    ("llama", {"hidden_size": 80, "head_dim": 48, "intermediate_size": 80}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0}),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    ("llama", {"num_key_value_heads": 4}),
    ("mistral", {}),
    ("mistral", {"sliding_window": 7}),
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    ("qwen3", {"tie_word_embeddings": True}),
    ("qwen3", {"head_dim": 32}),
    ("gpt2", {}),
    ("gpt2", {"tie_word_embeddings": False}),
    ("gpt2", {"n_inner": 80, "activation_function": "relu", "n_head": 2}),
    ("gpt2", {"activation_function": "gelu", "layer_norm_epsilon": 1e-3}),
    ("gpt2", {"scale_attn_weights": False}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    ("gemma3_text", {}),
    ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    ("gemma3_text", {"layer_types": None, "sliding_window_pattern": 2, "sliding_window": 1}),
    ("gemma3_text", {"attention_bias": True, "num_key_value_heads": 2, "tie_word_embeddings": False}),
    ("gemma3_text", {"rope_theta": None, "rope_parameters": GEMMA3_ROPE, "sliding_window": 28}),
]
IDS = [f"{family}-{'-'.join(changes) or 'plain'}" for family, changes in CASES]
PROMPT = np.random.default_rng(1).integers(3, len(tiny.VOCAB), 29)


def _oracle(folder: Path) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def _logits(model: Any, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: NDArray[np.float32] = model(torch.tensor(ids[None])).logits[0].numpy()
    return logits


def _checkpoint(folder: Path) -> tuple[Checkpoint, Architecture]:
    checkpoint = tiny.opened(folder)
    checkpoint.require_exactly(describe(checkpoint.config).tensors())
    return checkpoint, describe(checkpoint.config)


@pytest.mark.parametrize(("family", "changes"), CASES, ids=IDS)
def test_the_reference_gives_the_logits_of_transformers(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = tiny.write_folder(tmp_path / "checkpoint", family, **changes)
    checkpoint, architecture = _checkpoint(folder)
    hidden = reference.final_hidden(checkpoint, architecture, PROMPT[None], lambda: None)[0]
    logits = hidden @ reference.head_weight(checkpoint, architecture).T
    np.testing.assert_allclose(logits, _logits(_oracle(folder), PROMPT), atol=2e-4)


@pytest.mark.parametrize(("family", "changes"), CASES, ids=IDS)
def test_the_fp32_engine_generates_what_transformers_generates(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = tiny.write_folder(tmp_path / "checkpoint", family, **changes)
    oracle = _oracle(folder)
    checkpoint, architecture = _checkpoint(folder)
    engine = write_engine(tmp_path / "engine", checkpoint, architecture, Precision.FP32)
    np.testing.assert_allclose(engine.all_logits(PROMPT), _logits(oracle, PROMPT), atol=2e-4)

    with torch.no_grad():
        expected = oracle.generate(
            torch.tensor(PROMPT[None]),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(PROMPT) :]
    assert engine.greedy(PROMPT, 24) == expected.tolist()
