"""The runner for CUDA over the host's memory, on ONNX Runtime's CPU provider: OnnxRunner, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings

from build.architecture import describe
from build.architecture.parts import Architecture as Decoder
from build.dialects.contents import Scored
from build.quantise import Precision
from engine.edge.artifact import Architecture, KvDtype, ModelShape
from engine.runners.cuda_runner import CudaRunner
from engine.runners.memory import HostMemory
from engine.runners.onnx_runner import OnnxRunner, open_session
from tests.models import seq2seq_engines, tiny, tiny_seq2seq
from tests.models.engines import write_engine
from tests.models.seq2seq_engines import open_model
from tests.unit.engine.runners.runner_play import (
    CAPACITY,
    CHUNK,
    SLOTS,
    SOURCES,
    Moves,
    compare,
    fill,
    moves,
    shape_of,
    tokens_of,
)

SIZES = (SLOTS, CAPACITY, CHUNK)
CASES = [("llama", Precision.FP32), ("llama", Precision.INT8), ("gpt2", Precision.FP32)]
IDS = [f"{family}-{precision.value}" for family, precision in CASES]


class Pair:
    """Both runners over the same graphs."""

    def __init__(
        self, decoder: ort.InferenceSession, encoder: ort.InferenceSession | None, shape: ModelShape
    ):
        sources = SOURCES if encoder else 0
        self.cuda = CudaRunner(decoder, encoder, shape, HostMemory(), *SIZES, sources)
        self.cpu = OnnxRunner(decoder, shape, *SIZES, encoder, sources)


@pytest.fixture(scope="module", params=CASES, ids=IDS)
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    (family, precision), folder = request.param, tmp_path_factory.mktemp("cuda")
    checkpoint = tiny.opened(tiny.write_folder(folder / "checkpoint", family))
    architecture = describe(checkpoint.config)
    assert isinstance(architecture, Decoder)
    engine = write_engine(folder / "engine", checkpoint, architecture, precision)
    return open_session(engine.folder / f"{Scored.LAST.value}.onnx", threads=1)


@settings(max_examples=10)
@given(moves)
def test_a_decoder_runs_as_on_the_cpu(graph: ort.InferenceSession, drawn: Moves) -> None:
    pair = Pair(graph, None, shape_of(graph))
    compare(drawn.of_a_decoder, pair.cuda, pair.cpu, tolerance=0)


@pytest.fixture(scope="module", params=["bart", "t5"])
def graphs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[ort.InferenceSession]:
    folder = tmp_path_factory.mktemp("cuda")
    checkpoint = tiny_seq2seq.write_folder(folder / "checkpoint", request.param)
    engine = seq2seq_engines.write_engine(folder / "engine", *open_model(checkpoint), Precision.FP32)
    return [open_session(engine.folder / f"{name}.onnx", threads=1) for name in ("model", "encoder")]


@settings(max_examples=10)
@given(moves)
def test_an_encoder_decoder_runs_as_on_the_cpu(graphs: list[ort.InferenceSession], drawn: Moves) -> None:
    decoder, encoder = graphs
    pair = Pair(decoder, encoder, shape_of(decoder, Architecture.ENCODER_DECODER))
    compare(drawn.of_an_encoder_decoder, pair.cuda, pair.cpu, tolerance=0)


def test_caches_of_float16(tmp_path: Path) -> None:
    """What a GPU runs: half the bytes, and the logits of float32 as far as float16 can tell."""
    checkpoint = tiny.opened(tiny.write_folder(tmp_path / "checkpoint", "llama"))
    architecture = describe(checkpoint.config)
    assert isinstance(architecture, Decoder)
    runners = []
    for precision, kind in ((Precision.FP16, KvDtype.FLOAT16), (Precision.FP32, KvDtype.FLOAT32)):
        engine = write_engine(tmp_path / precision.value, checkpoint, architecture, precision)
        session = open_session(engine.folder / f"{Scored.LAST.value}.onnx", threads=1)
        shape = replace(shape_of(session), kv_dtype=kind)
        runners.append(CudaRunner(session, None, shape, HostMemory(), *SIZES))
    play = Moves((5, 20, 30, 9), 1, 3, (2, 8), cross=True, rows=4)
    half, full = runners
    compare(play.of_a_decoder, half, full, tolerance=0.1)


def test_a_row_that_has_no_source_yet_harms_nobody(graphs: list[ort.InferenceSession]) -> None:
    decoder, encoder = graphs
    runner = Pair(decoder, encoder, shape_of(decoder, Architecture.ENCODER_DECODER)).cuda
    runner.encode(1, tokens_of(1, 9))
    found = runner.decode([5, 6], [0, 0]).copy()
    runner.encode(0, tokens_of(1, 9))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(runner.decode([6], [0])[0], found[1], rtol=0, atol=1e-4)


def test_logits_may_be_written_to(graph: ort.InferenceSession) -> None:
    runner = Pair(graph, None, shape_of(graph)).cuda
    tokens = tokens_of(1, CHUNK)
    expected = runner.prefill(0, 0, tokens).copy()
    runner.prefill(0, 0, tokens)[:] = np.nan
    assert np.array_equal(runner.prefill(0, 0, tokens), expected)


def test_a_step_reads_no_other_slot(graph: ort.InferenceSession) -> None:
    """A slot whose memory is not a number does not show in the others' logits."""
    runner = Pair(graph, None, shape_of(graph)).cuda
    for slot, length in enumerate((12, 5)):
        list(fill(runner, slot, tokens_of(slot, length)))
    expected = runner.decode([7, 8], [12, 5]).copy()
    own = runner._cache.own
    for name in own.names:
        runner._memory.from_host(own.address(name, 2), np.full(own.shape.row_bytes, 0xFF, np.uint8))
    assert np.array_equal(runner.decode([7, 8], [12, 5]), expected)
