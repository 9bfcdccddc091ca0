"""TensorRT-RTX parses and builds every family and precision of the `tensorrt` dialect, without a GPU."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from build.architecture import describe
from build.dialects.tensorrt.builder import (
    Profile,
    check_and_serialise,
    decode_profile,
    encoder_profile,
    prefill_profile,
)
from build.dialects.tensorrt.precision import BLOCK_SIZES, PRECISIONS
from build.dialects.tensorrt.toolkit import RtxToolkit
from build.quantise import Precision
from tests.models import tiny
from tests.models.tensorrt_graphs import CAPACITY, write_graphs, write_pair
from tests.unit.build.tensorrt.test_check import Silent

DECODERS = [(family, Precision.FP16) for family in ("qwen2", "qwen3", "gpt2")]
DECODERS += [("llama", precision) for precision in PRECISIONS] + [("gemma3_text", Precision.BF16)]
PAIRS = [("t5", Precision.BF16), ("flan-t5", Precision.INT4), ("marian", Precision.FP16)]
PAIRS += [("bart", precision) for precision in PRECISIONS] + [("mbart", Precision.FP16)]


def builds(toolkit: RtxToolkit, graph: Path, profiles: list[Profile]) -> bool:
    return len(check_and_serialise(toolkit, graph, profiles, Silent())) > 100_000


@pytest.mark.parametrize(("family", "precision"), DECODERS)
def test_a_decoder_is_built_for_decoding_and_prefilling(
    family: str, precision: Precision, tmp_path: Path, toolkit: RtxToolkit
) -> None:
    changes = {"hidden_size": 128} if family == "llama" else {}
    checkpoint = tiny.opened(tiny.write_folder(tmp_path / "checkpoint", family, **changes))
    architecture = describe(checkpoint.config)
    graphs = write_graphs(tmp_path / "engine", checkpoint, architecture, precision)
    assert builds(toolkit, graphs.model, [decode_profile(8), prefill_profile(32)])


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_blocks_of_every_size_are_built(block_size: int, tmp_path: Path, toolkit: RtxToolkit) -> None:
    folder = tiny.write_folder(tmp_path / "checkpoint", "llama", hidden_size=128, head_dim=32)
    checkpoint = tiny.opened(folder)
    architecture = describe(checkpoint.config)
    graphs = write_graphs(
        tmp_path / "engine", checkpoint, architecture, Precision.INT4, block_size=block_size
    )
    sizes = {
        node.attributes["block_size"].as_int()
        for node in ir.load(graphs.model).graph
        if node.op_type == "DequantizeLinear" and "block_size" in node.attributes
    }
    assert sizes == {block_size}
    assert builds(toolkit, graphs.model, [decode_profile(8), prefill_profile(32)])


@pytest.mark.parity
@pytest.mark.parametrize(("kind", "precision"), PAIRS)
def test_an_encoder_and_its_decoder_are_built(
    kind: str, precision: Precision, tmp_path: Path, toolkit: RtxToolkit
) -> None:
    pytest.importorskip("torch")
    from tests.models import tiny_seq2seq  # noqa: PLC0415  (needs torch)
    from tests.models.seq2seq_engines import open_model  # noqa: PLC0415

    checkpoint, model = open_model(tiny_seq2seq.write_folder(tmp_path / "checkpoint", kind))
    pair = write_pair(tmp_path / "engine", checkpoint, model, precision)
    assert builds(toolkit, pair.folder / "last.onnx", [decode_profile(8)])
    assert builds(toolkit, pair.folder / "encoder.onnx", [encoder_profile(CAPACITY)])
