"""Scores a session of this dialect against the reference, on text that it is taught: it reads no own word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from build import verify, verify_seq2seq
from build.architecture import Model
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.dialects.tensorrt.session import Session
from build.dialects.tensorrt.sizes import Sizes
from build.errors import BuildError
from build.generation import decoder_start
from build.quantise import Floats, Ids
from build.reference import decoder, encoder_decoder
from build.verify import Quality, compare, joint

_BLOCK = 16  # positions whose logits are held and compared at a time
# One token at a time rounds otherwise than many at once; the share of the largest logit that this may cost.
_SAME = 0.1


@dataclass(frozen=True)
class Lesson:
    """`inputs` and the `labels` that follow them, [windows, positions], and what the reference makes of them.

    `hidden` is [windows, positions, hidden]; logits are hidden @ head.T + bias.
    """

    sources: Ids | None
    inputs: Ids
    labels: Ids
    hidden: Floats
    head: Floats
    bias: Floats

    def expected(self, window: int, positions: slice) -> Floats:
        """[positions, vocab]"""
        logits: Floats = self.hidden[window, positions] @ self.head.T + self.bias
        return logits


def learn(
    checkpoint: Checkpoint, model: Model, sizes: Sizes, tokens: int, advance: Callable[[], None]
) -> Lesson:
    """About `tokens` tokens of English; `advance` is called for each layer of the reference."""
    if isinstance(model, Architecture):
        ids = verify.windows(checkpoint.tokenizer.json, min(model.max_positions, sizes.capacity), tokens)
        hidden = decoder.final_hidden(checkpoint, model, ids[:, :-1], advance)
        head = decoder.head_weight(checkpoint, model)
        return Lesson(None, ids[:, :-1], ids[:, 1:], hidden, head, np.zeros(len(head), np.float32))
    start = decoder_start(checkpoint)
    taught = verify_seq2seq.lesson(checkpoint.tokenizer, model, start, tokens)
    sources = taught.sources[:, : sizes.source_capacity]
    inputs, labels = (ids[:, : sizes.capacity] for ids in (taught.inputs, taught.labels))
    hidden = encoder_decoder.final_hidden(checkpoint, model, sources, inputs, advance)
    return Lesson(sources, inputs, labels, hidden, *encoder_decoder.head_weight(checkpoint, model))


def read(session: Session, lesson: Lesson, advance: Callable[[], None]) -> Quality:
    """Of a graph that scores every position: each window at once; `advance` is called after each."""
    scores = []
    for window, inputs in enumerate(lesson.inputs):
        session.reset()
        if lesson.sources is not None:
            session.encode(0, lesson.sources[window])
        logits = session.prefill(0, inputs)
        scores.append(compare(lesson.expected(window, slice(None)), logits, lesson.labels[window]))
        advance()
    return joint(scores)


def step(session: Session, lesson: Lesson, advance: Callable[[], None]) -> Quality:
    """Of what is served: a token at a time, as many windows beside one another as there are rows."""
    scores = []
    for windows in batches(len(lesson.inputs), len(session.lengths)):
        session.reset()
        for row, window in enumerate(windows):
            if lesson.sources is not None:
                session.encode(row, lesson.sources[window])
        for block in _blocks(lesson.inputs.shape[1]):
            columns = [session.decode(ids) for ids in lesson.inputs[windows, block].T]
            for row, window in enumerate(windows):
                logits = np.stack([column[row] for column in columns])
                scores.append(compare(lesson.expected(window, block), logits, lesson.labels[window, block]))
            advance()
    return joint(scores)


def steps(lesson: Lesson, rows: int) -> int:
    """How often `step` advances."""
    return len(batches(len(lesson.inputs), rows)) * len(_blocks(lesson.inputs.shape[1]))


def batches(windows: int, rows: int) -> list[list[int]]:
    return [list(range(start, min(start + rows, windows))) for start in range(0, windows, rows)]


def read_last(session: Session, lesson: Lesson) -> Floats:
    """Logits [vocab] at the end of the first window, of a graph that scores every position."""
    _begin(session, lesson)
    last: Floats = session.prefill(0, lesson.inputs[0])[-1]
    return last


def step_last(session: Session, lesson: Lesson) -> Floats:
    """The same, a token at a time."""
    _begin(session, lesson)
    for ids in lesson.inputs[:1].T:
        logits = session.decode(ids)
    last: Floats = logits[0]
    return last


def require_same(expected: Floats, session: Session, lesson: Lesson, chunk: int, name: str) -> None:
    """BuildError unless the last row, fed in chunks and then one token, comes to the same logits.

    The rows before it decode a token of their own beside it.
    """
    row, inputs = len(session.lengths) - 1, lesson.inputs[0]
    _begin(session, lesson)
    for start in range(0, len(inputs) - 1, chunk):
        session.prefill(row, inputs[:-1][start : start + chunk])
    logits = session.decode(np.append(np.repeat(inputs[:1], row), inputs[-1]))[row]
    error = float(np.abs(logits - expected).max())
    if not error <= _SAME * float(np.abs(expected).max()):
        raise BuildError(f"verify: {name} strays by {error:.3g} when it decodes over a past")


def _begin(session: Session, lesson: Lesson) -> None:
    """Every row with the source of the first window."""
    session.reset()
    for row in range(len(session.lengths)):
        if lesson.sources is not None:
            session.encode(row, lesson.sources[0])


def _blocks(length: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, length)) for start in range(0, length, _BLOCK)]
