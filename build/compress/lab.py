"""A recipe's chain, put together: what its steps read, where they are kept, and how each is measured.

Every step is measured against its parent and against the root, by the reference in fp32. The engine that is
built of the last one is measured against the root again, and must keep to the recipe's budget.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from build import verify
from build.architecture import describe, describe_model
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.compress import drift
from build.compress.chain import Chain, Machine
from build.compress.corpus import default_texts
from build.compress.drift import Scoring
from build.compress.measure import Reader, Reading, ReferenceReader, Vocabulary, compare, passages
from build.compress.plan import Step
from build.compress.step import Kind, Tools
from build.compress.store import Store
from build.container import container
from build.errors import BadInput, Unsupported
from build.quantise import Precision
from safety.evaluate.items import Answers
from safety.filter.overlap import overlaps

Json = dict[str, Any]
CACHE = Path(".cache/compress")
ENGLISH = "english"
# Passages of each text and tokens of each: the standard error of a ratio is then about 0.01.
_PASSAGES, _TOKENS = 6, 512
# Checkpoints are published in 16 bits: the size that a budget of bytes compares with.
_HALF = 2


@dataclass(frozen=True)
class Compressed:
    """What a chain made. `precision` is None where no step has rounded, `carried` whether engines take the
    checkpoint's own blocks.
    """

    checkpoint: Checkpoint
    lineage: list[Json]
    precision: Precision | None
    carried: bool
    judge: Judge

    def measured(self, open_engine: Callable[[int], verify.Session], weights: int) -> Json:
        """The engine of so many bytes against the root."""
        reader = EngineReader(self.checkpoint, open_engine(2 * self.judge.tokens))
        return self.judge.figures(reader, self.checkpoint) | {"bytes": self.judge.share_of(weights)}


def compress(
    steps: Sequence[Step],
    root: Checkpoint,
    scored: Mapping[str, str],
    stage: Callable[[str, int], Callable[[], None]],
    say: Callable[[str], None],
    folder: Path = CACHE,
) -> Compressed:
    """Runs the steps. `scored` are texts by name, besides the build's own English.

    Raises BadInput for what can be refused before the long work, BuildError where a step exceeds its budget.
    """
    if not isinstance(describe_model(root.config), Architecture):
        raise Unsupported("step: chains are for decoders, this checkpoint is an encoder-decoder")
    scored = {ENGLISH: verify.prose(), **scored}
    texts = apart(default_texts(), verify.prose())
    require_apart(texts, scored)
    judge = Judge(root, scored)
    chain = Chain(
        steps=tuple(steps),
        source=root,
        store=Store(folder, root),
        tools=Tools(texts, 0, stage),
        measure=judge.of_step,
        machine=Machine(container().free_memory, speed()),
        say=say,
    )
    chain.require()
    made, lineage = chain.run()
    rounds = steps[-1].does.KIND is Kind.QUANTISE
    return Compressed(made, lineage, _precision(made) if rounds else None, _in_blocks(made) and rounds, judge)


def apart(texts: Sequence[str], scored: str) -> tuple[str, ...]:
    """Without those that share 13 words in a row with the scored text: docstrings quote the documentation."""
    sharing = {found.text for found in overlaps(texts, [scored])}
    return tuple(text for number, text in enumerate(texts) if number not in sharing)


def require_apart(read: Sequence[str], scored: Mapping[str, str]) -> None:
    """BadInput for a scored text that shares 13 words in a row with one that passes read."""
    for name, text in scored.items():
        found = next(iter(overlaps(read, [text])), None)
        if found is not None:
            raise BadInput(
                f"texts: what passes read and the scored text {name} both have {found.words!r}: score on"
                " another text, or take it out of the corpus (python -m safety filter --evaluation)"
            )


class Judge:
    """Compares readers with the root, whose answers are computed once."""

    def __init__(self, root: Checkpoint, scored: Mapping[str, str]) -> None:
        self._root, self._reader = root, ReferenceReader(root)
        # In another vocabulary a passage has more tokens than in the root's, by far less than twice as many.
        self.tokens = min(_TOKENS, describe(root.config).max_positions // 2)
        self._texts = {
            name: passages(self._reader.vocabulary, text, _PASSAGES, self.tokens)
            for name, text in scored.items()
        }

    def of_step(self, made: Checkpoint, parent: Checkpoint, _root: Checkpoint) -> Json:
        """Against the parent and the root."""
        reader = ReferenceReader(made)
        against_root = self.figures(reader, made)
        if parent is self._root:
            return {"against_parent": against_root, "against_root": against_root}
        before = ReferenceReader(parent)
        return {
            "against_parent": self._figures(reader, made, before, parent),
            "against_root": against_root,
        }

    def figures(self, reader: Reader, checkpoint: Checkpoint) -> Json:
        """Against the root."""
        return self._figures(reader, checkpoint, self._reader, self._root)

    def share_of(self, weights: int) -> float:
        """Bytes, as a share of the root's parameters in 16 bits."""
        count = sum(math.prod(weight.shape) for weight in self._root.weights.values())
        return round(weights / (_HALF * count), 4)

    @cached_property
    def _answers(self) -> Answers:
        return self._asked(self._reader, self._root)

    def _asked(self, reader: Reader, checkpoint: Checkpoint) -> Answers:
        return drift.answers(Scoring.of(reader, checkpoint), drift.items())

    def _figures(self, reader: Reader, checkpoint: Checkpoint, other: Reader, before: Checkpoint) -> Json:
        """What budgets limit; of several texts the worst counts."""
        losses = {name: compare(other, reader, pieces) for name, pieces in self._texts.items()}
        first = self._answers if before is self._root else self._asked(other, before)
        moved = drift.flips(drift.items(), first, self._asked(reader, checkpoint))
        return {
            "perplexity": round(max(loss.ratio for loss in losses.values()), 5),
            "kl": round(max(loss.kl for loss in losses.values()), 5),
            **moved,
            "texts": {name: loss.rounded() for name, loss in losses.items()},
        }


class EngineReader:
    """An engine that gives logits for all positions of a prompt."""

    def __init__(self, checkpoint: Checkpoint, session: verify.Session) -> None:
        self._session = session
        self.vocabulary = Vocabulary(checkpoint.tokenizer.json, describe(checkpoint.config).vocab_size)

    def read(self, passages: Sequence[Sequence[int]]) -> Iterator[Reading]:
        for passage in passages:
            self._session.reset()
            logits = self._session.prefill(0, np.asarray(passage, np.int64))
            yield Reading(passage, logits.__getitem__)


def speed() -> float:
    """Multiplications and additions of fp32 a second, by one product of matrices."""
    size = 768
    a, b = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
    a @ b
    began = time.perf_counter()
    for _ in range(4):
        a @ b
    return 4 * size**3 / (time.perf_counter() - began)


def _in_blocks(checkpoint: Checkpoint) -> bool:
    return not any(weight.read_rows for weight in checkpoint.weights.values())


def _precision(checkpoint: Checkpoint) -> Precision:
    blocks = (weight.read_blocks for weight in checkpoint.weights.values() if weight.read_blocks)
    return Precision.INT4 if any(read().bits == 4 for read in blocks) else Precision.INT8
