"""The whole engine over the graphs of a tiny encoder-decoder, without Triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.core.request import FinishReason, Request, Sampling
from engine.core.scheduler import Scheduler
from engine.core.slots import SlotTable
from engine.core.tokens import TokenTable
from engine.edge.artifact import Architecture, ModelShape
from engine.edge.chunks import Outbox
from engine.edge.metrics import Recorder
from engine.loop import Loop
from engine.runners.onnx_runner import OnnxRunner, open_session
from engine.streams import Encoder
from tests.fakes.loop import Client, FakeClock, unexpected
from tests.models.seq2seq_engines import Engine

CAPACITY = 48
Answer = tuple[list[int], FinishReason | None]


def shape_of(engine: Engine) -> ModelShape:
    stack = engine.model.decoder
    return ModelShape(
        layers=len(stack.layers),
        kv_heads=stack.heads,
        head_dim=stack.head_dim,
        vocab_size=engine.model.vocab_size,
        max_positions=engine.capacity,
        architecture=Architecture.ENCODER_DECODER,
        max_source_positions=engine.capacity,
        source_vocab_size=10**6,
    )


def make_runner(engine: Engine, slots: int) -> OnnxRunner:
    decoder, encoder = (open_session(engine.folder / f"{name}.onnx", 1) for name in ("model", "encoder"))
    return OnnxRunner(decoder, shape_of(engine), slots, CAPACITY, 8, encoder, engine.capacity)


class Serving:
    """Greedy and searched answers; `eos` and `start` are the model's."""

    def __init__(self, engine: Engine, start: int, eos: frozenset[int], slots: int = 6) -> None:
        self.runner = make_runner(engine, slots)
        recorder = Recorder(unexpected)
        self.outbox = Outbox(recorder, FakeClock())
        vocab = engine.model.vocab_size
        table = TokenTable([bytes([token % 251]) for token in range(vocab)])
        self.slots = SlotTable(slots, CAPACITY, source_capacity=engine.capacity)
        scheduler = Scheduler(self.slots, eos, 100, 8)
        self.eos = eos
        self.loop = Loop(
            scheduler, self.runner, table, vocab, self.outbox, recorder, FakeClock(),
            encoder=Encoder(10**6, start),
        )  # fmt: skip

    def ask(self, source: Sequence[int], **sampling: Any) -> Client:
        client = Client()
        self.loop.submit(Request(tuple(source), Sampling(**{"max_tokens": 16, **sampling})), client, str)
        return client

    def run(self) -> None:
        while self.loop.keys():
            self.loop.step()
        self.outbox.send_pending()

    def answer(self, source: Sequence[int], **sampling: Any) -> Answer:
        client = self.ask(source, **sampling)
        self.run()
        return answer_of(client)


def answer_of(client: Client) -> Answer:
    """The tokens of an answer that came in one chunk, without its end-of-sequence token."""
    (chunk,) = client.chunks
    return list(chunk.span.tokens), chunk.finish
