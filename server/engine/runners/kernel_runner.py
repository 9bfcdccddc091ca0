"""The runner on our own kernels, for int8 decoders of the Llama line.

One call computes any tokens of any slots. The logits of a token are the same to the last bit whatever else is
in the call, in a chunk of any size or alone. Keys and values are half floats.

Weights are mapped, not read: the kernels pack those of products when they open the model, and the embedding's
rows are read where a token needs one.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.core.errors import ArtifactError
from engine.runners.kernels import INDEX, SIZES, Json, Layer, Model, Product, read_index
from engine.runners.runner import Floats, Run

WEIGHTS: Final = "model.onnx.data"
_NUMBERS: Final = ("epsilon", "head_epsilon", "scale", "crest", "embedding_scale")
_TABLES: Final = ("embedding", "cosines", "sines", "final_norm")
_NORMS: Final = ("input_norm", "query_norm", "key_norm", "ffn_norm")
_PRODUCTS: Final = ("qkv", "output", "gate", "up", "down")


def read_sizes(folder: Path) -> Model:
    """A model without its weights: enough to ask the kernels what it takes. Raises ArtifactError."""
    index = read_index(folder)
    return Model(**{name: index[name] for name in SIZES})


class KernelWeights:
    """`model` points into memory that this object keeps."""

    def __init__(self, folder: Path, positions: int | None = None) -> None:
        """Raises ArtifactError for an index or weights that cannot be read, or that do not fit together."""
        self._kept: list[NDArray[Any]] = []
        index = read_index(folder, positions)
        try:
            self._bytes = np.memmap(folder / WEIGHTS, np.uint8, "r")
            self.model = self._model(index)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(INDEX, f"cannot be used ({error!r}); build the model again") from error

    def drop_products(self) -> None:
        """Drops the joined weights: the kernels have packed them and do not read them again."""
        self._kept.clear()

    def _model(self, index: Json) -> Model:
        layers = (Layer * index["layers"])(*map(self._layer, index["layer"]))
        numbers = {name: index[name] for name in (*SIZES, *_NUMBERS)}
        tables = {name: self._floats(index[name]).ctypes.data for name in _TABLES}
        return Model(**numbers, **tables, layer=layers, head=self._product(index["head"]))

    def _layer(self, layer: Json) -> Layer:
        norms = {name: layer[name] and self._floats(layer[name]).ctypes.data for name in _NORMS}
        return Layer(**norms, **{name: self._product(layer[name]) for name in _PRODUCTS})

    def _product(self, parts: Sequence[Json]) -> Product:
        weight = self._together([self._array(part["weight"], np.dtype(np.int8)) for part in parts])
        scales = self._together([self._floats(part["scales"]) for part in parts])
        biases = [self._floats(part["bias"]) for part in parts if part["bias"]]
        bias = self._together(biases).ctypes.data if biases else None
        return Product(weight.ctypes.data, scales.ctypes.data, bias, weight.shape[1], weight.shape[0])

    def _together(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        if len(parts) == 1:
            return parts[0]
        self._kept.append(np.concatenate(parts, axis=-1))
        return self._kept[-1]

    def _floats(self, place: Json) -> NDArray[Any]:
        return self._array(place, np.dtype(np.float32))

    def _array(self, place: Json, dtype: np.dtype[Any]) -> NDArray[Any]:
        start = place["offset"]
        end = start + math.prod(place["shape"]) * dtype.itemsize
        if not 0 <= start <= end <= self._bytes.size or start % dtype.itemsize:
            raise ValueError(f"bytes {start} to {end} of {self._bytes.size}")
        return self._bytes[start:end].view(dtype).reshape(place["shape"])


# Keys stand in blocks of so many positions, dimension by dimension: a block is scored at once.
BLOCK = 16


class KernelRunner:
    """Raises ArtifactError when there is no memory for the packed weights, or no thread."""

    def __init__(
        self, library: ctypes.CDLL, weights: KernelWeights, slots: int, capacity: int, threads: int
    ) -> None:
        model = weights.model
        self._vocab = model.vocab
        self._weights = weights
        self._library = library
        layers, heads, size = model.layers, model.kv_heads, model.head_dim
        capacity = -(-capacity // BLOCK) * BLOCK
        # np.zeros maps pages that cost no memory before they are written: an unused slot is free.
        cache = np.zeros((layers, 2, slots, heads, capacity * size), np.float16)
        self._keys = cache[:, 0].reshape(layers, slots, heads, capacity // BLOCK, size, BLOCK)
        self._values = cache[:, 1].reshape(layers, slots, heads, capacity, size)
        address = cache.ctypes.data
        self._decoder = library.halimede_open(ctypes.byref(model), address, slots, capacity, threads)
        if not self._decoder:
            raise ArtifactError("kernels", "no memory for the packed weights, or no threads")
        weakref.finalize(self, library.halimede_close, self._decoder)
        weights.drop_products()
        self._logits: Floats = np.zeros((slots, self._vocab), np.float32)

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> Floats:
        rows = range(len(tokens))
        return self._run(tokens, rows, positions, rows)

    def prefill(self, slot: int, start: int, tokens: Sequence[int]) -> Floats:
        count = len(tokens)
        return self._run(tokens, [slot] * count, range(start, start + count), [count - 1])

    def verify(self, runs: Sequence[Run]) -> Floats:
        tokens = [token for run in runs for token in run.tokens]
        rows = [run.row for run in runs for _ in run.tokens]
        positions = [run.start + i for run in runs for i in range(len(run.tokens))]
        ends = accumulate(len(run.tokens) for run in runs)
        wanted = [at for run, end in zip(runs, ends, strict=True) for at in range(end - run.logits, end)]
        return self._run(tokens, rows, positions, wanted)

    def encode(self, slot: int, tokens: Sequence[int]) -> None:
        raise AssertionError(f"a decoder has no encoder for {len(tokens)} tokens of slot {slot}")

    def copy(self, source: int, target: int, tokens: int, *, start: int = 0, cross: bool = True) -> None:  # noqa: ARG002
        if start >= tokens:
            return
        self._values[:, target, :, start:tokens] = self._values[:, source, :, start:tokens]
        # Positions after the last token may be copied too: each is written before it is read.
        first, offset, end = start // BLOCK, start % BLOCK, -(-tokens // BLOCK)
        self._keys[:, target, :, first, :, offset:] = self._keys[:, source, :, first, :, offset:]
        self._keys[:, target, :, first + 1 : end] = self._keys[:, source, :, first + 1 : end]

    def swap(self, a: int, b: int, tokens: int) -> None:
        for cache, count in ((self._values, tokens), (self._keys, -(-tokens // BLOCK))):
            kept = cache[:, a, :, :count].copy()
            cache[:, a, :, :count] = cache[:, b, :, :count]
            cache[:, b, :, :count] = kept

    def _run(
        self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int], wanted: Sequence[int]
    ) -> Floats:
        ids, places, at, rows = (np.array(each, np.int32) for each in (tokens, slots, positions, wanted))
        if len(rows) > len(self._logits):
            self._logits = np.zeros((len(rows), self._vocab), np.float32)
        logits = self._logits[: len(rows)]
        failed = self._library.halimede_run(
            self._decoder, len(ids), ids.ctypes.data, places.ctypes.data, at.ctypes.data,
            len(rows), rows.ctypes.data, logits.ctypes.data,
        )  # fmt: skip
        if failed:
            raise MemoryError(f"no memory for a step of {len(ids)} tokens")
        return logits
