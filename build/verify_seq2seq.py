"""Scores the graphs of an encoder-decoder as they are served: an encoder run, then steps of a batch.

The text of `build.verify` is both source and answer. It is taught: each step reads the token of the text, not
the engine's own choice, so that one early difference does not decide the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from build.architecture.seq2seq import EncoderDecoder
from build.checkpoint import Checkpoint, TokenizerFiles
from build.dialects.onnxruntime.seq2seq_session import EncoderDecoderSession
from build.quantise import Floats, Ids
from build.reference import encoder_decoder as reference
from build.verify import Quality, compare, joint, passage_ids

_WINDOW = 256
_BLOCK = 16  # steps whose logits are held and compared at a time


@dataclass(frozen=True)
class Lesson:
    """Ids [windows, positions]: the answer is read as `inputs`, start token first, and scored as `labels`."""

    sources: Ids
    inputs: Ids
    labels: Ids

    @property
    def steps(self) -> int:
        """How often `measure` advances beyond the layers of the reference."""
        return len(self.sources) + len(_blocks(self.labels.shape[1]))


def lesson(tokenizer: TokenizerFiles, model: EncoderDecoder, start: int, tokens: int) -> Lesson:
    """About `tokens` tokens of English; `start` is the token a decoder begins with."""
    positions = min(model.encoder.max_positions, model.decoder.max_positions)
    length = min(_WINDOW, positions, tokens)
    count = max(1, tokens // length)
    sources = passage_ids(tokenizer.json, count, length)
    labels = passage_ids(tokenizer.target or tokenizer.json, count, length)
    inputs = np.concatenate([np.full((len(labels), 1), start), labels[:, :-1]], axis=1)
    return Lesson(sources, inputs, labels)


def measure(
    checkpoint: Checkpoint,
    model: EncoderDecoder,
    folder: Path,
    taught: Lesson,
    advance: Callable[[], None],
) -> Quality:
    """Runs both; `advance` is called for each layer of both stacks, then `taught.steps` times."""
    hidden = reference.final_hidden(checkpoint, model, taught.sources, taught.inputs, advance)
    weight, bias = reference.head_weight(checkpoint, model)
    rows, length = taught.labels.shape
    session = EncoderDecoderSession(folder, model, length, taught.sources.shape[1], rows)
    for row, source in enumerate(taught.sources):
        session.encode(row, source)
        advance()
    scores = []
    for block in _blocks(length):
        actual = np.stack([session.decode(ids) for ids in taught.inputs[:, block].T], axis=1)
        expected = hidden[:, block] @ weight.T + bias
        scores.append(compare(_flat(expected), _flat(actual), taught.labels[:, block].reshape(-1)))
        advance()
    return joint(scores)


def _blocks(length: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, length)) for start in range(0, length, _BLOCK)]


def _flat(logits: Floats) -> Floats:
    return logits.reshape(-1, logits.shape[-1])
