"""A folder as the hub has it, built by the command, served by the engine: what transformers answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.cli import main
from engine.core.request import Request, Sampling
from engine.edge.chunks import Chunk
from engine.edge.settings import Settings
from engine.edge.triton import signals_of
from engine.service import Service, open_service
from tests.fakes.loop import Client
from tests.models import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

TOKENS = 24
# More prompts than slots, and prompts longer than a chunk and than Gemma's window.
SETTINGS = Settings(slots=3, max_context=96, prefill_chunk=16, threads=1)
PROMPTS = [
    np.random.default_rng(length).integers(3, len(tiny.VOCAB), length).tolist()
    for length in (1, 15, 16, 40, 7)
]


class Answer(Client):
    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def send(self, chunk: Chunk, final: bool) -> None:
        super().send(chunk, final)
        if final:
            self.ended.set()

    def ids(self) -> list[int]:
        assert self.ended.wait(60)
        return [entry["id"] for entry in self.chunks[-1].logprobs]


@pytest.fixture(params=["gpt2", "gemma3_text"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny.write_folder(tmp_path / "checkpoint", request.param)


@pytest.fixture
def service(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Service]:
    command = ["--name", "mini", "--source", str(folder), "--precision", "fp32"]
    command += ["--repository", str(tmp_path / "repository"), "--verify-tokens", "64"]
    assert main(command) == 0, capsys.readouterr().err
    faults: list[BaseException] = []
    service = open_service(tmp_path / "repository/mini_engine/1", SETTINGS, signals_of({}), faults.append)
    service.start()
    yield service
    service.close()
    assert not faults


def test_greedy_answers_are_those_of_transformers(folder: Path, service: Service) -> None:
    clients = [Answer() for _ in PROMPTS]
    sampling = Sampling(max_tokens=TOKENS, ignore_eos=True, num_logprobs=0)
    for prompt, client in zip(PROMPTS, clients, strict=True):
        service.submit(Request(tuple(prompt), sampling), client)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert [client.ids() for client in clients] == [generated(model, prompt) for prompt in PROMPTS]


def generated(model: Any, prompt: list[int]) -> list[int]:
    with torch.no_grad():
        ids = model.generate(
            torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    tokens: list[int] = ids[0, len(prompt) :].tolist()
    return tokens
