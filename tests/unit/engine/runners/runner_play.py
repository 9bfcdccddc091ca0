"""What a scheduler may ask of a runner, as plays: one runner against another, slot for slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from hypothesis import strategies as st

from engine.edge.artifact import Architecture, ModelShape
from engine.runners.runner import Floats, Runner

SLOTS, CAPACITY, SOURCES, CHUNK = 4, 48, 32, 8


def shape_of(decoder: ort.InferenceSession, architecture: Architecture = Architecture.DECODER) -> ModelShape:
    """The shape of a model, as its graph declares it."""
    tensors = {tensor.name: tensor for tensor in (*decoder.get_inputs(), *decoder.get_outputs())}
    _, kv_heads, _, head_dim = tensors["past_key_0"].shape
    return ModelShape(
        layers=sum(name.startswith("past_key_") for name in tensors),
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=tensors["logits"].shape[2],
        max_positions=256,
        architecture=architecture,
        max_source_positions=SOURCES if architecture is Architecture.ENCODER_DECODER else 0,
        source_vocab_size=60,
    )


def tokens_of(seed: int, length: int) -> list[int]:
    found: list[int] = np.random.default_rng(seed).integers(3, 60, length).tolist()
    return found


def fill(runner: Runner, slot: int, tokens: list[int]) -> Iterator[Floats]:
    """Prefills in chunks; the logits after each."""
    for start in range(0, len(tokens), CHUNK):
        yield runner.prefill(slot, start, tokens[start : start + CHUNK]).copy()


@dataclass(frozen=True)
class Moves:
    """Rows `a` and `b` after prompts of these lengths; `source` goes along with the copy or not."""

    lengths: tuple[int, ...]
    a: int
    b: int
    copied: tuple[int, int]
    cross: bool
    rows: int

    def of_a_decoder(self, runner: Runner) -> Iterator[Floats]:
        """All logits of: prompts, a copy and a swap of rows, and steps of some rows."""
        for slot, length in enumerate(self.lengths):
            yield from fill(runner, slot, tokens_of(slot, length))
        yield from self._then(runner, self.lengths)

    def of_an_encoder_decoder(self, runner: Runner) -> Iterator[Floats]:
        """The prompts are sources; the decoders of all slots have taken three steps."""
        for slot, length in enumerate(self.lengths):
            runner.encode(slot, tokens_of(slot, min(length, SOURCES)))
        for step in range(3):
            yield runner.decode(tokens_of(step, SLOTS), [step] * SLOTS).copy()
        yield from self._then(runner, (3,) * SLOTS)

    def _then(self, runner: Runner, lengths: tuple[int, ...]) -> Iterator[Floats]:
        start, end = (min(position, lengths[self.a]) for position in self.copied)
        if self.a != self.b:
            runner.copy(self.a, self.b, end, start=start, cross=self.cross)
        runner.swap(self.a, self.b, max(lengths))
        for step in range(3):
            positions = [length + step for length in lengths[: self.rows]]
            yield runner.decode(tokens_of(step, self.rows), positions).copy()


_slots = st.integers(0, SLOTS - 1)
moves = st.builds(
    Moves,
    lengths=st.tuples(*[st.integers(1, CAPACITY - 4)] * SLOTS),
    a=_slots,
    b=_slots,
    copied=st.tuples(st.integers(0, CAPACITY), st.integers(0, CAPACITY)).map(
        lambda both: (min(both), max(both))
    ),
    cross=st.booleans(),
    rows=st.integers(1, SLOTS),
)


def compare(play: Callable[[Runner], Iterator[Floats]], one: Runner, other: Runner, tolerance: float) -> None:
    for found, wanted in zip(play(one), play(other), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)
