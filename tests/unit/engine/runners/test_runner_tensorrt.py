"""The TensorRT runner on graphs of its dialect, run by ONNX Runtime: positions, masks, caches, profiles.

The same weights in the other dialect, on the runner of the CPU, say what is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from build.architecture import describe
from build.architecture.parts import Architecture as Decoder
from build.dialects.contents import Scored
from build.quantise import Precision
from engine.edge.artifact import Architecture, KvDtype, ModelShape
from engine.runners.memory import HostMemory
from engine.runners.onnx_runner import OnnxRunner, open_session
from engine.runners.runner import Profile
from engine.runners.tensorrt_runner import TensorRtRunner, fill_causal, fill_source
from tests.fakes.onnx_executor import OnnxExecutor
from tests.models import engines, seq2seq_engines, tensorrt_graphs, tiny, tiny_seq2seq
from tests.unit.engine.runners.runner_play import (
    CAPACITY,
    CHUNK,
    SLOTS,
    Moves,
    compare,
    fill,
    moves,
    shape_of,
    tokens_of,
)

PROFILES = {Profile.DECODE: (SLOTS, 1), Profile.PREFILL: (1, CHUNK)}
# The graphs of the tests have that much more for a source.
SOURCES = CAPACITY + 8
TOLERANCE = 3e-4
# Rotary and learned positions; a window shorter than a chunk in every layer, and in some.
FAMILIES = ["llama", "gpt2", "mistral", "gemma3_text"]
CHANGES = {"mistral": {"sliding_window": 6}, "gemma3_text": {"sliding_window": 6}}


@dataclass(frozen=True)
class Graphs:
    """Of one model in both dialects, by the names of their files."""

    tensorrt: dict[str, Path]
    onnxruntime: dict[str, Path]

    def shape(self) -> ModelShape:
        kind = Architecture.ENCODER_DECODER if "encoder" in self.tensorrt else Architecture.DECODER
        return shape_of(open_session(self.onnxruntime["model"], 1), kind)

    def runner(self) -> TensorRtRunner:
        return runner_of(self.executor(), self.encoder(), self.shape())

    def executor(self) -> OnnxExecutor:
        return OnnxExecutor(self.tensorrt["model"], PROFILES)

    def encoder(self) -> OnnxExecutor | None:
        limits = {Profile.DECODE: (1, SOURCES)}
        return OnnxExecutor(self.tensorrt["encoder"], limits) if "encoder" in self.tensorrt else None

    def reference(self) -> OnnxRunner:
        sessions = [open_session(path, 1) for path in self.onnxruntime.values()]
        encoder = sessions[1] if len(sessions) > 1 else None
        return OnnxRunner(sessions[0], self.shape(), SLOTS, CAPACITY, CHUNK, encoder, SOURCES)


def runner_of(decoder: OnnxExecutor, encoder: OnnxExecutor | None, shape: ModelShape) -> TensorRtRunner:
    sources = SOURCES if encoder else 0
    return TensorRtRunner(decoder, encoder, shape, HostMemory(), SLOTS, CAPACITY, CHUNK, sources)


@pytest.fixture(scope="module", params=FAMILIES)
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    folder, family = tmp_path_factory.mktemp("tensorrt"), request.param
    checkpoint = tiny.opened(tiny.write_folder(folder / "checkpoint", family, **CHANGES.get(family, {})))
    architecture = describe(checkpoint.config)
    assert isinstance(architecture, Decoder)
    given_ = (checkpoint, architecture, Precision.FP32)
    tensorrt = tensorrt_graphs.write_graphs(folder / "tensorrt", *given_, CAPACITY)
    onnxruntime = engines.write_engine(folder / "onnxruntime", *given_)
    return Graphs({"model": tensorrt.model}, {"model": onnxruntime.folder / f"{Scored.LAST.value}.onnx"})


@pytest.fixture(scope="module", params=["bart", "t5"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    folder = tmp_path_factory.mktemp("tensorrt")
    checkpoint = tiny_seq2seq.write_folder(folder / "checkpoint", request.param)
    given_ = (*seq2seq_engines.open_model(checkpoint), Precision.FP32)
    tensorrt = tensorrt_graphs.write_pair(folder / "tensorrt", *given_, CAPACITY).folder
    onnxruntime = seq2seq_engines.write_engine(folder / "onnxruntime", *given_).folder
    return Graphs(
        {"model": tensorrt / f"{Scored.LAST.value}.onnx", "encoder": tensorrt / "encoder.onnx"},
        {name: onnxruntime / f"{name}.onnx" for name in ("model", "encoder")},
    )


@settings(max_examples=10)
@given(moves)
def test_a_decoder_runs_as_on_the_cpu(decoder: Graphs, drawn: Moves) -> None:
    compare(drawn.of_a_decoder, decoder.runner(), decoder.reference(), TOLERANCE)


@settings(max_examples=10)
@given(moves)
def test_an_encoder_decoder_runs_as_on_the_cpu(pair: Graphs, drawn: Moves) -> None:
    compare(drawn.of_an_encoder_decoder, pair.runner(), pair.reference(), TOLERANCE)


def test_caches_of_float16(tmp_path: Path) -> None:
    """Half the bytes, and the answers of a graph in float32 as far as float16 can tell."""
    checkpoint = tiny.opened(tiny.write_folder(tmp_path / "checkpoint", "llama"))
    architecture = describe(checkpoint.config)
    assert isinstance(architecture, Decoder)
    found = {}
    for precision, kind in ((Precision.FP16, KvDtype.FLOAT16), (Precision.FP32, KvDtype.FLOAT32)):
        graphs = tensorrt_graphs.write_graphs(
            tmp_path / precision.value, checkpoint, architecture, precision, CAPACITY
        )
        shape = ModelShape(2, 2, 16, len(tiny.VOCAB), 256, kv_dtype=kind)
        runner = runner_of(OnnxExecutor(graphs.model, PROFILES), None, shape)
        list(fill(runner, 1, tokens_of(1, 20)))
        found[kind] = runner.decode([5, 6], [0, 20]).copy()
    np.testing.assert_allclose(found[KvDtype.FLOAT16], found[KvDtype.FLOAT32], rtol=0, atol=0.05)


def test_an_idle_row_harms_nobody(decoder: Graphs) -> None:
    """It writes one position behind its slot's tokens, which the next chunk of its prompt overwrites."""
    runner, tokens = decoder.runner(), tokens_of(1, 2 * CHUNK)
    list(fill(runner, 1, tokens_of(2, 6)))
    runner.prefill(0, 0, tokens[:CHUNK])
    runner.decode([0, 5], [CHUNK, 6])
    found = runner.prefill(0, CHUNK, tokens[CHUNK:]).copy()
    assert np.array_equal(found, list(fill(decoder.runner(), 0, tokens))[1])


def test_a_decode_step_is_prepared_once_for_each_count_of_rows(decoder: Graphs) -> None:
    executor = decoder.executor()
    runner = runner_of(executor, None, decoder.shape())
    for count in (1, 3, 1, 3, 3):
        runner.decode([5] * count, [0] * count)
    runner.prefill(0, 0, [5, 6])
    assert executor.prepared == [(Profile.DECODE, True), (Profile.DECODE, True), (Profile.PREFILL, False)]


def test_logits_may_be_written_to(decoder: Graphs) -> None:
    runner = decoder.runner()
    expected = runner.prefill(0, 0, [5, 6, 7]).copy()
    runner.prefill(0, 0, [5, 6, 7])[:] = np.nan
    assert np.array_equal(runner.prefill(0, 0, [5, 6, 7]), expected)


@given(
    st.lists(st.lists(st.integers(0, 11), min_size=3, max_size=3), min_size=1, max_size=3),
    st.none() | st.integers(1, 14),
)
def test_a_query_looks_at_no_key_after_it_and_at_none_before_its_window(
    positions: list[list[int]], window: int | None
) -> None:
    queries = np.array(positions)
    mask: NDArray[np.bool_] = np.ones((len(positions), 1, 3, 12), np.bool_)
    fill_causal(mask, queries, window)
    for row, query, key in np.ndindex(len(positions), 3, 12):
        distance = queries[row, query] - key
        assert mask[row, 0, query, key] == (0 <= distance < (window or 12))
    assert mask.any(axis=-1).all()


def test_a_row_looks_at_its_source_and_at_one_key_where_there_is_none() -> None:
    mask: NDArray[np.bool_] = np.zeros((3, 1, 1, 4), np.bool_)
    fill_source(mask, np.array([2, 0, 4], np.int32))
    assert mask[:, 0, 0].tolist() == [[True, True, False, False], [True, False, False, False], [True] * 4]
