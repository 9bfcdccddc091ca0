"""Every encoder-decoder against transformers: the same folder, the same logits, the same greedy tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.quantise import Floats, Ids, Precision
from build.reference import encoder_decoder as reference

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

from tests.models import tiny_seq2seq as tiny  # noqa: E402  (needs torch)
from tests.models.seq2seq_engines import open_model, write_engine  # noqa: E402

CASES: list[tuple[str, dict[str, Any]]] = [
    ("bart", {}),
    ("bart", {"scale_embedding": True, "activation_function": "relu"}),
    ("bart", {"encoder_attention_heads": 1, "encoder_layers": 1}),
    ("mbart", {}),
    ("pegasus", {}),
    ("marian", {}),
    ("marian-apart", {}),
    ("marian-apart", {"tie_word_embeddings": True}),
    ("t5", {}),
    ("t5", {"feed_forward_proj": "gated-silu", "d_kv": 16}),
    ("t5", {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}),
    ("flan-t5", {}),
    ("mt5", {}),
]
IDS = [f"{kind}-{'-'.join(changes) or 'plain'}" for kind, changes in CASES]
LENGTHS = (1, 7, 90, 33)
_random = np.random.default_rng(1)
SOURCES = [_random.integers(3, 40, length) for length in LENGTHS]
TARGETS = _random.integers(3, 40, (len(LENGTHS), 80))


def logits_of(model: Any, source: Ids, target: Ids) -> Floats:
    with torch.no_grad():
        ids, taught = (torch.tensor(part[None]) for part in (source, target))
        logits: Floats = model(input_ids=ids, decoder_input_ids=taught).logits[0].numpy()
    return logits


@pytest.mark.parametrize(("kind", "changes"), CASES, ids=IDS)
def test_the_reference_gives_the_logits_of_transformers(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = tiny.write_folder(tmp_path, kind, **changes)
    oracle = tiny.load(folder)
    checkpoint, model = open_model(folder)
    weight, bias = reference.head_weight(checkpoint, model)
    for source, target in zip(SOURCES, TARGETS, strict=True):
        hidden = reference.final_hidden(checkpoint, model, source[None], target[None], lambda: None)[0]
        expected = logits_of(oracle, source, target)
        np.testing.assert_allclose(hidden @ weight.T + bias, expected, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize(("kind", "changes"), CASES, ids=IDS)
def test_the_fp32_engine_steps_a_ragged_batch_as_transformers_reads_each_row(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = tiny.write_folder(tmp_path / "checkpoint", kind, **changes)
    oracle = tiny.load(folder)
    engine = write_engine(tmp_path / "engine", *open_model(folder), Precision.FP32)
    logits = engine.logits(SOURCES, TARGETS)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        np.testing.assert_allclose(logits[row], logits_of(oracle, source, target), rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize(("kind", "changes"), CASES, ids=IDS)
def test_the_fp32_engine_generates_what_transformers_generates(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = tiny.write_folder(tmp_path / "checkpoint", kind, **changes)
    oracle = tiny.load(folder)
    engine = write_engine(tmp_path / "engine", *open_model(folder), Precision.FP32)
    start = oracle.config.decoder_start_token_id
    for source in SOURCES[::2]:
        with torch.no_grad():
            ids = torch.tensor(source[None])
            expected = oracle.generate(
                ids,
                max_new_tokens=12,
                do_sample=False,
                use_cache=False,
                num_beams=1,
                eos_token_id=None,
                forced_eos_token_id=None,
            )[0, 1:]
        assert engine.greedy(source, start, 12) == expected.tolist()
