"""Searches of a decoder alone, through the whole engine, against transformers' generate, token for token."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from build.architecture import describe
from build.dialects.contents import Scored
from build.quantise import Precision
from build.sources.folder import open_folder
from engine.core.request import FinishReason, Request, Sampling, parse_early_stopping
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
from tests.models.engines import write_engine

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread")]

from tests.models.oracle import llama_oracle  # noqa: E402  (needs torch)

SLOTS, CAPACITY, CHUNK, EOS = 6, 96, 8, 2
VOCAB = len(tiny.VOCAB)
SHAPE = ModelShape(layers=2, kv_heads=2, head_dim=16, vocab_size=VOCAB, max_positions=256)
OPTIONS: list[dict[str, Any]] = [
    {"no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.3, "min_tokens": 6, "suppress_tokens": (5, 6)},
    {"num_beams": 4},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 3},
    {"num_beams": 3, "length_penalty": -0.5, "early_stopping": "never", "min_tokens": 4},
    {"num_beams": 2, "repetition_penalty": 1.4, "forced_eos_token_id": EOS},
]


class Pair:
    """transformers' model, and an engine over the same weights."""

    def __init__(self, folder: Path) -> None:
        checkpoint = open_folder(tiny.write_folder(folder / "checkpoint", "llama"))
        self.oracle = llama_oracle(checkpoint)
        engine = write_engine(folder / "engine", checkpoint, describe(checkpoint.config), Precision.FP32)
        session = open_session(engine.folder / f"{Scored.LAST.value}.onnx", threads=1)
        self.slots = SlotTable(SLOTS, CAPACITY)
        recorder = Recorder(unexpected)
        self.outbox = Outbox(recorder, FakeClock())
        self.loop = Loop(
            Scheduler(self.slots, frozenset({EOS}), 100, CHUNK),
            OnnxRunner(session, SHAPE, SLOTS, CAPACITY, CHUNK),
            TokenTable([bytes([token % 251]) for token in range(VOCAB)]),
            VOCAB, self.outbox, recorder, FakeClock(),
        )  # fmt: skip

    def ask(self, prompt: list[int], options: dict[str, Any]) -> Client:
        fields = {"max_tokens": 20} | options
        if "early_stopping" in fields:
            fields["early_stopping"] = parse_early_stopping(str(fields["early_stopping"]).lower())
        client = Client()
        self.loop.submit(Request(tuple(prompt), Sampling(**fields)), client, str)
        return client

    def run(self) -> None:
        while self.loop.keys():
            self.loop.step()
        self.outbox.send_pending()

    def expected(self, prompt: list[int], options: dict[str, Any]) -> tuple[list[int], FinishReason]:
        fields = {"max_new_tokens": 20, "num_beams": 1} | options
        fields["min_new_tokens"] = fields.pop("min_tokens", None)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            ids = torch.tensor([prompt])
            mask = torch.ones_like(ids)
            found = self.oracle.generate(
                ids, attention_mask=mask, do_sample=False, eos_token_id=EOS, pad_token_id=0, **fields
            )
        answer = found[0, len(prompt) :].tolist()
        ended = answer[-1] == EOS
        return answer[:-1] if ended else answer, FinishReason.STOP if ended else FinishReason.LENGTH


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("search"))


def prompt(seed: int) -> list[int]:
    picker = random.Random(seed)
    return [picker.randrange(3, VOCAB) for _ in range(picker.choice([1, 2, 7, 8, 9, 30]))]


def test_answers_of_all_kinds_that_share_the_batch_are_those_of_generate(pair: Pair) -> None:
    """More than the slots hold, and prompts that were asked before."""
    asked = [(prompt(seed % 9), OPTIONS[seed % len(OPTIONS)]) for seed in range(24)]
    clients = [pair.ask(*one) for one in asked]
    pair.run()
    for client, one in zip(clients, asked, strict=True):
        (chunk,) = client.chunks
        assert (list(chunk.span.tokens), chunk.finish) == pair.expected(*one)
    assert len(pair.slots.free) == SLOTS
