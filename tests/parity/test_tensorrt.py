"""Every family in the `tensorrt` dialect against transformers, on ONNX Runtime's CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.architecture import describe
from build.architecture.parts import Architecture
from build.dialects.contents import Scored
from build.quantise import Precision
from tests.models import tiny
from tests.models.tensorrt_graphs import write_graphs

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

families = pytest.importorskip("tests.parity.test_families")
TOLERANCE = 2e-4


@pytest.mark.parametrize(("family", "changes"), families.CASES, ids=families.IDS)
def test_prefill_and_ragged_decode_give_the_logits_of_transformers(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Row 1 is prefilled in chunks, and decodes in a batch with shorter and longer rows."""
    folder = tiny.write_folder(tmp_path / "checkpoint", family, **changes)
    checkpoint = tiny.opened(folder)
    architecture = describe(checkpoint.config)
    assert isinstance(architecture, Architecture)
    ids = np.random.default_rng(1).integers(3, len(tiny.VOCAB), 29)
    with torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        expected = model(torch.tensor(ids[None])).logits[0].numpy()

    graphs = write_graphs(tmp_path / "engine", checkpoint, architecture, Precision.FP32)
    every = graphs.session(Scored.ALL).prefill(0, ids)
    np.testing.assert_allclose(every, expected, atol=TOLERANCE)

    session, starts = graphs.session(rows=3), np.array([5, 20, 9])
    session.prefill(1, ids[:7])
    for row, start in enumerate(starts):
        last = session.prefill(row, ids[session.lengths[row] : start])
        np.testing.assert_allclose(last[0], expected[start - 1], atol=TOLERANCE)
    for step in range(6):
        logits = session.decode(ids[starts + step])
        np.testing.assert_allclose(logits, expected[starts + step], atol=TOLERANCE)
