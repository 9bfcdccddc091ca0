"""Numbers that are not finite, on their way through the kernels: they end their own request, and no other.

What is spoilt is a token's row of the embedding. The token may be in a prompt, be chosen, or be proposed.
"""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from build.architecture import describe
from build.assemble_onnxruntime import DecoderAssembly
from build.quantise import Precision
from engine.core.errors import NotFinite
from engine.core.scheduler import Scheduler
from engine.core.slots import SlotTable
from engine.core.stops import Piece
from engine.core.tokens import TokenTable
from engine.loop import Loop
from engine.runners.kernel_runner import KernelRunner, KernelWeights
from engine.runners.kernels import levels_here, load_kernels
from tests.fakes.loop import Client, ToyEngine
from tests.models import tiny
from tests.models.kernel_engines import VOCAB, Quiet, write_kernel_engine

pytestmark = pytest.mark.skipif(not levels_here(), reason="no kernels have been compiled")
SLOTS, CAPACITY, CHUNK = 6, 128, 16
TABLE = TokenTable([f"{token} ".encode() for token in range(VOCAB)])
BAD = 100
SPOILT = pytest.mark.parametrize("value", [np.nan, -np.inf], ids=str)
# More than any logit of the tiny model: the token is chosen.
WANTED = {"logit_bias": ((BAD, 100.0),)}


class KernelEngine(ToyEngine):
    """The real loop over the kernels."""

    def __init__(self, folder: Path, drafts: int = 0) -> None:
        super().__init__()
        self._folder = folder
        runner = KernelRunner(load_kernels().library, KernelWeights(folder), SLOTS, CAPACITY, 2)
        slots = SlotTable(SLOTS, CAPACITY, 4)
        self.scheduler = Scheduler(slots, frozenset(), 20, CHUNK, speculative_tokens=drafts)
        self.loop = Loop(self.scheduler, runner, TABLE, VOCAB, self.outbox, self.recorder, self.clock)

    def spoil(self, token: int, value: float) -> None:
        """From now on: the kernels read the embedding where it is, in the file."""
        place = json.loads((self._folder / "kernels.json").read_text())["embedding"]
        rows = np.memmap(
            self._folder / "model.onnx.data", np.float32, "r+", place["offset"], tuple(place["shape"])
        )
        rows[token, 3] = value
        rows.flush()


def tokens_of(client: Client) -> list[int]:
    spans = [chunk.span for chunk in client.chunks]
    return list(reduce(Piece.then, spans).tokens) if spans else []


def prompt(seed: int, length: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).choice(range(BAD + 1, VOCAB), length).tolist()
    return found


SOUND: list[dict[str, Any]] = [
    {"max_tokens": 24},
    {"max_tokens": 24, "temperature": 1.0, "seed": 3},
    {"max_tokens": 24, "num_logprobs": 2},
]


def ask_sound(engine: KernelEngine) -> list[Client]:
    """Requests that never meet the token."""
    return [
        engine.ask(prompt(seed, 5 + 9 * seed), suppress_tokens=(BAD,), **more)
        for seed, more in enumerate(SOUND)
    ]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    engine = KernelEngine(write_kernel_engine(tmp_path_factory.mktemp("sound"), "llama"))
    clients = ask_sound(engine)
    engine.run()
    return [tokens_of(client) for client in clients]


@SPOILT
@pytest.mark.parametrize(
    ("length", "sampling"),
    [
        (3, WANTED),
        (3, WANTED | {"temperature": 1.0, "seed": 1}),
        (3, WANTED | {"temperature": 0.7, "top_k": 5, "seed": 1, "num_logprobs": 2}),
        (3, WANTED | {"num_beams": 3}),
        (37, {}),  # the token is in the second of three chunks
        (9, {}),
        (9, {"temperature": 1.0, "seed": 1}),
        (37, {"num_beams": 3}),
    ],
    ids=["greedy", "sampled", "filtered", "beams", "chunks", "prompt", "sampled prompt", "beams' prompt"],
)
def test_it_ends_its_request_and_no_other(
    tmp_path: Path, answers: list[list[int]], value: float, length: int, sampling: dict[str, Any]
) -> None:
    engine = KernelEngine(write_kernel_engine(tmp_path, "llama"))
    engine.spoil(BAD, value)
    asked = prompt(7, length)
    if not sampling.keys() & WANTED.keys():
        asked[length // 2] = BAD
    sound = ask_sound(engine)
    while not all(client.tokens for client in sound):
        engine.step()
    hit = engine.ask(asked, stream=False, **{"max_tokens": 20, **sampling})
    engine.run()
    assert hit.error == str(NotFinite())
    assert [tokens_of(client) for client in sound] == answers
    assert [type(fault) for fault in engine.faults] == [NotFinite]
    # What it has left in its slots is read by nobody.
    again = [client for _ in range(2) for client in ask_sound(engine)]
    engine.run()
    assert [tokens_of(client) for client in again] == 2 * answers


def write_counting_engine(folder: Path) -> Path:
    """A model of which the last token decides the next: it counts."""
    checkpoint = tiny.write_folder(folder / "checkpoint", "llama")
    weights = load_file(checkpoint / "model.safetensors")
    for name, values in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] = values * np.float32(1e-3)
    weights["lm_head.weight"] = np.roll(weights["model.embed_tokens.weight"], 1, axis=0)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    found = tiny.opened(checkpoint)
    (folder / "engine").mkdir()
    DecoderAssembly(found, describe(found.config), Precision.INT8).write(folder / "engine", Quiet())
    return folder / "engine"


def counting(tmp_path: Path) -> tuple[KernelEngine, Client]:
    """An engine, and the client of a request that already runs in it and gets no drafts."""
    engine = KernelEngine(write_counting_engine(tmp_path), drafts=4)
    return engine, engine.ask([150], max_tokens=40)


@SPOILT
def test_a_proposed_token_that_is_kept_ends_its_request(tmp_path: Path, value: float) -> None:
    """The prompt counts to 49; what follows 11 and 12 there is proposed: 13, 14, 15, 16."""
    engine, other = counting(tmp_path)
    client = engine.ask([*range(10, 50), 10, 11], max_tokens=30)
    while not client.tokens:
        engine.step()
    engine.recorder.drain()
    engine.spoil(14, value)
    engine.step()
    assert client.error == str(NotFinite())
    counted = engine.recorder.drain().counters
    assert counted["spec_decode_num_accepted_tokens_total", ()] == 2
    # 13 and 14, and the token of the other request.
    assert counted["generation_tokens_total", ()] == 3
    engine.run()
    assert tokens_of(other) == [*range(151, 191)]


@SPOILT
def test_a_proposed_token_that_is_not_kept_harms_nobody(tmp_path: Path, value: float) -> None:
    """In the prompt 90 to 93 follow 11 and 12, and are proposed; the model goes on to 13."""
    engine, other = counting(tmp_path)
    client = engine.ask([11, 12, 90, 91, 92, 93, 10, 11], max_tokens=30)
    while not client.tokens:
        engine.step()
    engine.recorder.drain()
    engine.spoil(90, value)
    engine.step()
    assert engine.counter("spec_decode_num_draft_tokens_total") == 4
    engine.run()
    assert tokens_of(client) == [*range(12, 42)]
    assert tokens_of(other) == [*range(151, 191)]
    assert not engine.faults
