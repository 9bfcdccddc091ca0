"""What each precision of the `tensorrt` dialect computes, against the reference over the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from build.architecture import describe
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.dialects.contents import Scored
from build.dialects.tensorrt.executor_cpu import CpuExecutor
from build.dialects.tensorrt.precision import PRECISIONS, require_precision
from build.errors import BadInput
from build.quantise import Precision
from build.reference import decoder as reference
from tests.models import tiny
from tests.models.tensorrt_graphs import as_rounded, write_graphs

IDS = np.random.default_rng(2).integers(3, len(tiny.VOCAB), 24)
# The share of the largest logit that rounding activations costs.
TOLERANCES = {ir.DataType.FLOAT16: 0.008, ir.DataType.BFLOAT16: 0.05}
SHAPES = {
    "llama": {"hidden_size": 128, "intermediate_size": 192, "head_dim": 32},
    "gpt2": {},
    "gemma3_text": {},
}


def _model(folder: Path, family: str) -> tuple[Checkpoint, Architecture]:
    checkpoint = tiny.opened(tiny.write_folder(folder, family, **SHAPES[family]))
    architecture = describe(checkpoint.config)
    assert isinstance(architecture, Architecture)
    return checkpoint, architecture


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: precision.value)
def test_prefill_and_ragged_decode_give_the_reference_over_rounded_weights(
    family: str, precision: Precision, tmp_path: Path
) -> None:
    checkpoint, architecture = _model(tmp_path / "checkpoint", family)
    graphs = write_graphs(tmp_path / "engine", checkpoint, architecture, precision)
    rounded, head = as_rounded(tmp_path / "rounded", checkpoint, architecture, precision)
    expected = reference.final_hidden(rounded, architecture, IDS[None], lambda: None)[0] @ head.T
    compute = ir.load(graphs.model).graph.initializers[architecture.final_norm.weight].dtype
    assert compute is not None
    tolerance = TOLERANCES[compute] * np.abs(expected).max()

    np.testing.assert_allclose(graphs.session(Scored.ALL).prefill(0, IDS), expected, atol=tolerance)
    session, starts = graphs.session(rows=2), np.array([7, 19])
    for row, start in enumerate(starts):
        session.prefill(row, IDS[:start])
    for step in range(4):
        np.testing.assert_allclose(
            session.decode(IDS[starts + step]), expected[starts + step], atol=tolerance
        )


def test_logits_are_float_and_caches_are_of_the_type_computed_in(tmp_path: Path) -> None:
    checkpoint, architecture = _model(tmp_path / "checkpoint", "gemma3_text")
    for precision, compute in (
        (Precision.FP16, ir.DataType.FLOAT16),
        (Precision.BF16, ir.DataType.BFLOAT16),
        (Precision.INT8, ir.DataType.BFLOAT16),
    ):
        graphs = write_graphs(tmp_path / precision.value, checkpoint, architecture, precision)
        graph = ir.load(graphs.model).graph
        assert graph.outputs[0].dtype is ir.DataType.FLOAT
        caches = [*graph.inputs, *graph.outputs]
        assert {v.dtype for v in caches if v.name and v.name.startswith(("past_", "present_"))} == {compute}


def test_a_window_that_no_row_outgrows_needs_no_mask_of_its_own(tmp_path: Path) -> None:
    checkpoint, architecture = _model(tmp_path / "checkpoint", "gemma3_text")
    (window,) = {layer.attention.window for layer in architecture.layers} - {None}
    assert window is not None
    names = []
    for capacity in (window, window + 1):
        graphs = write_graphs(
            tmp_path / str(capacity), checkpoint, architecture, Precision.FP16, capacity=capacity
        )
        names.append({name for name in CpuExecutor(graphs.model).inputs if "mask" in name})
    assert names == [{"attention_mask"}, {"attention_mask", f"attention_mask_{window}"}]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.GGUF])
def test_a_precision_of_the_other_engine_is_refused(precision: Precision) -> None:
    with pytest.raises(BadInput, match="engine tensorrt takes fp16, bf16, int8, int4, fp8"):
        require_precision(precision)
