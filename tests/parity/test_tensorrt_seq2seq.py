"""Every encoder-decoder in the `tensorrt` dialect against transformers, on ONNX Runtime's CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.dialects.contents import Scored
from build.dialects.tensorrt.precision import PRECISIONS
from build.quantise import Precision
from build.reference import encoder_decoder as reference
from tests.models.tensorrt_graphs import as_rounded, write_pair

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

from tests.models import tiny_seq2seq as tiny  # noqa: E402  (needs torch)
from tests.models.seq2seq_engines import open_model  # noqa: E402
from tests.parity.test_seq2seq import CASES, IDS, logits_of  # noqa: E402

random = np.random.default_rng(1)
SOURCES = [random.integers(3, 40, length) for length in (1, 90, 33)]
TARGETS = random.integers(3, 40, (len(SOURCES), 48))
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 3e-4}


@pytest.mark.parametrize(("kind", "changes"), CASES, ids=IDS)
def test_a_ragged_batch_gives_the_logits_of_transformers(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = tiny.write_folder(tmp_path / "checkpoint", kind, **changes)
    oracle = tiny.load(folder)
    expected = [logits_of(oracle, *pair) for pair in zip(SOURCES, TARGETS, strict=True)]
    pair = write_pair(tmp_path / "engine", *open_model(folder), Precision.FP32, capacity=90)

    stepped = pair.session(rows=len(SOURCES))
    for row, source in enumerate(SOURCES):
        stepped.encode(row, source)
    logits = np.stack([stepped.decode(column) for column in TARGETS.T], axis=1)
    np.testing.assert_allclose(logits, expected, **CLOSE)

    read = pair.session(Scored.ALL)
    read.encode(0, SOURCES[2])
    np.testing.assert_allclose(read.prefill(0, TARGETS[2]), expected[2], **CLOSE)


@pytest.mark.parametrize("kind", ["bart", "marian", "flan-t5"])
@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: precision.value)
def test_each_precision_gives_the_reference_over_rounded_weights(
    kind: str, precision: Precision, tmp_path: Path
) -> None:
    checkpoint, model = open_model(tiny.write_folder(tmp_path / "checkpoint", kind))
    pair = write_pair(tmp_path / "engine", checkpoint, model, precision)
    rounded, head = as_rounded(tmp_path / "rounded", checkpoint, model, precision)
    _, bias = reference.head_weight(rounded, model)
    source, target = SOURCES[2], TARGETS[2][:20]
    hidden = reference.final_hidden(rounded, model, source[None], target[None], lambda: None)[0]
    expected = hidden @ head.T + bias

    session = pair.session(rows=2)
    session.encode(1, source)
    session.encode(0, SOURCES[0])
    logits = [session.decode(np.array([3, token]))[1] for token in target]
    narrow = kind == "flan-t5" or precision is Precision.BF16
    np.testing.assert_allclose(logits, expected, atol=(0.05 if narrow else 0.008) * np.abs(expected).max())
