from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.core.errors import ArtifactError, EngineError, SettingsError, Unavailable
from engine.core.request import Request, Sampling
from engine.edge.artifact import read_manifest
from engine.edge.channel import Signal, SignalSender
from engine.edge.chunks import Chunk
from engine.edge.settings import Settings
from engine.edge.triton import signals_of
from engine.runners.runner import Floats
from engine.service import Service, open_service, self_test
from tests.fakes.loop import Client, ToyModel, ToyRunner, opened
from tests.models.artifact import byte_tokenizer, write_artifact

VOCAB = byte_tokenizer().get_vocab_size()
SETTINGS = Settings(slots=2, max_context=64, max_queue=8, prefill_chunk=8, heartbeat_ms=10)


class Waiting(Client):
    """A client that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.ended = threading.Event(), threading.Event()

    def send(self, chunk: Chunk, final: bool) -> None:
        super().send(chunk, final)
        self.begun.set()
        if final:
            self.ended.set()

    def fail(self, error: EngineError) -> None:
        super().fail(error)
        self.ended.set()


class Paced(ToyRunner):
    """A runner that decodes only while its gate is open."""

    def __init__(self) -> None:
        super().__init__(2, 64, ToyModel(VOCAB))
        self.gate = threading.Event()
        self.gate.set()

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Floats:
        assert self.gate.wait(30)
        return super().decode(tokens, positions)


class Running:
    def __init__(self, folder: Path) -> None:
        self.faults: list[BaseException] = []
        self.runner = Paced()
        self.service = Service(
            opened(read_manifest(folder), self.runner), SETTINGS, signals_of({}), self.faults.append
        )

    def ask(self, prompt: list[int], stream: bool = True, **sampling: int) -> Waiting:
        client = Waiting()
        wanted = Sampling(**{"max_tokens": 10, "ignore_eos": True, **sampling})  # type: ignore[arg-type]
        client.key = self.service.submit(Request(tuple(prompt), wanted, stream=stream), client)
        return client


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    one = Running(write_artifact(tmp_path / "1"))
    one.service.start()
    yield one
    one.runner.gate.set()
    one.service.close()
    assert not one.faults


def test_requests_are_answered_by_its_threads(running: Running) -> None:
    clients = [running.ask([1, 2, number], stream=number % 2 == 0) for number in range(6)]
    for number, client in enumerate(clients):
        assert client.ended.wait(30)
        assert client.tokens == 10
        spans = [chunk.span for chunk in client.chunks]
        whole = spans[0]
        for span in spans[1:]:
            whole = whole.then(span)
        assert list(whole.tokens) == ToyModel(VOCAB).greedy([1, 2, number], 10)


@pytest.fixture
def detokenizer() -> Iterator[SignalSender]:
    sender = SignalSender()
    with sender._socket:
        yield sender


def test_a_cancel_comes_through_the_channel(running: Running, detokenizer: SignalSender) -> None:
    running.runner.gate.clear()
    client = running.ask([1], max_tokens=60)
    assert client.begun.wait(30)
    assert detokenizer.send(client.chunks[0].handle, Signal.CANCEL)
    while not running.service.loop._streams[client.key].end:
        pass
    running.runner.gate.set()
    assert client.ended.wait(30)
    assert client.error == "CANCELLED: request: by the client"


def test_a_fault_comes_through_the_channel(running: Running, detokenizer: SignalSender) -> None:
    running.runner.gate.clear()
    client = running.ask([1], max_tokens=60)
    assert client.begun.wait(30)
    assert detokenizer.send(client.chunks[0].handle, Signal.FAULT)
    while not running.service.loop._streams[client.key].end:
        pass
    running.runner.gate.set()
    assert client.ended.wait(30)
    assert client.error == "INTERNAL: detokenizer: could not decode a chunk; the request was ended"


def test_after_a_bug_in_the_loop_all_is_ended_and_the_service_gives_up(tmp_path: Path) -> None:
    faults: list[BaseException] = []
    gave_up = threading.Event()
    seen: list[bool] = []

    def give_up() -> None:
        seen.append(all(client.done for client in clients))  # they were told before
        gave_up.set()

    runner = Paced()
    runner.gate.clear()
    manifest = read_manifest(write_artifact(tmp_path / "1"))
    service = Service(opened(manifest, runner), SETTINGS, signals_of({}), faults.append, give_up)
    service.start()
    clients = [Waiting() for _ in range(3)]
    for client in clients:
        service.submit(Request((1,), Sampling(9, ignore_eos=True), stream=True), client)
    assert clients[0].begun.wait(30)
    service.loop._scheduler.schedule = None  # type: ignore[method-assign, assignment]
    runner.gate.set()
    assert gave_up.wait(30)
    assert seen == [True]
    assert {client.error for client in clients} == {
        "UNAVAILABLE: server: stopped before the answer was complete"
    }
    assert [type(fault) for fault in faults] == [TypeError]
    with pytest.raises(Unavailable):
        service.submit(Request((1,), Sampling(9)), Waiting())
    service.close()


def test_close_ends_what_is_left_and_every_thread(tmp_path: Path) -> None:
    running = Running(write_artifact(tmp_path / "1"))
    running.service.start()
    running.runner.gate.clear()
    clients = [running.ask([number], max_tokens=60) for number in range(5)]
    assert clients[0].begun.wait(30)
    closer = threading.Thread(target=running.service.close)
    closer.start()
    while not running.service.loop._stopping:
        pass
    with pytest.raises(Unavailable):
        running.ask([1])
    running.runner.gate.set()
    closer.join(30)
    assert not closer.is_alive()
    for client in clients:
        assert (client.finals, client.late) == (1, 0)
        assert client.error == "UNAVAILABLE: server: stopped before the answer was complete"
    assert {thread.is_alive() for thread in running.service._threads} == {False}


class Unsteady(ToyRunner):
    """Answers the same prompt differently."""

    def prefill(self, slot: int, start: int, tokens: Sequence[int]) -> Floats:
        logits = super().prefill(slot, start, tokens)
        logits[0, len(self.calls)] += 100
        return logits


class Broken(ToyRunner):
    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Floats:
        return super().decode(tokens, positions) * np.float32("nan")


def test_the_self_test_passes_a_runner_that_works(tmp_path: Path) -> None:
    manifest = read_manifest(write_artifact(tmp_path / "1"))
    for context in (2, 3, 64):
        settings = Settings(slots=2, max_context=context)
        self_test(ToyRunner(2, context, ToyModel(VOCAB)), manifest, settings)


def test_the_self_test_refuses_answers_that_differ(tmp_path: Path) -> None:
    manifest = read_manifest(write_artifact(tmp_path / "1"))
    with pytest.raises(ArtifactError, match=r"^INTERNAL: self-test: two equal prompts gave "):
        self_test(Unsteady(2, 64, ToyModel(VOCAB)), manifest, SETTINGS)


def test_the_self_test_refuses_logits_that_are_not_finite(tmp_path: Path) -> None:
    manifest = read_manifest(write_artifact(tmp_path / "1"))
    with pytest.raises(ArtifactError, match=r"^INTERNAL: self-test: .* not finite"):
        self_test(Broken(2, 64, ToyModel(VOCAB)), manifest, SETTINGS)


def test_an_artifact_without_a_graph_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^INTERNAL: model\.onnx: "):
        open_service(write_artifact(tmp_path / "1"), SETTINGS, signals_of({}), lambda error: None)


def test_a_cache_that_does_not_fit_does_not_open(tmp_path: Path) -> None:
    huge = Settings(slots=2, max_context=128, kv_budget_bytes=1000)
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: kv_budget_bytes: 2 slots of 128 positions need "):
        open_service(write_artifact(tmp_path / "1"), huge, signals_of({}), lambda error: None)


def test_a_missing_artifact_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"build the model first: make engines$"):
        open_service(tmp_path / "1", SETTINGS, signals_of({}), lambda error: None)
