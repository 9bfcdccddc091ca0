"""The ONNX Runtime runner, and the whole engine on it, over tiny random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.architecture import describe
from build.dialects.contents import Scored
from build.quantise import Ids, Precision
from build.sources.folder import open_folder
from engine.core.errors import ArtifactError
from engine.core.request import Request, Sampling
from engine.core.scheduler import Scheduler
from engine.core.slots import SlotTable
from engine.core.tokens import TokenTable
from engine.edge.artifact import ModelShape
from engine.edge.chunks import Outbox
from engine.edge.metrics import Recorder
from engine.loop import Loop
from engine.runners.onnx_runner import OnnxRunner, open_session
from tests.fakes.loop import Client, FakeClock, unexpected
from tests.models import tiny
from tests.models.engines import Engine, write_engine

SLOTS, CAPACITY, CHUNK = 5, 64, 8
VOCAB = len(tiny.VOCAB)
SHAPE = ModelShape(layers=2, kv_heads=2, head_dim=16, vocab_size=VOCAB, max_positions=256)


@pytest.fixture(scope="module", params=[Precision.FP32, Precision.INT8], ids=lambda p: p.value)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("runner")
    checkpoint = open_folder(tiny.write_folder(folder / "checkpoint", "llama"))
    return write_engine(folder / "engine", checkpoint, describe(checkpoint.config), request.param)


def make_runner(engine: Engine) -> OnnxRunner:
    session = open_session(engine.folder / f"{Scored.LAST.value}.onnx", threads=1)
    return OnnxRunner(session, SHAPE, SLOTS, CAPACITY, CHUNK)


@pytest.fixture
def runner(engine: Engine) -> OnnxRunner:
    return make_runner(engine)


def prompt(seed: int, length: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(3, VOCAB, length).tolist()
    return found


def ids(tokens: list[int]) -> Ids:
    return np.array(tokens, np.int64)


def fill(runner: OnnxRunner, slot: int, tokens: list[int]) -> Any:
    """Prefill in chunks; the logits after the last token."""
    for start in range(0, len(tokens), CHUNK):
        logits = runner.prefill(slot, start, tokens[start : start + CHUNK])
    return logits.copy()


@pytest.mark.parametrize("length", [1, 2, CHUNK, CHUNK + 3, 3 * CHUNK])
def test_prefill_and_decode_give_the_models_logits(engine: Engine, runner: OnnxRunner, length: int) -> None:
    tokens = prompt(length, length)
    whole = engine.session()
    expected = whole.prefill(0, ids(tokens))
    for slot in (3, 0):
        np.testing.assert_allclose(fill(runner, slot, tokens), expected, rtol=0, atol=1e-4)
    after = whole.decode(ids([7]))
    np.testing.assert_allclose(runner.decode([7], [length]), after, rtol=0, atol=1e-4)


def test_rows_of_any_length_share_a_step(engine: Engine, runner: OnnxRunner) -> None:
    lengths = [1, 17, 5, CAPACITY - 1, 9]
    for slot, length in enumerate(lengths):
        fill(runner, slot, prompt(slot, length))
    together = runner.decode([3, 4, 5, 6, 7], lengths).copy()
    for slot, length in enumerate(lengths):
        alone = make_runner(engine)
        fill(alone, 0, prompt(slot, length))
        assert np.array_equal(alone.decode([3 + slot], [length])[0], together[slot])


def test_a_copied_row_is_the_row(runner: OnnxRunner) -> None:
    tokens = prompt(1, 12)
    fill(runner, 0, tokens)
    runner.copy(0, 4, 10)
    expected = runner.prefill(0, 10, tokens[10:]).copy()
    assert np.array_equal(runner.prefill(4, 10, tokens[10:]), expected)


def test_swapped_rows_change_places(engine: Engine, runner: OnnxRunner) -> None:
    a, b = prompt(1, 12), prompt(2, 5)
    fill(runner, 0, a)
    fill(runner, 1, b)
    expected = runner.decode([3, 4], [12, 5]).copy()
    again = make_runner(engine)
    fill(again, 0, a)
    fill(again, 1, b)
    again.swap(0, 1, 12)
    assert np.array_equal(again.decode([4, 3], [5, 12])[::-1], expected)


def test_an_idle_row_harms_nobody(engine: Engine, runner: OnnxRunner) -> None:
    """It writes one position behind its slot's tokens, which the next chunk of its prompt overwrites."""
    tokens = prompt(1, 14)
    fill(runner, 1, prompt(2, 6))
    runner.prefill(0, 0, tokens[:8])
    runner.decode([0, 5], [8, 6])
    found = runner.prefill(0, 8, tokens[8:]).copy()
    alone = make_runner(engine)
    assert np.array_equal(found, fill(alone, 0, tokens))


def test_logits_may_be_written_to(runner: OnnxRunner) -> None:
    tokens = prompt(1, 8)
    expected = runner.prefill(0, 0, tokens).copy()
    runner.prefill(0, 0, tokens)[:] = np.nan
    assert np.array_equal(runner.prefill(0, 0, tokens), expected)


def answers(engine: Engine, prompts: list[list[int]], together: bool, **sampling: Any) -> list[list[int]]:
    """The tokens of greedy answers, by the whole engine."""
    table = TokenTable([bytes([token % 251]) for token in range(VOCAB)])
    recorder = Recorder(unexpected)
    outbox = Outbox(recorder, FakeClock())
    scheduler = Scheduler(SlotTable(SLOTS, CAPACITY), frozenset({2}), 100, CHUNK)
    loop = Loop(scheduler, make_runner(engine), table, VOCAB, outbox, recorder, FakeClock())
    clients = []
    for place, tokens in enumerate(prompts):
        clients.append(Client())
        wanted = Sampling(**{"max_tokens": 4 + 3 * (place % 5), "num_logprobs": 0, **sampling})
        loop.submit(Request(tuple(tokens), wanted), clients[-1], str)
        while loop.keys() and not together:
            loop.step()
    while loop.keys():
        loop.step()
    outbox.send_pending()
    return [[entry["id"] for entry in client.chunks[-1].logprobs] for client in clients]


def test_invariant_4_greedy_answers_do_not_depend_on_the_batch(engine: Engine) -> None:
    """More prompts than slots, of all lengths, so that rows come and go and gaps are closed."""
    prompts = [prompt(seed, 1 + (7 * seed) % 40) for seed in range(16)]
    together = answers(engine, prompts, together=True)
    alone = [
        answers(engine, [tokens], together=True, max_tokens=len(found))[0]
        for tokens, found in zip(prompts, together, strict=True)
    ]
    assert together == alone


def test_a_cached_prompt_is_answered_as_an_uncached_one(engine: Engine) -> None:
    shared = prompt(1, 24)
    prompts = [shared + prompt(seed, seed) for seed in range(2, 8)]
    one_by_one = answers(engine, prompts, together=False)
    uncached = [
        answers(engine, [tokens], together=True, max_tokens=len(found))[0]
        for tokens, found in zip(prompts, one_by_one, strict=True)
    ]
    assert one_by_one == uncached


def test_greedy_answers_are_the_graphs(engine: Engine) -> None:
    tokens = prompt(5, 20)
    found = answers(engine, [tokens], together=True, max_tokens=12, ignore_eos=True)[0]
    assert found == engine.greedy(ids(tokens), 12)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x08\x07"])
def test_a_graph_that_does_not_load_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"^INTERNAL: model\.onnx: ONNX Runtime cannot load it: "):
        open_session(path, 1)


def test_a_graph_without_its_weights_is_refused(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes((engine.folder / f"{Scored.LAST.value}.onnx").read_bytes())
    with pytest.raises(ArtifactError, match=r"^INTERNAL: model\.onnx: "):
        open_session(path, 1)
