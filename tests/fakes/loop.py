"""Stand-ins for what the engine needs: a toy language model over a literal KV cache, a clock, clients."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from engine.core.errors import EngineError
from engine.core.request import FinishReason, Request, Sampling
from engine.core.scheduler import Scheduler
from engine.core.sequence import TOGETHER
from engine.core.sequence import Sequence as SequenceInEngine
from engine.core.slots import SlotTable
from engine.core.stops import TextStream
from engine.core.tokens import TokenTable, Vocabulary
from engine.edge.artifact import Manifest
from engine.edge.chunks import Chunk, Outbox, decode_chunk
from engine.edge.metrics import Recorder
from engine.edge.settings import Footprint
from engine.loop import Loop
from engine.runners.opening import Opened
from engine.runners.runner import Floats, Run, Runner
from engine.sampling.beams import BeamSearch
from engine.streams import Encoder

EOS: Final = 0
START: Final = 3
DIVIDER: Final = 77
GARBAGE: Final = -1
# Whole characters and parts of some, words, leading spaces, bytes that are never UTF-8; token 0 is special.
TOY_TABLE: Final = TokenTable([
    b"", b"a", b"b", b"c", b"ab", b"ba", b" a", b" the", b"\n", b"STOP", b"ST", b"OP", b"S", b"P",
    b"\xc3", b"\xa9", b"\xc3\xa9", b"\xe2", b"\x82", b"\xac", b"\xe2\x82", b"\xf0\x9f", b"\x98\x80",
    b"\xf0", b"\x9f\x98", b"\xff", b"\xed\xa0", b" \xe2\x82\xac", b"end", b"nd.", b".", b"!",
])  # fmt: skip
VOCAB: Final = len(TOY_TABLE)


def unexpected(error: BaseException) -> NoReturn:
    """What reports go to when nothing may go wrong."""
    raise error


def text_of(tokens: Sequence[int]) -> str:
    return TOY_TABLE.join(tokens).decode("utf-8", "replace")


class ToyModel:
    """Logits are a function of all tokens before, so any mistake in the KV cache changes an answer."""

    def __init__(self, vocab: int = VOCAB, seed: int = 1) -> None:
        self.vocab = vocab
        self._table = (3 * np.random.default_rng(seed).standard_normal((509, vocab))).astype(np.float32)

    def logits(self, tokens: NDArray[np.int32]) -> Floats:
        row: Floats = self._table[zlib.crc32(tokens.tobytes()) % len(self._table)]
        return row

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The `count` tokens that follow the prompt, one sequence alone, without a KV cache."""
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(int(self.logits(np.array(tokens, np.int32)).argmax()))
        return tokens[len(prompt) :]


def seen(source: Sequence[int], tokens: Sequence[int]) -> NDArray[np.int32]:
    """All that the toy model knows: with an encoder the source comes before the decoder's tokens."""
    return np.array([*source, *([DIVIDER] if source else []), *tokens], np.int32)


def searched_alone(
    prompt: Sequence[int], sampling: Sampling, capacity: int, eos: frozenset[int], encoder: bool = False
) -> tuple[str, int, FinishReason]:
    """The answer of a beam search whose beams share nothing: text, number of tokens, finish reason."""
    source, given = (prompt, [START]) if encoder else ((), list(prompt))
    model, longest = ToyModel(), min(len(given) + sampling.max_tokens, capacity)
    search = BeamSearch(sampling, tuple(given), longest, Vocabulary(VOCAB, eos))
    rows = [list(given) for _ in range(sampling.num_beams)]
    while not search.done:
        branches = search.advance(np.stack([model.logits(seen(source, row)) for row in rows]))
        rows = [[*rows[parent], token] for parent, token in branches]
    tokens = search.best.tokens if search.best else ()
    ended = bool(tokens) and tokens[-1] in eos and not sampling.ignore_eos
    text = text_of(tokens[:-1] if ended else tokens)
    return text, len(tokens), FinishReason.STOP if ended else FinishReason.LENGTH


def answer_alone(
    prompt: Sequence[int],
    sampling: Sampling,
    capacity: int,
    eos: frozenset[int] = frozenset(),
    encoder: bool = False,
) -> tuple[str, int, FinishReason]:
    """The greedy answer to one prompt by the plainest means: text, number of tokens, finish reason."""
    source, tokens = (prompt, [START]) if encoder else ((), list(prompt))
    model, data = ToyModel(), b""
    for count in itertools.count(1):
        logits = model.logits(seen(source, tokens)).copy()
        logits[sorted(eos) if count <= sampling.min_tokens else []] = -np.inf
        token = int(logits.argmax())
        tokens.append(token)
        if token in eos and not sampling.ignore_eos:
            return data.decode("utf-8", "replace"), count, FinishReason.STOP
        for byte in TOY_TABLE[token]:
            data += bytes([byte])
            found = [len(w.encode()) for w in sampling.stop_words if data.endswith(w.encode())]
            if found and count >= sampling.min_tokens:
                text = data[: -max(found)].decode("utf-8", "replace")
                return text, count, FinishReason.STOP_SEQUENCE
        if count == sampling.max_tokens or len(tokens) == capacity:
            return data.decode("utf-8", "replace"), count, FinishReason.LENGTH
    raise AssertionError


class ToyRunner:
    """A runner whose KV cache is the tokens themselves. It carries out every move to the letter.

    An operation named in `faults` raises, having spoilt what it may write; `poison` names slots whose logits
    are NaN.
    The logits of all calls share one buffer: what is kept past the next call goes wrong.
    """

    def __init__(self, slots: int, capacity: int, model: ToyModel | None = None) -> None:
        self.model = model or ToyModel()
        self.rows = np.full((slots, capacity), GARBAGE, np.int32)
        self.sources: list[tuple[int, ...]] = [()] * slots
        self.calls: list[str] = []
        self.faults: dict[str, Exception] = {}
        self.poison: set[int] = set()
        self.prefilled = 0
        self._logits = np.zeros((max(slots, TOGETHER), self.model.vocab), np.float32)

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Floats:
        self.calls.append("decode")
        rows = range(len(tokens))
        self.rows[rows, positions] = tokens
        self._break("decode", [(row, slice(p, p + 1)) for row, p in zip(rows, positions, strict=True)])
        return self._answer([(row, position + 1) for row, position in zip(rows, positions, strict=True)])

    def prefill(self, slot: int, start: int, tokens: Sequence[int]) -> Floats:
        self.calls.append("prefill")
        self.prefilled += len(tokens)
        end = start + len(tokens)
        self.rows[slot, start:end] = tokens
        self._break("prefill", [(slot, slice(start, end))])
        return self._answer([(slot, end)])

    def verify(self, runs: Sequence[Run]) -> Floats:
        self.calls.append("verify")
        self.prefilled += sum(len(run.tokens) for run in runs if run.wanted is not None)
        for run in runs:
            self.rows[run.row, run.start : run.start + len(run.tokens)] = run.tokens
        both = any(run.wanted is not None for run in runs)
        self._break(
            "both" if both else "verify", [(r.row, slice(r.start, r.start + len(r.tokens))) for r in runs]
        )
        ends = [(run, run.start + len(run.tokens)) for run in runs]
        return self._answer([(r.row, at + 1) for r, end in ends for at in range(end - r.logits, end)])

    def encode(self, slot: int, tokens: Sequence[int]) -> None:
        self.calls.append("encode")
        self.sources[slot] = tuple(tokens)
        if fault := self.faults.pop("encode", None):
            self.sources[slot] = (GARBAGE,)
            raise fault

    def copy(self, source: int, target: int, tokens: int, *, start: int = 0, cross: bool = True) -> None:
        self.calls.append("copy")
        self.rows[target, start:tokens] = self.rows[source, start:tokens]
        if cross:
            self.sources[target] = self.sources[source]
        self._break("copy", [(target, slice(start, tokens))])

    def swap(self, a: int, b: int, tokens: int) -> None:
        self.calls.append("swap")
        self.rows[[a, b], :tokens] = self.rows[[b, a], :tokens]
        self.sources[a], self.sources[b] = self.sources[b], self.sources[a]
        self._break("swap", [(a, slice(0, tokens)), (b, slice(0, tokens))])

    def _answer(self, ends: Iterable[tuple[int, int]]) -> Floats:
        count = 0
        for count, (row, end) in enumerate(ends, 1):
            poisoned = row in self.poison
            known = seen(self.sources[row], self.rows[row, :end].tolist())
            self._logits[count - 1] = np.nan if poisoned else self.model.logits(known)
        return self._logits[:count]

    def _break(self, operation: str, written: list[tuple[int, slice]]) -> None:
        if fault := self.faults.pop(operation, None):
            for row, part in written:
                self.rows[row, part] = GARBAGE
            raise fault


def opened(manifest: Manifest, runner: Runner, **more: Any) -> Opened:
    """An engine as it is opened on a device that has memory enough."""
    return Opened(manifest, runner, Footprint(manifest.shape), **more)


def sequence_of(key: int, prompt: list[int], **sampling: Any) -> SequenceInEngine:
    """A sequence as the loop hands it to the scheduler."""
    request = Request(tuple(prompt), Sampling(**{"max_tokens": 8, **sampling}))
    words = tuple(word.encode() for word in request.sampling.stop_words)
    return SequenceInEngine(key, request, TextStream(TOY_TABLE, words), list(prompt))


class FakeClock:
    """Nanoseconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now

    def advance(self, milliseconds: float) -> None:
        self.now += int(milliseconds * 1_000_000)


class Client:
    """A responder that keeps all it is sent."""

    def __init__(self, key: int = 0) -> None:
        self.key = key
        self.chunks: list[Chunk] = []
        self.errors: list[EngineError] = []
        self.finals = 0
        self.late = 0  # parcels after the final one

    def send(self, chunk: Chunk, final: bool) -> None:
        self.late += self.finals
        self.finals += final
        self.chunks.append(chunk)

    def fail(self, error: EngineError) -> None:
        self.late += self.finals
        self.finals += 1
        self.errors.append(error)

    @property
    def done(self) -> bool:
        return self.finals > 0

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def texts(self) -> list[str]:
        return [decode_chunk(c.to_json().encode(), TOY_TABLE).answer.text for c in self.chunks]

    @property
    def tokens(self) -> int:
        return sum(chunk.tokens for chunk in self.chunks)

    @property
    def finish(self) -> FinishReason | None:
        return self.chunks[-1].finish if self.chunks else None

    @property
    def error(self) -> str:
        assert len(self.errors) <= 1
        return str(self.errors[0]) if self.errors else ""


class ToyEngine:
    """The real loop, scheduler, slots, sampler and outbox around a toy runner; `step` empties the outbox.

    With a `source_capacity` it is an encoder-decoder.
    """

    def __init__(
        self,
        slots: int = 4,
        capacity: int = 64,
        max_queue: int = 8,
        chunk: int = 8,
        eos: frozenset[int] = frozenset(),
        min_reuse: int = 4,
        source_capacity: int = 0,
        stream_interval: int = 0,
        speculative_tokens: int = 0,
        model: ToyModel | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.runner = ToyRunner(slots, capacity, model)
        self.faults: list[BaseException] = []
        self.recorder = Recorder(self.faults.append)
        self.outbox = Outbox(self.recorder, self.clock)
        table = SlotTable(slots, capacity, min_reuse, source_capacity)
        self.scheduler = Scheduler(table, eos, max_queue, chunk, speculative_tokens=speculative_tokens)
        self.loop = Loop(
            self.scheduler, self.runner, TOY_TABLE, VOCAB, self.outbox, self.recorder, self.clock,
            encoder=Encoder(VOCAB, START) if source_capacity else None, stream_interval=stream_interval,
        )  # fmt: skip
        self.clients: list[Client] = []
        self.steps = 0

    def ask(
        self,
        prompt: Sequence[int],
        stream: bool = True,
        timeout_ms: int | None = None,
        open_ended: bool = False,
        **sampling: Any,
    ) -> Client:
        """Submit a request; raises what `Loop.submit` raises."""
        now, client = self.clock(), Client()
        request = Request(
            prompt=tuple(prompt),
            sampling=Sampling(**{"max_tokens": 8, **sampling}),
            stream=stream,
            arrival_ns=now,
            deadline_ns=None if timeout_ms is None else now + timeout_ms * 1_000_000,
            timeout_us=None if timeout_ms is None else timeout_ms * 1000,
            open_ended=open_ended,
        )
        client.key = self.loop.submit(request, client, lambda key: f"toy/{key}")
        self.clients.append(client)
        return client

    def step(self, send: bool = True) -> bool:
        self.steps += 1
        ran = self.loop.step()
        if send:
            self.outbox.send_pending()
        return ran

    def run(self, limit: int = 2000, send: bool = True) -> int:
        """Step until every request has ended; returns the number of steps."""
        before = self.steps
        while self.loop.keys():
            assert self.steps - before < limit, "the engine does not come to an end"
            self.step(send)
        self.outbox.send_pending()
        return self.steps - before

    def counter(self, name: str, **labels: str) -> int:
        """A counter of everything recorded since the last look at any metric."""
        return self.recorder.drain().counters.get((name, tuple(labels.items())), 0)
