"""Steps through a graph of this dialect as the server does, on any executor: for verification."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from build.quantise import Floats, Ids

Feeds = Mapping[str, NDArray[Any]]


class Profile(IntEnum):
    """The optimisation profiles of a plan, by their index."""

    DECODE = 0
    PREFILL = 1


class Executor(Protocol):
    """A graph and its caches, [rows, kv_heads, capacity, size], which it writes in place.

    Of an encoder-decoder it is both graphs, and the caches of cross-attention.
    """

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the graph's inputs."""

    @property
    def capacity(self) -> int: ...

    @property
    def source_capacity(self) -> int:
        """Source tokens that fit, 0 for a decoder alone."""

    def encode(self, feeds: Feeds, row: int) -> None:
        """Runs the encoder, whose outputs become the row's keys and values of cross-attention."""

    def run(self, profile: Profile, feeds: Feeds, rows: slice, /) -> Floats:
        """Logits [rows, 1 or seq, vocab] of a step of these rows; `feeds` has every input but the caches."""


class Session:
    """`rows` sequences of up to `capacity` positions; `lengths` holds how many each has.

    `sources` holds the lengths of what they were made from, where there is an encoder.
    """

    def __init__(self, executor: Executor, rows: int = 1) -> None:
        self._executor = executor
        self.capacity = executor.capacity
        self.lengths = np.zeros(rows, np.int64)
        self.sources = np.zeros(rows, np.int64)
        # `attention_mask` sees all that came before, `attention_mask_N` the last N positions.
        self._masks: dict[str, int | None] = {}
        for name in executor.inputs:
            if name.startswith("attention_mask"):
                window = name.removeprefix("attention_mask").lstrip("_")
                self._masks[name] = int(window) if window else None

    def encode(self, row: int, ids: Ids) -> None:
        """A new source for one row, whose tokens are forgotten."""
        assert 0 < len(ids) <= self._executor.source_capacity
        seen = np.ones((1, 1, len(ids), len(ids)), np.bool_)
        self._executor.encode({"input_ids": ids[None, :], "attention_mask": seen}, row)
        self.sources[row], self.lengths[row] = len(ids), 0

    def prefill(self, row: int, ids: Ids) -> Floats:
        """Logits [1 or seq, vocab] after appending the ids to one row."""
        logits: Floats = self._run(Profile.PREFILL, slice(row, row + 1), ids[None, :])[0]
        return logits

    def decode(self, ids: Ids) -> Floats:
        """Logits [n, vocab] after appending one id to each of the first n rows."""
        logits: Floats = self._run(Profile.DECODE, slice(0, len(ids)), ids[:, None])[:, -1]
        return logits

    def reset(self) -> None:
        self.lengths[:] = 0

    def _run(self, profile: Profile, rows: slice, ids: Ids) -> Floats:
        starts = self.lengths[rows]
        positions = starts[:, None] + np.arange(ids.shape[1])
        assert positions.max() < self.capacity
        feeds = {"input_ids": ids, "position_ids": positions, "write_indices": starts}
        feeds |= {name: causal_mask(positions, self.capacity, window) for name, window in self._masks.items()}
        seen = np.arange(self._executor.source_capacity) < self.sources[rows, None]
        feeds["source_mask"] = np.repeat(seen[:, None, None, :], ids.shape[1], axis=2)
        feeds = {name: value for name, value in feeds.items() if name in self._executor.inputs}
        logits = self._executor.run(profile, feeds, rows)
        self.lengths[rows] += ids.shape[1]
        return logits


def causal_mask(positions: Ids, capacity: int, window: int | None = None) -> NDArray[np.bool_]:
    """A mask [rows, 1, seq, capacity], true where a query at one of `positions` [rows, seq] may look."""
    distance = positions[:, None, :, None] - np.arange(capacity)
    seen: NDArray[np.bool_] = distance >= 0
    return seen if window is None else seen & (distance < window)
